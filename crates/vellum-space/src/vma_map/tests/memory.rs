//! Out of memory, at each allocation of each operation; and promises kept.

use super::{PageRange, VmaMap, pages, scaled, va};
use crate::vma_map::{Region, VmaMapError};
use std::vec;
use std::vec::Vec;
use vellum_testkit::Arena;

type Map<'a> = VmaMap<u64, &'a Arena>;

fn regions(map: &Map<'_>) -> Vec<Region<u64>> {
    map.iter(PageRange::ALL).collect()
}

/// Regions of three pages, each fourth page free.
fn build(arena: &Arena, n: u64) -> Map<'_> {
    let mut map = VmaMap::new(arena, PageRange::ALL);
    for k in (0..n).step_by(2).chain((1..n).step_by(2)) {
        map.insert(pages(4 * k, 4 * k + 3), k).unwrap();
    }
    map
}

/// How many regions there are at first.
fn fills() -> Vec<u64> {
    if cfg!(miri) { vec![3] } else { vec![1, 15, 16, 17, 100, 300] }
}

/// One of those that may need memory, at the `k`th region.
fn act(map: &mut Map<'_>, which: usize, k: u64) -> Result<(), VmaMapError> {
    match which {
        0 => map.insert(pages(4 * k + 3, 4 * k + 4), 7),
        1 => map.split_at(va(4 * k + 1), |_, left| *left + 1),
        // Both ends of the region stay.
        2 => map.clear_range(pages(4 * k + 1, 4 * k + 2), |_, left, _| *left, |_, _| ()).map(drop),
        _ => map.reserve(scaled(100) as u32),
    }
}

#[test]
fn an_operation_that_runs_out_of_memory_has_changed_nothing() {
    for which in 0..4 {
        let mut refused = 0;
        for fill in fills() {
            let arena = Arena::new(512);
            let mut map = build(&arena, fill);
            map.release();
            for k in (0..fill).chain(0..fill) {
                for budget in 0.. {
                    let before = regions(&map);
                    arena.limit_allocations(Some(budget));
                    let done = act(&mut map, which, k);
                    arena.limit_allocations(None);
                    map.check();
                    if !matches!(done, Err(VmaMapError::OutOfFrames(_))) {
                        break;
                    }
                    refused += 1;
                    assert_eq!(regions(&map), before, "act {which} at {k}");
                }
                if which == 3 {
                    map.release();
                }
            }
            drop(map);
            assert_eq!(arena.frames_in_use(), 0);
        }
        assert!(refused > 0 || cfg!(miri), "act {which} never met the limit");
    }
}

#[test]
fn the_first_region_of_all_may_be_refused() {
    let arena = Arena::new(4);
    let mut map = VmaMap::new(&arena, PageRange::ALL);
    arena.limit_allocations(Some(0));
    assert!(matches!(map.insert(pages(1, 2), 1), Err(VmaMapError::OutOfFrames(_))));
    map.check();
    arena.limit_allocations(None);
    map.insert(pages(1, 2), 1).unwrap();
    assert_eq!(map.bytes(), 1 << 12);
}

#[test]
fn what_was_reserved_is_there_when_memory_is_not() {
    for fill in [0, 1, 16, scaled(255), scaled(256), scaled(2000)] {
        for changes in [1, 3, scaled(64) as u32] {
            let arena = Arena::new(1024);
            let mut map = build(&arena, fill);
            map.reserve(changes).unwrap();
            arena.limit_allocations(Some(0));
            // Removals between the insertions give no frame back that was promised.
            for k in 0..u64::from(changes) {
                let at = (k * 37) % fill.max(1);
                if map.insert(pages(4 * at + 3, 4 * at + 4), k).is_err() {
                    map.insert(pages((1 << 40) + k, (1 << 40) + k + 1), k).unwrap();
                }
                let _ = map.remove(va(4 * ((k * 11) % fill.max(1))));
                map.check();
            }
        }
    }
}

#[test]
fn taking_away_needs_no_memory() {
    let arena = Arena::new(512);
    let n = scaled(600);
    let mut map = build(&arena, n);
    map.release();
    arena.limit_allocations(Some(0));
    for k in 0..n {
        map.resize(va(4 * k), pages(4 * k + 1, 4 * k + 4)).unwrap();
        map.update(va(4 * k + 1), |value| *value += 1).unwrap();
    }
    for k in (1..n).step_by(3) {
        // From the middle of one region to the middle of the next.
        let cleared = pages(4 * k - 2, 4 * k + 2);
        assert_eq!(map.clear_range(cleared, |_, left, _| *left, |_, _| ()), Ok(2));
        map.check();
    }
    assert_eq!(map.clear_range(PageRange::ALL, |_, left, _| *left, |_, _| ()), Ok(n));
    map.check();
    map.release();
    assert!(map.bytes() <= 4 << 12, "{map:?}");
}

#[test]
fn nodes_follow_the_regions_down() {
    let arena = Arena::new(4096);
    let n = scaled(8000);
    let mut map = build(&arena, n);
    let full = map.leaves.len();
    for k in 0..n {
        if k % 16 != 0 {
            map.remove(va(4 * k)).unwrap();
        }
    }
    map.check();
    assert!(map.leaves.len() * 5 < full, "{} leaves of {full}", map.leaves.len());
    for k in (0..n).step_by(16) {
        map.remove(va(4 * k)).unwrap();
    }
    // A frame of each kind of node, and its directory.
    assert!(map.bytes() <= 5 << 12, "{map:?}");
}
