//! The command line: `difftest`.
//!
//! ```text
//!   --seed N --ops N    random sequences, on two subjects: compared, a difference shrunk
//!   --replay FILE       the cases of a file, on Linux and on ours, against what they expect
//!   --record FILE       the same, printed with what Linux gave
//! ```
//!
//! Exit status: 0 without a difference, 1 with one, 2 if nothing could be compared.

use crate::compare::{self, Mode};
use crate::expect;
use crate::generate;
use crate::op::Sequence;
use crate::ours;
use crate::shrink;
use crate::subject::{Subject, SubjectError};
use crate::trace::{Outcome, Trace};
use clap::{CommandFactory as _, Parser};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Runs random sequences of the mmap family on two subjects, and compares.
#[derive(Debug, Parser)]
#[command(name = "difftest", bin_name = "cargo xtask difftest")]
struct Options {
    /// The first of the numbers that sequences are made of
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Operations in all
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    ops: u64,
    /// Operations of a sequence
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(1..=1000))]
    sequence_length: u16,
    /// Ten million operations
    #[arg(long, conflicts_with = "ops")]
    long: bool,
    /// Take neighbouring regions as one that differ in nothing, and do not compare counts of shared and
    /// dirty pages, nor the text of smaps: for kernels other than 6.18
    #[arg(long)]
    loose: bool,
    /// Stop after so many differences
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    differences: u64,
    /// What Linux is compared with: a design's name, `all` for all of them in turn, or `linux` for
    /// another run of the same
    #[arg(long, default_value = "all")]
    design: String,
    /// Only the sequence of this number, with every step shown
    #[arg(long)]
    sequence: Option<u64>,
    /// Run the cases of a file on Linux and on --design, and hold them against what they expect
    #[arg(long, conflicts_with = "record")]
    replay: Option<PathBuf>,
    /// Run the cases of a file on Linux, and print them with what it gave
    #[arg(long)]
    record: Option<PathBuf>,
    /// With --record, add maps and rss where they changed
    #[arg(long, requires = "record")]
    all: bool,
}

/// Operations of `--long`.
const LONG: u64 = 10_000_000;
/// Sequences after which `--long` says how far it is.
const TOLD_AFTER: u64 = 2_500;

/// Why nothing was compared.
struct Stop(String);

impl From<SubjectError> for Stop {
    fn from(error: SubjectError) -> Self {
        Self(error.to_string())
    }
}

/// Prints a line; a reader who has left is no error.
macro_rules! say {
    ($($arg:tt)*) => {{ let _ = writeln!(std::io::stdout(), $($arg)*); }};
}

/// The options, for who wants to look at them.
#[must_use]
pub fn command() -> clap::Command {
    Options::command()
}

/// Runs the command line, and returns the exit status.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let options = match Options::try_parse_from(args) {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    match carried_out(&options) {
        Ok(true) => 0,
        Ok(false) => 1,
        Err(Stop(why)) => {
            eprintln!("difftest: {why}");
            2
        }
    }
}

fn carried_out(options: &Options) -> Result<bool, Stop> {
    if let Some(path) = &options.replay {
        return replay(path, &options.design);
    }
    if let Some(path) = &options.record {
        return record(path, options.all);
    }
    let mut linux = linux()?;
    let mut others = subjects(&options.design)?;
    let mode = if options.loose { Mode::Normalised } else { Mode::Strict };
    if let Some(number) = options.sequence {
        let length = usize::from(options.sequence_length);
        let sequence = generate::sequence(options.seed, number, length);
        let other = in_turn(&mut others, number)?;
        return show(&sequence, linux.as_mut(), other, mode);
    }
    fuzz(options, linux.as_mut(), &mut others, mode)
}

/// The kernel of this host.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn linux() -> Result<Box<dyn Subject>, Stop> {
    let linux = crate::linux::Linux::new()?;
    say!("{}", linux.host());
    Ok(Box::new(linux))
}

