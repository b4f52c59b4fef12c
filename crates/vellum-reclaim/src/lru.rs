//! LRU: the frame that was referenced longest ago goes.
//!
//! ```text
//!                        touch: to the back
//!                       +------------------+
//!                       |                  v
//!   victim <-- oldest . x . . . . . . . newest <-- insert
//! ```
//!
//! With accessed bits nobody tells of a reference when it happens: a victim that turns out to have been
//! accessed goes to the back, which makes it second chance.
//!
//! # Invariants
//!
//! - Where every reference is told, the frames that n frames hold are among those that n + 1 hold: a stack
//!   algorithm.
//!
//! Source: R. L. Mattson and others, "Evaluation techniques for storage hierarchies", IBM Systems Journal
//! 9 (2), 1970.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{Look, Looks};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

const QUEUE: u8 = 0;

/// Least recently used. 16 bytes a frame.
#[derive(Debug)]
pub struct Lru<'m> {
    lists: Lists<'m, 1>,
    evictions: Evictions,
}

impl<'m> Lru<'m> {
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
        Ok(Self { lists: Lists::new(nodes), evictions: Evictions::default() })
    }
}

impl Replacement for Lru<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        self.evictions.arrival(shadow)
    }

    fn insert(&mut self, frame: FrameIx, _: Arrival) {
        if frame.0 < self.lists.members() && !self.contains(frame) {
            self.lists.push_back(QUEUE, frame.0);
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        self.lists.move_to_back(QUEUE, frame.0);
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        let mut looks = Looks::new(bits, self.len());
        loop {
            let frame = self.lists.front(QUEUE)?;
            if looks.at(frame)? != Look::Idle {
                self.lists.move_to_back(QUEUE, frame);
                continue;
            }
            self.lists.unlink(frame);
            return Some(Victim { frame: FrameIx(frame), shadow: self.evictions.shadow() });
        }
    }

    fn remove(&mut self, frame: FrameIx) {
        self.lists.unlink(frame.0);
    }

    fn contains(&self, frame: FrameIx) -> bool {
        self.lists.is_on(QUEUE, frame.0)
    }

    fn len(&self) -> u32 {
        self.lists.len(QUEUE)
    }
}
