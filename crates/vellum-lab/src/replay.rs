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
use crate::machine::{Machine, MachineConfig};
use crate::ram::{DataFrames, RamError};
use crate::trace::{Event, Kind, Trace};
use core::fmt;
use core::time::Duration;
use vellum_core::{
    Attr, Batch, Cause, Entry, Flush, Invalidate, OutOfFrames, PAGE_SIZE, PageTable, Ref,
    ReplaceError, Span, VirtAddr,
};
use vellum_tlb::{Asid, Leaf, Port};

/// What leaves are installed with.
const ATTR: Attr = Attr::from_bits(Attr::RWX.bits() | Attr::USER.bits() | Attr::STATUS.bits());

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
    /// Is told how many more events were replayed.
    pub progress: &'t (dyn Fn(u64) + Sync),
}

impl Job<'_> {
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
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("traces", &self.traces.len())
            .field("machine", &self.machine)
            .field("quantum", &self.quantum)
            .field("asids", &self.asids)
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
            Self::Lost(span) => write!(f, "page {} was installed and not found", span.va),
        }
    }
}

impl core::error::Error for ReplayError {}

impl From<OutOfFrames> for ReplayError {
    fn from(e: OutOfFrames) -> Self {
        Self::OutOfFrames(e)
    }
}

impl From<RamError> for ReplayError {
    fn from(e: RamError) -> Self {
        Self::Ram(e)
    }
}

/// Nobody to flush: see the SAFETY comment.
struct NoCpu;

// SAFETY: no processor walks these tables. The simulated one remembers page numbers, through which
// no byte is ever reached.
#[allow(unsafe_code, reason = "implements an unsafe trait for tables that no CPU uses")]
unsafe impl Invalidate for NoCpu {
    fn flush(&self, _: &[Flush]) {}
}

/// One process, and how far it has come.
struct Process<'t, T: PageTable> {
    table: &'t T,
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
    tables: &[T],
    data: &DataFrames<'_>,
) -> Result<Measured, ReplayError> {
    let asid = |n: usize| u16::try_from(n).ok().filter(|_| job.asids).and_then(Asid::new);
    let mut processes: Vec<_> = tables
        .iter()
        .zip(job.traces)
        .enumerate()
        .map(|(n, (table, trace))| Process {
            table,
            stock: table.stock(),
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
    Ok(Measured { machine: cpu.machine, faults: cpu.faults, switches, elapsed })
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
        let leaf = Entry::Leaf(self.data.alloc().map_err(ReplayError::OutOfData)?, ATTR);
        let (page, table) = (va.number().addr(), process.table);
        // Nothing was there, so nothing can come out of the gather.
        // SAFETY: no CPU walks simulated tables; what stands for one walks them in this thread, and
        // its TLB serves no access.
        #[allow(unsafe_code, reason = "says that no CPU has the table")]
        let mut gather = unsafe { Batch::<_, _, T::Detached, 4>::new(NoCpu, |_| {}) };
        let stock = &mut process.stock;
        let installed =
            table.replace_refilling(page, PAGE_SIZE, Entry::Hole, leaf, stock, &mut gather);
        gather.finish();
        installed.map_err(|e| match e {
            ReplaceError::Invalid(Cause::OutOfFrames(e)) => ReplayError::OutOfFrames(e),
            e => ReplayError::Install(va, e),
        })
    }
}

#[cfg(test)]
mod tests;
