//! `mutants`: would a test notice if a flush were left out, wherever the tables tell a gather of one?
//!
//! ```text
//!   sources --> copy under target/mutants, a switch before each call --> one build
//!   then, for each switch n:   VELLUM_MUTANT=n  tests of flushes  --> must fail
//! ```
//!
//! A call whose comment says "Harmless to leave out: ..." need not be noticed, and is told as such.
//! Nothing here is random, and nothing is written outside of the folder of build products.

mod rewrite;

use crate::process;
use crate::stop::{Result, Stop};
use crate::workspace::{Workspace, cargo, root};
use rewrite::Place;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Sources with calls, and the tests that are to notice when one is left out.
struct Part {
    package: &'static str,
    sources: &'static [&'static str],
    tests: &'static [Tests],
}

/// Tests of one package's target: the arguments of `cargo test` that build them, and the words that
/// choose among them, from what is quick to all that there is. Of targets, the quickest comes first.
struct Tests {
    build: &'static [&'static str],
    rounds: &'static [&'static [&'static str]],
}

const PARTS: [Part; 3] = [
    Part {
        package: "vellum-core",
        sources: &["src/gather.rs"],
        tests: &[Tests { build: &["-p", "vellum-core", "--lib"], rounds: &[&["gather"]] }],
    },
    Part {
        package: "vellum-radix",
        sources: &["src/radix", "src/either.rs"],
        tests: &[
            Tests { build: &["-p", "vellum-radix", "--lib"], rounds: &[&["either", "unmap"]] },
            Tests { build: &["-p", "vellum-radix", "--test", "shared_nodes"], rounds: &[&[]] },
            Tests {
                build: &["-p", "vellum-radix", "--test", "flushes"],
                rounds: &[&["miss", "cases", "--skip", "larger"], &[]],
            },
        ],
    },
    Part {
        package: "vellum-global",
        sources: &["src/space.rs", "src/space"],
        tests: &[
            Tests { build: &["-p", "vellum-global", "--lib"], rounds: &[&["space"]] },
            Tests {
                build: &["-p", "vellum-hashed", "--test", "conformance"],
                rounds: &[&["flush"]],
            },
        ],
    },
];

/// The switches, as they are appended to a crate's root.
const SWITCHES: &str = r#"
#[allow(dead_code, reason = "which of them is used depends on the crate's calls")]
mod mutants {
    extern crate std;

    static CHOSEN: std::sync::LazyLock<Option<std::string::String>> =
        std::sync::LazyLock::new(|| std::env::var("VELLUM_MUTANT").ok());

    pub(crate) fn keeps(number: usize) -> bool {
        CHOSEN.as_ref().and_then(|chosen| chosen.parse().ok()) != Some(number)
    }

    pub(crate) fn of<T: Spoil>(number: usize, flush: T) -> T {
        if keeps(number) { flush } else { flush.spoil() }
    }

    pub(crate) trait Spoil {
        fn spoil(self) -> Self;
    }
}
"#;

/// How to spoil a flush; vellum-core has no such calls.
const SPOIL: &str = "
impl mutants::Spoil for vellum_core::Flush {
    fn spoil(self) -> Self {
        Self::new(self.first, 0, self.page, vellum_core::Attr::NONE)
    }
}
";

/// How long one round of tests may take, in seconds: a mutant may make a table wait for ever.
const LIMIT: u64 = 600;

/// A place in a file of a part.
struct Mutant {
    part: usize,
    file: String,
    place: Place,
}

/// Leaves out one call after the other, of those whose place (`crate/src/file.rs:line`) contains `only`.
pub(crate) fn run(only: Option<&str>) -> Result {
    let folder = Workspace::load()?.target.join("mutants");
    let tree = folder.join("tree");
    let mut mutants = copy(&tree)?;
    mutants.retain(|m| only.is_none_or(|only| m.name().contains(only)));
    if let (Some(only), true) = (only, mutants.is_empty()) {
        let files = PARTS
            .iter()
            .flat_map(|part| part.sources.iter().map(|s| format!("{}/{s}", part.package)));
        let files: Vec<_> = files.collect();
        return Err(Stop::unable(format!(
            "no call that tells of a flush is at '{only}'; they are in {}",
            files.join(", ")
        )));
    }
    let mut parts = Vec::new();
    for (index, part) in PARTS.iter().enumerate() {
        let is_used = mutants.iter().any(|m| m.part == index);
        parts.push(if is_used { built(part, &tree, &folder.join("target"))? } else { Vec::new() });
    }
    let (mut unnoticed, mut harmless) = (0, 0);
    for mutant in &mutants {
        let noticed = first_to_notice(&parts[mutant.part], mutant.place.number)?;
        let verdict = match noticed {
            Some(test) => format!("noticed by {test}"),
            None if mutant.place.is_harmless => {
                harmless += 1;
                "harmless, as its comment says".to_owned()
            }
            None => {
                unnoticed += 1;
                "NOT NOTICED".to_owned()
            }
        };
        say!("{:<52} {:<24} {verdict}", mutant.name(), mutant.place.call);
    }
    let count = mutants.len();
    say!("{count} calls left out: {harmless} harmless, {unnoticed} not noticed");
    match unnoticed {
        0 => Ok(()),
        _ => Err(Stop::failed(format!("{unnoticed} flushes can be left out unnoticed"))),
    }
}

