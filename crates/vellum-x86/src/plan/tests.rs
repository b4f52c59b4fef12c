//! Plans against a TLB that forgets no more than the manual promises.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;
use vellum_core::Attr;

const FOUR_LEVELS: Canonical = Canonical::signed(48);

fn mode(pcids: bool, invpcid: bool) -> Mode {
    Mode { pcids, invpcid, globals: true, canonical: FOUR_LEVELS }
}

fn pcid(n: u16) -> Pcid {
    Pcid::new(n).unwrap()
}

fn pages(first: u64, count: u64, attr: Attr) -> Flush {
    Flush::new(VirtAddr::new(first << 12), count << 12, 12, attr)
}

fn operations(flushes: &[Flush], target: Target, mode: Mode, ceiling: u64) -> Vec<Operation> {
    let mut operations = Vec::new();
    plan(flushes, target, mode, ceiling).each(|operation| operations.push(operation));
    operations
}

/// What the MMU may have cached: a leaf, or an interior entry.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cached {
    pcid: Pcid,
    /// First and last byte that it translates or leads to.
    first: u64,
    last: u64,
    global: bool,
    interior: bool,
}

/// Whether it is gone for certain after the operation.
fn drops(operation: Operation, cached: Cached, loaded: Pcid) -> bool {
    let holds = |va: VirtAddr| cached.first <= va.as_u64() && va.as_u64() <= cached.last;
    let plain = !cached.global && !cached.interior;
    match operation {
        Operation::Page(_) if cached.interior => cached.pcid == loaded,
        Operation::Page(va) => holds(va) && (cached.global || cached.pcid == loaded),
        Operation::PageOf(pcid, va) => {
            cached.pcid == pcid && holds(va) && (plain || cached.interior)
        }
        Operation::Loaded => cached.pcid == loaded && (plain || cached.interior),
        Operation::Space(pcid) => cached.pcid == pcid && (plain || cached.interior),
        Operation::Everything => true,
    }
}

/// Whether it has to be gone.
fn must_go(flush: &Flush, cached: Cached, target: Target) -> bool {
    let ours = target.shared || cached.pcid == target.pcid || Some(cached.pcid) == target.user;
    let touched = cached.first <= flush.last.as_u64() && flush.first.as_u64() <= cached.last;
    let reached = match (cached.interior, cached.global) {
        (false, false) => flush.scope >= Scope::Leaves && ours,
        (false, true) => flush.scope >= Scope::Leaves && flush.global,
        (true, _) => flush.scope == Scope::Tables && (ours || flush.global),
    };
    touched && reached
}

#[test]
fn one_page_is_one_instruction() {
    let target = Target::current(pcid(3));
    let flush = [pages(5, 1, Attr::GLOBAL)];
    let va = VirtAddr::new(5 << 12);
    assert_eq!(operations(&flush, target, mode(true, true), 32), [Operation::Page(va)]);
    let elsewhere = Target { loaded: pcid(9), ..target };
    let found = operations(&flush, elsewhere, mode(true, true), 32);
    assert_eq!(found, [Operation::PageOf(pcid(3), va), Operation::Page(va)]);
}

#[test]
fn a_stride_is_flushed_by_leaves() {
    let huge = [Flush::new(VirtAddr::new(4 << 20), 6 << 20, 21, Attr::NONE)];
    let found = operations(&huge, Target::current(Pcid::ZERO), mode(false, false), 3);
    let expected = [4, 6, 8].map(|mib| Operation::Page(VirtAddr::new(mib << 20)));
    assert_eq!(found, expected);
}

#[test]
fn what_was_not_there_needs_no_flush() {
    let fresh = pages(1, 1 << 30, Attr::GLOBAL).with_scope(Scope::Fresh);
    let target = Target { user: Some(pcid(2049)), ..Target::current(pcid(1)) };
    assert!(plan(&[fresh], target, mode(true, false), 0).is_empty());
    assert_eq!(operations(&[], target, mode(true, true), 0), []);
    // And it does not count, beside what does.
    let both = [fresh, pages(7, 1, Attr::NONE)];
    let page = [Operation::Page(VirtAddr::new(0x7000))];
    assert_eq!(operations(&both, Target::current(pcid(1)), mode(true, true), 1), page);
}

#[test]
fn beyond_the_ceiling_it_is_the_space_or_everything() {
    let current = Target::current(pcid(4));
    let of = |attr, target, mode| operations(&[pages(0, 9, attr)], target, mode, 8);
    assert_eq!(of(Attr::NONE, current, mode(true, true)), [Operation::Loaded]);
    assert_eq!(of(Attr::GLOBAL, current, mode(true, true)), [Operation::Everything]);
    let other = Target { loaded: pcid(5), ..current };
    assert_eq!(of(Attr::NONE, other, mode(true, true)), [Operation::Space(pcid(4))]);
    // With CR4.PGE clear nothing is cached as global, whatever the entries say.
    let plain = Mode { globals: false, ..mode(false, false) };
    assert_eq!(of(Attr::GLOBAL, Target::current(Pcid::ZERO), plain), [Operation::Loaded]);
}

#[test]
fn the_halves_of_a_pair_count_twice_and_go_both() {
    let pair = Target { user: Some(pcid(2052)), ..Target::current(pcid(4)) };
    let four = [pages(0, 4, Attr::NONE)];
    assert_eq!(operations(&four, pair, mode(true, true), 8).len(), 8);
    let whole = [Operation::Loaded, Operation::Space(pcid(2052))];
    assert_eq!(operations(&four, pair, mode(true, true), 7), whole);
}

