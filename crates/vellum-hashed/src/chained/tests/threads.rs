//! Look-ups and changes beside changes.

use super::*;

#[test]
#[cfg_attr(miri, ignore = "a table for each access of each look-up; see the threads below")]
fn a_look_up_finds_what_a_split_moves() {
    // Of the first bucket, which the first split divides, with nodes on both sides.
    let pages: Vec<_> = same_bucket(0).take(6).collect();
    let moved = pages.iter().filter(|&&n| key(n).hash() & FIRST != 0).count();
    assert!((2..5).contains(&moved));
    for &n in &pages {
        whatever_comes_between!(
            n,
            [leaf(n)],
            |memory| {
                let table = Chained::new(memory).unwrap();
                put(&table, pages.iter().map(|&n| (n, leaf(n))));
                table
            },
            |table| assert!(split(table))
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "a table for each access of each look-up; see the threads below")]
fn a_look_up_is_not_led_astray_by_a_node_that_is_used_again() {
    // In the chain: [0] in the bucket, then [2], [1]. The node of [1] goes to bucket 9, and that of
    // whoever is pulled into the bucket as well.
    let pages: Vec<_> = same_bucket(5).take(3).collect();
    let elsewhere: Vec<_> = same_bucket(9).take(2).collect();
    for gone in 0..3 {
        for (i, &n) in pages.iter().enumerate() {
            let known = if i == gone { [leaf(n), 0] } else { [leaf(n); 2] };
            whatever_comes_between!(
                n,
                known,
                |memory| {
                    let table = Chained::new(memory).unwrap();
                    put(&table, pages.iter().map(|&n| (n, leaf(n))));
                    put(&table, [(elsewhere[0], RAW)]);
                    table
                },
                |table| {
                    let mut stock = table.stock();
                    exchange(table, pages[gone], 0, &mut stock);
                    assert_eq!(stock.count(), 1);
                    exchange(table, elsewhere[1], RAW, &mut stock);
                }
            );
        }
    }
}

/// A page that stays, in the bucket or behind it, is never missed while others of its chain come and
/// go, and no entry is ever given for another.
#[test]
fn nobody_misses_a_page_that_stays() {
    let rounds = if cfg!(miri) { 6 } else { 5000 };
    let arena = Arena::new(32);
    let table = Chained::new(&arena).unwrap();
    let pages: Vec<_> = same_bucket(11).take(5).collect();
    put(&table, pages.iter().map(|&n| (n, leaf(n))));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let (table, pages, done) = (&table, &pages, &done);
        scope.spawn(move || {
            let mut stock = table.stock();
            for round in 0..rounds {
                // Each but the third goes and comes again, so that the third moves about.
                let n = pages[[0, 1, 3, 4][round % 4]];
                assert_eq!(exchange(table, n, 0, &mut stock), leaf(n));
                assert_eq!(exchange(table, n, leaf(n), &mut stock), 0);
            }
            done.store(true, Ordering::Relaxed);
        });
        for &n in [pages[2], pages[0]].iter() {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let raw = table.walk(key(n), &mut ());
                    assert!(raw == leaf(n) || n != pages[2] && raw == 0, "{raw:#x} of page {n}");
                }
            });
        }
    });
}

#[test]
fn nobody_misses_an_entry_that_a_split_moves() {
    let (splits, rounds) = if cfg!(miri) { (8, 3) } else { (8, 200) };
    for _ in 0..rounds {
        let arena = Arena::new(32);
        let table = Chained::new(&arena).unwrap();
        let pages = pages_of_first_buckets(if cfg!(miri) { 24 } else { 100 });
        put(&table, pages.iter().map(|&n| (n, n << 12 | 3)));
        let mut space = table.space(asid(1)).unwrap();
        space.protect(page(0), PAGE_SIZE, Change::default(), &mut direct()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| (0..splits).for_each(|_| assert!(split(&table))));
            scope.spawn(|| {
                for &n in &pages {
                    assert_eq!(table.walk(key(n), &mut ()), n << 12 | 3, "page {n}");
                }
            });
            scope.spawn(|| assert_eq!(scanned(&table), pages, "a scan passed over an entry"));
        });
        assert_eq!(table.count_buckets(), FIRST + splits);
    }
}

#[test]
fn spaces_change_in_parallel_while_the_table_grows() {
    let (threads, pages) = if cfg!(miri) { (2, 40) } else { (4, 3000) };
    let arena = Arena::new(1024);
    let table = Chained::new(&arena).unwrap();
    if cfg!(miri) {
        // So near to growth that it happens.
        put(&table, (0..FIRST).map(|n| (1 << 40 | n, RAW)));
    }
    let before = table.count_entries();
    let leaf = |n: u64| Entry::Leaf(RAM.wrapping_add(n * PAGE_SIZE), Attr::RW);
    thread::scope(|scope| {
        for me in 2..2 + threads {
            let table = &table;
            scope.spawn(move || {
                let space = table.space(asid(me)).unwrap();
                let mut stock = space.stock();
                let mut set = |n, expect, new| {
                    let mut gather = direct();
                    space.replace_refilling(
                        page(n),
                        PAGE_SIZE,
                        expect,
                        new,
                        &mut stock,
                        &mut gather,
                    )
                };
                for n in 0..pages {
                    assert_eq!(set(n, Entry::Hole, leaf(n)), Ok(()));
                    // Every third goes again, so that nodes change hands.
                    if n % 3 == 2 {
                        assert_eq!(set(n - 1, leaf(n - 1), Entry::Hole), Ok(()));
                    }
                }
                for n in 0..pages {
                    let gone = n % 3 == 1 && n + 1 < pages;
                    let expected = if gone { Entry::Hole } else { leaf(n) };
                    assert_eq!(space.walk(page(n), &mut ()).unwrap().entry, expected);
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