/// There is none.
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn linux() -> Result<Box<dyn Subject>, Stop> {
    Err(Stop("this host is not a Linux on x86-64, with which to compare".to_owned()))
}

/// Those that the name stands for.
fn subjects(design: &str) -> Result<Vec<Box<dyn Subject>>, Stop> {
    let by_name = |name: &str| {
        ours::by_name(name).ok_or_else(|| {
            let names = ours::names().join(", ");
            Stop(format!("there is no design `{name}`; choose all, linux, {names}"))
        })
    };
    match design {
        "linux" => Ok(vec![linux()?]),
        "all" => Ok(ours::all()),
        _ => Ok(vec![by_name(design)?]),
    }
}

/// Whose turn it is.
fn in_turn(subjects: &mut [Box<dyn Subject>], number: u64) -> Result<&mut dyn Subject, Stop> {
    let count = subjects.len().max(1) as u64;
    let at = usize::try_from(number % count).unwrap_or(0);
    match subjects.get_mut(at) {
        Some(subject) => Ok(subject.as_mut()),
        None => Err(Stop("there is nothing to compare with".to_owned())),
    }
}

fn read(path: &Path) -> Result<Vec<expect::Case>, Stop> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|e| Stop(format!("{}: {e}", path.display())))?;
    let cases = expect::parse(&text).map_err(|e| Stop(format!("{}: {e}", path.display())))?;
    if cases.iter().all(|case| case.sequence.ops.is_empty()) {
        return Err(Stop(format!("{}: there is no operation in it", path.display())));
    }
    Ok(cases)
}

fn replay(path: &Path, design: &str) -> Result<bool, Stop> {
    let cases = read(path)?;
    let mut all = vec![linux()?];
    all.extend(subjects(design)?);
    let mut failures = 0;
    for subject in &mut all {
        for case in &cases {
            for failure in case.failures(&subject.run(&case.sequence)?) {
                say!("{}: {failure}", subject.name());
                failures += 1;
            }
        }
    }
    let count =
        if cases.len() == 1 { "one case".to_owned() } else { format!("{} cases", cases.len()) };
    say!("{count} on {} subjects, {failures} expectations not met", all.len());
    Ok(failures == 0)
}

