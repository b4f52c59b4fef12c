//! FIFO: the frame that came first goes first.
//!
//! ```text
//!   victim <-- oldest . . . . newest <-- insert
//! ```
//!
//! It looks at no accessed bit: what is held goes to the back, everything else goes. More memory can
//! mean more misses (Belady's anomaly; `tests/properties.rs` has the textbook's example).
//!
//! Source: L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
//! Journal 5 (2), 1966.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{Look, Looks};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

const QUEUE: u8 = 0;

/// First in, first out. 16 bytes a frame.
#[derive(Debug)]
pub struct Fifo<'m> {
    lists: Lists<'m, 1>,
    evictions: Evictions,
}

impl<'m> Fifo<'m> {
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

impl Replacement for Fifo<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        self.evictions.arrival(shadow)
    }

    fn insert(&mut self, frame: FrameIx, _: Arrival) {
        if frame.0 < self.lists.members() && !self.contains(frame) {
            self.lists.push_back(QUEUE, frame.0);
        }
    }

    fn touch(&mut self, _: FrameIx) {}

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        let mut looks = Looks::new(bits, self.len());
        loop {
            let frame = self.lists.front(QUEUE)?;
            if looks.at(frame)? == Look::Held {
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
