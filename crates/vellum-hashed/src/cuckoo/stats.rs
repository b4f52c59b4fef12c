//! What a table counts of itself, for the checks of theory and for reports.

use super::{Cuckoo, Way};
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::Memory;

/// A number that is changed under the table's lock.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, n: u64) {
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    /// Makes it at least `n`.
    pub(super) fn raise(&self, n: u64) {
        self.0.store(self.get().max(n), Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) inserted: Count,
    pub(super) kicks: Count,
    pub(super) full: Count,
    pub(super) resizes: Count,
    pub(super) moved: Count,
    pub(super) worst_pause: Count,
}

/// How a table is filled, and what that has cost. A line holds up to eight entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Lines in use.
    pub lines: u64,
    /// Slots for lines, of all ways.
    pub slots: u64,
    /// Lines that were made, since the table was.
    pub inserted: u64,
    /// Lines that had to go to another way, for a new line or for a shrinking way.
    pub kicks: u64,
    /// Walks, or series of them, that found no way to a free slot.
    pub full: u64,
    /// Times that a way began to double or to halve.
    pub resizes: u64,
    /// Lines that were moved because a way has another size.
    pub moved: u64,
    /// Most of these in one call.
    pub worst_pause: u64,
}

impl<M: Memory, const WAYS: usize> Cuckoo<M, WAYS> {
    /// What the table has counted.
    pub fn statistics(&self) -> Statistics {
        let ways = || self.sizes.iter().flat_map(|ways| &ways.each);
        let counts = &self.counts;
        Statistics {
            lines: ways().map(Way::lines).sum(),
            slots: ways().map(Way::slots).sum(),
            inserted: counts.inserted.get(),
            kicks: counts.kicks.get(),
            full: counts.full.get(),
            resizes: counts.resizes.get(),
            moved: counts.moved.get(),
            worst_pause: counts.worst_pause.get(),
        }
    }
}
