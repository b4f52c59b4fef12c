//! Aligned runs of ones in one word.
//!
//! ```text
//!  word         1111 0110 1111 1110      16 of the 64 bits, bit 0 at the right
//!  runs(_, 0)   1111 0110 1111 1110      every one
//!  runs(_, 1)   .1.1 .... .1.1 .1..      a pair counts only from an even bit
//!  runs(_, 2)   ...1 .... ...1 ....      aligned fours
//! ```
//!
//! A block of 2<sup>n</sup> units is aligned to its own size everywhere in this crate, so inside a
//! word it is one of `64 >> n` fixed masks, and one compare-and-swap takes or gives the whole of
//! it.
//!
//! # Invariants
//!
//! - `runs(v, n)` has a bit at exactly those multiples of 2<sup>n</sup> where 2<sup>n</sup> ones
//!   start.

/// log2 of the bits in a word: a whole word is a run of this order.
pub(crate) const WORD_ORDER: u8 = 6;

/// Bits in a word, as a count of frames or blocks.
pub(crate) const WORD_BITS: u64 = 1 << WORD_ORDER;

/// `STARTS[n]`: the bits on which an aligned run of order `n` may start.
const STARTS: [u64; WORD_ORDER as usize + 1] = [
    u64::MAX,
    0x5555_5555_5555_5555,
    0x1111_1111_1111_1111,
    0x0101_0101_0101_0101,
    0x0001_0001_0001_0001,
    0x0000_0001_0000_0001,
    0x0000_0000_0000_0001,
];

/// The starts of runs of `order + 1`, from the starts of runs of `order`.
const fn longer(starts: u64, order: u8) -> u64 {
    starts & (starts >> (1 << order)) & STARTS[order as usize + 1]
}

/// `FOLDS[n]`: by how much to shift, one after the other, so that a bit is left where 2<sup>n</sup>
/// ones start.
const FOLDS: [[u32; 5]; WORD_ORDER as usize] = [
    [0, 0, 0, 0, 0],
    [1, 0, 0, 0, 0],
    [1, 2, 0, 0, 0],
    [1, 2, 4, 0, 0],
    [1, 2, 4, 8, 0],
    [1, 2, 4, 8, 16],
];

/// The starts of all aligned runs of 2<sup>`order`</sup> ones in `word`; `order` is below 6.
// Without a branch on the order: where orders are mixed, guessing it wrong costs more than this.
#[inline]
pub(crate) const fn runs(word: u64, order: u8) -> u64 {
    let [a, b, c, d, e] = FOLDS[order as usize];
    let mut starts = word & word >> a;
    starts &= starts >> b;
    starts &= starts >> c;
    starts &= starts >> d;
    starts &= starts >> e;
    starts & STARTS[order as usize]
}

/// The starts of the *blocks* of exactly 2<sup>`order`</sup> ones: aligned runs that are no part of
/// a longer one. `order` is at most 6.
#[inline]
pub(crate) const fn blocks(word: u64, order: u8) -> u64 {
    // The usual words where memory is nearly full, or is taken in bulk.
    if word == 0 || word == u64::MAX {
        return (word != 0 && order == WORD_ORDER) as u64;
    }
    if order == WORD_ORDER {
        return 0;
    }
    let starts = runs(word, order);
    let longer = longer(starts, order);
    starts & !(longer | longer << (1 << order))
}

/// The lowest of the smallest blocks of `word` that have room for 2<sup>`order`</sup> ones: its
/// start and its own order. `order` is below 6.
#[inline]
pub(crate) const fn pick(word: u64, order: u8) -> Option<(u32, u8)> {
    if word == u64::MAX {
        return Some((0, WORD_ORDER));
    }
    let mut starts = runs(word, order);
    let mut kind = order;
    while starts != 0 {
        let longer = longer(starts, kind);
        let lone = starts & !(longer | longer << (1 << kind));
        if lone != 0 {
            return Some((lone.trailing_zeros(), kind));
        }
        starts = longer;
        kind += 1;
    }
    None
}

/// Bit `n` is set if `word` has a block of exactly 2<sup>`n`</sup> ones.
pub(crate) const fn kinds(word: u64) -> u8 {
    if word == u64::MAX {
        return 1 << WORD_ORDER;
    }
    let (mut found, mut starts, mut kind) = (0, word, 0);
    while starts != 0 {
        let longer = longer(starts, kind);
        found |= ((starts & !(longer | longer << (1 << kind)) != 0) as u8) << kind;
        starts = longer;
        kind += 1;
    }
    found
}

