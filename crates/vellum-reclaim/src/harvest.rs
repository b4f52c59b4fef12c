//! Bits by frame, as a batch left them: what a pass over page tables writes and a policy takes.
//!
//! ```text
//!   PageTable::harvest(range, clear accessed) --span--> set_accessed(frame) ..    one flush for all
//!                                                             |
//!   accessed  1 0 0 1 ...   three words for 64 frames         v
//!   dirty     0 0 0 1 ...                              policy.victim(&mut harvest)
//!   held      0 1 0 0 ...
//! ```
//!
//! A reverse map that is asked frame by frame is an [`AccessedBits`] of its own, without this.

use crate::replacement::{AccessedBits, FrameIx, Seen, SizeError};

const EACH: u32 = u64::BITS;

/// Accessed, dirty and held bits of a dense range of frames. Three bits a frame.
#[derive(Debug)]
pub struct Harvest<'m> {
    words: &'m mut [u64],
}

impl<'m> Harvest<'m> {
    /// Words for so many frames.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        3 * frames.div_ceil(EACH) as usize
    }

    /// No bit is set. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`] if there are no frames, too many, or not exactly [`cells`](Self::cells) words.
    pub fn new(frames: u32, words: &'m mut [u64]) -> Result<Self, SizeError> {
        SizeError::check(frames, Self::cells(frames), words.len())?;
        words.fill(0);
        Ok(Self { words })
    }

    fn word(&mut self, frame: FrameIx, which: usize) -> Option<&mut u64> {
        self.words.get_mut(3 * (frame.0 / EACH) as usize + which)
    }

    const fn bit(frame: FrameIx) -> u64 {
        1 << (frame.0 % EACH)
    }

    /// Some mapping of the frame had its accessed bit set.
    pub fn set_accessed(&mut self, frame: FrameIx) {
        if let Some(word) = self.word(frame, 0) {
            *word |= Self::bit(frame);
        }
    }

    /// Whether its page would have to be written.
    pub fn set_dirty(&mut self, frame: FrameIx, is_dirty: bool) {
        self.assign(frame, 1, is_dirty);
    }

    /// Whether it has to stay.
    pub fn set_held(&mut self, frame: FrameIx, is_held: bool) {
        self.assign(frame, 2, is_held);
    }

    fn assign(&mut self, frame: FrameIx, which: usize, is_set: bool) {
        if let Some(word) = self.word(frame, which) {
            *word = (*word & !Self::bit(frame)) | if is_set { Self::bit(frame) } else { 0 };
        }
    }

    fn is_set(&mut self, frame: FrameIx, which: usize) -> bool {
        self.word(frame, which).is_some_and(|word| *word & Self::bit(frame) != 0)
    }
}

impl AccessedBits for Harvest<'_> {
    fn take(&mut self, frame: FrameIx) -> Seen {
        let seen = Seen {
            is_accessed: self.is_set(frame, 0),
            is_dirty: self.is_set(frame, 1),
            is_held: self.is_set(frame, 2),
        };
        self.assign(frame, 0, false);
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accessed_is_taken_once_and_the_others_stay() {
        let mut words = [u64::MAX; Harvest::cells(70)];
        let mut harvest = Harvest::new(70, &mut words).unwrap();
        let (a, b) = (FrameIx(3), FrameIx(69));
        harvest.set_accessed(b);
        harvest.set_dirty(b, true);
        harvest.set_held(a, true);
        harvest.set_accessed(FrameIx(900));
        let all = Seen { is_accessed: true, is_dirty: true, is_held: false };
        assert_eq!(harvest.take(b), all);
        assert_eq!(harvest.take(b), Seen { is_accessed: false, ..all });
        assert_eq!(harvest.take(a), Seen { is_held: true, ..Seen::default() });
        harvest.set_held(a, false);
        assert_eq!(harvest.take(a), Seen::default());
        assert_eq!(harvest.take(FrameIx(900)), Seen::default());
    }
}
