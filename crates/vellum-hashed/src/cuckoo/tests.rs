//! Growth, theory, memory and threads of the cuckoo table; what every table promises is in
//! `tests/conformance.rs`.

use super::*;
use crate::testing::{RAM, Stale, Written, asid, direct, key, leaf};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::vec;
use std::vec::Vec;
use vellum_core::{Attr, PAGE_SIZE, PageTable, Run, VirtAddr, Walk};
use vellum_global::Keys;
use vellum_testkit::Arena;

mod gate;
mod theory;
mod threads;

/// A raw entry.
const RAW: u64 = leaf(1);

/// A page of a line of its own.
fn apart(n: u64) -> Key {
    key(n * ENTRIES as u64)
}

/// Makes the raw entry of a key another one, refilling as often as it takes.
fn set<M: Memory, const WAYS: usize>(
    table: &Cuckoo<M, WAYS>,
    key: Key,
    raw: u64,
) -> Result<u64, OutOfFrames> {
    loop {
        match table.update(key, &mut NoStock, |_| Ok::<u64, ()>(raw)) {
            Ok(old) => return Ok(old),
            Err(Refused::Need(need)) => table.refill(&mut NoStock, need)?,
            Err(Refused::By(())) => unreachable!("the closure agrees"),
        }
    }
}

fn get<M: Memory, const WAYS: usize>(table: &Cuckoo<M, WAYS>, key: Key) -> u64 {
    table.walk(key, &mut ())
}

/// What a pass over the stripes of a table finds that nobody changes meanwhile.
fn scan<M: Memory>(table: &Cuckoo<M>) -> BTreeSet<Key> {
    let mut seen = BTreeSet::new();
    for stripe in 0..table.count_stripes() {
        let mut rest = Some(Keys::all(asid(1)));
        while let Some(keys) = rest {
            let mut found = Lowest::new(keys);
            table.scan(stripe, &mut found);
            seen.extend(found.held().iter().map(|&(key, _)| key));
            rest = found.rest();
        }
    }
    seen
}

