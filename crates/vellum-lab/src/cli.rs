//! The command line of `vellum-lab`.
//!
//! ```text
//!   vellum-lab compare [options]     status 0   compared; the table on stdout, JSON in a file
//!   vellum-lab trace -- PROGRAM                 recorded; the trace in a file
//!   vellum-lab convert IN OUT                   converted
//!   vellum-lab record-sizes                     recorded; the stream in a file
//!                                           1   a design failed, or the command recorded
//!                                           2   bad usage or bad input: one line on stderr
//! ```

use crate::cache::CachePreset;
use crate::designs::DESIGNS;
use crate::embedded::EMBEDDED;
use crate::report;
use crate::report::OutputError;
use crate::workload::Workload;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use compare::CompareArgs;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use vellum_tlb::Preset;

mod compare;
mod fits;
mod policies;
mod record;
mod sweep;
mod trace;

/// Where reports go unless the user says otherwise: in the folder that `cargo xtask` names, or in
/// `target` where the lab is run by itself.
const OUT_FOLDER: &str = "VELLUM_OUT";

/// Compares page-table designs on traces of real programs.
#[derive(Parser)]
#[command(name = "vellum-lab", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compare(Box<CompareArgs>),
    Trace(trace::TraceArgs),
    Convert(trace::ConvertArgs),
    RecordSizes(record::RecordArgs),
}

/// What went wrong, and with which status to say so.
struct Failure {
    status: u8,
    message: String,
}

impl Failure {
    fn bad_input(message: impl ToString) -> Self {
        Self { status: 2, message: message.to_string() }
    }
}

/// Runs the command line and returns the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let args: Vec<OsString> = args.into_iter().collect();
    let parsed = parser().try_get_matches_from(&args);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(e) => return explain(&e),
    };
    let done = match cli.command {
        Command::Compare(args) if args.list => list(),
        Command::Compare(args) if args.fits => fits::run(&args),
        Command::Compare(asked) if asked.policies.policies => {
            policies::run(&asked, args.get(2..).unwrap_or_default())
        }
        // The program and `compare` come before its options.
        Command::Compare(asked) => compare::run(&asked, args.get(2..).unwrap_or_default()),
        Command::Trace(args) => trace::record(&args),
        Command::Convert(args) => trace::convert(&args),
        Command::RecordSizes(args) => record::run(&args),
    };
    match done {
        Ok(()) => 0,
        Err(Failure { status, message }) => {
            complain(&message);
            status
        }
    }
}

/// The command line, called what it was called by.
fn parser() -> clap::Command {
    let by_xtask = std::env::var_os(OUT_FOLDER).is_some();
    Cli::command().bin_name(if by_xtask { "cargo xtask" } else { "vellum-lab" })
}

/// One line on stderr. If that is closed there is nobody to tell.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "vellum-lab: {message}");
}

/// Help goes to stdout as it is; of an error the first paragraph, and what it suggests, make one line.
fn explain(e: &clap::Error) -> u8 {
    let text = e.render().to_string();
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = io::stdout().write_all(text.as_bytes());
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            complain(
                "a command is missing: compare, trace, convert or record-sizes (--help tells more)",
            );
            2
        }
        _ => {
            // What is wrong, and what may have been meant.
            let told = text.split("\n\n").enumerate();
            let told = told.filter(|(i, part)| *i == 0 || part.trim_start().starts_with("tip:"));
            let told = told.map(|(_, part)| part.split_whitespace().collect::<Vec<_>>().join(" "));
            let message = told.collect::<Vec<_>>().join("; ").replace("; tip: ", "; ");
            let message = message.strip_prefix("error: ").unwrap_or(&message);
            complain(&format!("{message} (--help tells more)"));
            2
        }
    }
}

/// Prints the table, and where the report is, and its page.
fn print_table(text: &str, json: &Path, html: Option<&Path>) -> Result<(), Failure> {
    let mut text = format!("{text}report: {}\n", json.display());
    if let Some(html) = html {
        text += &format!("page: {}\n", html.display());
    }
    if [Some(json), html].into_iter().flatten().any(report::fills_stdout) {
        // Whoever reads the report there reads nothing else. If stderr is closed nobody looks.
        let _ = io::stderr().write_all(text.as_bytes());
        return Ok(());
    }
    print(&text)
}

/// On stderr, where somebody sees it.
fn progress() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(1), ProgressDrawTarget::stderr());
    // The template is a constant; if it were wrong the bar's own style would do.
    if let Ok(style) = ProgressStyle::with_template("{msg:32} [{bar:40}] {percent}% {eta}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Where the report will go; an error if it could not, before hours are spent on it.
fn json_path<'p>(
    args: &CompareArgs,
    name: &str,
    inputs: impl IntoIterator<Item = &'p Path>,
) -> Result<PathBuf, Failure> {
    let folder = || std::env::var_os(OUT_FOLDER).unwrap_or_else(|| "target".into());
    let default = || PathBuf::from(folder()).join(name);
    let path = args.json.clone().unwrap_or_else(default);
    let prepare = || {
        // A folder that the user did not name is ours to make.
        if let Some(folder) = path.parent().filter(|_| args.json.is_none()) {
            std::fs::create_dir_all(folder)?;
        }
        report::check_writable(&path, inputs)
    };
    prepare().map_err(|e| cannot_write(&path, &e))?;
    Ok(path)
}

fn cannot_write(path: &Path, e: &OutputError) -> Failure {
    Failure::bad_input(format!("cannot write {}: {e}", path.display()))
}

fn list() -> Result<(), Failure> {
    let mut text = String::from("designs:\n");
    for design in DESIGNS {
        text += &format!("  {:18} {}\n", design.name, design.summary);
    }
    text += "\nTLB presets (entries/ways):\n";
    for preset in Preset::ALL {
        let Preset { name, l1d, l1i, l2, note } = preset;
        text += &format!("  {name:16} L1D {l1d}, L1I {l1i}, L2 {l2}\n");
        if !note.is_empty() {
            text += &format!("  {:18} assumed: {note}\n", "");
        }
    }
    text += "\ncaches of page-table lines:\n";
    for preset in CachePreset::ALL {
        text += &format!("  {:18} {preset}\n", preset.name);
    }
    text += "\nembedded traces:\n";
    for trace in EMBEDDED {
        text += &format!("  {:18} {}\n", trace.name, trace.summary);
    }
    text += "\nworkloads, of their usual size:\n";
    for (name, summary) in Workload::list() {
        text += &format!("  {name:16} {summary}\n");
    }
    text += "\nreplacement policies, for --policies:\n";
    for contender in crate::policies::contenders() {
        text += &format!("  {:18} {}\n", contender.name, contender.summary);
    }
    text += "\nembedded stream of processes, for --fits:\n";
    text += &format!("  {:18} {}\n", crate::fits::EMBEDDED, crate::fits::EMBEDDED_SUMMARY);
    print(&text)
}

/// To stdout. A reader that has gone away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure { status: 1, message: format!("cannot write to stdout: {e}") })
        }
        _ => Ok(()),
    }
}
