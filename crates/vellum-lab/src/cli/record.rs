//! `record-sizes`: makes a stream of processes for `compare --fits-stream`.
//!
//! ```text
//!   COMMAND runs --> sizes and times --> FILE     status 0, or 1 if the command failed
//! ```

use super::{Failure, cannot_write};
use crate::fits::{recorder, stream};
use crate::report;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// Runs a command and records the sizes and lifetimes of the processes that it starts.
#[derive(Args)]
#[command(override_usage = "vellum-lab record-sizes [OPTIONS] <FILE> -- <COMMAND>...")]
#[command(after_long_help = "\
Example:
  cargo run -r -p vellum-lab -- record-sizes own.csv -- make -j8
  cargo xtask compare --fits --fits-stream own.csv")]
pub(super) struct RecordArgs {
    /// Milliseconds between two looks at all processes
    #[arg(long, value_name = "MS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    every: u64,

    /// A line for the file's head; may be repeated
    #[arg(long, value_name = "TEXT")]
    remark: Vec<String>,

    /// Where to write the stream
    file: PathBuf,

    /// What to run, after `--`
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Runs the command to its end.
pub(super) fn run(args: &RecordArgs) -> Result<(), Failure> {
    report::check_writable(&args.file, []).map_err(|e| cannot_write(&args.file, &e))?;
    let [program, rest @ ..] = &args.command[..] else {
        return Err(Failure::bad_input("a command is missing"));
    };
    let shown = program.display();
    let (processes, status) = recorder::record(Command::new(program).args(rest), args.every)
        .map_err(|e| Failure::bad_input(format!("cannot record {shown}: {e}")))?;
    if processes.is_empty() {
        let message = format!("{shown} ended before it could be looked at; {}", status);
        return Err(Failure { status: 1, message });
    }
    let mut remarks = args.remark.clone();
    remarks.push(format!(
        "{} processes, by `vellum-lab record-sizes --every {}`",
        processes.len(),
        args.every
    ));
    remarks.push("times in ms; bytes of text + initialised data + everything else".to_owned());
    report::write_with(&args.file, |out| stream::write(&remarks, &processes, out))
        .map_err(|e| cannot_write(&args.file, &e))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure { status: 1, message: format!("{shown} failed; it was recorded: {status}") })
}
