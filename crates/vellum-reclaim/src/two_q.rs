//! 2Q: a queue that pages seen once pass through, and LRU for those that come back.
//!
//! ```text
//!                  +---- in: FIFO, 25% ----+          +-- out: ghosts, 50% --+
//!   insert, fresh->|  .  .  .  .  .  .  .  |--victim->|  .  .  .  .  .  .  . |--> forgotten
//!                  +-----------------------+          +----------------------+
//!                     a hit here: nothing                    | comes back
//!                                                            v
//!                         +------------- main: LRU ---------------+
//!                         |  .  .  .  .  .  .  .  .  .  .  .  .   |--> victim, no ghost
//!                         +---------------------------------------+
//! ```
//!
//! References soon after the first are taken for one: a hit in the queue does nothing, and its accessed
//! bits are not asked for. The full version of the paper, with its sizes.
//!
//! Source: T. Johnson and D. Shasha, "2Q: a low overhead high performance buffer management replacement
//! algorithm", VLDB 1994.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{self, Look, Looks, Search};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

const IN: u8 = 0;
const MAIN: u8 = 1;
const OUT: u8 = 2;
const FREE: u8 = 3;

/// 2Q. 24 bytes a frame.
#[derive(Debug)]
pub struct TwoQ<'m> {
    lists: Lists<'m, 4>,
    frames: u32,
    evictions: Evictions,
}

impl<'m> TwoQ<'m> {
    /// Nodes for so many frames, and their ghosts.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        Lists::<4>::cells(frames as usize + Self::most_ghosts(frames))
    }

    const fn most_ghosts(frames: u32) -> usize {
        if frames < 2 { 1 } else { frames as usize / 2 }
    }

    /// One without frames. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`], as [`Policy::over`](crate::Policy::over) says.
    pub fn new(frames: u32, nodes: &'m mut [Node]) -> Result<Self, SizeError> {
        SizeError::check(frames, Self::cells(frames), nodes.len())?;
        let mut lists = Lists::new(nodes);
        lists.free_ghosts(FREE, frames);
        Ok(Self { lists, frames, evictions: Evictions::default() })
    }

    /// Frames that the queue may keep.
    const fn in_share(&self) -> u32 {
        if self.frames < 4 { 1 } else { self.frames / 4 }
    }

    /// The next that could go, and its list.
    fn candidate(&self) -> Option<(u8, u32)> {
        let list = match (self.lists.len(IN), self.lists.len(MAIN)) {
            (queued, main) if queued > self.in_share() || main == 0 => IN,
            _ => MAIN,
        };
        Some((list, self.lists.front(list)?))
    }
}

impl Search for TwoQ<'_> {
    fn search<B: AccessedBits>(&mut self, looks: &mut Looks<'_, B>) -> Option<Victim> {
        loop {
            let (list, frame) = self.candidate()?;
            let look = looks.at(frame)?;
            if look == Look::Held || (look == Look::Used && list == MAIN) {
                self.lists.move_to_back(list, frame);
                continue;
            }
            self.lists.unlink(frame);
            let shadow = match list {
                IN => self.lists.bury(OUT, FREE, self.evictions.next()),
                _ => self.evictions.shadow(),
            };
            return Some(Victim { frame: FrameIx(frame), shadow });
        }
    }

    fn shadow(&mut self) -> Shadow {
        self.evictions.shadow()
    }

    fn frames(&self) -> u32 {
        self.frames
    }
}

impl Replacement for TwoQ<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        let ghost =
            shadow.and_then(|it| self.lists.exhume(it, self.frames, FREE, |list| list == OUT));
        Arrival { ghost, ..self.evictions.arrival(shadow) }
    }

    fn insert(&mut self, frame: FrameIx, arrival: Arrival) {
        if frame.0 < self.frames && !self.contains(frame) {
            self.lists.push_back(if arrival.is_remembered() { MAIN } else { IN }, frame.0);
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        if self.lists.is_on(MAIN, frame.0) {
            self.lists.move_to_back(MAIN, frame.0);
        }
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        looks::victim(self, bits)
    }

    fn remove(&mut self, frame: FrameIx) {
        if frame.0 < self.frames {
            self.lists.unlink(frame.0);
        }
    }

    fn contains(&self, frame: FrameIx) -> bool {
        frame.0 < self.frames && self.lists.list(frame.0).is_some()
    }

    fn len(&self) -> u32 {
        self.lists.len(IN) + self.lists.len(MAIN)
    }

    fn ghosts(&self) -> u32 {
        self.lists.len(OUT)
    }
}