impl Mutant {
    fn name(&self) -> String {
        format!("{}:{}", self.file, self.place.line)
    }
}

/// Copies what git knows of the workspace, with switches; what is as it was keeps its time.
fn copy(tree: &Path) -> Result<Vec<Mutant>> {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let files = process::output(&mut git)
        .ok_or_else(|| Stop::unable("`git ls-files` failed; is this a clone of the repository?"))?;
    let mut mutants = Vec::new();
    for file in files.lines() {
        let Ok(mut bytes) = fs::read(root().join(file)) else { continue };
        for (index, part) in PARTS.iter().enumerate() {
            let Some(rest) = file.strip_prefix(&format!("crates/{}/", part.package)) else {
                continue;
            };
            let mut text = String::from_utf8_lossy(&bytes).into_owned();
            if part.has_source(rest) {
                let (with, places) = rewrite::rewrite(&text, mutants.len() + 1);
                let file = file.strip_prefix("crates/").unwrap_or(file);
                let mutant = |place| Mutant { part: index, file: file.to_owned(), place };
                mutants.extend(places.into_iter().map(mutant));
                text = with;
            } else if rest == "src/lib.rs" {
                text.push_str(SWITCHES);
                text.push_str(if part.package == "vellum-core" { "" } else { SPOIL });
            }
            bytes = text.into_bytes();
        }
        write(&tree.join(file), &bytes)?;
    }
    Ok(mutants)
}

impl Part {
    fn has_source(&self, file: &str) -> bool {
        let is_test = file.ends_with("/tests.rs") || file.contains("/tests/");
        let is_in = |source: &&str| file == *source || file.starts_with(&format!("{source}/"));
        !is_test && self.sources.iter().any(is_in)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|e| Stop::file("make", folder, e))?;
    fs::write(path, bytes).map_err(|e| Stop::file("write", path, e))
}

/// A program, and the words for it, round by round.
type Program = (PathBuf, &'static [&'static [&'static str]]);

fn built(part: &Part, tree: &Path, target: &Path) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for tests in part.tests {
        let mut command = cargo();
        command.current_dir(tree).env("CARGO_TARGET_DIR", target).env("RUSTFLAGS", "");
        command.args(["test", "--no-run", "--message-format", "json-render-diagnostics"]);
        command.args(tests.build);
        let mut program = None;
        let status = process::each_line(&mut command, |line| {
            let message: Value = serde_json::from_str(line).unwrap_or_default();
            program = message["executable"].as_str().map(PathBuf::from).or(program.take());
        })?;
        let program = program.filter(|_| status.success());
        let program = program.ok_or_else(|| {
            Stop::unable(format!("the copy in {} does not build; see above", tree.display()))
        })?;
        if let Some(test) = first_to_notice(&[(program.clone(), tests.rounds)], 0)? {
            return Err(Stop::failed(format!("{test} fails as it is; see `cargo xtask test`")));
        }
        programs.push((program, tests.rounds));
    }
    Ok(programs)
}

/// The first test that fails without call `number`, and how many do so besides in the same round.
fn first_to_notice(programs: &[Program], number: usize) -> Result<Option<String>> {
    for (program, rounds) in programs {
        for words in *rounds {
            let mut command = limited(program);
            command.args(*words).current_dir(root()).stderr(Stdio::null());
            command.env("VELLUM_MUTANT", number.to_string());
            let mut failed = Vec::new();
            let status = process::each_line(&mut command, |line| {
                let test = line.strip_prefix("test ").and_then(|l| l.strip_suffix(" ... FAILED"));
                failed.extend(test.map(str::to_owned));
            })?;
            match failed.as_slice() {
                [] if status.success() => {}
                [] => return Ok(Some(format!("all: the tests ended with {status}"))),
                [test] => return Ok(Some(test.clone())),
                [test, rest @ ..] => return Ok(Some(format!("{test} and {} more", rest.len()))),
            }
        }
    }
    Ok(None)
}

/// The program with an end to its time, where there is a command for that.
fn limited(program: &Path) -> Command {
    let Some(words) = process::limited_to(LIMIT) else { return Command::new(program) };
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap_or("timeout"));
    command.args(words).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_sources_with_calls() {
        for part in &PARTS {
            let folder = root().join("crates").join(part.package);
            for source in part.sources {
                assert!(folder.join(source).exists(), "{} has no {source}", part.package);
            }
        }
        assert!(PARTS[1].has_source("src/radix/unmap.rs") && PARTS[1].has_source("src/either.rs"));
        assert!(
            !PARTS[1].has_source("src/either/tests.rs") && !PARTS[1].has_source("src/radix.rs")
        );
    }
}
