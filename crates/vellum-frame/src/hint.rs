//! Where a search should look first: advice, never truth.
//!
//! ```text
//!   tier 1   one bit per 64 words of tier 0, for each order    |1.........|
//!   tier 0   one bit per row, for each order                   |.1..|.1...|
//!   row      8 groups, a byte each: bit n says "a block        |76543210|76543210|...
//!            of order n is here"                                   |
//!   bitmap   a group: 8 words, one cache line   0  0  00ff  0  1  0  0  0
//!            (above level 0: one word)
//! ```
//!
//! An order is that of a *block*: an aligned run of ones in a word that is part of no longer one
//! (0 to 5, and 6 for a full word). So a search for order `n` asks for order `n`, `n + 1`, ... and
//! breaks up the smallest block that will do, like a buddy system with its lists; a free that makes
//! one new block usually finds its bit set, and then writes nothing.
//!
//! The free of a single frame, the most frequent of all, does not even look what block the frame is
//! in now. It says *order 0*, and in the eighth bit of the byte, *unsorted*. A search looks after
//! one unsorted group for each time that it asks for a longer run, and after all of them before it
//! gives up here; an order 0 that turns out to be wrong has its group sorted, too.
//!
//! Bits are set by whoever changes a word, and cleared by the search that finds nothing there,
//! which then looks once more: the changer writes the word and reads the bit, the clearer clears
//! the bit and reads the word, all sequentially consistent, so one of the two sees the other. Where
//! a word is written by a plain store (a split), a bit can be lost on machines that reorder;
//! nothing but time hangs on it, because a search that fails reads every word before it says so.
//!
//! # Invariants
//!
//! - A set bit promises nothing; a missing bit costs a full scan, never a frame.

use crate::access::Access;
use crate::bits::{WORD_BITS, WORD_ORDER};
use crate::sync::AtomicU64;

/// log2 of the bitmap words of a group on level 0: a cache line of 64 bytes, 2 MiB of frames.
pub(crate) const GROUP_SHIFT_0: u32 = 3;

/// The same on any level: above level 0, where there are fewer words, a group is one.
const fn group_shift(level: usize) -> u32 {
    if level == 0 { GROUP_SHIFT_0 } else { 0 }
}

/// log2 of the groups of a row: the bytes of a word.
const ROW_SHIFT: u32 = 3;

/// The orders of blocks, the full word included.
const ORDERS: usize = WORD_ORDER as usize + 1;

/// The kind that says: single frames were freed here, and nobody looked what blocks they are in.
pub(crate) const UNSORTED: u8 = ORDERS as u8;

/// The kinds of advice: an order, or [`UNSORTED`].
const KINDS: usize = ORDERS + 1;

/// Enough for one word of the uppermost tier to cover 4 TiB on level 0, four of them 16 TiB.
const TIERS: usize = 3;

/// The hints of one level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hints<'m> {
    rows: &'m [AtomicU64],
    /// Each tier: word 0 of every kind, then word 1 of every kind, ... so that a search reads the
    /// kinds side by side. Those above `top` are empty.
    tiers: [&'m [AtomicU64]; TIERS],
    /// The lowest tier with one word for each kind, or the uppermost that there is.
    top: usize,
    /// log2 of the bitmap words of a group.
    group_shift: u32,
    /// How many bitmap words there are.
    len: usize,
}

/// Words of the rows and of one kind in each tier, for `len` bitmap words on `level`; and the top.
const fn plan(level: usize, len: u64) -> (u64, [u64; TIERS], usize) {
    let rows = len.div_ceil(1 << (group_shift(level) + ROW_SHIFT));
    let mut tiers = [rows.div_ceil(WORD_BITS), 0, 0];
    let mut top = 0;
    while top + 1 < TIERS && tiers[top] > 1 {
        tiers[top + 1] = tiers[top].div_ceil(WORD_BITS);
        top += 1;
    }
    (rows, tiers, top)
}

/// How many words the hints of `len` bitmap words on `level` take.
pub(crate) const fn words_for(level: usize, len: u64) -> u64 {
    let (rows, tiers, _) = plan(level, len);
    rows + KINDS as u64 * (tiers[0] + tiers[1] + tiers[2])
}

/// Bit `kind` of each byte of a row.
const fn column(kind: u8) -> u64 {
    0x0101_0101_0101_0101 << kind
}

impl<'m> Hints<'m> {
    /// Hints for `len` words on `level`, in `words`, all zero; `None` unless there are
    /// `words_for(level, len)` of them.
    pub(crate) fn new(words: &'m [AtomicU64], level: usize, len: usize) -> Option<Self> {
        let (rows, tiers, top) = plan(level, len as u64);
        let [n0, n1, n2] = tiers.map(|n| n as usize * KINDS);
        let (rows, rest) = words.split_at_checked(rows as usize)?;
        let (tier0, rest) = rest.split_at_checked(n0)?;
        let (tier1, tier2) = rest.split_at_checked(n1)?;
        let (tiers, group_shift) = ([tier0, tier1, tier2], group_shift(level));
        (tier2.len() == n2).then_some(Self { rows, tiers, top, group_shift, len })
    }

