//! CAR: ARC with two clocks in the place of its LRU lists, so that a hit sets a bit and moves nothing.
//!
//! ```text
//!                        T1, seen once                     T2, seen again
//!   insert, fresh --> [ . . . x . . ] --referenced--> [ . x . . . x . ] <--+
//!                       |                                 |                | referenced:
//!                       v not referenced                  v not referenced | cleared, round
//!      B1 <-- victim, if |T1| >= max(1, p)   otherwise: victim --> B2   ---+
//!        |                                                          |
//!        `--- comes back: p grows, to T2    comes back: p shrinks --'
//! ```
//!
//! With accessed bits, the first that is found in T1 is that of the fault which brought the page, and
//! sends it round once; the second moves it to T2.
//!
//! # Invariants
//!
//! - As ARC's: |T1| + |B1| <= c, and all four lists have 2 c pages at most.
//!
//! Source: S. Bansal and D. Modha, "CAR: Clock with Adaptive Replacement", FAST 2004, fig. 2.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{self, Look, Looks, Search};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

const T1: u8 = 0;
const T2: u8 = 1;
const B1: u8 = 2;
const B2: u8 = 3;
const FREE: u8 = 4;

/// Flag in T1: no accessed bit was found since its fault.
const FRESH: u32 = 1 << 16;
/// Flag: referenced since the hand came by.
const REFERENCED: u32 = 1 << 17;

/// CAR. 32 bytes a frame.
#[derive(Debug)]
pub struct Car<'m> {
    lists: Lists<'m, 5>,
    frames: u32,
    /// The share of T1 that it aims at: p.
    aim: u32,
    evictions: Evictions,
}

impl<'m> Car<'m> {
    /// Nodes for so many frames, and their ghosts.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        Lists::<5>::cells(2 * frames as usize + 1)
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
        Ok(Self { lists, frames, aim: 0, evictions: Evictions::default() })
    }

    /// Moves p for a page that comes back from that list of ghosts, which it has left already.
    fn adapt(&mut self, ghosts: u8) {
        let (once, again) = (self.lists.len(B1), self.lists.len(B2));
        if ghosts == B1 {
            self.aim = (self.aim + (again / (once + 1)).max(1)).min(self.frames);
        } else {
            self.aim = self.aim.saturating_sub((once / (again + 1)).max(1));
        }
    }

    /// Drops ghosts that are beyond the bounds.
    fn trim(&mut self) {
        let c = self.frames;
        while self.lists.len(T1) + self.lists.len(B1) > c && self.lists.len(B1) > 0 {
            self.lists.drop_oldest(B1, FREE);
        }
        while self.len() + self.ghosts() > 2 * c && self.lists.len(B2) > 0 {
            self.lists.drop_oldest(B2, FREE);
        }
    }
}

impl Search for Car<'_> {
    fn search<B: AccessedBits>(&mut self, looks: &mut Looks<'_, B>) -> Option<Victim> {
        loop {
            let (once, again) = (self.lists.len(T1), self.lists.len(T2));
            let list = if once >= self.aim.max(1) || again == 0 { T1 } else { T2 };
            let frame = self.lists.front(list)?;
            let look = looks.at(frame)?;
            let is_fault = look == Look::Used && list == T1 && self.lists.has(frame, FRESH);
            let is_used = (look == Look::Used && !is_fault) || self.lists.has(frame, REFERENCED);
            if look == Look::Idle && !is_used {
                let ghosts = if list == T1 { B1 } else { B2 };
                let shadow = self.lists.bury(ghosts, FREE, self.evictions.next());
                self.lists.unlink(frame);
                return Some(Victim { frame: FrameIx(frame), shadow });
            }
            self.lists.lower(frame, REFERENCED | if is_fault { FRESH } else { 0 });
            self.lists.move_to_list(if is_used { T2 } else { list }, frame);
        }
    }

    fn shadow(&mut self) -> Shadow {
        self.evictions.shadow()
    }

    fn frames(&self) -> u32 {
        self.frames
    }
}

impl Replacement for Car<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        let is_ghosts = |list| list == B1 || list == B2;
        let ghost = shadow.and_then(|it| self.lists.exhume(it, self.frames, FREE, is_ghosts));
        Arrival { ghost, ..self.evictions.arrival(shadow) }
    }

    fn insert(&mut self, frame: FrameIx, arrival: Arrival) {
        if frame.0 >= self.frames || self.contains(frame) {
            return;
        }
        if let Some(ghosts) = arrival.ghost {
            self.adapt(ghosts);
            self.lists.push_back(T2, frame.0);
        } else {
            self.lists.push_back(T1, frame.0);
            self.lists.raise(frame.0, FRESH);
            self.trim();
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        if frame.0 < self.frames {
            self.lists.raise(frame.0, REFERENCED);
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
        self.lists.len(T1) + self.lists.len(T2)
    }

    fn ghosts(&self) -> u32 {
        self.lists.len(B1) + self.lists.len(B2)
    }
}
