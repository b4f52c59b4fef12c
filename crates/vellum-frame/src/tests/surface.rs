//! Every operation, through every way, against the model.
//!
//! What a cache holds is free in the model and not in the allocator's bits. So after each call
//!
//! ```text
//!   free in the model  =  free in the bits  +  held by caches
//! ```
//!
//! and a call may fail only if the bits, with the caller's own cache flushed, do not have what it
//! asked for.

use super::model::{Model, Piece, State, at, blocks, fitting, pieces};
use super::ways::{WAYS, Ways, runs};
use super::{bytes, cases, set_up, storage};
use crate::{AllocRunError, FrameAllocator, FreeError, MAX_ORDER};
use proptest::prelude::*;
use proptest::sample::Index;
use std::vec;
use std::vec::Vec;
use vellum_core::{OutOfFrames, PhysAddr};

#[derive(Clone, Debug)]
enum Op {
    Alloc(u8),
    AllocAt(Index, u8),
    /// Below a frame, and some bytes.
    AllocBelow(u8, Index, u64),
    AllocBulk(u64),
    AllocContiguous(u64),
    /// What one call took, as it was taken.
    Free(Index),
    /// A block of what is held.
    FreePart(Index, Index, u8),
    /// Whatever lies there, some bytes further on.
    FreeWild(Index, u8, u64),
    /// Frames of which single ones may be anybody's.
    FreeBulk(Vec<(bool, Index)>),
    FreeContiguous(Index, u64),
    Flush,
    Renew,
    Stats,
}

/// A call and the way it takes; `most` and `longest` bound orders and counts.
fn op(most: u8, longest: u64) -> impl Strategy<Value = (usize, Op)> {
    let order = || prop_oneof![0..=most, 0..=most.min(3), Just(0)];
    let wild = || prop_oneof![9 => order(), 1 => prop_oneof![Just(19), Just(255), Just(MAX_ORDER)]];
    let count = || prop_oneof![2 => 1..=longest, 2 => 1..=longest.min(80), 1 => 0..3u64];
    let offset = prop_oneof![9 => Just(0u64), 1 => 1..4096u64];
    let place = any::<Index>;
    let several = prop::collection::vec((prop::bool::weighted(0.96), place()), 0..40);
    let op = prop_oneof![
        10 => wild().prop_map(Op::Alloc),
        2 => (place(), wild()).prop_map(|(at, order)| Op::AllocAt(at, order)),
        2 => (wild(), place(), 0..4096u64).prop_map(|(o, at, more)| Op::AllocBelow(o, at, more)),
        2 => count().prop_map(Op::AllocBulk),
        2 => count().prop_map(Op::AllocContiguous),
        8 => place().prop_map(Op::Free),
        2 => (place(), place(), order()).prop_map(|(a, b, order)| Op::FreePart(a, b, order)),
        4 => (place(), wild(), offset).prop_map(|(at, order, by)| Op::FreeWild(at, order, by)),
        2 => several.prop_map(Op::FreeBulk),
        1 => (place(), count()).prop_map(|(at, count)| Op::FreeContiguous(at, count)),
        1 => Just(Op::Flush),
        1 => Just(Op::Renew),
        1 => Just(Op::Stats),
    ];
    (0..WAYS, op)
}

/// The allocator, what it should be, and what this test has of it: first frame and count.
struct Bench<'a, 'm> {
    model: Model,
    ways: Ways<'a, 'm>,
    held: Vec<(u64, u64)>,
}

impl Bench<'_, '_> {
    /// Somewhere in the model, or a little beyond it.
    fn place(&self, index: Index) -> u64 {
        let span = (self.model.high() - self.model.low()) as usize;
        (self.model.low() + index.index(span + 16) as u64).saturating_sub(8)
    }

    fn take(&mut self, first: u64, count: u64) {
        self.model.take(first, count);
        self.held.push((first, count));
    }

    /// Notes that frames were freed, of whatever they were part.
    fn freed(&mut self, first: u64, count: u64) {
        self.model.free(first, count);
        let end = first + count;
        let left = |&(f, c): &(u64, u64)| [(f, first.min(f + c)), (end.max(f), f + c)];
        let left = self.held.iter().flat_map(left);
        self.held = left.filter(|(f, e)| f < e).map(|(f, e)| (f, e - f)).collect();
    }

    /// Checks what a free said, for which the model knows an answer.
    fn check_free(&self, got: FreeError, want: FreeError) {
        match (got, want) {
            (FreeError::DoubleFree { pa }, FreeError::DoubleFree { .. }) => {
                assert!(self.model.all(pa.number().as_u64(), 1, State::Free), "{pa} is not free");
            }
            _ => assert_eq!(got, want),
        }
    }

