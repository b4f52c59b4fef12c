//! The bytes of one frame, as those see them who fill, copy and save pages.
//!
//! ```text
//!   frame   |0      8      16                                     4088|
//!           | word | word | word |  ...                         | word |
//!              ^ each is loaded and stored whole, as an atomic of relaxed order
//! ```
//!
//! A page that is mapped may be written by any program while it is read here: a file's page that is
//! being saved, say. So there is never a slice over it, and every access goes by words; what is
//! read beside a writer is some mixture of old and new words, as it is on any machine.
//!
//! # Invariants
//!
//! - Whoever has a `FrameBytes` may read and write the frame while it lasts.

use crate::PAGE_SIZE;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes in a word.
const WORD: usize = size_of::<u64>();
/// Words in a frame.
const WORDS: usize = FRAME / WORD;
/// Bytes in a frame.
#[allow(clippy::as_conversions, clippy::cast_possible_truncation, reason = "4096 fits any usize")]
const FRAME: usize = PAGE_SIZE as usize;

/// The 4 KiB of one frame; see the [module](self).
///
/// ```
/// use core::sync::atomic::AtomicU64;
/// use vellum_core::FrameBytes;
///
/// let frame = [const { AtomicU64::new(0) }; 512];
/// let bytes = FrameBytes::of(&frame);
/// bytes.write(4093, b"end, and what does not fit");
/// let mut back = [0; 5];
/// bytes.read(4091, &mut back);
/// assert_eq!(&back, b"\0\0end");
/// ```
#[derive(Clone, Copy)]
pub struct FrameBytes<'a> {
    words: NonNull<AtomicU64>,
    frame: PhantomData<&'a AtomicU64>,
}

impl<'a> FrameBytes<'a> {
    /// The frame at `start`.
    ///
    /// # Safety
    ///
    /// For `'a`, `start` is valid for reads and writes of 4 KiB and aligned to 8 bytes, and nobody
    /// reads or writes these bytes but atomically, or from outside of this program (hardware, or
    /// what runs in user mode).
    #[must_use]
    #[allow(unsafe_code, reason = "the caller's word is all there is for what a pointer reaches")]
    pub const unsafe fn new(start: NonNull<u8>) -> Self {
        Self { words: start.cast(), frame: PhantomData }
    }

    /// The frame that these words are: a buffer that pages are read into before they have a frame.
    #[must_use]
    #[allow(unsafe_code, reason = "words of a frame lie behind a pointer, not in a slice")]
    pub fn of(words: &'a [AtomicU64; WORDS]) -> Self {
        // SAFETY: 4 KiB of atomics, aligned to 8 bytes, which live for 'a, and which nobody can reach
        // but as atomics while they are borrowed.
        unsafe { Self::new(NonNull::from(words).cast()) }
    }

    fn word(self, index: usize) -> &'a AtomicU64 {
        debug_assert!(index < WORDS);
        let index = index % WORDS;
        // SAFETY: below 512 words, so within the 4 KiB that `new` was promised for 'a, aligned, and
        // touched by nobody but atomically.
        #[allow(unsafe_code, reason = "words of a frame lie behind a pointer, not in a slice")]
        unsafe {
            self.words.add(index).as_ref()
        }
    }

    /// Copies bytes from `offset` on into `to`; what would lie behind the frame's end is left as it is.
    pub fn read(self, offset: usize, to: &mut [u8]) {
        let len = to.len().min(FRAME.saturating_sub(offset));
        let mut at = offset;
        let mut rest = to.get_mut(..len).unwrap_or_default();
        while !rest.is_empty() {
            let bytes = self.word(at / WORD).load(Relaxed).to_ne_bytes();
            let skip = at % WORD;
            let take = rest.len().min(WORD - skip);
            let (now, later) = rest.split_at_mut(take);
            now.copy_from_slice(bytes.get(skip..skip + take).unwrap_or_default());
            rest = later;
            at += take;
        }
    }

    /// Copies `from` to `offset` and on; what would lie behind the frame's end is left out.
    ///
    /// Of a word that is only partly written, the rest is written back as it was read.
    pub fn write(self, offset: usize, from: &[u8]) {
        let len = from.len().min(FRAME.saturating_sub(offset));
        let mut at = offset;
        let mut rest = from.get(..len).unwrap_or_default();
        while !rest.is_empty() {
            let word = self.word(at / WORD);
            let skip = at % WORD;
            let take = rest.len().min(WORD - skip);
            let (now, later) = rest.split_at(take);
            let mut bytes = if take == WORD { [0; WORD] } else { word.load(Relaxed).to_ne_bytes() };
            if let Some(part) = bytes.get_mut(skip..skip + take) {
                part.copy_from_slice(now);
            }
            word.store(u64::from_ne_bytes(bytes), Relaxed);
            rest = later;
            at += take;
        }
    }

    /// Makes every byte from `offset` on 0.
    pub fn zero_from(self, offset: usize) {
        let first_whole = offset.div_ceil(WORD);
        if !offset.is_multiple_of(WORD) {
            self.write(offset, [0; WORD].get(offset % WORD..).unwrap_or_default());
        }
        for index in first_whole..WORDS {
            self.word(index).store(0, Relaxed);
        }
    }

    /// Copies the whole frame from another.
    pub fn copy_from(self, other: FrameBytes<'_>) {
        for index in 0..WORDS {
            self.word(index).store(other.word(index).load(Relaxed), Relaxed);
        }
    }
}

impl fmt::Debug for FrameBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FrameBytes").field(&self.words).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn frame(fill: u8) -> [AtomicU64; WORDS] {
        core::array::from_fn(|_| AtomicU64::new(u64::from_ne_bytes([fill; WORD])))
    }

    #[allow(unsafe_code, reason = "a test makes the frame itself")]
    fn bytes(frame: &[AtomicU64; WORDS]) -> FrameBytes<'_> {
        // SAFETY: 4 KiB of atomics that are borrowed for as long as the result.
        unsafe { FrameBytes::new(NonNull::from(frame).cast()) }
    }

    fn all(bytes: FrameBytes<'_>) -> Vec<u8> {
        let mut out = std::vec![0; FRAME];
        bytes.read(0, &mut out);
        out
    }

    proptest::proptest! {
        #![proptest_config(crate::proptest_config())]

        #[test]
        fn reads_what_was_written_and_leaves_the_rest(
            offset in 0usize..5000, data in proptest::collection::vec(1u8..255, 0..40), zero in 0usize..5000,
        ) {
            let frame = frame(7);
            let bytes = bytes(&frame);
            let mut model = std::vec![7u8; FRAME];
            bytes.write(offset, &data);
            for (i, &byte) in data.iter().enumerate() {
                if let Some(slot) = model.get_mut(offset + i) {
                    *slot = byte;
                }
            }
            assert_eq!(all(bytes), model);
            let mut some = std::vec![9; data.len()];
            bytes.read(offset, &mut some);
            for (i, &byte) in some.iter().enumerate() {
                assert_eq!(byte, model.get(offset + i).copied().unwrap_or(9));
            }
            bytes.zero_from(zero);
            model.iter_mut().skip(zero).for_each(|byte| *byte = 0);
            assert_eq!(all(bytes), model);
        }
    }

    #[test]
    fn a_copy_is_the_whole_frame() {
        let (one, other) = (frame(1), frame(2));
        bytes(&one).write(100, b"here");
        bytes(&other).copy_from(bytes(&one));
        assert_eq!(all(bytes(&other)), all(bytes(&one)));
    }
}
