//! Which frames are the allocator's to give: a sorted table of disjoint, non-touching stretches.
//!
//! ```text
//!            first                                             end
//!              |  region 0  |           |   region 1   | region 2
//!   -----------[############)-----------[##############)---[####)----------
//!   OutOfRange               Reserved                  Reserved   OutOfRange
//! ```
//!
//! The table tells a free of a reserved frame from a double free, and costs 16 bytes a region where
//! a second bitmap would cost a bit a frame. It is written before the allocator is published, and
//! only read from then on.
//!
//! # Invariants
//!
//! - Starts ascend, and there is a gap between two regions: a block of frames that are all ours
//!   lies in one region.

use crate::sync::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// The table: `[start, end)` pairs of frame numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Regions<'m> {
    /// Two words for each region.
    table: &'m [AtomicU64],
    /// The first frame of all and the end of the last.
    bounds: (u64, u64),
    /// Frames in all regions.
    total: u64,
    /// The first frame of the largest region, and how many it has: the one that nearly all
    /// questions are about.
    largest: (u64, u64),
}

/// What the table says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ownership {
    Ours,
    /// This frame is the first that is not ours, between two that are.
    Reserved(u64),
    OutOfRange,
}

impl<'m> Regions<'m> {
    /// The regions in `table`, `total` frames in all.
    pub(crate) fn new(table: &'m [AtomicU64], total: u64) -> Self {
        let bounds = match (table.first(), table.last()) {
            (Some(first), Some(end)) => (first.load(Relaxed), end.load(Relaxed)),
            _ => (0, 0),
        };
        let regions = Self { table, bounds, total, largest: (0, 0) };
        let lengths = (0..regions.count()).map(|index| {
            let (start, end) = regions.get(index);
            (start, end - start)
        });
        let largest = lengths.max_by_key(|&(_, len)| len).unwrap_or((0, 0));
        Self { largest, ..regions }
    }

    /// Frames in all regions.
    pub(crate) const fn total(&self) -> u64 {
        self.total
    }

    fn count(&self) -> usize {
        self.table.len() / 2
    }

    fn get(&self, index: usize) -> (u64, u64) {
        (self.table[2 * index].load(Relaxed), self.table[2 * index + 1].load(Relaxed))
    }

    /// The first frame of all and the end of the last.
    pub(crate) const fn bounds(&self) -> (u64, u64) {
        self.bounds
    }

    /// Whether frame `pfn` is in the largest region, and so ours.
    #[inline]
    pub(crate) fn largest_has(&self, pfn: u64) -> bool {
        pfn.wrapping_sub(self.largest.0) < self.largest.1
    }

    /// Whether frame `first` and the `count - 1` after it are ours.
    #[inline]
    pub(crate) fn are_ours(&self, first: u64, count: u64) -> bool {
        let (start, len) = self.largest;
        (first >= start && first - start + count <= len)
            || self.ownership(first, count) == Ownership::Ours
    }

    /// Which of the 64 frames from `first` on are ours.
    #[inline]
    pub(crate) fn mask(&self, first: u64) -> u64 {
        if self.are_ours(first, 64) {
            return u64::MAX;
        }
        (0..64).fold(0, |mask, bit| mask | u64::from(self.are_ours(first + bit, 1)) << bit)
    }

    /// Whose the `count` frames from `first` on are; they must not pass the last frame number.
    pub(crate) fn ownership(&self, first: u64, count: u64) -> Ownership {
        let (low, high) = self.bounds;
        if first < low || first + count > high {
            return Ownership::OutOfRange;
        }
        // The last region that starts at or below `first`: region 0 does.
        let (mut at, mut beyond) = (0, self.count());
        while beyond - at > 1 {
            let middle = at + (beyond - at) / 2;
            if self.get(middle).0 <= first { at = middle } else { beyond = middle }
        }
        let (_, end) = self.get(at);
        if first >= end {
            Ownership::Reserved(first)
        } else if first + count > end {
            Ownership::Reserved(end)
        } else {
            Ownership::Ours
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{Ownership, Regions};
    use crate::sync::AtomicU64;

    #[test]
    fn tells_reserved_from_out_of_range() {
        let table = [8, 16, 20, 21, 32, 64].map(AtomicU64::new);
        let regions = Regions::new(&table, 8 + 1 + 32);
        for (first, count, expected) in [
            (8, 8, Ownership::Ours),
            (15, 1, Ownership::Ours),
            (20, 1, Ownership::Ours),
            (63, 1, Ownership::Ours),
            (16, 1, Ownership::Reserved(16)),
            (16, 16, Ownership::Reserved(16)),
            (8, 16, Ownership::Reserved(16)),
            (20, 2, Ownership::Reserved(21)),
            (31, 1, Ownership::Reserved(31)),
            (0, 16, Ownership::OutOfRange),
            (7, 1, Ownership::OutOfRange),
            (64, 1, Ownership::OutOfRange),
            (32, 64, Ownership::OutOfRange),
        ] {
            assert_eq!(regions.ownership(first, count), expected, "{count} frames at {first}");
        }
    }

    #[test]
    fn one_region_is_its_own_bounds() {
        let table = [8, 16].map(AtomicU64::new);
        let regions = Regions::new(&table, 8);
        for (first, count, expected) in [
            (8, 8, Ownership::Ours),
            (15, 1, Ownership::Ours),
            (7, 1, Ownership::OutOfRange),
            (8, 16, Ownership::OutOfRange),
            (16, 1, Ownership::OutOfRange),
        ] {
            assert_eq!(regions.ownership(first, count), expected, "{count} frames at {first}");
        }
    }

    #[test]
    fn nothing_is_in_range_of_an_empty_table() {
        assert_eq!(Regions::new(&[], 0).ownership(0, 1), Ownership::OutOfRange);
    }
}