    /// A block that the model knows is free in part, but which only another cache can know.
    fn hidden(&self, way: usize, pa: PhysAddr, order: u8) -> bool {
        let (first, end) = (pa.number().as_u64(), pa.number().as_u64() + (1 << order));
        let seen = |&(f, c): &(u64, u64)| f < end && first < f + c;
        self.ways.held_elsewhere(way) > 0 && !self.ways.visible().iter().any(seen)
    }

    fn free_block(&mut self, way: usize, pa: PhysAddr, order: u8) {
        let want = self.model.freed(pa, order);
        if matches!(want, Err(FreeError::DoubleFree { .. })) && self.hidden(way, pa, order) {
            return;
        }
        // SAFETY: nothing is behind these frames; what is not held here is an error, but for what
        // only another cache can know, which was left out above.
        match (unsafe { self.ways.free(way, pa, order) }, want) {
            (Ok(()), Ok(())) => self.freed(pa.number().as_u64(), 1 << order),
            (Err(got), Err(want)) => self.check_free(got, want),
            (got, want) => assert_eq!(got, want, "way {way}, {pa}, order {order}"),
        }
    }

    fn free_bulk(&mut self, picks: &[(bool, Index)]) {
        // Each frame that is held once; then, here and there, one that may be anything.
        let mut mine: Vec<u64> = self.held.iter().flat_map(|&(f, c)| f..f + c.min(70)).collect();
        let mut list = Vec::new();
        for (rightful, index) in picks {
            if *rightful && !mine.is_empty() {
                // Neighbours, most of the time.
                list.push(mine.remove(index.index(mine.len().min(3))));
            } else if !rightful {
                list.push(self.place(*index));
            }
        }
        let hidden =
            |&&pfn: &&u64| self.model.all(pfn, 1, State::Free) && self.hidden(0, at(pfn), 0);
        if list.iter().any(|pfn| hidden(&pfn)) {
            return;
        }
        let list: Vec<_> = list.into_iter().map(at).collect();
        let mut done = 0;
        let bad = list.iter().find_map(|&pa| {
            let want = self.model.freed(pa, 0);
            if want.is_ok() {
                self.freed(pa.number().as_u64(), 1);
                done += 1;
            }
            want.err()
        });
        // SAFETY: as above.
        match (unsafe { self.ways.frames.free_bulk(&list) }, bad) {
            (Err((index, got)), Some(want)) => {
                assert_eq!(index, done);
                self.check_free(got, want);
            }
            (got, want) => assert_eq!(got, want.map_or(Ok(()), |error| Err((done, error)))),
        }
    }

    fn free_contiguous(&mut self, first: u64, count: u64) {
        let pa = at(first);
        let want = if count == 0 {
            Ok(())
        } else if !self.model.inside(first, count) || count > self.total() {
            Err(FreeError::OutOfRange { pa, order: 0 })
        } else if let Some(pfn) = self.model.find(first, count, State::Reserved) {
            Err(FreeError::Reserved { pa: at(pfn) })
        } else if let Some(pfn) = self.model.find(first, count, State::Free) {
            Err(FreeError::DoubleFree { pa: at(pfn) })
        } else {
            Ok(())
        };
        let visible = self.ways.visible();
        let seen = |&(f, c): &(u64, u64)| f < first + count && first < f + c;
        if matches!(want, Err(FreeError::DoubleFree { .. })) && !visible.iter().any(seen) {
            return; // Only a cache can know.
        }
        // SAFETY: as above.
        match (unsafe { self.ways.frames.free_contiguous(pa, count) }, want) {
            (Ok(()), Ok(())) if count > 0 => self.freed(first, count),
            (Err(got), Err(want)) => {
                self.check_free(got, want);
                assert_eq!(self.ways.visible(), visible, "nothing is changed by an error");
            }
            (got, want) => assert_eq!(got, want),
        }
    }

    fn total(&self) -> u64 {
        self.model.count(State::Free) + self.model.count(State::Taken)
    }

