//! The designs that can be compared: one line in [`DESIGNS`] and one constructor each.
//!
//! ```text
//!   name --> kind --> measure(experiment):  memory -> table(s) -> experiment.run(make) -> Out
//! ```
//!
//! A design that gives every address space a table of its own makes one for each; a global design
//! makes one table and as many handles to it.
//!
//! To add a design: a `Kind`, its line in [`DESIGNS`], its line in `Design::measure`.
//!
//! # Invariants
//!
//! - Names are unique, and are those of the report.

use crate::experiment::{DesignError, Experiment, Scene};
use crate::ram::{self, with_ram};
use crate::replay::{Job, Replay, ReplayError};
use crate::report::Run;
use crate::table::size;
use core::fmt;
use core::time::Duration;
use vellum_core::PAGE_SHIFT;
use vellum_hashed::{Asid, Chained, Clustered6, Clustered16, Cuckoo, Htab, Line8, Tsb, TsbBuffer};
use vellum_inverted::Inverted;
use vellum_radix::{Flat, Flattened, Format, Radix, X86_64};

pub mod structure;

use structure::Watched;

/// One design.
#[derive(Clone, Copy, Debug)]
pub struct Design {
    /// What it is asked for by, and what reports call it.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    kind: Kind,
}

/// How its address spaces are made.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Flat,
    Radix4,
    Radix5,
    Flattened,
    Radix4Tsb,
    Chained,
    ChainedTsb,
    Clustered16,
    Clustered6,
    Htab,
    Cuckoo,
    Line8,
    Line8RobinHood,
    Inverted,
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
        kind: Kind::Flat,
    },
    Design { name: "radix4", summary: "x86-64, 4 levels", kind: Kind::Radix4 },
    Design { name: "radix5", summary: "x86-64, 5 levels", kind: Kind::Radix5 },
    Design {
        name: "radix-flattened",
        summary: "x86-64 with two levels of 18 bits, in nodes of 2 MiB",
        kind: Kind::Flattened,
    },
    Design {
        name: "radix4+tsb",
        summary: "radix4 behind a software TLB of 8,192 pages a space",
        kind: Kind::Radix4Tsb,
    },
    Design {
        name: "hashed-chained",
        summary: "one hash for all spaces, chains",
        kind: Kind::Chained,
    },
    Design {
        name: "hashed-chained+tsb",
        summary: "hashed-chained behind a software TLB of 8,192 pages a space",
        kind: Kind::ChainedTsb,
    },
    Design {
        name: "hashed-clustered16",
        summary: "chains of blocks of 16 pages",
        kind: Kind::Clustered16,
    },
    Design {
        name: "hashed-clustered6",
        summary: "chains of blocks of 6 pages, each a line",
        kind: Kind::Clustered6,
    },
    Design {
        name: "hashed-htab",
        summary: "PowerPC: groups of eight, each page in one of two",
        kind: Kind::Htab,
    },
    Design {
        name: "hashed-cuckoo",
        summary: "lines of 8 pages in three ways, read at once",
        kind: Kind::Cuckoo,
    },
    Design {
        name: "hashed-line8",
        summary: "lines of 8 pages in open addressing, linear",
        kind: Kind::Line8,
    },
    Design {
        name: "hashed-robin-hood",
        summary: "the same, the farthest from home first",
        kind: Kind::Line8RobinHood,
    },
    Design {
        name: "inverted",
        summary: "an entry a frame, hash anchor table",
        kind: Kind::Inverted,
    },
];

/// log2 of the frames of a software TLB, each of 256 entries: more pages than the largest TLB preset
/// has, fewer than most traces.
const TSB_ORDER: u8 = 5;

/// The experiment on one table with a handle for each address space. The identifier is what keeps
/// spaces apart there, whether or not the processor tags its TLB with identifiers.
macro_rules! global {
    ($experiment:ident, |$ram:ident, $data:pat_param| $table:expr) => {
        global!($experiment, |$ram, $data| $table, |space| space)
    };
    ($experiment:ident, |$ram:ident, $data:pat_param| $table:expr, |$space:ident| $with:expr) => {
        with_ram($experiment.count_pages(), $experiment.count_frames(), |$ram, data| {
            let $data = data;
            let table = $table?;
            let watched = Watched::new(&table);
            $experiment.run(Scene { ram: $ram, data, global: Some(&watched) }, &mut |n| {
                let asid = Asid::new(n).ok_or(ReplayError::Spaces)?;
                let $space = table.space(asid).map_err(|_| ReplayError::Spaces)?;
                Ok($with)
            })
        })?
    };
}

