//! Ghosts: nodes behind those of the frames, for pages that are gone but remembered.
//!
//! ```text
//!   evict:   free --> slot 17, stamp = time --> list of ghosts      Shadow { slot: 17, time }
//!                                                  | dropped, or used again: another stamp, or free
//!   arrive:  slot 17 on a list of ghosts, and its stamp is the shadow's? remembered; otherwise not
//! ```
//!
//! The page's identity is where the shadow lies, so that nothing is hashed and nothing searched, and
//! the queues are exactly those of the papers, removal from their middle included.
//!
//! # Invariants
//!
//! - A ghost's stamp is the time of its page's eviction. Times are counted by [`Evictions`] and differ
//!   from each other until the count wraps.

use crate::lists::Lists;
use crate::replacement::{Arrival, Shadow};

/// Counts evictions: the clock of shadows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evictions(u32);

impl Evictions {
    /// The time of one more.
    pub(crate) const fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }

    /// Whether there has been none yet.
    pub(crate) const fn none(self) -> bool {
        self.0 == 0
    }

    /// A shadow of one more, whose page is not remembered.
    pub(crate) const fn shadow(&mut self) -> Shadow {
        Shadow { slot: Shadow::NO_SLOT, time: self.next() }
    }

    /// Evictions since that one.
    pub(crate) const fn since(self, shadow: Shadow) -> u32 {
        self.0.wrapping_sub(shadow.time)
    }

    /// What can be said by a policy that remembers nobody.
    pub(crate) fn arrival(self, shadow: Option<Shadow>) -> Arrival {
        Arrival { ghost: None, distance: shadow.map(|shadow| self.since(shadow)) }
    }
}

impl<const K: usize> Lists<'_, K> {
    /// Puts all members from `frames` on into the list of free ghosts.
    pub(crate) fn free_ghosts(&mut self, free: u8, frames: u32) {
        (frames..self.members()).for_each(|slot| self.push_back(free, slot));
    }

    /// A new ghost at the back of `list`. If there is no free one, the oldest of that list goes.
    pub(crate) fn bury(&mut self, list: u8, free: u8, time: u32) -> Shadow {
        let Some(slot) = self.front(free).or_else(|| self.front(list)) else {
            return Shadow { slot: Shadow::NO_SLOT, time };
        };
        self.move_to_list(list, slot);
        self.set_stamp(slot, time);
        Shadow { slot, time }
    }

    /// Frees the ghost that the shadow speaks of, if there still is one on a list that `wanted` names;
    /// tells the list.
    pub(crate) fn exhume(
        &mut self,
        shadow: Shadow,
        frames: u32,
        free: u8,
        wanted: impl FnOnce(u8) -> bool,
    ) -> Option<u8> {
        let Shadow { slot, time } = shadow;
        let list = self.list(slot).filter(|_| slot >= frames)?;
        if !wanted(list) || self.stamp(slot) != time {
            return None;
        }
        self.move_to_list(free, slot);
        Some(list)
    }

    /// Frees the oldest ghost of a list.
    pub(crate) fn drop_oldest(&mut self, list: u8, free: u8) {
        if let Some(slot) = self.front(list) {
            self.move_to_list(free, slot);
        }
    }
}
