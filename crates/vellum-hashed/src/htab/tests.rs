//! Groups, overflow, growth, theory and threads of PowerPC's table; what every table promises is in
//! `tests/conformance.rs`.

use super::*;
use crate::testing::{
    FRAMES, LAST_PAGE, asid, direct, exchange, key, leaf, map, page, refs, scanned,
    whatever_comes_between,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;
use std::vec::Vec;
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, Soft, Walk, pte};
use vellum_testkit::Arena;

mod growth;
mod threads;

const GROUPS: u64 = 1 << LEAST;

/// Pages whose primary group is this one, in a table of the least size.
fn pages_of(group: u64) -> impl Iterator<Item = u64> {
    (0u64..).flat_map(move |segment| {
        let low = (Virtual::of(key(segment << 16)).vsid ^ group) & (GROUPS - 1);
        (0..32).map(move |high| segment << 16 | high << 11 | low)
    })
}

fn global(frame: u64) -> u64 {
    leaf(frame) | u64::from(Attr::GLOBAL.bits())
}

fn soft(n: u64) -> u64 {
    pte::encode(Entry::Soft(Soft::new(n).unwrap()), PAGE_SHIFT).unwrap()
}

/// A stock with which a table does not grow.
fn still<M: Memory>(table: &Htab<M>) -> Stock<'_, M> {
    let mut stock = table.stock();
    stock.credit = u32::MAX;
    stock
}

/// Replaces a raw entry; the table does not grow.
fn put<M: Memory>(table: &Htab<M>, n: u64, raw: u64) -> u64 {
    let mut stock = still(table);
    stock.nodes.refill(&table.pool, 1).unwrap();
    table.update(key(n), &mut stock, |_| Ok::<u64, ()>(raw)).unwrap()
}

fn fill<M: Memory>(table: &Htab<M>, pages: impl IntoIterator<Item = u64>) {
    pages.into_iter().for_each(|n| assert_eq!(put(table, n, leaf(n & 0xffff)), 0, "page {n}"));
}

fn bytes(table: &Htab<impl Memory>, n: u64) -> Vec<u8> {
    let refs = refs(table, n);
    assert!(refs.iter().all(|r| r.span == 12 && !r.parallel));
    refs.iter().map(|r| r.bytes).collect()
}

/// Moves the next pair.
fn step<M: Memory>(table: &Htab<M>) {
    assert!(table.step(&mut Nodes::new(&table.pool)));
}

/// What the table says of itself, and that a chain means two full groups.
fn check<M: Memory>(table: &Htab<M>) {
    let census = table.census();
    assert_eq!(census.overflow, table.count_overflow());
    let sum = census.primary + census.secondary + census.overflow;
    assert_eq!(sum, table.count_entries());
    for pair in 0..table.count_stripes() {
        table.with_pair(pair, |table| {
            let mut all = table.groups_of(pair).into_iter().flat_map(slots);
            let full = all.all(|slot| is_taken(table.v(slot)));
            assert!(table.head(pair) == 0 || full, "a chain beside a free slot in pair {pair}");
        });
    }
}

#[test]
fn the_least_table_is_that_of_the_architecture() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    let (origin, bytes_log2) = table.origin().unwrap();
    assert_eq!((bytes_log2, table.count_groups()), (18, 2048));
    assert!(origin.is_aligned(18));
    assert_eq!((arena.frames_in_use(), table.table_bytes()), (64 + 2 + 1, 67 * PAGE_SIZE));
}

/// What a processor finds at the address that the architecture computes.
#[test]
fn an_entry_lies_where_hardware_looks_for_it() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    let n = 0x12_3456;
    put(&table, n, leaf(0x77) | pte::ACCESSED);
    let (origin, _) = table.origin().unwrap();
    let Virtual { vsid, page } = Virtual::of(key(n));
    assert_eq!(page, 0x3456);
    // PTEG address: HTABORG | hash mod 2^11, by 2^7.
    let group = origin.wrapping_add(((vsid ^ page) & 0x7ff) << 7);
    // SAFETY: a group of the table.
    let word = |at| unsafe { vellum_global::word::load(&&arena, group.wrapping_add(at)) };
    assert_eq!(word(0), vsid << 12 | (0x3456 >> 11) << 7 | 1);
    // R, M; system only, instructions too: pp 000, no N.
    assert_eq!(pte::decode(leaf(0), PAGE_SHIFT), Entry::Leaf(PhysAddr::new(0), Attr::RWX));
    assert_eq!(word(8), 0x7_7110);
}

