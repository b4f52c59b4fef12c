//! Orders of insertion and of removal that meet every edge of a node.

use super::{PageRange, VmaMap, pages, scaled, va};
use crate::vma_map::{Direction, Room};
use std::format;
use std::vec::Vec;
use vellum_core::VirtAddr;
use vellum_testkit::Arena;

/// The numbers below `n`, shuffled by a fixed rule.
fn shuffled(n: u64) -> Vec<u64> {
    let mut numbers: Vec<_> = (0..n).collect();
    numbers.sort_by_key(|k| k.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
    numbers
}

fn orders(n: u64) -> [Vec<u64>; 3] {
    [(0..n).collect(), (0..n).rev().collect(), shuffled(n)]
}

/// Every second page.
fn build<'a>(arena: &'a Arena, order: &[u64]) -> VmaMap<u64, &'a Arena> {
    let mut map = VmaMap::new(arena, PageRange::ALL);
    for &k in order {
        map.insert(pages(2 * k + 1, 2 * k + 2), k).unwrap();
    }
    map
}

#[test]
fn every_order_of_building_and_of_emptying_leaves_nothing() {
    let n = scaled(1200);
    for built in orders(n) {
        for emptied in orders(n) {
            let arena = Arena::new(512);
            let mut map = build(&arena, &built);
            map.check();
            assert!((0..n).all(|k| map.find(va(2 * k + 1)).is_some_and(|(_, value)| value == k)));
            assert!((0..n).all(|k| map.find(va(2 * k)).is_none()));
            for (done, k) in emptied.iter().enumerate() {
                assert_eq!(map.remove(va(2 * k + 1)).unwrap().1, *k);
                if done % 61 == 0 {
                    map.check();
                }
            }
            map.check();
            assert!(map.is_empty());
            map.insert(pages(5, 6), 5).unwrap();
            map.check();
            drop(map);
            assert_eq!(arena.frames_in_use(), 0);
        }
    }
}

#[test]
fn maps_built_in_order_have_full_nodes() {
    let n = scaled(4000);
    for order in [(0..n).collect::<Vec<_>>(), (0..n).rev().collect()] {
        let arena = Arena::new(512);
        let map = build(&arena, &order);
        let leaves = u64::from(map.leaves.len());
        assert!(leaves <= n.div_ceil(16) + 1, "{leaves} leaves for {n} regions");
    }
}

#[test]
fn a_gap_before_the_first_behind_the_last_and_between_nodes_is_found() {
    let arena = Arena::new(512);
    let mut map = build(&arena, &shuffled(scaled(800)));
    let n = map.len();
    let room = |from| Room { len: 3 << 12, align: 12, within: pages(1, 2 * n), from };
    let both = |map: &VmaMap<u64, &Arena>| {
        [Direction::Up, Direction::Down].map(|from| map.find_gap(room(from), |_| 0))
    };
    assert_eq!(both(&map), [None, None]);
    // Each region in turn makes room for three pages, wherever it lies in its node.
    for k in 1..n - 1 {
        let (range, value) = map.remove(va(2 * k + 1)).unwrap();
        assert_eq!(both(&map), [Some(va(2 * k)); 2], "region {k}");
        map.insert(range, value).unwrap();
    }
    let all = Room { len: 3 << 12, align: 12, within: PageRange::ALL, from: Direction::Up };
    assert_eq!(map.find_gap(all, |_| 0), Some(va(2 * n)));
    let top = map.find_gap(Room { from: Direction::Down, ..all }, |_| 0);
    assert_eq!(top, Some(va((1 << 52) - 3)));
}

#[test]
fn a_guard_that_leaves_too_little_sends_the_search_on() {
    let arena = Arena::new(8);
    let mut map = VmaMap::new(&arena, pages(0, 100));
    map.insert(pages(10, 12), 6 << 12).unwrap();
    map.insert(pages(30, 31), 0).unwrap();
    let room = |len: u64, from| Room { len: len << 12, align: 12, within: PageRange::ALL, from };
    let guarded = |room| map.find_gap(room, |&guard| guard);
    assert_eq!(guarded(room(4, Direction::Up)), Some(va(0)));
    assert_eq!(guarded(room(5, Direction::Up)), Some(va(12)));
    assert_eq!(guarded(room(70, Direction::Down)), None);
    assert_eq!(guarded(room(69, Direction::Down)), Some(va(31)));
    let low = Room { within: pages(0, 12), ..room(4, Direction::Down) };
    assert_eq!(guarded(low), Some(va(0)));
    assert_eq!(guarded(Room { len: 5 << 12, ..low }), None);
}

#[test]
fn several_threads_search_at_once() {
    let n = scaled(800);
    let arena = Arena::new(512);
    let map = build(&arena, &shuffled(n));
    std::thread::scope(|scope| {
        for first in 0..3 {
            let map = &map;
            scope.spawn(move || {
                for k in (first..n).step_by(3) {
                    assert_eq!(map.find(va(2 * k + 1)).map(|(_, value)| value), Some(k));
                }
            });
        }
    });
}

#[test]
fn the_largest_value_fits() {
    let arena = Arena::new(64);
    let mut map = VmaMap::new(&arena, PageRange::ALL);
    for k in 0..40 {
        map.insert(pages(2 * k, 2 * k + 1), [k; 29]).unwrap();
    }
    map.check();
    assert_eq!(map.find(va(60)), Some((pages(60, 61), [30; 29])));
}

#[test]
fn the_whole_of_64_bits_can_be_one_region() {
    let arena = Arena::new(8);
    let mut map = VmaMap::new(&arena, PageRange::ALL);
    let whole = Room { len: 1 << 63, align: 63, within: PageRange::ALL, from: Direction::Down };
    assert_eq!(map.find_gap(whole, |_| 0), Some(VirtAddr::new(1 << 63)));
    map.insert(PageRange::ALL, 1).unwrap();
    assert_eq!(map.find(VirtAddr::new(u64::MAX)), Some((PageRange::ALL, 1)));
    assert_eq!(map.find_gap(whole, |_| 0), None);
    let half = VirtAddr::new(1 << 63);
    map.split_at(half, |_, left| *left + 1).unwrap();
    assert_eq!(map.next(half).unwrap().1, 2);
    let last = PageRange::touching(VirtAddr::new(u64::MAX), VirtAddr::new(u64::MAX)).unwrap();
    let taken = map.clear_range(last, |_, value, _| *value, |_, _| ());
    assert_eq!(taken, Ok(1));
    assert_eq!(map.find(VirtAddr::new(u64::MAX)), None);
    assert_eq!(map.find_gap(Room { len: 1, align: 0, ..whole }, |_| 0), Some(last.start()));
    map.check();
}

#[test]
fn it_draws_itself() {
    let arena = Arena::new(8);
    let mut map = VmaMap::new(&arena, PageRange::ALL);
    map.insert(pages(0x400, 0x403), "text").unwrap();
    map.insert(pages(0x404, 0x405), "data").unwrap();
    let drawn = format!("{map:?}");
    let lines: Vec<_> =
        drawn.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    assert_eq!(lines[0].join(" "), "VmaMap, regions: 2, levels: 1, 4 KiB");
    assert_eq!(lines[1], ["0x400000..=0x402fff", "3", "pages", "\"text\""]);
    assert_eq!(lines[2], ["1", "page"]);
    assert_eq!(lines[3], ["0x404000..=0x404fff", "1", "page", "\"data\""]);
    let columns: Vec<_> = drawn.lines().skip(1).map(|line| line.find("page")).collect();
    assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{drawn}");
}
