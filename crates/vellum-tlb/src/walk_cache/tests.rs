use super::*;
use crate::{WALK_CACHE_NONE, WALK_CACHE_X86};
use alloc::vec;
use proptest::prelude::*;
use vellum_core::PhysAddr;

const A: Asid = Asid::new(1).expect("not the global mark");
const B: Asid = Asid::new(2).expect("not the global mark");

fn refs<const N: usize>(spans: [u8; N]) -> [Ref; N] {
    spans.map(|span| Ref { pa: PhysAddr::new(0), bytes: 8, span, parallel: false })
}

fn va(raw: u64) -> VirtAddr {
    VirtAddr::new(raw)
}

#[test]
fn the_deepest_cached_entry_skips_all_before_it() {
    let mut caches = WalkCaches::new(WALK_CACHE_X86);
    let walk = refs([48, 39, 30, 21, 12]);
    assert_eq!(caches.walk(va(0), A, 12, &walk), 0);
    assert_eq!(caches.walk(va(1 << 12), A, 12, &walk), 4);
    assert_eq!(caches.walk(va(1 << 21), A, 12, &walk), 3);
    assert_eq!(caches.walk(va(1 << 30), A, 12, &walk), 2);
    assert_eq!(caches.walk(va(1 << 39), A, 12, &walk), 1);
    assert_eq!(caches.walk(va(1 << 48), A, 12, &walk), 0);
}

#[test]
fn the_entry_that_is_a_large_leaf_is_not_interior() {
    let mut caches = WalkCaches::new(WALK_CACHE_X86);
    let huge = refs([39, 30, 21]);
    assert_eq!(caches.walk(va(0), A, 21, &huge), 0);
    assert_eq!(caches.walk(va(0), A, 21, &huge), 2, "the PDPTE, not the PDE");
}

#[test]
fn hashed_walks_share_nothing() {
    let mut caches = WalkCaches::new(WALK_CACHE_X86);
    let probes = refs([12, 12, 12]);
    for _ in 0..3 {
        assert_eq!(caches.walk(va(0x5000), A, 12, &probes), 0);
    }
}

#[test]
fn spans_without_a_cache_are_read_every_time() {
    let mut only_pdpte = WalkCaches::new(&[WalkCacheSize { span: 30, entries: 1 }]);
    let walk = refs([39, 30, 21, 12]);
    assert_eq!(only_pdpte.walk(va(0), A, 12, &walk), 0);
    assert_eq!(only_pdpte.walk(va(0), A, 12, &walk), 2);
    let mut none = WalkCaches::new(WALK_CACHE_NONE);
    none.walk(va(0), A, 12, &walk);
    assert_eq!(none.walk(va(0), A, 12, &walk), 0);
}

#[test]
fn the_least_recent_block_leaves_first() {
    let mut caches = WalkCaches::new(&[WalkCacheSize { span: 21, entries: 2 }]);
    let walk = refs([21, 12]);
    let mut skips = |block: u64| caches.walk(va(block << 21), A, 12, &walk) == 1;
    assert!(!skips(0));
    assert!(!skips(1));
    assert!(skips(0));
    assert!(!skips(2), "pushes 1 out, not 0");
    assert!(skips(0));
    assert!(!skips(1));
}

#[test]
fn flushes_take_what_they_name() {
    let walk = refs([39, 30, 21, 12]);
    let mut filled = WalkCaches::new(WALK_CACHE_X86);
    for asid in [A, B] {
        filled.walk(va(0), asid, 12, &walk);
        filled.walk(va(1 << 39), asid, 12, &walk);
    }
    let skips = |flush: fn(&mut WalkCaches), at: u64, asid| {
        let mut caches = filled.clone();
        flush(&mut caches);
        caches.walk(va(at), asid, 12, &walk)
    };
    assert_eq!(skips(|_| {}, 0, A), 3);
    assert_eq!(skips(WalkCaches::flush_all, 0, B), 0);
    assert_eq!(skips(|c| c.flush_asid(A), 0, A), 0);
    assert_eq!(skips(|c| c.flush_asid(A), 0, B), 3);
    assert_eq!(skips(|c| c.flush_page(va(0x3000), A), 0, A), 0);
    assert_eq!(skips(|c| c.flush_page(va(0x3000), A), 1 << 39, A), 3);
    assert_eq!(skips(|c| c.flush_page(va(0x3000), A), 0, B), 3);
}

