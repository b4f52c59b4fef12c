//! What has to leave the TLBs: ranges, and how much of what is cached for them.
//!
//! ```text
//!   Flush   first ........ last   page = 21, global, scope
//!           +----+----+----+----+
//!           | 2M | 2M | 2M | 2M |   four invalidations, not 2048: `page` is the stride
//!           +----+----+----+----+
//!
//!   Owed    [ 5..9 ] [ 20..21 ] [ 800..1311 ]     disjoint; a fifth joins the nearest
//! ```
//!
//! # Invariants
//!
//! - An [`Owed`] covers every flush that was added, with a scope, a stride and a reach at least as
//!   demanding.

use crate::{Attr, PAGE_SHIFT, VirtAddr};

/// How much of what a CPU may have cached is wrong. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Nothing was there before. On processors that cache absence, or that need a fence before a
    /// walker sees a new entry (RISC-V, Arm), that; on others (x86) nothing at all. Nodes may have
    /// been linked, so that RISC-V serves it by SFENCE.VMA with rs1 = x0.
    Fresh,
    /// Translations: leaves that went or lost something.
    Leaves,
    /// Interior entries too: a part of the table was unlinked.
    Tables,
}

/// A range of virtual addresses whose cached translations are to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flush {
    /// The first byte.
    pub first: VirtAddr,
    /// The last byte, inclusive: the last page of all has no end that 64 bits could hold.
    pub last: VirtAddr,
    /// log2 of the smallest leaf that may be cached of the range: who flushes page by page may go
    /// in steps of this size.
    pub page: u8,
    /// Some of it may be cached as global, and survive what flushes one address space only.
    pub global: bool,
    /// What to flush.
    pub scope: Scope,
}

impl Flush {
    /// The leaves of 2<sup>`page`</sup> bytes in the `len` bytes from `va` (in the one byte at `va`
    /// when `len` is 0), which were cached with attributes `attr`.
    #[must_use]
    pub const fn new(va: VirtAddr, len: u64, page: u8, attr: Attr) -> Self {
        Self {
            first: va,
            last: va.wrapping_add(len.saturating_sub(1)),
            page,
            global: attr.contains(Attr::GLOBAL),
            scope: Scope::Leaves,
        }
    }

    /// Everything that may be cached of the range, interior entries and pages of any size.
    #[must_use]
    pub const fn tables(va: VirtAddr, len: u64, global: bool) -> Self {
        let attr = if global { Attr::GLOBAL } else { Attr::NONE };
        Self { scope: Scope::Tables, ..Self::new(va, len, PAGE_SHIFT, attr) }
    }

    /// The same range and leaves, with another scope.
    #[must_use]
    pub const fn with_scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// The smallest flush that covers both.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            page: self.page.min(other.page),
            global: self.global || other.global,
            scope: self.scope.max(other.scope),
        }
    }

    /// Whether a translation of the byte at `va` goes.
    #[must_use]
    pub fn covers(self, va: VirtAddr) -> bool {
        self.first <= va && va <= self.last
    }

    /// Whether interior entries go too.
    #[must_use]
    pub fn has_tables(self) -> bool {
        self.scope == Scope::Tables
    }

    /// How many invalidations of one page each it takes, at least 1.
    #[must_use]
    pub const fn steps(self) -> u64 {
        let page = if self.page < 64 { self.page } else { 63 };
        let first = self.first.as_u64() >> page;
        (self.last.as_u64() >> page).saturating_sub(first).saturating_add(1)
    }

    /// How many bytes lie between the two ranges; 0 if they touch or overlap.
    fn gap(self, other: Self) -> u64 {
        let (low, high) = if self.first <= other.first { (self, other) } else { (other, self) };
        high.first.as_u64().saturating_sub(low.last.as_u64().saturating_add(1))
    }
}

/// How many disjoint ranges a [`Batch`](crate::Batch) keeps apart.
pub const RANGES: usize = 4;

/// Flushes that are owed, as few disjoint ranges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owed {
    ranges: [Flush; RANGES],
    len: usize,
}

impl Owed {
    pub(super) const NOTHING: Self = {
        // All zeros, so that it is written without being read from somewhere.
        let zero = VirtAddr::new(0);
        let none = Flush { first: zero, last: zero, page: 0, global: false, scope: Scope::Fresh };
        Self { ranges: [none; RANGES], len: 0 }
    };

    pub(super) fn is_nothing(&self) -> bool {
        self.len == 0
    }

