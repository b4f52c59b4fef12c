//! Blocks, growth, theory, memory and threads of the clustered table; what every table promises is
//! in `tests/conformance.rs`.

use super::*;
use crate::testing::{
    LAST_PAGE, asid, count_refs, direct, exchange, key, leaf, map, page, refs, scanned,
    whatever_comes_between,
};
use core::sync::atomic::AtomicBool;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::thread;
use std::vec::Vec;
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, Run, VirtAddr, Walk};
use vellum_testkit::Arena;

mod threads;

/// Buckets at first.
const FIRST: u64 = Directory::<&Arena>::FIRST;

fn split<M: Memory, const PAGES: usize>(table: &Clustered<M, PAGES>) {
    let before = table.count_buckets();
    table.directory.grow(&AtomicU64::new(u64::MAX), 1, |n| table.split(n));
    assert_eq!(table.count_buckets(), before + 1);
}

/// Puts raw entries in for these pages, without letting the table grow.
fn put<M: Memory, const PAGES: usize>(
    table: &Clustered<M, PAGES>,
    pages: impl IntoIterator<Item = (u64, u64)>,
) {
    let mut stock = table.stock();
    for (n, raw) in pages {
        stock.refill(&table.pool, 1).unwrap();
        assert_eq!(table.update(key(n), &mut stock, |_| Ok::<u64, ()>(raw)), Ok(0), "page {n}");
    }
}

fn bytes(refs: &[vellum_core::Ref]) -> Vec<u8> {
    assert!(refs.iter().all(|r| r.span == 12 && !r.parallel));
    refs.iter().map(|r| r.bytes).collect()
}

#[test]
fn neighbours_share_a_node_and_the_last_takes_it_along() {
    let arena = Arena::new(64);
    let table = Clustered16::new(&arena).unwrap();
    let mut stock = table.stock();
    (32..48).for_each(|n| _ = exchange(&table, n, leaf(1000 + 7 * n), &mut stock));
    assert_eq!((table.count_entries(), table.count_blocks()), (16, 1));
    exchange(&table, 31, leaf(5), &mut stock);
    exchange(&table, 48, leaf(5), &mut stock);
    assert_eq!(table.count_blocks(), 3);
    (31..48).for_each(|n| assert_ne!(exchange(&table, n, 0, &mut stock), 0));
    assert_eq!((table.count_entries(), table.count_blocks()), (1, 1));
    assert_eq!(table.walk(key(48), &mut ()), leaf(5));
    assert_eq!(scanned(&table), [48]);
}

#[test]
fn six_pages_are_a_block_of_the_small_kind() {
    let arena = Arena::new(64);
    let table = Clustered6::new(&arena).unwrap();
    put(&table, (0..60).map(|n| (n, leaf(n))));
    assert_eq!(table.count_blocks(), 10);
    assert_eq!(scanned(&table), (0..60).collect::<Vec<_>>());
    // The last page that there is, whose block is cut.
    put(&table, [(LAST_PAGE, leaf(9))]);
    assert_eq!(table.walk(key(LAST_PAGE), &mut ()), leaf(9));
    assert_eq!(scanned(&table).last(), Some(&LAST_PAGE));
    // A block across the end of the lower half.
    put(&table, [((1 << 44) - 1, leaf(8)), (1 << 44, leaf(8))]);
    assert_eq!(table.count_blocks(), 12);
}

