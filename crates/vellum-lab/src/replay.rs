//! Replays traces through one design on the simulated machine.
//!
//! ```text
//!   event --> TLB hit? ----------------------------------------------------> next
//!               | miss
//!               v
//!             walk --leaf--> charge refs (walk caches, cache), fill the TLB -> next
//!               | hole
//!               v
//!             fault: a data frame, `replace` (refilled on `Need`), walk again
//! ```
//!
//! Several traces are several processes on one CPU, round robin: each has an address space of its
//! own, and with or without identifiers for them a switch keeps or flushes what is cached.
//!
//! What is a model here: a walk that ends in a hole is not charged, nor are the lines that the
//! fault itself reads and writes; leaves are installed with accessed and dirty set, so no walk
//! writes. What is not: the table is the design's real code on real bytes, and the addresses that
//! are charged are the ones that its walk reads.
//!
//! # Invariants
//!
//! - Every event ends translated; successful walks = second-level misses.

use crate::clock::Stopwatch;
use crate::designs::structure::StructureReport;
use crate::experiment::{ATTR, DesignError, Experiment, Scene, has_huge, install};
use crate::machine::{Machine, MachineConfig};
use crate::ram::{DataFrames, HUGE_SHIFT, Meter, RamError};
use crate::report::Run;
use crate::trace::{Event, Kind, Trace};
use core::fmt;
use core::time::Duration;
use std::collections::HashSet;
use vellum_core::{
    Attr, Canonical, Cause, Entry, OutOfFrames, PageTable, RangeError, Ref, ReplaceError, Span,
    VirtAddr, Vpn,
};
use vellum_tlb::{Asid, Leaf, Port};

mod promote;

pub use promote::{Policy, Promotions};

use promote::Promoter;

/// Events between two reports of progress.
const CHUNK: usize = 1 << 20;

/// What is to be replayed, and how.
#[derive(Clone, Copy)]
pub struct Job<'t> {
    /// One process each.
    pub traces: &'t [Trace],
    /// The processor.
    pub machine: &'t MachineConfig,
    /// Events until the next process gets the CPU.
    pub quantum: usize,
    /// Whether address spaces have identifiers, so that a switch flushes nothing.
    pub asids: bool,
    /// When 2 MiB of pages become one; `None`: never.
    pub promote: Option<Policy>,
    /// Is told how many more events were replayed.
    pub progress: &'t (dyn Fn(u64) + Sync),
}

impl Job<'_> {
    /// The names of all traces, joined by `+`.
    #[must_use]
    pub fn name(&self) -> String {
        Run::name_of(self.traces)
    }

    /// Events of all traces.
    #[must_use]
    pub fn count_events(&self) -> u64 {
        self.traces.iter().map(|trace| trace.events.len() as u64).sum()
    }

    /// Pages of all traces.
    #[must_use]
    pub fn count_pages(&self) -> u64 {
        self.traces.iter().map(|trace| trace.pages).sum()
    }

    /// Regions of 2 MiB with pages, of all traces.
    fn count_regions(&self) -> u64 {
        let regions = |trace: &Trace| {
            let mut last = None;
            let regions = trace.events.iter().map(|event| event.va().as_u64() >> HUGE_SHIFT);
            let changes = regions.filter(|&region| last.replace(region) != Some(region));
            changes.collect::<HashSet<_>>().len() as u64
        };
        self.traces.iter().map(regions).sum()
    }
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("traces", &self.traces.len())
            .field("machine", &self.machine)
            .field("quantum", &self.quantum)
            .field("asids", &self.asids)
            .field("promote", &self.promote)
            .finish_non_exhaustive()
    }
}

/// What a replay has measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The processor at the end, with all its counts.
    pub machine: Machine,
    /// Pages that were faulted in.
    pub faults: u64,
    /// Changes from one process to another.
    pub switches: u64,
    /// What was promoted.
    pub promotions: Promotions,
    /// How long the processor worked on it; not reproducible.
    pub elapsed: Duration,
}

