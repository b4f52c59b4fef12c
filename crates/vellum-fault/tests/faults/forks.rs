//! Forks of more than a few pages, which may link whole parts of the table: what parent and children see,
//! and what is counted, is the same whether a design does that or not.

use crate::common::{Host, Spaces, anon, audit, fault, get, page, put};
use core::ops::ControlFlow;
use std::sync::Barrier;
use std::thread;
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, Walk};
use vellum_fault::{Access, Engine, FaultError, Mmu, Region, Rights, RssKind, Sharing, System};

/// Three of x86-64's lowest nodes.
const PAGES: u64 = 3 * 512;
/// How far apart the pages are that are written.
const STEP: u64 = if cfg!(miri) { 256 } else { 32 };
/// How many these are.
const COUNT: u64 = PAGES / STEP;

fn written() -> impl Iterator<Item = u64> {
    (0..PAGES).step_by(STEP as usize)
}

fn store<T: PageTable>(mmu: &mut Mmu<'_, Host<'_, T>>, n: u64, byte: u8) {
    fault(mmu, &anon(PAGES), page(n), Access::Write).unwrap();
    put(mmu, page(n), byte);
}

fn byte(n: u64) -> u8 {
    (n / STEP) as u8 | 1
}

/// A parent with some pages, and a child of it.
fn forked<'e, 's, T: PageTable>(
    parent: &mut Mmu<'e, Host<'s, T>>,
    child: &mut Mmu<'e, Host<'s, T>>,
) {
    for n in written() {
        store(parent, n, byte(n));
    }
    parent.copy_to(child, &anon(PAGES)).unwrap();
}

fn links<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>) -> bool {
    // SAFETY: it is read only.
    let table = unsafe { mmu.root_table() };
    table.next_linked(page(0), PAGES * PAGE_SIZE).is_some()
}

fn both_see_what_was_there_and_what_they_store<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, second]: Spaces<'_, '_, T>,
) {
    forked(&mut parent, &mut child);
    audit(engine, &[&parent, &child, &second]);
    assert_eq!(child.rss().pages(RssKind::Anon), COUNT);
    for n in written().step_by(3) {
        store(&mut child, n, 200);
        audit(engine, &[&parent, &child, &second]);
    }
    store(&mut parent, STEP, 100);
    for n in written() {
        let theirs = if (n / STEP).is_multiple_of(3) { 200 } else { byte(n) };
        let own = if n == STEP { 100 } else { byte(n) };
        assert_eq!((get(&parent, page(n)), get(&child, page(n))), (own, theirs), "page {n}");
    }
    audit(engine, &[&parent, &child, &second]);
}

/// The first store after the child has gone makes nothing: the pages are the parent's alone.
fn a_parent_has_its_pages_back_when_its_children_are_gone<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, mut second]: Spaces<'_, '_, T>,
) {
    forked(&mut parent, &mut child);
    parent.copy_to(&mut second, &anon(PAGES)).unwrap();
    drop(child);
    audit(engine, &[&parent, &second]);
    second.zap(page(0), PAGES * PAGE_SIZE).unwrap();
    assert_eq!(second.rss().resident(), 0);
    audit(engine, &[&parent, &second]);
    let frames = engine.system().ram().frames_in_use();
    for n in written() {
        store(&mut parent, n, 9);
    }
    assert_eq!(engine.system().ram().frames_in_use(), frames);
    audit(engine, &[&parent, &second]);
}

/// A load is resolved with others in the space; a store to what is linked takes it for oneself, once.
fn a_store_is_exclusive_only_where_parts_are_linked<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, _]: Spaces<'_, '_, T>,
) {
    forked(&mut parent, &mut child);
    assert_eq!(links(&parent), links(&child));
    child.fault(&anon(PAGES), page(0), Access::Read).unwrap();
    assert_eq!(get(&child, page(0)), byte(0));
    let stored = child.fault(&anon(PAGES), page(0), Access::Write);
    assert_eq!(stored == Err(FaultError::Exclusive), links(&child), "{stored:?}");
    store(&mut child, 0, 7);
    // Of the same node, and now its own.
    child.fault(&anon(PAGES), page(STEP), Access::Write).unwrap();
    audit(engine, &[&parent, &child]);
}