#[test]
fn leaves_of_each_size_have_blocks_of_their_own() {
    let arena = Arena::new(64);
    let table = Clustered16::new(&arena).unwrap();
    let mut stock = table.stock();
    for (n, size) in (1..).zip(Size::ALL) {
        for place in [0, 1, 17] {
            let key = Key::of(asid(1), page(0), size).plus(place);
            table.refill(&mut stock, Need::new(1)).unwrap();
            let raw = leaf(n << 18) | (place & 1) << 9;
            assert_eq!(table.update(key, &mut stock, |_| Ok::<u64, ()>(raw)), Ok(0));
            assert_eq!(table.walk(key, &mut ()), raw);
        }
    }
    assert_eq!((table.count_entries(), table.count_blocks()), (9, 6));
    for size in Size::ALL {
        let mut found = Lowest::new(vellum_global::Keys::all(asid(1)).touching(size));
        (0..table.count_stripes()).for_each(|stripe| table.scan(stripe, &mut found));
        let places: Vec<_> = found.held().iter().map(|(key, _)| key.number()).collect();
        assert_eq!(places, [0, 1, 17], "{size:?}");
    }
}

#[test]
fn a_block_is_read_and_changed_at_once() {
    let arena = Arena::new(64);
    let table = Clustered16::new(&arena).unwrap();
    put(&table, (0..16).filter(|n| n % 3 != 0).map(|n| (32 + n, leaf(0x40 + n))));
    assert_eq!(<Clustered16<&Arena> as Store>::block(Size::Base).get(), 16);
    let mut raws = [7; 9];
    table.read_block(key(36), &mut raws);
    let expected = |n: u64| if n.is_multiple_of(3) { 0 } else { leaf(0x40 + n) };
    assert!((4..13).map(expected).eq(raws), "{raws:x?}");
    table.read_block(key(64), &mut raws);
    assert_eq!(raws, [0; 9], "no such block");

    let mut stock = table.stock();
    let mut told = Vec::new();
    table.change_block(key(36), 9, &mut stock, &mut |key, raw| {
        told.push((key.number(), raw));
        if key.number() == 37 { 0 } else { raw & !2 }
    });
    assert!(told.into_iter().eq((4..13).filter(|n| n % 3 != 0).map(|n| (32 + n, expected(n)))));
    for n in 0..16 {
        let raw = match n {
            5 => 0,
            4..13 => expected(n) & !2,
            _ => expected(n),
        };
        assert_eq!(table.walk(key(32 + n), &mut ()), raw, "page {n}");
    }
    assert_eq!((table.count_entries(), table.count_blocks()), (9, 1));
    table.change_block(key(32), 16, &mut stock, &mut |_, _| 0);
    assert_eq!((table.count_entries(), table.count_blocks(), stock.count()), (0, 0, 1));
}

#[test]
fn spaces_do_not_share_a_block() {
    let arena = Arena::new(64);
    let table = Clustered6::new(&arena).unwrap();
    let mut spaces = [0, 1, 2].map(|n| table.space(asid(n)).unwrap());
    for space in &mut spaces {
        map(space, 0);
        map(space, (1 << 52) - 1);
    }
    assert_eq!(table.count_blocks(), 6);
    let [first, second, third] = spaces;
    second.retire(&mut direct());
    for space in [first, third] {
        assert!(space.translate(page(0)).is_some());
        assert!(space.translate(VirtAddr::new(!0xfff)).is_some());
    }
    assert_eq!(table.count_entries(), 4);
}

#[test]
fn a_walk_charges_what_each_kind_of_node_needs() {
    let arena = Arena::new(64);
    let table = Clustered16::new(&arena).unwrap();
    // The first two blocks that share a bucket.
    let bucket = |block: u64| key(16 * block).hash() % FIRST;
    let same: Vec<_> = (0..).filter(|&b| bucket(b) == bucket(0)).take(2).map(|b| 16 * b).collect();
    // A partial-subblock, then a base node before it.
    put(&table, [(same[0] + 3, leaf(0x43)), (same[1] + 3, leaf(0x43)), (same[1] + 4, leaf(0x43))]);
    assert_eq!(bytes(&refs(&table, same[0] + 3)), [8, 16, 32]);
    assert_eq!(bytes(&refs(&table, same[0] + 4)), [8, 16, 32], "a miss is known as late");
    assert_eq!(bytes(&refs(&table, same[1] + 4)), [8, 16, 8]);
    let hit = refs(&table, same[1] + 4);
    assert_eq!(hit[2].pa.checked_sub(hit[1].pa), Some(16 + 4 * 8));
    assert_eq!(table.census(), Census { base: 1, partial: 1, superpages: 0 });

    let lines = Clustered6::new(&arena).unwrap();
    put(&lines, [(7, leaf(1))]);
    let hit = refs(&lines, 7);
    assert_eq!(bytes(&hit), [8, 64]);
    assert!(hit[1].pa.is_aligned(6), "a node is a line");
}

