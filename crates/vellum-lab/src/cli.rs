//! The command line of `vellum-lab`.
//!
//! ```text
//!   vellum-lab compare [options]     status 0   compared; the table on stdout, JSON in a file
//!   vellum-lab record-sizes                     recorded; the stream in a file
//!                                           1   a design failed, or the command recorded
//!                                           2   bad usage or bad input: one line on stderr
//! ```

use crate::cache::CachePreset;
use crate::compare::{CompareError, Options, Source, compare};
use crate::designs::{self, DESIGNS, Design};
use crate::embedded::EMBEDDED;
use crate::machine::MachineConfig;
use crate::report::OutputError;
use crate::{report, table};
use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use core::hash::Hash;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use vellum_tlb::{Preset, WALK_CACHE_NONE, WALK_CACHE_X86, WalkCacheSize};

mod fits;
mod record;

/// Where the report goes unless the user says otherwise: in the folder that `cargo xtask` names, or
/// in `target` where the lab is run by itself.
const DEFAULT_JSON: &str = "compare.json";
const OUT_FOLDER: &str = "VELLUM_OUT";

/// The most address spaces that every design has.
const MOST_PROCESSES: usize = 4096;

/// Compares page-table designs on traces of real programs.
#[derive(Parser)]
#[command(name = "vellum-lab", bin_name = "cargo xtask", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compare(Box<CompareArgs>),
    RecordSizes(record::RecordArgs),
}

/// Replays traces through page-table designs; prints a table and writes JSON.
#[derive(Args)]
#[command(after_long_help = "\
Examples:
  cargo xtask compare
      all designs on the embedded traces
  cargo xtask compare --trace run.vt.zst --design radix4,hashed-chained --tlb zen5
      two designs on a trace of your own, with another TLB
  cargo xtask compare --mix 10000 --no-asid
      the embedded traces as processes of one CPU, flushing at each switch
  valgrind --tool=lackey --trace-mem=yes --log-file=ls.txt ls; cargo xtask compare --trace ls.txt
      a program of your own, recorded by valgrind
  cargo xtask compare --trace perl-hash --walk-cache none
      one of the embedded traces, on a processor without walk caches
  cargo xtask compare --fits
      what paging replaced: processes in one piece, by first, next, best and worst fit
  cargo run -r -p vellum-lab -- record-sizes own.csv -- make -j8
  cargo xtask compare --fits --fits-stream own.csv
      the same for processes of your own")]
struct CompareArgs {
    /// Trace to replay instead of all embedded ones; may be repeated
    ///
    /// A file: vtrace1 or the text of valgrind's lackey tool, either also packed by zstd; told by
    /// content. Or, where there is no such file, the name of an embedded trace.
    #[arg(long, value_name = "FILE")]
    trace: Vec<PathBuf>,

    /// Designs to compare, separated by commas [default: all]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    design: Vec<String>,

    /// Shape of the TLB
    #[arg(long, value_name = "PRESET", default_value = Preset::REFERENCE.name)]
    tlb: String,

    /// Sizes of the walk caches: `x86`, `none`, or SPAN:ENTRIES,... (x86 is 21:32,30:4,39:2,48:2)
    #[arg(long, value_name = "SIZES", default_value = "x86")]
    walk_cache: String,

    /// Replay all traces as processes of one CPU, switching every QUANTUM events
    #[arg(long, value_name = "QUANTUM", value_parser = at_least_one)]
    mix: Option<u64>,

    /// Give address spaces identifiers, so that a switch of --mix flushes nothing (the default)
    #[arg(long, conflicts_with = "no_asid")]
    asid: bool,

    /// Flush the TLB and the walk caches at each switch of --mix; without it nothing switches
    #[arg(long)]
    no_asid: bool,

    /// Replay only the first N events of each trace; needed for one of more than 2^28
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    events: Option<u64>,

    /// Compare contiguous allocation with paging instead, over a stream of processes
    #[arg(long, conflicts_with_all = [
        "trace", "design", "tlb", "walk_cache", "mix", "asid", "no_asid", "events"])]
    fits: bool,

    /// Stream of processes instead of the embedded one; `vellum-lab record-sizes` makes one
    #[arg(long, value_name = "FILE", requires = "fits")]
    fits_stream: Option<PathBuf>,

    /// Memory in bytes, or with K, M or G [default: what paging needs to refuse nobody]
    #[arg(long, value_name = "SIZE", requires = "fits", value_parser = fits::memory)]
    fits_memory: Option<u64>,

    /// Where to write the report [default: compare.json, with --fits fits.json, in the folder for
    /// builds]
    ///
    /// A file is replaced as a whole; a device or FIFO is written to. /dev/stdout is for a program
    /// that reads the report: the table then goes to stderr.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// List designs, TLB presets and embedded traces, and do nothing else
    #[arg(long)]
    list: bool,
}

/// A count of events.
fn at_least_one(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        other => other.map_err(|e| e.to_string()),
    }
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
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => return explain(&e),
    };
    let done = match cli.command {
        Command::Compare(args) if args.list => list(),
        Command::Compare(args) if args.fits => fits::run(&args),
        Command::Compare(args) => run_compare(&args),
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

/// One line on stderr. If that is closed there is nobody to tell.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "vellum-lab: {message}");
}

