//! The stream in partitions: every process in one piece.
//!
//! ```text
//!   load:   alloc --Ok--------------------------------------> loaded
//!             |
//!          NoHole --free < size------------------------------> refused
//!             +-----free >= size, no compaction -------------> refused though free
//!             +-----free >= size --compact, alloc again -----> loaded
//! ```
//!
//! Source: the table is `vellum_frame::fits`.

use super::GRANULE;
use super::replay::{Loader, Peak, replay};
use super::report::{FitRun, Refusal};
use super::stream::{Process, Stream};
use crate::histogram::mean;
use vellum_core::{PAGE_SIZE, PhysAddr};
use vellum_frame::fits::{
    Compaction, Effort, Fit, FitError, Partition, Partitions, Record, TableError, records_for,
};

/// When memory is compacted, and how much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compacting {
    /// Never.
    Never,
    /// All of it, when a process would be refused though enough is free.
    Whole,
    /// Then too, but only as much as makes room for the process.
    Least,
}

impl Compacting {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Never, Self::Whole, Self::Least];

    /// What reports call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "none",
            Self::Whole => "whole",
            Self::Least => "least",
        }
    }
}

/// What was counted.
#[derive(Default)]
struct Counts {
    requests: u64,
    loaded: u64,
    refused: u64,
    though_free: u64,
    first: Option<Refusal>,
    external: f64,
    external_max: f64,
    holes: u64,
    internal: u64,
    examined_max: u64,
    compactions: u64,
    moved: Compaction,
}

struct Memory<'m> {
    table: Partitions<'m>,
    compacting: Compacting,
    /// Only whether anybody is refused matters.
    until_refused: bool,
    counts: Counts,
}

impl Memory<'_> {
    /// What a request finds.
    fn observe(&mut self) {
        let stats = self.table.stats();
        let external = match stats.free {
            0 => 0.0,
            free => 1.0 - stats.largest as f64 / free as f64,
        };
        let counts = &mut self.counts;
        counts.requests += 1;
        counts.external += external;
        counts.external_max = counts.external_max.max(external);
        counts.holes += stats.holes;
    }

    /// Moves partitions, so that `bytes` are free in one piece.
    fn compact(&mut self, bytes: u64) {
        // Whoever counts bytes copies none.
        let moved = match self.compacting {
            Compacting::Never => return,
            Compacting::Whole => self.table.compact(|_| ()),
            Compacting::Least => self.table.make_room(bytes, |_| ()).unwrap_or_default(),
        };
        self.counts.compactions += 1;
        self.counts.moved.moves += moved.moves;
        self.counts.moved.bytes += moved.bytes;
    }

    fn refuse(&mut self, process: &Process, error: FitError) {
        self.counts.refused += 1;
        if let FitError::NoHole { wanted, free, largest } = error
            && error.is_fragmentation()
        {
            self.counts.though_free += 1;
            self.counts.first.get_or_insert_with(|| Refusal {
                request: self.counts.requests,
                arrival_ms: process.arrival_ms,
                bytes: wanted,
                free_bytes: free,
                holes: self.table.stats().holes,
                largest_bytes: largest,
            });
        }
    }
}

impl Loader for Memory<'_> {
    type Loaded = Partition;

    fn load(&mut self, process: &Process) -> Option<Partition> {
        self.observe();
        let bytes = process.segments.bytes();
        let before = self.table.effort().holes_examined;
        let mut result = self.table.alloc(bytes);
        if self.compacting != Compacting::Never && result.is_err_and(FitError::is_fragmentation) {
            self.compact(bytes);
            result = self.table.alloc(bytes);
        }
        let examined = self.table.effort().holes_examined - before;
        self.counts.examined_max = self.counts.examined_max.max(examined);
        match result {
            Ok(partition) => {
                self.counts.loaded += 1;
                self.counts.internal += bytes.next_multiple_of(GRANULE) - bytes;
                Some(partition)
            }
            Err(error) => {
                self.refuse(process, error);
                None
            }
        }
    }

    fn leave(&mut self, partition: Partition) {
        let freed = self.table.free(partition);
        debug_assert!(freed.is_ok(), "it was loaded: {freed:?}");
    }

    fn is_done(&self) -> bool {
        self.until_refused && self.counts.refused > 0
    }
}

/// One fit, with its way of compaction, and the stream for it.
#[derive(Clone, Copy)]
pub(super) struct Trial<'s> {
    pub(super) stream: &'s Stream,
    pub(super) peak: Peak,
    pub(super) fit: Fit,
    pub(super) compacting: Compacting,
}

impl Trial<'_> {
    fn replay(
        self,
        memory_bytes: u64,
        until_refused: bool,
    ) -> Result<(Counts, Effort), TableError> {
        let most = usize::try_from(self.peak.processes).unwrap_or(usize::MAX);
        let mut records = vec![Record::EMPTY; records_for(most)];
        let base = PhysAddr::new(0);
        let table = Partitions::new(base, memory_bytes, GRANULE, self.fit, &mut records)?;
        let (compacting, counts) = (self.compacting, Counts::default());
        let mut memory = Memory { table, compacting, until_refused, counts };
        replay(self.stream, &mut memory);
        Ok((memory.counts, memory.table.effort()))
    }

    /// Whether nobody is refused in so much memory.
    fn suffices(self, memory_bytes: u64) -> Result<bool, TableError> {
        Ok(self.replay(memory_bytes, true)?.0.refused == 0)
    }

    /// The least memory in which nobody is refused: each hundredth of what paging needs is tried,
    /// up to twice of that, because more memory does not always help a fit.
    fn needed(self) -> Result<Option<u64>, TableError> {
        let paged = self.peak.frames * PAGE_SIZE;
        for percent in 100..=200 {
            let bytes = (u128::from(paged) * percent).div_ceil(100);
            let Ok(bytes) = u64::try_from(bytes) else { break };
            if self.suffices(bytes)? {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// What it comes to in `memory_bytes`.
    pub(super) fn run(self, memory_bytes: u64) -> Result<FitRun, TableError> {
        let (counts, effort) = self.replay(memory_bytes, false)?;
        Ok(FitRun {
            fit: self.fit.name().to_owned(),
            compaction: self.compacting.name().to_owned(),
            requests: counts.requests,
            refused: counts.refused,
            refused_though_free: counts.though_free,
            first_though_free: counts.first,
            // A stream has at least one process.
            external_mean: counts.external / counts.requests as f64,
            external_max: counts.external_max,
            holes_mean: mean(counts.holes, counts.requests),
            internal_bytes_mean: mean(counts.internal, counts.loaded),
            examined_mean: mean(effort.holes_examined, counts.requests),
            examined_max: counts.examined_max,
            compactions: counts.compactions,
            moves: counts.moved.moves,
            moved_bytes: counts.moved.bytes,
            needed_bytes: self.needed()?,
        })
    }
}
