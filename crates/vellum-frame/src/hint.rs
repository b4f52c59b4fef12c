//! Where a search should look first: advice, never truth.
//!
//! ```text
//!   tier 2   one bit per 64 words of tier 0, read in order       |1.........|
//!   tier 1   one bit per word of tier 0                          |.1..|.1...|
//!   tier 0   one bit per group of 8 bitmap words                 |..1.|1....|
//!                                                                   |
//!   bitmap   8 words, one cache line     0  0  00ff  0  1  0  0  0 <+
//! ```
//!
//! Each level of the tree has seven of these sets, one for each order of a word's *largest* aligned
//! run (0 to 5, and 6 for a full word). A search for runs of order `n` asks the sets `n`, `n + 1`,
//! ... in this order, so that it breaks up the smallest run that will do.
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

use crate::bits::{WORD_BITS, WORD_ORDER};
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// log2 of the bitmap words behind one hint bit: a cache line of 64 bytes.
const GROUP_SHIFT: u32 = 3;

/// One set for each order of largest run, the full word included.
const KINDS: usize = WORD_ORDER as usize + 1;

const TIERS: usize = 3;

/// The hints of one level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hints<'m> {
    /// Each tier: word 0 of every kind, then word 1 of every kind, ... so that a search reads the
    /// kinds side by side, and a word that changes its kind touches one cache line.
    tiers: [&'m [AtomicU64]; TIERS],
}

/// Words of each tier, for a level of `len` bitmap words.
const fn tier_words(len: u64) -> [u64; TIERS] {
    let groups = len.div_ceil(1 << GROUP_SHIFT);
    let tier0 = groups.div_ceil(WORD_BITS);
    let tier1 = tier0.div_ceil(WORD_BITS);
    [tier0, tier1, tier1.div_ceil(WORD_BITS)]
}

/// How many words the hints of a level of `len` bitmap words take.
pub(crate) const fn words_for(len: u64) -> u64 {
    let tiers = tier_words(len);
    KINDS as u64 * (tiers[0] + tiers[1] + tiers[2])
}

/// The group that bitmap word `word` belongs to.
pub(crate) const fn group_of(word: usize) -> usize {
    word >> GROUP_SHIFT
}

/// The bitmap words of `group`, on a level of `len` words.
pub(crate) fn words_of(group: usize, len: usize) -> core::ops::Range<usize> {
    let first = group << GROUP_SHIFT;
    first..len.min(first + (1 << GROUP_SHIFT))
}

impl<'m> Hints<'m> {
    /// Hints for a level of `len` words, in `words`, all zero; `None` unless there are
    /// `words_for(len)` of them.
    pub(crate) fn new(words: &'m [AtomicU64], len: usize) -> Option<Self> {
        let [n0, n1, n2] = tier_words(len as u64).map(|n| n as usize * KINDS);
        let (tier0, rest) = words.split_at_checked(n0)?;
        let (tier1, tier2) = rest.split_at_checked(n1)?;
        (tier2.len() == n2).then_some(Self { tiers: [tier0, tier1, tier2] })
    }

    /// Word `index` of `tier` of the set for largest runs of order `kind`.
    fn word(&self, kind: u8, tier: usize, index: usize) -> &AtomicU64 {
        &self.tiers[tier][index * KINDS + usize::from(kind)]
    }

    /// Says that `group` may have a word whose largest run is of order `kind`.
    pub(crate) fn set(&self, kind: u8, group: usize) {
        self.raise(kind, 0, group);
    }

    /// Sets bit `index` of `tier`, and those above it, up to the first that is set already: who set
    /// that one looks after the rest.
    fn raise(&self, kind: u8, tier: usize, mut index: usize) {
        for tier in tier..TIERS {
            let (word, bit) = (self.word(kind, tier, index >> 6), 1 << (index & 63));
            if word.load(SeqCst) & bit != 0 || word.fetch_or(bit, SeqCst) & bit != 0 {
                return;
            }
            index >>= 6;
        }
    }

    /// Takes the advice back; the caller looks at the group once more afterwards.
    pub(crate) fn clear(&self, kind: u8, group: usize) {
        self.word(kind, 0, group >> 6).fetch_and(!(1 << (group & 63)), SeqCst);
    }

    /// Clears bit `index` of `tier`, whose word below was seen empty, unless that has changed.
    #[cold]
    fn lower(&self, kind: u8, tier: usize, index: usize) {
        self.word(kind, tier, index >> 6).fetch_and(!(1 << (index & 63)), SeqCst);
        if self.word(kind, tier - 1, index).load(SeqCst) != 0 {
            self.raise(kind, tier, index);
        }
    }

    /// The smallest order from `least` on for which there is advice, and the lowest group that may
    /// have a word whose largest run is of that order. (Of the first 64<sup>3</sup> groups with any
    /// advice at all, which are half a TiB on level 0.)
    #[inline]
    pub(crate) fn find(&self, least: u8) -> Option<(u8, usize)> {
        let (mut top, mut rows) = (0, self.tiers[2]);
        while let Some((row, rest)) = rows.split_first_chunk::<KINDS>() {
            for kind in usize::from(least)..KINDS {
                if row[kind].load(SeqCst) != 0 {
                    let kind = kind as u8;
                    if let Some(group) = self.find_below(&row[usize::from(kind)], kind, top) {
                        return Some((kind, group));
                    }
                }
            }
            (top, rows) = (top + 1, rest);
        }
        None
    }

    /// The lowest group of `kind` below `cell`, which is word `top` of its uppermost tier.
    fn find_below(&self, cell: &AtomicU64, kind: u8, top: usize) -> Option<usize> {
        loop {
            let middle = lowest(cell, top)?;
            let Some(bottom) = lowest(self.word(kind, 1, middle), middle) else {
                self.lower(kind, 2, middle);
                continue;
            };
            let Some(group) = lowest(self.word(kind, 0, bottom), bottom) else {
                self.lower(kind, 1, bottom);
                continue;
            };
            return Some(group);
        }
    }
}

/// The number of the lowest bit that is set in `cell`, which is word `index` of its tier.
fn lowest(cell: &AtomicU64, index: usize) -> Option<usize> {
    match cell.load(SeqCst) {
        0 => None,
        bits => Some(index << 6 | bits.trailing_zeros() as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::{Hints, KINDS, words_for};
    use core::sync::atomic::AtomicU64;
    use std::vec::Vec;

    #[test]
    fn finds_the_lowest_group_of_its_kind_through_every_tier() {
        // Enough words for three tiers to matter; few enough for Miri.
        let len = 8 * 64 * 64 * 3;
        let storage: Vec<AtomicU64> = (0..words_for(len)).map(|_| AtomicU64::new(0)).collect();
        let hints = Hints::new(&storage, len as usize).expect("as many words as it takes");
        let groups = [0, 63, 64, 4095, 4096, 3 * 4096 - 1];
        // From the largest kind down; what is left in one is what a search for the next one finds.
        let mut other = None;
        for kind in (0..KINDS as u8).rev() {
            assert_eq!(hints.find(kind), other);
            for &group in groups.iter().rev() {
                hints.set(kind, group);
                assert_eq!(hints.find(kind), Some((kind, group)));
            }
            for group in groups {
                assert_eq!(hints.find(kind), Some((kind, group)));
                hints.clear(kind, group);
            }
            assert_eq!(hints.find(kind), other);
            // The upper tiers were emptied by that search, and fill again.
            hints.set(kind, 4095);
            assert_eq!(hints.find(kind), Some((kind, 4095)));
            other = Some((kind, 4095));
        }
    }
}
