//! The comparison: what was asked for, by every design.
//!
//! ```text
//!   runs:  for each source (or one mix of all):  decode once
//!              machines x designs in parallel:  replay --> Run, rate
//!              drop the traces
//!   other parts:  designs x (spreads, quanta, policies) in parallel --> rows
//!   --> Report, in the order asked for; of a shard every n-th row of each part
//! ```
//!
//! # Invariants
//!
//! - The report does not depend on the number of threads.
//! - Row k of a part is in shard k mod n, whatever else is asked for.
//! - At most one source is in memory at a time, or all of a mix.

use crate::designs::{Design, Outcome};
use crate::machine::MachineConfig;
use crate::parts::sparsity::SPREADS;
use crate::parts::{Part, forks, huge, ops, resize, sparsity, switches, tlb};
use crate::replay::{Job, Policy, Replay, ReplayError};
use crate::report::{Report, Run, Shard, SweepPoint};
use crate::source::{Source, named};
use crate::trace::{Trace, TraceError};
use core::fmt;
use indicatif::ProgressBar;
use rayon::prelude::*;

/// What to compare, and on what.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to do.
    pub parts: Vec<Part>,
    /// The traces.
    pub sources: Vec<Source>,
    /// Of each source its place in a sweep, if the sources are swept; else nothing.
    pub swept: Vec<SweepPoint>,
    /// The designs.
    pub designs: Vec<&'static Design>,
    /// The processors, and the place of each in a sweep; parts but runs take the first.
    pub machines: Vec<(MachineConfig, Option<SweepPoint>)>,
    /// Whether address spaces have identifiers.
    pub asids: bool,
    /// Replay all traces as processes of one run, each for so many events at a time.
    pub mix: Option<usize>,
    /// Replay at most so many events of each trace; without a limit a trace that is too long for
    /// that is refused.
    pub limit: Option<usize>,
    /// Only these rows.
    pub shard: Option<Shard>,
}

/// A report, and what is not reproducible about it.
#[derive(Clone, Debug, Default)]
pub struct Comparison {
    /// What is.
    pub report: Report,
    /// Millions of events a second on one core, for each run that was made.
    pub rates: Vec<Option<f64>>,
    /// Nanoseconds of each operation, for each design of `report.ops`.
    pub nanos: Vec<Vec<f64>>,
}

/// A comparison broke off.
#[derive(Debug)]
#[non_exhaustive]
pub enum CompareError {
    /// A trace cannot be read.
    Trace(TraceError),
    /// A design failed on a trace.
    Replay {
        /// The design.
        design: &'static str,
        /// What it failed on.
        traces: String,
        /// How.
        error: ReplayError,
    },
}

impl fmt::Display for CompareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace(e) => e.fmt(f),
            Self::Replay { design, traces, error } => {
                write!(f, "{traces}: design {design} failed: {error}")
            }
        }
    }
}

impl core::error::Error for CompareError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Trace(e) => Some(e),
            Self::Replay { error, .. } => Some(error),
        }
    }
}

impl From<TraceError> for CompareError {
    fn from(e: TraceError) -> Self {
        Self::Trace(e)
    }
}

/// Runs the comparison; `bar` starts anew for each trace and part.
///
/// # Errors
///
/// The first [`CompareError`]; what was measured by then is dropped.
pub fn compare(options: &Options, bar: &ProgressBar) -> Result<Comparison, CompareError> {
    let mut done = Comparison::default();
    done.report.shard = options.shard;
    let todo = Todo { options, bar };
    for part in &options.parts {
        match part {
            Part::Runs => (done.report.runs, done.rates) = todo.runs()?.into_iter().unzip(),
            Part::Ops => {
                let rows = todo.rows("ops", &options.designs, |design| {
                    ops::measure(design).map_err(failed(design, "operations"))
                })?;
                (done.report.ops, done.nanos) = rows.into_iter().unzip();
            }
            Part::Sparsity => {
                let items = product(&SPREADS, &options.designs);
                done.report.sparsity = todo.rows("sparsity", &items, |&(spread, design)| {
                    sparsity::measure(design, spread).map_err(failed(design, "sparse pages"))
                })?;
            }
            Part::Resize => {
                done.report.resize = todo.rows("resize", &options.designs, |design| {
                    resize::measure(design).map_err(failed(design, "filling"))
                })?;
            }
            Part::Switches => done.report.switches = todo.switches()?,
            Part::Huge => done.report.huge = todo.huge()?,
            Part::Forks => {
                done.report.forks = todo.rows("forks", &options.designs, |design| {
                    forks::measure(design, todo.machine()).map_err(failed(design, "forks"))
                })?;
            }
            Part::Tlb => done.report.tlb = todo.tlb()?,
        }
    }
    bar.finish_and_clear();
    Ok(done)
}

