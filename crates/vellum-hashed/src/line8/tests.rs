//! Probes, removal, growth and threads of the table of lines; what every table promises is in
//! `tests/conformance.rs`.

use super::lines::AHEAD;
use super::*;
use crate::testing::{
    Stale, Written, asid, direct, exchange, key, leaf, page, refs, scanned, whatever_comes_between,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::thread;
use std::vec::Vec;
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, PhysAddr, Run, Walk};
use vellum_global::Keys;
use vellum_testkit::Arena;

type Linear<'a> = Line8<&'a Arena, false>;
type RobinHood<'a> = Line8<&'a Arena, true>;

/// The first page of line `n`.
const fn line(n: u64) -> u64 {
    n * ENTRIES as u64
}

/// A table with so many of `homes` lines in use that it would grow, but does not.
fn filled<const ROBIN_HOOD: bool>(
    arena: &Arena,
    homes: u64,
    lines: u64,
) -> Line8<&Arena, ROBIN_HOOD> {
    // Rounded up.
    let table = Line8::with_capacity(arena, homes * 8 / 2).unwrap();
    assert_eq!(table.statistics().homes, homes);
    table.splitting.store(true, Ordering::Relaxed);
    table.retry_at.store(u64::MAX, Ordering::Relaxed);
    for n in 0..lines {
        assert_eq!(exchange(&table, line(n), leaf(n + 1), &mut ()), 0);
    }
    table
}

/// The mean and the most of the lines that look-ups of these read.
fn probes<S: Store>(table: &S, lines: impl Iterator<Item = u64>) -> (f64, usize) {
    let counts: Vec<_> = lines.map(|n| refs(table, line(n)).len()).collect();
    let sum: usize = counts.iter().sum();
    (sum as f64 / counts.len() as f64, counts.into_iter().max().unwrap())
}

/// Knuth: a hit reads (1 + 1/(1-a))/2 lines, a miss (1 + 1/(1-a)^2)/2, linear or not.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of look-ups")]
fn probes_are_those_of_theory() {
    let homes = 1 << 16;
    let arena = Arena::new(2048);
    for (tenths, hit, miss, within) in [(6, 1.75, 3.625, 0.02), (8, 3.0, 13.0, 0.06)] {
        let lines = homes * tenths / 10;
        let linear = filled::<false>(&arena, homes, lines);
        let (mean, longest) = probes(&linear, 0..lines);
        let (missed, _) = probes(&linear, lines..2 * lines);
        drop(linear);
        assert!((mean / hit - 1.0).abs() < within, "{mean} of a hit at {tenths}");
        assert!((missed / miss - 1.0).abs() < 2.0 * within, "{missed} of a miss at {tenths}");
        let robin_hood = filled::<true>(&arena, homes, lines);
        let (same, shorter) = probes(&robin_hood, 0..lines);
        assert!((same - mean).abs() < 1e-9, "{same} is another mean than {mean}");
        assert!(shorter < longest / 3, "{shorter} of {longest}");
        // Both were measured once: 27 and 238 at .8.
        assert!(tenths < 8 || shorter < 40 && longest > 100, "{shorter} and {longest} at .8");
    }
}

#[test]
fn a_look_up_at_home_reads_one_line() {
    let arena = Arena::new(8);
    let table = Linear::new(&arena).unwrap();
    let first = line(5) + 3;
    assert_eq!(exchange(&table, first, leaf(7), &mut ()), 0);
    let read = refs(&table, first);
    let home = home_of(Tag::of(key(first)).hash(0), 64);
    let expected = Ref { pa: table.lines.address(home), bytes: 64, span: 12, parallel: false };
    assert_eq!(read, [expected]);
    assert_eq!(refs(&table, line(5)), [expected], "a neighbour in the same line");
}

