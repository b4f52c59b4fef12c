//! Growth, theory, memory and threads of the chained table; what every table promises is in
//! `tests/conformance.rs`.

use super::*;
use crate::directory::{FIRST, parent};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::thread;
use std::vec::Vec;
use vellum_core::{
    Attr, Change, Direct, Entry, FrameSource, Gone, Memory, PAGE_SIZE, PageTable, PhysAddr,
    PhysMap, Ref, ReplaceError, Run, VirtAddr, Walk,
};
use vellum_testkit::Arena;

/// A frame that is only named.
const RAM: PhysAddr = PhysAddr::new(0x1_0000_0000);

fn asid(n: u16) -> Asid {
    Asid::new(n).unwrap()
}

fn page(n: u64) -> VirtAddr {
    VirtAddr::new(n << PAGE_SHIFT)
}

fn key(n: u64) -> Key {
    Key::new(asid(1), page(n))
}

fn direct() -> Direct<impl FnMut(Gone)> {
    // SAFETY: nothing walks the tables of these tests but `walk`.
    unsafe { Direct::new(|_| {}) }
}

fn map<S: Store>(space: &mut Space<'_, S>, n: u64) {
    space.map(Run::new(page(n), RAM, PAGE_SIZE, Attr::RW), &mut direct()).unwrap();
}

/// Puts raw entries in for these pages, without letting the table grow.
fn put<M: Memory>(table: &Chained<M>, pages: impl IntoIterator<Item = (u64, u64)>) {
    let mut stock = table.stock();
    for (n, raw) in pages {
        stock.refill(&table.pool, 1).unwrap();
        let old = table.update(key(n), &mut stock, |_| Ok::<u64, ()>(raw)).unwrap();
        assert_eq!(old, 0, "page {n} was there already");
    }
}

/// A raw entry.
const RAW: u64 = 0x1003;

/// One split, whether it is due or not; `false` if there is no memory for it.
fn split(table: &Chained<&Arena>) -> bool {
    let before = table.count_buckets();
    let due = AtomicU64::new(u64::MAX);
    table.directory.grow(&due, 1, |n| table.split_locked(table.lock_bucket(parent(n)), n));
    table.count_buckets() > before
}

/// Nodes that a walk to page `n` reads.
fn probes<S: Store>(space: &Space<'_, S>, n: u64) -> u64 {
    let mut refs = 0;
    space.walk(page(n), &mut |_: Ref| refs += 1).unwrap();
    refs - 1
}

/// A frame source that has single frames only.
#[derive(Clone, PartialEq)]
struct Singles<'a>(&'a Arena);

// SAFETY: the arena's.
unsafe impl PhysMap for Singles<'_> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(core::ptr::NonNull<u8>) -> R) -> R {
        self.0.with(pa, f)
    }
}

// SAFETY: one arena is behind both halves, and behind every clone and equal.
unsafe impl Memory for Singles<'_> {}

// SAFETY: the arena's, which hands out no other frames than these.
unsafe impl FrameSource for Singles<'_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        if order == 0 { self.0.alloc(0) } else { Err(OutOfFrames { order }) }
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller's.
        unsafe { self.0.free(pa, order) }
    }
}

/// Uniform hashing: a hit reads 1 + a/2 nodes, a miss a; 1 - e^-a of the buckets are occupied.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of look-ups")]
fn probes_and_occupancy_are_those_of_theory() {
    let (buckets, pages) = (1 << 16, 1 << 15);
    let arena = Arena::new(2048);
    let table = Chained::with_capacity(&arena, buckets).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    (0..pages).for_each(|n| map(&mut space, n));
    assert_eq!(table.count_buckets(), buckets, "the load is one half");
    let mean = |first: u64| {
        (first..first + pages).map(|n| probes(&space, n)).sum::<u64>() as f64 / pages as f64
    };
    let (hit, miss) = (mean(0), mean(pages));
    let occupied = (0..buckets).filter(|&b| table.count_in_bucket(b) > 0).count();
    let occupied = occupied as f64 / buckets as f64;
    // Three standard deviations: .0117 of a miss, whose probes are Poisson distributed; less of
    // the other two.
    assert!((hit - 1.25).abs() < 0.01, "{hit}");
    assert!((miss - 0.5).abs() < 0.0117, "{miss}");
    assert!((occupied - (1.0 - (-0.5f64).exp())).abs() < 0.006, "{occupied}");
}

#[test]
fn a_walk_charges_head_misses_and_hit() {
    let arena = Arena::new(8);
    let table = Chained::new(&arena).unwrap();
    let space = table.space(asid(1)).unwrap();
    // The first three pages that share a bucket.
    let bucket = |n: u64| key(n).hash() % FIRST;
    let same: Vec<_> = (0..).filter(|&n| bucket(n) == bucket(0)).take(3).collect();
    put(&table, same.iter().map(|&n| (n, RAW)));
    let mut read = Vec::new();
    space.walk(page(same[0]), &mut |r: Ref| read.push((r.bytes, r.span, r.parallel))).unwrap();
    assert_eq!(read, [(8, 12, false), (16, 12, false), (16, 12, false), (24, 12, false)]);
}