#[test]
fn a_walk_charges_groups_and_then_the_chain() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    let mut pages = pages_of(5);
    let (primary, absent) = (pages.next().unwrap(), pages.next().unwrap());
    fill(&table, [primary]);
    assert_eq!(bytes(&table, primary), [128]);
    assert_eq!(bytes(&table, absent), [128, 128], "a free slot says that there is no chain");
    fill(&table, pages.by_ref().take(7));
    let secondary = pages.next().unwrap();
    fill(&table, [secondary]);
    assert_eq!(bytes(&table, secondary), [128, 128]);
    fill(&table, pages.by_ref().take(7));
    assert_eq!(bytes(&table, absent), [128, 128, 8]);
    fill(&table, pages.by_ref().take(2));
    assert_eq!(table.census(), Census { primary: 8, secondary: 8, overflow: 2 });
    assert_eq!(bytes(&table, absent), [128, 128, 8, 16, 16]);
    // The first two of the group were pushed out, in turns; the later one is the first of the chain.
    assert_eq!(bytes(&table, primary), [128, 128, 8, 16, 24]);
    let groups: Vec<_> = refs(&table, primary).iter().map(|r| r.pa).collect();
    assert_eq!(groups[1].checked_sub(groups[0]), Some((GROUPS - 1 - 5 - 5) * 128));
}

#[test]
fn a_new_entry_gets_a_slot_and_an_old_one_goes_to_the_chain() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    let pages: Vec<_> = pages_of(0).take(40).collect();
    for (count, &n) in (1..).zip(&pages) {
        fill(&table, [n]);
        assert!(bytes(&table, n).len() <= 2, "page {n} is not where hardware looks");
        assert_eq!(table.count_overflow(), u64::saturating_sub(count, 16));
        assert_eq!(table.count_evictions(), table.count_overflow());
        check(&table);
    }
    for &n in &pages {
        assert_eq!(table.walk(key(n), &mut ()), leaf(n & 0xffff));
    }
    for (left, &n) in (0..40u64).rev().zip(&pages) {
        assert_eq!(put(&table, n, 0), leaf(n & 0xffff));
        assert_eq!(table.count_overflow(), left.saturating_sub(16), "freed slots are taken");
        check(&table);
    }
    assert_eq!(table.census(), Census::default());
}

#[test]
fn bolted_entries_stay() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    let pages: Vec<_> = pages_of(3).take(40).collect();
    for &n in &pages[..15] {
        put(&table, n, global(n & 0xffff));
    }
    fill(&table, [pages[15], pages[16]]);
    assert_eq!(bytes(&table, pages[15]).len(), 4, "the one that could go");
    for &n in &pages[17..] {
        put(&table, n, global(n & 0xffff));
    }
    assert!(pages[..16].iter().filter(|&&n| bytes(&table, n).len() <= 2).count() == 15);
    assert_eq!(bytes(&table, pages[17]).len(), 2, "it pushed the last other one out");
    assert!(pages[18..].iter().all(|&n| bytes(&table, n).len() >= 4), "nothing can go");
    assert_eq!(table.count_evictions(), 2);
    check(&table);
}

#[test]
fn what_hardware_cannot_use_makes_room_first() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    let pages: Vec<_> = pages_of(3).take(20).collect();
    let none = leaf(9) & !1;
    let raw = |i: usize, n: u64| {
        [leaf(n & 0xffff), soft(n + 1), none][if i % 7 == 3 { 1 + i % 2 } else { 0 }]
    };
    for (i, &n) in pages[..16].iter().enumerate() {
        put(&table, n, raw(i, n));
    }
    // Two of them, in slots of both groups: 3 and 10.
    fill(&table, pages[16..18].iter().copied());
    for (i, &n) in pages[..16].iter().enumerate() {
        assert_eq!(table.walk(key(n), &mut ()), raw(i, n));
        assert_eq!(bytes(&table, n).len() > 2, i == 3 || i == 10, "entry {i}");
    }
    put(&table, pages[18], soft(1));
    assert_eq!(table.count_evictions(), 2, "it does not push anything out itself");
    assert_eq!(table.walk(key(pages[18]), &mut ()), soft(1));
    check(&table);
}

#[test]
fn an_entry_of_the_chain_that_is_touched_comes_back() {
    let arena = Arena::new(FRAMES);
    let table = Htab::new(&arena).unwrap();
    let mut space = table.space(asid(1)).unwrap();
    let pages: Vec<_> = pages_of(9).take(18).collect();
    pages.iter().for_each(|&n| map(&mut space, n));
    let out = *pages.iter().find(|&&n| bytes(&table, n).len() > 2).unwrap();
    space.touch(page(out), Attr::READ, Attr::ACCESSED);
    assert_eq!((bytes(&table, out).len(), table.count_reloads()), (1, 1));
    let Entry::Leaf(_, attr) = space.walk(page(out), &mut ()).unwrap().entry else { panic!() };
    assert!(attr.contains(Attr::ACCESSED));
    assert!(pages.iter().all(|&n| space.translate(page(n)).is_some()));
    assert_eq!(table.count_overflow(), 2);
    check(&table);
}