#[test]
fn leaves_of_each_size_have_their_own_lines() {
    let arena = Arena::new(8);
    let table = Linear::new(&arena).unwrap();
    let raws = Size::ALL.map(|size| {
        let key = key(0).sized(size);
        let raw = 1u64 << 40 | u64::from(size.class()) << 30 | 3;
        assert_eq!(table.update(key, &mut (), |_| Ok::<_, ()>(raw)), Ok(0));
        (key, raw)
    });
    assert_eq!(table.statistics().lines, 3);
    for (key, raw) in raws {
        assert_eq!(table.walk(key, &mut ()), raw);
        let mut found = Lowest::new(Keys::all(asid(1)).touching(key.size()));
        (0..table.count_stripes()).for_each(|stripe| table.scan(stripe, &mut found));
        assert_eq!(found.held(), [(key, raw)]);
    }
}

#[test]
fn a_table_grows_at_six_tenths_by_a_few_lines_a_call() {
    let arena = Arena::new(512);
    let table = RobinHood::new(&arena).unwrap();
    let lines = if cfg!(miri) { 90 } else { 4000 };
    for n in 0..lines {
        exchange(&table, line(n), leaf(n + 1), &mut ());
        let Statistics { lines, homes, .. } = table.statistics();
        assert_eq!(lines, n + 1);
        assert!(lines * 10 <= homes * (DUE + 1), "{lines} of {homes}");
    }
    assert!((0..lines).all(|n| table.walk(key(line(n)), &mut ()) == leaf(n + 1)));
    let statistics = table.statistics();
    assert!(statistics.moved > 0 && statistics.worst_pause <= 4 * STEPS, "{statistics:?}");
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
}

fn writes_few_lines_a_call<const ROBIN_HOOD: bool>() {
    let (lines, frames) = if cfg!(miri) { (40, 8) } else { (2600, 256) };
    let arena = Arena::new(frames);
    let mut table = Line8::<_, ROBIN_HOOD>::new(Stale(&arena)).unwrap();
    let mut written = Written::new(&arena);
    for n in 0..lines {
        exchange(&table, line(n), leaf(n + 1), &mut ());
        // Where the segment comes: three regions, and the next as homes are made; what moves is
        // written twice, and again by what closes gaps and makes way.
        let (count, most) = (written.count() as u64, AHEAD + 4 * STEPS);
        assert!(count <= most, "{count} lines for line {n}");
        let (homes, z) = (table.statistics().homes, table.lines.zeroed());
        assert!(z >= homes && z <= homes + AHEAD, "{z} for {homes}");
    }
    let homes = table.statistics().homes;
    assert!(homes >= 2 * lines && !homes.is_power_of_two(), "{homes} fill no half of a segment");
    check_order(&table);
    assert_eq!(scanned(&table).len() as u64, lines);
    let left = lines / 26;
    (left..lines).for_each(|n| assert_eq!(exchange(&table, line(n), 0, &mut ()), leaf(n + 1)));
    table.shrink();
    assert!(table.statistics().homes < homes);
    check_order(&table);
    assert_eq!(scanned(&table).len() as u64, left);
}

#[test]
fn no_call_writes_lines_by_the_size_of_the_table() {
    writes_few_lines_a_call::<false>();
    writes_few_lines_a_call::<true>();
}

#[test]
#[cfg_attr(miri, ignore = "hundreds of thousands of hashes")]
fn a_stretch_that_leads_far_gets_zeros_to_end_in() {
    let (homes, lines) = (512, 300);
    let arena = Arena::new(64);
    let table = RobinHood::with_capacity(&arena, homes * 4).unwrap();
    table.splitting.store(true, Ordering::Relaxed);
    table.lines.add_segment(table.lines.segment_of(homes)).unwrap();
    assert_eq!(table.split_some(1), (1, 0));
    assert_eq!(table.lines.zeroed(), homes + AHEAD);
    let homed = |n: &u64| Tag::of(key(line(*n))).hash(0) & (2 * homes - 1) == homes;
    let mut asked = 0;
    for n in (0..).filter(homed).take(lines) {
        let put = || table.update(key(line(n)), &mut (), |_| Ok::<_, ()>(leaf(n + 1)));
        while let Err(Refused::Need(need)) = put() {
            assert_eq!(need, ZEROS);
            table.splitting.store(false, Ordering::Relaxed);
            table.refill(&mut (), need).unwrap();
            table.splitting.store(true, Ordering::Relaxed);
            asked += 1;
        }
        assert_eq!(table.walk(key(line(n)), &mut ()), leaf(n + 1));
    }
    // Two regions may be used at first, and one more each time.
    assert_eq!(asked, (lines as u64 - 2 * lines::REGION).div_ceil(lines::REGION));
    assert_eq!(table.lines.zeroed(), homes + AHEAD + asked * lines::REGION);
    check_order(&table);
    assert_eq!(scanned(&table).len(), lines);
    assert!((0..).filter(homed).take(lines).all(|n| exchange(&table, line(n), 0, &mut ()) != 0));
    assert_eq!(table.statistics().lines, 0);
}