fn record(path: &Path, all: bool) -> Result<bool, Stop> {
    let cases = read(path)?;
    // What is printed is to be the file.
    let mut linux = subject_silently()?;
    for case in &cases {
        let trace = linux.run(&case.sequence)?;
        let _ = write!(std::io::stdout(), "{}", case.recorded(&trace, all));
    }
    Ok(true)
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn subject_silently() -> Result<crate::linux::Linux, Stop> {
    Ok(crate::linux::Linux::new()?)
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn subject_silently() -> Result<Box<dyn Subject>, Stop> {
    linux()
}

/// One sequence, step by step.
fn show(
    sequence: &Sequence,
    left: &mut dyn Subject,
    right: &mut dyn Subject,
    mode: Mode,
) -> Result<bool, Stop> {
    let (one, other) = (left.run(sequence)?, right.run(sequence)?);
    for (op, step) in sequence.ops.iter().zip(&one.steps) {
        say!("{op} = {}", step.outcome);
        if let Some(state) = &step.state {
            say!("    {}", state.line("maps").unwrap_or_default());
        }
    }
    match compare::difference(&one, &other, mode) {
        None => {
            say!("no unexplained difference between {} and {}", left.name(), right.name());
            Ok(true)
        }
        Some(found) => {
            tell(sequence, &found, left, right);
            Ok(false)
        }
    }
}

fn tell(sequence: &Sequence, found: &compare::Difference, left: &dyn Subject, right: &dyn Subject) {
    say!("{sequence}{found}");
    say!("  {}: {}", left.name(), found.left);
    say!("  {}: {}", right.name(), found.right);
}

/// What was run.
#[derive(Debug, Default)]
struct Tally {
    sequences: u64,
    ops: u64,
    succeeded: u64,
    skipped: u64,
    /// Sequences that ended at a known difference, by its name.
    explained: BTreeMap<&'static str, u64>,
}

impl Tally {
    fn add(&mut self, trace: &Trace) {
        self.sequences += 1;
        for step in &trace.steps {
            self.ops += 1;
            match step.outcome {
                Outcome::Fails(_) | Outcome::Signal(_) | Outcome::Pages(_, Some(_)) => {}
                Outcome::Skipped(_) => self.skipped += 1,
                _ => self.succeeded += 1,
            }
        }
    }
}

fn fuzz(
    options: &Options,
    left: &mut dyn Subject,
    rights: &mut [Box<dyn Subject>],
    mode: Mode,
) -> Result<bool, Stop> {
    let length = usize::from(options.sequence_length);
    let ops = if options.long { LONG } else { options.ops };
    let started = Instant::now();
    let mut tally = Tally::default();
    let mut differences = 0;
    let mut kinds = BTreeSet::new();
    while tally.ops < ops && differences < options.differences {
        let number = tally.sequences;
        let sequence = generate::sequence(options.seed, number, length);
        let right = in_turn(rights, number)?;
        let failed = |e: SubjectError| Stop(format!("sequence {number}: {e}\n{sequence}"));
        let one = left.run(&sequence).map_err(failed)?;
        let other = right.run(&sequence).map_err(failed)?;
        tally.add(&one);
        if options.long && tally.sequences.is_multiple_of(TOLD_AFTER) {
            eprintln!("{} operations, {:.0} s", tally.ops, started.elapsed().as_secs_f64());
        }
        let explained =
            compare::first(&one, &other, mode).and_then(|found| compare::explanation(&one, &found));
        if let Some(explained) = explained {
            *tally.explained.entry(explained.name).or_default() += 1;
        }
        if let Some(found) = compare::difference(&one, &other, mode) {
            differences += 1;
            let (small, found) = shrunk(&sequence, &found, left, right, mode);
            if kinds.insert(kind(&small, &found)) {
                say!("\nseed {}, sequence {number}, shrunk:", options.seed);
                tell(&small, &found, left, right);
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let Tally { sequences, ops, succeeded, skipped, explained } = tally;
    for (name, count) in explained {
        say!("explained {count} times: {name}");
    }
    let names: Vec<_> = rights.iter().map(|right| right.name()).collect();
    let (left, right) = (left.name(), names.join(", "));
    let share = succeeded as f64 * 100.0 / ops.max(1) as f64;
    let found = match differences {
        0 => "no difference".to_owned(),
        1 => "one difference".to_owned(),
        _ => format!("{differences} differences of {} kinds", kinds.len()),
    };
    say!(
        "{ops} operations in {sequences} sequences, {share:.0}% succeeded, {skipped} skipped, \
         {seconds:.1} s: {found} between {left} and {right}"
    );
    Ok(differences == 0)
}

/// What a difference is like: those that are alike are told once.
fn kind(sequence: &Sequence, found: &compare::Difference) -> String {
    let word = |text: &str| text.split(' ').next().unwrap_or_default().to_owned();
    let ops: Vec<_> = sequence.ops.iter().map(|op| word(&op.to_string())).collect();
    format!("{} {}", word(&found.aspect), ops.join(" "))
}

/// A shorter sequence that differs in the same, and its difference.
fn shrunk(
    sequence: &Sequence,
    found: &compare::Difference,
    left: &mut dyn Subject,
    right: &mut dyn Subject,
    mode: Mode,
) -> (Sequence, compare::Difference) {
    let aspect =
        |found: &compare::Difference| found.aspect.split(' ').next().unwrap_or_default().to_owned();
    let wanted = aspect(found);
    let mut last = found.clone();
    let small = shrink::shrink(sequence, |candidate| {
        let (Ok(one), Ok(other)) = (left.run(candidate), right.run(candidate)) else {
            return false;
        };
        match compare::difference(&one, &other, mode) {
            Some(found) if aspect(&found) == wanted => {
                last = found;
                true
            }
            _ => false,
        }
    });
    (small, last)
}