    /// The group that bitmap word `word` belongs to.
    #[inline]
    pub(crate) const fn group_of(&self, word: usize) -> usize {
        word >> self.group_shift
    }

    /// The bitmap words of `group`.
    #[inline]
    pub(crate) fn words_of(&self, group: usize) -> core::ops::Range<usize> {
        let first = group << self.group_shift;
        first..self.len.min(first + (1 << self.group_shift))
    }

    /// Word `index` of `tier` for blocks of order `kind`.
    fn word(&self, kind: u8, tier: usize, index: usize) -> &AtomicU64 {
        &self.tiers[tier][index * KINDS + usize::from(kind)]
    }

    /// Says that `group` may have what is in `kinds`: bit `n` is order `n`, or [`UNSORTED`].
    #[inline]
    pub(crate) fn set<A: Access>(&self, kinds: u8, group: usize) {
        let cell = &self.rows[group >> ROW_SHIFT];
        let wanted = u64::from(kinds) << ((group & 7) << ROW_SHIFT);
        if A::load(cell) & wanted != wanted {
            self.set_in::<A>(cell, kinds, wanted, group >> ROW_SHIFT);
        }
    }

    /// Whether there is advice for all of `kinds` in `group`.
    #[inline]
    pub(crate) fn has<A: Access>(&self, kinds: u8, group: usize) -> bool {
        let row = self.rows.get(group >> ROW_SHIFT).map_or(0, A::load);
        (row >> ((group & 7) << ROW_SHIFT)) as u8 & kinds == kinds
    }

    #[inline(never)]
    fn set_in<A: Access>(&self, cell: &AtomicU64, kinds: u8, wanted: u64, row: usize) {
        let before = A::or(cell, wanted);
        let mut left = kinds;
        while left != 0 {
            let kind = left.trailing_zeros() as u8;
            left &= left - 1;
            // Who set the first bit of a column looks after the tiers above it.
            if before & column(kind) == 0 {
                self.raise::<A>(kind, 0, row);
            }
        }
    }

    /// Sets bit `index` of `tier`, and those above it, up to the first that is set already: who set
    /// that one looks after the rest.
    fn raise<A: Access>(&self, kind: u8, tier: usize, mut index: usize) {
        for tier in tier..=self.top {
            let (word, bit) = (self.word(kind, tier, index >> 6), 1 << (index & 63));
            if A::load(word) & bit != 0 || A::or(word, bit) & bit != 0 {
                return;
            }
            index >>= 6;
        }
    }

    /// Takes the advice back; the caller looks at the group once more afterwards.
    pub(crate) fn clear<A: Access>(&self, kinds: u8, group: usize) {
        A::and(&self.rows[group >> ROW_SHIFT], !(u64::from(kinds) << ((group & 7) << ROW_SHIFT)));
    }

    /// Clears bit `index` of `tier`, below which nothing was seen, unless that has changed.
    #[cold]
    fn lower<A: Access>(&self, kind: u8, tier: usize, index: usize) {
        A::and(self.word(kind, tier, index >> 6), !(1 << (index & 63)));
        let below = match tier.checked_sub(1) {
            Some(tier) => A::load(self.word(kind, tier, index)),
            None => A::load(&self.rows[index]) & column(kind),
        };
        if below != 0 {
            self.raise::<A>(kind, tier, index);
        }
    }

    /// The lowest group that may have a block, and the order of its smallest; groups with none but
    /// full words come last.
    pub(crate) fn lowest<A: Access>(&self) -> Option<(u8, usize)> {
        let first = |kind| Some((kind, self.first::<A>(kind)?));
        let parts = (0..WORD_ORDER).filter_map(first).min_by_key(|&(_, group)| group);
        parts.or_else(|| first(WORD_ORDER))
    }

    /// The lowest group that may have a block of order `kind`.
    #[inline]
    pub(crate) fn first<A: Access>(&self, kind: u8) -> Option<usize> {
        let uppermost = self.tiers[self.top];
        let mut index = 0;
        // One word, but for more than 4 TiB.
        while let Some(cell) = uppermost.get(index * KINDS + usize::from(kind)) {
            if A::load(cell) != 0 {
                let found = self.first_below::<A>(kind, index);
                if found.is_some() {
                    return found;
                }
            }
            index += 1;
        }
        None
    }

