//! Where everything lies in the metadata: one slice of words, cut up once.
//!
//! ```text
//!   +-------------+------+----+---+-----------+-----+----+----+---------------+
//!   | level 0     | 1    | 2  | 3 | hints 0   | 1   | 2  | 3  | region table  |
//!   +-------------+------+----+---+-----------+-----+----+----+---------------+
//!     1 bit/frame   1/64                1/57 bit/frame          16 bytes each
//! ```
//!
//! Together 1.04 bits for each frame between the first and the last usable one, holes included
//! (`metadata_takes_1_04_bits_a_frame` in the tests). Levels begin at the word of the first frame,
//! not at frame 0, so memory that lies high costs no more.

use crate::bits::{WORD_BITS, WORD_ORDER};
use crate::hint::{self, Hints};
use crate::level::Level;
use crate::range::PhysRange;
use crate::sync::AtomicU64;
use crate::tree::LEVELS;

/// The frames and the number of ranges that metadata is to be made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// The first usable frame.
    pub(crate) first: u64,
    /// One more than the last usable frame.
    pub(crate) end: u64,
    /// At most so many regions.
    pub(crate) regions: u64,
}

/// The slice, cut up.
#[derive(Debug)]
pub(crate) struct Parts<'m> {
    pub(crate) levels: [Level<'m>; LEVELS],
    pub(crate) table: &'m [AtomicU64],
}

/// log2 of the frames under one bit of `level`.
const fn shift_of(level: usize) -> u8 {
    level as u8 * WORD_ORDER
}

impl Shape {
    /// The shape for the usable frames of `usable`; `None` if there are none.
    pub(crate) fn survey<U, R>(usable: U, reserved: R) -> Option<Self>
    where
        U: IntoIterator<Item: Into<PhysRange>>,
        R: IntoIterator<Item: Into<PhysRange>>,
    {
        // A reservation splits at most one region in two; one more is for metadata carved out.
        let mut shape = Self { first: u64::MAX, end: 0, regions: 1 };
        for range in usable {
            let (first, end) = range.into().frames_inside();
            if first < end {
                shape.first = shape.first.min(first);
                shape.end = shape.end.max(end);
                shape.regions += 1;
            }
        }
        shape.regions = shape.regions.saturating_add(reserved.into_iter().count() as u64);
        (shape.first < shape.end).then_some(shape)
    }

    /// The number of the first word of `level`, and how many it has.
    const fn level(&self, level: usize) -> (u64, u64) {
        let shift = shift_of(level) + WORD_ORDER;
        let first = self.first >> shift;
        (first, ((self.end - 1) >> shift) - first + 1)
    }

    /// Words of metadata in all: less than 2^48 for the frames of any map, `u64::MAX` if the
    /// regions take more than there can be.
    pub(crate) const fn words(&self) -> u64 {
        let mut words = self.regions.saturating_mul(2);
        let mut level = 0;
        while level < LEVELS {
            let (_, len) = self.level(level);
            words = words.saturating_add(len + hint::words_for(level, len));
            level += 1;
        }
        words
    }

    /// Cuts up `storage`; `None` if it is too short.
    pub(crate) fn cut<'m>(&self, storage: &'m [AtomicU64]) -> Option<Parts<'m>> {
        let mut left = storage;
        let mut cut = |len: u64| {
            let (part, rest) = left.split_at_checked(usize::try_from(len).ok()?)?;
            left = rest;
            Some(part)
        };
        let mut levels = [None; LEVELS];
        for (level, slot) in levels.iter_mut().enumerate() {
            let (first, len) = self.level(level);
            *slot = Some((first, cut(len)?));
        }
        let mut parts = [const { None }; LEVELS];
        for (level, slot) in parts.iter_mut().enumerate() {
            let (first, words) = levels[level]?;
            let hints = cut(hint::words_for(level, words.len() as u64))?;
            let hints = Hints::new(hints, level, words.len())?;
            *slot = Some(Level::new(shift_of(level), first, words, hints));
        }
        let [Some(l0), Some(l1), Some(l2), Some(l3)] = parts else { return None };
        Some(Parts { levels: [l0, l1, l2, l3], table: cut(self.regions.checked_mul(2)?)? })
    }
}

/// How many words of storage are enough for any memory map whose usable frames all lie in a span of
/// `frames` frames, and which has at most `ranges` ranges, usable and reserved together.
///
/// It is for sizing a `static` array; [`InitError::NoRoom`](crate::InitError::NoRoom) and
/// [`FrameAllocator::words_needed`](crate::FrameAllocator::words_needed) say what one map takes.
/// `usize::MAX` where the number would not fit.
///
/// The allocator must be the only one to write to that array from
/// [`init_in`](crate::FrameAllocator::init_in) on, so nobody else should be able to name it.
///
/// ```
/// use core::sync::atomic::AtomicU64;
/// use vellum_frame::storage_words;
///
/// // Up to 64 MiB, up to 32 ranges: 3.5 KiB.
/// static STORAGE: [AtomicU64; storage_words(64 << 20 >> 12, 32)] =
///     [const { AtomicU64::new(0) }; storage_words(64 << 20 >> 12, 32)];
/// assert!(STORAGE.len() * 8 < 3800);
/// ```
#[must_use]
pub const fn storage_words(frames: u64, ranges: usize) -> usize {
    // The worst start for a level is one frame before a word ends; it is so for all levels at once.
    let frames = if frames > 1 << 52 { 1 << 52 } else { frames };
    let first = (WORD_BITS << shift_of(LEVELS - 1)) - 1;
    let end = if frames == 0 { first + 1 } else { first + frames };
    let words = Shape { first, end, regions: (ranges as u64).saturating_add(1) }.words();
    if words > usize::MAX as u64 { usize::MAX } else { words as usize }
}