impl Design {
    /// Does an experiment with this design.
    ///
    /// # Errors
    ///
    /// See [`DesignError`]. Tables beyond simulated memory that was had in full are no failure:
    /// the design does not support what it was asked for.
    pub fn measure<E: Experiment>(&self, e: &E) -> Result<E::Out, DesignError> {
        let done = match self.kind {
            Kind::Flat => flat(e),
            Kind::Radix4 => radix::<X86_64<4>, E>(e),
            Kind::Radix5 => radix::<X86_64<5>, E>(e),
            Kind::Flattened => radix::<Flattened<true, true>, E>(e),
            Kind::Radix4Tsb => radix_tsb::<X86_64<4>, E>(e),
            Kind::Chained => global!(e, |ram, _| Chained::new(ram)),
            Kind::ChainedTsb => {
                global!(e, |ram, _| Chained::new(ram), |space| {
                    Tsb::new(space, TsbBuffer::new(ram, TSB_ORDER)?)
                })
            }
            Kind::Clustered16 => global!(e, |ram, _| Clustered16::new(ram)),
            Kind::Clustered6 => global!(e, |ram, _| Clustered6::new(ram)),
            Kind::Htab => global!(e, |ram, _| Htab::new(ram)),
            Kind::Cuckoo => global!(e, |ram, _| Cuckoo::new(ram)),
            Kind::Line8 => global!(e, |ram, _| Line8::<_, false>::new(ram)),
            Kind::Line8RobinHood => global!(e, |ram, _| Line8::<_, true>::new(ram)),
            // It has an entry for each frame that programs may use.
            Kind::Inverted => {
                global!(e, |ram, data| { Inverted::new(ram, data.first().number(), data.count()) })
            }
        };
        done.map_err(|error| match error {
            DesignError::Failed(ReplayError::OutOfFrames(frames)) => {
                let most = size(ram::table_bytes_for(e.count_pages()));
                DesignError::unsupported(format!(
                    "its tables do not fit {most} of simulated memory: {frames}"
                ))
            }
            other => other,
        })
    }

    /// Replays the job through this design.
    ///
    /// # Errors
    ///
    /// See [`ReplayError`]. A trace that the design cannot hold is no error, but a row without
    /// measurements: its addresses are beyond the design's, or its tables beyond simulated memory
    /// that was had in full.
    pub fn run(&self, job: &Job<'_>) -> Result<Outcome, ReplayError> {
        self.outcome(job, self.measure(&Replay { job }))
    }

    /// The row of what a replay came to.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub fn outcome(
        &self,
        job: &Job<'_>,
        measured: Result<<Replay<'_> as Experiment>::Out, DesignError>,
    ) -> Result<Outcome, ReplayError> {
        match measured {
            Ok((measured, meter, structure)) => {
                let mut run = Run::measured(job, self.name, &measured, meter);
                run.structure = structure;
                Ok(Outcome { run, elapsed: Some(measured.elapsed) })
            }
            Err(DesignError::Unsupported { reason, bytes }) => {
                let run = Run::unsupported(job, self.name, &reason, bytes);
                Ok(Outcome { run, elapsed: None })
            }
            Err(DesignError::Failed(e)) => Err(e),
        }
    }
}

/// A table of format `F` for each address space.
fn radix<F: Format, E: Experiment>(e: &E) -> Result<E::Out, DesignError> {
    with_ram(e.count_pages(), e.count_frames(), |ram, data| {
        e.run(Scene { ram, data, global: None }, &mut |_| Ok(Radix::<F, _>::new(ram)?))
    })?
}

/// The same, behind a software TLB for each.
fn radix_tsb<F: Format, E: Experiment>(e: &E) -> Result<E::Out, DesignError> {
    with_ram(e.count_pages(), e.count_frames(), |ram, data| {
        e.run(Scene { ram, data, global: None }, &mut |_| {
            let buffer = TsbBuffer::new(ram, TSB_ORDER)?;
            Ok(Tsb::new(Radix::<F, _>::new(ram)?, buffer))
        })
    })?
}

/// The spaces that a flat table may have to cover: 32 bits, the user's half of 4 and of 5 levels,
/// everything. Its size is that of the space, however little of it a program touches.
const FLAT_SPACES: [u8; 4] = [32, 47, 56, 64];

/// One level over 32 bits; of a larger space only what its table would take.
fn flat<E: Experiment>(e: &E) -> Result<E::Out, DesignError> {
    const BUILT: u8 = FLAT_SPACES[0];
    const ENTRY_BYTES: u64 = 8;
    let highest = e.highest().as_u64();
    let fits = |bits: &u8| highest >> (bits - PAGE_SHIFT) == 0;
    let bits = FLAT_SPACES.into_iter().find(fits).unwrap_or(u64::BITS as u8);
    if bits == BUILT {
        return radix::<Flat<BUILT>, E>(e);
    }
    let bytes = ENTRY_BYTES << (bits - PAGE_SHIFT);
    let reason = format!("a table over a space of {bits} bits is one block of {}", size(bytes));
    Err(DesignError::Unsupported { reason, bytes: Some(bytes) })
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
