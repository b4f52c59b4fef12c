//! Growth, theory, memory and threads of the chained table; what every table promises is in
//! `tests/conformance.rs`.

use super::*;
use crate::testing::{
    RAM, asid, direct, exchange, key, leaf, map, page, scanned, whatever_comes_between,
};
use core::sync::atomic::AtomicBool;
use proptest::prelude::*;
use std::thread;
use std::vec::Vec;
use vellum_core::{
    Attr, Change, Entry, FrameSource, Memory, PAGE_SIZE, PageTable, PhysAddr, PhysMap, Ref,
    ReplaceError, Walk,
};
use vellum_testkit::Arena;

mod threads;

/// Buckets at first.
const FIRST: u64 = Directory::<&Arena, WORDS>::FIRST;

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
fn split<M: Memory>(table: &Chained<M>) -> bool {
    let before = table.count_buckets();
    let (due, mut nodes) = (AtomicU64::new(u64::MAX), table.stock());
    table.directory.grow(&due, 1, |n| table.split(n, &mut nodes));
    table.count_buckets() > before
}

/// As much growth as is due, in steps.
fn grow<M: Memory>(table: &Chained<M>, steps: u64) {
    table.grow(steps, &mut table.stock());
}

/// Nodes that a walk to page `n` reads, the bucket among them.
fn probes<S: Store>(space: &Space<'_, S>, n: u64) -> u64 {
    crate::testing::count_refs(space, n)
}

fn is_there<S: Store>(space: &Space<'_, S>, n: u64) -> bool {
    space.translate(page(n)).is_some()
}

/// Pages of one bucket of the smallest table.
fn same_bucket(bucket: u64) -> impl Iterator<Item = u64> {
    (0..).filter(move |&n| key(n).hash() % FIRST == bucket)
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

/// An arena that counts how often its memory is reached for.
#[derive(Clone, Copy)]
struct Counted<'a>(&'a Arena, &'a AtomicU64);

impl PartialEq for Counted<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

// SAFETY: the arena's.
unsafe impl PhysMap for Counted<'_> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(core::ptr::NonNull<u8>) -> R) -> R {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.with(pa, f)
    }
}

// SAFETY: one arena is behind both halves, and behind every clone and equal.
unsafe impl Memory for Counted<'_> {}

// SAFETY: the arena's.
unsafe impl FrameSource for Counted<'_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        self.0.alloc(order)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller's.
        unsafe { self.0.free(pa, order) }
    }
}

/// A stock is made for one page when only one is mapped: no batch of nodes is taken out of the pool
/// for it and put back.
#[test]
fn mapping_a_page_alone_touches_little() {
    let (arena, count) = (Arena::new(64), AtomicU64::new(0));
    let table = Chained::new(Counted(&arena, &count)).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    let same: Vec<_> = same_bucket(3).take(30).collect();
    // The first is the bucket's, the second takes a frame for nodes.
    same[..2].iter().for_each(|&n| map(&mut space, n));
    for (behind, &n) in (2..).zip(&same[2..]) {
        count.store(0, Ordering::Relaxed);
        map(&mut space, n);
        // Two walks of a chain that has as many before it, and one node from the pool.
        let touched = count.load(Ordering::Relaxed);
        assert!(touched <= 2 * behind + 24, "{touched} accesses behind {behind}");
    }
}

/// Uniform hashing: a hit reads 1 + a/2 nodes, a miss a + e^-a, as it reads an empty bucket too;
/// 1 - e^-a of the buckets are occupied.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of look-ups")]
fn probes_and_occupancy_are_those_of_theory() {
    let (buckets, pages) = (1 << 16, 1 << 15);
    let arena = Arena::new(4096);
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
    // Three standard deviations of a miss are .0065: its probes have a variance of
    // a + e^-a + a^2 - (a + e^-a)^2 = .132 for the load and .024 for the chains' own spread; less of
    // the other two.
    assert!((hit - 1.25).abs() < 0.01, "{hit}");
    assert!((miss - (0.5 + (-0.5f64).exp())).abs() < 0.0065, "{miss}");
    assert!((occupied - (1.0 - (-0.5f64).exp())).abs() < 0.006, "{occupied}");
}

