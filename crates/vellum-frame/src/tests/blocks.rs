//! Blocks of every order against a byte for each frame.

use super::{bytes, cases, free_frames, set_up, storage};
use crate::{AllocAtError, FrameAllocator, FreeError, MAX_ORDER, PhysRange};
use proptest::prelude::*;
use proptest::sample::Index;
use std::vec::Vec;
use vellum_core::{OutOfFrames, PhysAddr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reserved,
    Free,
    Taken,
}

#[derive(Clone, Debug)]
enum Op {
    Alloc(u8),
    AllocAt(Index, u8),
    /// A block that is held.
    Free(Index),
    /// A block that is held, in two halves, the second first.
    Halves(Index),
    /// Whatever lies there.
    WildFree(Index, u8),
}

fn op(most: u8) -> impl Strategy<Value = Op> {
    let order = prop_oneof![0..=most, 0..=most.min(3)];
    prop_oneof![
        5 => order.clone().prop_map(Op::Alloc),
        2 => (any::<Index>(), order.clone()).prop_map(|(at, order)| Op::AllocAt(at, order)),
        4 => any::<Index>().prop_map(Op::Free),
        1 => any::<Index>().prop_map(Op::Halves),
        2 => (any::<Index>(), order).prop_map(|(at, order)| Op::WildFree(at, order)),
    ]
}

/// The frames `first..`, by state.
struct Model {
    first: u64,
    states: Vec<State>,
    held: Vec<(PhysAddr, u8)>,
}

impl Model {
    fn new(frames: &FrameAllocator<'_>, first: u64, span: u64) -> Self {
        let mut states = std::vec![State::Reserved; span as usize];
        for pfn in free_frames(frames) {
            states[(pfn - first) as usize] = State::Free;
        }
        Self { first, states, held: Vec::new() }
    }

    /// The states of a block that lies within the model.
    fn block(&mut self, pa: PhysAddr, order: u8) -> Option<&mut [State]> {
        let start = pa.number().as_u64().checked_sub(self.first)? as usize;
        self.states.get_mut(start..start + (1 << order))
    }

    /// Whether an aligned free block of `order` exists.
    fn has(&self, order: u8) -> bool {
        let size = 1usize << order;
        let skip = (self.first.next_multiple_of(size as u64) - self.first) as usize;
        self.states.get(skip..).is_some_and(|from| {
            from.chunks_exact(size).any(|b| b.iter().all(|&s| s == State::Free))
        })
    }

    fn take(&mut self, pa: PhysAddr, order: u8) {
        let block = self.block(pa, order).expect("a block within the map");
        assert!(block.iter().all(|&s| s == State::Free), "{pa}, order {order}, was not all free");
        block.fill(State::Taken);
        self.held.push((pa, order));
    }

    /// The address of the first frame of a block in `state`.
    fn first_in(&mut self, pa: PhysAddr, order: u8, state: State) -> Option<PhysAddr> {
        let at = self.block(pa, order)?.iter().position(|&s| s == state)?;
        pa.checked_add(bytes(at as u64))
    }

    /// What `free` must say of a block, if it is an error whatever the caller owns.
    fn wild_free(&mut self, pa: PhysAddr, order: u8) -> Option<FreeError> {
        if self.block(pa, order).is_none() {
            return Some(FreeError::OutOfRange { pa, order });
        }
        if let Some(pa) = self.first_in(pa, order, State::Reserved) {
            return Some(FreeError::Reserved { pa });
        }
        self.first_in(pa, order, State::Free).map(|pa| FreeError::DoubleFree { pa })
    }

    fn run(&mut self, frames: &FrameAllocator<'_>, op: Op) {
        let place = |at: &Index, order: u8, model: &Self| {
            // A little beyond both ends too.
            let frame = model.first + at.index(model.states.len() + 16) as u64;
            PhysAddr::new(bytes(frame.saturating_sub(8) >> order << order))
        };
        match op {
            Op::Alloc(order) => match frames.alloc(order) {
                Ok(pa) => {
                    assert!(pa.is_aligned(12 + order));
                    self.take(pa, order);
                }
                Err(error) => {
                    assert_eq!(error, OutOfFrames { order });
                    assert!(!self.has(order), "a block of order {order} is free");
                }
            },
            Op::AllocAt(at, order) => {
                let pa = place(&at, order, self);
                let want = match self.wild_free(pa, order) {
                    Some(FreeError::OutOfRange { .. }) => {
                        Err(AllocAtError::OutOfRange { pa, order })
                    }
                    Some(FreeError::Reserved { pa }) => Err(AllocAtError::Reserved { pa }),
                    _ if self.first_in(pa, order, State::Taken).is_some() => {
                        Err(AllocAtError::Taken { pa, order })
                    }
                    _ => Ok(()),
                };
                assert_eq!(frames.alloc_at(pa, order), want);
                if want.is_ok() {
                    self.take(pa, order);
                }
            }
            Op::Free(at) | Op::Halves(at) if self.held.is_empty() => {
                let _ = at;
            }
            Op::Free(at) => {
                let (pa, order) = self.held.swap_remove(at.index(self.held.len()));
                self.free(frames, pa, order);
            }
            Op::Halves(at) => {
                let (pa, order) = self.held.swap_remove(at.index(self.held.len()));
                let Some(half) = order.checked_sub(1) else {
                    return self.free(frames, pa, order);
                };
                self.free(frames, pa.wrapping_add(bytes(1 << half)), half);
                self.free(frames, pa, half);
            }
            Op::WildFree(at, order) => {
                let pa = place(&at, order, self);
                if let Some(want) = self.wild_free(pa, order) {
                    // SAFETY: by the model no block that is allocated as a whole.
                    let got = unsafe { frames.free(pa, order) };
                    match (got, want) {
                        (Err(FreeError::DoubleFree { pa: got }), FreeError::DoubleFree { .. }) => {
                            assert_eq!(self.block(got, 0), Some(&mut [State::Free][..]));
                        }
                        (got, want) => assert_eq!(got, Err(want)),
                    }
                }
            }
        }
    }

