//! `test`: every test there is, and one last line that counts them.
//!
//! ```text
//!   cargo test --workspace        test result: ok. 11 passed; 0 failed; ...   (many of these)
//!   models under loom             the same lines
//!   unit tests under Miri         the same lines
//!   200,000 operations            the same lines: `difftest`'s default run
//!   image, 4 levels               12 passed, 0 failed                         + status 33
//!                                 qmp 4 levels: 1,024 mappings equal ...      1 test
//!   image, 5 levels               the same two
//!   image, made to end badly      status 35, status 37                        1 test each
//!   -------------------------------------------------------------------
//!   N passed, N failed            the sum, alone on the last line
//! ```
//!
//! The tests under Miri take one processor and long: they run beside all others, and are printed after
//! them.
//!
//! A part that ends badly without counting a failure (it did not compile, it hung, it crashed)
//! counts as one, and so does a part that ends well without counting anything. Miri alone may be
//! skipped, where it cannot be had; that is said.
//!
//! Every part has a limit: each test program of the host [`LIMIT_SECONDS`], where coreutils'
//! `timeout` is there (elsewhere none), and each run of the image that of [`Machine`]. Compiling
//! has none.

mod checkers;

use crate::process;
use crate::qemu::qmp::mappings::Mappings;
use crate::qemu::{self, End, Machine};
use crate::setup;
use crate::stop::{Result, Stop};
use crate::workspace::cargo;
use core::ops::AddAssign;
use std::path::Path;
use std::process::Command;
use std::thread::{self, ScopedJoinHandle};

/// Seconds that one test program of the host may take.
const LIMIT_SECONDS: u64 = 30 * 60;

/// A word for the image's command line, the status that must follow, and what it must say.
const BAD_ENDS: [(&str, i32, &str); 3] = [
    ("provoke=failure", 35, "failed as asked"),
    ("provoke=panic", 37, "panicked as asked"),
    ("provoke=trap", 37, "trap: vector 3,"),
];

/// Tests counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Those that passed.
    pub(crate) passed: u64,
    /// Those that did not.
    pub(crate) failed: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl Count {
    fn of(passed: bool) -> Self {
        Self { passed: u64::from(passed), failed: u64::from(!passed) }
    }

    /// The count, with a failure for an end that nothing counted accounts for, and for no tests.
    fn ended(mut self, well: bool) -> Self {
        if self.failed == 0 && (!well || self.passed == 0) {
            self.failed = 1;
        }
        self
    }
}

/// The parts of the tests; none chosen means all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Parts {
    /// Only the host's tests and the doc tests
    #[arg(long)]
    host: bool,
    /// Only the models, in every order that loom finds
    #[arg(long)]
    loom: bool,
    /// Only the unit tests of the quick crates, under Miri (all crates: `cargo xtask miri`)
    #[arg(long)]
    miri: bool,
    /// Only random mmap sequences, compared with Linux (`cargo xtask difftest`)
    #[arg(long)]
    difftest: bool,
    /// Only the image's tests
    #[arg(long)]
    qemu: bool,
}

impl Parts {
    /// All of them.
    pub(crate) const ALL: Self =
        Self { host: true, loom: true, miri: true, difftest: true, qemu: true };

    fn or_all(self) -> Self {
        if self == Self::default() { Self::ALL } else { self }
    }
}

/// Runs what is asked for, and prints the last line.
pub(crate) fn run(parts: Parts) -> Result {
    let parts = parts.or_all();
    if parts.qemu {
        // Before anything that takes long: is QEMU there, and the target?
        setup::qemu()?;
        setup::target(setup::BARE_METAL)?;
    }
    let count = thread::scope(|scope| -> Result<Count> {
        let beside = parts.miri.then(|| scope.spawn(under_miri));
        let mut count = one_by_one(parts)?;
        if let Some(beside) = beside {
            count += joined(beside)?;
        }
        Ok(count)
    })?;
    say!("{} passed, {} failed", count.passed, count.failed);
    if count.failed == 0 { Ok(()) } else { Err(Stop { status: 1, message: String::new() }) }
}

/// All parts but Miri's.
fn one_by_one(parts: Parts) -> Result<Count> {
    let mut count = Count::default();
    if parts.host {
        count += host_tests()?;
    }
    if parts.loom {
        count += checkers::loom()?;
    }
    if parts.difftest {
        count += linux()?;
    }
    if parts.qemu {
        count += image_tests()?;
    }
    Ok(count)
}

/// What Miri counts, without printing anything: the lines are given back.
fn under_miri() -> (Vec<String>, Result<Count>) {
    let mut lines = Vec::new();
    let count = checkers::miri(&mut |line| lines.push(line.to_owned()));
    (lines, count)
}

/// Prints what a part gathered, when it has ended.
fn joined(part: ScopedJoinHandle<'_, (Vec<String>, Result<Count>)>) -> Result<Count> {
    let Ok((lines, count)) = part.join() else {
        return Err(Stop::failed("the thread that runs Miri has panicked".to_owned()));
    };
    lines.iter().for_each(|line| say!("{line}"));
    count
}

fn host_tests() -> Result<Count> {
    let mut tests = cargo();
    let tests = tests.args(["test", "--workspace", "--no-fail-fast"]).envs(runner());
    each_test(tests, &mut |line| say!("{line}"))
}

/// Runs what prints as `cargo test` does, and counts; `print` gets each line.
fn each_test(tests: &mut Command, print: &mut dyn FnMut(&str)) -> Result<Count> {
    let mut count = Count::default();
    let status = process::each_line(tests, |line| {
        print(line);
        count += cargo_result(line).unwrap_or_default();
    })?;
    Ok(count.ended(status.success()))
}

