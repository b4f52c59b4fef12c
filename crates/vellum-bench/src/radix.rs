//! `radix`: vellum-radix beside the published page-table crates.
//!
//! ```text
//!   Table types --> checked --> turns: build, measure, give back --> least of each --> Report
//!                               ours  peer  peer  peer  peer             |
//!        sections   time           a table that no CPU reaches;          |
//!                                  ours in use, with a Batch; sizes      |
//!                   instructions   the same, counted by valgrind         +--> targets, as notes
//! ```
//!
//! What each row does, how each peer is used, and why that is fair: docs/bench-radix.md.

mod acts;
pub mod check;
pub mod flat;
pub mod instructions;
pub mod live;
pub mod ours;
pub mod peers;
mod plan;
pub mod ram;
pub mod rows;
pub mod table;
mod targets;

#[cfg(test)]
mod tests;

use crate::cli::{self, Bench, Options};
use std::ffi::OsString;

/// The rows, for `--only`; `rows.txt` says what each is, here and to `cargo xtask bench --help`.
pub const ROWS: [&str; 16] = [
    "map",
    "again",
    "each",
    "scatter",
    "seq",
    "random",
    "sparse",
    "protect",
    "unmap",
    "shuffled",
    "free",
    "blind",
    "large",
    "live",
    "flat",
    "instructions",
];

const BENCH: Bench = Bench {
    name: "radix",
    about: "Measures vellum-radix beside the published page-table crates",
    examples: EXAMPLES,
    rows: &ROWS,
};

const EXAMPLES: &str = concat!(
    "Rows:\n",
    include_str!("radix/rows.txt"),
    "
Examples:
  cargo xtask bench radix
      everything, as tables
  cargo xtask bench radix --only map --only unmap --rounds 100
      two rows, more patiently
  cargo xtask bench radix --only seq --only instructions
      one row, and its instructions
  cargo xtask bench radix --quick
      whether the bench works; no figure means anything"
);

/// Runs the command line; the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    cli::run(&BENCH, args, instructions::child, measure)
}

fn measure(options: &Options) -> Result<(), String> {
    check::all()?;
    let bar = cli::bar();
    let mut plan = plan::Plan::new(options, &bar);
    plan.run();
    bar.finish_and_clear();
    plan.into_report().print();
    Ok(())
}
