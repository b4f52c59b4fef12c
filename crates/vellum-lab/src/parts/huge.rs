//! The traces with leaves of 2 MiB, by several policies of promotion.
//!
//! ```text
//!   off            4 KiB pages alone
//!   touched 512    a region all of whose pages were touched becomes one leaf
//!   touched 64     one of which an eighth was
//!   touched 1      at the first fault
//! ```
//!
//! What a policy is taken for is told in `replay/promote.rs`. Of each trace the first [`EVENTS`] are
//! replayed.

use crate::replay::{Policy, Promotions};
use crate::report::Run;
use serde::{Deserialize, Serialize};

/// The policies of the report.
pub const POLICIES: [Option<Policy>; 4] = [
    None,
    Some(Policy { touched: 512 }),
    Some(Policy { touched: 64 }),
    Some(Policy { touched: 1 }),
];

/// Events of each trace.
pub const EVENTS: usize = 4_000_000;

/// One design on one trace, with one policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HugeReport {
    /// The trace's name.
    pub trace: String,
    /// The design's name.
    pub design: String,
    /// Pages of 2 MiB that have to be touched for it to become one leaf; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub touched: Option<u16>,
    /// Events replayed.
    pub events: u64,
    /// Different pages of 4 KiB among them.
    pub pages: u64,
    /// Why the design was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// Regions that became one leaf.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promotions: Option<u64>,
    /// Pages of 4 KiB in them that nobody had touched then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pages_filled: Option<u64>,
    /// Faults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<u64>,
    /// Walks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walks: Option<u64>,
    /// Entries that a walk read: mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refs_mean: Option<f64>,
    /// Cycles of walks, by the cache model, for each event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk_cycles_per_event: Option<f64>,
    /// Bytes of tables at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_bytes: Option<u64>,
}

impl HugeReport {
    /// The row of such a run.
    #[must_use]
    pub fn new(run: Run, policy: Option<Policy>, promotions: Option<Promotions>) -> Self {
        Self {
            touched: policy.map(|policy| policy.touched),
            promotions: promotions.map(|p| p.count),
            pages_filled: promotions.map(|p| p.pages_filled),
            faults: run.faults,
            walks: run.walk.map(|walk| walk.count),
            refs_mean: run.walk.map(|walk| walk.refs_mean),
            walk_cycles_per_event: run.walk_cycles_per_event(),
            table_bytes: run.table.map(|table| table.bytes),
            trace: run.trace,
            design: run.design,
            events: run.events,
            pages: run.pages,
            unsupported: run.unsupported,
        }
    }
}