#[test]
#[cfg_attr(miri, ignore = "thousands of look-ups; splits under Miri are tested below")]
fn the_table_grows_with_its_entries_and_loses_none() {
    let pages = 5000;
    let arena = Arena::new(512);
    let table = Chained::new(&arena).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    for n in 0..pages {
        map(&mut space, n * 7);
        let (entries, buckets) = (table.count_entries(), table.count_buckets());
        assert_eq!(entries, n + 1);
        // Growth comes before the next node is taken, so it lags by the stock in hand: one here.
        assert!(entries <= buckets + 1, "{entries} entries in {buckets} buckets");
        if n % 97 == 0 || n == pages - 1 {
            assert!((0..=n).all(|n| probes(&space, n * 7) > 0));
            assert!((0..=n).all(|n| {
                space.walk(page(n * 7), &mut ()).unwrap().entry == Entry::Leaf(RAM, Attr::RW)
            }));
        }
    }
    let counted: u64 = (0..table.count_buckets()).map(|b| table.count_in_bucket(b)).sum();
    assert_eq!(counted, pages);
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
}

#[test]
fn growth_takes_a_bounded_step_a_call() {
    let arena = Arena::new(512);
    let table = Chained::new(&arena).unwrap();
    let entries = if cfg!(miri) { 620 } else { 3000 };
    put(&table, (0..entries).map(|n| (n, RAW)));
    assert_eq!(table.count_buckets(), FIRST, "an update alone does not grow the table");
    let mut stock = table.stock();
    for call in 1..4 {
        table.refill(&mut stock, Need::new(1)).unwrap();
        assert_eq!(table.count_buckets(), FIRST + call * 32);
    }
}

#[test]
#[cfg_attr(miri, ignore = "more than a thousand pages")]
fn without_a_directory_chains_get_longer_and_nothing_fails() {
    let arena = Arena::new(256);
    let table = Chained::new(Singles(&arena)).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    let pages = 4000;
    (0..pages).for_each(|n| map(&mut space, n));
    assert_eq!(table.count_buckets(), 2 * FIRST, "the third segment takes two frames");
    assert!((0..pages).all(|n| probes(&space, n) > 0));
    space.unmap(page(0), pages * PAGE_SIZE, &mut direct()).unwrap();
    assert_eq!(table.count_entries(), 0);
}

#[test]
fn growth_is_tried_again_when_memory_is_back() {
    let arena = Arena::new(256);
    let table = Chained::new(&arena).unwrap();
    put(&table, (0..FIRST + 1).map(|n| (n, RAW)));
    arena.limit_allocations(Some(0));
    table.grow(64);
    assert_eq!(table.count_buckets(), FIRST);
    arena.limit_allocations(None);
    table.grow(64);
    assert_eq!(table.count_buckets(), FIRST, "not at every entry");
    put(&table, (FIRST + 1..FIRST + 64).map(|n| (n, RAW)));
    table.grow(64);
    assert_eq!(table.count_buckets(), FIRST + 64);
}

#[test]
fn a_table_that_cannot_be_made_leaks_nothing() {
    let arena = Arena::new(64);
    for allocations in 0..4 {
        arena.limit_allocations(Some(allocations));
        let made = Chained::with_capacity(&arena, 4096);
        assert_eq!(
            made.map(|_| ()).map_err(|out| u64::from(out.order)),
            match allocations {
                0 | 1 => Err(0),
                n => Err(n - 1),
            }
        );
        assert_eq!(arena.frames_in_use(), 0);
    }
    arena.limit_allocations(Some(4));
    assert_eq!(Chained::with_capacity(&arena, 4096).unwrap().count_buckets(), 4096);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn shrinking_keeps_what_is_left() {
    let (pages, left, buckets) = if cfg!(miri) { (700, 400, 512) } else { (6000, 600, 1024) };
    let arena = Arena::new(512);
    let mut table = Chained::new(&arena).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    (0..pages).for_each(|n| map(&mut space, n));
    space.unmap(page(left), pages * PAGE_SIZE, &mut direct()).unwrap();
    let _ = space;
    table.shrink();
    assert_eq!((table.count_entries(), table.count_buckets()), (left, buckets));
    for n in 0..pages {
        assert_eq!(table.walk(key(n), &mut ()) != 0, n < left, "page {n}");
    }
    // At most 2 frames of heads; nodes, among which others were freed.
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
    assert!(arena.frames_in_use() <= 2 + left.div_ceil(170) + 1, "{arena:?}");
    put(&table, (pages..2 * pages).map(|n| (n, RAW)));
    table.grow(u64::MAX);
    assert!((pages..2 * pages).all(|n| table.walk(key(n), &mut ()) == RAW));
}

/// Replaces the entry of page 1.
fn exchange<'t, S: Store>(
    space: &Space<'t, S>,
    expect: Entry,
    new: Entry,
    stock: &mut S::Stock<'t>,
) -> Result<(), ReplaceError> {
    space.replace(page(1), PAGE_SIZE, expect, new, stock, &mut direct())
}