    fn free(&mut self, frames: &FrameAllocator<'_>, pa: PhysAddr, order: u8) {
        // SAFETY: taken from the blocks that are held, and no bytes are behind it.
        assert_eq!(unsafe { frames.free(pa, order) }, Ok(()));
        self.block(pa, order).expect("a block that is held").fill(State::Free);
    }

    fn agree(&mut self, frames: &FrameAllocator<'_>) {
        let free: u64 = self.states.iter().filter(|&&s| s == State::Free).count() as u64;
        let stats = frames.stats();
        assert_eq!(stats.free, free);
        assert_eq!(stats.largest, (0..=MAX_ORDER).rev().find(|&order| self.has(order)));
        for (start, count) in frames.free_runs() {
            let start = (start.number().as_u64() - self.first) as usize;
            let run = &self.states[start..start + count as usize];
            assert!(run.iter().all(|&s| s == State::Free));
        }
    }
}

/// Runs `ops`, then frees everything and asks for the whole.
fn check(usable: &[PhysRange], reserved: &[PhysRange], ops: Vec<Op>) {
    let room = storage(FrameAllocator::words_needed(usable, reserved));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, reserved).expect("a map with frames");
    let before: Vec<_> = frames.free_runs().collect();
    let (first, end) = match (before.first(), before.last()) {
        (Some(first), Some(last)) => (first.0.number().as_u64(), last.0.number().as_u64() + last.1),
        _ => unreachable!("init_in refuses a map without frames"),
    };
    let mut model = Model::new(&frames, first, end - first);
    for op in ops {
        model.run(&frames, op);
    }
    model.agree(&frames);
    while let Some((pa, order)) = model.held.pop() {
        model.free(&frames, pa, order);
    }
    assert!(frames.free_runs().eq(before), "something was lost or gained");
    let largest = frames.stats().largest.expect("frames are free");
    for order in (0..=largest).rev() {
        let pa = frames.alloc(order).expect("every order up to the largest can be had again");
        // SAFETY: allocated above.
        assert_eq!(unsafe { frames.free(pa, order) }, Ok(()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None,
        ..ProptestConfig::with_cases(cases(256, 4)) })]

    #[test]
    fn small_ragged_maps_agree_with_the_model(
        base in 0u64..200,
        ranges in prop::collection::vec((0u64..600, 1u64..300), 1..6),
        holes in prop::collection::vec((0u64..600, 1u64..40), 0..5),
        ops in prop::collection::vec(op(9), 1..if cfg!(miri) { 25 } else { 300 }),
    ) {
        let at = |&(start, len): &(u64, u64)| PhysRange::with_len(bytes(base + start), bytes(len));
        let usable: Vec<_> =
            ranges.iter().map(at).chain([PhysRange::with_len(bytes(950), bytes(3))]).collect();
        let reserved: Vec<_> = holes.iter().map(at).collect();
        check(&usable, &reserved, ops);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None,
        ..ProptestConfig::with_cases(48) })]

    #[test]
    #[cfg_attr(miri, ignore = "a model of three million frames")]
    fn every_order_agrees_with_the_model(
        start in 0u64..1 << 17,
        hole in 0u64..3 << 18,
        ops in prop::collection::vec(op(MAX_ORDER), 1..200),
    ) {
        let usable = [PhysRange::with_len(bytes(start), bytes(3 << 18))];
        let reserved = [PhysRange::with_len(bytes(start + hole), bytes(1))];
        check(&usable, &reserved, ops);
    }
}