/// What is unmapped whole costs no copy, and the others keep it.
fn a_child_unmaps_what_others_have<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, mut second]: Spaces<'_, '_, T>,
) {
    forked(&mut parent, &mut child);
    child.copy_to(&mut second, &anon(PAGES)).unwrap();
    let ram = engine.system().ram();
    if links(&child) {
        ram.limit(Some(0));
    }
    // Two nodes whole.
    child.zap(page(0), 1024 * PAGE_SIZE).unwrap();
    ram.limit(None);
    audit(engine, &[&parent, &child, &second]);
    assert_eq!(child.rss().pages(RssKind::Anon), COUNT - 1024 / STEP);
    // From the middle of one to that of another.
    second.zap(page(STEP), 600 * PAGE_SIZE).unwrap();
    audit(engine, &[&parent, &child, &second]);
    for n in written() {
        let there = second.table().translate(page(n)).is_some();
        assert_eq!(there, !(STEP..STEP + 600).contains(&n), "page {n}");
        assert_eq!(get(&parent, page(n)), byte(n));
    }
}

fn what_is_done_to_the_child_is_not_seen_by_the_parent<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, second]: Spaces<'_, '_, T>,
) {
    type Act<'e, 's, T> = fn(&mut Mmu<'e, Host<'s, T>>);
    let acts: [Act<'_, '_, T>; 7] = [
        |mmu| mmu.protect(page(5), 9 * PAGE_SIZE, Rights::NONE, Sharing::Private).unwrap(),
        |mmu| mmu.guard(page(2 * STEP), 3 * PAGE_SIZE).unwrap(),
        |mmu| mmu.relocate(page(0), page(9 << 18 | 3), 600 * PAGE_SIZE).unwrap(),
        |mmu| mmu.zap_pages(page(STEP), 9 * PAGE_SIZE).unwrap(),
        |mmu| mmu.give_up(page(0), PAGES * PAGE_SIZE).unwrap(),
        |mmu| mmu.let_go(page(0), PAGES * PAGE_SIZE, true, &mut |_| {}).unwrap(),
        |mmu| mmu.unguard(page(0), PAGES * PAGE_SIZE).unwrap(),
    ];
    forked(&mut parent, &mut child);
    let entries = |mmu: &Mmu<'_, Host<'_, T>>| {
        let mut all = Vec::new();
        let note = &mut |span: vellum_core::Span| {
            for i in 0..span.len / PAGE_SIZE {
                let va = span.va.wrapping_add(i * PAGE_SIZE);
                let Entry::Leaf(pa, attr) = span.entry else { panic!("{span:?}") };
                // Whether it may be written now, or after a fault, and dirty.
                all.push((va, pa.wrapping_add(i * PAGE_SIZE), attr - Attr::WRITE));
            }
            ControlFlow::Continue(())
        };
        mmu.visit(page(0), PAGES * PAGE_SIZE, note).unwrap();
        all
    };
    let before = entries(&parent);
    assert_eq!(before.len() as u64, COUNT);
    for act in acts {
        act(&mut child);
        audit(engine, &[&parent, &child, &second]);
        assert_eq!(entries(&parent), before);
        child.zap(page(0), 1 << 40).unwrap();
        parent.copy_to(&mut child, &anon(PAGES)).unwrap();
    }
}

/// A page that others have by the same leaf is not reclaimed, and one that nobody else has any more is.
fn only_what_is_alone_goes_out<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, _]: Spaces<'_, '_, T>,
) {
    forked(&mut parent, &mut child);
    let swap = engine.system().swap();
    assert_eq!(child.page_out(page(0), |_| panic!("the parent has it, too")), Ok(false));
    let let_go = child.let_go(page(0), PAGES * PAGE_SIZE, true, &mut |va| panic!("{va} went"));
    assert_eq!(let_go, Ok(()));
    drop(child);
    assert_eq!(parent.page_out(page(0), |bytes| Some(swap.store(bytes))), Ok(true));
    audit(engine, &[&parent]);
    fault(&mut parent, &anon(PAGES), page(0), Access::Read).unwrap();
    assert_eq!(get(&parent, page(0)), byte(0));
}

