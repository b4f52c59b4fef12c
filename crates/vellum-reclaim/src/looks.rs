//! How often a search for a victim may look.
//!
//! ```text
//!   n frames:  |<---- 5n + 8 looks as the bits say ---->|<- 3n more: accessed or not ->| none
//! ```
//!
//! Bits may be set again while a hand goes round. A search that would go on for ever takes what is not
//! held, and one that finds all held ends.
//!
//! A policy of several lists may come back to one of them again and again though all on it are held.
//! [`victim`] takes any frame at all then, without a ghost.

use crate::replacement::{AccessedBits, FrameIx, Replacement, Shadow, Victim};

/// What a look says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It can go.
    Idle,
    /// It was accessed.
    Used,
    /// It cannot go.
    Held,
}

/// The looks of one search.
pub(crate) struct Looks<'b, B> {
    bits: &'b mut B,
    left: u64,
    /// From so many on accessed bits do not count.
    hurry: u64,
    /// What the last look said of dirty bits.
    pub(crate) is_dirty: bool,
}

impl<'b, B: AccessedBits> Looks<'b, B> {
    pub(crate) const fn new(bits: &'b mut B, frames: u32) -> Self {
        let n = frames as u64;
        Self { bits, left: 8 * n + 8, hurry: 3 * n, is_dirty: false }
    }

    /// Looks; `None` once the search has to end.
    pub(crate) fn at(&mut self, frame: u32) -> Option<Look> {
        self.left = self.left.checked_sub(1)?;
        let seen = self.bits.take(FrameIx(frame));
        self.is_dirty = seen.is_dirty;
        Some(match seen.is_held {
            true => Look::Held,
            false if seen.is_accessed && self.left >= self.hurry => Look::Used,
            false => Look::Idle,
        })
    }

    /// Looks at one that is not to go, and tells whether it was accessed. Does not look once the search is
    /// in a hurry.
    pub(crate) fn was_accessed(&mut self, frame: u32) -> bool {
        if self.left <= self.hurry {
            return false;
        }
        self.left -= 1;
        self.bits.take(FrameIx(frame)).is_accessed
    }

    pub(crate) fn write_back(&mut self, frame: u32) {
        self.bits.write_back(FrameIx(frame));
    }

    pub(crate) const fn bits(&mut self) -> &mut B {
        self.bits
    }
}

/// A policy whose search may end too early.
pub(crate) trait Search: Replacement {
    /// As the paper says, by looks.
    fn search<B: AccessedBits>(&mut self, looks: &mut Looks<'_, B>) -> Option<Victim>;

    /// The shadow of one more eviction, without a ghost.
    fn shadow(&mut self) -> Shadow;

    /// Frames that there may be.
    fn frames(&self) -> u32;
}

/// A victim by the policy's search, or else the first frame that is not held.
pub(crate) fn victim<S: Search>(policy: &mut S, bits: &mut impl AccessedBits) -> Option<Victim> {
    let found = policy.search(&mut Looks::new(bits, policy.len()));
    if found.is_some() || policy.is_empty() {
        return found;
    }
    let mut all = (0..policy.frames()).map(FrameIx);
    let frame = all.find(|&frame| policy.contains(frame) && !bits.take(frame).is_held)?;
    policy.remove(frame);
    Some(Victim { frame, shadow: policy.shadow() })
}
