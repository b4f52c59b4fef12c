//! SIEVE: a queue with a hand that leaves in place whom it spares.
//!
//! ```text
//!     oldest                              newest
//!   [ x ] [ . ] [ x ] [ x ] [ . ] [ . ] [ . ] <-- insert
//!                ----> hand            x: visited
//!                clears x, takes the first without, waits behind it; from the newest back to the oldest
//! ```
//!
//! Survivors do not move, so that new pages are sifted near the hand while old ones are safe behind it.
//!
//! # Invariants
//!
//! - The hand is on a frame of the queue, or nowhere, which is before the oldest.
//!
//! Source: Y. Zhang and others, "SIEVE is simpler than LRU", NSDI 2024.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{Look, Looks};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

const QUEUE: u8 = 0;

/// Flag: visited since the hand came by.
const VISITED: u32 = 1 << 16;

/// SIEVE. 16 bytes a frame.
#[derive(Debug)]
pub struct Sieve<'m> {
    lists: Lists<'m, 1>,
    hand: Option<u32>,
    evictions: Evictions,
}

impl<'m> Sieve<'m> {
    /// Nodes for so many frames.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        Lists::<1>::cells(frames as usize)
    }

    /// One without frames. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`], as [`Policy::over`](crate::Policy::over) says.
    pub fn new(frames: u32, nodes: &'m mut [Node]) -> Result<Self, SizeError> {
        SizeError::check(frames, Self::cells(frames), nodes.len())?;
        Ok(Self { lists: Lists::new(nodes), hand: None, evictions: Evictions::default() })
    }
}

impl Replacement for Sieve<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        self.evictions.arrival(shadow)
    }

    fn insert(&mut self, frame: FrameIx, _: Arrival) {
        if frame.0 < self.lists.members() && !self.contains(frame) {
            self.lists.push_back(QUEUE, frame.0);
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        self.lists.raise(frame.0, VISITED);
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        let mut looks = Looks::new(bits, self.len());
        loop {
            let frame = self.hand.or_else(|| self.lists.front(QUEUE))?;
            let look = looks.at(frame)?;
            self.hand = self.lists.newer(frame);
            if look != Look::Idle || self.lists.has(frame, VISITED) {
                self.lists.lower(frame, VISITED);
                continue;
            }
            self.lists.unlink(frame);
            return Some(Victim { frame: FrameIx(frame), shadow: self.evictions.shadow() });
        }
    }

    fn remove(&mut self, frame: FrameIx) {
        if self.hand == Some(frame.0) {
            self.hand = self.lists.newer(frame.0);
        }
        self.lists.unlink(frame.0);
    }

    fn contains(&self, frame: FrameIx) -> bool {
        self.lists.is_on(QUEUE, frame.0)
    }

    fn len(&self) -> u32 {
        self.lists.len(QUEUE)
    }
}
