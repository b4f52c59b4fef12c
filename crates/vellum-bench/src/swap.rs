//! `swap`: replacement policies beside the published caches that have the same ones.
//!
//! ```text
//!   Stream (made up) --> each contender from empty, every reference --> least time of each --> Report
//!                        ours and the peers, interleaved
//!        policies        time and misses: 997 pages in 128 frames, 262,144 in 32,768
//!        instructions    of the smaller one, counted by valgrind
//! ```
//!
//! What each row does, how the caches are used, and what is not the same: docs/bench-swap.md.

mod contenders;
mod instructions;
mod plan;

#[cfg(test)]
mod tests;

use crate::cli::{self, Bench, Options};
use std::ffi::OsString;

/// The rows, for `--only`; `rows.txt` says what each is, here and to `cargo xtask bench --help`.
pub const ROWS: [&str; 2] = ["policies", "policies-instructions"];

const BENCH: Bench = Bench {
    name: "swap",
    about: "Measures replacement policies beside published caches",
    examples: EXAMPLES,
    rows: &ROWS,
};

const EXAMPLES: &str = concat!(
    "Rows:\n",
    include_str!("swap/rows.txt"),
    "
Examples:
  cargo xtask bench swap
      everything, as tables
  cargo xtask bench swap --only policies --rounds 100
      time and misses alone, more patiently
  cargo xtask bench swap --quick
      whether the bench works; no figure means anything"
);

/// Runs the command line; the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    cli::run(&BENCH, args, instructions::child, measure)
}

fn measure(options: &Options) -> Result<(), String> {
    let bar = cli::bar();
    let report = plan::run(options, &bar);
    bar.finish_and_clear();
    report.print();
    Ok(())
}
