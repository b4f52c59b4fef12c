//! Refault distances: how much more memory would have kept the pages that came back.
//!
//! ```text
//!   evicted at 100 ------- 40 others evicted -------> comes back at 140:  distance 40
//!
//!   bucket   0   1   2-3   4-7   8-15   16-31   32-63  ...     refaults by log2 of their distance
//!            .   .    .     .     .       .       #
//! ```
//!
//! A page that comes back after d evictions would still be there with about d frames more, if the policy
//! were LRU or near it. So the histogram is a curve: refaults that would not have been, by frames added.
//! Distances are counted by the policies themselves ([`Arrival::distance`]).
//!
//! # Invariants
//!
//! - The buckets' sum is the number of refaults, but for counts at their limit.
//!
//! Source: Linux, mm/workingset.c, J. Weiner's "refault distance"; Mattson and others, 1970, for the curve.

use crate::replacement::Arrival;

/// A bucket for distance 0, and one for each length in bits.
const BUCKETS: usize = 33;

/// A histogram of refault distances.
#[derive(Clone, Debug)]
pub struct Refaults {
    buckets: [u64; BUCKETS],
    fresh: u64,
}

impl Refaults {
    /// An empty one.
    #[must_use]
    pub const fn new() -> Self {
        Self { buckets: [0; BUCKETS], fresh: 0 }
    }

    /// Counts an arrival. O(1).
    pub fn note(&mut self, arrival: Arrival) {
        let Some(distance) = arrival.distance() else {
            self.fresh += 1;
            return;
        };
        let bits = u32::BITS - distance.leading_zeros();
        if let Some(count) = self.buckets.get_mut(bits as usize) {
            *count = count.saturating_add(1);
        }
    }

    /// Arrivals of pages that were not here before.
    #[must_use]
    pub const fn fresh(&self) -> u64 {
        self.fresh
    }

    /// Arrivals of pages that were.
    #[must_use]
    pub fn refaults(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Refaults that so many frames more would have avoided, at least: those in whole buckets up to there.
    #[must_use]
    pub fn avoided_by(&self, frames: u32) -> u64 {
        let whole = |bits: u32| bits < u32::BITS && (1u64 << bits) - 1 <= u64::from(frames);
        (0..).zip(&self.buckets).filter(|&(bits, _)| whole(bits)).map(|(_, count)| count).sum()
    }

    /// Halves all counts, so that what is long ago counts less: once in a while.
    pub fn decay(&mut self) {
        self.buckets.iter_mut().for_each(|count| *count /= 2);
        self.fresh /= 2;
    }
}

impl Default for Refaults {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(distance: u32) -> Arrival {
        Arrival { ghost: None, distance: Some(distance) }
    }

    #[test]
    fn more_frames_avoid_what_came_back_sooner() {
        let mut refaults = Refaults::new();
        for distance in [0, 1, 2, 3, 4, 40, u32::MAX] {
            refaults.note(at(distance));
        }
        refaults.note(Arrival::FRESH);
        assert_eq!((refaults.refaults(), refaults.fresh()), (7, 1));
        let avoided = [0, 1, 2, 3, 7, 62, 63].map(|frames| refaults.avoided_by(frames));
        assert_eq!(avoided, [1, 2, 2, 4, 5, 5, 6]);
        refaults.decay();
        assert_eq!(refaults.refaults(), 1, "only 2 and 3 share a bucket");
    }
}