#[test]
fn frames_freed_one_by_one_come_back_as_every_larger_order() {
    let order = if cfg!(miri) { 7 } else { MAX_ORDER };
    let usable = [(0, bytes(1 << order))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    for larger in 1..=order {
        let all: Vec<_> = core::iter::from_fn(|| frames.alloc(0).ok()).collect();
        assert_eq!(all.len(), 1 << order);
        // Odd ones first, so that nothing is whole until the very end.
        for parity in [1, 0] {
            for pa in all.iter().filter(|pa| pa.number().as_u64() % 2 == parity) {
                // SAFETY: allocated above.
                assert_eq!(unsafe { frames.free(*pa, 0) }, Ok(()));
            }
        }
        let blocks: Vec<_> = core::iter::from_fn(|| frames.alloc(larger).ok()).collect();
        assert_eq!(blocks.len(), 1 << (order - larger), "blocks of order {larger}");
        for pa in blocks {
            // SAFETY: allocated above.
            assert_eq!(unsafe { frames.free(pa, larger) }, Ok(()));
        }
    }
}

#[test]
fn every_wrong_free_is_told_apart_and_changes_nothing() {
    // Frames 16..1024 without 100, and 512..=575 allocated as one.
    let usable = [(bytes(16), bytes(1024))];
    let reserved = [(bytes(100) + 1, bytes(100) + 2)];
    let room = storage(FrameAllocator::words_needed(usable, reserved));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, reserved).unwrap();
    let at = |frame| PhysAddr::new(bytes(frame));
    frames.alloc_at(at(512), 6).unwrap();
    let before: Vec<_> = frames.free_runs().collect();
    let byte = PhysAddr::new(bytes(512) + 1);
    for (pa, order, want) in [
        (at(512), 19, FreeError::BadOrder { order: 19 }),
        (at(512), 255, FreeError::BadOrder { order: 255 }),
        (byte, 0, FreeError::Misaligned { pa: byte, order: 0 }),
        (at(520), 4, FreeError::Misaligned { pa: at(520), order: 4 }),
        (at(15), 0, FreeError::OutOfRange { pa: at(15), order: 0 }),
        (at(1024), 0, FreeError::OutOfRange { pa: at(1024), order: 0 }),
        (at(0), 10, FreeError::OutOfRange { pa: at(0), order: 10 }),
        (at((1 << 52) - 1), 0, FreeError::OutOfRange { pa: at((1 << 52) - 1), order: 0 }),
        (at(100), 0, FreeError::Reserved { pa: at(100) }),
        (at(96), 3, FreeError::Reserved { pa: at(100) }),
        (at(101), 0, FreeError::DoubleFree { pa: at(101) }),
        (at(256), 7, FreeError::DoubleFree { pa: at(256) }),
        // Half of it is allocated.
        (at(512), 7, FreeError::DoubleFree { pa: at(576) }),
    ] {
        // SAFETY: none of these blocks is allocated throughout.
        assert_eq!(unsafe { frames.free(pa, order) }, Err(want));
    }
    assert!(frames.free_runs().eq(before));
    // SAFETY: allocated above; the second time it is an error.
    let twice = unsafe { [frames.free(at(512), 6), frames.free(at(512), 6)] };
    assert_eq!(twice, [Ok(()), Err(FreeError::DoubleFree { pa: at(512) })]);
    // After it became part of a larger block that was gathered (order 9 takes and gives that).
    let huge = frames.alloc(9).unwrap();
    // SAFETY: allocated above; after that, errors.
    unsafe {
        assert_eq!(frames.free(huge, 9), Ok(()));
        assert_eq!(frames.free(at(512), 6), Err(FreeError::DoubleFree { pa: at(512) }));
        assert_eq!(frames.free(at(513), 0), Err(FreeError::DoubleFree { pa: at(513) }));
    }
}

#[test]
fn a_given_block_is_found_whole_in_pieces_or_inside_a_larger_one() {
    let usable = [(0, bytes(4096))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    let at = |frame| PhysAddr::new(bytes(frame));
    // Inside the one block of order 12; then whole; then in 512 pieces.
    assert_eq!(frames.alloc_at(at(512), 9), Ok(()));
    for frame in 512..1024 {
        // SAFETY: part of the block above.
        assert_eq!(unsafe { frames.free(at(frame), 0) }, Ok(()));
    }
    assert_eq!(frames.alloc_at(at(512), 9), Ok(()));
    assert_eq!(frames.alloc_at(at(512), 0), Err(AllocAtError::Taken { pa: at(512), order: 0 }));
    assert_eq!(frames.alloc_at(at(0), 12), Err(AllocAtError::Taken { pa: at(0), order: 12 }));
    assert_eq!(
        frames.alloc_at(at(513), 1),
        Err(AllocAtError::Misaligned { pa: at(513), order: 1 })
    );
    assert_eq!(frames.alloc_at(at(0), 19), Err(AllocAtError::BadOrder { order: 19 }));
    // SAFETY: allocated above.
    assert_eq!(unsafe { frames.free(at(512), 9) }, Ok(()));
    assert_eq!(frames.alloc_at(at(0), 12), Ok(()));
    assert_eq!(frames.alloc(0), Err(OutOfFrames { order: 0 }));
}

#[test]
fn a_small_request_leaves_large_blocks_whole() {
    let usable = [(0, bytes(2 * 512))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    for _ in 0..512 {
        frames.alloc(0).unwrap();
    }
    assert_eq!(frames.stats().largest, Some(9));
    assert!(frames.alloc(9).is_ok());
}
