//! A stretch of physical memory as a boot loader reports it: bytes, any alignment, maybe empty.
//!
//! ```text
//!   bytes            ....[==========================]....
//!   frames       |-------|-------|-------|-------|-------|
//!   inside               |#######|#######|#######|              usable: rounded inward
//!   touched      |#######|#######|#######|#######|#######|      reserved: rounded outward
//! ```
//!
//! So a frame is dealt out only if every byte of it is usable and none is reserved.
//!
//! # Invariants
//!
//! - The range is `start..=last`; it is empty exactly if `start > last`. The inclusive end lets it
//!   reach the last byte of the 64-bit space.

use core::ops::{Range, RangeInclusive};
use vellum_core::{PAGE_SHIFT, PhysAddr};

/// A range of physical bytes; made from `(start, end)` or `start..end` with an exclusive end, or
/// from `start..=last`. Zero-length and inverted ranges are empty.
///
/// ```
/// use vellum_frame::PhysRange;
///
/// assert_eq!(PhysRange::from((0x1000, 0x3000)), PhysRange::from(0x1000..=0x2fff));
/// assert!(PhysRange::from((0x3000, 0x1000)).is_empty());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PhysRange {
    start: u64,
    last: u64,
}

impl PhysRange {
    const EMPTY: Self = Self { start: 1, last: 0 };

    /// The bytes from `start` up to, not including, `end`.
    #[must_use]
    pub const fn new(start: u64, end: u64) -> Self {
        if start >= end { Self::EMPTY } else { Self { start, last: end - 1 } }
    }

    /// The `len` bytes from `start`, cut off at the end of the 64-bit space.
    #[must_use]
    pub const fn with_len(start: u64, len: u64) -> Self {
        match len {
            0 => Self::EMPTY,
            _ => Self { start, last: start.saturating_add(len - 1) },
        }
    }

    /// The first byte and the last; empty if the range is.
    #[must_use]
    pub const fn bytes(self) -> RangeInclusive<u64> {
        self.start..=self.last
    }

    /// The part of it that lies in `other`: what a zone below 16 MiB has of a memory map, say.
    ///
    /// ```
    /// use vellum_frame::PhysRange;
    ///
    /// let low = PhysRange::new(0, 16 << 20);
    /// let usable = PhysRange::new(0x10_0000, 0x8000_0000);
    /// assert_eq!(usable.within(low), PhysRange::new(0x10_0000, 16 << 20));
    /// ```
    #[must_use]
    pub const fn within(self, other: Self) -> Self {
        let start = if self.start > other.start { self.start } else { other.start };
        let last = if self.last < other.last { self.last } else { other.last };
        if self.is_empty() || other.is_empty() || start > last {
            return Self::EMPTY;
        }
        Self { start, last }
    }

    /// Whether the range has no byte.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.start > self.last
    }

    /// The frame numbers that lie wholly inside, first and end.
    pub(crate) const fn frames_inside(self) -> (u64, u64) {
        if self.is_empty() {
            return (0, 0);
        }
        let mask = (1 << PAGE_SHIFT) - 1;
        let first = (self.start >> PAGE_SHIFT) + (self.start & mask != 0) as u64;
        let end = (self.last >> PAGE_SHIFT) + (self.last & mask == mask) as u64;
        if first < end { (first, end) } else { (0, 0) }
    }

    /// The frame numbers of which at least one byte lies inside, first and end.
    pub(crate) const fn frames_touched(self) -> (u64, u64) {
        if self.is_empty() {
            return (0, 0);
        }
        (self.start >> PAGE_SHIFT, (self.last >> PAGE_SHIFT) + 1)
    }
}

impl PartialEq for PhysRange {
    fn eq(&self, other: &Self) -> bool {
        (self.is_empty() && other.is_empty())
            || (self.start == other.start && self.last == other.last)
    }
}

impl Eq for PhysRange {}

