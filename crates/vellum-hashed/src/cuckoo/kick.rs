//! Making room for a line: who has to go where, found before anybody goes.
//!
//! ```text
//!   T wants a slot       way 0 [A]      way 1 [B]      way 2 [C]       all its slots are taken
//!   B's other slots      way 0 [D]                     way 2 [ ]       free
//!
//!   path:   way 1 (B)  ->  way 2 ( )
//!   moves:  from its end: B to way 2, and then way 1 is free for T
//! ```
//!
//! The path is a random walk, as in the paper, but over what lies in the slots: nothing moves until
//! a free slot ends it, so a walk that is given up leaves nothing half done. It is taken from its end,
//! so every move goes into a free slot, and no line is ever anywhere else than in one slot: at each
//! moment the table is whole. A walk that comes back to where it has been drops the loop and goes
//! on another way, so the slots of a path are different and each still holds what was seen.
//!
//! # Invariants
//!
//! - While a line moves, its stripe is held.

use super::lines::stripe;
use super::{Locked, Ways};
use crate::line::Tag;
use vellum_core::Memory;

/// Slots of a path at most: the bound of a chain of kicks is one less.
const MOST: usize = 32;
/// Steps of a walk at most; those that led into loops count as well.
const STEPS: usize = 2 * MOST;

/// A slot of a way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) way: usize,
    pub(super) slot: u64,
}

/// From the slot for a new line to one that is free; what lies in each goes to the next.
pub(super) struct Path {
    spots: [Spot; MOST],
    len: usize,
}

impl Path {
    const fn new() -> Self {
        Self { spots: [Spot { way: 0, slot: 0 }; MOST], len: 0 }
    }

    fn spots(&self) -> &[Spot] {
        self.spots.get(..self.len).unwrap_or(&[])
    }

    /// Its first slot, which is free once the path was taken.
    pub(super) fn first(&self) -> Option<Spot> {
        self.spots().first().copied()
    }

    fn push(&mut self, spot: Spot) -> Option<()> {
        *self.spots.get_mut(self.len)? = spot;
        self.len += 1;
        Some(())
    }
}

impl<M: Memory, const WAYS: usize> Locked<'_, M, WAYS> {
    /// A path for `tag`, which has no line, or whose line is at `from` and has to go to another
    /// way; `None` if the walk found no free slot within its bound.
    pub(super) fn plan(&self, ways: &Ways<WAYS>, tag: Tag, from: Option<Spot>) -> Option<Path> {
        let mut path = Path::new();
        let (mut homeless, mut comes_from) = (tag, from);
        for _ in 0..STEPS {
            let spot = self.next(ways, homeless, comes_from.map(|spot| spot.way))?;
            let seen = path.spots().iter().position(|&seen| seen == spot);
            if let Some(back) = seen.or_else(|| (Some(spot) == from).then_some(0)) {
                path.len = back;
                comes_from =
                    back.checked_sub(1).map_or(from, |last| path.spots().get(last).copied());
                homeless = match comes_from {
                    Some(last) => self.tag_at(ways, last)?,
                    None => tag,
                };
                continue;
            }
            path.push(spot)?;
            match self.tag_at(ways, spot) {
                None => return Some(path),
                Some(occupant) => (homeless, comes_from) = (occupant, Some(spot)),
            }
        }
        None
    }

    /// Where a line that comes from way `from` goes: to a free slot if the table looks for one,
    /// and else to a way at random, whoever is there.
    fn next(&self, ways: &Ways<WAYS>, tag: Tag, from: Option<usize>) -> Option<Spot> {
        if let (true, Some(spot)) = (self.table.looks, self.free(ways, tag, from)) {
            return Some(spot);
        }
        let start = self.random(WAYS);
        let way = match from {
            // One of the others, evenly.
            Some(from) => (from + 1 + self.random(WAYS - 1)) % WAYS,
            None => start,
        };
        ways.spot(tag, way)
    }

    /// A free slot for a line that comes from way `from`, if there is one: in the first of its ways
    /// from one on that is chosen at random.
    pub(super) fn free(&self, ways: &Ways<WAYS>, tag: Tag, from: Option<usize>) -> Option<Spot> {
        let start = self.random(WAYS);
        let others = (start..WAYS).chain(0..start).filter(|&way| Some(way) != from);
        let mut spots = others.filter_map(|way| ways.spot(tag, way));
        spots.find(|&spot| self.is_free(ways, spot))
    }

    /// Whether there is no line in a slot.
    fn is_free(&self, ways: &Ways<WAYS>, spot: Spot) -> bool {
        let memory = &self.table.memory;
        ways.way(spot).is_some_and(|way| way.line(memory, spot.slot, |line| !line.is_used()))
    }

    /// A number below `below`, evenly.
    fn random(&self, below: usize) -> usize {
        (u128::from(self.table.random()) * below as u128).wrapping_shr(u64::BITS) as usize
    }

    /// Moves every line of the path to the next slot, the last one first.
    pub(super) fn take(&self, ways: &Ways<WAYS>, path: &Path) {
        for pair in path.spots().windows(2).rev() {
            if let &[from, to] = pair {
                self.relocate(ways, from, to);
                self.table.counts.kicks.add(1);
            }
        }
    }

    /// Moves the line at `from` to the free slot `to`.
    pub(super) fn relocate(&self, ways: &Ways<WAYS>, from: Spot, to: Spot) {
        let Some(tag) = self.tag_at(ways, from) else { return };
        let (Some(old), Some(new)) = (ways.each.get(from.way), ways.each.get(to.way)) else {
            return;
        };
        debug_assert!(self.tag_at(ways, to).is_none(), "a line was written over");
        {
            let _held = self.hold(tag);
            let copied = old.line(&self.table.memory, from.slot, |line| line.copy());
            new.line(&self.table.memory, to.slot, |line| line.paste(copied));
            old.line(&self.table.memory, from.slot, |line| line.clear());
        }
        old.count(-1);
        new.count(1);
        if stripe::<WAYS>(to) < stripe::<WAYS>(from) {
            self.table.moves.note(tag);
        }
    }

    /// The tag of the line in a slot; `None` if that is free.
    pub(super) fn tag_at(&self, ways: &Ways<WAYS>, spot: Spot) -> Option<Tag> {
        ways.each.get(spot.way)?.line(&self.table.memory, spot.slot, |line| line.tag())
    }
}
