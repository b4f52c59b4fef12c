//! `compare`: its options, and what they ask for.
//!
//! ```text
//!   arguments --> Options --> Comparison --> table on stdout, JSON in a file, a page in another
//! ```

use super::policies::PoliciesArgs;
use super::sweep::Sweep;
use super::{Failure, cannot_write, fits, json_path, print_table, progress};
use crate::cache::CachePreset;
use crate::compare::{CompareError, Comparison, Options, compare};
use crate::designs::{self, DESIGNS, Design};
use crate::embedded::EMBEDDED;
use crate::machine::MachineConfig;
use crate::parts::Part;
use crate::report::{Report, Shard, SweepAxis, SweepPoint};
use crate::source::Source;
use crate::workload::Workload;
use crate::{html, report, table};
use clap::Args;
use core::hash::Hash;
use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use vellum_tlb::{Preset, WALK_CACHE_NONE, WALK_CACHE_X86, WalkCacheSize};

/// The report's file.
const DEFAULT_JSON: &str = "compare.json";

/// The most address spaces that every design has.
const MOST_PROCESSES: usize = 4096;

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
  cargo xtask trace -- ls; cargo xtask compare --trace ls.vt.zst
      a program of your own, recorded by valgrind
  cargo xtask compare --trace perl-hash --walk-cache none
      one of the embedded traces, on a processor without walk caches
  cargo xtask compare --part ops,sparsity
      only what single operations cost, and bytes a page from dense to sparse
  cargo xtask compare --sweep l2=512..8192 --trace perl-hash
      one trace with second-level TLBs of 512 to 8,192 entries
  cargo xtask compare --workload gups:1G,btree:256M:7 --design radix4,hashed-chained
      programs that run here: NAME:SIZE:SEED
  cargo xtask compare --sweep pages=1K..256K
      random updates of 4 MiB to 1 GiB
  cargo xtask compare --shard 0/2 --json a.json; cargo xtask compare --shard 1/2 --json b.json
  cargo xtask compare --merge a.json b.json
      the same report in two halves, on two machines, and joined
  cargo xtask compare --html report.html
      everything as one page to look at, too: needs no network, and nothing beside it
  cargo xtask compare --fits
      what paging replaced: processes in one piece, by first, next, best and worst fit
  cargo run -r -p vellum-lab -- record-sizes own.csv -- make -j8
  cargo xtask compare --fits --fits-stream own.csv
      the same for processes of your own
  cargo xtask compare --policies
      page replacement: misses of every policy on the embedded traces, and the bound
  cargo xtask compare --policies --blocks disk.txt.zst --frames 500,5000 --policy lru,arc,s3-fifo
      three of them on one block number a line, with two sizes of memory")]
pub(super) struct CompareArgs {
    /// Trace to replay instead of all embedded ones; may be repeated
    ///
    /// A file: vtrace1 or the text of valgrind's lackey tool, either also packed by zstd; told by
    /// content. Or, where there is no such file, the name of an embedded trace.
    #[arg(long, value_name = "FILE")]
    pub(super) trace: Vec<PathBuf>,

    /// Programs to run and replay, as NAME, NAME:SIZE or NAME:SIZE:SEED, separated by commas; --list has
    /// them all
    ///
    /// Without this and --trace: all embedded traces, gups:128M, bfs:18 and processes:64. In --mix a
    /// workload is a process, or as many as it has.
    #[arg(long, value_name = "NAME:SIZE,...", value_delimiter = ',')]
    workload: Vec<Workload>,

    /// Designs to compare, separated by commas [default: all]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    design: Vec<String>,

    /// Shape of the TLB
    #[arg(long, value_name = "PRESET", default_value = Preset::REFERENCE.name)]
    tlb: String,

    /// Sizes of the walk caches: `x86`, `none`, or SPAN:ENTRIES,... (x86 is 21:32,30:4,39:2,48:2)
    #[arg(long, value_name = "SIZES", default_value = "x86")]
    walk_cache: String,

    /// Cache that walks read page-table lines through
    #[arg(long, value_name = "PRESET", default_value = CachePreset::DEFAULT.name)]
    cache: String,

    /// Replay all traces as processes of one CPU, switching every QUANTUM events
    #[arg(long, value_name = "QUANTUM", value_parser = at_least_one)]
    mix: Option<u64>,

    /// Give address spaces identifiers, so that a switch of --mix flushes nothing (the default)
    #[arg(long, conflicts_with = "no_asid")]
    asid: bool,

    /// Flush the TLB and the walk caches at each switch of --mix; without it nothing switches
    #[arg(long)]
    no_asid: bool,