    fn run(&mut self, way: usize, op: Op) {
        let frames = self.ways.frames;
        match op {
            Op::Alloc(order) => match self.ways.alloc(way, order) {
                Ok(pa) => {
                    assert!(pa.is_aligned(12 + order));
                    self.take(pa.number().as_u64(), 1 << order);
                }
                Err(error) => {
                    assert_eq!(error, OutOfFrames { order });
                    if order <= MAX_ORDER {
                        assert_eq!(self.ways.held(way), 0, "what lay there was not offered");
                        let fit = fitting(&self.ways.visible(), order, u64::MAX);
                        assert_eq!(fit, 0, "blocks of order {order} are free");
                    }
                }
            },
            Op::AllocAt(index, order) => {
                let pa = at(self.place(index) >> order.min(18) << order.min(18));
                let (want, before) = (self.model.taken_at(pa, order), self.ways.visible());
                let (first, end) =
                    (pa.number().as_u64(), pa.number().as_u64() + (1 << order.min(18)));
                let whole = before.iter().any(|&(f, c)| f <= first && end <= f + c);
                match frames.alloc_at(pa, order) {
                    Ok(()) => {
                        assert_eq!(want, Ok(()));
                        self.take(first, 1 << order);
                    }
                    // In part it lies in a cache.
                    Err(_) if want.is_ok() => assert!(!whole, "{pa}, order {order}, is free"),
                    got => assert_eq!(got, want),
                }
            }
            Op::AllocBelow(order, index, more) => {
                let limit = self.place(index);
                match frames.alloc_below(order, PhysAddr::new(bytes(limit) + more)) {
                    Ok(pa) => {
                        let first = pa.number().as_u64();
                        assert!(pa.is_aligned(12 + order) && first + (1 << order) <= limit);
                        self.take(first, 1 << order);
                    }
                    Err(error) => {
                        assert_eq!(error, OutOfFrames { order });
                        let fit = fitting(&self.ways.visible(), order.min(MAX_ORDER), limit);
                        assert!(
                            order > MAX_ORDER || fit == 0,
                            "order {order} is free below {limit}"
                        );
                    }
                }
            }
            Op::AllocBulk(count) => {
                let nowhere = PhysAddr::new(u64::MAX);
                let free: u64 = self.ways.visible().iter().map(|run| run.1).sum();
                let mut list = vec![nowhere; count.min(300) as usize];
                let got = frames.alloc_bulk(&mut list);
                assert_eq!(got as u64, free.min(list.len() as u64));
                assert!(list[got..].iter().all(|&pa| pa == nowhere), "the rest is left as it is");
                for pa in &list[..got] {
                    assert!(pa.is_aligned(12));
                    self.take(pa.number().as_u64(), 1);
                }
            }
            Op::AllocContiguous(count) => match frames.alloc_contiguous(count) {
                Ok(pa) => {
                    assert!(pa.is_aligned(12) && count > 0);
                    self.take(pa.number().as_u64(), count);
                }
                Err(AllocRunError::Empty) => assert_eq!(count, 0),
                Err(error) => {
                    assert_eq!(error, AllocRunError::NoRun { count });
                    let long = self.ways.visible().into_iter().any(|run| run.1 >= count);
                    assert!(!long, "{count} frames are free side by side");
                }
            },
            Op::Free(_) | Op::FreePart(..) if self.held.is_empty() => {}
            Op::Free(index) => {
                let (first, count) = self.held[index.index(self.held.len())];
                if count.is_power_of_two() && first % count == 0 && count <= 1 << MAX_ORDER {
                    self.free_block(way, at(first), count.ilog2() as u8);
                } else {
                    self.free_contiguous(first, count);
                }
            }
            Op::FreePart(index, inside, order) => {
                let (first, count) = self.held[index.index(self.held.len())];
                let pfn = first + inside.index(count as usize) as u64;
                self.free_block(way, at(pfn >> order << order), order);
            }
            Op::FreeWild(index, order, by) => {
                let pfn = self.place(index) >> order.min(18) << order.min(18);
                self.free_block(way, PhysAddr::new(bytes(pfn) + by), order);
            }
            Op::FreeBulk(picks) => self.free_bulk(&picks),
            Op::FreeContiguous(index, count) => self.free_contiguous(self.place(index), count),
            Op::Flush => self.ways.flush(way),
            Op::Renew => self.ways.renew(way),
            Op::Stats => self.statistics(),
        }
        let held = self.ways.held(0) + self.ways.held_elsewhere(0);
        if self.total() < 1 << 14 {
            self.agree(held);
        }
    }

