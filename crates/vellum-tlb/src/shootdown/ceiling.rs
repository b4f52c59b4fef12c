//! [`Ceiling`]: from how many pages on it is cheaper to flush everything.
//!
//! ```text
//!   cost          page by page      /
//!    |                            /
//!    |      ____________________/______  everything, and the misses that follow
//!    |                        /|
//!    |                      /  |
//!    |                    /    |
//!    +------------------------ ceiling ------> pages
//! ```
//!
//! Linux takes 33 on all x86 machines. Where one invalidation costs 50 ns and a full flush 100 to
//! 400 (measured on a Zen 5 guest, misses not included), that is 4 to 16 times too many; hence it is
//! measured here. What the misses afterwards cost is for the caller to put into the price of a
//! full flush, by touching a working set after each.
//!
//! Source: Linux, arch/x86/mm/tlb.c, `tlb_single_page_flush_ceiling`, and
//! Documentation/arch/x86/tlb.rst.

/// The largest number of invalidations that are done one by one.
///
/// ```
/// use vellum_tlb::Ceiling;
///
/// let ceiling = Ceiling::calibrate(50, 400); // nanoseconds, or any other unit
/// assert!(ceiling.allows(8) && !ceiling.allows(9));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceiling(u64);

impl Ceiling {
    /// Eight: what is not measured is better too low than too high, since a full flush has an upper
    /// bound and single ones have none.
    pub const DEFAULT: Self = Self(8);

    /// Up to `count` invalidations one by one. With 0, every flush is a full one.
    #[must_use]
    pub const fn new(count: u64) -> Self {
        Self(count)
    }

    /// As many single invalidations as cost no more than a full flush, both in the same unit. At
    /// least one: a single page never takes a working set with it. If one costs nothing (the clock
    /// was too coarse), [`DEFAULT`](Self::DEFAULT).
    #[must_use]
    pub const fn calibrate(cost_of_one_page: u64, cost_of_full: u64) -> Self {
        match cost_of_full.checked_div(cost_of_one_page) {
            Some(0) => Self(1),
            Some(count) => Self(count),
            None => Self::DEFAULT,
        }
    }

    /// Measures both with `clock` (which may count anything, at any rate) and calibrates. `one`
    /// is an invalidation of a page, `full` a full flush with whatever it makes necessary.
    ///
    /// Each is timed over 32 calls, eight times, of which the quickest counts: interrupts only make
    /// it slower.
    #[must_use]
    pub fn measure(
        mut clock: impl FnMut() -> u64,
        mut one: impl FnMut(),
        mut full: impl FnMut(),
    ) -> Self {
        let one = quickest(&mut clock, &mut one);
        Self::calibrate(one, quickest(&mut clock, &mut full))
    }

    /// The number itself.
    #[must_use]
    pub const fn count(self) -> u64 {
        self.0
    }

    /// Whether so many invalidations are done one by one.
    #[must_use]
    pub const fn allows(self, count: u64) -> bool {
        count <= self.0
    }
}

impl Default for Ceiling {
    fn default() -> Self {
        Self::DEFAULT
    }
}

fn quickest(clock: &mut impl FnMut() -> u64, call: &mut impl FnMut()) -> u64 {
    const ROUNDS: usize = 8;
    const CALLS: usize = 32;
    let mut best = u64::MAX;
    for _ in 0..ROUNDS {
        let begin = clock();
        for _ in 0..CALLS {
            call();
        }
        best = best.min(clock().saturating_sub(begin));
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;

    #[test]
    fn the_ceiling_is_how_many_pages_a_full_flush_is_worth() {
        assert_eq!(Ceiling::calibrate(50, 400), Ceiling::new(8));
        assert_eq!(Ceiling::calibrate(50, 449), Ceiling::new(8));
        assert_eq!(Ceiling::calibrate(400, 50), Ceiling::new(1));
        assert_eq!(Ceiling::calibrate(0, 50), Ceiling::DEFAULT);
    }

    #[test]
    fn measuring_finds_the_costs_that_a_clock_shows_and_is_not_fooled_by_an_interrupt() {
        let (now, calls) = (Cell::new(0_u64), Cell::new(0));
        let spend = |ticks| {
            calls.set(calls.get() + 1);
            let interrupt = if calls.get() == 5 { 100_000 } else { 0 };
            now.set(now.get() + ticks + interrupt);
        };
        let ceiling = Ceiling::measure(|| now.get(), || spend(110), || spend(1300));
        assert_eq!(ceiling, Ceiling::new(11));
    }
}
