//! Look-ups and changes beside changes.

use super::*;

#[test]
fn a_look_up_sees_a_block_before_or_after_it_changes_its_kind() {
    let (agrees, differs) = (leaf(0x107), leaf(0x55));
    for (from, to) in [(agrees, differs), (differs, agrees), (agrees, 0), (0, differs)] {
        for (n, known) in [(3, [leaf(0x103); 2]), (7, [from, to])] {
            whatever_comes_between!(
                n,
                known,
                |memory| {
                    let table = Clustered16::new(memory).unwrap();
                    put(&table, (0..16).map(|n| (n, if n == 7 { from } else { leaf(0x100 + n) })));
                    table
                },
                |table| _ = exchange(table, 7, to, &mut table.stock())
            );
        }
    }
}

/// Blocks of one bucket by their first pages, which `Clustered16` puts in one chain.
fn same_bucket(bucket: u64) -> impl Iterator<Item = u64> {
    (0..).map(|n| 16 * n).filter(move |&n| key(n).hash() % FIRST == bucket)
}

#[test]
fn a_look_up_finds_what_a_split_moves() {
    // Of the first bucket, which the first split divides.
    let pages: Vec<_> = same_bucket(0).take(6).collect();
    for &n in &pages {
        whatever_comes_between!(
            n,
            [leaf(n)],
            |memory| {
                let table = Clustered16::new(memory).unwrap();
                put(&table, pages.iter().map(|&n| (n, leaf(n))));
                table
            },
            |table| split(table)
        );
    }
}

#[test]
fn a_look_up_is_not_led_astray_by_a_node_that_is_used_again() {
    // In the chain: the block that goes, before the one that stays. Its node goes to bucket 9.
    let pages: Vec<_> = same_bucket(5).take(3).collect();
    let elsewhere = same_bucket(9).next().unwrap();
    for (n, known) in [(pages[0], [leaf(pages[0]); 2]), (pages[1], [leaf(pages[1]), 0])] {
        whatever_comes_between!(
            n,
            known,
            |memory| {
                let table = Clustered16::new(memory).unwrap();
                put(&table, pages.iter().map(|&n| (n, leaf(n))));
                table
            },
            |table| {
                let mut stock = table.stock();
                exchange(table, pages[1], 0, &mut stock);
                assert_eq!(stock.count(), 1);
                exchange(table, elsewhere, leaf(elsewhere), &mut stock);
            }
        );
    }
}

/// One page of a block makes it a base node and a partial-subblock in turns, while others are read.
#[test]
fn nobody_sees_a_block_between_its_kinds() {
    let rounds = if cfg!(miri) { 12 } else { 20_000 };
    let arena = Arena::new(16);
    let table = Clustered16::new(&arena).unwrap();
    put(&table, (0..16).map(|n| (n, leaf(0x100 + n))));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stock = table.stock();
            for round in 0..rounds {
                let raw = [leaf(0x107), leaf(0x55), leaf(0x107) | pte_status(), 0][round % 4];
                exchange(&table, 7, raw, &mut stock);
            }
            done.store(true, Ordering::Release);
        });
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for n in (0..16).filter(|&n| n != 7) {
                    assert_eq!(table.walk(key(n), &mut ()), leaf(0x100 + n), "page {n}");
                }
                let seen = table.walk(key(7), &mut ());
                let known = [leaf(0x107), leaf(0x55), leaf(0x107) | pte_status(), 0];
                assert!(known.contains(&seen), "{seen:#x}");
            }
        });
    });
}

fn pte_status() -> u64 {
    vellum_core::pte::ACCESSED | vellum_core::pte::DIRTY
}

