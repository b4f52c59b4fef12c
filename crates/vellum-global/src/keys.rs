//! Ranges of leaves of one size of one space.
//!
//! ```text
//!   pages of 4 KiB       |.....|..........|..........|...|
//!                     first                             last
//!   touching 2 MiB    |##########|##########|##########|##########|
//!   within                       |##########|##########|
//! ```
//!
//! # Invariants
//!
//! - Never empty; both ends are of one space and one size, and are held inclusive, so that the range
//!   which ends with the last page of all is a range like any other.

use crate::{Key, Size};
use core::num::NonZeroU64;
use core::ops::RangeInclusive;
use vellum_core::{Asid, VirtAddr};

/// A range of leaves of one size of one space; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    first: Key,
    last: Key,
}

impl Keys {
    /// The pages of 4 KiB of `[va, va + len)`, which is canonical and of whole pages; `None` if it
    /// is empty.
    #[must_use]
    pub fn new(asid: Asid, va: VirtAddr, len: u64) -> Option<Self> {
        let last = va.wrapping_add(len.checked_sub(1)?);
        Some(Self { first: Key::new(asid, va), last: Key::new(asid, last) })
    }

    /// Every page of 4 KiB of a space.
    #[must_use]
    pub const fn all(asid: Asid) -> Self {
        let last = VirtAddr::new(u64::MAX);
        Self { first: Key::new(asid, VirtAddr::new(0)), last: Key::new(asid, last) }
    }

    /// The `count` leaves from `first` on, at most to the end of the space.
    #[must_use]
    pub const fn from_first(first: Key, count: NonZeroU64) -> Self {
        let last = first.plus(count.get() - 1);
        Self { first, last }
    }

    /// The leaves of a smaller size that `key` is as large as.
    #[must_use]
    pub const fn parts(key: Key, size: Size) -> Self {
        Self { first: key.sized(size), last: key.last_page().sized(size) }
    }

    /// The first.
    #[must_use]
    pub const fn first(self) -> Key {
        self.first
    }

    /// The last.
    #[must_use]
    pub const fn last(self) -> Key {
        self.last
    }

    /// The size of its leaves.
    #[must_use]
    pub const fn size(self) -> Size {
        self.first.size()
    }

