//! Second chance: FIFO, but whoever was referenced goes round once more.
//!
//! ```text
//!               referenced: bit cleared, to the back
//!            +----------------------------------------+
//!            |                                        v
//!   victim <-+- oldest . . . . . . . . . . . . . . newest <-- insert
//!              not referenced
//! ```
//!
//! [`Clock`](crate::Clock) takes the same victims where each page comes into the frame that was just
//! taken; this one keeps the order in which pages came, whichever frames they got.
//!
//! Source: A. S. Tanenbaum and H. Bos, Modern Operating Systems, 4th edition, 3.4.4.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{Look, Looks};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

const QUEUE: u8 = 0;

/// Flag: referenced since it was looked at.
const REFERENCED: u32 = 1 << 16;

/// FIFO with a referenced bit. 16 bytes a frame.
#[derive(Debug)]
pub struct SecondChance<'m> {
    lists: Lists<'m, 1>,
    evictions: Evictions,
}

impl<'m> SecondChance<'m> {
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

impl Replacement for SecondChance<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        self.evictions.arrival(shadow)
    }

    fn insert(&mut self, frame: FrameIx, _: Arrival) {
        if frame.0 < self.lists.members() && !self.contains(frame) {
            self.lists.push_back(QUEUE, frame.0);
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        self.lists.raise(frame.0, REFERENCED);
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        let mut looks = Looks::new(bits, self.len());
        loop {
            let frame = self.lists.front(QUEUE)?;
            let look = looks.at(frame)?;
            if look != Look::Idle || self.lists.has(frame, REFERENCED) {
                self.lists.lower(frame, REFERENCED);
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