/// Help goes to stdout as it is; of an error the first paragraph makes one line.
fn explain(e: &clap::Error) -> u8 {
    let text = e.render().to_string();
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = io::stdout().write_all(text.as_bytes());
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            complain("a command is missing: compare or record-sizes (--help tells more)");
            2
        }
        _ => {
            let paragraph = text.split("\n\n").next().unwrap_or_default();
            let words: Vec<_> = paragraph.split_whitespace().collect();
            let message = words.join(" ");
            let message = message.strip_prefix("error: ").unwrap_or(&message);
            complain(&format!("{message} (--help tells more)"));
            2
        }
    }
}

fn run_compare(args: &CompareArgs) -> Result<(), Failure> {
    let options = options(args)?;
    let json = json_path(args, DEFAULT_JSON, options.sources.iter().filter_map(Source::path))?;
    let bar = progress();
    let comparison = compare(&options, &bar).map_err(|e| Failure {
        status: if matches!(e, CompareError::Trace(_)) { 2 } else { 1 },
        message: e.to_string(),
    })?;
    report::write(&comparison.report, &json).map_err(|e| cannot_write(&json, &e))?;
    print_table(&table::render(&comparison.report, &comparison.rates), &json)
}

/// Prints the table, and where the report is.
fn print_table(text: &str, json: &Path) -> Result<(), Failure> {
    let text = format!("{text}report: {}\n", json.display());
    if report::fills_stdout(json) {
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

fn options(args: &CompareArgs) -> Result<Options, Failure> {
    let designs = if args.design.is_empty() {
        DESIGNS.iter().collect()
    } else {
        let found: Result<Vec<_>, _> = args.design.iter().map(|n| designs::by_name(n)).collect();
        let mut found: Vec<&Design> = found.map_err(Failure::bad_input)?;
        // Asked for twice, a design is run once.
        keep_first_of_each(&mut found, |design| design.name);
        found
    };
    let tlb = Preset::by_name(&args.tlb)
        .map_err(|e| Failure::bad_input(format!("--tlb {}: {e}", args.tlb)))?;
    let mut sources: Vec<_> = if args.trace.is_empty() {
        EMBEDDED.iter().map(Source::Embedded).collect()
    } else {
        args.trace.iter().map(|path| source(path)).collect::<Result<_, _>>()?
    };
    if args.mix.is_none() {
        // So is a trace; of a mix it is two processes.
        keep_first_of_each(&mut sources, Source::identity);
    }
    if args.mix.is_some() && sources.len() > MOST_PROCESSES {
        return Err(Failure::bad_input(format!("--mix takes at most {MOST_PROCESSES} traces")));
    }
    let as_usize = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(Options {
        sources,
        designs,
        machine: MachineConfig {
            tlb: *tlb,
            walk_caches: walk_caches(&args.walk_cache)?,
            cache: CachePreset::DEFAULT,
        },
        asids: !args.no_asid,
        mix: args.mix.map(as_usize),
        limit: args.events.map(as_usize),
    })
}

/// Drops what has the same key as something before it.
fn keep_first_of_each<T, K: Eq + Hash>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = HashSet::new();
    items.retain(|item| seen.insert(key(item)));
}

/// A file, or an embedded trace; where there is neither, what there is.
fn source(path: &Path) -> Result<Source, Failure> {
    let source = Source::named(path);
    if matches!(source, Source::File(_)) && !path.exists() {
        let names: Vec<_> = EMBEDDED.iter().map(|trace| trace.name).collect();
        return Err(Failure::bad_input(format!(
            "{}: no such file, nor an embedded trace ({})",
            path.display(),
            names.join(", ")
        )));
    }
    Ok(source)
}

fn walk_caches(text: &str) -> Result<Vec<WalkCacheSize>, Failure> {
    const SPANS: core::ops::Range<u8> = 13..64;
    match text {
        "x86" => return Ok(WALK_CACHE_X86.to_vec()),
        "none" => return Ok(WALK_CACHE_NONE.to_vec()),
        _ => {}
    }
    let size = |item: &str| {
        let (span, entries) = item.split_once(':')?;
        let span = span.parse().ok().filter(|span| SPANS.contains(span))?;
        Some(WalkCacheSize { span, entries: entries.parse().ok()? })
    };
    let sizes: Option<Vec<WalkCacheSize>> = text.split(',').map(size).collect();
    let sizes = sizes.ok_or_else(|| {
        Failure::bad_input(format!(
            "--walk-cache {text}: expected x86, none, or SPAN:ENTRIES,... with spans of 13 to 63"
        ))
    })?;
    match repeated(&sizes) {
        Some(span) => {
            Err(Failure::bad_input(format!("--walk-cache {text}: span {span} has two sizes")))
        }
        None => Ok(sizes),
    }
}

/// A span that is there more than once.
fn repeated(sizes: &[WalkCacheSize]) -> Option<u8> {
    let spans: Vec<u8> = sizes.iter().map(|size| size.span).collect();
    spans.iter().enumerate().find(|(i, span)| spans[..*i].contains(span)).map(|(_, &span)| span)
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
        text += &format!("  {:16} {}\n", design.name, design.summary);
    }
    text += "\nTLB presets (entries/ways):\n";
    for preset in Preset::ALL {
        let Preset { name, l1d, l1i, l2, note } = preset;
        text += &format!("  {name:16} L1D {l1d}, L1I {l1i}, L2 {l2}\n");
        if !note.is_empty() {
            text += &format!("  {:16} assumed: {note}\n", "");
        }
    }
    text += "\nembedded traces:\n";
    for trace in EMBEDDED {
        text += &format!("  {:16} {}\n", trace.name, trace.summary);
    }
    text += "\nembedded stream of processes, for --fits:\n";
    text += &format!("  {:16} {}\n", crate::fits::EMBEDDED, crate::fits::EMBEDDED_SUMMARY);
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
