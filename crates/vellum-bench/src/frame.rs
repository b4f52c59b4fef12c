//! `frame`: vellum-frame beside the published frame allocators.
//!
//! ```text
//!   Allocator types --> contenders of a row --> interleaved rounds --> least of each figure
//!                                                                        |
//!        sections   &mut          ours exclusive    peers through &mut   |
//!                   shared        ours cached       peers that CPUs share| --> Report --> JSON
//!                   no cache      ours uncached     the same             |
//! ```
//!
//! What each row does, how each peer is used, and why that is fair: docs/bench-frame.md.

pub mod allocator;
pub mod fragmentation;
pub mod instructions;
pub mod ours;
pub mod peers;
mod plan;
pub mod reserve;
pub mod rows;
pub mod scale;
pub mod stream;
mod tables;
pub mod threads;

#[cfg(test)]
mod tests;

use crate::cli::{self, Bench, Options};
use std::ffi::OsString;

/// The rows, for `--only`; `rows.txt` says what each is, here and to `cargo xtask bench --help`.
pub const ROWS: [&str; 10] = ["a", "instructions", "b", "c", "d", "e", "f", "init", "flat", "meta"];

const BENCH: Bench = Bench {
    name: "frame",
    about: "Measures vellum-frame beside the published frame allocators",
    examples: EXAMPLES,
    rows: &ROWS,
};

const EXAMPLES: &str = concat!(
    "Rows:\n",
    include_str!("frame/rows.txt"),
    "
Examples:
  cargo xtask bench frame
      everything, as tables
  cargo xtask bench frame --only a --only c --rounds 100
      two rows, more patiently
  cargo xtask bench frame --quick
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