#[test]
fn segments_hold_every_slot_once() {
    let way = Way::new();
    let arena = Arena::new(64);
    let mut blocks = Vec::new();
    for _ in 0..4 {
        let segment = way.missing().unwrap();
        let block = Way::alloc(&&arena, segment, false).unwrap();
        blocks.push((block, segment));
        assert!(way.install(segment, block) && !way.install(segment, block));
        way.set_slots((2 * way.slots()).max(FIRST));
    }
    assert_eq!((way.slots(), way.bytes()), (8 * FIRST, 8 * FIRST * 64));
    let lines: BTreeSet<_> = (0..way.slots()).map(|slot| way.address(slot)).collect();
    assert_eq!(lines.len() as u64, way.slots());
    assert!(lines.iter().all(|at| arena.is_in_use(*at) && at.as_u64() % 64 == 0));
    way.set_slots(FIRST + 1);
    // SAFETY: nobody else has the way.
    unsafe { way.trim(&&arena) };
    assert_eq!(way.bytes(), 2 * FIRST * 64, "the segment that slot 64 is in stays");
    way.set_slots(0);
    // SAFETY: likewise.
    unsafe { way.trim(&&arena) };
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn a_walk_reads_one_line_a_way_at_once() {
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    set(&table, key(5), RAW).unwrap();
    for n in [5, 4, 1 << 40] {
        let mut refs = Vec::new();
        let raw = table.walk(key(n), &mut |r: Ref| refs.push(r));
        assert_eq!(raw, if n == 5 { RAW } else { 0 });
        assert_eq!(refs.iter().map(|r| r.parallel).collect::<Vec<_>>(), [false, true, true]);
        assert!(refs.iter().all(|r| r.bytes == 64 && r.pa.as_u64() % 64 == 0));
        let frames: BTreeSet<_> = refs.iter().map(|r| r.pa.align_down(PAGE_SHIFT)).collect();
        assert_eq!(frames.len(), 3, "each way has memory of its own");
    }
    let mut other = Vec::new();
    table.walk(key(4), &mut |r: Ref| other.push(r.pa));
    let mut same = Vec::new();
    table.walk(key(5), &mut |r: Ref| same.push(r.pa));
    assert_eq!(same, other, "neighbours are in one line");
}

#[test]
fn each_size_has_ways_of_its_own_once_it_is_used() {
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    space.map(Run::new(VirtAddr::new(0), RAM, PAGE_SIZE, Attr::RW), &mut direct()).unwrap();
    let mut frames = arena.frames_in_use();
    for (n, page) in [21, 30].into_iter().enumerate() {
        let va = VirtAddr::new(1 << 40 << n);
        let run = Run::new(va, PhysAddr::new(0), 1 << page, Attr::RW).with_leaves_up_to(page);
        space.map(run, &mut direct()).unwrap();
        assert_eq!(arena.frames_in_use(), frames + 3);
        frames += 3;
        // In all tables in which the space has anything, at once.
        let mut refs = Vec::new();
        let span = space.walk(va.wrapping_add(4096), &mut |r: Ref| refs.push(r)).unwrap();
        assert_eq!((span.va, span.len), (va, 1 << page));
        assert_eq!(refs.len(), 3 * (n + 2));
        assert!(refs.iter().skip(1).all(|r| r.parallel) && !refs[0].parallel);
    }
    assert_eq!(scan_sizes(&table), [1; 3]);
    space.retire(&mut direct());
    assert_eq!(table.statistics().lines, 0);
    let mut table = table;
    table.shrink();
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
    assert_eq!(arena.frames_in_use(), 5, "what is empty and not of the smallest size goes whole");
}

/// How many leaves of each size a pass over the stripes finds in space 1.
fn scan_sizes(table: &Cuckoo<&Arena>) -> [usize; 3] {
    Size::ALL.map(|size| {
        let mut found = Lowest::new(Keys::all(asid(1)).touching(size));
        (0..table.count_stripes()).for_each(|stripe| table.scan(stripe, &mut found));
        found.held().len()
    })
}

#[test]
fn a_block_is_a_line() {
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    [8, 10, 11, 15].into_iter().for_each(|n| _ = set(&table, key(n), leaf(n)).unwrap());
    let mut raws = [1; 5];
    table.read_block(key(10), &mut raws);
    assert_eq!(raws, [leaf(10), leaf(11), 0, 0, 0]);
    table.read_block(key(16), &mut raws);
    assert_eq!(raws, [0; 5], "there is no line");
    let mut seen = Vec::new();
    let mut change = |key: Key, raw| {
        seen.push((key, raw));
        if raw == leaf(11) { 0 } else { raw | 1 << 6 }
    };
    table.change_block(key(10), 6, &mut NoStock, &mut change);
    assert_eq!(seen, [10, 11, 15].map(|n| (key(n), leaf(n))));
    assert_eq!(
        [8, 10, 11, 15].map(|n| get(&table, key(n))),
        [8, 10, 0, 15].map(|n| match n {
            0 => 0,
            8 => leaf(8),
            n => leaf(n) | 1 << 6,
        })
    );
    assert_eq!((table.count_entries(), table.statistics().lines), (3, 1));
    // The last entry goes in the middle of the block.
    table.change_block(key(8), 8, &mut NoStock, &mut |_, _| 0);
    assert_eq!((table.count_entries(), table.statistics().lines), (0, 0));
    set(&table, key(9), leaf(9)).unwrap();
    table.change_block(key(8), 8, &mut NoStock, &mut |_, _| 0);
    assert_eq!((table.count_entries(), table.statistics().lines), (0, 0));
}

#[test]
fn an_empty_line_is_a_free_slot() {
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    for n in 0..8 {
        set(&table, key(n), RAW).unwrap();
    }
    assert_eq!((table.statistics().lines, table.count_entries()), (1, 8));
    for n in 0..8 {
        assert_eq!(table.statistics().lines, 1, "{n} entries of 8 are gone");
        assert_eq!(set(&table, key(n), 0), Ok(RAW));
    }
    assert_eq!((table.statistics().lines, table.count_entries()), (0, 0));
    assert!(scan(&table).is_empty());
}

#[test]
fn a_resize_takes_a_bounded_step_a_call() {
    let lines = if cfg!(miri) { 200 } else { 20_000 };
    let arena = Arena::new(4096);
    let table = Cuckoo::new(&arena).unwrap();
    for n in 0..lines {
        set(&table, apart(n), RAW).unwrap();
    }
    let grown = table.statistics();
    assert!(grown.moved > lines / 4, "{grown:?}");
    for n in 0..lines {
        set(&table, apart(n), 0).unwrap();
    }
    let shrunk = table.statistics();
    assert!(shrunk.slots < 4 * grown.slots / 10, "{shrunk:?}");
    assert_eq!(shrunk.full, 0);
    assert!(shrunk.worst_pause <= 3, "one line of each way: {shrunk:?}");
}

#[test]
fn no_call_writes_lines_by_the_size_of_the_table() {
    let (lines, frames) = if cfg!(miri) { (150, 16) } else { (3000, 256) };
    let arena = Arena::new(frames);
    let table = Cuckoo::new(Stale(&arena)).unwrap();
    let mut written = Written::new(&arena);
    for n in 0..lines {
        set(&table, apart(n), RAW).unwrap();
        // Eight slots a way, with one line that moves, and a few kicks and stripes.
        let count = written.count();
        assert!(count <= 64, "{count} lines for line {n}");
    }
    assert!(table.statistics().slots > 2 * lines, "it did not take a large segment");
    assert!((0..lines).all(|n| get(&table, apart(n)) == RAW));
    assert_eq!(scan(&table).len() as u64, lines, "it found what the memory held before");
}

#[test]
#[cfg_attr(miri, ignore = "tens of thousands of lines")]
fn the_load_stays_between_its_bounds() {
    let arena = Arena::new(8192);
    let table = Cuckoo::new(&arena).unwrap();
    for n in 0..60_000 {
        set(&table, apart(n), RAW).unwrap();
        let now = table.statistics();
        let load = now.lines as f64 / now.slots as f64;
        assert!(load < 0.62, "{load} after {n}");
        // Where a doubling ends, at about .4.
        assert!(n < 200 || load > 0.35, "{load} after {n}");
    }
    for n in 0..60_000 {
        set(&table, apart(n), 0).unwrap();
        let now = table.statistics();
        assert!(now.slots == 3 * FIRST || now.lines as f64 / now.slots as f64 > 0.16, "{now:?}");
    }
    assert_eq!(table.statistics().slots, 3 * FIRST);
}

#[test]
fn shrinking_gives_memory_back_and_keeps_what_is_left() {
    let (lines, left) = if cfg!(miri) { (300, 20) } else { (6000, 700) };
    let arena = Arena::new(1024);
    let mut table = Cuckoo::new(&arena).unwrap();
    (0..lines).for_each(|n| _ = set(&table, apart(n), RAW).unwrap());
    let most = arena.frames_in_use();
    (left..lines).for_each(|n| _ = set(&table, apart(n), 0).unwrap());
    assert_eq!(arena.frames_in_use(), most, "somebody may still be reading");
    assert_eq!(table.table_bytes(), most * PAGE_SIZE);
    // SAFETY: nobody else has the table.
    unsafe { table.reclaim() };
    let reclaimed = arena.frames_in_use();
    assert!(reclaimed < most);
    table.shrink();
    let slots = table.statistics().slots;
    assert!(slots <= 3 * (2 * left / 3 + 100).next_power_of_two().max(FIRST), "{slots} slots");
    assert!(arena.frames_in_use() <= reclaimed);
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
    assert!((0..lines).all(|n| (get(&table, apart(n)) != 0) == (n < left)));
    (left..lines).for_each(|n| _ = set(&table, apart(n), RAW).unwrap());
    assert!((0..lines).all(|n| get(&table, apart(n)) == RAW));
}

#[test]
fn what_has_no_room_changes_nothing() {
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    arena.limit_allocations(Some(0));
    let mut held = 0;
    while set(&table, apart(held), RAW).is_ok() {
        held += 1;
    }
    let full = table.statistics();
    assert!(held > 3 * FIRST / 2, "{full:?}");
    assert!((0..held).all(|n| get(&table, apart(n)) == RAW));
    for n in held..held + 50 {
        if set(&table, apart(n), RAW).is_err() {
            assert_eq!(get(&table, apart(n)), 0);
        } else {
            set(&table, apart(n), 0).unwrap();
        }
    }
    assert!((0..held).all(|n| get(&table, apart(n)) == RAW), "nobody was kicked out for good");
    assert_eq!(scan(&table).len() as u64, held);
    arena.limit_allocations(None);
    // A few may still find room.
    (held..held + 30).for_each(|n| assert_eq!(set(&table, apart(n), RAW), Ok(0)));
    assert!(table.statistics().slots > full.slots, "growth is not tried again");
}

#[test]
fn a_table_that_cannot_be_made_leaks_nothing() {
    let arena = Arena::new(128);
    // Stripes, moves, and of each way segments for 1024 slots.
    for granted in 0..2 + 3 * 5 {
        arena.limit_allocations(Some(granted));
        assert!(Cuckoo::with_capacity(&arena, 8 * 1200).is_err(), "{granted} allocations");
        assert_eq!(arena.frames_in_use(), 0);
    }
    arena.limit_allocations(Some(2 + 3 * 5));
    let table = Cuckoo::with_capacity(&arena, 8 * 1200).unwrap();
    assert_eq!(table.statistics().slots, 3 * 1024);
    (0..8 * 1200).for_each(|n| _ = set(&table, key(n), RAW).unwrap());
    assert_eq!(table.statistics().resizes, 0, "it has the capacity that it was made with");
}

#[test]
fn frame_zero_is_a_frame() {
    let arena = Arena::at(PhysAddr::new(0), 64);
    let table = Cuckoo::new(&arena).unwrap();
    let mut space = table.space(asid(0)).unwrap();
    let run = Run::new(VirtAddr::new(0), RAM, 300 * PAGE_SIZE, Attr::RW);
    space.map(run, &mut direct()).unwrap();
    assert!((0..300).all(|n| space.translate(VirtAddr::new(n * PAGE_SIZE)).is_some()));
    space.retire(&mut direct());
    drop(table);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn a_line_with_an_entry_is_not_removed() {
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    set(&table, key(3), RAW).unwrap();
    // As after the last other entry has gone, when this one came before the lock was had.
    table.lock().remove(&table.sizes[0], Tag::of(key(3)));
    assert_eq!((get(&table, key(3)), table.statistics().lines), (RAW, 1));
}

#[test]
fn what_goes_down_is_offered_and_what_goes_up_is_not() {
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    let ways = &table.sizes[0];
    let moved = |since| {
        let mut found = Lowest::new(Keys::all(asid(1)));
        assert!(table.scan_moved(since, &mut found));
        found.held().to_vec()
    };
    set(&table, key(3), RAW).unwrap();
    let tag = Tag::of(key(3));
    let go = |way| {
        let since = table.moves();
        let from = table.find(ways, tag).unwrap();
        if from.way != way {
            table.lock().relocate(ways, from, ways.spot(tag, way).unwrap());
        }
        moved(since)
    };
    // Equal slots of higher ways are in higher stripes.
    let down = [(key(3), RAW)];
    go(2);
    assert_eq!((go(1), go(0)), (down.to_vec(), down.to_vec()));
    assert_eq!((go(1), go(2)), (vec![], vec![]));
    assert_eq!(go(0), down);
}

#[test]
fn what_a_shrinking_way_merges_is_offered() {
    let arena = Arena::new(64);
    let table = Cuckoo::with_capacity(&arena, 8 * 120).unwrap();
    let ways = &table.sizes[0];
    (0..60).for_each(|n| _ = set(&table, apart(n), RAW).unwrap());
    let above = |key: &Key| table.find(ways, Tag::of(*key)).unwrap().slot >= FIRST;
    let mut up: Vec<_> = (0..60).map(apart).filter(above).collect();
    assert!(up.len() > 10 && up.len() < 50, "{}", up.len());
    let since = table.moves();
    {
        let locked = table.lock();
        ways.each.iter().for_each(|way| way.set_target(FIRST));
        while ways.each.iter().any(|way| way.slots() > FIRST) {
            locked.step(ways, resize::SLOTS);
        }
    }
    let mut found = Lowest::new(Keys::all(asid(1)));
    assert!(table.scan_moved(since, &mut found));
    let offered: Vec<_> = found.held().iter().map(|&(key, _)| key).collect();
    up.retain(|key| !offered.contains(key));
    assert_eq!(up, [], "it came down and nobody is told");
}

#[test]
fn a_pass_that_fell_too_far_behind_is_told_so() {
    let arena = Arena::new(8);
    let moves = Moves::new(&arena).unwrap();
    let tag = |n| Tag::of(apart(n));
    (0..moves::ROOM + 10).for_each(|n| moves.note(tag(n)));
    assert!(moves.since(9).is_none());
    let known: Vec<_> = moves.since(10).unwrap().collect();
    assert!(known.iter().copied().eq((10..moves::ROOM + 10).map(tag)));
    assert_eq!(moves.since(moves.head()).unwrap().count(), 0);
}

/// Every page is where it was put, and a pass finds exactly them.
fn check(table: &Cuckoo<&Arena>, model: &BTreeMap<u64, u64>, gone: &BTreeSet<u64>) {
    for (&n, &raw) in model {
        assert_eq!(get(table, key(n)), raw, "page {n}");
    }
    assert!(gone.iter().all(|&n| model.contains_key(&n) || get(table, key(n)) == 0));
    let pages: BTreeSet<_> = model.keys().map(|&n| key(n)).collect();
    assert_eq!(scan(table), pages);
    assert_eq!(table.count_entries(), model.len() as u64);
    let lines: BTreeSet<_> = model.keys().map(|n| n / 8).collect();
    assert_eq!(table.statistics().lines, lines.len() as u64);
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(32))]

    #[test]
    fn everything_is_found_through_growth_and_shrinking(
        ops in prop::collection::vec(
            (0..if cfg!(miri) { 400 } else { 6000u64 }, 1..200u64, any::<bool>()),
            1..if cfg!(miri) { 4 } else { 60 },
        ),
        looks: bool,
    ) {
        let arena = Arena::new(1024);
        let table = Cuckoo::new(&arena).unwrap();
        let table = if looks { table } else { table.with_random_kicks() };
        let (mut model, mut gone) = (BTreeMap::new(), BTreeSet::new());
        for (round, (first, count, comes)) in ops.into_iter().enumerate() {
            // Strides that take lines apart, each with some of its entries.
            for n in (first..first + 5 * count).step_by(5) {
                let raw = if comes { RAW + ((round as u64) << PAGE_SHIFT) } else { 0 };
                prop_assert_eq!(set(&table, key(n), raw), Ok(model.get(&n).copied().unwrap_or(0)));
                if comes {
                    model.insert(n, raw);
                } else {
                    model.remove(&n);
                    gone.insert(n);
                }
            }
            check(&table, &model, &gone);
        }
    }
}
