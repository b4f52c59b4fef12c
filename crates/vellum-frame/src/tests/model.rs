//! What an allocator should be: one state for each frame, kept as runs of equal ones.
//!
//! ```text
//!   low                                                              high
//!    [ Free ) [ Taken ) [ Free ) [ Reserved ) [ Free ) [ Taken ) [ Free )
//! ```
//!
//! Runs instead of an array, so that maps of many GiB cost no more than small ones. Nothing here
//! knows of words, levels or orders but as "2^order frames, aligned to as many".
//!
//! # Invariants
//!
//! - Runs ascend, touch, are not empty, and neighbours have different states.
//! - The first run and the last were `Free` at the start: beyond them frames are out of range.

use super::bytes;
use crate::{AllocAtError, FreeError, MAX_ORDER, PhysRange};
use proptest::prelude::*;
use std::vec::Vec;
use vellum_core::{PAGE_SHIFT, PAGE_SIZE, PhysAddr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Reserved,
    Free,
    Taken,
}

/// A stretch of frames, and how far its bytes stick out of whole frames at both ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) ragged: (u64, u64),
}

impl Piece {
    pub(super) fn range(self) -> PhysRange {
        let start = bytes(self.first) + self.ragged.0;
        PhysRange::new(start, bytes(self.first + self.count) + self.ragged.1)
    }
}