#[test]
fn without_memory_a_table_fills_up_and_then_refuses() {
    let arena = Arena::new(8);
    let table = Linear::new(&arena).unwrap();
    arena.limit_allocations(Some(0));
    let mut space = table.space(asid(1)).unwrap();
    let mut map = |n| {
        let run = Run::new(page(line(n)), PhysAddr::new(0x1000), PAGE_SIZE, Attr::RW);
        space.map(run, &mut direct())
    };
    let took = (0..64).take_while(|&n| map(n).is_ok()).count() as u64;
    assert_eq!(took, (64 * FULL).div_ceil(10));
    arena.limit_allocations(None);
    assert_eq!(map(60), Ok(()), "memory is back");
    assert_eq!(table.statistics().homes, 128);
    assert!((0..took).all(|n| table.walk(key(line(n)), &mut ()) != 0));
    let statistics = table.statistics();
    assert!(statistics.moved > 0);
    assert_eq!(statistics.worst_pause, statistics.moved, "one call has moved them all");
}

#[test]
fn a_segment_that_nothing_came_to_goes_when_the_table_shrinks() {
    let arena = Arena::new(16);
    let mut table = Linear::new(&arena).unwrap();
    // Enough lines for a segment to be taken, but the one that it was taken for does not come.
    let lines = (64 * DUE).div_ceil(10) + 1;
    let refused = |n: u64| {
        matches!(
            table.update(key(line(n)), &mut (), |_| Ok::<_, ()>(leaf(1))),
            Err(Refused::Need(_))
        )
    };
    assert_eq!((0..lines).find(|&n| refused(n)), Some(lines - 1));
    table.refill(&mut (), SEGMENT).unwrap();
    assert_eq!((table.statistics().homes, arena.frames_in_use()), (64, 3));
    (0..lines - 1).for_each(|n| assert_eq!(exchange(&table, line(n), 0, &mut ()), leaf(1)));
    table.shrink();
    assert_eq!((table.table_bytes(), arena.frames_in_use()), (2 * PAGE_SIZE, 2));
}

fn shrinks<const ROBIN_HOOD: bool>() {
    let (lines, left) = if cfg!(miri) { (100, 20) } else { (5000, 600) };
    let arena = Arena::new(512);
    let mut table = Line8::<_, ROBIN_HOOD>::new(&arena).unwrap();
    (0..lines).for_each(|n| assert_eq!(exchange(&table, line(n), leaf(n + 1), &mut ()), 0));
    let homes = table.statistics().homes;
    table.shrink();
    assert_eq!(table.statistics().homes, homes, "it is not sparse");
    (left..lines).for_each(|n| assert_eq!(exchange(&table, line(n), 0, &mut ()), leaf(n + 1)));
    table.shrink();
    let statistics = table.statistics();
    assert_eq!(statistics.lines, left);
    assert!(statistics.homes < homes && left * 10 <= statistics.homes * DUE, "{statistics:?}");
    assert!((0..left).all(|n| table.walk(key(line(n)), &mut ()) == leaf(n + 1)));
    assert!((left..lines).all(|n| table.walk(key(line(n)), &mut ()) == 0));
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
    (left..lines).for_each(|n| assert_eq!(exchange(&table, line(n), leaf(n), &mut ()), 0));
}