    pub(super) fn ranges(&self) -> &[Flush] {
        self.ranges.get(..self.len).unwrap_or(&[])
    }

    /// Adds a flush: to the last range if it continues that, as most do; else as a range of its
    /// own, or to the nearest one when there is no room for that. Constant time.
    #[inline]
    pub(super) fn add(&mut self, flush: Flush) {
        let last = self.len.checked_sub(1).and_then(|i| self.ranges.get_mut(i));
        match last {
            Some(last) if last.gap(flush) == 0 => {
                *last = last.union(flush);
                if self.len > 1 {
                    self.join();
                }
            }
            _ => self.add_apart(flush),
        }
    }

    #[cold]
    fn add_apart(&mut self, flush: Flush) {
        let free = self.len;
        let ranges = self.ranges.iter_mut().take(self.len);
        let nearest = ranges.min_by_key(|range| range.gap(flush));
        match nearest {
            Some(range) if free == RANGES || range.gap(flush) == 0 => *range = range.union(flush),
            _ => {
                if let Some(slot) = self.ranges.get_mut(free) {
                    *slot = flush;
                    self.len += 1;
                }
            }
        }
        if self.len > 1 {
            self.join();
        }
    }

    /// Joins ranges that have come to touch each other.
    fn join(&mut self) {
        let mut joined = Self::NOTHING;
        for &range in self.ranges() {
            let mut range = range;
            let mut kept = Self::NOTHING;
            for &other in joined.ranges() {
                if range.gap(other) == 0 {
                    range = range.union(other);
                } else {
                    kept.push(other);
                }
            }
            kept.push(range);
            joined = kept;
        }
        *self = joined;
    }

    fn push(&mut self, flush: Flush) {
        if let Some(slot) = self.ranges.get_mut(self.len) {
            *slot = flush;
            self.len += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pages(first: u64, count: u64) -> Flush {
        Flush::new(VirtAddr::new(first << 12), count << 12, 12, Attr::NONE)
    }

    #[test]
    fn a_stride_is_counted_in_leaves() {
        let huge = Flush::new(VirtAddr::new(4 << 20), 8 << 20, 21, Attr::GLOBAL);
        assert_eq!((huge.steps(), huge.global), (4, true));
        assert_eq!(huge.union(pages(0, 1)).steps(), 12 << 8);
        assert_eq!(Flush::tables(VirtAddr::new(0), u64::MAX, false).steps(), 1 << 52);
    }

    #[test]
    fn ranges_far_apart_stay_apart_and_the_nearest_takes_what_has_no_room() {
        let mut owed = Owed::NOTHING;
        for first in [100, 0, 1000, 500] {
            owed.add(pages(first, 2));
        }
        assert_eq!(owed.ranges().len(), RANGES);
        owed.add(pages(504, 1));
        assert_eq!(owed.ranges().len(), RANGES);
        assert!(owed.ranges().contains(&pages(500, 5)));
    }

    #[test]
    fn what_lies_between_two_ranges_joins_them() {
        let mut owed = Owed::NOTHING;
        for (first, count) in [(0, 2), (4, 2), (2, 2)] {
            owed.add(pages(first, count));
        }
        assert_eq!(owed.ranges(), [pages(0, 6)]);
    }

    proptest! {
        #![proptest_config(crate::proptest_config())]

        #[test]
        fn nothing_that_was_added_is_lost(
            added in prop::collection::vec((0u64..400, 1u64..20, any::<(bool, bool)>()), 1..40),
        ) {
            let mut owed = Owed::NOTHING;
            for &(first, count, (global, tables)) in &added {
                let attr = if global { Attr::GLOBAL } else { Attr::NONE };
                let scope = if tables { Scope::Tables } else { Scope::Fresh };
                owed.add(Flush::new(VirtAddr::new(first << 12), count << 12, 12, attr).with_scope(scope));
            }
            for &(first, count, (global, tables)) in &added {
                let want = pages(first, count);
                let covered = owed.ranges().iter().any(|f| {
                    f.covers(want.first) && f.covers(want.last) && f.global >= global && f.has_tables() >= tables
                });
                prop_assert!(covered, "{want:?} in {owed:?}");
            }
            for (i, a) in owed.ranges().iter().enumerate() {
                for b in &owed.ranges()[i + 1..] {
                    prop_assert!(a.gap(*b) > 0, "{a:?} and {b:?} touch");
                }
            }
        }
    }
}
