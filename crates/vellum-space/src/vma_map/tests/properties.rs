//! Random operations on the map and on the model: the same results, the same regions.

use super::model::{Model, Value, cut};
use super::{PageRange, VmaMap, pages, va};
use crate::vma_map::{Direction, Room};
use proptest::prelude::*;
use std::vec::Vec;
use vellum_testkit::Arena;

/// Where the bounds begin; the last page of 64 bits is their last.
const BASE: u64 = (1 << 52) - SPAN;
const SPAN: u64 = if cfg!(miri) { 60 } else { 600 };

#[derive(Clone, Debug)]
enum Op {
    Insert(PageRange, Value),
    Remove(u64),
    Resize(u64, PageRange),
    Update(u64, u32),
    Split(u64),
    Clear(PageRange),
    Gap(Room),
    Look(PageRange),
    Release,
}

/// Ranges from two pages before the bounds on.
fn range(longest: u64) -> impl Strategy<Value = PageRange> {
    (BASE - 2..BASE + SPAN, 1..=longest)
        .prop_map(|(first, len)| pages(first, (first + len).min(BASE + SPAN)))
}

fn value() -> impl Strategy<Value = Value> {
    (any::<u32>(), prop_oneof![3 => Just(0), 1 => 1..12u16])
        .prop_map(|(id, guard)| Value { id, guard })
}

fn room() -> impl Strategy<Value = Room> {
    let len = prop_oneof![4 => 1..12u64, 1 => 12..SPAN + 9, 1 => Just(0)];
    let within =
        prop_oneof![Just(PageRange::ALL).prop_map(|_| pages(BASE, BASE + SPAN)), range(SPAN)];
    (len, 11..19u8, within, any::<bool>()).prop_map(|(len, align, within, is_up)| {
        let from = if is_up { Direction::Up } else { Direction::Down };
        Room { len: (len << 12).saturating_sub(len % 3), align, within, from }
    })
}

fn op() -> impl Strategy<Value = Op> {
    // Whole pages of regions that exist are hit often enough: there are 600 pages.
    prop_oneof![
        14 => (range(3), value()).prop_map(|(range, value)| Op::Insert(range, value)),
        4 => (0..SPAN).prop_map(Op::Remove),
        3 => (0..SPAN, range(6)).prop_map(|(at, range)| Op::Resize(at, range)),
        1 => (0..SPAN, any::<u32>()).prop_map(|(at, id)| Op::Update(at, id)),
        3 => (BASE..BASE + SPAN).prop_map(Op::Split),
        1 => range(SPAN / 6).prop_map(Op::Clear),
        4 => room().prop_map(Op::Gap),
        2 => range(20).prop_map(Op::Look),
        1 => Just(Op::Release),
    ]
}

/// The start of the `n`th region of the model, or of page `n` where there are fewer.
fn nth(model: &Model, n: u64) -> vellum_core::VirtAddr {
    let chosen = n as usize % (model.regions.len() + 1);
    model.regions.get(chosen).map_or(va(BASE + n), |(range, _)| range.start())
}

fn step(map: &mut VmaMap<Value, &Arena>, model: &mut Model, op: &Op) {
    match *op {
        Op::Insert(range, value) => {
            assert_eq!(map.insert(range, value), model.insert(range, value));
        }
        Op::Remove(n) => {
            let start = nth(model, n);
            assert_eq!(map.remove(start), model.remove(start));
        }
        Op::Resize(n, range) => {
            let start = nth(model, n);
            // Near enough to be possible at times.
            let first = start.number().as_u64() - 3 + range.start().as_u64() / 4096 % 7;
            let end = (first + range.count_pages()).min(BASE + SPAN);
            let range = pages(first.min(end - 1), end);
            assert_eq!(map.resize(start, range), model.resize(start, range));
        }
        Op::Update(n, id) => {
            let start = nth(model, n);
            assert_eq!(map.update(start, |value| value.id = id), model.update(start, id));
        }
        Op::Split(page) => {
            let done = map.split_at(va(page), |range, value| cut(range, value, va(page)));
            assert_eq!(done, model.split_at(va(page)));
        }
        Op::Clear(range) => {
            let mut taken = Vec::new();
            let count = map.clear_range(range, cut, |range, value| taken.push((range, value)));
            assert_eq!(taken, model.clear_range(range));
            assert_eq!(count, Ok(taken.len() as u64));
        }
        Op::Gap(room) => {
            let found = map.find_gap(room, |value| u64::from(value.guard) << 12);
            assert_eq!(found, model.find_gap(room), "{room:?}");
        }
        Op::Look(range) => look(map, model, range),
        Op::Release => map.release(),
    }
}

/// Every kind of look.
fn look(map: &VmaMap<Value, &Arena>, model: &Model, range: PageRange) {
    for at in [range.start(), range.last()] {
        assert_eq!(map.find(at), model.find(at));
        assert_eq!(map.next(at), model.next(at));
        assert_eq!(map.with_next(at, |range, &value| (range, value)), model.next(at));
        assert_eq!(map.prev(at), model.prev(at));
        assert_eq!(map.around(at), (model.prev(at), model.next(at)));
    }
    assert_eq!(map.neighbours(range), model.neighbours(range));
    assert_eq!(map.iter(range).collect::<Vec<_>>(), model.iter(range));
    touching(map, model, range);
    // A region and what lies behind it, where most neighbours are.
    if let Some((found, _)) = model.next(range.start()) {
        touching(map, model, found);
        let behind = PageRange::raw(found.end_page(), found.end_page() + range.count_pages());
        touching(map, model, behind);
    }
}

/// What touches a range, if that is free, or of one region.
fn touching(map: &VmaMap<Value, &Arena>, model: &Model, range: PageRange) {
    if model.iter(range).len() < 2 {
        let left = model.regions.iter().find(|(found, _)| found.end_page() == range.first_page());
        let right = model.regions.iter().find(|(found, _)| found.first_page() == range.end_page());
        assert_eq!(map.touching(range), (left.copied(), right.copied()), "{range}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 400 }))]

    #[test]
    fn the_map_does_what_a_sorted_vector_does(
        ops in prop::collection::vec(op(), 1..if cfg!(miri) { 30 } else { 700 }),
    ) {
        let arena = Arena::new(256);
        let bounds = pages(BASE, BASE + SPAN);
        let mut map = VmaMap::new(&arena, bounds);
        let mut model = Model::new(bounds);
        for op in &ops {
            step(&mut map, &mut model, op);
            map.check();
            prop_assert_eq!(map.len(), model.regions.len() as u64);
        }
        look(&map, &model, bounds);
        prop_assert_eq!(map.iter(bounds).collect::<Vec<_>>(), model.regions);
        drop(map);
        prop_assert_eq!(arena.frames_in_use(), 0);
    }
}
