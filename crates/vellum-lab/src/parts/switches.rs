//! The traces as processes of one CPU: what switching between them costs, by quantum, with and
//! without identifiers of address spaces.
//!
//! ```text
//!   quantum      | a | b | c | d | a | ...
//!   with asids     a switch flushes nothing
//!   without        a switch flushes TLB and walk caches
//! ```
//!
//! Of each trace the first [`EVENTS`] are replayed; workloads are left out where there are two others.

use crate::report::Run;
use serde::{Deserialize, Serialize};

/// Events that a process gets at a time.
pub const QUANTA: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Events of each trace.
pub const EVENTS: usize = 2_000_000;

/// One design at one quantum, with or without identifiers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SwitchesReport {
    /// The traces, joined by `+`.
    pub trace: String,
    /// The design's name.
    pub design: String,
    /// Events that a process gets at a time.
    pub quantum: u64,
    /// Whether address spaces had identifiers.
    pub asid: bool,
    /// Events of all processes.
    pub events: u64,
    /// Why the design was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// Changes of process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switches: Option<u64>,
    /// Walks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walks: Option<u64>,
    /// Entries that a walk read: mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refs_mean: Option<f64>,
    /// Cycles of walks, by the cache model, for each event: what translation costs in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk_cycles_per_event: Option<f64>,
}

impl SwitchesReport {
    /// The row of such a run.
    #[must_use]
    pub fn new(run: Run, quantum: usize) -> Self {
        Self {
            quantum: quantum as u64,
            switches: run.switches,
            walks: run.walk.map(|walk| walk.count),
            refs_mean: run.walk.map(|walk| walk.refs_mean),
            walk_cycles_per_event: run.walk_cycles_per_event(),
            trace: run.trace,
            design: run.design,
            asid: run.asid,
            events: run.events,
            unsupported: run.unsupported,
        }
    }
}
