//! Counts of small numbers, for means and percentiles that are exact.
//!
//! ```text
//!   value    0   1   2   3   4 ...
//!   count    0  81  12   0   7        mean 1.33, p99 4, max 4
//! ```
//!
//! # Invariants
//!
//! - `total` is the sum of all counts, `sum` that of all values recorded.

/// How often each value occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    sum: u64,
}

impl Histogram {
    /// Counts one occurrence; memory grows with the largest value, so use it for small ones.
    pub fn record(&mut self, value: usize) {
        if value >= self.counts.len() {
            self.counts.resize(value + 1, 0);
        }
        self.counts[value] += 1;
        self.total += 1;
        self.sum += value as u64;
    }

    /// How many values were recorded.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// Their sum.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// By how much they exceed `least`, those that do, in all.
    #[must_use]
    pub fn sum_beyond(&self, least: u64) -> u64 {
        let counts = self.counts.iter().zip(0u64..);
        counts.map(|(count, value)| count * value.saturating_sub(least)).sum()
    }

    /// Their mean; 0 of none.
    #[must_use]
    pub fn mean(&self) -> f64 {
        mean(self.sum, self.total)
    }

    /// The smallest value that at least `percent` in a hundred of all values do not exceed
    /// (nearest rank); 0 of none.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let rank = (self.total * percent).div_ceil(100).max(1);
        let mut below = 0;
        for (value, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return value as u64;
            }
        }
        0
    }

    /// The largest value; 0 of none.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.counts.len().saturating_sub(1) as u64
    }
}

/// `sum / count`; 0 where there is nothing to divide by.
#[must_use]
pub fn mean(sum: u64, count: u64) -> f64 {
    if count == 0 { 0.0 } else { sum as f64 / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_the_sorted_list(
            mut values in proptest::collection::vec(0usize..40, 1..300),
            percent in 1u64..=100,
        ) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|&v| histogram.record(v));
            values.sort_unstable();
            let rank = (values.len() * percent as usize).div_ceil(100);
            prop_assert_eq!(histogram.percentile(percent), values[rank - 1] as u64);
            prop_assert_eq!(histogram.max(), values[values.len() - 1] as u64);
            let mean = values.iter().sum::<usize>() as f64 / values.len() as f64;
            prop_assert!((histogram.mean() - mean).abs() < 1e-12);
            prop_assert_eq!(histogram.total(), values.len() as u64);
            prop_assert_eq!(histogram.sum(), values.iter().sum::<usize>() as u64);
            let beyond: usize = values.iter().map(|v| v.saturating_sub(7)).sum();
            prop_assert_eq!(histogram.sum_beyond(7), beyond as u64);
        }
    }

    #[test]
    fn of_nothing_everything_is_zero() {
        let none = Histogram::default();
        assert_eq!((none.percentile(99), none.max(), none.total()), (0, 0, 0));
        assert!(none.mean() < f64::MIN_POSITIVE);
    }
}
