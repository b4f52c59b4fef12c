//! The designs that can be compared: one line in [`DESIGNS`] and one constructor each.
//!
//! ```text
//!   name --> run(job):  with_ram -> one address space for each trace -> replay -> Run
//! ```
//!
//! A design that gives every address space a table of its own makes one for each trace; a global
//! design makes one table and as many handles to it.
//!
//! # Invariants
//!
//! - Names are unique, and are those of the report.

use crate::ram::{self, DataFrames, TableRam, with_ram};
use crate::replay::{Job, ReplayError, replay};
use crate::report::Run;
use crate::table::size;
use core::fmt;
use core::time::Duration;
use vellum_core::{Canonical, PAGE_SHIFT, PageTable};
use vellum_hashed::{Asid, Chained};
use vellum_inverted::Inverted;
use vellum_radix::{Flat, Format, Radix, X86_64};

/// One design.
#[derive(Clone, Copy, Debug)]
pub struct Design {
    /// What it is asked for by, and what reports call it.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    run: fn(&Self, &Job<'_>) -> Result<Outcome, ReplayError>,
}

/// What came of running a design.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The row of the report.
    pub run: Run,
    /// How long the replay took; `None` if the design cannot hold the trace.
    pub elapsed: Option<Duration>,
}

/// Every design, in the order of the report.
pub const DESIGNS: &[Design] = &[
    Design {
        name: "flat",
        summary: "one level; built for programs within 32 bits, else only sized",
        run: flat,
    },
    Design { name: "radix4", summary: "x86-64, 4 levels", run: radix::<X86_64<4>> },
    Design { name: "radix5", summary: "x86-64, 5 levels", run: radix::<X86_64<5>> },
    Design { name: "hashed-chained", summary: "one hash for all spaces, chains", run: chained },
    Design { name: "inverted", summary: "an entry a frame, hash anchor table", run: inverted },
];

/// A table of format `F` for each address space.
fn radix<F: Format>(design: &Design, job: &Job<'_>) -> Result<Outcome, ReplayError> {
    with_ram(job.count_pages(), |ram, data| {
        let tables: Result<Vec<_>, _> =
            job.traces.iter().map(|_| Radix::<F, _>::new(ram)).collect();
        design.measure(job, ram, data, &tables?)
    })?
}

/// The spaces that a flat table may have to cover: 32 bits, the user's half of 4 and of 5 levels,
/// everything. Its size is that of the space, however little of it a program touches.
const FLAT_SPACES: [u8; 4] = [32, 47, 56, 64];

/// One level over 32 bits; of a larger space only what its table would take.
fn flat(design: &Design, job: &Job<'_>) -> Result<Outcome, ReplayError> {
    const BUILT: u8 = FLAT_SPACES[0];
    const ENTRY_BYTES: u64 = 8;
    let highest = job.traces.iter().map(|trace| trace.highest.as_u64()).max().unwrap_or(0);
    let fits = |bits: &u8| highest >> (bits - PAGE_SHIFT) == 0;
    let bits = FLAT_SPACES.into_iter().find(fits).unwrap_or(u64::BITS as u8);
    if bits == BUILT {
        return radix::<Flat<BUILT>>(design, job);
    }
    let bytes = ENTRY_BYTES << (bits - PAGE_SHIFT);
    let reason = format!("a table over a space of {bits} bits is one block of {}", size(bytes));
    Ok(design.unsupported(job, &reason, Some(bytes)))
}

/// One table, and a handle to it for each address space.
fn chained(design: &Design, job: &Job<'_>) -> Result<Outcome, ReplayError> {
    with_ram(job.count_pages(), |ram, data| {
        let table = Chained::new(ram)?;
        let spaces: Result<Vec<_>, _> = asids(job)?.map(|asid| table.space(asid)).collect();
        design.measure(job, ram, data, &spaces.map_err(|_| ReplayError::Spaces)?)
    })?
}

/// As [`chained`]; the table has an entry for each frame that the programs may use.
fn inverted(design: &Design, job: &Job<'_>) -> Result<Outcome, ReplayError> {
    with_ram(job.count_pages(), |ram, data| {
        let table = Inverted::new(ram, data.first().number(), data.count())?;
        let spaces: Result<Vec<_>, _> = asids(job)?.map(|asid| table.space(asid)).collect();
        design.measure(job, ram, data, &spaces.map_err(|_| ReplayError::Spaces)?)
    })?
}

/// An identifier in a global table for each trace. It is what keeps spaces apart there, whether or
/// not the processor tags its TLB with identifiers.
fn asids(job: &Job<'_>) -> Result<impl Iterator<Item = Asid>, ReplayError> {
    let count = u16::try_from(job.traces.len()).map_err(|_| ReplayError::Spaces)?;
    Ok((0..count).filter_map(Asid::new))
}

impl Design {
    /// Replays the job through this design.
    ///
    /// # Errors
    ///
    /// See [`ReplayError`]. A trace that the design cannot hold is no error, but a row without
    /// measurements: its addresses are beyond the design's, or its tables beyond simulated memory
    /// that was had in full.
    pub fn run(&self, job: &Job<'_>) -> Result<Outcome, ReplayError> {
        match (self.run)(self, job) {
            Err(ReplayError::OutOfFrames(e)) => {
                let most = size(ram::table_bytes_for(job.count_pages()));
                let reason = format!("its tables do not fit {most} of simulated memory: {e}");
                Ok(self.unsupported(job, &reason, None))
            }
            done => done,
        }
    }

    /// The row of a trace that this design cannot hold.
    fn unsupported(&self, job: &Job<'_>, reason: &str, bytes: Option<u64>) -> Outcome {
        Outcome { run: Run::unsupported(job, self.name, reason, bytes), elapsed: None }
    }

    /// Replays the job on these address spaces, which live in `ram`.
    fn measure<T: PageTable>(
        &self,
        job: &Job<'_>,
        ram: &TableRam<'_>,
        data: &DataFrames<'_>,
        tables: &[T],
    ) -> Result<Outcome, ReplayError> {
        if let Some(outside) = tables.first().and_then(|t| outside(job, t.canonical())) {
            return Ok(self.unsupported(job, &outside, None));
        }
        let measured = replay(job, tables, data)?;
        let run = Run::measured(job, self.name, &measured, ram.meter());
        Ok(Outcome { run, elapsed: Some(measured.elapsed) })
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

/// There is no design of this name; prints those that there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownDesign(pub String);

impl fmt::Display for UnknownDesign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = DESIGNS.iter().map(|design| design.name).collect();
        write!(f, "unknown design `{}`; choose from {}", self.0, names.join(", "))
    }
}

impl core::error::Error for UnknownDesign {}

/// The design of this name.
///
/// # Errors
///
/// [`UnknownDesign`], which prints the names that exist.
pub fn by_name(name: &str) -> Result<&'static Design, UnknownDesign> {
    DESIGNS.iter().find(|design| design.name == name).ok_or_else(|| UnknownDesign(name.to_owned()))
}
