//! `fault`: what the paging engine takes for each kind of fault, and a page of each range operation.
//!
//! ```text
//!   act 1   anonymous write      4,096 pages      radix4 is the yardstick: the other designs are
//!   act 2   anonymous read       4,096 pages      shares of its figure
//!   ...     each goes on where the one before it has left the spaces (acts.rs)
//! ```
//!
//! It runs over a machine as a kernel has it (ram.rs), so a figure is of the engine, the table, the records
//! of frames and vellum-frame's caches of CPUs, and has no exception, no system call, no flush of a TLB and
//! no search for a region.
//! Clearing a page takes some 130 instructions of vector stores in the host's C library; copying one
//! takes 512, one for each word of a `rep movsq` as callgrind counts it.

mod acts;
pub(crate) mod designs;
mod plan;
pub(crate) mod ram;

#[cfg(test)]
mod tests;

use crate::cli::{self, Bench};
use std::ffi::OsString;

/// The rows, for `--only`; `rows.txt` says what each is, here and to `cargo xtask bench --help`.
pub const ROWS: [&str; 3] = ["time", "instructions", "threads"];

const BENCH: Bench = Bench {
    name: "fault",
    about: "Measures faults and range operations of the paging engine",
    examples: EXAMPLES,
    rows: &ROWS,
};

const EXAMPLES: &str = concat!(
    "Rows:\n",
    include_str!("fault/rows.txt"),
    "
Examples:
  cargo xtask bench fault
      everything, as tables
  cargo xtask bench fault --only instructions
      what does not depend on what else the machine does
  cargo xtask bench fault --quick
      whether the bench works; no figure means anything"
);

/// Runs the command line; the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    cli::run(&BENCH, args, acts::child, |options| {
        plan::run(options).print();
        Ok(())
    })
}