/// Places in swap are named by parents and children, and come back in each.
fn what_is_out_comes_back_in_both<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, mut second]: Spaces<'_, '_, T>,
) {
    let swap = engine.system().swap();
    for n in written() {
        store(&mut parent, n, byte(n));
        if n.is_multiple_of(2 * STEP) {
            assert_eq!(parent.page_out(page(n), |bytes| Some(swap.store(bytes))), Ok(true));
        }
    }
    parent.copy_to(&mut child, &anon(PAGES)).unwrap();
    assert_eq!(child.rss().pages(RssKind::Swap), COUNT / 2);
    child.copy_to(&mut second, &anon(PAGES)).unwrap();
    audit(engine, &[&parent, &child, &second]);
    for n in written() {
        for mmu in [&mut second, &mut parent] {
            fault(mmu, &anon(PAGES), page(n), Access::Read).unwrap();
            assert_eq!(get(mmu, page(n)), byte(n));
        }
        audit(engine, &[&parent, &child, &second]);
    }
    drop((parent, second));
    for n in written() {
        store(&mut child, n, 5);
    }
    audit(engine, &[&child]);
}

/// Where both places are equally aligned, whole nodes move: without memory, and linked as they are.
fn what_is_linked_moves<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, second]: Spaces<'_, '_, T>,
) {
    forked(&mut parent, &mut child);
    let there = |n: u64| page((9 << 9) + n);
    // The nodes above are made beforehand.
    child.guard(there(0), PAGE_SIZE).unwrap();
    child.unguard(there(0), PAGE_SIZE).unwrap();
    let ram = engine.system().ram();
    if T::PART > 0 {
        ram.limit(Some(0));
    }
    child.relocate(page(0), there(0), PAGES * PAGE_SIZE).unwrap();
    ram.limit(None);
    audit(engine, &[&parent, &child, &second]);
    let region = Region { start: there(0), ..anon(PAGES) };
    for n in written() {
        assert_eq!(child.table().translate(page(n)), None);
        assert_eq!((get(&parent, page(n)), get(&child, there(n))), (byte(n), byte(n)), "page {n}");
        fault(&mut child, &region, there(n), Access::Write).unwrap();
        put(&child, there(n), 77);
    }
    audit(engine, &[&parent, &child, &second]);
    assert!(written().all(|n| get(&parent, page(n)) == byte(n)));
    // With ends that are not whole.
    child.relocate(there(100), page(100), 1200 * PAGE_SIZE).unwrap();
    audit(engine, &[&parent, &child, &second]);
    for n in written() {
        let moved = (100..1300).contains(&n);
        assert_eq!(get(&child, if moved { page(n) } else { there(n) }), 77, "page {n}");
        assert_eq!(child.table().translate(if moved { there(n) } else { page(n) }), None);
    }
}

fn three_spaces_part_at_once<T: PageTable + Send + Sync>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, mut second]: Spaces<'_, '_, T>,
) {
    for _ in 0..if cfg!(miri) { 1 } else { 4 } {
        forked(&mut parent, &mut child);
        child.copy_to(&mut second, &anon(PAGES)).unwrap();
        let start = Barrier::new(3);
        thread::scope(|scope| {
            for (mmu, value) in [(&mut parent, 100), (&mut child, 150), (&mut second, 200)] {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    for n in written() {
                        store(mmu, n, value);
                        assert_eq!(get(mmu, page(n)), value);
                    }
                });
            }
        });
        for (mmu, value) in [(&parent, 100), (&child, 150), (&second, 200)] {
            assert!(written().all(|n| get(mmu, page(n)) == value), "{value}");
        }
        audit(engine, &[&parent, &child, &second]);
        for mmu in [&mut parent, &mut child, &mut second] {
            mmu.zap(page(0), PAGES * PAGE_SIZE).unwrap();
        }
    }
}