#[test]
fn a_sparse_table_shrinks_and_keeps_what_is_left() {
    shrinks::<false>();
    shrinks::<true>();
}

/// A line at home and one that it keeps from the same home, by number, in a table of 64 homes.
fn neighbours() -> (u64, u64) {
    let home = |n: u64| home_of(Tag::of(key(line(n))).hash(0), 128);
    // One that a table of 128 has elsewhere.
    let first = (0..).find(|&n| home(n) >= 64).unwrap();
    (first, (first + 1..).find(|&n| home(n) == home(first)).unwrap())
}

fn with_neighbours<M: Memory>(memory: M) -> Line8<M> {
    let table = Line8::new(memory).unwrap();
    let (first, second) = neighbours();
    for n in [first, second] {
        assert_eq!(exchange(&table, line(n), leaf(n + 1), &mut ()), 0);
    }
    assert!(refs(&table, line(second)).len() > 1, "it is at home");
    table
}

#[test]
fn a_look_up_finds_a_line_that_moves_before_any_of_its_accesses() {
    let (first, second) = neighbours();
    whatever_comes_between!(
        line(second),
        [leaf(second + 1)],
        |memory| with_neighbours(memory),
        |table| assert_eq!(exchange(table, line(first), 0, &mut ()), leaf(first + 1))
    );
    whatever_comes_between!(
        line(second),
        [leaf(second + 1)],
        |memory| with_neighbours(memory),
        |table| {
            table.provide(table.room()).unwrap();
            assert_eq!(table.statistics().homes, 128);
        }
    );
}

/// Lines of one home near the end of its region, of which those behind come over from the next.
#[test]
fn a_look_up_finds_a_line_that_comes_back_from_the_next_region() {
    let homed = (0..).filter(|&n| Tag::of(key(line(n))).hash(0) & 127 == 62);
    let lines: Vec<u64> = homed.take(4).collect();
    for &n in &lines[1..] {
        whatever_comes_between!(
            line(n),
            [leaf(n + 1)],
            |memory| {
                let table = Line8::<_>::with_capacity(memory, 128 * 4).unwrap();
                assert_eq!(table.statistics().homes, 128);
                for &n in &lines {
                    assert_eq!(exchange(&table, line(n), leaf(n + 1), &mut ()), 0);
                }
                table
            },
            |table| assert_eq!(exchange(table, line(lines[0]), 0, &mut ()), leaf(lines[0] + 1))
        );
    }
}

#[test]
fn a_look_up_finds_a_line_that_several_splits_move_at_once() {
    let (_, second) = neighbours();
    whatever_comes_between!(
        line(second),
        [leaf(second + 1)],
        |memory| {
            let table = with_neighbours(memory);
            table.lines.add_segment(table.lines.segment_of(64)).unwrap();
            table.split().unwrap();
            table
        },
        |table| {
            table.grow(64);
            assert_eq!(table.statistics().homes, 128);
        }
    );
}

/// No look-up would end before its line; and where lines make way, none is nearer to its home than
/// that which stands before it has left room for.
fn check_order<M: Memory, const ROBIN_HOOD: bool>(table: &Line8<M, ROBIN_HOOD>) {
    let n = table.lines.homes();
    let distance = |at: u64| {
        let tag = table.lines.with(at, Line::tag)?;
        let home = home_of(tag.hash(0), n);
        assert_eq!(table.lines.segment_of(home), table.lines.segment_of(at), "{at} of {n}");
        Some(table.lines.distance(home, at))
    };
    let mut used = 0;
    for at in 0..table.lines.zeroed() {
        let Some(steps) = distance(at) else { continue };
        used += 1;
        assert!(table.lines.usable(at) > 0, "{at} of {n} has nothing zeroed behind");
        let back = |steps| {
            let mask = table.lines.circle(at) - 1;
            at & !mask | at.wrapping_sub(steps) & mask
        };
        assert!((1..=steps).all(|steps| distance(back(steps)).is_some()), "{at} of {n}");
        if let (true, Some(before)) = (ROBIN_HOOD, distance(back(1))) {
            assert!(steps <= before + 1, "{at} of {n} is {steps} from home, after {before}");
        }
    }
    assert_eq!(used, table.statistics().lines);
}

