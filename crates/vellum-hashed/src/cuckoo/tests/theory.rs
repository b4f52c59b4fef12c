//! What is known of cuckoo hashing by mathematics and by simulations other than this one.

use super::*;

/// A table of `slots` lines a way, that cannot grow.
fn fixed<const WAYS: usize>(arena: &Arena, slots: u64) -> Cuckoo<&Arena, WAYS> {
    let pages = slots * ENTRIES as u64 * WAYS as u64 / 2;
    let table = Cuckoo::with_ways(arena, pages).unwrap();
    arena.limit_allocations(Some(0));
    assert_eq!(table.statistics().slots, slots * WAYS as u64);
    table
}

/// The load at which the first line finds no place.
fn full_at<const WAYS: usize>(slots: u64) -> f64 {
    let arena = Arena::new(4096);
    let table = fixed::<WAYS>(&arena, slots);
    let mut lines = 0;
    while set(&table, apart(lines), RAW).is_ok() {
        lines += 1;
    }
    assert_eq!(table.statistics().lines, lines);
    lines as f64 / (slots * WAYS as u64) as f64
}

/// The thresholds of random walks on d-ary cuckoo tables: .5, .918, .977.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of lines")]
fn ways_hold_what_theory_says() {
    // With two ways a path forks nowhere, so near the threshold some are longer than a walk is.
    let [two, three, four] = [full_at::<2>(8192), full_at::<3>(8192), full_at::<4>(8192)];
    for (load, threshold, below) in [(two, 0.5, 0.06), (three, 0.918, 0.03), (four, 0.977, 0.03)] {
        assert!(load < threshold + 0.01, "{load} is more than {threshold}");
        assert!(load > threshold - below, "{load} is far from {threshold}");
    }
}

/// Random kicks, three ways: a mean of .65 kicks a line while the table is filled to .6, of 2.07 at
/// the end.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of lines")]
fn kicks_are_those_of_theory() {
    let (slots, arena) = (1 << 14, Arena::new(4096));
    let table = fixed::<3>(&arena, slots).with_random_kicks();
    let lines = 3 * slots * 6 / 10;
    let (last, mut before) = (lines / 50, 0);
    for n in 0..lines {
        if n == lines - last {
            before = table.statistics().kicks;
        }
        set(&table, apart(n), RAW).unwrap();
    }
    let kicks = table.statistics().kicks;
    let mean = kicks as f64 / lines as f64;
    let end = (kicks - before) as f64 / last as f64;
    assert!((mean - 0.65).abs() < 0.03, "{mean} over the fill");
    assert!((end - 2.07).abs() < 0.15, "{end} at the end");
}

/// A line that looks for a free slot first kicks far less.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of lines")]
fn to_look_first_saves_kicks() {
    let (slots, arena) = (1 << 14, Arena::new(4096));
    let table = fixed::<3>(&arena, slots);
    let lines = 3 * slots * 6 / 10;
    (0..lines).for_each(|n| _ = set(&table, apart(n), RAW).unwrap());
    let mean = table.statistics().kicks as f64 / lines as f64;
    assert!(mean < 0.12, "{mean}");
}

/// No two ways agree on more tags than chance has it.
#[test]
fn ways_are_independent() {
    let (slots, tags) = (64, if cfg!(miri) { 512 } else { 1 << 16 });
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        let slot = |n, way| Tag::of(apart(n)).hash(way) % slots;
        let same = (0..tags).filter(|&n| slot(n, a) == slot(n, b)).count() as f64;
        let next = (0..tags).filter(|&n| slot(n, a) == slot(n + 1, b)).count() as f64;
        let mean = tags as f64 / slots as f64;
        for count in [same, next] {
            assert!((count - mean).abs() < 6.0 * mean.sqrt(), "{count} where {mean} is chance");
        }
    }
}
