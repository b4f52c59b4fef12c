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

/// The starts of all aligned runs of 2<sup>`order`</sup> ones in `word`; `order` is at most 6.
pub(crate) const fn runs(word: u64, order: u8) -> u64 {
    let mut starts = word;
    let mut n = 0;
    while n < order {
        starts = longer(starts, n);
        n += 1;
    }
    starts
}

/// The order of the largest aligned run in `word`, or `None` for an empty word.
pub(crate) const fn largest_run(word: u64) -> Option<u8> {
    if word == 0 {
        return None;
    }
    // Two halves of three steps each, without a branch inside.
    let one = longer(word, 0);
    let two = longer(one, 1);
    let three = longer(two, 2);
    if three == 0 {
        return Some((one != 0) as u8 + (two != 0) as u8);
    }
    let four = longer(three, 3);
    let five = longer(four, 4);
    Some(3 + (four != 0) as u8 + (five != 0) as u8 + (word == u64::MAX) as u8)
}

/// The mask of the 2<sup>`order`</sup> ones that start at `bit`; `bit` is a multiple of that.
pub(crate) const fn run_mask(bit: u32, order: u8) -> u64 {
    (u64::MAX >> (WORD_BITS - (1 << order))) << bit
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
    use super::{WORD_ORDER, largest_run, run_mask, runs, span_mask};
    use proptest::prelude::*;

    fn starts_here(word: u64, bit: u32, order: u8) -> bool {
        bit.trailing_zeros() >= u32::from(order)
            && (bit..bit + (1 << order)).all(|b| word >> b & 1 == 1)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 512 }) })]

        #[test]
        fn runs_are_the_aligned_stretches_of_ones(a: u64, b: u64, order in 0..=WORD_ORDER) {
            // The union of two random words is dense enough to have long runs now and then.
            for word in [a, a | b, a | b | a.rotate_left(17) | b.rotate_left(29), u64::MAX] {
                for bit in 0..64 {
                    prop_assert_eq!(runs(word, order) >> bit & 1 == 1, starts_here(word, bit, order));
                }
                let largest = (0..=WORD_ORDER).rev().find(|&n| runs(word, n) != 0);
                prop_assert_eq!(largest_run(word), largest);
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
        for order in 0..=WORD_ORDER {
            for bit in (0..64).step_by(1 << order) {
                assert_eq!(runs(run_mask(bit, order), order), 1 << bit);
            }
        }
    }
}