crate::common::on_every_design!(
    both_see_what_was_there_and_what_they_store,
    a_parent_has_its_pages_back_when_its_children_are_gone,
    a_store_is_exclusive_only_where_parts_are_linked,
    a_child_unmaps_what_others_have,
    what_is_done_to_the_child_is_not_seen_by_the_parent,
    only_what_is_alone_goes_out,
    what_is_out_comes_back_in_both,
    what_is_linked_moves,
    a_small_region_has_its_node_for_itself,
    three_spaces_part_at_once,
);

/// A region that has a node for itself is linked as if it filled it, and goes like that; what comes into the
/// rest of the node later is nobody else's.
fn a_small_region_has_its_node_for_itself<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut parent, mut child, mut second]: Spaces<'_, '_, T>,
) {
    let small = Region { start: page(20), len: 100 * PAGE_SIZE, ..anon(0) };
    let behind = Region { start: page(300), len: 100 * PAGE_SIZE, ..anon(0) };
    for n in 20..120 {
        fault(&mut parent, &small, page(n), Access::Write).unwrap();
        put(&parent, page(n), n as u8);
    }
    // What is left of the child's space takes nothing from the first.
    for region in [&small, &behind] {
        parent.copy_to(&mut child, region).unwrap();
        parent.copy_to(&mut second, region).unwrap();
    }
    audit(engine, &[&parent, &child, &second]);
    assert_eq!(links(&child), T::PART > 0);
    fault(&mut child, &behind, page(300), Access::Write).unwrap();
    put(&child, page(300), 9);
    assert_eq!(parent.table().translate(page(300)), None);
    assert_eq!(second.table().translate(page(300)), None);
    audit(engine, &[&parent, &child, &second]);
    // Of a part with two regions, one goes: the other stays.
    child.zap(small.start, small.len).unwrap();
    assert_eq!((child.rss().resident(), get(&child, page(300))), (1, 9));
    if T::PART > 0 {
        engine.system().ram().limit(Some(0));
    }
    second.split_ends(small.start, small.len).unwrap();
    second.zap(small.start, small.len).unwrap();
    engine.system().ram().limit(None);
    assert_eq!(second.rss().resident(), 0);
    audit(engine, &[&parent, &child, &second]);
    assert!((20..120).all(|n| get(&parent, page(n)) == n as u8));
    // Where nothing is, nothing is copied.
    let empty = (page(300), 50 * PAGE_SIZE);
    parent.copy_to(&mut second, &small).unwrap();
    engine.system().ram().limit(Some(0));
    parent.split_ends(empty.0, empty.1).unwrap();
    parent.zap(empty.0, empty.1).unwrap();
    parent.protect(empty.0, empty.1, Rights::READ, Sharing::Private).unwrap();
    engine.system().ram().limit(None);
    assert_eq!(links(&parent), T::PART > 0);
    second.zap(small.start, small.len).unwrap();
    // Half of it, by a parent that has it by itself again.
    parent.copy_to(&mut second, &small).unwrap();
    parent.zap(page(20), 50 * PAGE_SIZE).unwrap();
    audit(engine, &[&parent, &child, &second]);
    assert!((20..120).all(|n| get(&second, page(n)) == n as u8));
    assert_eq!(parent.rss().resident(), 50);
}

/// The designs of x86-64's tables do link.
mod of_radix {
    use crate::common;
    use vellum_fault::host::designs::OfLevels;

    #[test]
    fn a_fork_takes_no_node_for_each_of_its_parents() {
        common::run::<OfLevels<4>>(|engine, [mut parent, mut child, mut second]| {
            super::forked(&mut parent, &mut child);
            assert!(super::links(&parent) && super::links(&child));
            let frames = engine.system().ram().frames_in_use();
            parent.copy_to(&mut second, &super::anon(super::PAGES)).unwrap();
            // Two levels above the lowest.
            assert_eq!(engine.system().ram().frames_in_use(), frames + 2);
        });
    }
}
