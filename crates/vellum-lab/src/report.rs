//! What a comparison found, in the shape of its JSON.
//!
//! ```text
//!   { "schema": 2, "runs": [ { "trace": .., "design": ..,
//!        "tlb":   { "l1d_misses": .., "l1i_misses": .., "l2_misses": .. },
//!        "walk":  { "count": .., "refs_mean": .., .. },
//!        "table": { "bytes": .., "bytes_per_page": .., "largest_contiguous_bytes": .. } }, .. ] }
//! ```
//!
//! Every field is described in docs/report.md. Everything in here is reproducible to the bit;
//! speeds of the machine that ran it are not, and stay out.
//!
//! # Invariants
//!
//! - A run has either `tlb` and `walk`, or `unsupported`.
//! - No field depends on the host: see docs/report.md.

use crate::designs::structure::StructureReport;
use crate::histogram::mean;
use crate::parts::forks::ForksReport;
use crate::parts::huge::HugeReport;
use crate::parts::ops::OpsReport;
use crate::parts::resize::ResizeReport;
use crate::parts::sparsity::SparsityReport;
use crate::parts::switches::SwitchesReport;
use crate::parts::tlb::TlbSizeReport;
use crate::ram::Meter;
use crate::replay::{Job, Measured};
use crate::trace::Trace;
use serde::{Deserialize, Serialize};
use vellum_core::PAGE_SIZE;

mod output;
mod shard;

pub use shard::{MergeError, Shard};

pub use output::{OutputError, check_writable, fills_stdout, write, write_with};

/// The version of the shape; it changes when a field changes its meaning or goes.
pub const SCHEMA: u32 = 2;

/// A whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Which rows these are, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// One for each trace, machine and design.
    pub runs: Vec<Run>,
    /// What operations cost: one for each design.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<OpsReport>,
    /// Bytes for each page: one for each spread of pages and design.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sparsity: Vec<SparsityReport>,
    /// Filling and emptying: one for each design.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resize: Vec<ResizeReport>,
    /// Switches between processes: one for each quantum, with and without identifiers, and design.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switches: Vec<SwitchesReport>,
    /// Leaves of 2 MiB: one for each trace, policy and design.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub huge: Vec<HugeReport>,
    /// A program that forks: one for each design.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forks: Vec<ForksReport>,
    /// Second-level TLBs of several sizes: one for each trace and size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tlb: Vec<TlbSizeReport>,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            shard: None,
            runs: Vec::new(),
            ops: Vec::new(),
            sparsity: Vec::new(),
            resize: Vec::new(),
            switches: Vec::new(),
            huge: Vec::new(),
            forks: Vec::new(),
            tlb: Vec::new(),
        }
    }
}

/// A place in a sweep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepPoint {
    /// What is swept.
    pub over: SweepAxis,
    /// What it is here.
    pub value: u64,
}

/// What a sweep goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SweepAxis {
    /// Entries of the second-level TLB.
    L2,
    /// Pages of the workload's data.
    Pages,
}

/// One design on one trace, or on one mix of traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The trace's name; those of a mix are joined by `+`.
    pub trace: String,
    /// The design's name.
    pub design: String,
    /// The TLB's name.
    pub tlb_preset: String,
    /// Sizes of the walk caches, as `span:entries,...`, or `none`.
    pub walk_cache: String,
    /// The cache model's name.
    pub cache: String,
    /// Whether address spaces had identifiers.
    pub asid: bool,
    /// Its place in a sweep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweep: Option<SweepPoint>,
    /// Events replayed.
    pub events: u64,
    /// Different pages among them; of a mix the sum over its traces.
    pub pages: u64,
    /// Why the design was not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsupported: Option<String>,
    /// Pages faulted in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faults: Option<u64>,
    /// Changes of process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switches: Option<u64>,
    /// Misses of the TLB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tlb: Option<TlbReport>,
    /// What walks cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub walk: Option<WalkReport>,
    /// What the table takes; of a design that was not run what it would take, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<TableReport>,
    /// How a table that all spaces share is filled at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structure: Option<StructureReport>,
}

/// Misses of the TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlbReport {
    /// First level, data.
    pub l1d_misses: u64,
    /// First level, instructions.
    pub l1i_misses: u64,
    /// Second level: each is a walk.
    pub l2_misses: u64,
    /// Bytes that the second level covers with pages of 4 KiB.
    #[serde(default)]
    pub l2_reach_bytes: u64,
}