#[test]
fn a_walk_charges_the_bucket_misses_and_hit() {
    let arena = Arena::new(8);
    let table = Chained::new(&arena).unwrap();
    let space = table.space(asid(1)).unwrap();
    let same: Vec<_> = same_bucket(3).take(4).collect();
    let read = |n| {
        let mut read = Vec::new();
        space.walk(page(n), &mut |r: Ref| read.push((r.bytes, r.span, r.parallel))).unwrap();
        read
    };
    assert_eq!(read(same[0]), [(16, 12, false)], "an empty bucket");
    put(&table, same[..3].iter().map(|&n| (n, RAW)));
    let (miss, hit) = ((16, 12, false), (24, 12, false));
    assert_eq!(read(same[0]), [hit], "the bucket's own");
    // Later ones come behind the bucket, the last first.
    assert_eq!(read(same[2]), [miss, hit]);
    assert_eq!(read(same[1]), [miss, miss, hit]);
    assert_eq!(read(same[3]), [miss, miss, miss]);
}

#[test]
fn a_bucket_whose_entry_goes_takes_the_first_behind_it() {
    let arena = Arena::new(8);
    let table = Chained::new(&arena).unwrap();
    let same: Vec<_> = same_bucket(3).take(3).collect();
    for gone in 0..3 {
        put(&table, same.iter().map(|&n| (n, leaf(n))));
        let mut stock = table.stock();
        assert_eq!(exchange(&table, same[gone], 0, &mut stock), leaf(same[gone]));
        assert_eq!((stock.count(), table.count_in_bucket(3)), (1, 2), "one node goes");
        for (i, &n) in same.iter().enumerate() {
            let raw = if i == gone { 0 } else { leaf(n) };
            assert_eq!(table.walk(key(n), &mut ()), raw);
            exchange(&table, n, 0, &mut stock);
        }
        assert_eq!((table.count_entries(), stock.count()), (0, 2));
    }
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
        // Growth comes with the next node, which two of three entries need.
        assert!(entries <= buckets + 16, "{entries} entries in {buckets} buckets");
        if n % 97 == 0 || n == pages - 1 {
            assert!((0..=n).all(|n| is_there(&space, n * 7)));
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
    let mut buckets = FIRST;
    // A stock of one, of two more, and so on: two steps for each of them.
    for nodes in [1, 2, 4, 8, 16, 16] {
        table.refill(&mut stock, Need::new(1)).unwrap();
        buckets += 2 * nodes;
        assert_eq!(table.count_buckets(), buckets);
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
    assert!((0..pages).all(|n| is_there(&space, n)));
    space.unmap(page(0), pages * PAGE_SIZE, &mut direct()).unwrap();
    assert_eq!(table.count_entries(), 0);
}

#[test]
fn growth_is_tried_again_when_memory_is_back() {
    let arena = Arena::new(256);
    let table = Chained::new(&arena).unwrap();
    put(&table, (0..FIRST + 1).map(|n| (n, RAW)));
    arena.limit_allocations(Some(0));
    grow(&table, 64);
    assert_eq!(table.count_buckets(), FIRST);
    arena.limit_allocations(None);
    grow(&table, 64);
    assert_eq!(table.count_buckets(), FIRST, "not at every entry");
    put(&table, (FIRST + 1..FIRST + 64).map(|n| (n, RAW)));
    grow(&table, 64);
    assert_eq!(table.count_buckets(), FIRST + 64);
}

#[test]
fn a_table_that_cannot_be_made_leaks_nothing() {
    let arena = Arena::new(64);
    for allocations in 0..6 {
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
    arena.limit_allocations(Some(6));
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
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
    // A frame for 128 buckets; of nodes, among which others were freed, at most one an entry.
    let most = buckets / 128 + left.div_ceil(170) + 1;
    assert!(arena.frames_in_use() <= most, "{arena:?}");
    put(&table, (pages..2 * pages).map(|n| (n, RAW)));
    grow(&table, u64::MAX);
    assert!((pages..2 * pages).all(|n| table.walk(key(n), &mut ()) == RAW));
}

#[test]
fn buckets_that_cannot_be_joined_stay() {
    let arena = Arena::new(64);
    let mut table = Chained::with_capacity(&arena, 2 * FIRST).unwrap();
    // Buckets 5 and 133 become one, and the latter's entry would need a node.
    let same: Vec<_> = same_bucket(5).filter(|&n| key(n).hash() & FIRST == 0).take(1).collect();
    let other = same_bucket(5).find(|&n| key(n).hash() & FIRST != 0).unwrap();
    put(&table, [(same[0], leaf(same[0])), (other, leaf(other))]);
    table.pool.trim();
    arena.limit_allocations(Some(0));
    table.shrink();
    assert_eq!((table.count_buckets(), arena.frames_in_use()), (FIRST + 6, 2));
    let found = [same[0], other].map(|n| table.walk(key(n), &mut ()));
    assert_eq!(found, [leaf(same[0]), leaf(other)]);
    arena.limit_allocations(None);
    table.shrink();
    assert_eq!((table.count_buckets(), table.count_in_bucket(5)), (FIRST, 2));
    let found = [same[0], other].map(|n| table.walk(key(n), &mut ()));
    assert_eq!(found, [leaf(same[0]), leaf(other)]);
}

#[test]
fn reclaiming_frees_what_no_look_up_can_still_read() {
    let arena = Arena::new(64);
    let table = Chained::new(&arena).unwrap();
    let pages: Vec<_> = same_bucket(7).take(172).collect();
    put(&table, pages.iter().map(|&n| (n, RAW)));
    assert_eq!(table.pool.count_frames(), 2);
    let mut stock = table.stock();
    pages.iter().for_each(|&n| assert_eq!(exchange(&table, n, 0, &mut stock), RAW));
    drop(stock);
    assert_eq!(table.pool.count_frames(), 2, "somebody may be reading them");
    // SAFETY: nobody else is here.
    unsafe { table.reclaim() };
    assert_eq!((table.pool.count_frames(), table.table_bytes()), (0, PAGE_SIZE));
}

/// Replaces the entry of a page that shares its bucket with one that is there.
fn replace<'t, S: Store>(
    space: &Space<'t, S>,
    n: u64,
    (expect, new): (Entry, Entry),
    stock: &mut S::Stock<'t>,
) -> Result<(), ReplaceError> {
    space.replace(page(n), PAGE_SIZE, expect, new, stock, &mut direct())
}

#[test]
fn a_stock_of_another_table_is_no_stock() {
    let arena = Arena::new(64);
    let (mut one, two) = (Chained::new(&arena).unwrap(), Chained::new(&arena).unwrap());
    let same: Vec<_> = same_bucket(3).take(2).collect();
    for table in [&one, &two] {
        exchange(table, same[0], RAW, &mut table.stock());
    }
    let (a, b) = (one.space(asid(1)).unwrap(), two.space(asid(1)).unwrap());
    let mut stock = a.stock();
    a.refill(&mut stock, Need::new(1)).unwrap();
    let leaf = Entry::Leaf(RAM, Attr::RW);
    let lacking = replace(&b, same[1], (Entry::Hole, leaf), &mut stock);
    assert!(matches!(lacking, Err(ReplaceError::Need(_))));
    assert_eq!(replace(&a, same[1], (Entry::Hole, leaf), &mut stock), Ok(()));
    b.refill(&mut stock, Need::new(1)).unwrap();
    assert_eq!(replace(&b, same[1], (Entry::Hole, leaf), &mut stock), Ok(()));
    let freed = replace(&a, same[1], (leaf, Entry::Hole), &mut stock);
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
    assert!((0..300).all(|n| is_there(&space, n)));
    space.retire(&mut direct());
    drop(table);
    assert_eq!(arena.frames_in_use(), 0);
}

/// Pages whose hashes fall into the first few buckets, which are the first to be split.
fn pages_of_first_buckets(count: usize) -> Vec<u64> {
    (0..).filter(|&n| key(n).hash() % FIRST < 8).take(count).collect()
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
