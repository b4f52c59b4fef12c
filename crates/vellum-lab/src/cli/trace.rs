//! `trace` and `convert`: make traces.
//!
//! ```text
//!   PROGRAM under valgrind --tool=lackey --log--> pipe --Reader--> VtWriter --zstd--> FILE
//!       |                                                   ^
//!       +-- stdin, stdout, stderr as ever                   +-- convert begins here, with a file
//! ```
//!
//! The text is twenty times what is kept of it, so it is never stored. Valgrind opens its log by the
//! name that Linux gives to our end of a pipe.
//!
//! # Invariants
//!
//! - A file is written whole, or is what it was.
//! - Who is done with a program ends it: the one that was started, by its handle.

use super::{Failure, cannot_write, progress};
use crate::report;
use crate::trace::{Reader, TraceError, TraceFault, VtWriter};
use clap::Args;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use indicatif::ProgressBar;
use std::ffi::OsString;
use std::io::{self, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

/// How hard zstd tries: the recordings in `data/` are packed so.
const LEVEL: i32 = 9;

/// Events between two reports of progress.
const STEP: u64 = 1 << 16;

/// How often a program is asked whether it has ended.
const POLL: Duration = Duration::from_millis(20);

/// Records which pages a program fetches from, reads and writes, by valgrind.
#[derive(Args)]
#[command(override_usage = "cargo xtask trace [OPTIONS] -- <PROGRAM> [ARGS]...")]
#[command(after_long_help = "\
Examples:
  cargo xtask trace -- ls -l
  cargo xtask compare --trace ls.vt.zst
      a program of your own; it runs about a hundred times slower than else
  cargo xtask trace --events 24000000 --output run.vt.zst -- python3 script.py
      until so many events are there; then the program is ended

Programs that PROGRAM starts are not recorded, so name the one that you mean and not a script for it.")]
pub(super) struct TraceArgs {
    /// Where to write [default: the program's name and .vt.zst, in this folder]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// End the program after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,

    /// What to run, after `--`
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

/// Writes a trace of any known format in the laboratory's own.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  cargo xtask convert lackey.txt run.vt.zst
  cargo xtask convert run.vt.zst run.vt
      packed if the name ends in .zst, else plain")]
pub(super) struct ConvertArgs {
    /// Keep only the first N events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,

    /// vtrace1 or lackey text, either also packed by zstd; told by content
    input: PathBuf,

    /// Where to write
    output: PathBuf,
}

/// Converts a file.
pub(super) fn convert(args: &ConvertArgs) -> Result<(), Failure> {
    let ConvertArgs { events, input, output } = args;
    report::check_writable(output, [&**input]).map_err(|e| cannot_write(output, &e))?;
    let reader = Reader::open(input).map_err(Failure::bad_input)?;
    let count = write(reader, *events, output)?;
    super::print(&format!("{count} events: {}\n", output.display()))
}

/// Records a program.
pub(super) fn record(args: &TraceArgs) -> Result<(), Failure> {
    let [program, rest @ ..] = &args.command[..] else {
        return Err(Failure::bad_input("a program is missing"));
    };
    let name = || Path::new(program).file_name().unwrap_or(program).to_owned();
    let output = args.output.clone().unwrap_or_else(|| {
        let mut name = name();
        name.push(".vt.zst");
        name.into()
    });
    report::check_writable(&output, []).map_err(|e| cannot_write(&output, &e))?;
    let shown = program.display();
    let cannot = |e: io::Error| Failure::bad_input(format!("cannot record {shown}: {e}"));
    let (text, log) = io::pipe().map_err(cannot)?;
    let mut valgrind = Command::new("valgrind");
    let log_file = name_of(&log)
        .ok_or_else(|| Failure::bad_input("programs can be recorded on Linux alone"))?;
    // Forked copies would mix their lines into those of their parent.
    valgrind.args(["--tool=lackey", "--trace-mem=yes", "--child-silent-after-fork=yes"]);
    valgrind.arg(format!("--log-file={log_file}"));
    let child = valgrind.arg(program).args(rest).spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => Failure::bad_input(
            "valgrind is not installed: `sudo apt-get install valgrind` (Debian, Ubuntu) or `sudo dnf \
             install valgrind` (Fedora)",
        ),
        _ => cannot(e),
    })?;
    let enough = &AtomicBool::new(false);
    let (written, status) = std::thread::scope(|scope| {
        let waiter = scope.spawn(move || wait(child, log, enough));
        let reader = Reader::from_read(&format!("lackey on {shown}"), Box::new(text));
        let written = reader
            .map_err(|e| Failure { status: 1, message: e.to_string() })
            .and_then(|reader| write(reader, args.events, &output));
        enough.store(true, Ordering::Relaxed);
        (written, waiter.join())
    });
    let ended_by_us = matches!((&written, args.events), (Ok(count), Some(most)) if *count >= most);
    let count = match (written, &status) {
        (Ok(count), _) => count,
        (Err(_), Ok(Ok(status))) if !status.success() => {
            let message = format!("{shown} could not be recorded: {status}");
            return Err(Failure { status: 1, message });
        }
        (Err(e), _) => return Err(e),
    };
    super::print(&format!("{count} events: {}\n", output.display()))?;
    match status {
        Ok(Ok(status)) if status.success() || ended_by_us => Ok(()),
        Ok(Ok(status)) => {
            let message = format!("{shown} failed; it was recorded: {status}");
            Err(Failure { status: 1, message })
        }
        Ok(Err(e)) => Err(cannot(e)),
        Err(_) => Err(Failure { status: 1, message: "the waiting thread failed".to_owned() }),
    }
}

