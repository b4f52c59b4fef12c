//! What the buffer holds, when it forgets, and what it counts; that it agrees with the table behind
//! after every operation is in `tests/conformance.rs`.

use super::*;
use crate::testing::{RAM, asid, direct, page};
use crate::{Asid, Chained, Cuckoo, Space};
use core::cell::Cell;
use std::thread;
use std::vec::Vec;
use vellum_core::{Direct, Flush, Gone, PAGE_SIZE, Ref};
use vellum_radix::{Radix, X86_64};
use vellum_testkit::pause::Moment;
use vellum_testkit::{Arena, Pause, Stopped};

/// Entries of a buffer of one frame.
const COUNT: u64 = 256;

fn leaf(n: u64) -> Entry {
    Entry::Leaf(RAM.wrapping_add(n * PAGE_SIZE), Attr::RW)
}

fn chained<M: Memory>(table: &Chained<M>, memory: M) -> Tsb<Space<'_, Chained<M>>, M> {
    Tsb::new(table.space(asid(1)).unwrap(), TsbBuffer::new(memory, 0).unwrap())
}

/// Maps pages, each to the frame of its number.
fn map<T: PageTable>(table: &mut T, pages: core::ops::Range<u64>) {
    let count = pages.end - pages.start;
    let pa = RAM.wrapping_add(pages.start * PAGE_SIZE);
    let run = Run::new(page(pages.start), pa, count * PAGE_SIZE, Attr::RW);
    table.map(run, &mut direct()).unwrap();
}

fn entry<T: PageTable>(table: &T, n: u64) -> Entry {
    table.walk(page(n), &mut ()).unwrap().entry
}

fn set<T: PageTable>(table: &T, n: u64, expect: Entry, new: Entry) {
    let (mut stock, mut gather) = (table.stock(), direct());
    let done = table.replace_refilling(page(n), PAGE_SIZE, expect, new, &mut stock, &mut gather);
    assert_eq!(done, Ok(()));
}