/// A replay broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplayError {
    /// The tables have taken all frames of simulated memory.
    OutOfFrames(OutOfFrames),
    /// The programs have: there are fewer data frames than pages.
    OutOfData(OutOfFrames),
    /// There is no simulated memory to begin with.
    Ram(RamError),
    /// There are more traces than a table has address spaces.
    Spaces,
    /// The table cannot translate an address of the trace.
    Walk(Cause),
    /// The table did not take a page.
    Install(VirtAddr, ReplaceError),
    /// The table did not change a range.
    Range(RangeError),
    /// The table does not find a page that it has taken, or finds what nobody put there.
    Lost(Span),
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFrames(e) => write!(f, "simulated memory is exhausted: {e}"),
            Self::OutOfData(e) => write!(f, "simulated memory is smaller than the programs: {e}"),
            Self::Ram(e) => e.fmt(f),
            Self::Spaces => f.write_str("more traces than the table has address spaces"),
            Self::Walk(cause) => cause.fmt(f),
            Self::Install(va, e) => write!(f, "page {va} was refused: {e}"),
            Self::Range(e) => write!(f, "a range was refused: {e}"),
            Self::Lost(span) => write!(f, "page {} was installed and not found", span.va),
        }
    }
}

impl core::error::Error for ReplayError {}

impl From<RangeError> for ReplayError {
    fn from(e: RangeError) -> Self {
        match e.cause {
            Cause::OutOfFrames(frames) => Self::OutOfFrames(frames),
            _ => Self::Range(e),
        }
    }
}

/// One process, and how far it has come.
struct Process<'t, T: PageTable> {
    table: &'t mut T,
    promoter: Option<Promoter>,
    stock: T::Stock,
    asid: Asid,
    rest: &'t [Event],
}

/// The processor and the memory that all processes share.
struct Cpu<'d, 'm> {
    machine: Machine,
    data: &'d DataFrames<'m>,
    refs: Vec<Ref>,
    faults: u64,
}

/// Replays the job; `tables` are the address spaces, one for each trace, in their order.
///
/// # Errors
///
/// See [`ReplayError`].
pub fn replay<T: PageTable>(
    job: &Job<'_>,
    tables: &mut [T],
    data: &DataFrames<'_>,
) -> Result<Measured, ReplayError> {
    let asid = |n: usize| u16::try_from(n).ok().filter(|_| job.asids).and_then(Asid::new);
    let mut processes: Vec<_> = tables
        .iter_mut()
        .zip(job.traces)
        .enumerate()
        .map(|(n, (table, trace))| Process {
            stock: table.stock(),
            table,
            promoter: job.promote.map(Promoter::new),
            asid: asid(n).unwrap_or_default(),
            rest: &trace.events,
        })
        .collect();
    let machine = Machine::new(job.machine);
    let mut cpu = Cpu { machine, data, refs: Vec::new(), faults: 0 };
    let mut switches = 0;
    let mut last = 0;
    let start = Stopwatch::start();
    while processes.iter().any(|process| !process.rest.is_empty()) {
        for (n, process) in processes.iter_mut().enumerate() {
            if process.rest.is_empty() {
                continue;
            }
            if n != last {
                switches += 1;
                last = n;
                if !job.asids {
                    cpu.machine.flush_non_global();
                }
            }
            let slice = job.quantum.clamp(1, process.rest.len());
            let (now, later) = process.rest.split_at(slice);
            for chunk in now.chunks(CHUNK) {
                cpu.run(process, chunk)?;
                (job.progress)(chunk.len() as u64);
            }
            process.rest = later;
        }
    }
    let elapsed = start.elapsed();
    let promoters = processes.iter().filter_map(|process| process.promoter.as_ref());
    let promotions = promoters.fold(Promotions::default(), |sum, p| sum + p.promotions());
    Ok(Measured { machine: cpu.machine, faults: cpu.faults, switches, promotions, elapsed })
}

impl Cpu<'_, '_> {
    fn run<T: PageTable>(
        &mut self,
        process: &mut Process<'_, T>,
        events: &[Event],
    ) -> Result<(), ReplayError> {
        let asid = process.asid;
        for event in events {
            let port = if event.kind() == Kind::Fetch { Port::Fetch } else { Port::Data };
            if !self.machine.translate(event.va(), asid, port) {
                self.miss(process, event.va(), port)?;
            }
        }
        Ok(())
    }

