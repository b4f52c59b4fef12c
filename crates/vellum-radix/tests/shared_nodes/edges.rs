//! Where sharing meets the rest: ends of the address space, pinned parts, flushes that are owed already,
//! fresh entries, callbacks that panic.

use super::{BASE, X64, va};
use super::{COW, MIB2, PAGE, fork, live, retire, with_pages};
use core::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use vellum_core::{
    Attr, Cause, Change, Direct, Entry, Flush, Gone, PageTable, PhysAddr, RangeError, Ref, Run,
    VirtAddr, Walk,
};
use vellum_radix::{AArch64, Format, Radix, RiscV, X86, X86_64, X86Pae};
use vellum_testkit::Arena;
use vellum_testkit::checker::Checker;
use vellum_testkit::suite::{Recorder, recording};

type Table<'a, F> = Radix<F, &'a Arena>;
type Arm = AArch64<12, 48>;
/// Of which absence may be cached.
type Sv39 = RiscV<3, 0>;

fn pair<F: Format>(arena: &Arena) -> (Table<'_, F>, Table<'_, F>) {
    (Radix::new(arena).expect("room"), Radix::new(arena).expect("room"))
}

fn run(at: u64, frame: u64, pages: u64, attr: Attr) -> Run {
    Run::new(VirtAddr::new(at), PhysAddr::new(frame), pages * PAGE, attr)
}

/// Where the lowest node for an address lies.
fn node_of<F: Format>(table: &Table<'_, F>, at: VirtAddr) -> PhysAddr {
    let mut last = PhysAddr::new(0);
    table.walk(at, &mut |r: Ref| last = r.pa).expect("canonical");
    last.align_down(12)
}