    /// How many they are.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.last.number() - self.first.number() + 1
    }

    /// The leaves of `size`, which is no smaller, that have a page in the range.
    #[must_use]
    pub const fn touching(self, size: Size) -> Self {
        Self { first: self.first.sized(size), last: self.last.last_page().sized(size) }
    }

    /// The leaves of `size`, which is no smaller, that have all of their pages in the range.
    #[must_use]
    pub fn within(self, size: Size) -> Option<Self> {
        let touching = self.touching(size);
        let whole = if touching.first.sized(self.size()) == self.first {
            touching
        } else {
            touching.after(touching.first)?
        };
        if touching.last.last_page() == self.last.last_page() {
            Some(whole)
        } else {
            whole.before(touching.last)
        }
    }

    /// Whether `key` is one of them.
    #[must_use]
    pub fn contains(self, key: Key) -> bool {
        self.first <= key && key <= self.last && key.size() == self.size()
    }

    /// `key`, which is one of them, and those after it.
    #[must_use]
    pub fn from(self, key: Key) -> Self {
        Self { first: key, ..self }
    }

    /// Those after `key`, which is one of them.
    #[must_use]
    pub fn after(self, key: Key) -> Option<Self> {
        (key < self.last).then(|| Self { first: key.plus(1), ..self })
    }

    /// Those before `key`, which is one of them.
    #[must_use]
    pub fn before(self, key: Key) -> Option<Self> {
        let count = NonZeroU64::new(key.number().checked_sub(self.first.number())?)?;
        Some(Self::from_first(self.first, count))
    }

    /// The first `count` of them, or all if they are fewer, and the rest.
    #[must_use]
    pub fn split_at(self, count: NonZeroU64) -> (Self, Option<Self>) {
        if count.get() >= self.count() {
            return (self, None);
        }
        let head = Self::from_first(self.first, count);
        (head, self.after(head.last))
    }

    /// Each of them, ascending.
    pub fn iter(self) -> impl Iterator<Item = Key> {
        let numbers: RangeInclusive<u64> = 0..=self.count() - 1;
        numbers.map(move |n| self.first.plus(n))
    }

    /// The range in parts, ascending, none of which crosses a multiple of `block` leaves.
    pub fn blocks(self, block: NonZeroU64) -> impl Iterator<Item = Self> {
        let mut rest = Some(self);
        core::iter::from_fn(move || {
            let keys = rest?;
            // The remainder is below `block`.
            let left = block.get() - keys.first.number() % block;
            let (part, after) = keys.split_at(NonZeroU64::new(left)?);
            rest = after;
            Some(part)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn asid(n: u16) -> Asid {
        Asid::new(n).unwrap()
    }

    fn pages(first: u64, count: u64) -> Keys {
        Keys::new(asid(9), VirtAddr::new(first << 12), count << 12).unwrap()
    }

    fn nonzero(n: u64) -> NonZeroU64 {
        NonZeroU64::new(n).unwrap()
    }

    #[test]
    fn a_whole_space_counts_its_pages() {
        let all = Keys::all(asid(65534));
        assert_eq!(all.count(), 1 << 45);
        assert_eq!(all.first().va(), VirtAddr::new(0));
        assert_eq!(all.last().va(), VirtAddr::new(!0xfff));
        assert_eq!(all.after(all.last()), None);
        assert_eq!(Keys::new(asid(1), VirtAddr::new(0x1000), 0), None);
        for size in Size::ALL {
            assert_eq!(all.within(size), Some(all.touching(size)));
            assert_eq!(all.touching(size).count(), 1 << (45 - size.log2_pages()));
        }
    }

    proptest! {
        #![proptest_config(vellum_testkit::suite::config(256))]

        #[test]
        fn a_split_range_is_the_range(first in 0..1000u64, count in 1..100u64, at in 1..120u64) {
            let keys = pages(first, count);
            let (low, high) = keys.split_at(nonzero(at));
            prop_assert_eq!(low.count(), at.min(count));
            prop_assert!(low.iter().chain(high.into_iter().flat_map(Keys::iter)).eq(keys.iter()));
            let middle = low.last();
            prop_assert_eq!(keys.after(middle), high);
            prop_assert_eq!(keys.before(middle).map_or(0, Keys::count), low.count() - 1);
        }

        #[test]
        fn blocks_are_the_range_and_cross_no_multiple(
            first in 0..1000u64,
            count in 1..200u64,
            block in 1..17u64,
        ) {
            let keys = pages(first, count);
            let blocks: Vec<_> = keys.blocks(nonzero(block)).collect();
            prop_assert!(blocks.iter().copied().flat_map(Keys::iter).eq(keys.iter()));
            for part in &blocks {
                prop_assert_eq!(part.first().number() / block, part.last().number() / block);
            }
            prop_assert_eq!(blocks.len() as u64, (first + count - 1) / block - first / block + 1);
        }

        #[test]
        fn leaves_touch_or_lie_within_a_range(first in 0..5000u64, count in 1..3000u64) {
            let keys = pages(first, count);
            let end = first + count;
            let touching = keys.touching(Size::Large);
            let numbers: Vec<_> = (first / 512..=(end - 1) / 512).collect();
            prop_assert!(touching.iter().map(Key::number).eq(numbers.iter().copied()));
            let within = |n: &u64| n * 512 >= first && (n + 1) * 512 <= end;
            let whole: Vec<_> = numbers.into_iter().filter(within).collect();
            let found = keys.within(Size::Large).into_iter().flat_map(Keys::iter);
            prop_assert!(found.map(Key::number).eq(whole));
        }
    }
}