/// What successful walks cost, after the walk caches.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct WalkReport {
    /// How many there were.
    pub count: u64,
    /// Entries read: mean.
    pub refs_mean: f64,
    /// Entries read: median, nearest rank.
    #[serde(default)]
    pub refs_p50: u64,
    /// Entries read: 99th percentile, nearest rank.
    pub refs_p99: u64,
    /// Entries read: most.
    pub refs_max: u64,
    /// Different cache lines touched: mean.
    pub lines_mean: f64,
    /// Lines that missed in the cache model: mean.
    pub cache_misses_mean: f64,
    /// Cycles by the cache model: mean.
    pub cycles_mean: f64,
}

/// What the table takes in memory.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableReport {
    /// Bytes of its frames at the end.
    pub bytes: u64,
    /// The same for each page of the trace.
    pub bytes_per_page: f64,
    /// The most that they ever were.
    pub peak_bytes: u64,
    /// The largest single block that it ever had.
    pub largest_contiguous_bytes: u64,
}

impl Run {
    /// What a run of these traces is called: their names, joined by `+`; of processes of one
    /// workload, which have one name, one.
    #[must_use]
    pub fn name_of(traces: &[Trace]) -> String {
        let mut names: Vec<&str> = traces.iter().map(|trace| trace.name.as_str()).collect();
        names.dedup_by(|a, b| a == b && a.starts_with("processes:"));
        names.join("+")
    }

    /// What translation costs by the cache model: cycles of walks for each event.
    #[must_use]
    pub fn walk_cycles_per_event(&self) -> Option<f64> {
        let walk = self.walk?;
        Some(walk.cycles_mean * walk.count as f64 / self.events.max(1) as f64)
    }

    /// What a replay measured.
    #[must_use]
    pub fn measured(job: &Job<'_>, design: &str, measured: &Measured, meter: Meter) -> Self {
        let tlb = measured.machine.tlb_counts();
        let walk = measured.machine.walk_counts();
        let count = walk.refs.total();
        Self {
            faults: Some(measured.faults),
            switches: (job.traces.len() > 1).then_some(measured.switches),
            tlb: Some(TlbReport {
                l1d_misses: tlb.l1d_misses,
                l1i_misses: tlb.l1i_misses,
                l2_misses: tlb.l2_misses,
                l2_reach_bytes: u64::from(job.machine.tlb.l2.entries()) * PAGE_SIZE,
            }),
            walk: Some(WalkReport {
                count,
                refs_mean: walk.refs.mean(),
                refs_p50: walk.refs.percentile(50),
                refs_p99: walk.refs.percentile(99),
                refs_max: walk.refs.max(),
                lines_mean: walk.lines.mean(),
                cache_misses_mean: mean(walk.cache_misses, count),
                cycles_mean: mean(walk.cycles, count),
            }),
            table: Some(TableReport::new(job, meter)),
            ..Self::named(job, design)
        }
    }

    /// A design that cannot hold the trace; `bytes` is what it would take, all in one block.
    #[must_use]
    pub fn unsupported(job: &Job<'_>, design: &str, reason: &str, bytes: Option<u64>) -> Self {
        Self {
            unsupported: Some(reason.to_owned()),
            table: bytes.map(|n| TableReport::new(job, Meter { now: n, peak: n, largest: n })),
            ..Self::named(job, design)
        }
    }

    fn named(job: &Job<'_>, design: &str) -> Self {
        Self {
            trace: job.name(),
            design: design.to_owned(),
            tlb_preset: job.machine.tlb.name.to_owned(),
            walk_cache: job.machine.walk_caches_text(),
            cache: job.machine.cache.name.to_owned(),
            asid: job.asids,
            sweep: None,
            events: job.count_events(),
            pages: job.count_pages(),
            unsupported: None,
            faults: None,
            switches: None,
            tlb: None,
            walk: None,
            table: None,
            structure: None,
        }
    }
}

impl TableReport {
    fn new(job: &Job<'_>, meter: Meter) -> Self {
        Self {
            bytes: meter.now,
            bytes_per_page: mean(meter.now, job.count_pages()),
            peak_bytes: meter.peak,
            largest_contiguous_bytes: meter.largest,
        }
    }
}

#[cfg(test)]
mod tests;
