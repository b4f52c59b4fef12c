//! Numbers that look random, and are the same for the same seed on every host.
//!
//! Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014):
//! SplitMix64.

/// A generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// One of the generators that a seed has; those of neighbouring numbers have nothing in common.
    #[must_use]
    pub const fn new(seed: u64, number: u64) -> Self {
        let mut mix = Self(seed ^ 0x6a09_e667_f3bc_c909);
        let first = mix.next();
        let mut mix = Self(first ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        Self(mix.next())
    }

    /// The next 64 bits.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, 0 if that is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        // The higher half of a product of 128 bits: even enough, and without a division.
        ((self.next() as u128 * bound as u128) >> 64) as u64
    }

    /// Whether something happens that happens `percent` times in a hundred.
    pub const fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of these.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let at = self.below(from.len() as u64);
        from[usize::try_from(at).unwrap_or(0)]
    }

    /// One of these, as often as its weight says.
    ///
    /// # Panics
    ///
    /// If there are none.
    pub fn weighted<T: Copy>(&mut self, from: &[(u64, T)]) -> T {
        let mut at = self.below(from.iter().map(|&(weight, _)| weight).sum());
        for &(weight, item) in from {
            if at < weight {
                return item;
            }
            at -= weight;
        }
        from[0].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_below_a_bound_are_all_met_and_none_else() {
        let mut random = Random::new(1, 2);
        let mut met = [0; 7];
        (0..700).for_each(|_| met[random.below(7) as usize] += 1);
        assert!(met.iter().all(|&count| count > 50), "{met:?}");
        assert_eq!(random.below(0), 0);
    }

    #[test]
    fn neighbours_differ_and_equals_do_not() {
        let first = |seed, number| Random::new(seed, number).next();
        assert_eq!(first(1, 1), first(1, 1));
        assert_ne!(first(1, 1), first(1, 2));
        assert_ne!(first(1, 1), first(2, 1));
    }

    #[test]
    fn weights_are_kept() {
        let mut random = Random::new(3, 4);
        let picked = (0..1000).filter(|_| random.weighted(&[(9, true), (1, false)])).count();
        assert!((850..950).contains(&picked), "{picked}");
    }
}