    /// What to do, separated by commas: runs, ops, sparsity, resize, switches, huge, forks, tlb
    /// [default: all; with
    /// --trace, --workload, --mix, --events or --sweep, runs]
    #[arg(long, value_name = "PART,...", value_delimiter = ',')]
    part: Vec<Part>,

    /// Replay once for each value: l2=512..8192 doubles the entries of the second-level TLB from run to
    /// run, l2=512..2048+512 adds 512
    #[arg(long, value_name = "AXIS=FIRST..LAST")]
    sweep: Option<Sweep>,

    /// Do every COUNT-th piece of the work, from piece INDEX (0 and up) on; --merge joins the reports
    #[arg(long, value_name = "INDEX/COUNT")]
    shard: Option<Shard>,

    /// Join the reports of all shards to what one run would have written, and do nothing else
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = [
        "trace", "workload", "design", "tlb", "walk_cache", "cache", "mix", "asid", "no_asid", "events", "part", "sweep",
        "shard", "fits"])]
    merge: Vec<PathBuf>,

    /// Replay only the first N events of each trace; needed for one of more than 2^28
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub(super) events: Option<u64>,

    #[command(flatten)]
    pub(super) policies: PoliciesArgs,

    /// Compare contiguous allocation with paging instead, over a stream of processes
    #[arg(long, conflicts_with_all = [
        "trace", "workload", "design", "tlb", "walk_cache", "cache", "mix", "asid", "no_asid", "events", "part", "sweep",
        "shard"])]
    pub(super) fits: bool,

    /// Stream of processes instead of the embedded one; `vellum-lab record-sizes` makes one
    #[arg(long, value_name = "FILE", requires = "fits")]
    pub(super) fits_stream: Option<PathBuf>,

    /// Memory in bytes, or with K, M or G [default: what paging needs to refuse nobody]
    #[arg(long, value_name = "SIZE", requires = "fits", value_parser = fits::memory)]
    pub(super) fits_memory: Option<u64>,

    /// Where to write the report [default: compare.json, with --fits fits.json, with --policies
    /// policies.json, in the folder for builds]
    ///
    /// A file is replaced as a whole; a device or FIFO is written to. /dev/stdout is for a program
    /// that reads the report: the table then goes to stderr.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,

    /// Write the report as a page with plots, too: one file for a browser
    #[arg(long, value_name = "FILE", conflicts_with_all = ["fits", "shard"])]
    pub(super) html: Option<PathBuf>,

    /// List designs, TLB presets and embedded traces, and do nothing else
    #[arg(long)]
    pub(super) list: bool,
}

/// A count of events.
fn at_least_one(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        other => other.map_err(|e| e.to_string()),
    }
}

/// `given` are the arguments that `args` was made of.
pub(super) fn run(args: &CompareArgs, given: &[OsString]) -> Result<(), Failure> {
    if !args.merge.is_empty() {
        return merge(args, given);
    }
    let options = options(args)?;
    let inputs: Vec<_> = options.sources.iter().filter_map(Source::path).collect();
    let json = json_path(args, DEFAULT_JSON, inputs.iter().copied())?;
    check_page(args, &json, inputs)?;
    let bar = progress();
    let comparison = compare(&options, &bar).map_err(|e| Failure {
        status: if matches!(e, CompareError::Trace(_)) { 2 } else { 1 },
        message: e.to_string(),
    })?;
    publish(&comparison, args, given, &json)
}

/// That the page could be written, and takes nobody's place.
pub(super) fn check_page<'p>(
    args: &'p CompareArgs,
    json: &'p Path,
    inputs: impl IntoIterator<Item = &'p Path>,
) -> Result<(), Failure> {
    let Some(page) = &args.html else { return Ok(()) };
    if page == json {
        let message = format!("--html {}: the JSON goes there (--json)", page.display());
        return Err(Failure::bad_input(message));
    }
    let taken = inputs.into_iter().chain([json]);
    report::check_writable(page, taken).map_err(|e| cannot_write(page, &e))
}

/// Writes the report, and its page if that was asked for, and prints the table.
fn publish(
    comparison: &Comparison,
    args: &CompareArgs,
    given: &[OsString],
    json: &Path,
) -> Result<(), Failure> {
    report::write(&comparison.report, json).map_err(|e| cannot_write(json, &e))?;
    if let Some(path) = &args.html {
        let command = html::Command::new(given.iter().cloned());
        let page = html::render(&comparison.report, &command);
        report::write_with(path, |out| out.write_all(page.as_bytes()))
            .map_err(|e| cannot_write(path, &e))?;
    }
    print_table(&table::render(comparison), json, args.html.as_deref())
}

