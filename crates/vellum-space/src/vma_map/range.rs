//! A range of whole pages.
//!
//! ```text
//!   0                                                                       2^64
//!   |      |      |######|######|######|      |      |      |      |      |##|
//!                 ^ first              ^ end, a page number             end = 2^52
//! ```
//!
//! Kept as page numbers, both ends of which fit 64 bits with room to spare: the range that holds the
//! last page of all has the end 2<sup>52</sup>, though its end as an address would not fit.
//!
//! # Invariants
//!
//! - `first < end <= 2^52`: no range is empty.

use core::fmt;
use vellum_core::{Cause, PAGE_SHIFT, PAGE_SIZE, VirtAddr, Vpn};

/// One past the last page number.
const PAGES: u64 = 1 << (64 - PAGE_SHIFT);

/// Pages from a first to a last one, at least one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange {
    first: u64,
    end: u64,
}

impl PageRange {
    /// All pages of 64 bits.
    pub const ALL: Self = Self { first: 0, end: PAGES };

    /// `len` bytes from `start`.
    ///
    /// # Errors
    ///
    /// [`Cause::Misaligned`] for the start, then for the length, where it is no multiple of 4 KiB or
    /// 0; [`Cause::Wraps`].
    pub const fn new(start: VirtAddr, len: u64) -> Result<Self, Cause> {
        if !start.is_aligned(PAGE_SHIFT) {
            return Err(Cause::Misaligned { value: start.as_u64(), page: PAGE_SHIFT });
        }
        if len == 0 || !len.is_multiple_of(PAGE_SIZE) {
            return Err(Cause::Misaligned { value: len, page: PAGE_SHIFT });
        }
        match Self::pages(start.number(), len >> PAGE_SHIFT) {
            Some(range) => Ok(range),
            None => Err(Cause::Wraps { va: start, len }),
        }
    }

    /// `count` pages from `first` on, unless that is none, or passes the last one.
    #[must_use]
    pub const fn pages(first: Vpn, count: u64) -> Option<Self> {
        let first = first.as_u64();
        if count == 0 || count > PAGES - first {
            return None;
        }
        Some(Self { first, end: first + count })
    }

    /// The pages that have a byte between `first` and `last`, both counted; `None` where `last` is
    /// below `first`.
    #[must_use]
    pub const fn touching(first: VirtAddr, last: VirtAddr) -> Option<Self> {
        let (first, last) = (first.number().as_u64(), last.number().as_u64());
        if last < first { None } else { Some(Self { first, end: last + 1 }) }
    }

    /// From one page number to another; the caller sees to the invariant.
    pub(super) const fn raw(first: u64, end: u64) -> Self {
        Self { first, end }
    }

    pub(super) const fn first_page(self) -> u64 {
        self.first
    }

    pub(super) const fn end_page(self) -> u64 {
        self.end
    }

    /// The address of the first byte.
    #[must_use]
    pub const fn start(self) -> VirtAddr {
        VirtAddr::new(self.first << PAGE_SHIFT)
    }

    /// The address of the last byte.
    #[must_use]
    pub const fn last(self) -> VirtAddr {
        VirtAddr::new(((self.end - 1) << PAGE_SHIFT) + (PAGE_SIZE - 1))
    }

    /// The address behind the last byte; `None` where that is 2<sup>64</sup>.
    #[must_use]
    pub const fn end(self) -> Option<VirtAddr> {
        if self.end == PAGES { None } else { Some(VirtAddr::new(self.end << PAGE_SHIFT)) }
    }

    /// How many pages: 1 to 2<sup>52</sup>.
    #[must_use]
    pub const fn count_pages(self) -> u64 {
        self.end - self.first
    }

    /// How many bytes; `None` for [`ALL`](Self::ALL), whose 2<sup>64</sup> do not fit.
    #[must_use]
    pub const fn len_bytes(self) -> Option<u64> {
        if self.count_pages() == PAGES { None } else { Some(self.count_pages() << PAGE_SHIFT) }
    }

    /// Whether the byte at `va` is in it.
    #[must_use]
    pub const fn contains(self, va: VirtAddr) -> bool {
        let page = va.number().as_u64();
        self.first <= page && page < self.end
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.end <= self.end
    }

    /// The pages that both have.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Option<Self> {
        let first = if self.first > other.first { self.first } else { other.first };
        let end = if self.end < other.end { self.end } else { other.end };
        if first < end { Some(Self { first, end }) } else { None }
    }

    /// What lies below `va` and what lies from it on; `None` where one of them would be empty, or
    /// where `va` is no multiple of 4 KiB.
    #[must_use]
    pub const fn split_at(self, va: VirtAddr) -> Option<(Self, Self)> {
        let page = va.number().as_u64();
        if !va.is_aligned(PAGE_SHIFT) || page <= self.first || page >= self.end {
            return None;
        }
        Some((Self { end: page, ..self }, Self { first: page, ..self }))
    }
}

/// As `0x1000..=0x1fff`: the first and the last byte.
impl fmt::Debug for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start(), self.last())
    }
}

impl fmt::Display for PageRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST_PAGE: VirtAddr = VirtAddr::new(0xffff_ffff_ffff_f000);

    #[test]
    fn the_last_page_is_a_range_without_an_end() {
        let range = PageRange::new(LAST_PAGE, PAGE_SIZE).unwrap();
        assert_eq!((range.end(), range.last()), (None, VirtAddr::new(u64::MAX)));
        assert!(range.contains(VirtAddr::new(u64::MAX)));
        assert_eq!(range.len_bytes(), Some(PAGE_SIZE));
        assert_eq!(PageRange::ALL.len_bytes(), None);
        assert!(PageRange::ALL.covers(range));
    }

    #[test]
    fn what_is_no_range_is_refused_with_the_reason() {
        let wraps = Err(Cause::Wraps { va: LAST_PAGE, len: 2 * PAGE_SIZE });
        assert_eq!(PageRange::new(LAST_PAGE, 2 * PAGE_SIZE), wraps);
        let misaligned = |value| Err(Cause::Misaligned { value, page: PAGE_SHIFT });
        assert_eq!(PageRange::new(VirtAddr::new(8), PAGE_SIZE), misaligned(8));
        assert_eq!(PageRange::new(VirtAddr::new(0), 0), misaligned(0));
        assert_eq!(PageRange::new(VirtAddr::new(0), 100), misaligned(100));
        assert_eq!(PageRange::touching(VirtAddr::new(0x5000), VirtAddr::new(0x4fff)), None);
    }

    #[test]
    fn a_split_has_both_parts_or_none() {
        let range = PageRange::new(VirtAddr::new(0x1000), 0x3000).unwrap();
        let (left, right) = range.split_at(VirtAddr::new(0x2000)).unwrap();
        assert_eq!(
            (left.end(), left.count_pages(), right.count_pages()),
            (Some(right.start()), 1, 2)
        );
        for outside in [0, 0x1000, 0x2800, 0x4000] {
            assert_eq!(range.split_at(VirtAddr::new(outside)), None, "{outside:#x}");
        }
        assert_eq!(left.intersection(right), None);
        assert_eq!(range.intersection(PageRange::ALL), Some(range));
        let text = std::format!("{range}");
        assert_eq!(text, "0x1000..=0x3fff");
    }
}
