//! NRU: not recently used, four classes by two bits.
//!
//! ```text
//!   class      0        1        2        3           tick: all R cleared
//!   R, M       0 0      0 1      1 0      1 1
//!              ^ goes first; within a class the first from a hand on
//!
//!   present 1 1 0 1 ...   R 0 1 0 1 ...   M 0 0 0 1 ...      three words for 64 frames
//! ```
//!
//! Bits are taken from the machine at ticks, and of a candidate just before it would go: one that was
//! accessed meanwhile is of another class by then. The book picks at random within a class; a hand
//! does as well, and can be repeated.
//!
//! # Invariants
//!
//! - A frame that is not present has neither R nor M.
//!
//! Costs: `victim` is O(frames / 64) and `tick` O(frames).
//!
//! Source: A. S. Tanenbaum and H. Bos, Modern Operating Systems, 4th edition, 3.4.2.

use crate::ghosts::Evictions;
use crate::looks::{Look, Looks};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

const EACH: u32 = u64::BITS;

/// Not recently used. Three bits a frame.
#[derive(Debug)]
pub struct Nru<'m> {
    /// Threes: present, R, M.
    words: &'m mut [u64],
    frames: u32,
    len: u32,
    hand: u32,
    evictions: Evictions,
}

impl<'m> Nru<'m> {
    /// Words for so many frames.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        3 * frames.div_ceil(EACH) as usize
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

    fn three(&mut self, frame: u32) -> Option<&mut [u64; 3]> {
        let first = 3 * (frame / EACH) as usize;
        self.words.get_mut(first..first + 3)?.try_into().ok()
    }

    /// Those of a word's frames that are of this class.
    fn of_class(&mut self, class: u8, frame: u32) -> u64 {
        let Some(&mut [present, referenced, modified]) = self.three(frame) else {
            return 0;
        };
        let referenced = if class & 2 == 0 { !referenced } else { referenced };
        let modified = if class & 1 == 0 { !modified } else { modified };
        present & referenced & modified
    }

    /// Notes what the machine says; whether the frame may go as one of this class.
    fn is_still(&mut self, class: u8, frame: u32, look: Look, is_dirty: bool) -> bool {
        let bit = 1 << (frame % EACH);
        if let Some([_, referenced, modified]) = self.three(frame) {
            *referenced |= if look == Look::Used { bit } else { 0 };
            *modified = (*modified & !bit) | if is_dirty { bit } else { 0 };
        }
        look != Look::Held && self.of_class(class, frame) & bit != 0
    }

    /// The first of a class that may go, once round from the hand. `Err` when the looks are used up.
    fn search<B: AccessedBits>(
        &mut self,
        class: u8,
        looks: &mut Looks<'_, B>,
    ) -> Result<Option<u32>, ()> {
        let (hand, words) = (self.hand, self.frames.div_ceil(EACH));
        for step in 0..=words {
            let first = (hand / EACH + step) % words * EACH;
            let ahead = u64::MAX << (hand % EACH);
            // The hand's word comes first from the hand on, and last up to it.
            let part = match step {
                0 => ahead,
                _ if step == words => !ahead,
                _ => u64::MAX,
            };
            let mut found = self.of_class(class, first) & part;
            while found != 0 {
                let frame = first + found.trailing_zeros();
                let look = looks.at(frame).ok_or(())?;
                if self.is_still(class, frame, look, looks.is_dirty) {
                    return Ok(Some(frame));
                }
                found &= found - 1;
            }
        }
        Ok(None)
    }
}

impl Replacement for Nru<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        self.evictions.arrival(shadow)
    }

    fn insert(&mut self, frame: FrameIx, _: Arrival) {
        if frame.0 >= self.frames || self.contains(frame) {
            return;
        }
        if let Some([present, referenced, _]) = self.three(frame.0) {
            *present |= 1 << (frame.0 % EACH);
            // The fault was a reference.
            *referenced |= 1 << (frame.0 % EACH);
            self.len += 1;
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        if let Some([present, referenced, _]) = self.three(frame.0) {
            *referenced |= *present & (1 << (frame.0 % EACH));
        }
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        let mut looks = Looks::new(bits, self.len);
        for class in 0..4 {
            if let Some(frame) = self.search(class, &mut looks).ok()? {
                self.remove(FrameIx(frame));
                self.hand = if frame + 1 < self.frames { frame + 1 } else { 0 };
                return Some(Victim { frame: FrameIx(frame), shadow: self.evictions.shadow() });
            }
        }
        None
    }

    fn remove(&mut self, frame: FrameIx) {
        let bit = 1 << (frame.0 % EACH);
        if let Some(three) = self.three(frame.0) {
            let had = three[0] & bit != 0;
            three.iter_mut().for_each(|word| *word &= !bit);
            self.len -= u32::from(had);
        }
    }

    fn tick(&mut self, bits: &mut impl AccessedBits) {
        for (first, three) in (0..).step_by(EACH as usize).zip(self.words.chunks_exact_mut(3)) {
            let [present, referenced, modified] = three else { continue };
            *referenced = 0;
            let mut left = *present;
            while left != 0 {
                let bit = left & left.wrapping_neg();
                let seen = bits.take(FrameIx(first + left.trailing_zeros()));
                *modified = (*modified & !bit) | if seen.is_dirty { bit } else { 0 };
                left &= left - 1;
            }
        }
    }

    fn contains(&self, frame: FrameIx) -> bool {
        let word = self.words.get(3 * (frame.0 / EACH) as usize);
        word.is_some_and(|present| present & (1 << (frame.0 % EACH)) != 0)
    }

    fn len(&self) -> u32 {
        self.len
    }
}