/// Joins shards.
fn merge(args: &CompareArgs, given: &[OsString]) -> Result<(), Failure> {
    let inputs = || args.merge.iter().map(PathBuf::as_path);
    let json = json_path(args, DEFAULT_JSON, inputs())?;
    check_page(args, &json, inputs())?;
    let read = |path: &PathBuf| {
        let bad =
            |e: &dyn core::fmt::Display| Failure::bad_input(format!("{}: {e}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|e| bad(&e))?;
        let report: Report = serde_json::from_str(&text)
            .map_err(|e| bad(&format_args!("no report that compare has written: {e}")))?;
        match report.shard {
            Some(_) => Ok(report),
            None => Err(bad(&"a whole report, made without --shard: there is nothing to join")),
        }
    };
    let shards = args.merge.iter().map(read).collect::<Result<Vec<Report>, _>>()?;
    let report = Report::merge(shards).map_err(Failure::bad_input)?;
    publish(&Comparison { report, ..Comparison::default() }, args, given, &json)
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
    let (mut sources, swept) = sources(args)?;
    if args.mix.is_none() && swept.is_empty() {
        // So is a trace; of a mix it is two processes.
        keep_first_of_each(&mut sources, Source::identity);
    }
    if args.mix.is_some() && sources.len() > MOST_PROCESSES {
        return Err(Failure::bad_input(format!("--mix takes at most {MOST_PROCESSES} traces")));
    }
    let machine = MachineConfig {
        tlb: *tlb,
        walk_caches: walk_caches(&args.walk_cache)?,
        cache: cache(&args.cache)?,
    };
    let machines = match &args.sweep {
        None => vec![(machine, None)],
        Some(sweep) => sweep.machines(&machine).map_err(Failure::bad_input)?,
    };
    let as_usize = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    Ok(Options {
        parts: parts(args),
        sources,
        swept,
        designs,
        machines,
        asids: !args.no_asid,
        mix: args.mix.map(as_usize),
        limit: args.events.map(as_usize),
        shard: args.shard,
    })
}

/// What to do: everything, or what was asked for; whoever names a trace asks for its runs.
fn parts(args: &CompareArgs) -> Vec<Part> {
    let whole = args.trace.is_empty()
        && args.workload.is_empty()
        && args.mix.is_none()
        && args.events.is_none()
        && args.sweep.is_none();
    let mut parts = match (&args.part[..], whole) {
        ([], true) => Part::ALL.to_vec(),
        ([], false) => vec![Part::Runs],
        (asked, _) => asked.to_vec(),
    };
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// Drops what has the same key as something before it.
pub(super) fn keep_first_of_each<T, K: Eq + Hash>(items: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = HashSet::new();
    items.retain(|item| seen.insert(key(item)));
}

/// What to replay, and where each is in a sweep, if they are swept.
fn sources(args: &CompareArgs) -> Result<(Vec<Source>, Vec<SweepPoint>), Failure> {
    if let Some(sweep) = args.sweep.as_ref().filter(|sweep| sweep.axis == SweepAxis::Pages) {
        if !args.trace.is_empty() || args.mix.is_some() {
            let message = "--sweep pages goes over workloads, not --trace or --mix";
            return Err(Failure::bad_input(message));
        }
        let default = &Workload::DEFAULTS[..1];
        let some = if args.workload.is_empty() { default } else { &args.workload };
        let swept = sweep.workloads(some).map_err(Failure::bad_input)?;
        return Ok(swept.into_iter().map(|(w, point)| (Source::Workload(w), point)).unzip());
    }
    let mut sources = args.trace.iter().map(|path| source(path)).collect::<Result<Vec<_>, _>>()?;
    let mut workloads = &args.workload[..];
    if sources.is_empty() && workloads.is_empty() {
        sources = EMBEDDED.iter().map(Source::Embedded).collect();
        // A mix is of processes as they were recorded.
        workloads = if args.mix.is_none() { &Workload::DEFAULTS } else { &[] };
    }
    sources.extend(workloads.iter().copied().map(Source::Workload));
    Ok((sources, Vec::new()))
}

/// A file, or an embedded trace; where there is neither, what there is.
pub(super) fn source(path: &Path) -> Result<Source, Failure> {
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

fn cache(name: &str) -> Result<CachePreset, Failure> {
    CachePreset::by_name(name).copied().ok_or_else(|| {
        let names: Vec<_> = CachePreset::ALL.iter().map(|preset| preset.name).collect();
        Failure::bad_input(format!("--cache {name}: choose one of {}", names.join(", ")))
    })
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