/// Pieces that begin below `starts` and have less than `counts` frames, half of them ragged.
pub(super) fn pieces(
    starts: u64,
    counts: u64,
    how_many: core::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Piece>> {
    let edge = || prop_oneof![Just(0), 0..PAGE_SIZE];
    let piece = (0..starts, 1..counts, (edge(), edge()));
    let piece = piece.prop_map(|(first, count, ragged)| Piece { first, count, ragged });
    prop::collection::vec(piece, how_many)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    end: u64,
    state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Model {
    runs: Vec<Run>,
}

impl Model {
    /// The whole frames of `usable` that nothing of `reserved` lies in, all free; `None` if there is
    /// no such frame.
    pub(super) fn new(usable: &[Piece], reserved: &[Piece]) -> Option<Self> {
        let all = Run { first: 0, end: 1 << 52, state: State::Reserved };
        let mut model = Self { runs: std::vec![all] };
        for piece in usable {
            let partial = u64::from(piece.ragged.0 > 0);
            model.paint(piece.first + partial, piece.first + piece.count, State::Free);
        }
        for piece in reserved {
            let partial = u64::from(piece.ragged.1 > 0);
            let end = piece.first + piece.count + partial;
            model.paint(piece.first, end, State::Reserved);
        }
        let free = |run: &Run| run.state == State::Free;
        let (low, high) = (model.runs.iter().position(free)?, model.runs.iter().rposition(free)?);
        model.runs.truncate(high + 1);
        model.runs.drain(..low);
        Some(model)
    }

    pub(super) fn low(&self) -> u64 {
        self.runs[0].first
    }

    pub(super) fn high(&self) -> u64 {
        self.runs[self.runs.len() - 1].end
    }

    /// Gives the frames `first..end`, which lie within the model, a state.
    fn paint(&mut self, first: u64, end: u64, state: State) {
        if first >= end {
            return;
        }
        let mut painted = Vec::with_capacity(self.runs.len() + 2);
        let mut push = |run: Run| match painted.last_mut() {
            _ if run.first >= run.end => {}
            Some(Run { end, state, .. }) if *state == run.state => *end = run.end,
            _ => painted.push(run),
        };
        for run in &self.runs {
            push(Run { end: run.end.min(first), ..*run });
            if run.first <= first && first < run.end {
                push(Run { first, end, state });
            }
            push(Run { first: run.first.max(end), ..*run });
        }
        self.runs = painted;
    }

    pub(super) fn take(&mut self, first: u64, count: u64) {
        assert!(self.all(first, count, State::Free), "{count} frames at {first} were not free");
        self.paint(first, first + count, State::Taken);
    }

    pub(super) fn free(&mut self, first: u64, count: u64) {
        assert!(self.all(first, count, State::Taken), "{count} frames at {first} were not taken");
        self.paint(first, first + count, State::Free);
    }

    /// The first of `count` frames from `first` on that is in `state`.
    pub(super) fn find(&self, first: u64, count: u64, state: State) -> Option<u64> {
        let end = first.saturating_add(count);
        let run = self.runs.iter().find(|r| r.state == state && r.end > first && r.first < end)?;
        Some(run.first.max(first))
    }

    pub(super) fn inside(&self, first: u64, count: u64) -> bool {
        first >= self.low() && first.saturating_add(count) <= self.high()
    }

    pub(super) fn all(&self, first: u64, count: u64, state: State) -> bool {
        let holds = |r: &Run| r.state == state && r.first <= first && first + count <= r.end;
        self.runs.iter().any(holds)
    }

    pub(super) fn owns(&self, pfn: u64) -> bool {
        self.inside(pfn, 1) && !self.all(pfn, 1, State::Reserved)
    }

    /// The runs in `state`: first frame and count.
    pub(super) fn runs_in(&self, state: State) -> impl Iterator<Item = (u64, u64)> {
        let runs = self.runs.iter().filter(move |run| run.state == state);
        runs.map(|run| (run.first, run.end - run.first))
    }

    pub(super) fn count(&self, state: State) -> u64 {
        self.runs_in(state).map(|(_, count)| count).sum()
    }

    /// Why a block of `order` at `pa` is nobody's to free, whoever has taken what.
    fn foreign(&self, pa: PhysAddr, order: u8) -> Option<FreeError> {
        let (first, count) = (pa.number().as_u64(), 1 << order.min(MAX_ORDER));
        if order > MAX_ORDER {
            Some(FreeError::BadOrder { order })
        } else if !pa.as_u64().is_multiple_of(bytes(count)) {
            Some(FreeError::Misaligned { pa, order })
        } else if !self.inside(first, count) {
            Some(FreeError::OutOfRange { pa, order })
        } else {
            self.find(first, count, State::Reserved).map(|pfn| FreeError::Reserved { pa: at(pfn) })
        }
    }

    /// What `free` must say. A double free may name any free frame of the block.
    pub(super) fn freed(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        let free = |order: u8| self.find(pa.number().as_u64(), 1u64 << order, State::Free);
        match self.foreign(pa, order) {
            Some(error) => Err(error),
            None => free(order).map_or(Ok(()), |pfn| Err(FreeError::DoubleFree { pa: at(pfn) })),
        }
    }

    /// What `alloc_at` must say.
    pub(super) fn taken_at(&self, pa: PhysAddr, order: u8) -> Result<(), AllocAtError> {
        match self.foreign(pa, order) {
            None if self.all(pa.number().as_u64(), 1 << order, State::Free) => Ok(()),
            None | Some(FreeError::DoubleFree { .. }) => Err(AllocAtError::Taken { pa, order }),
            Some(FreeError::BadOrder { .. }) => Err(AllocAtError::BadOrder { order }),
            Some(FreeError::Misaligned { .. }) => Err(AllocAtError::Misaligned { pa, order }),
            Some(FreeError::OutOfRange { .. }) => Err(AllocAtError::OutOfRange { pa, order }),
            Some(FreeError::Reserved { pa }) => Err(AllocAtError::Reserved { pa }),
        }
    }
}

/// Where frame `pfn` is.
pub(super) fn at(pfn: u64) -> PhysAddr {
    PhysAddr::new(pfn << PAGE_SHIFT)
}

/// How many aligned blocks of `order` that end at frame `limit` or below lie in these free runs.
pub(super) fn fitting(runs: &[(u64, u64)], order: u8, limit: u64) -> u64 {
    let within = |&(first, count): &(u64, u64)| {
        let start = first.next_multiple_of(1 << order);
        (first + count).min(limit).saturating_sub(start) >> order
    };
    runs.iter().map(within).sum()
}

/// How many blocks of each order: those that fit, without the two halves of each larger one.
pub(super) fn blocks(runs: &[(u64, u64)]) -> [u64; MAX_ORDER as usize + 1] {
    let mut fit = [0; MAX_ORDER as usize + 2];
    for order in 0..=MAX_ORDER {
        fit[usize::from(order)] = fitting(runs, order, u64::MAX);
    }
    core::array::from_fn(|order| fit[order] - 2 * fit[order + 1])
}

#[test]
fn the_model_counts_blocks_as_one_does_by_hand() {
    // 1, 2-3, 4-7, 8 | 20-21
    let runs = [(1, 8), (20, 2)];
    let counted = blocks(&runs);
    assert_eq!(counted[..4], [2, 2, 1, 0]);
    assert_eq!(fitting(&runs, 1, 21), 3);
    assert_eq!(fitting(&runs, 1, 22), 4);
}

#[test]
fn the_model_rounds_usable_inward_and_reserved_outward() {
    let piece = |first, count, ragged| Piece { first, count, ragged };
    let usable = [piece(10, 10, (1, 1)), piece(5, 8, (0, 0))];
    let mut model = Model::new(&usable, &[piece(7, 1, (5, 1))]).expect("frames");
    assert_eq!((model.low(), model.high()), (5, 20));
    assert!(model.runs_in(State::Free).eq([(5, 2), (9, 11)]));
    model.take(12, 2);
    assert!(model.runs_in(State::Free).eq([(5, 2), (9, 3), (14, 6)]));
    model.free(12, 2);
    assert!(model.runs_in(State::Free).eq([(5, 2), (9, 11)]));
    assert_eq!(Model::new(&[piece(3, 1, (1, 4095))], &[]), None);
}
