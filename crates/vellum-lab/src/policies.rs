//! Replacement policies compared: misses of each, on the same references, at several sizes of memory.
//!
//! ```text
//!   traces, or a file of blocks --> Stream --+--> policy x mode x frames --> misses --> report
//!                                            `--> OPT x frames, the bound
//! ```
//!
//! The policies are vellum-reclaim's, from its one list. A stream is every reference of a trace, fetches
//! among them; a trace leaves out repeats (docs/trace-format.md), which hit in any memory.
//!
//! # Invariants
//!
//! - No figure depends on the host, nor on how many threads there are.
//! - A memory of as many frames as there are pages is never replayed with more: nothing would be taken.

use crate::source::Source;
use crate::trace::TraceError;
use core::fmt;
use indicatif::ProgressBar;
use rayon::prelude::*;
use vellum_reclaim::host::{Mode, Stream, misses, opt};
use vellum_reclaim::policies::{Visit, visit_all};
use vellum_reclaim::{MOST_FRAMES, Policy, SizeError};

pub mod blocks;
pub mod report;
mod table;

pub use blocks::BlocksError;
pub use report::{POLICIES_SCHEMA, PoliciesReport, PolicyRun, StreamReport};
pub use table::render;
pub(crate) use table::{misses as misses_of, policies, sizes};

/// What the bound is called.
pub const OPT: &str = "opt";

/// One policy.
#[derive(Clone, Copy, Debug)]
pub struct Contender {
    /// What it is asked for by.
    pub name: &'static str,
    /// What it is.
    pub summary: &'static str,
    /// Its misses, or the bound's, which knows no modes.
    run: Run,
}

#[derive(Clone, Copy, Debug)]
enum Run {
    Policy(fn(&Stream, u32, Mode) -> Result<u64, SizeError>),
    Opt,
}

/// Every policy, and the bound behind them.
#[must_use]
pub fn contenders() -> Vec<Contender> {
    struct All(Vec<Contender>);
    impl Visit for All {
        fn visit<P: Policy>(&mut self) {
            let run = Run::Policy(misses::<P>);
            self.0.push(Contender { name: P::NAME, summary: P::SUMMARY, run });
        }
    }
    let mut all = All(Vec::new());
    visit_all(&mut all);
    all.0.push(Contender {
        name: OPT,
        summary: "the bound, which knows the future",
        run: Run::Opt,
    });
    all.0
}

/// Where references come from.
#[derive(Debug)]
pub enum Input {
    /// A trace, what to call it, and how much of it.
    Trace(Source, String, Option<usize>),
    /// A file of block numbers.
    Blocks(std::path::PathBuf),
}

/// Why there is no report.
#[derive(Debug)]
#[non_exhaustive]
pub enum PoliciesError {
    /// A trace cannot be read.
    Trace(TraceError),
    /// A file of blocks cannot.
    Blocks(BlocksError),
    /// A policy cannot be made of that size.
    Size(SizeError),
}

impl fmt::Display for PoliciesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trace(e) => e.fmt(f),
            Self::Blocks(e) => e.fmt(f),
            Self::Size(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for PoliciesError {}

/// The most frames that can be asked for.
pub const MOST: u32 = MOST_FRAMES;

/// A memory's sizes, where nobody says any: these parts of a stream's pages.
const USUAL_PARTS: [u32; 3] = [8, 4, 2];

fn usual_sizes(stream: &Stream) -> Vec<u32> {
    let mut sizes = USUAL_PARTS.map(|part| (stream.distinct() / part).max(1)).to_vec();
    sizes.dedup();
    sizes
}

/// Reads each input and runs all contenders on it; `bar` advances by one for each run.
///
/// # Errors
///
/// [`PoliciesError`] for the first input that cannot be read.
pub fn compare(
    inputs: &[Input],
    contenders: &[Contender],
    frames: &[u32],
    bar: &ProgressBar,
) -> Result<PoliciesReport, PoliciesError> {
    let mut report = PoliciesReport::new();
    // The bound is run in one mode.
    let each = contenders.iter().map(|it| if matches!(it.run, Run::Opt) { 1 } else { 2 });
    let sizes = if frames.is_empty() { USUAL_PARTS.len() } else { frames.len() };
    bar.set_length((inputs.len() * sizes * each.sum::<usize>()) as u64);
    for input in inputs {
        let (name, stream) = read(input)?;
        bar.set_message(name.clone());
        let sizes = if frames.is_empty() { usual_sizes(&stream) } else { frames.to_vec() };
        report.streams.push(StreamReport {
            trace: name.clone(),
            references: stream.pages().len() as u64,
            pages: stream.distinct(),
        });
        report.runs.extend(runs(&name, &stream, contenders, &sizes, bar)?);
    }
    bar.finish_and_clear();
    Ok(report)
}

fn read(input: &Input) -> Result<(String, Stream), PoliciesError> {
    match input {
        Input::Trace(source, name, limit) => {
            let traces = source.read(name, *limit).map_err(PoliciesError::Trace)?;
            // Of several processes no two share a page.
            let pages = traces.iter().enumerate().flat_map(|(process, trace)| {
                trace.events.iter().map(move |event| (process, event.page().as_u64()))
            });
            Ok((name.clone(), Stream::new(pages)))
        }
        Input::Blocks(path) => {
            let stream = blocks::read(path).map_err(PoliciesError::Blocks)?;
            Ok((path.display().to_string(), stream))
        }
    }
}

fn runs(
    trace: &str,
    stream: &Stream,
    contenders: &[Contender],
    sizes: &[u32],
    bar: &ProgressBar,
) -> Result<Vec<PolicyRun>, PoliciesError> {
    let mut jobs = Vec::new();
    for contender in contenders {
        for mode in Mode::ALL {
            // The bound is told everything there is to come, in one mode.
            if !matches!((contender.run, mode), (Run::Opt, Mode::AccessedBits)) {
                jobs.extend(sizes.iter().map(|&frames| (contender, mode, frames)));
            }
        }
    }
    let one = |&(contender, mode, frames): &(&Contender, Mode, u32)| {
        let enough = frames.min(stream.distinct().max(1));
        let misses = match contender.run {
            Run::Policy(run) => run(stream, enough, mode).map_err(PoliciesError::Size)?,
            Run::Opt => opt::misses(stream, enough),
        };
        bar.inc(1);
        let (trace, policy, mode) = (trace.into(), contender.name.into(), mode.name().into());
        Ok(PolicyRun { trace, policy, mode, frames, misses })
    };
    jobs.par_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_last_and_names_are_unique() {
        let all = contenders();
        assert_eq!((all.len(), all.last().map(|it| it.name)), (16, Some(OPT)));
        let unique: std::collections::HashSet<_> = all.iter().map(|it| it.name).collect();
        assert_eq!(unique.len(), all.len());
    }

    #[test]
    fn a_run_is_told_whole_and_nothing_beats_the_bound() {
        let stream = Stream::synthetic(100, 5_000);
        let all = contenders();
        let runs = runs("made-up", &stream, &all, &[10, 1000], &ProgressBar::hidden()).unwrap();
        assert_eq!(runs.len(), 15 * 2 * 2 + 2);
        let bound = |frames| {
            let mut found = runs.iter().filter(|run| run.policy == OPT && run.frames == frames);
            found.next().unwrap().misses
        };
        assert!(bound(10) > bound(1000));
        for run in &runs {
            assert!(run.misses >= bound(run.frames), "{run:?}");
            if run.frames == 1000 {
                assert_eq!(run.misses, u64::from(stream.distinct()), "{run:?}");
            }
        }
    }
}