    /// What the bits say, beside what the model says.
    fn agree(&self, in_caches: u64) {
        let visible = self.ways.visible();
        let count: u64 = visible.iter().map(|run| run.1).sum();
        assert_eq!(count + in_caches, self.model.count(State::Free));
        assert!(visible.iter().all(|&(first, count)| self.model.all(first, count, State::Free)));
        assert!(visible.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0), "runs touch");
    }

    fn statistics(&self) {
        let (model, frames) = (&self.model, self.ways.frames);
        let (stats, visible) = (frames.stats(), self.ways.visible());
        assert_eq!(stats.total, self.total());
        assert_eq!(stats.reserved, model.high() - model.low() - self.total());
        assert_eq!(stats.free, visible.iter().map(|run| run.1).sum::<u64>());
        assert_eq!(stats.blocks, blocks(&visible));
        let available = |order| fitting(&visible, order, u64::MAX);
        assert!((0..=MAX_ORDER).all(|order| stats.available(order) == available(order)));
        assert_eq!(stats.largest, (0..=MAX_ORDER).rev().find(|&order| available(order) > 0));
        for pfn in [model.low().wrapping_sub(1), model.low(), model.high() - 1, model.high()] {
            assert_eq!(frames.owns(at(pfn & ((1 << 52) - 1))), model.owns(pfn), "frame {pfn}");
        }
        for (first, count) in model.runs_in(State::Reserved) {
            assert!(!frames.owns(at(first)) && !frames.owns(at(first + count - 1)));
            assert!(frames.owns(at(first - 1)) && frames.owns(at(first + count)));
        }
    }
}

/// Runs `ops` on a map, then frees everything and asks for the whole.
fn check(usable: &[Piece], reserved: &[Piece], ops: Vec<(usize, Op)>, ways: usize) {
    let Some(model) = Model::new(usable, reserved) else { return };
    let ranges = |pieces: &[Piece]| pieces.iter().map(|p| p.range()).collect::<Vec<_>>();
    let (usable, reserved) = (ranges(usable), ranges(reserved));
    let room = storage(FrameAllocator::words_needed(&usable, &reserved));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, &usable, &reserved).expect("a map with frames");
    let before = runs(&frames);
    assert!(model.runs_in(State::Free).eq(before.iter().copied()), "the map was read wrongly");

    let mut bench = Bench { model, ways: Ways::new(&frames), held: Vec::new() };
    bench.statistics();
    for (way, op) in ops {
        bench.run(way % ways, op);
    }
    let Bench { mut model, ways, held } = bench;
    drop(ways);
    assert!(model.runs_in(State::Free).eq(runs(&frames)), "a cache kept something");
    for (first, count) in held {
        // SAFETY: held by this test.
        assert_eq!(unsafe { frames.free_contiguous(at(first), count) }, Ok(()));
        model.free(first, count);
    }
    assert_eq!(runs(&frames), before, "something was lost or gained");
    let blocks = frames.stats().blocks;
    for order in (0..=MAX_ORDER).rev() {
        for _ in 0..blocks[usize::from(order)] {
            let pa = frames.alloc(order).expect("every largest block can be had again");
            model.take(pa.number().as_u64(), 1 << order);
        }
    }
    assert_eq!(frames.stats().free, 0);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None,
        ..ProptestConfig::with_cases(cases(400, 3)) })]

    #[test]
    fn every_call_agrees_with_the_model(
        usable in pieces(1500, 900, 1..6),
        reserved in pieces(1500, 60, 0..6),
        ops in prop::collection::vec(op(10, 700), 1..if cfg!(miri) { 20 } else { 250 }),
    ) {
        check(&usable, &reserved, ops, 1);
    }

    #[test]
    fn every_call_agrees_with_the_model_beside_one_cache(
        usable in pieces(1500, 900, 1..6),
        reserved in pieces(1500, 60, 0..4),
        ops in prop::collection::vec(op(10, 700), 1..if cfg!(miri) { 20 } else { 250 }),
    ) {
        check(&usable, &reserved, ops, 2);
    }

    #[test]
    fn every_call_agrees_with_the_model_beside_caches_of_every_kind(
        usable in pieces(1500, 900, 1..6),
        reserved in pieces(1500, 60, 0..4),
        ops in prop::collection::vec(op(10, 700), 1..if cfg!(miri) { 20 } else { 250 }),
    ) {
        check(&usable, &reserved, ops, WAYS);
    }

    /// So few frames that every call soon takes the last, and caches have most of them.
    #[test]
    fn every_call_agrees_with_the_model_in_a_handful_of_frames(
        usable in pieces(200, 70, 1..3),
        reserved in pieces(200, 5, 0..3),
        ops in prop::collection::vec(op(6, 70), 1..if cfg!(miri) { 30 } else { 250 }),
    ) {
        check(&usable, &reserved, ops, WAYS);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None,
        ..ProptestConfig::with_cases(24) })]

    #[test]
    #[cfg_attr(miri, ignore = "gigabytes of frames")]
    fn every_order_and_runs_beyond_the_largest_agree_with_the_model(
        usable in pieces(2 << 18, 4 << 18, 1..4),
        reserved in pieces(6 << 18, 600, 0..4),
        ops in prop::collection::vec(op(MAX_ORDER, 3 << 18), 1..60),
        ways in prop_oneof![Just(1), Just(WAYS)],
    ) {
        check(&usable, &reserved, ops, ways);
    }
}