/// Poisson: more than 8 of 8a hash to a group; beyond the 16 of a pair, of 16a, is overflow.
#[test]
#[cfg_attr(miri, ignore = "a hundred thousand pages")]
fn overflow_is_that_of_theory() {
    let log2 = 14;
    let arena = Arena::new(2048);
    let table = Htab::with_capacity(&arena, room(log2)).unwrap();
    assert_eq!(table.count_groups(), 1 << log2);
    let mut stock = still(&table);
    let mut pages = (0u64..).map(|n| key(n).hash() & LAST_PAGE);
    let mut add = |count| {
        for n in pages.by_ref().take(count) {
            stock.nodes.refill(&table.pool, 1).unwrap();
            assert_eq!(table.update(key(n), &mut stock, |_| Ok::<u64, ()>(leaf(1))), Ok(0));
        }
    };
    let shares = || {
        let census = table.census();
        let all = table.count_entries() as f64;
        ((census.secondary + census.overflow) as f64 / all, census.overflow as f64 / all)
    };
    add(8 << (log2 - 1));
    let mut hashes = std::vec![0; 1 << log2];
    for pair in 0..table.count_stripes() {
        table.with_pair(pair, |table| {
            table.each(pair, |page, _| hashes[(page.hash() & ((1 << log2) - 1)) as usize] += 1);
        });
    }
    let crowded = hashes.iter().filter(|&&n| n > 8).count() as f64 / hashes.len() as f64;
    let (displaced, overflow) = shares();
    // Three standard deviations each.
    assert!((crowded - 0.02136).abs() < 0.0034, "{crowded}");
    assert!((displaced - 0.0084).abs() < 0.0015, "{displaced}");
    assert!((overflow - 0.0008).abs() < 0.0005, "{overflow}");
    add(8 << (log2 - 2));
    let (_, overflow) = shares();
    assert!((overflow - 0.0205).abs() < 0.003, "{overflow} at 3/4");
}

#[test]
fn a_stock_of_another_table_is_no_stock() {
    let arena = Arena::new(FRAMES);
    let (one, two) = (Htab::new(&arena).unwrap(), Htab::new(&arena).unwrap());
    let mut pages = pages_of(1);
    fill(&two, pages.by_ref().take(16));
    let n = pages.next().unwrap();
    let mut stock = one.stock();
    one.refill(&mut stock, NODE).unwrap();
    let raw = |_| Ok::<u64, ()>(leaf(1));
    assert_eq!(two.update(key(n), &mut stock, raw), Err(Refused::Need(NODE)));
    two.refill(&mut stock, NODE).unwrap();
    assert_eq!(two.update(key(n), &mut stock, raw), Ok(0));
    drop(stock);
    assert_eq!(two.count_overflow(), 1);
}

#[test]
fn frame_zero_is_a_frame() {
    let arena = Arena::at(PhysAddr::new(0), FRAMES);
    let table = Htab::new(&arena).unwrap();
    let mut space = table.space(asid(0)).unwrap();
    (0..40).for_each(|n| map(&mut space, n));
    assert!((0..40).all(|n| space.translate(page(n)).is_some()));
    space.retire(&mut direct());
    drop(table);
    assert_eq!(arena.frames_in_use(), 0);
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(48))]

    /// Few pairs, so that they are full; every kind of entry; steps of growth in between.
    #[test]
    fn crowded_pairs_lose_nothing(
        steps in prop::collection::vec((0..4u64, 0..24usize, 0..5u64), 1..if cfg!(miri) { 10 } else { 400 }),
    ) {
        let arena = Arena::new(FRAMES);
        let table = Htab::new(&arena).unwrap();
        // Both groups of two pairs, the first of which is the first to move.
        let groups = [0, GROUPS - 1, 6, GROUPS - 7];
        let pages = groups.map(|group| pages_of(group).take(24).collect::<Vec<_>>());
        let mut model = BTreeMap::new();
        for (time, (group, i, kind)) in (0..).zip(steps) {
            let n = pages[group as usize][i];
            let raw = [0, leaf(time), global(time), soft(time + 1), leaf(time) & !1][kind as usize];
            prop_assert_eq!(put(&table, n, raw), model.get(&n).copied().unwrap_or(0));
            if raw == 0 { model.remove(&n) } else { model.insert(n, raw) };
            if time % 64 == 40 {
                step(&table);
            }
            if time % 16 == 0 && !cfg!(miri) {
                check(&table);
            }
        }
        for &n in pages.iter().flatten() {
            prop_assert_eq!(table.walk(key(n), &mut ()), model.get(&n).copied().unwrap_or(0));
        }
        if !cfg!(miri) {
            prop_assert!(scanned(&table).into_iter().eq(model.into_keys()));
        }
    }
}