#[test]
fn a_stock_of_another_table_is_no_stock() {
    let arena = Arena::new(64);
    let (mut one, two) = (Chained::new(&arena).unwrap(), Chained::new(&arena).unwrap());
    let (a, b) = (one.space(asid(1)).unwrap(), two.space(asid(1)).unwrap());
    let mut stock = a.stock();
    a.refill(&mut stock, Need::new(1)).unwrap();
    let leaf = Entry::Leaf(RAM, Attr::RW);
    let lacking = exchange(&b, Entry::Hole, leaf, &mut stock);
    assert!(matches!(lacking, Err(ReplaceError::Need(_))));
    assert_eq!(exchange(&a, Entry::Hole, leaf, &mut stock), Ok(()));
    b.refill(&mut stock, Need::new(1)).unwrap();
    assert_eq!(exchange(&b, Entry::Hole, leaf, &mut stock), Ok(()));
    let freed = exchange(&a, leaf, Entry::Hole, &mut stock);
    assert_eq!(freed, Ok(()), "the node goes to its own table");
    drop(stock);
    one.pool.trim();
    assert_eq!((one.pool.count_frames(), two.pool.count_frames()), (0, 1));
}

#[test]
fn frame_zero_is_a_frame() {
    let arena = Arena::at(PhysAddr::new(0), 64);
    let table = Chained::new(&arena).unwrap();
    let mut space = table.space(asid(0)).unwrap();
    (0..300).for_each(|n| map(&mut space, n));
    assert!((0..300).all(|n| probes(&space, n) > 0));
    space.retire(&mut direct());
    drop(table);
    assert_eq!(arena.frames_in_use(), 0);
}

/// Pages whose hashes fall into the first few buckets, which are the first to be split.
fn pages_of_first_buckets(count: usize) -> Vec<u64> {
    (0..).filter(|&n| key(n).hash() % FIRST < 8).take(count).collect()
}

#[test]
fn who_waits_for_a_bucket_that_splits_goes_on_to_the_new_one() {
    let arena = Arena::new(32);
    let table = Chained::new(&arena).unwrap();
    // A page that the first split moves from bucket 0 to bucket 512.
    let n = (0..).find(|&n| key(n).hash() % (2 * FIRST) == FIRST).unwrap();
    put(&table, [(n, RAW)]);
    table.directory.grow(&AtomicU64::new(u64::MAX), 1, |added| {
        let held = table.lock_bucket(0);
        thread::scope(|scope| {
            let walk = scope.spawn(|| table.walk(key(n), &mut ()));
            // Time for it to come to the lock; if it is later than that, the test shows nothing.
            thread::sleep(core::time::Duration::from_millis(50));
            table.split_locked(held, added);
            assert_eq!(walk.join().unwrap(), RAW);
        });
    });
    assert_eq!((table.count_in_bucket(0), table.count_in_bucket(FIRST)), (0, 1));
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
            scope.spawn(|| {
                let mut seen = BTreeSet::new();
                let mut stripe = 0;
                while stripe < table.count_stripes() {
                    let mut found = Lowest::new(vellum_global::Keys::all(asid(1)));
                    table.scan(stripe, &mut found);
                    seen.extend(found.held().iter().map(|&(key, _)| key.va().number().as_u64()));
                    assert_eq!(found.rest(), None);
                    stripe += 1;
                }
                assert!(seen.iter().eq(pages.iter()), "a scan passed over an entry");
            });
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

proptest! {
    #![proptest_config(vellum_testkit::suite::config(24))]

    #[test]
    fn everything_is_found_after_every_split(
        pages in prop::collection::btree_set(0..1u64 << 45, 1..if cfg!(miri) { 20 } else { 400 }),
        splits in 1..if cfg!(miri) { 10 } else { 1200u64 },
    ) {
        let arena = Arena::new(64);
        let table = Chained::new(&arena).unwrap();
        put(&table, pages.iter().map(|&n| (n, RAW)));
        for done in 1..=splits {
            prop_assert!(split(&table));
            prop_assert_eq!(table.count_buckets(), FIRST + done);
            for &n in &pages {
                prop_assert_eq!(table.walk(key(n), &mut ()), RAW, "page {} after {}", n, done);
            }
        }
        let counted: u64 = (0..table.count_buckets()).map(|b| table.count_in_bucket(b)).sum();
        prop_assert_eq!(counted, pages.len() as u64);
    }
}
