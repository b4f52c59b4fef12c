//! Aging: LRU in eight bits a frame, a history of ticks.
//!
//! ```text
//!             ticks ago  1 2 3 4 5 6 7 8
//!   frame 5    counter   1 1 0 0 0 0 0 0      tick: counter >> 1, accessed bit in front
//!   frame 2              0 1 0 1 0 0 0 0
//!   frame 7              0 0 0 0 0 0 0 1  <-- least: goes
//!
//!   buckets by counter:   [0] [1: 7] [2] ... [0x50: 2] ... [0xc0: 5]
//! ```
//!
//! Counters change at ticks alone, so that a queue for each value makes the least one's frame O(1) to
//! find. A candidate that was accessed in the running tick has it counted at once, and does not go.
//!
//! # Invariants
//!
//! - A frame is in the queue of its counter; `occupied` has the bit of each queue that is not empty.
//!
//! Costs: `tick` is O(frames).
//!
//! Source: A. S. Tanenbaum and H. Bos, Modern Operating Systems, 4th edition, 3.4.7.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{Look, Looks};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

/// A list a value.
const VALUES: usize = 256;

/// The accessed bit in front.
const NOW: u8 = 0x80;

/// Flag: referenced in the running tick.
const REFERENCED: u32 = 1 << 16;
/// Flag: this tick has been counted.
const DONE: u32 = 1 << 17;

/// Aging by eight bits. 16 bytes a frame, and 6 KiB.
#[derive(Debug)]
pub struct Aging<'m> {
    lists: Lists<'m, VALUES>,
    occupied: [u64; VALUES / 64],
    len: u32,
    evictions: Evictions,
}

impl<'m> Aging<'m> {
    /// Nodes for so many frames.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        Lists::<VALUES>::cells(frames as usize)
    }

    /// One without frames. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`], as [`Policy::over`](crate::Policy::over) says.
    pub fn new(frames: u32, nodes: &'m mut [Node]) -> Result<Self, SizeError> {
        SizeError::check(frames, Self::cells(frames), nodes.len())?;
        let (lists, occupied) = (Lists::new(nodes), [0; VALUES / 64]);
        Ok(Self { lists, occupied, len: 0, evictions: Evictions::default() })
    }

    /// Puts it, wherever it is, into the queue of that counter, without flags.
    fn place(&mut self, frame: u32, counter: u8) {
        let old = self.lists.list(frame);
        self.lists.unlink(frame);
        self.lists.push_back(counter, frame);
        old.into_iter().chain([counter]).for_each(|value| self.note(value));
    }

    /// Keeps `occupied` right for a queue.
    fn note(&mut self, value: u8) {
        let is_empty = self.lists.len(value) == 0;
        if let Some(word) = self.occupied.get_mut(usize::from(value) / 64) {
            let bit = 1 << (value % 64);
            *word = if is_empty { *word & !bit } else { *word | bit };
        }
    }

    fn is_occupied(&self, value: u8) -> bool {
        let word = self.occupied.get(usize::from(value) / 64);
        word.is_some_and(|word| word & (1 << (value % 64)) != 0)
    }

    /// The lowest counter of all, and the frame that has had it longest.
    fn least(&self) -> Option<(u8, u32)> {
        let words = (0u8..).step_by(64).zip(self.occupied);
        let (first, word) = words.take(VALUES / 64).find(|&(_, word)| word != 0)?;
        let value = first + word.trailing_zeros() as u8;
        Some((value, self.lists.front(value)?))
    }
}

impl Replacement for Aging<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        self.evictions.arrival(shadow)
    }

    fn insert(&mut self, frame: FrameIx, _: Arrival) {
        if frame.0 < self.lists.members() && !self.contains(frame) {
            self.place(frame.0, NOW);
            self.len += 1;
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        self.lists.raise(frame.0, REFERENCED);
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        let mut looks = Looks::new(bits, self.len);
        loop {
            let (counter, frame) = self.least()?;
            let look = looks.at(frame)?;
            if look != Look::Idle || self.lists.has(frame, REFERENCED) {
                self.place(frame, (counter >> 1) | NOW);
                continue;
            }
            self.remove(FrameIx(frame));
            return Some(Victim { frame: FrameIx(frame), shadow: self.evictions.shadow() });
        }
    }

    fn remove(&mut self, frame: FrameIx) {
        if let Some(value) = self.lists.list(frame.0) {
            self.lists.unlink(frame.0);
            self.note(value);
            self.len -= 1;
        }
    }

    fn tick(&mut self, bits: &mut impl AccessedBits) {
        // A counter's half lies in a queue that was done before, its half with the new bit in one that is
        // still to come or is its own: those carry a mark until all are done.
        for value in 0..=u8::MAX {
            if !self.is_occupied(value) {
                continue;
            }
            let mut at = self.lists.front(value);
            for _ in 0..self.lists.len(value) {
                let Some(frame) = at else { break };
                at = self.lists.newer(frame);
                if self.lists.has(frame, DONE) {
                    continue;
                }
                let is_used =
                    bits.take(FrameIx(frame)).is_accessed || self.lists.has(frame, REFERENCED);
                self.place(frame, (value >> 1) | if is_used { NOW } else { 0 });
                self.lists.raise(frame, DONE);
            }
        }
        for frame in 0..self.lists.members() {
            self.lists.lower(frame, DONE);
        }
    }

    fn contains(&self, frame: FrameIx) -> bool {
        self.lists.list(frame.0).is_some()
    }

    fn len(&self) -> u32 {
        self.len
    }
}
