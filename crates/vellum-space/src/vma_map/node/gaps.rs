//! How large the gaps of a leaf are, roughly: a byte each, looked through at once.
//!
//! ```text
//!   byte        0    1    2    3              class of a gap: the bits that its pages have
//!             | 0  | 2  | 0  | 9  | ...       none 0, one page 1, 2 to 3 pages 2, 4 to 7 pages 3 ...
//!
//!   | 0x80    | 80 | 82 | 80 | 89 |           which have class 4 or more?
//!   - 4       | 7c | 7e | 7c | 85 |           no byte borrows from the next
//!   & 0x80    | 0  | 0  | 0  | 80 |           the answer, a bit for each place
//! ```
//!
//! A loop over the regions of a leaf ends where nobody can foresee it, and a processor that guesses wrong
//! loses more than all of this takes.
//!
//! Source: L. Lamport, "Multiple Byte Processing with Full-Word Instructions", CACM 18:8, 1975.

use super::MASK;

const BYTES: u128 = u128::MAX / 0xff;
const HIGH: u128 = BYTES << 7;

/// The class of the gap before each place; 0 before the first one, and where no region is. One number,
/// and not bytes: what is written in small pieces cannot be read as a whole at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gaps(u128);

/// Places of a leaf, in ascending order.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Places(u128);

/// The class of a gap of so many pages, at most 64.
#[inline(always)]
const fn class(pages: u64) -> u128 {
    (u64::BITS - pages.leading_zeros()) as u128
}

/// Where the byte of a place begins.
#[inline(always)]
const fn shift(at: usize) -> u32 {
    8 * (at & MASK) as u32
}

/// The bytes of the places below one.
#[inline(always)]
const fn below(at: usize) -> u128 {
    (1 << shift(at)) - 1
}

impl Gaps {
    pub(super) const NONE: Self = Self(0);

    /// The places before which a gap may have so many pages: all that have, and some that have more than
    /// half of it.
    #[inline(always)]
    pub(super) const fn places(self, pages: u64) -> Places {
        Places(((self.0 | HIGH) - BYTES * class(pages)) & HIGH)
    }

    /// Says how many pages the gaps before a place and before the next one have.
    #[inline(always)]
    pub(super) const fn set(&mut self, at: usize, [first, second]: [u64; 2]) {
        let both = class(first) | class(second) << 8;
        self.0 = self.0 & !(0xffff << shift(at)) | both << shift(at);
    }

    /// Moves what is said of a place and those above it one up.
    #[inline(always)]
    pub(super) const fn open(&mut self, at: usize) {
        self.0 = self.0 & below(at) | (self.0 & !below(at)) << 8;
    }

    /// Forgets what is said of `count` places from `at` on, moves the others down, and says how many
    /// pages the gap before the place has now.
    #[inline(always)]
    pub(super) const fn close(&mut self, at: usize, count: usize, pages: u64) {
        let above = match self.0.checked_shr(8 * count as u32) {
            Some(moved) => moved & !below(at) & !(0xff << shift(at)),
            None => 0,
        };
        self.0 = self.0 & below(at) | above | class(pages) << shift(at);
    }
}

impl Places {
    /// Those at `from` or above.
    #[inline(always)]
    pub(super) const fn from(self, from: usize) -> Self {
        Self(self.0 & u128::MAX << shift(from))
    }

    /// Those at `to` or below.
    #[inline(always)]
    pub(super) const fn up_to(self, to: usize) -> Self {
        Self(self.0 & u128::MAX >> (120 - shift(to)))
    }

    /// Takes out the lowest one.
    #[inline(always)]
    pub(in super::super) const fn take_first(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0 - 1;
        Some(bit as usize / 8)
    }

    /// Takes out the highest one.
    #[inline(always)]
    pub(in super::super) const fn take_last(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = u128::BITS - 1 - self.0.leading_zeros();
        self.0 ^= 1 << bit;
        Some(bit as usize / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_for_every_gap_that_is_large_enough() {
        let pages = [0, 1, 2, 3, 4, 7, 8, 255, 256, 1 << 51, 1 << 52, 5, 6, 0, 9, 1];
        let mut gaps = Gaps::NONE;
        (0..16).step_by(2).for_each(|at| gaps.set(at, [pages[at], pages[at + 1]]));
        for wanted in [1, 2, 3, 4, 6, 8, 200, 256, 257, 1 << 52] {
            let places = gaps.places(wanted);
            let all = |mut left: Places| core::iter::from_fn(move || left.take_first());
            let named: std::vec::Vec<_> = all(places).collect();
            let large = |&at: &usize| pages[at] >= wanted;
            assert!((0..16).filter(large).all(|at| named.contains(&at)), "{wanted}");
            assert!(named.iter().all(|&at| 2 * pages[at] > wanted), "{wanted}: {named:?}");
            let mut left = places;
            let mut down: std::vec::Vec<_> = core::iter::from_fn(|| left.take_last()).collect();
            down.reverse();
            assert_eq!(down, named, "{wanted}");
            for at in 0..16 {
                let cut = named.partition_point(|&named| named < at);
                assert!(all(places.from(at)).eq(named[cut..].iter().copied()), "{wanted} {at}");
                let cut = named.partition_point(|&named| named <= at);
                assert!(all(places.up_to(at)).eq(named[..cut].iter().copied()), "{wanted} {at}");
            }
        }
    }

    #[test]
    fn opening_and_closing_are_each_others_inverse() {
        let mut gaps = Gaps::NONE;
        let pages = |at: usize| if (1..13).contains(&at) { 1 << (3 * at) } else { 0 };
        (0..16).for_each(|at| gaps.set(at, [pages(at), 0]));
        for at in 0..16 {
            let mut changed = gaps;
            changed.open(at);
            changed.set(at, [77, 5]);
            changed.close(at, 1, pages(at));
            assert_eq!(changed, gaps, "{at}");
        }
        gaps.close(0, 16, 0);
        assert_eq!(gaps, Gaps::NONE);
    }
}
