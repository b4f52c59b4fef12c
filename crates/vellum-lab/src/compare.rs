//! The comparison: every trace through every design.
//!
//! ```text
//!   for each trace (or one mix of all):  decode once
//!       designs in parallel:  replay --> Run, rate
//!       drop the trace
//!   --> Report, in the order asked for
//! ```
//!
//! # Invariants
//!
//! - The report does not depend on the number of threads.
//! - At most one trace is in memory at a time, or all of a mix.

use crate::designs::{Design, Outcome};
use crate::embedded::{EMBEDDED, EmbeddedTrace};
use crate::machine::MachineConfig;
use crate::replay::{Job, ReplayError};
use crate::report::{Report, SCHEMA};
use crate::trace::{Reader, Trace, TraceError};
use core::fmt;
use indicatif::ProgressBar;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// Where a trace comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// One that is compiled in.
    Embedded(&'static EmbeddedTrace),
    /// A file.
    File(PathBuf),
}

impl Source {
    /// The file at `path`; where there is none, the embedded trace of this name, if there is one.
    #[must_use]
    pub fn named(path: &Path) -> Self {
        match EMBEDDED.iter().find(|trace| path.as_os_str() == trace.name) {
            Some(trace) if !path.exists() => Self::Embedded(trace),
            _ => Self::File(path.to_owned()),
        }
    }

    /// The file that it is read from, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Embedded(_) => None,
            Self::File(path) => Some(path),
        }
    }

    /// Equal for two sources of one trace: the same embedded one, or two paths to one file.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        match self {
            Self::Embedded(trace) => PathBuf::from(trace.name),
            Self::File(path) => path.canonicalize().unwrap_or_else(|_| path.clone()),
        }
    }

    /// What reports call it: a file's name without its folder and the endings of trace files.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Embedded(trace) => trace.name.to_owned(),
            Self::File(path) => {
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                let name = name.strip_suffix(".zst").unwrap_or(&name);
                let name = name.strip_suffix(".vt").unwrap_or(name);
                if name.is_empty() { path.display().to_string() } else { name.to_owned() }
            }
        }
    }

    fn read(&self, name: &str, limit: Option<usize>) -> Result<Trace, TraceError> {
        match self {
            Self::Embedded(trace) => trace.read(limit),
            Self::File(path) => Trace::read(name, Reader::open(path)?, limit),
        }
    }
}

/// The sources with their names; files whose names are not unique are called by their whole path.
fn named(sources: &[Source]) -> Vec<(&Source, String)> {
    let names: Vec<String> = sources.iter().map(Source::name).collect();
    let unique = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let full = |source: &Source, name: &String| match source {
        Source::File(path) if !unique(name) => path.display().to_string(),
        _ => name.clone(),
    };
    sources.iter().zip(&names).map(|(source, name)| (source, full(source, name))).collect()
}

/// What to compare, and on what.
#[derive(Clone, Debug)]
pub struct Options {
    /// The traces.
    pub sources: Vec<Source>,
    /// The designs.
    pub designs: Vec<&'static Design>,
    /// The processor.
    pub machine: MachineConfig,
    /// Whether address spaces have identifiers.
    pub asids: bool,
    /// Replay all traces as processes of one run, each for so many events at a time.
    pub mix: Option<usize>,
    /// Replay at most so many events of each trace; without a limit a trace that is too long for
    /// that is refused.
    pub limit: Option<usize>,
}

/// A report, and what is not reproducible about it.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// What is.
    pub report: Report,
    /// Millions of events a second on one core, for each run that was made.
    pub rates: Vec<Option<f64>>,
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

/// Runs the comparison; `bar` starts anew for each trace, and advances by one for each event and
/// design.
///
/// # Errors
///
/// The first [`CompareError`]; what was measured by then is dropped.
pub fn compare(options: &Options, bar: &ProgressBar) -> Result<Comparison, CompareError> {
    let mut outcomes = Vec::new();
    let read = |(source, name): (&Source, String)| {
        bar.set_length(1);
        bar.set_position(0);
        bar.set_message(format!("reading {name}"));
        source.read(&name, options.limit)
    };
    let sources = named(&options.sources).into_iter();
    if let Some(quantum) = options.mix {
        let traces = sources.map(read).collect::<Result<Vec<_>, _>>()?;
        outcomes.extend(run_all(options, &traces, quantum, bar)?);
    } else {
        for source in sources {
            outcomes.extend(run_all(options, &[read(source)?], usize::MAX, bar)?);
        }
    }
    bar.finish_and_clear();
    let rates = outcomes.iter().map(rate).collect();
    let runs = outcomes.into_iter().map(|outcome| outcome.run).collect();
    Ok(Comparison { report: Report { schema: SCHEMA, runs }, rates })
}

fn run_all(
    options: &Options,
    traces: &[Trace],
    quantum: usize,
    bar: &ProgressBar,
) -> Result<Vec<Outcome>, CompareError> {
    let names = traces.iter().map(|trace| trace.name.as_str()).collect::<Vec<_>>().join("+");
    let progress = &|events| bar.inc(events);
    let (machine, asids) = (&options.machine, options.asids);
    let job = Job { traces, machine, quantum, asids, promote: None, progress };
    bar.set_message(names.clone());
    bar.set_length(job.count_events() * options.designs.len() as u64);
    bar.set_position(0);
    let run = |design: &&'static Design| {
        let outcome = design.run(&job);
        if matches!(outcome, Ok(Outcome { elapsed: None, .. })) {
            bar.inc(job.count_events());
        }
        let design = design.name;
        outcome.map_err(|error| CompareError::Replay { design, traces: names.clone(), error })
    };
    options.designs.par_iter().map(run).collect()
}

/// Millions of events a second.
fn rate(outcome: &Outcome) -> Option<f64> {
    let seconds = outcome.elapsed?.as_secs_f64();
    (seconds > 0.0).then(|| outcome.run.events as f64 / seconds / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_without_folder_and_endings() {
        let name = |path: &str| Source::File(path.into()).name();
        assert_eq!(name("/tmp/a.vt.zst"), "a");
        assert_eq!(name("b.vt"), "b");
        assert_eq!(name("x/lackey.out"), "lackey.out");
        assert_eq!(name("x/.vt"), "x/.vt");
        assert_eq!(name(".."), "..");
    }

    #[test]
    fn files_of_one_name_are_told_apart() {
        let sources = ["a/x.vt", "b/x.vt", "b/y.vt"].map(|path| Source::File(path.into()));
        let names: Vec<_> = named(&sources).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a/x.vt", "b/x.vt", "y"]);
    }
}
