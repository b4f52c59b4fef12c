//! How a global table is filled: what its own counters say, in words that all designs share.
//!
//! ```text
//!                  places      used              overflow                  displaced
//!   chained        buckets     not empty         nodes behind the first    -
//!   clustered      buckets     not empty         nodes behind the first    -
//!   htab           slots       entries in them   entries in chains         pushed out of a group
//!   cuckoo         slots       lines in them     -                         lines sent to another way
//!   line8          homes       lines             -                         -
//!   inverted       anchors     -                 entries in alias nodes    -
//! ```
//!
//! A tree has none of this.
//!
//! # Invariants
//!
//! - Everything is of the moment but `displaced` and `rehashes`, which are since the table was made.

use core::fmt::Debug;
use serde::{Deserialize, Serialize};
use vellum_core::Memory;
use vellum_hashed::{Chained, Clustered, Cuckoo, Htab, Line8};
use vellum_inverted::Inverted;

/// Slots of a group.
const GROUP: u64 = 8;

/// How a table is filled, and what that has cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StructureReport {
    /// Where a key may be looked for first.
    pub places: u64,
    /// Places that are in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// What is not in a place, but behind one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overflow: Option<u64>,
    /// What had to leave its place for something new, so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub displaced: Option<u64>,
    /// How often the number of places has begun to double or to halve; of ways, each one's.
    pub rehashes: u64,
}

/// A table that can be asked how it is filled.
pub trait Structure: Debug {
    /// Where a key may be looked for first.
    fn places(&self) -> u64;

    /// How it is filled, but for the rehashes of a table that does not count them.
    fn structure(&self) -> StructureReport;
}

/// A table, and how many places it had to begin with.
#[derive(Debug)]
pub struct Watched<'t> {
    table: &'t dyn Structure,
    first: u64,
}

impl<'t> Watched<'t> {
    /// Begins to watch a table that was just made.
    #[must_use]
    pub fn new(table: &'t dyn Structure) -> Self {
        Self { table, first: table.places().max(1) }
    }

    /// How the table is filled now.
    #[must_use]
    pub fn structure(&self) -> StructureReport {
        let now = self.table.structure();
        let log2 = |places: u64| u64::from(places.max(1).next_power_of_two().ilog2());
        let doubled = log2(now.places).abs_diff(log2(self.first));
        StructureReport { rehashes: now.rehashes.max(doubled), ..now }
    }
}

/// Of buckets with so many nodes each: how it is filled.
fn chains(nodes: impl Iterator<Item = u64>) -> StructureReport {
    let (mut places, mut used, mut overflow) = (0, 0, 0);
    for nodes in nodes {
        places += 1;
        used += u64::from(nodes > 0);
        overflow += nodes.saturating_sub(1);
    }
    StructureReport {
        places,
        used: Some(used),
        overflow: Some(overflow),
        ..StructureReport::default()
    }
}

impl<M: Memory> Structure for Chained<M> {
    fn places(&self) -> u64 {
        self.count_buckets()
    }

    fn structure(&self) -> StructureReport {
        chains((0..self.count_buckets()).map(|bucket| self.count_in_bucket(bucket)))
    }
}

impl<M: Memory, const PAGES: usize> Structure for Clustered<M, PAGES> {
    fn places(&self) -> u64 {
        self.count_buckets()
    }

    fn structure(&self) -> StructureReport {
        chains((0..self.count_buckets()).map(|bucket| self.count_in_bucket(bucket)))
    }
}

impl<M: Memory> Structure for Htab<M> {
    fn places(&self) -> u64 {
        self.count_groups() * GROUP
    }

    fn structure(&self) -> StructureReport {
        let census = self.census();
        StructureReport {
            places: self.places(),
            used: Some(census.primary + census.secondary),
            overflow: Some(census.overflow),
            displaced: Some(self.count_evictions()),
            rehashes: 0,
        }
    }
}

impl<M: Memory, const WAYS: usize> Structure for Cuckoo<M, WAYS> {
    fn places(&self) -> u64 {
        self.statistics().slots
    }

    fn structure(&self) -> StructureReport {
        let statistics = self.statistics();
        StructureReport {
            places: statistics.slots,
            used: Some(statistics.lines),
            overflow: None,
            displaced: Some(statistics.kicks),
            rehashes: statistics.resizes,
        }
    }
}

impl<M: Memory, const ROBIN_HOOD: bool> Structure for Line8<M, ROBIN_HOOD> {
    fn places(&self) -> u64 {
        self.statistics().homes
    }

    fn structure(&self) -> StructureReport {
        let statistics = self.statistics();
        StructureReport {
            places: statistics.homes,
            used: Some(statistics.lines),
            ..StructureReport::default()
        }
    }
}

impl<M: Memory> Structure for Inverted<M> {
    fn places(&self) -> u64 {
        self.count_anchors()
    }

    fn structure(&self) -> StructureReport {
        StructureReport {
            places: self.count_anchors(),
            overflow: Some(self.count_aliases()),
            ..StructureReport::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fake(core::cell::Cell<StructureReport>);

    impl Structure for Fake {
        fn places(&self) -> u64 {
            self.0.get().places
        }

        fn structure(&self) -> StructureReport {
            self.0.get()
        }
    }

    #[test]
    fn buckets_are_counted_by_their_nodes() {
        let filled = chains([0, 1, 3, 0, 2].into_iter());
        assert_eq!((filled.places, filled.used, filled.overflow), (5, Some(3), Some(3)));
    }

    #[test]
    fn a_table_that_does_not_count_its_rehashes_shows_them_by_its_size() {
        let table =
            Fake(core::cell::Cell::new(StructureReport { places: 64, ..Default::default() }));
        let watched = Watched::new(&table);
        assert_eq!(watched.structure().rehashes, 0);
        for (places, rehashes) in [(65, 1), (128, 1), (1000, 4), (16, 2)] {
            table.0.set(StructureReport { places, ..Default::default() });
            assert_eq!(watched.structure().rehashes, rehashes, "{places}");
        }
        table.0.set(StructureReport { places: 64, rehashes: 9, ..Default::default() });
        assert_eq!(watched.structure().rehashes, 9, "its own count");
    }
}