/// Nodes go from block to block while both are looked for: each look-up gives its own page, or none.
#[test]
fn nobody_follows_a_node_into_another_block() {
    let rounds = if cfg!(miri) { 8 } else { 3_000 };
    let arena = Arena::new(32);
    let table = Clustered16::new(&arena).unwrap();
    // Blocks of one bucket, so that chains change in the middle; and some of another.
    let bucket = |n: u64| key(n).hash() % FIRST;
    let of = |b| (0..).map(|n| 16 * n).filter(move |&n| bucket(n) == b).take(4);
    let pages: Vec<u64> = of(bucket(0)).chain(of(bucket(16))).collect();
    let stays = pages[1];
    put(&table, [(stays, leaf(stays))]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for odd in [0, 1] {
            let (table, pages, done) = (&table, &pages, &done);
            scope.spawn(move || {
                let mut stock = table.stock();
                let mine: Vec<_> =
                    (0..).zip(pages).filter(|&(i, &n)| i % 2 == odd && n != stays).collect();
                for round in 0..rounds {
                    let (_, &n) = mine[round % mine.len()];
                    exchange(table, n, leaf(n), &mut stock);
                    let (_, &n) = mine[(round + 2) % mine.len()];
                    exchange(table, n, 0, &mut stock);
                }
                done.store(true, Ordering::Release);
            });
        }
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                for &n in &pages {
                    let raw = table.walk(key(n), &mut ());
                    assert!(raw == leaf(n) || raw == 0 && n != stays, "page {n}: {raw:#x}");
                }
            }
        });
    });
}

#[test]
fn nobody_misses_an_entry_that_a_split_moves() {
    let (splits, rounds) = if cfg!(miri) { (8, 2) } else { (8, 200) };
    for _ in 0..rounds {
        let arena = Arena::new(32);
        let table = Clustered16::new(&arena).unwrap();
        // Blocks of the first few buckets, which are the first to be split.
        let count = if cfg!(miri) { 16 } else { 100 };
        let near = |&n: &u64| key(n).hash() % FIRST < 8;
        let pages: Vec<u64> = (0..).map(|n| 16 * n).filter(near).take(count).collect();
        put(&table, pages.iter().map(|&n| (n, leaf(n))));
        thread::scope(|scope| {
            scope.spawn(|| (0..splits).for_each(|_| split(&table)));
            scope.spawn(|| {
                for &n in &pages {
                    assert_eq!(table.walk(key(n), &mut ()), leaf(n), "page {n}");
                }
            });
            scope.spawn(|| assert_eq!(scanned(&table), pages, "a scan passed over an entry"));
        });
        assert_eq!(table.count_buckets(), FIRST + splits);
    }
}

#[test]
fn spaces_change_in_parallel_while_the_table_grows() {
    let (threads, pages) = if cfg!(miri) { (2, 30) } else { (4, 3000) };
    let arena = Arena::new(1024);
    let table = Clustered6::new(&arena).unwrap();
    if cfg!(miri) {
        // So many that growth is due.
        put(&table, (0..=FIRST).map(|n| ((1 << 40) + 6 * n, leaf(n))));
    }
    let before = table.count_entries();
    let at = |n: u64| page(n / 3 * 6 + n % 3);
    let leaf = |n: u64| Entry::Leaf(crate::testing::RAM.wrapping_add(n * PAGE_SIZE), Attr::RW);
    thread::scope(|scope| {
        for me in 2..2 + threads {
            let table = &table;
            scope.spawn(move || {
                let space = table.space(asid(me)).unwrap();
                let mut stock = space.stock();
                let mut set = |n, expect, new| {
                    let len = PAGE_SIZE;
                    space.replace_refilling(at(n), len, expect, new, &mut stock, &mut direct())
                };
                for n in 0..pages {
                    assert_eq!(set(n, Entry::Hole, leaf(n)), Ok(()));
                    // Every third goes again.
                    if n % 3 == 2 {
                        assert_eq!(set(n - 1, leaf(n - 1), Entry::Hole), Ok(()));
                    }
                }
                for n in 0..pages {
                    let gone = n % 3 == 1 && n + 1 < pages;
                    let expected = if gone { Entry::Hole } else { leaf(n) };
                    assert_eq!(space.walk(at(n), &mut ()).unwrap().entry, expected);
                }
                space.retire(&mut direct());
            });
        }
    });
    assert_eq!(table.count_entries(), before);
    assert!(table.count_buckets() > FIRST, "it never grew");
    assert_eq!(table.asids().count(), 0);
    drop(table);
    assert_eq!(arena.frames_in_use(), 0);
}
