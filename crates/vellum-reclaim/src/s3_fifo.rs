//! S3-FIFO: a small queue where one-time pages pass through, a main one, and a queue of ghosts.
//!
//! ```text
//!                    +-- small, 10% --+  uses < 2   +-- ghosts, 90% --+
//!   insert, fresh -->|  .  .  .  .  . |------------>|  .  .  .  .  .  |--> forgotten
//!                    +----------------+   victim    +-----------------+
//!                         | uses >= 2                    | comes back
//!                         v                              v
//!                    +------------- main, 90% ---------------+  no use
//!              +---->|  .  .  .  .  .  .  .  .  .  .  .  .  .|--------> victim
//!              |     +---------------------------------------+
//!              +---------------- uses, less one -----+
//! ```
//!
//! Two bits a frame count uses up to 3; they are 0 again after the move to main.
//!
//! With accessed bits, each look that finds one counts as a use, and a page in the small queue that was
//! used goes round there until a second look: the first bit that is found is that of the fault which
//! brought the page, and says nothing.
//!
//! Source: J. Yang and others, "FIFO queues are all you need for cache eviction", SOSP 2023; sizes and
//! thresholds as in its libCacheSim.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{self, Look, Looks, Search};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

const SMALL: u8 = 0;
const MAIN: u8 = 1;
const GHOSTS: u8 = 2;
const FREE: u8 = 3;

/// The flags are a counter of uses.
const USE: u32 = 1 << 16;
const MOST_USES: u32 = 3 * USE;
/// So many move a page from the small queue to the main one.
const ENOUGH: u32 = 2 * USE;

/// S3-FIFO. About 31 bytes a frame.
#[derive(Debug)]
pub struct S3Fifo<'m> {
    lists: Lists<'m, 4>,
    frames: u32,
    evictions: Evictions,
}

impl<'m> S3Fifo<'m> {
    /// Nodes for so many frames, and their ghosts.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        Lists::<4>::cells(frames as usize + Self::most_ghosts(frames))
    }

    const fn most_ghosts(frames: u32) -> usize {
        (frames as u64 * 9 / 10) as usize
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

    /// Frames that the main queue may have before it has to give one.
    const fn main_share(&self) -> u32 {
        self.frames - self.frames / 10
    }

    fn count_use(&mut self, frame: u32) {
        let uses = self.lists.flags(frame);
        if uses < MOST_USES && self.lists.list(frame).is_some() {
            self.lists.set_flags(frame, uses + USE);
        }
    }

    fn take(&mut self, frame: u32) -> Victim {
        let shadow = if self.lists.is_on(SMALL, frame) {
            self.lists.bury(GHOSTS, FREE, self.evictions.next())
        } else {
            self.evictions.shadow()
        };
        self.lists.unlink(frame);
        Victim { frame: FrameIx(frame), shadow }
    }

    /// The small queue's oldest moves on, goes round, or is to go.
    fn pass_small(&mut self, frame: u32, look: Look) -> Option<Victim> {
        if look == Look::Used {
            self.count_use(frame);
        }
        if self.lists.flags(frame) >= ENOUGH {
            self.lists.set_flags(frame, 0);
            self.lists.move_to_list(MAIN, frame);
            return None;
        }
        if look != Look::Idle {
            self.lists.move_to_back(SMALL, frame);
            return None;
        }
        Some(self.take(frame))
    }

    /// The main queue's oldest goes round with a use less, or is to go.
    fn pass_main(&mut self, frame: u32, look: Look) -> Option<Victim> {
        if look == Look::Used {
            self.count_use(frame);
        }
        let uses = self.lists.flags(frame);
        if uses == 0 && look == Look::Idle {
            return Some(self.take(frame));
        }
        self.lists.set_flags(frame, uses.saturating_sub(USE));
        self.lists.move_to_back(MAIN, frame);
        None
    }
}

impl Search for S3Fifo<'_> {
    fn search<B: AccessedBits>(&mut self, looks: &mut Looks<'_, B>) -> Option<Victim> {
        // Settled once: what moves meanwhile may fill the main queue beyond its share.
        let is_mains = self.lists.len(MAIN) > self.main_share();
        loop {
            let victim = if is_mains || self.lists.len(SMALL) == 0 {
                let frame = self.lists.front(MAIN)?;
                self.pass_main(frame, looks.at(frame)?)
            } else {
                let frame = self.lists.front(SMALL)?;
                self.pass_small(frame, looks.at(frame)?)
            };
            if victim.is_some() {
                return victim;
            }
        }
    }

    fn shadow(&mut self) -> Shadow {
        self.evictions.shadow()
    }

    fn frames(&self) -> u32 {
        self.frames
    }
}

impl Replacement for S3Fifo<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        let ghost =
            shadow.and_then(|it| self.lists.exhume(it, self.frames, FREE, |list| list == GHOSTS));
        Arrival { ghost, ..self.evictions.arrival(shadow) }
    }

    fn insert(&mut self, frame: FrameIx, arrival: Arrival) {
        if frame.0 < self.frames && !self.contains(frame) {
            self.lists.push_back(if arrival.is_remembered() { MAIN } else { SMALL }, frame.0);
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        if frame.0 < self.frames {
            self.count_use(frame.0);
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
        self.lists.len(SMALL) + self.lists.len(MAIN)
    }

    fn ghosts(&self) -> u32 {
        self.lists.len(GHOSTS)
    }
}
