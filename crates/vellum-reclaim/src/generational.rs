//! Generations, as Linux's multi-generational LRU: the oldest goes, and whoever was accessed is young.
//!
//! ```text
//!   oldest                              youngest
//!   [ min ]     [ . ]     [ . ]     [ max ] <-- insert
//!      |                               ^
//!      +--- accessed, by a look -------+
//!      |
//!      `--> victim
//!
//!   aging, when only two generations are left, or by the clock: max + 1 is made, and all frames that
//!   were accessed are labelled with it. A labelled frame moves when eviction comes to it.
//! ```
//!
//! The two youngest generations are never taken from, so that each page has the time between two agings
//! to be used again. Linux's tiers, its Bloom filters and its feedback loop are for files read
//! by system calls and for walks of huge tables, and are left out.
//!
//! # Invariants
//!
//! - There are 2 to 4 generations, `min..=max`. A frame's label is one of them, and is not older than the
//!   list that it is on.
//!
//! Costs: aging is O(frames), once a generation.
//!
//! Source: Linux, Documentation/mm/multigen_lru.rst; Y. Zhao, "Multi-Gen LRU", LSF/MM 2022.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{Look, Looks};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

/// Lists, and the most generations.
const MOST: usize = 4;

/// The generations that are not taken from.
const PROTECTED: u32 = 2;

/// How often a search may ask for everybody's bits. Where all are held it would do so for each.
const AGINGS: u32 = 3;

/// Flags: the generation, modulo [`MOST`].
const LABEL_SHIFT: u32 = 16;
const LABEL: u32 = 3 << LABEL_SHIFT;
/// Flag: referenced since it was looked at.
const REFERENCED: u32 = 1 << 18;

/// Generations. 16 bytes a frame.
#[derive(Debug)]
pub struct Generational<'m> {
    lists: Lists<'m, MOST>,
    min: u32,
    max: u32,
    evictions: Evictions,
}

const fn list_of(generation: u32) -> u8 {
    (generation % MOST as u32) as u8
}

impl<'m> Generational<'m> {
    /// Nodes for so many frames.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        Lists::<MOST>::cells(frames as usize)
    }

    /// One without frames. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`], as [`Policy::over`](crate::Policy::over) says.
    pub fn new(frames: u32, nodes: &'m mut [Node]) -> Result<Self, SizeError> {
        SizeError::check(frames, Self::cells(frames), nodes.len())?;
        let (min, max) = (0, PROTECTED - 1);
        Ok(Self { lists: Lists::new(nodes), min, max, evictions: Evictions::default() })
    }

    /// How many generations there are.
    #[must_use]
    pub const fn generations(&self) -> u32 {
        self.max.wrapping_sub(self.min) + 1
    }

    /// Frames on the list of each generation, from the oldest. A frame that was accessed since its list
    /// was made may be counted for an older one than it belongs to.
    pub fn sizes(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.generations()).map(|n| self.lists.len(list_of(self.min.wrapping_add(n))))
    }

    fn label(&self, frame: u32) -> u8 {
        ((self.lists.flags(frame) & LABEL) >> LABEL_SHIFT) as u8
    }

    /// Labels it with the youngest generation, and clears its referenced flag.
    fn rejuvenate(&mut self, frame: u32) {
        self.lists.set_flags(frame, u32::from(list_of(self.max)) << LABEL_SHIFT);
    }

    /// Makes a generation, of nobody. There must be fewer than [`MOST`].
    const fn open(&mut self) {
        self.max = self.max.wrapping_add(1);
    }

    /// Makes a generation, of what was accessed. There must be fewer than [`MOST`].
    fn age(&mut self, bits: &mut impl AccessedBits) {
        self.open();
        for frame in 0..self.lists.members() {
            if self.lists.list(frame).is_none() {
                continue;
            }
            // Both are asked: a bit that stayed set would speak of the wrong time.
            let is_accessed = bits.take(FrameIx(frame)).is_accessed;
            if is_accessed || self.lists.has(frame, REFERENCED) {
                self.rejuvenate(frame);
            }
        }
    }

    /// The oldest generation's list is empty: the next is the oldest.
    const fn expire(&mut self) {
        self.min = self.min.wrapping_add(1);
    }
}

impl Replacement for Generational<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        self.evictions.arrival(shadow)
    }

    fn insert(&mut self, frame: FrameIx, _: Arrival) {
        if frame.0 < self.lists.members() && !self.contains(frame) {
            self.lists.push_back(list_of(self.max), frame.0);
            self.rejuvenate(frame.0);
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        self.lists.raise(frame.0, REFERENCED);
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        let mut looks = Looks::new(bits, self.len());
        let mut agings = 0;
        while !self.is_empty() {
            if self.generations() <= PROTECTED {
                agings += 1;
                if agings <= AGINGS {
                    self.age(looks.bits());
                } else {
                    self.open();
                }
            }
            let oldest = list_of(self.min);
            let Some(frame) = self.lists.front(oldest) else {
                self.expire();
                continue;
            };
            let label = self.label(frame);
            if label != oldest {
                self.lists.move_to_list(label, frame);
                continue;
            }
            let look = looks.at(frame)?;
            if look != Look::Idle || self.lists.has(frame, REFERENCED) {
                self.rejuvenate(frame);
                self.lists.move_to_list(list_of(self.max), frame);
                continue;
            }
            self.lists.unlink(frame);
            return Some(Victim { frame: FrameIx(frame), shadow: self.evictions.shadow() });
        }
        None
    }

    fn remove(&mut self, frame: FrameIx) {
        self.lists.unlink(frame.0);
    }

    fn tick(&mut self, bits: &mut impl AccessedBits) {
        if self.generations() < MOST as u32 {
            self.age(bits);
        }
    }

    fn contains(&self, frame: FrameIx) -> bool {
        self.lists.list(frame.0).is_some()
    }

    fn len(&self) -> u32 {
        (0..MOST as u8).map(|list| self.lists.len(list)).sum()
    }
}