fn stays_in_order<const ROBIN_HOOD: bool>(lines: u64, seed: u64) {
    let arena = Arena::new(512);
    let table = Line8::<_, ROBIN_HOOD>::new(&arena).unwrap();
    let raw = |n| leaf(n + 1);
    for n in 0..lines {
        assert_eq!(exchange(&table, line(n ^ seed << 20), raw(n), &mut ()), 0);
        if n % 4 == 3 {
            let gone = n * 5 / 8;
            let there = table.walk(key(line(gone ^ seed << 20)), &mut ());
            assert_eq!(exchange(&table, line(gone ^ seed << 20), 0, &mut ()), there);
        }
        if n % 16 == 0 {
            check_order(&table);
        }
    }
    check_order(&table);
    assert!(table.statistics().homes > lines / 2, "it did not grow");
}

#[test]
fn growth_and_removal_leave_no_gap_before_a_line() {
    let (lines, seeds) = if cfg!(miri) { (90, 1) } else { (700, 6) };
    for seed in 1..=seeds {
        stays_in_order::<false>(lines, seed);
        stays_in_order::<true>(lines, seed);
    }
}

/// Where many lines have one home, those that go do not all fit into what is split at once, or into
/// what is left of their new region.
#[test]
fn a_crowded_home_is_split_like_any_other() {
    let hash = |n: u64| Tag::of(key(line(n))).hash(0);
    let cases = [
        (128, 0, 20, 4),
        (128, 5, 20, 4),
        (128, 62, 20, 4),
        (64, 61, 8, 3),
        (64, 63, 5, 0),
        // More than there are zeros for.
        (512, 0, 150, 4),
    ];
    for (homes, home, go, stay) in cases.into_iter().take(if cfg!(miri) { 5 } else { 6 }) {
        let arena = Arena::new(64);
        let table = Linear::with_capacity(&arena, homes * 4).unwrap();
        table.splitting.store(true, Ordering::Relaxed);
        let all = || (0..).filter(|&n| hash(n) & (homes - 1) == home);
        let goes = |n: &u64| hash(*n) & homes != 0;
        let lines: Vec<u64> =
            all().filter(goes).take(go).chain(all().filter(|n| !goes(n)).take(stay)).collect();
        for &n in &lines {
            assert_eq!(exchange(&table, line(n), leaf(n + 1), &mut ()), 0);
        }
        for homes in [homes, 2 * homes] {
            table.lines.add_segment(table.lines.segment_of(homes)).unwrap();
            while table.statistics().homes < 2 * homes {
                if table.split_some(STEPS) == (0, 0) {
                    check_order(&table);
                    table.split().unwrap();
                }
                check_order(&table);
            }
        }
        assert!(lines.iter().all(|&n| table.walk(key(line(n)), &mut ()) == leaf(n + 1)));
    }
}

#[test]
fn lines_that_do_not_all_find_a_place_stay() {
    let arena = Arena::new(64);
    let table = Linear::new(&arena).unwrap();
    table.splitting.store(true, Ordering::Relaxed);
    table.lines.add_segment(table.lines.segment_of(64)).unwrap();
    while table.statistics().homes < 64 + 61 {
        assert_eq!(table.split(), Some(0));
    }
    let homed = |home: u64, count: usize| {
        (0..).filter(move |&n| Tag::of(key(line(n))).hash(0) & 127 == home).take(count)
    };
    // In the second segment one place is left, for two lines that now belong to home 61.
    for n in homed(124, 3).chain(homed(125, 2)) {
        assert_eq!(exchange(&table, line(n), leaf(n + 1), &mut ()), 0);
    }
    assert_eq!(table.split_some(STEPS), (0, 0));
    check_order(&table);
    assert_eq!(table.split(), Some(2));
    check_order(&table);
}

