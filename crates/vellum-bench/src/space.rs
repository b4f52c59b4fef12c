//! `space`: `VmaMap` beside published maps of ranges, and `AddressSpace` beside Linux.
//!
//! ```text
//!   Map types --> turns: build, find, hole, gaps, pair, checked as they go --> least of each --> Report
//!                 ours and the peers, interleaved
//!        vma                 time, 10 to 1 Mi regions
//!        vma-instructions    the same acts with 1,000 and 100,000 regions, counted by valgrind
//!
//!   Act --> faults, calls, forks, in a world of their own --> Report                   (space/ops.rs)
//!        ops, pages, threads, and their instructions
//! ```
//!
//! What each row does, how the maps are used, and why that is fair: docs/bench-space.md.

mod huge;
mod instructions;
pub mod map;
mod ops;
pub mod ours;
pub mod peers;
mod plan;
pub mod rows;

#[cfg(test)]
mod tests;

use crate::cli::{self, Bench, Options};
use std::ffi::OsString;

/// The rows, for `--only`; `rows.txt` says what each is, here and to `cargo xtask bench --help`.
pub const ROWS: [&str; 7] = [
    "vma",
    "vma-instructions",
    "ops",
    "ops-instructions",
    "pages",
    "pages-instructions",
    "threads",
];

const BENCH: Bench = Bench {
    name: "space",
    about: "Measures address spaces beside Linux, and their map of regions beside published maps",
    examples: EXAMPLES,
    rows: &ROWS,
};

const EXAMPLES: &str = concat!(
    "Rows:\n",
    include_str!("space/rows.txt"),
    "
Examples:
  cargo xtask bench space
      everything, as tables
  cargo xtask bench space --only vma --rounds 100
      time alone, more patiently
  cargo xtask bench space --quick
      whether the bench works; no figure means anything"
);

/// Runs the command line; the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    cli::run(&BENCH, args, child, measure)
}

fn child(name: &str, count: &str) -> Result<(), String> {
    match name.strip_prefix("op:") {
        Some(name) => ops::child(name, count),
        None => instructions::child(name, count),
    }
}

fn measure(options: &Options) -> Result<(), String> {
    huge::begin();
    let bar = cli::bar();
    let mut plan = plan::Plan::new(options, &bar);
    plan.run();
    bar.finish_and_clear();
    plan.into_report().print();
    Ok(())
}
