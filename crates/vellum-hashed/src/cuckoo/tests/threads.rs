//! Look-ups, scans and changes while lines move.

use super::*;
use core::sync::atomic::AtomicBool;
use std::thread;
use vellum_core::{Entry, Soft};

/// Kicks, growth and shrinking by others, until `done`: lines of space 2 come and go.
fn disturb(table: &Cuckoo<&Arena>, lines: u64, done: &AtomicBool) {
    let other = |n: u64| Key::new(asid(2), VirtAddr::new(n << (PAGE_SHIFT + 3)));
    while !done.load(Ordering::Relaxed) {
        (0..lines).for_each(|n| _ = set(table, other(n), RAW).unwrap());
        (0..lines).for_each(|n| _ = set(table, other(n), 0).unwrap());
    }
}

#[test]
fn nobody_misses_a_line_that_moves() {
    let (lines, rounds, others) = if cfg!(miri) { (12, 2, 150) } else { (100, 300, 1500) };
    let arena = Arena::new(1024);
    let table = Cuckoo::new(&arena).unwrap().with_random_kicks();
    let raw = |n: u64| n << PAGE_SHIFT | 3;
    (0..lines).for_each(|n| _ = set(&table, apart(n), raw(n)).unwrap());
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| disturb(&table, others, &done));
        let mut round = 0;
        while round < rounds || table.statistics().moved == 0 {
            for n in 0..lines {
                assert_eq!(get(&table, apart(n)), raw(n), "line {n}");
            }
            round += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(table.statistics().kicks > 0);
}

#[test]
fn a_visit_misses_nothing_that_moves_below_it() {
    let (lines, rounds, others) = if cfg!(miri) { (8, 1, 150) } else { (200, 60, 1500) };
    let arena = Arena::new(1024);
    let table = Cuckoo::new(&arena).unwrap().with_random_kicks();
    let mut space = table.space(asid(1)).unwrap();
    for n in 0..lines {
        let va = apart(n).va();
        space.map(Run::new(va, RAM, PAGE_SIZE, Attr::RW), &mut direct()).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| disturb(&table, others, &done));
        let mut round = 0;
        while round < rounds || table.moves() == 0 {
            let mut count = 0;
            space
                .visit(VirtAddr::new(0), 1 << 47, &mut |_| {
                    count += 1;
                    core::ops::ControlFlow::Continue(())
                })
                .unwrap();
            assert_eq!(count, lines);
            round += 1;
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn spaces_change_in_parallel_while_the_table_grows_and_shrinks() {
    let (threads, lines) = if cfg!(miri) { (2, 70) } else { (4, 2000) };
    let arena = Arena::new(1024);
    let table = Cuckoo::new(&arena).unwrap();
    let leaf = |n: u64| Entry::Leaf(RAM.wrapping_add(n * PAGE_SIZE), Attr::RW);
    thread::scope(|scope| {
        for me in 1..=threads {
            let table = &table;
            scope.spawn(move || {
                let space = table.space(asid(me)).unwrap();
                let mut stock = space.stock();
                let mut set = |n, expect, new| {
                    let mut gather = direct();
                    let va = apart(n).va();
                    space.replace_refilling(va, PAGE_SIZE, expect, new, &mut stock, &mut gather)
                };
                for n in 0..lines {
                    assert_eq!(set(n, Entry::Hole, leaf(n)), Ok(()));
                    if n % 3 == 2 {
                        assert_eq!(set(n - 1, leaf(n - 1), Entry::Hole), Ok(()));
                    }
                }
                for n in 0..lines {
                    let expected = if n % 3 == 1 && n + 1 < lines { Entry::Hole } else { leaf(n) };
                    assert_eq!(space.walk(apart(n).va(), &mut ()).unwrap().entry, expected);
                }
                space.retire(&mut direct());
            });
        }
    });
    assert_eq!((table.count_entries(), table.statistics().lines), (0, 0));
    assert!(table.statistics().resizes > 3, "{:?}", table.statistics());
    drop(table);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn pages_of_one_line_change_in_parallel() {
    let rounds = if cfg!(miri) { 10 } else { 5000 };
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    let space = table.space(asid(1)).unwrap();
    thread::scope(|scope| {
        for slot in 0..4 {
            let space = &space;
            scope.spawn(move || {
                // The line comes and goes as whoever is first and last finds it.
                for n in 1..=rounds {
                    let soft = Entry::Soft(Soft::new(n).unwrap());
                    for (expect, new) in [(Entry::Hole, soft), (soft, Entry::Hole)] {
                        let mut stock = space.stock();
                        let va = key(slot).va();
                        let done = space.replace_refilling(
                            va,
                            PAGE_SIZE,
                            expect,
                            new,
                            &mut stock,
                            &mut direct(),
                        );
                        assert_eq!(done, Ok(()));
                    }
                }
            });
        }
    });
    assert_eq!((table.count_entries(), table.statistics().lines), (0, 0));
}

/// Whoever changes a block waits for a closure that is about to make its first entry, and then sees
/// that: a leaf that would overlap it is refused for this.
#[test]
fn a_block_is_not_changed_while_somebody_decides_on_its_first_entry() {
    let arena = Arena::new(64);
    let table = Cuckoo::new(&arena).unwrap();
    thread::scope(|scope| {
        let mut other = None;
        let made = table.update(key(1), &mut NoStock, |old| {
            let seen = scope.spawn(|| {
                let mut seen = 0;
                table.change_block(key(0), 8, &mut NoStock, &mut |_, raw| {
                    seen = raw;
                    raw
                });
                seen
            });
            // Time for it to come to the stripe; if it is later than that, the test shows nothing.
            thread::sleep(core::time::Duration::from_millis(50));
            other = Some(seen);
            Ok::<u64, ()>(old | RAW)
        });
        assert_eq!(made, Ok(0));
        assert_eq!(other.unwrap().join().unwrap(), RAW);
    });
}