#[test]
fn a_hit_reads_sixteen_bytes_and_a_miss_what_the_table_does() {
    let arena = Arena::new(64);
    let mut table =
        Tsb::new(Radix::<X86_64<4>, _>::new(&arena).unwrap(), TsbBuffer::new(&arena, 0).unwrap());
    map(&mut table, 5..6);
    let walk = |table: &Tsb<_, _>| {
        let mut refs: Vec<Ref> = Vec::new();
        let span = Walk::walk(table, page(5).wrapping_add(9), &mut |r| refs.push(r)).unwrap();
        assert_eq!((span.va, span.len, span.entry), (page(5), PAGE_SIZE, leaf(5)));
        refs.iter().map(|r| (r.bytes, r.span, r.parallel)).collect::<Vec<_>>()
    };
    let own = (16, 12, false);
    let behind = [(8, 39, false), (8, 30, false), (8, 21, false), (8, 12, false)];
    assert_eq!(walk(&table), [&behind[..], &[own]].concat());
    assert_eq!(walk(&table), [own]);
    assert_eq!((table.buffer().hits(), table.buffer().misses()), (1, 1));
    let bytes = table.table_bytes();
    assert_eq!(bytes, arena.frames_in_use() * PAGE_SIZE);
    table.retire(&mut direct());
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn pages_that_share_an_entry_take_it_from_each_other() {
    let arena = Arena::new(64);
    let shared = Chained::new(&arena).unwrap();
    let mut table = chained(&shared, &arena);
    map(&mut table, 0..2 * COUNT);
    let hits = |table: &Tsb<_, _>, n: u64| {
        let before = table.buffer().hits();
        assert_eq!(entry(table, n), leaf(n));
        table.buffer().hits() - before
    };
    let other = COUNT + 3;
    let order = [3, 3, other, other, 3, 4, other].map(|n| hits(&table, n));
    assert_eq!(order, [0, 1, 0, 1, 0, 0, 0]);
    assert_eq!(hits(&table, 4), 1);
    table.retire(&mut direct());
}

#[test]
fn only_smallest_leaves_are_kept() {
    let arena = Arena::new(64);
    let mut table =
        Tsb::new(Radix::<X86_64<4>, _>::new(&arena).unwrap(), TsbBuffer::new(&arena, 0).unwrap());
    let run = Run::new(page(512), RAM, 2 << 20, Attr::RW).with_leaves_up_to(21);
    table.map(run, &mut direct()).unwrap();
    let soft = Entry::Soft(vellum_core::Soft::new(7).unwrap());
    set(&table, 3, Entry::Hole, soft);
    for _ in 0..2 {
        let span = table.walk(page(700), &mut ()).unwrap();
        assert_eq!((span.va, span.len), (page(512), 2 << 20));
        assert_eq!((entry(&table, 3), entry(&table, 4)), (soft, Entry::Hole));
    }
    assert_eq!(table.buffer().hits(), 0);
    table.retire(&mut direct());
}

/// Each operation that changes a page forgets it, and no other.
#[test]
fn what_changes_is_forgotten_and_the_rest_is_not() {
    let arena = Arena::new(64);
    let shared = Chained::new(&arena).unwrap();
    let mut table = chained(&shared, &arena);
    map(&mut table, 0..8);
    let look = |table: &Tsb<_, _>| {
        let before = table.buffer().misses();
        let entries: Vec<_> = (0..8).map(|n| entry(table, n)).collect();
        (entries, table.buffer().misses() - before)
    };
    assert_eq!(look(&table).1, 8);
    assert_eq!(look(&table).1, 0);

    set(&table, 2, leaf(2), Entry::Leaf(RAM, Attr::READ));
    let (entries, misses) = look(&table);
    assert_eq!((entries[2], misses), (Entry::Leaf(RAM, Attr::READ), 1), "replace");

    // To widen owes no flush, so no gather hears of it.
    table.protect(page(2), PAGE_SIZE, Change::setting(Attr::WRITE), &mut direct()).unwrap();
    let (entries, misses) = look(&table);
    assert_eq!((entries[2], misses), (Entry::Leaf(RAM, Attr::RW), 1), "protect");

    table.touch(page(3), Attr::WRITE, Attr::STATUS);
    let (entries, misses) = look(&table);
    assert_eq!((entries[3], misses), (leaf(3).changed(Change::setting(Attr::STATUS)), 1), "touch");
    table.touch(page(3), Attr::WRITE, Attr::STATUS);
    assert_eq!(look(&table).1, 0, "a touch that changes nothing");

    table.harvest(page(0), 8 * PAGE_SIZE, Attr::STATUS, &mut direct(), &mut |_| {}).unwrap();
    assert_eq!(look(&table).0[3], leaf(3), "harvest");

    table.unmap(page(4), 2 * PAGE_SIZE, &mut direct()).unwrap();
    let (entries, misses) = look(&table);
    assert_eq!((entries[4], entries[5], misses), (Entry::Hole, Entry::Hole, 2), "unmap");
    map(&mut table, 4..6);
    assert_eq!((look(&table).0[4], look(&table).1), (leaf(4), 0), "holes are not kept");

    let mut child = Tsb::new(shared.space(asid(2)).unwrap(), TsbBuffer::new(&arena, 0).unwrap());
    let change = Change::clearing(Attr::WRITE);
    let both = (&mut child, &mut direct());
    table.share(page(0), 2 * PAGE_SIZE, change, &mut direct(), both, &mut |_| {}).unwrap();
    let (entries, misses) = look(&table);
    assert_eq!((entries[0], misses), (leaf(0).changed(change), 2), "share");
    assert_eq!(entry(&child, 0), leaf(0).changed(change));
    child.retire(&mut direct());
    table.retire(&mut direct());
}

#[test]
fn a_range_longer_than_the_buffer_is_forgotten_whole() {
    let arena = Arena::new(64);
    let buffer = TsbBuffer::new(&arena, 0).unwrap();
    let held = || (0..2 * COUNT).filter(|&n| buffer.look_up(page(n), 12).is_ok()).count() as u64;
    let fill = || {
        for n in 0..COUNT {
            let version = buffer.look_up(page(n), 12).unwrap_err();
            buffer.fill(version, page(n), 12, 0x1003);
        }
    };
    for alone in [true, false] {
        fill();
        assert_eq!(held(), COUNT);
        // Other pages at the same places stay.
        buffer.forget(page(COUNT)..=page(2 * COUNT), 12, alone);
        assert_eq!(held(), COUNT);
        buffer.forget(page(10)..=page(19), 12, alone);
        assert_eq!(held(), COUNT - 10);
        buffer.forget(page(0)..=VirtAddr::new(u64::MAX), 12, alone);
        assert_eq!(held(), 0);
    }
}

/// A gather that delivers at once meets nobody who still has the frame.
#[test]
fn nothing_is_delivered_that_the_buffer_has() {
    let arena = Arena::new(64);
    let buffer = TsbBuffer::new(&arena, 0).unwrap();
    for alone in [true, false] {
        for n in 0..2 {
            let version = buffer.look_up(page(n), 12).unwrap_err();
            buffer.fill(version, page(n), 12, 0x1003);
        }
        let delivered = Cell::new(0);
        let sink = |gone| {
            let Gone::Run(run) = gone else { unreachable!() };
            assert!(buffer.look_up(run.va, 12).is_err(), "{run:?} is delivered and looked up");
            delivered.set(delivered.get() + 1);
        };
        // SAFETY: there is no table.
        let mut gather = unsafe { Direct::new(sink) };
        let mut gather = Forgetting { buffer: &buffer, gather: &mut gather, page: 12, alone };
        let gather: &mut dyn Told = &mut gather;
        gather.leaf(Run::new(page(0), RAM, PAGE_SIZE, Attr::RW));
        assert!(buffer.look_up(page(1), 12).is_ok());
        gather.stale(Flush::new(page(1), PAGE_SIZE, 12, Attr::RW));
        assert!(buffer.look_up(page(1), 12).is_err());
        assert_eq!(delivered.get(), 1);
    }
}

/// The part of a gather that the test above uses, of one kind of table.
trait Told {
    fn leaf(&mut self, run: Run);
    fn stale(&mut self, flush: Flush);
}

impl<G: Gather<core::convert::Infallible>> Told for G {
    fn leaf(&mut self, run: Run) {
        Gather::leaf(self, run);
    }

    fn stale(&mut self, flush: Flush) {
        Gather::stale(self, flush);
    }
}

/// Looks a page up that is not in the buffer and, unless `harmless`, changes it before access
/// `access` of that; whether there was such an access.
fn overtake(access: i64, harmless: bool) -> bool {
    let (arena, pause) = (Arena::new(64), Pause::new());
    let memory = Stopped(&arena, &pause);
    // Its look-ups take no lock that the change could wait for.
    let shared = Cuckoo::new(memory).unwrap();
    let space = shared.space(asid(1)).unwrap();
    let table = Tsb::new(space, TsbBuffer::new(memory, 0).unwrap());
    set(&table, 1, Entry::Hole, leaf(1));
    let change = || {
        if harmless {
            return;
        }
        set(&table, 1, leaf(1), leaf(2));
        // And another page at the same place comes and goes.
        set(&table, 1 + COUNT, Entry::Hole, leaf(3));
        assert_eq!(entry(&table, 1 + COUNT), leaf(3));
    };
    let (found, came) = pause.at(Moment::before(access), || entry(&table, 1), change);
    assert!([leaf(1), leaf(2)].contains(&found), "{found:?}");
    let now = if harmless { leaf(1) } else { leaf(2) };
    for n in [1, 1] {
        assert_eq!(entry(&table, n), now, "stale, after a change before access {access}");
    }
    if !harmless {
        assert_eq!(entry(&table, 1 + COUNT), leaf(3));
    }
    table.retire(&mut direct());
    came
}

#[test]
fn what_a_look_up_has_learnt_too_early_is_not_kept() {
    let accesses = (0..).find(|&access| !overtake(access, true)).unwrap_or(0);
    assert!(accesses > 9, "it was stopped nowhere");
    // The last are to take the stripe, two words, and to give it back: a change waits for that.
    for access in 0..accesses - 3 {
        assert!(overtake(access, false));
    }
}

#[test]
fn look_ups_beside_changes_see_what_was_or_is() {
    let (rounds, readers) = if cfg!(miri) { (20, 1) } else { (20_000, 2) };
    let arena = Arena::new(64);
    let shared = Chained::new(&arena).unwrap();
    let table = chained(&shared, &arena);
    set(&table, 1, Entry::Hole, leaf(0));
    set(&table, 1 + COUNT, Entry::Hole, leaf(77));
    thread::scope(|scope| {
        for _ in 0..readers {
            scope.spawn(|| {
                let number = |entry| match entry {
                    Entry::Leaf(pa, _) => (pa.as_u64() - RAM.as_u64()) / PAGE_SIZE,
                    other => panic!("{other:?}"),
                };
                let mut last = 0;
                while last < rounds {
                    assert_eq!(number(entry(&table, 1 + COUNT)), 77);
                    let now = number(entry(&table, 1));
                    assert!(now >= last, "{now} after {last}");
                    last = now;
                }
            });
        }
        for n in 0..rounds {
            set(&table, 1, leaf(n), leaf(n + 1));
            assert_eq!(entry(&table, 1), leaf(n + 1));
        }
    });
    table.retire(&mut direct());
}

/// Uniform look-ups of N pages in E entries: a hit rate of E/N.
#[test]
#[cfg_attr(miri, ignore = "a hundred thousand look-ups")]
fn uniform_look_ups_hit_as_theory_says() {
    let pages = 16 * COUNT;
    let arena = Arena::new(256);
    let shared = Chained::with_capacity(&arena, pages).unwrap();
    let mut table = chained(&shared, &arena);
    map(&mut table, 0..pages);
    let looks = 100_000u64;
    for n in 0..looks {
        let random = vellum_global::key::mix(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        entry(&table, random % pages);
    }
    let rate = table.buffer().hits() as f64 / looks as f64;
    assert_eq!(table.buffer().hits() + table.buffer().misses(), looks);
    // Six standard deviations are .005.
    assert!((rate - 1.0 / 16.0).abs() < 0.005, "{rate}");
    table.retire(&mut direct());
}

#[test]
fn a_buffer_that_cannot_be_had_leaks_nothing() {
    let arena = Arena::new(64);
    for granted in 0..2 {
        arena.limit_allocations(Some(granted));
        assert!(TsbBuffer::new(&arena, 2).is_err());
        assert_eq!(arena.frames_in_use(), 0);
    }
    arena.limit_allocations(None);
    let buffer = TsbBuffer::new(&arena, 2).unwrap();
    assert_eq!((buffer.count(), buffer.table_bytes()), (4 * COUNT, 5 * PAGE_SIZE));
    assert_eq!(arena.frames_in_use(), 5);
    let shared = Chained::new(&arena).unwrap();
    let space = Tsb::new(shared.space(Asid::new(1).unwrap()).unwrap(), buffer).into_table();
    assert_eq!(arena.frames_in_use(), 1, "the buffer's are back");
    space.retire(&mut direct());
}