#[test]
fn what_is_mapped_in_one_run_is_superpages() {
    let arena = Arena::new(64);
    let table = Clustered16::new(&arena).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    let run = Run::new(page(40), PhysAddr::new(0x80_8000), 64 * PAGE_SIZE, Attr::RW);
    space.map(run, &mut direct()).unwrap();
    assert_eq!(table.census(), Census { base: 0, partial: 2, superpages: 3 });
    space
        .protect(page(60), PAGE_SIZE, vellum_core::Change::clearing(Attr::WRITE), &mut direct())
        .unwrap();
    assert_eq!(table.census(), Census { base: 1, partial: 2, superpages: 2 });
}

/// Uniform hashing with the block as unit: a hit reads 1 + a/2 nodes, a miss a; 1 - e^-a of the
/// buckets are occupied.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of look-ups")]
fn probes_and_occupancy_are_those_of_theory() {
    let (buckets, blocks) = (1 << 16, 1 << 15);
    let arena = Arena::new(4096);
    let table = Clustered6::with_capacity(&arena, 6 * buckets).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    // One page of each block is enough, whichever.
    (0..blocks).for_each(|block| map(&mut space, 6 * block + block % 6));
    assert_eq!((table.count_buckets(), table.count_blocks()), (buckets, blocks), "a load of 1/2");
    let mean = |first: u64| {
        let nodes = |block: u64| count_refs(&space, 6 * block + block % 6) - 1;
        (first..first + blocks).map(nodes).sum::<u64>() as f64 / blocks as f64
    };
    let (hit, miss) = (mean(0), mean(blocks));
    let occupied = (0..buckets).filter(|&b| table.count_in_bucket(b) > 0).count();
    let occupied = occupied as f64 / buckets as f64;
    // Three standard deviations: .0117 of a miss, whose probes are Poisson distributed; less of
    // the other two.
    assert!((hit - 1.25).abs() < 0.01, "{hit}");
    assert!((miss - 0.5).abs() < 0.0117, "{miss}");
    assert!((occupied - (1.0 - (-0.5f64).exp())).abs() < 0.006, "{occupied}");
}

/// 9.5 bytes a page where blocks are full, 152 where they have one: a node and a head, in frames
/// that are full but for their headers and the last ones.
#[test]
#[cfg_attr(miri, ignore = "tens of thousands of pages")]
fn bytes_a_page_are_those_of_a_node_and_a_head() {
    for (step, pages, expected) in [(1, 1 << 15, 9.5), (16, 1 << 11, 152.0)] {
        let arena = Arena::new(1024);
        let table = Clustered16::with_capacity(&arena, pages * step).unwrap();
        let mut space = table.space(asid(1)).unwrap();
        (0..pages).for_each(|n| map(&mut space, n * step));
        let bytes = (table.table_bytes() - PAGE_SIZE) as f64 / pages as f64;
        assert!((expected..expected * 1.03).contains(&bytes), "{bytes}, without the locks");
        assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
    }
}