/// The order of the block of `word` that has `bit`, which is set.
///
/// ```text
///            lo                bit         hi
///   ...  0 | 1  1  1  1  1  1  1  1  1  1 | 0 ...      the ones around it
/// ```
///
/// An aligned run of order `n` around `bit` ends before `hi` exactly if `hi` and `bit` differ in
/// bit `n` or above; the same goes for `lo - 1`.
#[inline]
pub(crate) const fn order_around(word: u64, bit: u32) -> u8 {
    let hi = bit + (word >> bit).trailing_ones();
    let before_lo = bit.wrapping_sub((word << (63 - bit)).leading_ones());
    let (above, below) = (hi ^ bit, before_lo ^ bit);
    // Neither is 0. With ones up to the end, `hi` is 64; down to the start, `before_lo` is -1.
    (if above < below { above } else { below }).ilog2() as u8
}

/// `RUNS[n]`: the 2<sup>n</sup> lowest ones.
const RUNS: [u64; WORD_ORDER as usize + 1] = [0x1, 0x3, 0xf, 0xff, 0xffff, 0xffff_ffff, u64::MAX];

/// The mask of the 2<sup>`order`</sup> ones that start at `bit`; `bit` is a multiple of that.
#[inline]
pub(crate) const fn run_mask(bit: u32, order: u8) -> u64 {
    RUNS[order as usize] << bit
}

/// The mask of the bits from `first` up to but not including `end` (at most 64).
pub(crate) const fn span_mask(first: u64, end: u64) -> u64 {
    if first >= end {
        return 0;
    }
    (u64::MAX >> (WORD_BITS - (end - first))) << first
}

#[cfg(test)]
mod tests {
    use super::{WORD_ORDER, blocks, kinds, order_around, pick, run_mask, runs, span_mask};
    use proptest::prelude::*;

    fn starts_here(word: u64, bit: u32, order: u8) -> bool {
        bit.trailing_zeros() >= u32::from(order)
            && (bit..bit + (1 << order)).all(|b| word >> b & 1 == 1)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 512 }) })]

        #[test]
        fn runs_are_the_aligned_stretches_of_ones(a: u64, b: u64, order in 0..WORD_ORDER) {
            // The union of two random words is dense enough to have long runs now and then.
            for word in [a, a | b, a | b | a.rotate_left(17) | b.rotate_left(29), u64::MAX] {
                for bit in 0..64 {
                    prop_assert_eq!(runs(word, order) >> bit & 1 == 1, starts_here(word, bit, order));
                }
            }
        }

        #[test]
        fn blocks_are_the_runs_that_are_part_of_no_longer_one(a: u64, b: u64) {
            let dense = a | b | a.rotate_left(17) | b.rotate_left(29);
            let words = [dense, u64::MAX, a, a | b, 0];
            for &word in words.iter().take(if cfg!(miri) { 2 } else { words.len() }) {
                // The order of the longest run around each bit, the slow way.
                let around = |bit: u32| (0..=WORD_ORDER).rev().find(|&order| {
                    starts_here(word, bit >> order << order, order)
                });
                let around: [_; 64] = core::array::from_fn(|bit| around(bit as u32));
                let around = |bit: u32| around[bit as usize];
                for order in 0..=WORD_ORDER {
                    let starts = (0..64).filter(|&bit| {
                        starts_here(word, bit, order) && around(bit) == Some(order)
                    });
                    let starts = starts.fold(0u64, |mask, bit| mask | 1 << bit);
                    prop_assert_eq!(blocks(word, order), starts);
                    prop_assert_eq!(kinds(word) >> order & 1 == 1, starts != 0);
                    let picked = (order..=WORD_ORDER).find_map(|kind| {
                        let starts = blocks(word, kind);
                        (starts != 0).then(|| (starts.trailing_zeros(), kind))
                    });
                    if order < WORD_ORDER {
                        prop_assert_eq!(pick(word, order), picked);
                    }
                    for bit in (0..64).filter(|&bit| word >> bit & 1 == 1) {
                        prop_assert_eq!(Some(order_around(word, bit)), around(bit));
                    }
                }
            }
        }

        #[test]
        fn span_masks_count_their_bits(first in 0u64..64, end in 0u64..=64) {
            let expected = (first..end).fold(0u64, |mask, bit| mask | 1 << bit);
            prop_assert_eq!(span_mask(first, end), expected);
        }
    }

    #[test]
    fn a_mask_is_a_run_at_its_start() {
        for order in 0..WORD_ORDER {
            for bit in (0..64).step_by(1 << order) {
                assert_eq!(runs(run_mask(bit, order), order), 1 << bit);
            }
        }
    }
}