/// Threads change pages of their own while lines of all are moved by growth and removal.
#[test]
fn nobody_misses_a_line_that_moves() {
    let (threads, lines) = if cfg!(miri) { (2, 12) } else { (4, 1500) };
    let arena = Arena::new(512);
    let table = RobinHood::new(&arena).unwrap();
    let kept = if cfg!(miri) { 36 } else { 40 };
    (0..kept).for_each(|n| assert_eq!(exchange(&table, line(n), leaf(n + 1), &mut ()), 0));
    thread::scope(|scope| {
        for me in 1..=threads {
            let table = &table;
            scope.spawn(move || {
                let mine = |n: u64| line(me << 20 | n);
                for n in 0..lines {
                    assert_eq!(exchange(table, mine(n), leaf(n + 1), &mut ()), 0);
                    assert_eq!(table.walk(key(mine(n)), &mut ()), leaf(n + 1));
                    if n % 3 == 2 {
                        assert_eq!(exchange(table, mine(n - 1), 0, &mut ()), leaf(n));
                    }
                    let there = n * 7 % kept;
                    assert_eq!(table.walk(key(line(there)), &mut ()), leaf(there + 1));
                }
                if me == 1 {
                    let seen = scanned(table);
                    assert!((0..kept).all(|n| seen.binary_search(&line(n)).is_ok()));
                }
            });
        }
    });
    let left = threads * (lines - lines / 3) + kept;
    assert_eq!((table.count_entries(), table.statistics().lines), (left, left));
    assert!(table.statistics().homes > 64, "it never grew");
}

fn matches_a_map<const ROBIN_HOOD: bool>(ops: &[(u64, u64)]) {
    let arena = Arena::new(64);
    let table = Line8::<_, ROBIN_HOOD>::new(&arena).unwrap();
    let mut model = BTreeMap::new();
    for &(n, frame) in ops {
        let raw = if frame == 0 { 0 } else { leaf(frame) };
        let old = if raw == 0 { model.remove(&n) } else { model.insert(n, raw) };
        assert_eq!(exchange(&table, n, raw, &mut ()), old.unwrap_or(0));
        for (&n, &raw) in &model {
            assert_eq!(table.walk(key(n), &mut ()), raw, "page {n}");
        }
        let lines: std::collections::BTreeSet<_> = model.keys().map(|n| n / 8).collect();
        assert_eq!(table.statistics().lines, lines.len() as u64, "an empty line stays");
    }
    assert_eq!(scanned(&table), model.keys().copied().collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(48))]

    #[test]
    fn it_is_a_map_of_pages(
        ops in prop::collection::vec((0..900u64, 0..3u64), 1..if cfg!(miri) { 20 } else { 300 }),
    ) {
        matches_a_map::<false>(&ops);
        matches_a_map::<true>(&ops);
    }
}

#[test]
fn a_block_is_read_and_changed_at_once() {
    let arena = Arena::new(8);
    let table = Linear::new(&arena).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    let run = Run::new(page(line(2) + 1), PhysAddr::new(0x8000), 6 * PAGE_SIZE, Attr::RW);
    space.map(run, &mut direct()).unwrap();
    let mut raws = [1; 8];
    table.read_block(key(line(2)), &mut raws);
    assert_eq!(raws.map(|raw| raw != 0), [false, true, true, true, true, true, true, false]);
    space.unmap(page(line(2) + 2), 3 * PAGE_SIZE, &mut direct()).unwrap();
    assert_eq!((space.count_entries(), table.statistics().lines), (3, 1));
    assert_eq!(space.walk(page(line(2) + 3), &mut ()).unwrap().entry, Entry::Hole);
    space.unmap(page(0), 1 << 30, &mut direct()).unwrap();
    assert_eq!((table.count_entries(), table.statistics().lines), (0, 0));
}
