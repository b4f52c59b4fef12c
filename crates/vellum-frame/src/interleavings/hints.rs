//! Advice that is taken back while it becomes true again: it is there in the end, so that nobody
//! has to read all words for want of it.

use super::{Room, World, address, explore, store_again};
use crate::access::Atomic;
use crate::hint::{Hints, UNSORTED, words_for};
use crate::level::Want;
use crate::sync::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;
use loom::thread;
use std::rc::Rc;

/// Whether the hints of `level` lead to a run of `run`.
fn is_hinted(world: &World, level: usize, run: u8) -> bool {
    let want = Want { run, last: u64::MAX };
    let found = world.tree().levels[level].take_hinted::<Atomic>(want, None);
    found.is_some_and(|pfn| {
        let order = run + world.tree().levels[level].shift;
        world.got(address(pfn), order);
        true
    })
}

/// A search takes back the hint for `retracted` while a block of `order` is freed.
fn comes_back(retracted: u8, order: u8, others: &'static [(u64, u8)]) {
    explore(move || {
        let world = World::with_free(128, others);
        // What is hinted at is taken: the hint is stale.
        world.free(16, order);
        let want = crate::bits::run_mask(16, order);
        world.pass(16, order, false);
        assert_eq!(world.tree().cell(0).fetch_and(!want, SeqCst) & want, want);
        world.race(
            move |w| w.tree().levels[0].retract::<Atomic>(retracted, 0),
            move |w| w.free(16, order),
        );
        assert!(is_hinted(&world, 0, order));
        world.check();
    });
}

#[test]
fn a_hint_at_a_frame_that_is_taken_back_comes_back_with_a_free() {
    comes_back(0, 0, &[]);
}

#[test]
fn a_hint_at_a_run_that_is_taken_back_comes_back_with_a_free() {
    comes_back(3, 3, &[(32, 1)]);
}

#[test]
fn hints_that_are_taken_back_all_at_once_come_back_with_a_free() {
    // Nothing else is free in its group.
    comes_back(3, 3, &[]);
    comes_back(3, 1, &[]);
}

#[test]
fn a_hint_above_that_is_taken_back_comes_back_with_a_promotion() {
    explore(|| {
        let world = World::with_free(128, &[(0, 5), (32, 5)]);
        world.tree().levels[1].note_around::<Atomic>(0, 1, 0);
        let (_, pair) = world.race(|w| w.tree().levels[1].retract::<Atomic>(0, 0), |w| w.alloc(7));
        assert!(pair.is_none());
        assert!(is_hinted(&world, 1, 0));
        world.check();
    });
}

#[test]
fn a_group_that_is_sorted_has_what_is_freed_meanwhile() {
    explore(|| {
        // One frame makes the group unsorted; another makes a pair of it.
        let world = World::with_free(128, &[(16, 0)]);
        world.race(|w| assert!(w.tree().levels[0].sort_next::<Atomic>()), |w| w.free(17, 0));
        assert!(is_hinted(&world, 0, 1));
        world.check();
    });
}

#[test]
fn a_search_in_vain_leaves_a_hint_at_what_is_freed_meanwhile() {
    explore(|| {
        let world = World::with_free(128, &[(16, 0)]);
        let (pair, _) = world.race(|w| w.alloc(1), |w| w.free(17, 0));
        assert!(pair.is_some() || is_hinted(&world, 0, 1));
        world.check();
    });
}

#[test]
fn two_searches_leave_a_hint_at_what_is_freed_meanwhile() {
    explore(|| {
        let world = World::with_free(128, &[(16, 0)]);
        let other = Rc::clone(&world);
        world.race(
            |w| w.tree().levels[0].retract::<Atomic>(1, 0),
            move |w| {
                let sort = thread::spawn(move || other.tree().levels[0].sort_next::<Atomic>());
                w.free(17, 0);
                sort.join().unwrap();
            },
        );
        assert!(is_hinted(&world, 0, 1));
        world.check();
    });
}

/// Hints over rows and `tiers` tiers, in which `group` may be set, and its last row was and is
/// empty, with all bits above it still set.
fn with_stale_tiers(tiers: usize, group: usize) -> Rc<Stale> {
    let len = if tiers == 1 { 64 } else { 8 * 65 };
    let room = Room::new((0..words_for(1, len)).map(|_| AtomicU64::new(0)).collect());
    // SAFETY: they stay in the `Stale`, whose threads hold it until they end.
    let words = unsafe { room.words() };
    let hints = Hints::new(words, 1, len as usize).unwrap();
    hints.set::<Atomic>(1 << KIND, group);
    hints.clear::<Atomic>(1 << KIND, group);
    store_again(words);
    Rc::new(Stale { hints, _room: room })
}

const KIND: u8 = 2;

struct Stale {
    hints: Hints<'static>,
    _room: Room,
}

#[test]
fn an_upper_hint_that_is_lowered_is_raised_by_what_is_set_meanwhile() {
    for (tiers, group) in [(1, 9), (2, 8 * 64)] {
        explore(move || {
            let stale = with_stale_tiers(tiers, group);
            let other = Rc::clone(&stale);
            let search = thread::spawn(move || other.hints.first::<Atomic>(KIND));
            stale.hints.set::<Atomic>(1 << KIND | 1 << UNSORTED, group);
            let found = search.join().unwrap();
            assert!(found.is_none_or(|found| found == group));
            assert_eq!(stale.hints.first::<Atomic>(KIND), Some(group));
            assert_eq!(stale.hints.first::<Atomic>(UNSORTED), Some(group));
        });
    }
}

#[test]
fn two_rows_are_set_while_what_is_above_them_is_lowered() {
    explore(|| {
        let stale = with_stale_tiers(2, 8);
        let (other, third) = (Rc::clone(&stale), Rc::clone(&stale));
        let search = thread::spawn(move || other.hints.first::<Atomic>(KIND));
        let set = thread::spawn(move || third.hints.set::<Atomic>(1 << KIND, 8));
        stale.hints.set::<Atomic>(1 << KIND, 16);
        search.join().unwrap();
        set.join().unwrap();
        assert_eq!(stale.hints.first::<Atomic>(KIND), Some(8));
        stale.hints.clear::<Atomic>(1 << KIND, 8);
        assert_eq!(stale.hints.first::<Atomic>(KIND), Some(16));
    });
}

#[test]
fn two_searches_lower_one_hint_while_it_is_set() {
    explore(|| {
        let stale = with_stale_tiers(1, 9);
        let (other, third) = (Rc::clone(&stale), Rc::clone(&stale));
        let first = thread::spawn(move || other.hints.first::<Atomic>(KIND));
        let second = thread::spawn(move || third.hints.first::<Atomic>(KIND));
        stale.hints.set::<Atomic>(1 << KIND, 9);
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(stale.hints.first::<Atomic>(KIND), Some(9));
    });
}