    #[cold]
    fn miss<T: PageTable>(
        &mut self,
        process: &mut Process<'_, T>,
        va: VirtAddr,
        port: Port,
    ) -> Result<(), ReplayError> {
        let mut span = self.walk(process.table, va)?;
        if span.entry == Entry::Hole {
            self.fault(process, va)?;
            span = self.walk(process.table, va)?;
        }
        let Entry::Leaf(_, attr) = span.entry else { return Err(ReplayError::Lost(span)) };
        let shift = span.len.checked_ilog2().unwrap_or_default() as u8;
        let leaf = Leaf { shift, global: attr.contains(Attr::GLOBAL) };
        self.machine.walked(va, process.asid, port, leaf, &self.refs);
        Ok(())
    }

    fn walk<T: PageTable>(&mut self, table: &T, va: VirtAddr) -> Result<Span, ReplayError> {
        let refs = &mut self.refs;
        refs.clear();
        table.walk(va, &mut |r: Ref| refs.push(r)).map_err(ReplayError::Walk)
    }

    fn fault<T: PageTable>(
        &mut self,
        process: &mut Process<'_, T>,
        va: VirtAddr,
    ) -> Result<(), ReplayError> {
        self.faults += 1;
        if self.promote(process, va)? {
            return Ok(());
        }
        let leaf = Entry::Leaf(self.data.alloc().map_err(ReplayError::OutOfData)?, ATTR);
        install(process.table, va.number().addr(), leaf, &mut process.stock)
    }
}

/// A job as an experiment: its counts, and what the tables have come to.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'j> {
    /// What to replay.
    pub job: &'j Job<'j>,
}

impl Experiment for Replay<'_> {
    type Out = (Measured, Meter, Option<StructureReport>);

    fn count_pages(&self) -> u64 {
        self.job.count_pages()
    }

    fn count_frames(&self) -> u64 {
        let pages = self.count_pages();
        match self.job.promote {
            None => pages,
            // Each region may be promoted after all pages but one have got a frame.
            Some(_) => pages + self.job.count_regions() * u64::from(promote::PAGES),
        }
    }

    fn highest(&self) -> Vpn {
        let highest = self.job.traces.iter().map(|trace| trace.highest).max();
        highest.unwrap_or_default()
    }

    fn run<T: PageTable>(
        &self,
        scene: Scene<'_, '_, '_>,
        make: &mut dyn FnMut(u16) -> Result<T, ReplayError>,
    ) -> Result<Self::Out, DesignError> {
        if self.job.promote.is_some() && !has_huge::<T>() {
            return Err(DesignError::unsupported("it has no leaves of 2 MiB"));
        }
        let count = u16::try_from(self.job.traces.len()).map_err(|_| ReplayError::Spaces)?;
        let mut tables = (0..count).map(make).collect::<Result<Vec<_>, _>>()?;
        if let Some(outside) = tables.first().and_then(|t| outside(self.job, t.canonical())) {
            return Err(DesignError::unsupported(outside));
        }
        let measured = replay(self.job, &mut tables, scene.data)?;
        Ok((measured, scene.ram.meter(), scene.structure()))
    }
}

/// Why `canonical` does not take some trace of the job, if it does not.
fn outside(job: &Job<'_>, canonical: Canonical) -> Option<String> {
    let pages = job.traces.iter().flat_map(|trace| &trace.events).map(|event| event.va());
    let mut low_to_high = job.traces.iter().flat_map(|t| [t.lowest.addr(), t.highest.addr()]);
    // A signed space has a hole in the middle, which the ends alone do not show.
    let whole = low_to_high.all(|va| va.as_u64() >> (canonical.bits() - 1) == 0);
    let bad = if whole { None } else { pages.into_iter().find(|&va| !canonical.contains(va)) }?;
    Some(format!("address {bad} is outside of its {} bits", canonical.bits()))
}

#[cfg(test)]
mod tests;