/// The name by which another process can open our end of a pipe.
#[cfg(target_os = "linux")]
fn name_of(log: &PipeWriter) -> Option<String> {
    use std::os::fd::AsRawFd;
    Some(format!("/proc/{}/fd/{}", std::process::id(), log.as_raw_fd()))
}

#[cfg(not(target_os = "linux"))]
fn name_of(_: &PipeWriter) -> Option<String> {
    None
}

/// Waits for the end of the program, or ends it when `enough` was read; only then lets go of the
/// pipe, whose reader sees its end by that.
fn wait(mut child: Child, log: PipeWriter, enough: &AtomicBool) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            drop(log);
            return Ok(status);
        }
        if enough.load(Ordering::Relaxed) {
            child.kill()?;
            return child.wait();
        }
        std::thread::sleep(POLL);
    }
}

/// Writes what is read, at most so many events; how many they were.
fn write(reader: Reader<'_>, events: Option<u64>, output: &Path) -> Result<u64, Failure> {
    let bar = progress();
    bar.set_length(events.unwrap_or(0));
    bar.set_message("events");
    let mut fault = None;
    let mut count = 0;
    let packed = output.extension().is_some_and(|end| end == "zst");
    let written = report::write_with(output, |out| {
        let copied = if packed {
            let mut encoder = zstd::Encoder::new(out, LEVEL)?;
            let copied = copy(reader, events, &mut encoder, &bar)?;
            encoder.finish()?;
            copied
        } else {
            copy(reader, events, out, &bar)?
        };
        count = copied.0;
        fault = copied.1;
        // What was there stays there.
        if fault.is_some() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    });
    bar.finish_and_clear();
    if let Some(fault) = fault {
        return Err(Failure::bad_input(fault));
    }
    written.map_err(|e| cannot_write(output, &e))?;
    Ok(count)
}

/// How many events were copied, and what was wrong with the next one.
fn copy(
    mut reader: Reader<'_>,
    events: Option<u64>,
    out: &mut dyn Write,
    bar: &ProgressBar,
) -> io::Result<(u64, Option<TraceError>)> {
    let mut writer = VtWriter::new(io::BufWriter::new(out))?;
    let mut count = 0;
    while events.is_none_or(|most| count < most) {
        match reader.next() {
            Some(Ok(event)) => writer.push(event)?,
            Some(Err(e)) => return Ok((count, Some(e))),
            None => break,
        }
        count += 1;
        if count % STEP == 0 {
            bar.set_position(count);
        }
    }
    writer.finish()?;
    let nothing = (count == 0).then(|| reader.whole(TraceFault::NoEvents));
    Ok((count, nothing))
}
