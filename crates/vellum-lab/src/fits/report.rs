//! What a comparison of fits found, in the shape of its JSON.
//!
//! ```text
//!   { "fits_schema": 1, "stream": { .. }, "memory_bytes": .., "granule_bytes": ..,
//!     "runs": [ { "fit": "first", "compaction": "none", "refused": .., .. }, .. ],
//!     "paging": { "refused": .., "internal_bytes_mean": .., .. } }
//! ```
//!
//! Every field is described in docs/report.md.
//!
//! # Invariants
//!
//! - No field depends on the host, nor on anything but stream, memory and version.

use serde::{Deserialize, Serialize};

/// The version of the shape; it changes when a field changes its meaning or goes.
pub const FITS_SCHEMA: u32 = 1;

/// A whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitsReport {
    /// [`FITS_SCHEMA`].
    pub fits_schema: u32,
    /// What was replayed.
    pub stream: StreamReport,
    /// The memory that each had.
    pub memory_bytes: u64,
    /// What contiguous allocation rounds sizes up to.
    pub granule_bytes: u64,
    /// One for each fit and way of compaction.
    pub runs: Vec<FitRun>,
    /// The same stream in frames of 4 KiB.
    pub paging: PagingRun,
}

/// The stream in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// What it is called.
    pub name: String,
    /// Processes.
    pub processes: u64,
    /// From the beginning of the recording to the end of the last process.
    pub span_ms: u64,
    /// The smallest process.
    pub bytes_min: u64,
    /// The process in the middle, of two the smaller.
    pub bytes_median: u64,
    /// The largest process.
    pub bytes_max: u64,
    /// The most processes at one time.
    pub peak_processes: u64,
    /// The most bytes of processes at one time.
    pub peak_bytes: u64,
    /// The same in whole pages.
    pub peak_paged_bytes: u64,
}

/// One fit with one way of compaction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitRun {
    /// The fit's name.
    pub fit: String,
    /// When it compacts: `none`, `whole` or `least`.
    pub compaction: String,
    /// Processes that asked for memory.
    pub requests: u64,
    /// Those that got none.
    pub refused: u64,
    /// Of these, those for which enough was free.
    pub refused_though_free: u64,
    /// The first of those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_though_free: Option<Refusal>,
    /// 1 - largest hole / free memory, as each request found it: mean.
    pub external_mean: f64,
    /// The most that it was for a request.
    pub external_max: f64,
    /// Holes, as each request found them: mean.
    pub holes_mean: f64,
    /// Bytes that rounding to the granule wasted, for each process loaded: mean.
    pub internal_bytes_mean: f64,
    /// Holes looked at, for each request: mean.
    pub examined_mean: f64,
    /// The most for one request.
    pub examined_max: u64,
    /// How often memory was compacted.
    pub compactions: u64,
    /// Partitions moved.
    pub moves: u64,
    /// Bytes moved.
    pub moved_bytes: u64,
    /// The least memory with which nothing is refused, in steps of a hundredth of what paging needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed_bytes: Option<u64>,
}

/// A process that was refused though enough was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which, counted from 1 in the order of arrival.
    pub request: u64,
    /// When it arrived.
    pub arrival_ms: u64,
    /// What it asked for.
    pub bytes: u64,
    /// What was free.
    pub free_bytes: u64,
    /// In how many holes.
    pub holes: u64,
    /// The largest of them.
    pub largest_bytes: u64,
}

/// The stream in frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PagingRun {
    /// Bytes of a frame.
    pub page_bytes: u64,
    /// Processes that asked for memory.
    pub requests: u64,
    /// Those that got none.
    pub refused: u64,
    /// Of these, those for which enough frames were free.
    pub refused_though_free: u64,
    /// Bytes unused in the last pages of segments, for each process loaded: mean.
    pub internal_bytes_mean: f64,
    /// The most for one process.
    pub internal_bytes_max: u64,
    /// The same of all processes, as a part of the memory that they were given.
    pub internal_share: f64,
    /// The least memory with which nothing is refused.
    pub needed_bytes: u64,
}
