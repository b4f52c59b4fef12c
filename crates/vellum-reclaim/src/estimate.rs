//! How large the working set is: ages of frames since their last use, by a scan once a tick.
//!
//! ```text
//!   tick                1    2    3    4          age, saturating
//!   frame 0  accessed   x    x    .    x          0
//!   frame 1             x    .    .    .          3
//!   frame 2             .    .    .    .          - (absent)
//!
//!   histogram  [0]: 1   [1]: 0   [2]: 0   [3]: 1        used within 2 ticks: 1 frame
//! ```
//!
//! W(t, tau) for every tau at once: what was used within the last tau ticks. The rest of the histogram
//! says how much memory is cold, and for how long.
//!
//! # Invariants
//!
//! - The histogram's sum is the number of present frames.
//!
//! Costs: `tick` is O(frames), all else O(1) or O(ticks).
//!
//! Source: P. Denning, "The working set model for program behavior", CACM 11 (5), 1968; the histogram as in
//! A. Lagar-Cavilla and others, "Software-defined far memory in warehouse-scale computers", ASPLOS 2019.

use crate::replacement::{AccessedBits, FrameIx, SizeError};

/// Ages up to this are told apart.
pub const MOST_AGE: u8 = 254;

/// A frame that is not there.
const ABSENT: u8 = u8::MAX;

/// Ages of frames. One byte a frame, and 2 KiB.
#[derive(Debug)]
pub struct Ages<'m> {
    ages: &'m mut [u8],
    histogram: [u32; 255],
    frames: u32,
}

impl<'m> Ages<'m> {
    /// Bytes for so many frames.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        frames as usize
    }

    /// All absent. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`] if there are no frames, too many, or not exactly as many bytes.
    pub fn new(frames: u32, ages: &'m mut [u8]) -> Result<Self, SizeError> {
        SizeError::check(frames, Self::cells(frames), ages.len())?;
        ages.fill(ABSENT);
        Ok(Self { ages, histogram: [0; 255], frames: 0 })
    }

    fn set(&mut self, frame: FrameIx, age: u8) {
        let Some(cell) = self.ages.get_mut(frame.index()) else { return };
        let old = core::mem::replace(cell, age);
        if let Some(count) = self.histogram.get_mut(usize::from(old)) {
            *count -= 1;
            self.frames -= 1;
        }
        if let Some(count) = self.histogram.get_mut(usize::from(age)) {
            *count += 1;
            self.frames += 1;
        }
    }

    /// A page is in the frame now, and was used.
    pub fn insert(&mut self, frame: FrameIx) {
        self.set(frame, 0);
    }

    /// The frame is free.
    pub fn remove(&mut self, frame: FrameIx) {
        self.set(frame, ABSENT);
    }

    /// Ages every frame by one, but for those that were accessed.
    pub fn tick(&mut self, bits: &mut impl AccessedBits) {
        let mut histogram = [0; 255];
        for (frame, age) in (0..).map(FrameIx).zip(self.ages.iter_mut()) {
            if *age == ABSENT {
                continue;
            }
            let older = (*age + 1).min(MOST_AGE);
            *age = if bits.take(frame).is_accessed { 0 } else { older };
            if let Some(count) = histogram.get_mut(usize::from(*age)) {
                *count += 1;
            }
        }
        self.histogram = histogram;
    }

    /// Frames that were used in one of the last `ticks` ticks, or came since: the working set's size.
    #[must_use]
    pub fn used_within(&self, ticks: u8) -> u32 {
        self.histogram.iter().take(usize::from(ticks)).sum()
    }

    /// Frames that were not, with more than `ticks` ticks at all: cold memory.
    #[must_use]
    pub fn idle_for(&self, ticks: u8) -> u32 {
        self.frames - self.used_within(ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replacement::Seen;

    #[test]
    fn frames_age_until_they_are_used_or_gone() {
        let mut bytes = [0; 4];
        let mut ages = Ages::new(4, &mut bytes).unwrap();
        (0..3).for_each(|frame| ages.insert(FrameIx(frame)));
        ages.insert(FrameIx(9));
        let mut only = |used: u32| {
            ages.tick(&mut |frame: FrameIx| Seen {
                is_accessed: frame.0 == used,
                ..Seen::default()
            });
            (ages.used_within(1), ages.used_within(2), ages.idle_for(2))
        };
        assert_eq!(only(0), (1, 3, 0));
        assert_eq!(only(1), (1, 2, 1));
        assert_eq!(only(3), (0, 1, 2));
        for _ in 0..600 {
            assert_eq!(only(0).0, 1);
        }
        assert_eq!((ages.used_within(MOST_AGE), ages.idle_for(MOST_AGE)), (1, 2));
        ages.remove(FrameIx(2));
        ages.remove(FrameIx(2));
        assert_eq!((ages.used_within(1), ages.idle_for(1)), (1, 1));
    }
}