#[test]
fn without_the_instruction_another_tag_costs_everything() {
    let one = [pages(1, 1, Attr::NONE)];
    let other = Target { loaded: pcid(5), ..Target::current(pcid(4)) };
    let pair = Target { user: Some(pcid(2052)), ..Target::current(pcid(4)) };
    for target in [other, pair] {
        assert_eq!(operations(&one, target, mode(true, false), 32), [Operation::Everything]);
    }
}

#[test]
fn a_node_of_the_kernels_half_goes_under_every_tag() {
    let node = [Flush::tables(VirtAddr::new(0xffff_8000_0020_0000), 0x1000, true)];
    let target = Target::current(pcid(1));
    assert_eq!(operations(&node, target, mode(true, true), 32), [Operation::Everything]);
    // With one tag, INVLPG drops all interior entries there are.
    let found = operations(&node, Target::current(Pcid::ZERO), mode(false, true), 32);
    assert_eq!(found, [Operation::Page(node[0].first)]);
}

#[test]
fn addresses_between_the_halves_are_left_out() {
    let first = VirtAddr::new((1 << 47) - 0x1000);
    let flush =
        [Flush { last: VirtAddr::new((1 << 47) + 0xfff), ..Flush::new(first, 1, 12, Attr::NONE) }];
    let other = Target { loaded: pcid(5), ..Target::current(pcid(4)) };
    let found = operations(&flush, other, mode(true, true), 32);
    assert_eq!(found, [Operation::PageOf(pcid(4), first)]);
}

#[test]
fn a_stride_that_begins_before_the_upper_half_reaches_what_lies_in_it() {
    let first = VirtAddr::new(0xffff_8000_0000_0000);
    let flush = Flush { first, page: 48, ..pages(0, 1, Attr::RW).with_scope(Scope::Tables) };
    let flush = Flush { last: first, ..flush };
    let target = Target::current(pcid(1));
    assert_eq!(operations(&[flush], target, mode(true, true), 8), [Operation::Page(first)]);
}

#[test]
fn the_last_page_of_all_is_reached() {
    let first = VirtAddr::new(0xffff_ffff_ffff_e000);
    let flush = [Flush::new(first, 0x2000, 12, Attr::NONE)];
    let found = operations(&flush, Target::current(Pcid::ZERO), mode(false, false), 2);
    let expected = [first, first.wrapping_add(0x1000)].map(Operation::Page);
    assert_eq!(found, expected);
}

prop_compose! {
    fn any_flush()(
        first in 0u64..64, count in 1u64..20, large in any::<bool>(), global in any::<bool>(),
        scope in 0u8..3,
    ) -> Flush {
        let page = if large { 14 } else { 12 };
        let first = if large { first & !3 } else { first };
        let count = if large { count.next_multiple_of(4) } else { count };
        let attr = if global { Attr::GLOBAL } else { Attr::NONE };
        let scope = [Scope::Fresh, Scope::Leaves, Scope::Tables][usize::from(scope)];
        Flush::new(VirtAddr::new(first << 12), count << 12, page, attr).with_scope(scope)
    }
}

prop_compose! {
    fn any_target()(tag in 0u16..3, user in any::<bool>(), shared in any::<bool>(), loaded in 0u16..3) -> Target {
        Target { pcid: pcid(tag), user: user.then(|| pcid(tag + 2048)), shared, loaded: pcid(loaded) }
    }
}

/// Every leaf of the sizes that the flushes may find, every interior entry above them, and those that
/// lead to empty nodes below a leaf's size.
fn everything_cached(pcids: bool) -> Vec<Cached> {
    // Under Miri, the first few pages.
    let pages: u64 = if cfg!(miri) { 4 } else { 96 };
    let tags: &[u16] = if pcids { &[0, 1, 2, 2048, 2049, 2050] } else { &[0] };
    let mut all = Vec::new();
    for &tag in tags {
        for (shift, interior) in [(12, false), (14, false), (13, true), (14, true), (21, true)] {
            for unit in 0..(pages << 12 >> shift).max(1) {
                for global in [false, true] {
                    let (first, last) = (unit << shift, (unit << shift) + (1 << shift) - 1);
                    let global = global && !interior;
                    all.push(Cached { pcid: pcid(tag), first, last, global, interior });
                }
            }
        }
    }
    all
}

proptest! {
    #![proptest_config(crate::proptest_config())]

    #[test]
    fn nothing_that_has_to_go_stays(
        flushes in prop::collection::vec(any_flush(), 0..4),
        target in any_target(),
        (pcids, invpcid) in any::<(bool, bool)>(),
        ceiling in 0u64..80,
    ) {
        let mode = mode(pcids, invpcid);
        let operations = operations(&flushes, target, mode, ceiling);
        // Without tags, whatever is named is the one space.
        let target = if pcids { target } else { Target::current(Pcid::ZERO) };
        prop_assert!(operations.len() as u64 <= ceiling.saturating_mul(2) + 2);
        for cached in everything_cached(pcids) {
            // A leaf smaller than the stride is not what the flush is about.
            let about = |flush: &&Flush| cached.interior || cached.last - cached.first + 1 >= 1 << flush.page;
            let must = flushes.iter().filter(about).any(|flush| must_go(flush, cached, target));
            let gone = operations.iter().any(|&operation| drops(operation, cached, target.loaded));
            prop_assert!(gone || !must, "{:?} stays after {:?}", cached, operations);
        }
        for operation in operations {
            let invpcid_used = matches!(operation, Operation::PageOf(..) | Operation::Space(_));
            prop_assert!(!invpcid_used || (pcids && invpcid), "{:?}", operation);
        }
    }
}
