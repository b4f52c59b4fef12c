//! ARC: two LRU lists, pages seen once and pages seen again, whose shares its ghosts decide.
//!
//! ```text
//!        ghosts seen once     seen once        seen again      ghosts seen again
//!      <--------- B1 ------|------ T1 ------|------ T2 ------|------ B2 --------->
//!                                        ^
//!                            |T1| aims at p: a page that comes back
//!                            from B1 says "longer", from B2 "shorter"
//!
//!   |T1| + |B1| <= c      |T1| + |T2| <= c      all four <= 2 c
//! ```
//!
//! The paper drops old ghosts before it makes room; here `insert` does, with the same result: a page of
//! T1 that leaves when B1 is empty becomes a ghost there, and is dropped when the next comes.
//!
//! With accessed bits, the first that is found in T1 is that of the fault which brought the page, and
//! sends it round once; the second moves it to T2.
//!
//! # Invariants
//!
//! - The three bounds above hold after each `insert`, where victims make room only when there is none.
//!   There are never more ghosts than frames and one.
//!
//! Source: N. Megiddo and D. Modha, "ARC: a self-tuning, low overhead replacement cache", FAST 2003, fig. 4.

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

/// ARC. 32 bytes a frame.
#[derive(Debug)]
pub struct Arc<'m> {
    lists: Lists<'m, 5>,
    frames: u32,
    /// The share of T1 that it aims at: p.
    aim: u32,
    /// The page that is expected was in B2.
    comes_from_b2: bool,
    evictions: Evictions,
}

impl<'m> Arc<'m> {
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
        let evictions = Evictions::default();
        Ok(Self { lists, frames, aim: 0, comes_from_b2: false, evictions })
    }

    /// The list that gives a frame: the paper's REPLACE.
    fn giver(&self) -> u8 {
        let (once, again) = (self.lists.len(T1), self.lists.len(T2));
        let is_over = once > self.aim || (self.comes_from_b2 && once == self.aim);
        if once > 0 && (is_over || again == 0) { T1 } else { T2 }
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

impl Search for Arc<'_> {
    fn search<B: AccessedBits>(&mut self, looks: &mut Looks<'_, B>) -> Option<Victim> {
        loop {
            let list = self.giver();
            let frame = self.lists.front(list)?;
            match looks.at(frame)? {
                Look::Idle => {
                    let ghosts = if list == T1 { B1 } else { B2 };
                    let shadow = self.lists.bury(ghosts, FREE, self.evictions.next());
                    self.lists.unlink(frame);
                    return Some(Victim { frame: FrameIx(frame), shadow });
                }
                Look::Used if !self.lists.has(frame, FRESH) => self.lists.move_to_list(T2, frame),
                Look::Used => {
                    self.lists.lower(frame, FRESH);
                    self.lists.move_to_back(list, frame);
                }
                Look::Held => self.lists.move_to_back(list, frame),
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

impl Replacement for Arc<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        let (once, again) = (self.lists.len(B1), self.lists.len(B2));
        let is_ghosts = |list| list == B1 || list == B2;
        let ghost = shadow.and_then(|it| self.lists.exhume(it, self.frames, FREE, is_ghosts));
        // Each list has the page itself, if it is the one.
        match ghost {
            Some(B1) => self.aim = (self.aim + (again / once.max(1)).max(1)).min(self.frames),
            Some(_) => self.aim = self.aim.saturating_sub((once / again.max(1)).max(1)),
            None => {}
        }
        self.comes_from_b2 = ghost == Some(B2);
        Arrival { ghost, ..self.evictions.arrival(shadow) }
    }

    fn insert(&mut self, frame: FrameIx, arrival: Arrival) {
        if frame.0 >= self.frames || self.contains(frame) {
            return;
        }
        if arrival.is_remembered() {
            self.lists.push_back(T2, frame.0);
        } else {
            self.lists.push_back(T1, frame.0);
            self.lists.raise(frame.0, FRESH);
            self.trim();
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        if frame.0 < self.frames {
            self.lists.move_to_list(T2, frame.0);
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
