//! `compare --policies`: page replacement.
//!
//! ```text
//!   traces, or a file of blocks --> every policy --> tables on stdout, JSON in a file, a page in another
//! ```

use super::compare::{self, CompareArgs};
use super::{Failure, cannot_write, json_path, print_table, progress};
use crate::embedded::EMBEDDED;
use crate::policies::{self, Contender, Input, PoliciesError};
use crate::source::{self, Source};
use crate::{html, report};
use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the report goes unless the user says otherwise.
const DEFAULT_JSON: &str = "policies.json";

/// The most sizes of memory.
const MOST_SIZES: usize = 64;

/// What `--policies` can be told besides.
#[derive(Args)]
pub(super) struct PoliciesArgs {
    /// Compare replacement policies instead, on the references of traces: told of every one, and by
    /// accessed bits
    #[arg(long, conflicts_with_all = [
        "workload", "design", "tlb", "walk_cache", "cache", "mix", "asid", "no_asid", "part", "sweep", "shard", "merge",
        "fits"])]
    pub(super) policies: bool,

    /// Replay this file instead of traces: one block number a line, plain or packed by zstd
    #[arg(long, value_name = "FILE", requires = "policies", conflicts_with_all = ["trace", "events"])]
    blocks: Option<PathBuf>,

    /// Sizes of memory in frames, separated by commas [default: an eighth, a quarter and half of the pages]
    #[arg(long, value_name = "N,M", value_delimiter = ',', requires = "policies", value_parser = frames)]
    frames: Vec<u32>,

    /// Policies to compare, separated by commas; --list has them all [default: all]
    #[arg(long, value_name = "A,B", value_delimiter = ',', requires = "policies")]
    policy: Vec<String>,
}

/// A size of memory.
fn frames(text: &str) -> Result<u32, String> {
    let most = policies::MOST;
    let frames = text.parse::<u32>().ok().filter(|frames| (1..=most).contains(frames));
    frames.ok_or_else(|| format!("expected a number of frames from 1 to {most}"))
}

/// Reads, replays, writes and prints. `given` are the arguments that `args` was made of.
pub(super) fn run(args: &CompareArgs, given: &[OsString]) -> Result<(), Failure> {
    let contenders = contenders(&args.policies.policy)?;
    let mut sizes = args.policies.frames.clone();
    compare::keep_first_of_each(&mut sizes, |&frames| frames);
    if sizes.len() > MOST_SIZES {
        let message = format!("--frames has {} sizes; at most {MOST_SIZES} are taken", sizes.len());
        return Err(Failure::bad_input(message));
    }
    let inputs = inputs(args)?;
    let files: Vec<PathBuf> = inputs.iter().filter_map(path).map(Path::to_owned).collect();
    let files = || files.iter().map(PathBuf::as_path);
    let json = json_path(args, DEFAULT_JSON, files())?;
    compare::check_page(args, &json, files())?;
    let compared = policies::compare(&inputs, &contenders, &sizes, &progress());
    let found = compared.map_err(|e| Failure {
        status: if matches!(e, PoliciesError::Size(_)) { 1 } else { 2 },
        message: e.to_string(),
    })?;
    report::write(&found, &json).map_err(|e| cannot_write(&json, &e))?;
    if let Some(path) = &args.html {
        let page = html::render_policies(&found, &html::Command::new(given.iter().cloned()));
        report::write_with(path, |out| out.write_all(page.as_bytes()))
            .map_err(|e| cannot_write(path, &e))?;
    }
    print_table(&policies::render(&found), &json, args.html.as_deref())
}

/// Those that were asked for, in the list's order, or all.
fn contenders(asked: &[String]) -> Result<Vec<Contender>, Failure> {
    let all = policies::contenders();
    if let Some(unknown) = asked.iter().find(|name| !all.iter().any(|it| it.name == *name)) {
        let names: Vec<_> = all.iter().map(|it| it.name).collect();
        let message = format!("--policy {unknown}: choose from {}", names.join(", "));
        return Err(Failure::bad_input(message));
    }
    let is_asked = |it: &Contender| asked.is_empty() || asked.iter().any(|name| name == it.name);
    Ok(all.into_iter().filter(is_asked).collect())
}

fn path(input: &Input) -> Option<&Path> {
    match input {
        Input::Trace(source, ..) => source.path(),
        Input::Blocks(path) => Some(path),
    }
}

fn inputs(args: &CompareArgs) -> Result<Vec<Input>, Failure> {
    if let Some(path) = &args.policies.blocks {
        if !path.exists() {
            let message = format!(
                "--blocks {}: no such file (one block number a line; without the option the embedded traces \
                 are replayed)",
                path.display()
            );
            return Err(Failure::bad_input(message));
        }
        return Ok(vec![Input::Blocks(path.clone())]);
    }
    let limit = args.events.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let asked = args.trace.iter().map(|path| compare::source(path));
    let mut sources = asked.collect::<Result<Vec<Source>, _>>()?;
    compare::keep_first_of_each(&mut sources, Source::identity);
    if sources.is_empty() {
        sources = EMBEDDED.iter().map(Source::Embedded).collect();
    }
    let names: Vec<String> = source::named(&sources).into_iter().map(|(_, name)| name).collect();
    let named = sources.into_iter().zip(names);
    Ok(named.map(|(source, name)| Input::Trace(source, name, limit)).collect())
}