impl From<(u64, u64)> for PhysRange {
    fn from((start, end): (u64, u64)) -> Self {
        Self::new(start, end)
    }
}

impl From<&(u64, u64)> for PhysRange {
    fn from(&(start, end): &(u64, u64)) -> Self {
        Self::new(start, end)
    }
}

impl From<(PhysAddr, PhysAddr)> for PhysRange {
    fn from((start, end): (PhysAddr, PhysAddr)) -> Self {
        Self::new(start.as_u64(), end.as_u64())
    }
}

impl From<Range<u64>> for PhysRange {
    fn from(range: Range<u64>) -> Self {
        Self::new(range.start, range.end)
    }
}

impl From<&Range<u64>> for PhysRange {
    fn from(range: &Range<u64>) -> Self {
        Self::new(range.start, range.end)
    }
}

impl From<RangeInclusive<u64>> for PhysRange {
    fn from(range: RangeInclusive<u64>) -> Self {
        let (start, last) = range.into_inner();
        if start > last { Self::EMPTY } else { Self { start, last } }
    }
}

impl From<&Self> for PhysRange {
    fn from(range: &Self) -> Self {
        *range
    }
}

#[cfg(test)]
mod tests {
    use super::PhysRange;

    #[test]
    fn usable_rounds_inward_and_reserved_outward() {
        let range = PhysRange::from((0x1001, 0x3fff));
        assert_eq!(range.frames_inside(), (2, 3));
        assert_eq!(range.frames_touched(), (1, 4));
        let exact = PhysRange::from(0x1000..0x3000);
        assert_eq!(exact.frames_inside(), (1, 3));
        assert_eq!(exact.frames_touched(), (1, 3));
    }

    #[test]
    fn a_range_within_one_frame_has_no_usable_frame_and_reserves_one() {
        let range = PhysRange::from((0x1800, 0x1801));
        assert_eq!(range.frames_inside(), (0, 0));
        assert_eq!(range.frames_touched(), (1, 2));
    }

    #[test]
    fn empty_and_inverted_ranges_touch_nothing() {
        #[allow(clippy::reversed_empty_ranges, reason = "inverted ranges are the point")]
        for range in [(5, 5).into(), (9, 5).into(), PhysRange::with_len(7, 0), (9..=5).into()] {
            assert!(PhysRange::is_empty(range));
            assert_eq!(range.frames_inside(), (0, 0));
            assert_eq!(range.frames_touched(), (0, 0));
        }
    }

    #[test]
    fn the_last_frame_of_the_address_space_can_be_named() {
        let last = (1u64 << 52) - 1;
        for range in [
            PhysRange::from(u64::MAX - 0xfff..=u64::MAX),
            PhysRange::with_len(u64::MAX - 0xfff, 0x1000),
            PhysRange::with_len(u64::MAX - 0xfff, u64::MAX),
        ] {
            assert_eq!(range.frames_inside(), (last, last + 1));
            assert_eq!(range.frames_touched(), (last, last + 1));
        }
        assert_eq!(PhysRange::from(0..=u64::MAX).frames_inside(), (0, last + 1));
        assert_eq!(PhysRange::from((0, u64::MAX)).frames_inside(), (0, last));
    }

    #[test]
    fn what_lies_within_another_is_in_both() {
        let range = PhysRange::from(0x1000..=0x4fff);
        for (other, want) in [
            (0..=u64::MAX, 0x1000..=0x4fff),
            (0x2000..=0x2fff, 0x2000..=0x2fff),
            (0..=0x1000, 0x1000..=0x1000),
            (0x4fff..=u64::MAX, 0x4fff..=0x4fff),
        ] {
            assert_eq!(range.within(other.clone().into()).bytes(), want);
            assert_eq!(PhysRange::from(other).within(range).bytes(), want);
        }
        for other in [PhysRange::EMPTY, (0..0x1000).into(), (0x5000..0x6000).into()] {
            assert!(range.within(other).is_empty() && other.within(range).is_empty());
        }
    }
}
