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
//! Bits are set by whoever changes a word, and cleared by the search that finds nothing there, which
//! then looks once more: the changer writes the word and reads the bit, the clearer clears the bit
//! and reads the word, all sequentially consistent, so one of the two sees the other. Where a word
//! is written by a plain store (a split), a bit can be lost on machines that reorder; nothing but
//! time hangs on it, because a search that fails reads every word before it says so.
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
    words: &'m [AtomicU64],
    /// Words of each tier.
    tiers: [usize; TIERS],
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
    /// Hints for a level of `len` words, in `words`, all zero and `words_for(len)` of them.
    pub(crate) fn new(words: &'m [AtomicU64], len: usize) -> Self {
        Self { words, tiers: tier_words(len as u64).map(|n| n as usize) }
    }

    /// Word `index` of `tier` of the set for largest runs of order `kind`.
    fn word(&self, kind: u8, tier: usize, index: usize) -> &AtomicU64 {
        let [n0, n1, n2] = self.tiers;
        let below = [0, n0, n0 + n1][tier];
        &self.words[usize::from(kind) * (n0 + n1 + n2) + below + index]
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
    fn lower(&self, kind: u8, tier: usize, index: usize) {
        self.word(kind, tier, index >> 6).fetch_and(!(1 << (index & 63)), SeqCst);
        if self.word(kind, tier - 1, index).load(SeqCst) != 0 {
            self.raise(kind, tier, index);
        }
    }

    /// The lowest group that may have a word whose largest run is of order `kind`.
    pub(crate) fn find(&self, kind: u8) -> Option<usize> {
        let lowest = |tier, index: usize| match self.word(kind, tier, index).load(SeqCst) {
            0 => None,
            bits => Some(index << 6 | bits.trailing_zeros() as usize),
        };
        for top in 0..self.tiers[2] {
            while let Some(middle) = lowest(2, top) {
                let Some(bottom) = lowest(1, middle) else {
                    self.lower(kind, 2, middle);
                    continue;
                };
                let Some(group) = lowest(0, bottom) else {
                    self.lower(kind, 1, bottom);
                    continue;
                };
                return Some(group);
            }
        }
        None
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
        let hints = Hints::new(&storage, len as usize);
        let groups = [0, 63, 64, 4095, 4096, 3 * 4096 - 1];
        for kind in 0..KINDS as u8 {
            assert_eq!(hints.find(kind), None);
            for &group in groups.iter().rev() {
                hints.set(kind, group);
                assert_eq!(hints.find(kind), Some(group));
            }
            for group in groups {
                assert_eq!(hints.find(kind), Some(group));
                hints.clear(kind, group);
            }
            assert_eq!(hints.find(kind), None);
            // The upper tiers were emptied by that search, and fill again.
            hints.set(kind, 4095);
            assert_eq!(hints.find(kind), Some(4095));
        }
    }
}
