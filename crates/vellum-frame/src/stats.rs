//! [`Stats`]: how much is free, and in what sizes.
//!
//! ```text
//!   free runs     [1 2 3 4 5 6 7 8)        [20 21)
//!   by order       0 1--- 2------ 0         2^0+2^0        as a buddy system would list them
//! ```
//!
//! Counted from the bits when asked, so that neither `alloc` nor `free` counts anything.
//!
//! Source of both indices: M. Gorman, A. Whitcroft, "Measuring the Impact of the Linux Memory
//! Manager", Libre Software Meeting 2005; as in Linux, in thousandths.

use crate::allocator::{FrameAllocator, MAX_ORDER};

const ORDERS: usize = MAX_ORDER as usize + 1;

/// How many frames there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Frames that this allocator deals in, free or not.
    pub total: u64,
    /// Frames that are free; those in CPUs' caches are not.
    pub free: u64,
    /// Frames between the first and the last of `total` that it never gives: reserved, holes, and
    /// its own metadata where that lies between them.
    pub reserved: u64,
    /// The largest order that could be had now; `None` if nothing is free.
    pub largest: Option<u8>,
    /// Free blocks of each order, each frame in the largest block that has it.
    pub blocks: [u64; ORDERS],
}

impl Stats {
    /// Counts the free run of `count` frames at `first` as aligned blocks, the largest that fit.
    fn add_run(&mut self, mut first: u64, mut count: u64) {
        self.free += count;
        while count > 0 {
            let order = largest_at(first, count);
            self.blocks[usize::from(order)] += 1;
            self.largest = self.largest.max(Some(order));
            first += 1 << order;
            count -= 1 << order;
        }
    }

    /// How many blocks of `order` could be had, one after the other; 0 above
    /// [`MAX_ORDER`](crate::MAX_ORDER).
    #[must_use]
    pub fn available(&self, order: u8) -> u64 {
        let larger = self.blocks.iter().enumerate().skip(usize::from(order));
        larger.fold(0, |sum, (n, &blocks)| {
            sum.saturating_add(blocks.saturating_mul(1 << (n - usize::from(order))))
        })
    }

    /// How much of the free memory is of no use for blocks of `order`: from 0 (all of it is in such
    /// blocks) to 1000 (none is, or nothing is free).
    #[must_use]
    pub fn unusable_index(&self, order: u8) -> u32 {
        let usable =
            if order > MAX_ORDER { 0 } else { self.available(order).saturating_mul(1 << order) };
        if self.free == 0 {
            return 1000;
        }
        // Frames are fewer than 2^52, so thousandths of them fit. (The fields are anybody's to set.)
        1000 - (usable.saturating_mul(1000) / self.free).min(1000) as u32
    }

    /// Why a block of `order` cannot be had: towards 0 for want of memory, towards 1000 because
    /// what is free lies scattered. `None` if it can be had, or above
    /// [`MAX_ORDER`](crate::MAX_ORDER).
    #[must_use]
    pub fn fragmentation_index(&self, order: u8) -> Option<u32> {
        if order > MAX_ORDER || self.available(order) > 0 {
            return None;
        }
        let blocks = self.blocks.iter().fold(0_u64, |sum, &n| sum.saturating_add(n));
        if blocks == 0 {
            return Some(0);
        }
        // (free / 2^order) / blocks is the size of a free block as a part of what is asked for.
        let size = (self.free.saturating_mul(1000) >> order).saturating_add(1000) / blocks;
        Some(1000_u64.saturating_sub(size) as u32)
    }
}

/// The order of the largest aligned block that begins at `first` and has at most `count` frames,
/// which are at least one.
pub(crate) fn largest_at(first: u64, count: u64) -> u8 {
    let aligned = first.trailing_zeros().min(u32::from(MAX_ORDER));
    aligned.min(count.ilog2()) as u8
}

impl FrameAllocator<'_> {
    /// Counts frames. Reads all metadata; while others allocate and free, a near guess.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Some(tree) = self.tree() else { return Stats::default() };
        let (first, end) = tree.regions.bounds();
        let total = tree.regions.total();
        let mut stats = Stats { total, reserved: end - first - total, ..Stats::default() };
        for (start, count) in self.free_runs() {
            stats.add_run(start.number().as_u64(), count);
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::{ORDERS, Stats};
    use proptest::prelude::*;

    #[test]
    fn a_run_counts_as_the_largest_aligned_blocks_in_it() {
        let mut stats = Stats::default();
        stats.add_run(1, 8);
        stats.add_run(20, 2);
        stats.add_run(1 << 20, (1 << 19) + 1);
        let mut want = [0; ORDERS];
        (want[0], want[1], want[2], want[18]) = (3, 2, 1, 2);
        assert_eq!((stats.blocks, stats.free, stats.largest), (want, 11 + (1 << 19), Some(18)));
    }

    #[test]
    fn indices_tell_want_from_scatter() {
        // 64 single frames: 64 frames are free, but no pair.
        let mut scattered = Stats::default();
        for n in 0..64 {
            scattered.add_run(2 * n, 1);
        }
        assert_eq!(scattered.unusable_index(0), 0);
        assert_eq!(scattered.unusable_index(1), 1000);
        assert_eq!(scattered.fragmentation_index(0), None);
        // 1000 - (1000 + 64 * 1000 / 64) / 64, as Linux reckons.
        assert_eq!(scattered.fragmentation_index(6), Some(969));
        // One frame is free: more memory would help, order would not.
        let mut short = Stats::default();
        short.add_run(0, 1);
        assert_eq!(short.fragmentation_index(6), Some(0));
        assert_eq!(Stats::default().fragmentation_index(0), Some(0));
        assert_eq!(Stats::default().unusable_index(0), 1000);
        assert_eq!(scattered.unusable_index(200), 1000);
        assert_eq!(scattered.fragmentation_index(19), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None,
            ..ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }) })]

        #[test]
        fn blocks_add_up_to_the_frames(
            first in 0u64..1 << 40,
            count in 1u64..1 << if cfg!(miri) { 22 } else { 40 },
        ) {
            let mut stats = Stats::default();
            stats.add_run(first, count);
            prop_assert_eq!(stats.available(0), count);
            for order in 0..ORDERS as u8 {
                let start = first.next_multiple_of(1 << order);
                let fit = (first + count).saturating_sub(start) >> order;
                prop_assert_eq!(stats.available(order), fit);
            }
        }
    }
}