/// Theory: uniform random walks over N pages with a cache of p PDEs and everything above hitting
/// read 2 - p/(N/512) entries each.
#[test]
fn random_walks_read_what_theory_says() {
    let (pages, entries, walks) = (1u64 << 20, 32u16, 400_000u64);
    let mut caches = WalkCaches::new(&[
        WalkCacheSize { span: 21, entries },
        WalkCacheSize { span: 30, entries: 4 },
    ]);
    let walk = refs([39, 30, 21, 12]);
    let (mut seed, mut read) = (7u64, 0u64);
    for _ in 0..walks {
        // splitmix64
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let at = va(((z ^ z >> 31) % pages) << 12);
        read += (walk.len() - caches.walk(at, A, 12, &walk)) as u64;
    }
    let mean = read as f64 / walks as f64;
    let theory = 2.0 - f64::from(entries) / (pages / 512) as f64;
    // Standard deviation of the mean: sqrt(.0156 * .984 / 4e5) = .0002.
    assert!((mean - theory).abs() < 0.001, "{mean} against {theory}");
}

/// A walk of so many levels that ends at a leaf of 4 KiB, 2 MiB or 1 GiB.
fn walk_to(leaf: u8, levels: usize) -> Vec<Ref> {
    let spans = [48, 39, 30, 21, 12];
    let spans = spans[spans.len() - levels..].iter().filter(|&&span| span >= leaf);
    spans.flat_map(|&span| refs([span])).collect()
}

#[derive(Clone, Debug)]
enum Op {
    Walk { va: u64, asid: u16 },
    FlushAll,
    FlushAsid(u16),
    FlushPage { va: u64, asid: u16 },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // A few blocks of every span, so that each is met again.
    let va = || {
        (0u64..3, 0u64..3, 0u64..4, 0u64..4)
            .prop_map(|(a, b, c, d)| a << 48 | b << 39 | c << 30 | d << 21)
    };
    let op = prop_oneof![
        60 => (va(), 0u16..3).prop_map(|(va, asid)| Op::Walk { va, asid }),
        1 => Just(Op::FlushAll),
        1 => (0u16..3).prop_map(Op::FlushAsid),
        3 => (va(), 0u16..3).prop_map(|(va, asid)| Op::FlushPage { va, asid }),
    ];
    proptest::collection::vec(op, 1..300)
}

proptest! {
    /// Against a list for each span, most recent first, of (block, asid).
    #[test]
    fn behaves_as_a_list_for_each_span(
        sizes in proptest::collection::vec(
            (proptest::sample::select(vec![21u8, 30, 39, 48]), 0u16..5), 0..4),
        levels in 1usize..=5,
        ops in ops(),
    ) {
        let mut sizes: Vec<WalkCacheSize> =
            sizes.into_iter().map(|(span, entries)| WalkCacheSize { span, entries }).collect();
        sizes.sort_by_key(|size| size.span);
        sizes.dedup_by_key(|size| size.span);
        let mut caches = WalkCaches::new(&sizes);
        let mut lists: Vec<Vec<(u64, u16)>> = vec![Vec::new(); sizes.len()];
        for op in ops {
            match op {
                Op::Walk { va, asid } => {
                    // Which leaf is a matter of the address alone: no flush is ever due.
                    let leaf = [12, 21, 30][(va >> 30 & 3) as usize % 3];
                    let walk = walk_to(leaf, levels);
                    let mut expected = 0;
                    for (i, r) in walk.iter().enumerate().rev() {
                        let Some(n) = sizes.iter().position(|s| s.span == r.span) else { continue };
                        let block = (va >> r.span, asid);
                        if r.span > leaf && lists[n].contains(&block) {
                            lists[n].retain(|b| *b != block);
                            lists[n].insert(0, block);
                            expected = i + 1;
                            break;
                        }
                    }
                    for r in walk[expected..].iter().filter(|r| r.span > leaf) {
                        if let Some(n) = sizes.iter().position(|s| s.span == r.span) {
                            let block = (va >> r.span, asid);
                            lists[n].retain(|b| *b != block);
                            lists[n].insert(0, block);
                            lists[n].truncate(usize::from(sizes[n].entries));
                        }
                    }
                    let id = Asid::new(asid).unwrap();
                    prop_assert_eq!(caches.walk(VirtAddr::new(va), id, leaf, &walk), expected);
                }
                Op::FlushAll => {
                    caches.flush_all();
                    lists.iter_mut().for_each(Vec::clear);
                }
                Op::FlushAsid(asid) => {
                    caches.flush_asid(Asid::new(asid).unwrap());
                    lists.iter_mut().for_each(|list| list.retain(|b| b.1 != asid));
                }
                Op::FlushPage { va: at, asid } => {
                    caches.flush_page(va(at), Asid::new(asid).unwrap());
                    for (size, list) in sizes.iter().zip(&mut lists) {
                        list.retain(|b| *b != (at >> size.span, asid));
                    }
                }
            }
        }
    }
}