    /// The lowest group of `kind` below word `start` of the uppermost tier.
    fn first_below<A: Access>(&self, kind: u8, start: usize) -> Option<usize> {
        'from_top: loop {
            let (mut tier, mut index) = (self.top, start);
            let row = loop {
                match A::load(self.word(kind, tier, index)) {
                    0 if tier == self.top => return None,
                    0 => {
                        self.lower::<A>(kind, tier + 1, index);
                        continue 'from_top;
                    }
                    bits => index = index << 6 | bits.trailing_zeros() as usize,
                }
                match tier.checked_sub(1) {
                    Some(below) => tier = below,
                    None => break index,
                }
            };
            match A::load(&self.rows[row]) & column(kind) {
                0 => self.lower::<A>(kind, 0, row),
                bits => return Some(row << ROW_SHIFT | (bits.trailing_zeros() >> 3) as usize),
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{Hints, ORDERS, words_for};
    use crate::access::{Access, Atomic, Plain};
    use crate::sync::AtomicU64;
    use std::vec::Vec;

    /// The smallest order from `least` on, as a search asks for them.
    fn find<A: Access>(hints: &Hints<'_>, least: u8) -> Option<(u8, usize)> {
        (least..ORDERS as u8).find_map(|kind| Some((kind, hints.first::<A>(kind)?)))
    }

    fn finds_through_every_tier<A: Access>(len: u64, groups: &[usize]) {
        let storage: Vec<AtomicU64> = (0..words_for(0, len)).map(|_| AtomicU64::new(0)).collect();
        let hints = Hints::new(&storage, 0, len as usize).expect("as many words as it takes");
        // From the largest kind down; what is left in one is what a search for the next one finds.
        let mut other = None;
        for kind in (0..ORDERS as u8).rev() {
            assert_eq!(find::<A>(&hints, kind), other);
            for &group in groups.iter().rev() {
                hints.set::<A>(1 << kind, group);
                assert_eq!(find::<A>(&hints, kind), Some((kind, group)));
            }
            for &group in groups {
                assert_eq!(find::<A>(&hints, kind), Some((kind, group)));
                hints.clear::<A>(1 << kind, group);
            }
            assert_eq!(find::<A>(&hints, kind), other);
            // The tiers were emptied by that search, and fill again.
            let last = groups[groups.len() - 1];
            hints.set::<A>(1 << kind, last);
            assert_eq!(find::<A>(&hints, kind), Some((kind, last)));
            other = Some((kind, last));
        }
    }

    #[test]
    fn finds_the_lowest_group_of_its_kind_through_every_tier() {
        // A row, two tiers, three tiers.
        finds_through_every_tier::<Atomic>(64, &[0, 3, 7]);
        finds_through_every_tier::<Plain>(64 * 64 * 3, &[0, 7, 8, 511, 512, 3 * 512 - 1]);
        if cfg!(not(miri)) {
            let last = 64 * 64 * 8 * 3 - 1;
            finds_through_every_tier::<Atomic>(
                8 * (last as u64 + 1),
                &[0, 7, 8, 32767, 32768, last],
            );
        }
    }

    #[test]
    fn more_than_one_word_on_top_is_searched_in_order() {
        let len = if cfg!(miri) { 1 } else { 2 } * (64 * 64 * 64 * 64 + 1);
        let last = (len - 1) / 8;
        if cfg!(not(miri)) {
            finds_through_every_tier::<Plain>(len as u64, &[1, 64 * 64 * 64 * 8 + 5, last]);
        }
    }

    #[test]
    fn several_kinds_are_set_at_once_and_only_those() {
        let storage: Vec<AtomicU64> = (0..words_for(0, 64)).map(|_| AtomicU64::new(0)).collect();
        let hints = Hints::new(&storage, 0, 64).expect("as many words as it takes");
        hints.set::<Atomic>(0b001_0110, 5);
        hints.set::<Atomic>(0b100_0010, 2);
        let found = [0, 1, 2, 3, 4, 5, 6].map(|kind| hints.first::<Atomic>(kind));
        assert_eq!(found, [None, Some(2), Some(5), None, Some(5), None, Some(2)]);
    }

    #[test]
    fn the_lowest_group_is_the_first_with_part_of_a_word() {
        let storage: Vec<AtomicU64> = (0..words_for(0, 640)).map(|_| AtomicU64::new(0)).collect();
        let hints = Hints::new(&storage, 0, 640).expect("as many words as it takes");
        assert_eq!(hints.lowest::<Plain>(), None);
        hints.set::<Plain>(1 << 6, 0);
        assert_eq!(hints.lowest::<Plain>(), Some((6, 0)));
        hints.set::<Plain>(1, 70);
        assert_eq!(hints.lowest::<Plain>(), Some((0, 70)));
        hints.set::<Plain>(0b10_1000, 9);
        assert_eq!(hints.lowest::<Plain>(), Some((3, 9)));
    }
}
