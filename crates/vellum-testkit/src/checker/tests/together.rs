//! Entries that may not be met together, and how a valid one has to change where that is so.

use super::{FRAME, Says, VA};
use crate::Arena;
use crate::checker::{Cached, Checker, Missed};
use core::convert::Infallible;
use vellum_core::{Attr, Entry, Flush, Gather as _, MemoryType, PAGE_SHIFT, PhysAddr};

/// A leaf of 2<sup>n</sup> bytes, or nothing.
type State = (u8, Entry);

/// Whether a page may go from one state to the other where entries are broken first: in one step,
/// with the flush owed; or by way of nothing, flushed.
fn may_become(before: State, after: State, broken: bool) -> bool {
    let arena = Arena::new(4);
    let table = Says::leaf(Attr::NONE);
    table.now(before.0, before.1);
    let checker = Checker::new(&table, &arena, &[VA]).with_breaks(true);
    let mut gather = checker.gather::<Infallible, 4>(|_| {});
    gather.stale(Flush::tables(VA, 1 << 21, true));
    if broken {
        table.now(21, Entry::Hole);
        assert_eq!(checker.check(&table), Ok(()));
        gather.drain();
        gather.stale(Flush::tables(VA, 1 << 21, true));
    }
    table.now(after.0, after.1);
    let ended = checker.check(&table);
    gather.finish();
    assert!(matches!(ended, Ok(()) | Err(Missed::Together { va: VA, .. })), "{ended:?}");
    ended.is_ok()
}

#[test]
fn what_clashes_goes_by_way_of_nothing_and_the_rest_need_not() {
    let leaf = |attr| (PAGE_SHIFT, Entry::Leaf(FRAME, attr));
    let large = (21, Entry::Leaf(PhysAddr::new(6 << 20), Attr::RW));
    let rw = Attr::RW | Attr::STATUS;
    let device = rw.with_memory(MemoryType::Uncached);
    for (before, after, clash) in [
        (leaf(rw), leaf(rw), false),
        (leaf(rw), leaf(Attr::READ), false),
        (leaf(Attr::READ), leaf(rw | Attr::SOFT[1]), false),
        (leaf(rw), (PAGE_SHIFT, Entry::Hole), false),
        (leaf(rw), leaf(device), true),
        (leaf(rw), leaf(rw | Attr::GLOBAL), true),
        (leaf(rw), (PAGE_SHIFT, Entry::Leaf(PhysAddr::new(0), rw)), true),
        (leaf(rw), (16, Entry::Leaf(FRAME, rw)), true),
        // A larger leaf where a node was, and back.
        ((PAGE_SHIFT, Entry::Hole), large, true),
        (large, leaf(rw), true),
        (large, (PAGE_SHIFT, Entry::Hole), true),
    ] {
        assert_eq!(may_become(before, after, false), !clash, "{before:?} to {after:?}");
        assert!(may_become(before, after, true), "{before:?} to {after:?}, broken");
    }
}

#[test]
fn a_node_does_not_take_the_place_of_another_that_may_be_cached() {
    let arena = Arena::new(4);
    for breaks in [false, true] {
        let table = Says::leaf(Attr::RW);
        let checker = Checker::new(&table, &arena, &[VA]).with_breaks(breaks);
        let mut gather = checker.gather::<Infallible, 4>(|_| {});
        gather.stale(Flush::tables(VA, 1 << 21, false));
        table.node.set(PhysAddr::new(5 << 20));
        let clash = |m| matches!(m, Missed::Together { cached: Cached::Link(_), .. });
        assert_eq!(checker.check(&table).is_err_and(clash), breaks);
        gather.finish();
    }
}
