//! `designs`: hashed and inverted tables beside `hashbrown`, as maps from page to entry.
//!
//! ```text
//!   Map types --> turns: insert, hit, miss, delete, checked as they go --> least of each --> Report
//!                 designs and hash maps, interleaved                            |
//!        sections   time, and instructions, of random, dense, consecutive pages +--> notes: targets,
//!                   hashbrown is the yardstick: a ratio is a share of its figure     lines a hit
//! ```
//!
//! What each row does, how the maps are used, and why that is fair: docs/bench-designs.md.

mod instructions;
mod lines;
pub mod map;
pub mod ours;
pub mod peers;
mod plan;
pub mod ram;
pub mod rows;

#[cfg(test)]
mod tests;

use crate::cli::{self, Bench, Options};
use std::ffi::OsString;

/// The rows, for `--only`; `rows.txt` says what each is, here and to `cargo xtask bench --help`.
pub const ROWS: [&str; 5] = ["4k", "256k", "4m", "instructions", "lines"];

const BENCH: Bench = Bench {
    name: "designs",
    about: "Measures hashed and inverted page tables beside hashbrown",
    examples: EXAMPLES,
    rows: &ROWS,
};

const EXAMPLES: &str = concat!(
    "Rows:\n",
    include_str!("designs/rows.txt"),
    "
Examples:
  cargo xtask bench designs
      everything, as tables
  cargo xtask bench designs --only 256k --rounds 100
      one size, more patiently
  cargo xtask bench designs --quick
      whether the bench works; no figure means anything"
);

/// Runs the command line; the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    cli::run(&BENCH, args, instructions::child, measure)
}

fn measure(options: &Options) -> Result<(), String> {
    let bar = cli::bar();
    let mut plan = plan::Plan::new(options, &bar);
    plan.run();
    bar.finish_and_clear();
    plan.into_report().print();
    Ok(())
}