#[test]
fn growth_takes_a_bounded_step_a_call() {
    let arena = Arena::new(512);
    let table = Clustered6::new(&arena).unwrap();
    let blocks = if cfg!(miri) { 620 } else { 3000 };
    put(&table, (0..blocks).map(|n| (6 * n, leaf(n))));
    assert_eq!(table.count_buckets(), FIRST, "an update alone does not grow the table");
    let mut stock = table.stock();
    let mut buckets = FIRST;
    // A stock of one, of two, and so on: two steps for each of them.
    for nodes in [1, 2, 4, 8, 16, 16] {
        table.refill(&mut stock, Need::new(1)).unwrap();
        buckets += 2 * nodes;
        assert_eq!(table.count_buckets(), buckets);
    }
}

#[test]
fn shrinking_keeps_what_is_left_and_gives_frames_back() {
    let (pages, left, buckets) = if cfg!(miri) { (700, 400, 512) } else { (6000, 600, 1024) };
    let arena = Arena::new(512);
    let mut table = Clustered6::new(&arena).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    (0..pages).for_each(|n| map(&mut space, 6 * n));
    space.unmap(page(6 * left), 6 * pages * PAGE_SIZE, &mut direct()).unwrap();
    let _ = space;
    let before = arena.frames_in_use();
    table.shrink();
    assert!(arena.frames_in_use() < before, "{arena:?}");
    assert_eq!((table.count_blocks(), table.count_buckets()), (left, buckets));
    assert!(scanned(&table).into_iter().eq((0..left).map(|n| 6 * n)));
    for n in 0..pages {
        assert_eq!(table.walk(key(6 * n), &mut ()) != 0, n < left, "block {n}");
    }
    // Heads, locks, and nodes, among which others were freed.
    assert_eq!(table.table_bytes(), arena.frames_in_use() * PAGE_SIZE);
    assert!(arena.frames_in_use() <= 2 + 1 + left.div_ceil(63) + 1, "{arena:?}");
}

#[test]
fn reclaiming_frees_what_no_look_up_can_still_read() {
    let arena = Arena::new(64);
    let table = Clustered16::new(&arena).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    let empty = arena.frames_in_use();
    (0..300).for_each(|n| map(&mut space, 16 * n));
    let full = arena.frames_in_use();
    space.unmap(page(0), 300 * 16 * PAGE_SIZE, &mut direct()).unwrap();
    assert_eq!(arena.frames_in_use(), full, "somebody may read them");
    // SAFETY: nobody is here.
    unsafe { table.reclaim() };
    assert_eq!(arena.frames_in_use(), empty);
}

#[test]
fn a_table_that_cannot_be_made_leaks_nothing() {
    let arena = Arena::new(64);
    for granted in 0..5 {
        arena.limit_allocations(Some(granted));
        assert!(Clustered16::with_capacity(&arena, 16 * 4096).is_err());
        assert_eq!(arena.frames_in_use(), 0);
    }
    arena.limit_allocations(Some(5));
    assert_eq!(Clustered16::with_capacity(&arena, 16 * 4096).unwrap().count_buckets(), 4096);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn frame_zero_is_a_frame() {
    let arena = Arena::at(PhysAddr::new(0), 64);
    let table = Clustered6::new(&arena).unwrap();
    let mut space = table.space(asid(0)).unwrap();
    (0..300).for_each(|n| map(&mut space, 6 * n));
    assert!((0..300).all(|n| space.translate(page(6 * n)).is_some()));
    space.retire(&mut direct());
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
        let table = Clustered6::new(&arena).unwrap();
        put(&table, pages.iter().map(|&n| (n, leaf(n & 0xffff))));
        for done in 1..=splits {
            split(&table);
            for &n in &pages {
                let raw = table.walk(key(n), &mut ());
                prop_assert_eq!(raw, leaf(n & 0xffff), "page {} after {}", n, done);
            }
        }
        let blocks: BTreeSet<_> = pages.iter().map(|n| n / 6).collect();
        let counted: u64 = (0..table.count_buckets()).map(|b| table.count_in_bucket(b)).sum();
        prop_assert_eq!((counted, table.count_blocks()), (blocks.len() as u64, counted));
        prop_assert!(scanned(&table).iter().eq(pages.iter()));
    }
}