/// That a design failed on something.
fn failed(design: &Design, on: &str) -> impl FnOnce(ReplayError) -> CompareError {
    let (design, traces) = (design.name, on.to_owned());
    move |error| CompareError::Replay { design, traces, error }
}

/// Every pair, the second one varying faster.
fn product<A: Copy, B: Copy>(a: &[A], b: &[B]) -> Vec<(A, B)> {
    a.iter().flat_map(|&a| b.iter().map(move |&b| (a, b))).collect()
}

/// What there is to do, and who is told how far it has come.
struct Todo<'o> {
    options: &'o Options,
    bar: &'o ProgressBar,
}

impl Todo<'_> {
    /// Whether row `index` of a part is ours.
    fn is_ours(&self, index: usize) -> bool {
        self.options.shard.is_none_or(|shard| shard.has(index as u64))
    }

    fn begin(&self, message: &str, length: u64) {
        self.bar.set_message(message.to_owned());
        self.bar.set_length(length.max(1));
        self.bar.set_position(0);
    }

    /// The rows of a part, one for each of our items.
    fn rows<I: Sync, R: Send>(
        &self,
        part: &str,
        items: &[I],
        row: impl Fn(&I) -> Result<R, CompareError> + Sync,
    ) -> Result<Vec<R>, CompareError> {
        let ours: Vec<&I> =
            items.iter().enumerate().filter(|&(i, _)| self.is_ours(i)).map(|(_, i)| i).collect();
        self.begin(part, ours.len() as u64);
        let row = |item: &I| {
            let row = row(item);
            self.bar.inc(1);
            row
        };
        ours.into_par_iter().map(row).collect()
    }

    fn read(&self, source: &Source, name: &str, most: usize) -> Result<Vec<Trace>, CompareError> {
        self.begin(&format!("reading {name}"), 1);
        let limit = match self.options.limit {
            None if most == usize::MAX => None,
            limit => Some(limit.unwrap_or(most).min(most)),
        };
        Ok(source.read(name, limit)?)
    }

    /// Every source, or the mix of all, through every machine and design.
    fn runs(&self) -> Result<Vec<(Run, Option<f64>)>, CompareError> {
        let options = self.options;
        let sources = named(&options.sources);
        let groups: Vec<_> = match options.mix {
            Some(quantum) => vec![(&sources[..], None, quantum)],
            None => {
                let points = options.swept.iter().copied().map(Some);
                let points = points.chain(core::iter::repeat(None));
                let alone = sources.chunks(1).zip(points);
                alone.map(|(one, point)| (one, point, one[0].0.quantum())).collect()
            }
        };
        let machines: Vec<_> = options.machines.iter().collect();
        let items = product(&machines, &options.designs);
        let mut rows = Vec::new();
        for (group, (sources, swept, quantum)) in groups.into_iter().enumerate() {
            let index = |i: usize| group * items.len() + i;
            let ours = items.iter().enumerate().filter(|&(i, _)| self.is_ours(index(i)));
            let ours: Vec<_> = ours.map(|(_, &item)| item).collect();
            if ours.is_empty() {
                continue;
            }
            let mut traces = Vec::new();
            for (source, name) in sources {
                traces.append(&mut self.read(source, name, usize::MAX)?);
            }
            let replayed = self.replay(&traces, quantum, &ours)?;
            for ((mut run, rate), ((_, point), _)) in replayed.into_iter().zip(&ours) {
                run.sweep = swept.or(*point);
                rows.push((run, rate));
            }
        }
        Ok(rows)
    }

    fn replay(
        &self,
        traces: &[Trace],
        quantum: usize,
        items: &[(&(MachineConfig, Option<SweepPoint>), &'static Design)],
    ) -> Result<Vec<(Run, Option<f64>)>, CompareError> {
        let names = Run::name_of(traces);
        let progress = &|events| self.bar.inc(events);
        let asids = self.options.asids;
        let events: u64 = traces.iter().map(|trace| trace.events.len() as u64).sum();
        self.begin(&names, events * items.len() as u64);
        let run = |&(machine, design): &(&(MachineConfig, _), &'static Design)| {
            let machine = &machine.0;
            let job = Job { traces, machine, quantum, asids, promote: None, progress };
            let outcome = design.run(&job).map_err(failed(design, &names))?;
            if outcome.elapsed.is_none() {
                self.bar.inc(events);
            }
            let rate = rate(&outcome);
            Ok((outcome.run, rate))
        };
        items.par_iter().map(run).collect()
    }

    /// All sources as processes, if there are at least two; workloads only where recordings are
    /// fewer than that.
    fn switches(&self) -> Result<Vec<switches::SwitchesReport>, CompareError> {
        let mut traces = Vec::new();
        let is_recorded = |source: &Source| !matches!(source, Source::Workload(_));
        let recorded = self.options.sources.iter().filter(|source| is_recorded(source)).count();
        for (source, name) in named(&self.options.sources) {
            if recorded < 2 || is_recorded(source) {
                traces.append(&mut self.read(source, &name, switches::EVENTS)?);
            }
        }
        if traces.len() < 2 {
            return Ok(Vec::new());
        }
        let names = Run::name_of(&traces);
        let items = product(&product(&switches::QUANTA, &[true, false]), &self.options.designs);
        self.rows("switches", &items, |&((quantum, asids), design)| {
            let machine = self.machine();
            let job =
                Job { traces: &traces, machine, quantum, asids, promote: None, progress: &|_| {} };
            let outcome = design.run(&job).map_err(failed(design, &names))?;
            Ok(switches::SwitchesReport::new(outcome.run, quantum))
        })
    }

    /// Each source with each policy of promotion.
    fn huge(&self) -> Result<Vec<huge::HugeReport>, CompareError> {
        let policies = product(&huge::POLICIES, &self.options.designs);
        let mut rows = Vec::new();
        let sources = named(&self.options.sources);
        for (group, (source, name)) in sources.into_iter().enumerate() {
            let index = |i: usize| group * policies.len() + i;
            let ours = policies.iter().enumerate().filter(|&(i, _)| self.is_ours(index(i)));
            let ours: Vec<_> = ours.map(|(_, &item)| item).collect();
            if ours.is_empty() {
                continue;
            }
            let traces = self.read(source, &name, huge::EVENTS)?;
            self.begin(&format!("huge {name}"), ours.len() as u64);
            let row = |&(policy, design): &(Option<Policy>, &'static Design)| {
                let row = self.promoted(&traces, source.quantum(), policy, design);
                self.bar.inc(1);
                row
            };
            rows.extend(ours.par_iter().map(row).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(rows)
    }

    fn promoted(
        &self,
        traces: &[Trace],
        quantum: usize,
        promote: Option<Policy>,
        design: &Design,
    ) -> Result<huge::HugeReport, CompareError> {
        let machine = self.machine();
        let job = Job { traces, machine, quantum, asids: true, promote, progress: &|_| {} };
        let measured = design.measure(&Replay { job: &job });
        let promotions = measured.as_ref().ok().map(|(measured, ..)| measured.promotions);
        let outcome = design.outcome(&job, measured).map_err(failed(design, &job.name()))?;
        Ok(huge::HugeReport::new(outcome.run, promote, promotions))
    }

    /// Each source with second-level TLBs of several sizes.
    fn tlb(&self) -> Result<Vec<tlb::TlbSizeReport>, CompareError> {
        let mut rows = Vec::new();
        for (group, (source, name)) in named(&self.options.sources).into_iter().enumerate() {
            let index = |i: usize| group * tlb::ENTRIES.len() + i;
            let ours = tlb::ENTRIES.iter().enumerate().filter(|&(i, _)| self.is_ours(index(i)));
            let ours: Vec<_> = ours.map(|(_, &entries)| entries).collect();
            if ours.is_empty() {
                continue;
            }
            let traces = self.read(source, &name, tlb::EVENTS)?;
            self.begin(&format!("tlb {name}"), ours.len() as u64);
            let row = |&entries: &u32| {
                let row = self.tlb_of(&traces, source.quantum(), entries);
                self.bar.inc(1);
                row
            };
            rows.extend(ours.par_iter().map(row).collect::<Result<Vec<_>, _>>()?);
        }
        Ok(rows)
    }

    /// By the first design that can hold the traces; or the last word of the last one.
    fn tlb_of(
        &self,
        traces: &[Trace],
        quantum: usize,
        entries: u32,
    ) -> Result<tlb::TlbSizeReport, CompareError> {
        let machine = &tlb::machine(self.machine(), entries);
        let asids = self.options.asids;
        let job = Job { traces, machine, quantum, asids, promote: None, progress: &|_| {} };
        let mut run = None;
        for design in &self.options.designs {
            let outcome = design.run(&job).map_err(failed(design, &job.name()))?;
            let done = outcome.run.unsupported.is_none();
            run = Some(outcome.run);
            if done {
                break;
            }
        }
        let run = run.unwrap_or_else(|| Run::unsupported(&job, "", "no design was named", None));
        Ok(tlb::TlbSizeReport::new(run, machine))
    }

    /// The processor of the parts that are not swept. There always is one.
    fn machine(&self) -> &MachineConfig {
        &self.options.machines[0].0
    }
}

/// Millions of events a second.
fn rate(outcome: &Outcome) -> Option<f64> {
    let seconds = outcome.elapsed?.as_secs_f64();
    (seconds > 0.0).then(|| outcome.run.events as f64 / seconds / 1e6)
}
