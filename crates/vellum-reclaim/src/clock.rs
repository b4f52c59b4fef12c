//! CLOCK: a hand sweeps the frames, by number, and takes the first that was not referenced since it came
//! by last.
//!
//! ```text
//!             hand
//!               v
//!   present   1 1 1 1 0 1 1 1        64 frames a pair of words, so that a sweep
//!   ref       0 1 1 0 0 0 1 0        over referenced ones is one AND
//!               ^~~ ^
//!         cleared   taken; the hand waits behind it
//! ```
//!
//! A frame's place on the clock is its number, as in the kernels that had it first. Where each page comes
//! into the frame that was just taken this is [`SecondChance`](crate::SecondChance).
//!
//! # Invariants
//!
//! - A frame that is not present is not referenced.
//!
//! Costs: `victim` is O(1) for each 64 frames passed by.
//!
//! Source: F. J. Corbató, "A paging experiment with the Multics system", MIT Project MAC, 1968.

use crate::ghosts::Evictions;
use crate::looks::{Look, Looks};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

/// Frames of a pair of words.
const EACH: u32 = u64::BITS;

/// A clock over the frames. Two bits a frame.
#[derive(Debug)]
pub struct Clock<'m> {
    /// Pairs: present, referenced.
    words: &'m mut [u64],
    frames: u32,
    len: u32,
    /// The frame that it looks at next.
    hand: u32,
    evictions: Evictions,
}

impl<'m> Clock<'m> {
    /// Words for so many frames.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        2 * frames.div_ceil(EACH) as usize
    }

    /// One without frames. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`], as [`Policy::over`](crate::Policy::over) says.
    pub fn new(frames: u32, words: &'m mut [u64]) -> Result<Self, SizeError> {
        SizeError::check(frames, Self::cells(frames), words.len())?;
        words.fill(0);
        Ok(Self { words, frames, len: 0, hand: 0, evictions: Evictions::default() })
    }

    /// The pair of words that has the frame.
    fn pair(&mut self, frame: u32) -> Option<&mut [u64; 2]> {
        let first = 2 * (frame / EACH) as usize;
        self.words.get_mut(first..first + 2)?.try_into().ok()
    }

    /// Clears referenced bits from the hand to the next frame that has none, and moves the hand there.
    /// The policy has frames.
    fn sweep(&mut self) -> Option<u32> {
        // Once to clear, once to find, and once more for the word that it began in the middle of.
        for _ in 0..=self.words.len() {
            let hand = self.hand;
            let ahead = u64::MAX << (hand % EACH);
            let [present, referenced] = self.pair(hand)?;
            let idle = *present & !*referenced & ahead;
            if idle != 0 {
                *referenced &= !(ahead & (idle & idle.wrapping_neg()).wrapping_sub(1));
                self.hand = hand - hand % EACH + idle.trailing_zeros();
                return Some(self.hand);
            }
            *referenced &= !ahead;
            let next = hand - hand % EACH + EACH;
            self.hand = if next < self.frames { next } else { 0 };
        }
        None
    }
}

impl Replacement for Clock<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        self.evictions.arrival(shadow)
    }

    fn insert(&mut self, frame: FrameIx, _: Arrival) {
        if frame.0 >= self.frames || self.contains(frame) {
            return;
        }
        if let Some([present, _]) = self.pair(frame.0) {
            *present |= 1 << (frame.0 % EACH);
            self.len += 1;
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        if let Some([present, referenced]) = self.pair(frame.0) {
            *referenced |= *present & (1 << (frame.0 % EACH));
        }
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        let mut looks = Looks::new(bits, self.len);
        loop {
            let frame = self.sweep()?;
            let look = looks.at(frame)?;
            self.hand = if frame + 1 < self.frames { frame + 1 } else { 0 };
            if look == Look::Idle {
                self.remove(FrameIx(frame));
                return Some(Victim { frame: FrameIx(frame), shadow: self.evictions.shadow() });
            }
        }
    }

    fn remove(&mut self, frame: FrameIx) {
        let bit = 1 << (frame.0 % EACH);
        if let Some([present, referenced]) = self.pair(frame.0) {
            let had = *present & bit != 0;
            *present &= !bit;
            *referenced &= !bit;
            self.len -= u32::from(had);
        }
    }

    fn contains(&self, frame: FrameIx) -> bool {
        let word = self.words.get(2 * (frame.0 / EACH) as usize);
        word.is_some_and(|present| present & (1 << (frame.0 % EACH)) != 0)
    }

    fn len(&self) -> u32 {
        self.len
    }
}
