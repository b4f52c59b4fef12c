//! The allocators that paging replaced, beside paging, on one stream of processes.
//!
//! ```text
//!                       +--> first, next, best, worst fit --+--> none     --> refused though free,
//!   stream of processes |    (vellum_frame::fits)           +--> whole        holes, search, moves
//!   data/build.csv -----+                                   +--> least
//!   or --fits-stream    +--> frames of 4 KiB (vellum_frame::FrameAllocator)  --> internal waste
//! ```
//!
//! All have the same memory: unless the user says otherwise, as much as paging needs to refuse
//! nobody. Then whoever is refused is refused for lack of a hole, never for lack of memory.
//!
//! # Invariants
//!
//! - Nothing in the report depends on the host, nor on the number of threads.
//!
//! Source: D. E. Knuth, *The Art of Computer Programming*, vol. 1, 2.5; P. J. Denning, "Virtual
//! Memory", Computing Surveys 2(3), 1970.

mod contiguous;
mod paging;
pub mod recorder;
mod replay;
mod report;
pub mod stream;
mod table;

pub use contiguous::Compacting;
pub use report::{FITS_SCHEMA, FitRun, FitsReport, PagingRun, Refusal, StreamReport};
pub use table::render;

use crate::ram::RamError;
use contiguous::Trial;
use core::fmt;
use indicatif::ProgressBar;
use rayon::prelude::*;
use replay::Peak;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use stream::{MOST_BYTES, Stream, StreamError, StreamFault};
use vellum_core::PAGE_SIZE;
use vellum_frame::fits::{Fit, TableError};

/// What partitions are multiples of, as on a PDP-11.
pub const GRANULE: u64 = 64;

/// What the embedded stream is called.
pub const EMBEDDED: &str = "build";

/// What ran when it was recorded.
pub const EMBEDDED_SUMMARY: &str =
    "rustc and cc with 12 jobs, beside shells that sort and compress";

/// A comparison of fits broke off.
#[derive(Debug)]
#[non_exhaustive]
pub enum FitsError {
    /// The stream cannot be read.
    Stream(StreamError),
    /// Its processes take more memory at one time than is simulated.
    Peak {
        /// How much that is.
        bytes: u64,
    },
    /// The host has no memory for the account of frames.
    Ram(RamError),
    /// A table of partitions cannot be set up.
    Table(TableError),
}

impl fmt::Display for FitsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = crate::table::size;
        match self {
            Self::Stream(e) => e.fmt(f),
            Self::Peak { bytes } => write!(
                f,
                "the stream's processes take {} at one time, more than {} (--fits-memory gives less)",
                size(*bytes),
                size(MOST_BYTES)
            ),
            Self::Ram(e) => e.fmt(f),
            Self::Table(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for FitsError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Stream(e) => Some(e),
            Self::Peak { .. } => None,
            Self::Ram(e) => Some(e),
            Self::Table(e) => Some(e),
        }
    }
}

impl From<StreamError> for FitsError {
    fn from(e: StreamError) -> Self {
        Self::Stream(e)
    }
}

impl From<RamError> for FitsError {
    fn from(e: RamError) -> Self {
        Self::Ram(e)
    }
}

impl From<TableError> for FitsError {
    fn from(e: TableError) -> Self {
        Self::Table(e)
    }
}

/// Reads the stream in a file, or the embedded one.
///
/// # Errors
///
/// [`StreamError`], with file and line.
pub fn read(path: Option<&Path>) -> Result<Stream, StreamError> {
    let Some(path) = path else {
        return Stream::read(EMBEDDED, &include_bytes!("../data/build.csv")[..]);
    };
    let name = path.display().to_string();
    let failed = |e| StreamError { name: name.clone(), line: None, fault: StreamFault::Io(e) };
    let file = File::open(path).map_err(failed)?;
    Stream::read(&name, BufReader::new(file))
}

/// Replays the stream through every fit, with and without compaction, and through paging; `bar`
/// advances by one for each.
///
/// # Errors
///
/// [`FitsError`], but for that of reading.
pub fn compare(
    stream: &Stream,
    memory_bytes: Option<u64>,
    bar: &ProgressBar,
) -> Result<FitsReport, FitsError> {
    let peak = Peak::of(stream);
    let needed = peak.frames * PAGE_SIZE;
    let memory = memory_bytes.unwrap_or(needed);
    if memory > MOST_BYTES {
        return Err(FitsError::Peak { bytes: memory });
    }
    let ways = |fit| Compacting::ALL.map(|compacting| Trial { stream, peak, fit, compacting });
    let trials: Vec<Trial<'_>> = Fit::ALL.into_iter().flat_map(ways).collect();
    bar.set_length(trials.len() as u64 + 1);
    bar.set_message(stream.name.clone());
    let run = |trial: &Trial<'_>| {
        let run = trial.run(memory);
        bar.inc(1);
        run
    };
    let runs: Result<Vec<FitRun>, TableError> = trials.par_iter().map(run).collect();
    let report = FitsReport {
        fits_schema: FITS_SCHEMA,
        stream: describe(stream, peak),
        memory_bytes: memory,
        granule_bytes: GRANULE,
        runs: runs?,
        paging: paging::run(stream, memory, needed)?,
    };
    bar.finish_and_clear();
    Ok(report)
}

fn describe(stream: &Stream, peak: Peak) -> StreamReport {
    let mut sizes: Vec<u64> = stream.processes.iter().map(|p| p.segments.bytes()).collect();
    sizes.sort_unstable();
    let at = |n: usize| sizes.get(n).copied().unwrap_or(0);
    let last = sizes.len().saturating_sub(1);
    StreamReport {
        name: stream.name.clone(),
        processes: sizes.len() as u64,
        span_ms: stream.end_ms(),
        bytes_min: at(0),
        bytes_median: at(last / 2),
        bytes_max: at(last),
        peak_processes: peak.processes,
        peak_bytes: peak.bytes,
        peak_paged_bytes: peak.frames * PAGE_SIZE,
    }
}

#[cfg(test)]
mod tests;