/// Forks the node that ends at `end`, where 0 is 2<sup>64</sup>.
fn fork_ends_at<F: Format>(end: u64, node: u64, attr: Attr) {
    let arena = Arena::new(64);
    let (mut parent, mut child) = pair::<F>(&arena);
    let first = end.wrapping_sub(node);
    assert_eq!(live(|g| parent.map(run(first, 1 << 30, node / PAGE, attr), g)), Ok(()));
    let shared = live(|childs| {
        let at = VirtAddr::new(first);
        live(|g| parent.share_nodes(at, node, g, (&mut child, childs), &mut |_| panic!("copied")))
    });
    assert_eq!(shared, Ok(()));
    let mut told = 0;
    let unshared =
        live(|g| child.unshare(VirtAddr::new(first), node, g, &mut |span| told += span.len));
    assert_eq!((unshared, told), (Ok(()), node));
    assert_eq!((retire(parent), retire(child)), (node / PAGE, node / PAGE));
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn the_last_node_of_a_space_is_shared_as_any_other() {
    fork_ends_at::<X86_64<4>>(1 << 47, MIB2, Attr::RW | Attr::USER);
    fork_ends_at::<X86_64<4>>(0, MIB2, Attr::RW);
    fork_ends_at::<Arm>(1 << 48, MIB2, Attr::RW | Attr::USER);
    fork_ends_at::<X86>(1 << 32, 4 << 20, Attr::RWX | Attr::USER);
    fork_ends_at::<X86Pae>(1 << 32, MIB2, Attr::RW | Attr::USER);
}

/// The root of two levels links lowest nodes, and copies of its entries would not be counted.
#[test]
fn a_part_with_shared_nodes_is_not_pinned() {
    let arena = Arena::new(2048);
    let at = VirtAddr::new(0xc000_0000);
    let (mut parent, mut child) = pair::<X86>(&arena);
    assert_eq!(live(|g| parent.map(run(at.as_u64(), 1 << 30, 1024, Attr::RWX), g)), Ok(()));
    let shared = live(|childs| {
        live(|g| parent.share_nodes(at, 4 << 20, g, (&mut child, childs), &mut |_| {}))
    });
    assert_eq!(shared, Ok(()));
    assert_eq!(parent.pin_from(at), Err(Cause::Shared(at)));
    assert_eq!(live(|g| parent.unshare(at, PAGE, g, &mut |_| {})), Ok(()));
    assert_eq!(parent.pin_from(at), Ok(()));
    assert_eq!((retire(parent), retire(child)), (1024, 1024));
    assert_eq!(arena.frames_in_use(), 0);
}

/// What the child's gather owes goes out before the child gets something else at the same place.
#[test]
fn a_child_is_flushed_before_it_gets_other_pages() {
    let arena = Arena::new(64);
    for whole in [false, true] {
        let (mut parent, mut child) = pair::<Arm>(&arena);
        let (at, pages) = if whole { (VirtAddr::new(0), 512) } else { (VirtAddr::new(PAGE), 1) };
        // Frames that make no group, which would be copied.
        let frame = |n: u64| (n << 30) + PAGE;
        let mapped = live(|g| parent.map(run(at.as_u64(), frame(1), pages, Attr::RW), g));
        assert_eq!(mapped, Ok(()));
        assert_eq!(live(|g| child.map(run(0, frame(2), 513, Attr::RW), g)), Ok(()));
        let checker = Checker::new(&child, &arena, &[at]).with_breaks(true);
        let mut childs = checker.gather::<_, 4>(|_| {});
        assert_eq!(child.unmap(at, pages * PAGE, &mut childs), Ok(()));
        let shared = live(|g| {
            let child = (&mut child, &mut childs);
            if whole {
                parent.share_nodes(at, MIB2, g, child, &mut |_| panic!("copied"))
            } else {
                parent.share(at, PAGE, COW, g, child, &mut |_| {})
            }
        });
        let seen = checker.check(&child);
        childs.finish();
        assert_eq!((shared, seen), (Ok(()), Ok(())), "whole node: {whole}");
        retire(parent);
        retire(child);
    }
    assert_eq!(arena.frames_in_use(), 0);
}

fn covered(flushes: &[Flush], at: u64, global: bool) -> bool {
    flushes.iter().any(|flush| flush.covers(VirtAddr::new(at)) && flush.global >= global)
}

/// A right that makes a page usable in the parent owes what a new page owes, and so does every page of
/// the child, as global as it is.
fn fresh_is_owed<F: Format>() {
    let arena = Arena::new(64);
    let (mut parent, mut child) = pair::<F>(&arena);
    let (at, change) = (VirtAddr::new(PAGE), Change::setting(Attr::READ));
    assert_eq!(live(|g| parent.map(run(PAGE, 1 << 30, 1, Attr::GLOBAL), g)), Ok(()));
    assert_eq!(live(|g| child.map(run(0, 2 << 30, 1, Attr::READ), g)), Ok(()));
    let (mine, theirs) = (Recorder::default(), Recorder::default());
    let shared = recording(&theirs, |childs| {
        recording(&mine, |g| parent.share(at, PAGE, change, g, (&mut child, childs), &mut |_| {}))
    });
    assert_eq!(shared, Ok(()));
    assert!(covered(&mine.take_flushes(), PAGE, false), "of the parent");
    assert!(covered(&theirs.take_flushes(), PAGE, true), "of the child");
    retire(parent);
    retire(child);
}

#[test]
fn what_becomes_usable_is_fresh_in_both() {
    fresh_is_owed::<Sv39>();
    fresh_is_owed::<Arm>();
}

/// Whatever was given before a panic of the callback is counted, and what it took is flushed.
#[test]
fn a_panic_of_who_is_told_leaves_both_tables_whole() {
    let arena = Arena::new(64);
    let (mut parent, mut child) = pair::<Arm>(&arena);
    // Two runs: the callback hears of the first before the second is given.
    for (at, frame) in [(0, 1 << 30), (PAGE, 3 << 30)] {
        assert_eq!(live(|g| parent.map(run(at, frame, 1, Attr::RW), g)), Ok(()));
    }
    // SAFETY: no CPU has the child.
    let mut direct = unsafe { Direct::new(|_| {}) };
    let mut node = None;
    for _ in 0..4 {
        let recorder = Recorder::default();
        recording(&recorder, |g| {
            let share = AssertUnwindSafe(|| {
                let child = (&mut child, &mut direct);
                parent.share(VirtAddr::new(0), MIB2, COW, g, child, &mut |_| panic!("told"))
            });
            assert!(catch_unwind(share).is_err());
        });
        assert!(node.is_some() || covered(&recorder.take_flushes(), 0, false), "it was writable");
        assert!(child.translate(VirtAddr::new(0)).is_some());
        // The count of the node must not have run into its address.
        let now = node_of(&child, VirtAddr::new(0));
        assert_eq!(*node.get_or_insert(now), now);
        // A page stays, so that the node does.
        if child.translate(VirtAddr::new(2 * PAGE)).is_none() {
            assert_eq!(child.map(run(2 * PAGE, 5 << 30, 1, Attr::RW), &mut direct), Ok(()));
        }
        assert_eq!(child.unmap(VirtAddr::new(0), 2 * PAGE, &mut direct), Ok(()));
    }
    assert_eq!((retire(parent), retire(child)), (2, 1));
    assert_eq!(arena.frames_in_use(), 0);
}

/// References that were not raised are not lowered: the copy is not there yet when they are.
#[test]
fn a_panic_in_the_midst_of_a_copy_leaves_the_node_shared() {
    let arena = Arena::new(64);
    let mut parent = with_pages(&arena, 512);
    let mut child = X64::new(&arena).expect("room");
    fork(&mut parent, &mut child, &Recorder::default());
    let in_use = arena.frames_in_use();
    // SAFETY: no CPU has it.
    let mut direct = unsafe { Direct::new(|_| {}) };
    let unshare =
        AssertUnwindSafe(|| child.unshare(va(0), MIB2, &mut direct, &mut |_| panic!("told")));
    assert!(catch_unwind(unshare).is_err());
    assert_eq!(node_of(&parent, va(0)), node_of(&child, va(0)));
    assert_eq!((retire(child), retire(parent)), (0, 512));
    // The frame of the copy that was not finished.
    assert_eq!(arena.frames_in_use(), 1);
    assert!(in_use > 1);
}

/// Arm's processors keep interior entries over a fault: a right that comes back is flushed.
#[test]
fn a_node_that_is_taken_over_is_flushed_where_faults_drop_no_links() {
    let arena = Arena::new(64);
    let (mut parent, mut child) = pair::<Arm>(&arena);
    let at = VirtAddr::new(BASE);
    assert_eq!(live(|g| parent.map(run(BASE, (1 << 30) + PAGE, 512, Attr::RW), g)), Ok(()));
    let shared = live(|childs| {
        live(|g| parent.share_nodes(at, MIB2, g, (&mut child, childs), &mut |_| panic!("copied")))
    });
    assert_eq!(shared, Ok(()));
    assert_eq!(retire(child), 0);
    let recorder = Recorder::default();
    let unshared = recording(&recorder, |g| parent.unshare(at, PAGE, g, &mut |_| panic!("copied")));
    assert_eq!(unshared, Ok(()));
    assert!(recorder.take_flushes().iter().any(|flush| flush.has_tables() && flush.covers(at)));
    retire(parent);
}

/// A harvest through one table is one through all, and says so by what it leaves.
#[test]
fn status_is_that_of_the_node() {
    let arena = Arena::new(64);
    let (mut parent, mut child) = pair::<X86_64<4>>(&arena);
    let attr = Attr::RW | Attr::STATUS;
    assert_eq!(live(|g| parent.map(run(BASE, 1 << 30, 512, attr), g)), Ok(()));
    let shared = live(|childs| {
        live(|g| parent.share_nodes(va(0), MIB2, g, (&mut child, childs), &mut |_| {}))
    });
    assert_eq!(shared, Ok(()));
    let mut told = 0;
    let harvested = live(|g| child.harvest(va(0), MIB2, Attr::ACCESSED, g, &mut |_| told += 1));
    assert_eq!((harvested, told), (Ok(()), 512));
    for table in [&parent, &child] {
        let Entry::Leaf(_, attr) = table.walk(va(9), &mut ()).expect("canonical").entry else {
            panic!("a page is there")
        };
        assert_eq!(attr & Attr::STATUS, Attr::DIRTY);
    }
    assert_eq!((retire(parent), retire(child)), (0, 512));
}

/// Large leaves take the place of shared nodes that are empty, in one table after the other.
fn large_over_empty<F: Format>(page: u8) {
    let arena = Arena::new(64);
    let (mut parent, mut child) = pair::<F>(&arena);
    let at = VirtAddr::new(1 << 30);
    assert_eq!(live(|g| parent.map(run(1 << 30, (1 << 30) + PAGE, 1, Attr::RW), g)), Ok(()));
    let entry = parent.walk(at, &mut ()).expect("canonical").entry;
    let mut stock = parent.stock();
    let emptied = live(|g| parent.replace(at, PAGE, entry, Entry::Hole, &mut stock, g));
    assert_eq!(emptied, Ok(()), "through a shared reference, so that the node stays");
    let shared = live(|childs| {
        live(|g| parent.share_nodes(at, MIB2, g, (&mut child, childs), &mut |_| panic!("told")))
    });
    assert_eq!(shared, Ok(()));
    let node = node_of(&parent, at);
    assert_eq!(node_of(&child, at), node);
    let large = run(1 << 30, 4 << 30, 1 << (page - 12), Attr::RW).with_leaves_up_to(page);
    assert_eq!(live(|g| child.map(large, g)), Ok(()));
    assert!(arena.is_in_use(node), "the parent links it");
    assert_eq!(live(|g| parent.map(large, g)), Ok(()));
    assert!(!arena.is_in_use(node));
    let pages = 1 << (page - 12);
    assert_eq!((retire(parent), retire(child)), (pages, pages));
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn large_leaves_take_the_place_of_shared_nodes_that_are_empty() {
    for page in [21, 30] {
        large_over_empty::<X86_64<4>>(page);
        large_over_empty::<Arm>(page);
    }
}

/// A parent whose own old link is still in an open gather gets the node back from its child.
#[test]
fn a_node_goes_back_to_the_table_that_it_came_from() {
    let arena = Arena::new(64);
    let mut parent = with_pages(&arena, 512);
    let mut child = X64::new(&arena).expect("room");
    fork(&mut parent, &mut child, &Recorder::default());
    let recorder = Recorder::default();
    recording(&recorder, |g| {
        assert_eq!(parent.unmap(va(0), MIB2, g), Ok(()));
        let shared = live(|childs| {
            child.share_nodes(va(0), MIB2, childs, (&mut parent, g), &mut |_| panic!("copied"))
        });
        assert_eq!(shared, Ok(()));
    });
    assert!(recorder.take_gone().iter().all(|gone| !matches!(gone, Gone::Run(_))));
    assert_eq!(retire(parent), 0);
    assert_eq!(live(|g| child.unshare(va(0), MIB2, g, &mut |_| panic!("copied"))), Ok(()));
    assert_eq!(retire(child), 512);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn an_unmap_ends_exactly_where_a_shared_node_begins() {
    let arena = Arena::new(64);
    let mut parent = with_pages(&arena, 1024);
    let mut child = X64::new(&arena).expect("room");
    fork(&mut parent, &mut child, &Recorder::default());
    let unmapped = live(|g| child.unmap(va(0), MIB2 + PAGE, g));
    assert_eq!(unmapped, Err(RangeError { cause: Cause::Shared(va(512)), done: MIB2 }));
    assert_eq!((retire(child), retire(parent)), (0, 1024));
    assert_eq!(arena.frames_in_use(), 0);
}