/// The variable by which cargo starts each test program under the limit; not where somebody else
/// has set it.
fn runner() -> Option<(String, String)> {
    let host = process::output(Command::new("rustc").args(["--print", "host-tuple"]))?;
    let key = format!("CARGO_TARGET_{}_RUNNER", host.trim().to_uppercase().replace('-', "_"));
    if std::env::var_os(&key).is_some() {
        return None;
    }
    Some((key, process::limited_to(LIMIT_SECONDS)?))
}

/// What a line of `cargo test` counts, if it is one that does.
fn cargo_result(line: &str) -> Option<Count> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |what: &str| {
        counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
    };
    Some(Count { passed: number(" passed")?, failed: number(" failed")? })
}

/// The default run of `difftest`: one test. Elsewhere than on a Linux it is left out.
fn linux() -> Result<Count> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        say!("difftest is skipped: this host has no Linux on x86-64 to compare with");
        return Ok(Count::default());
    }
    say!("\n     Running random sequences against Linux");
    // Of the whole workspace, as the host's tests: then it is built already.
    let mut run = cargo();
    run.args(["test", "--workspace", "--test", "default_run", "--", "--ignored", "--nocapture"]);
    each_test(&mut run, &mut |line| say!("{line}"))
}

fn image_tests() -> Result<Count> {
    let Ok(image) = qemu::build_image() else {
        eprintln!("xtask: the image does not build");
        return Ok(Count::of(false));
    };
    let mut count = Count::default();
    for levels in [4, 5] {
        count += image_run(levels, &image)?;
    }
    for (word, status, says) in BAD_ENDS {
        count += bad_end(word, status, says, &image)?;
    }
    Ok(count)
}

/// All tests of the image, with its output shown but for the mappings that it lists for QEMU's own
/// walker: whether those are equal is one more test.
fn image_run(levels: u8, image: &Path) -> Result<Count> {
    say!("\n     Running the image with {levels} levels of page tables");
    let machine = Machine { words: vec!["qmp=wait".to_owned()], ..Machine::new(levels) };
    let mut mappings = Mappings::new(levels);
    let mut last = None;
    let (end, took) = qemu::boot_monitored(&machine, image, |line, monitor| {
        if mappings.take(line, monitor) {
            return;
        }
        say!("{line}");
        last = image_result(line).or(last);
    })?;
    say!("the machine ran for {:.2} s, and {}", took.as_secs_f64(), ended(end));
    let well = end == End::Left(Some(qemu::SUCCESS)) && last.is_some();
    let mut count = last.unwrap_or_default().ended(well);
    count += Count::of(mappings.are_equal());
    Ok(count)
}

/// An image that is told to end badly says so by its status: one test.
fn bad_end(word: &str, status: i32, says: &str, image: &Path) -> Result<Count> {
    let machine = Machine { words: vec![word.to_owned()], ..Machine::new(5) };
    let mut output = String::new();
    let (end, _) = qemu::boot(&machine, image, |line| {
        output += line;
        output.push('\n');
    })?;
    let passed = end == End::Left(Some(status)) && output.contains(says);
    if passed {
        say!("test image, {word}: status {status} ... ok");
    } else {
        say!("test image, {word}: status {status} ... FAILED: it {}\n{output}", ended(end));
    }
    Ok(Count::of(passed))
}

/// What the image's last line counts.
fn image_result(line: &str) -> Option<Count> {
    let (passed, failed) = line.strip_suffix(" failed")?.split_once(" passed, ")?;
    Some(Count { passed: passed.parse().ok()?, failed: failed.parse().ok()? })
}

fn ended(end: End) -> String {
    match end {
        End::Left(Some(status)) => format!("left with {status}"),
        End::Left(None) => "was ended by a signal".to_owned(),
        End::Limit => "was ended after its limit".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_chosen_means_all_parts() {
        assert_eq!(Parts::default().or_all(), Parts::ALL);
        let some = Parts { loom: true, ..Parts::default() };
        assert_eq!(some.or_all(), some);
    }

    #[test]
    fn result_lines_of_cargo_are_counted() {
        let ok = "test result: ok. 11 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; \
                  finished in 0.00s";
        assert_eq!(cargo_result(ok), Some(Count { passed: 11, failed: 0 }));
        let bad = "test result: FAILED. 3 passed; 14 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(cargo_result(bad), Some(Count { passed: 3, failed: 14 }));
        for line in ["test a ... ok", "test result: ok", "test result: ok. some passed; 0 failed"] {
            assert_eq!(cargo_result(line), None, "{line}");
        }
    }

    #[test]
    fn the_last_line_of_the_image_is_counted() {
        assert_eq!(image_result("12 passed, 3 failed"), Some(Count { passed: 12, failed: 3 }));
        for line in ["", "passed, failed", "test a ... 1 passed, 0 failed", "1 passed, 0 failed."] {
            assert_eq!(image_result(line), None, "{line}");
        }
    }

    #[test]
    fn a_bad_end_that_counted_nothing_is_one_failure() {
        let counted = Count { passed: 5, failed: 2 };
        assert_eq!(counted.ended(false), counted);
        assert_eq!(Count { passed: 5, failed: 0 }.ended(false).failed, 1);
        assert_eq!(Count { passed: 5, failed: 0 }.ended(true).failed, 0);
    }

    #[test]
    fn a_good_end_that_counted_nothing_is_one_failure() {
        assert_eq!(Count::default().ended(true), Count { passed: 0, failed: 1 });
    }
}
