//! `miri`: the crates with unsafe code, interpreted with strict provenance.

use crate::process;
use crate::setup;
use crate::stop::{Result, Stop};
use crate::workspace::{Workspace, root};
use std::process::Command;

/// The crates whose tests run under Miri.
const CRATES: &[&str] = &[
    "vellum-core",
    "vellum-testkit",
    "vellum-frame",
    "vellum-global",
    "vellum-radix",
    "vellum-hashed",
    "vellum-inverted",
    "vellum-cache",
    "vellum-fault",
    "vellum-space",
];

/// Crates of which a part is run: their other tests take long, and have no unsafe code below them that
/// is not run already.
const PARTS: &[(&str, &[&str])] = &[
    ("vellum-fault", &["--test", "faults", "--", "--skip", "threads"]),
    ("vellum-space", &["--lib", "--", "vma_map"]),
];

/// Runs the tests of `only`, or of all of them.
pub(crate) fn run(only: &[String]) -> Result {
    let workspace = Workspace::load()?;
    if let Some(unknown) = only.iter().find(|name| !CRATES.contains(&name.as_str())) {
        return Err(Stop::unable(format!(
            "`{unknown}` is not run under Miri; choose from: {}",
            CRATES.join(", ")
        )));
    }
    let chosen: Vec<_> = CRATES
        .iter()
        .filter(|name| only.is_empty() || only.iter().any(|wanted| wanted == *name))
        .filter(|name| workspace.package(name).is_some())
        .collect();
    setup::miri()?;
    let mut failed = Vec::new();
    for name in chosen {
        eprintln!("xtask: Miri, {name}");
        if !process::succeeds(&mut command(name))? {
            failed.push(*name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Stop::failed(format!("Miri failed on: {}", failed.join(", "))))
}

/// The tests of one crate, under Miri.
pub(crate) fn command(package: &str) -> Command {
    let mut miri = Command::new("rustup");
    miri.args(["run", "nightly", "cargo", "miri", "test", "--package", package]);
    let part = PARTS.iter().find(|(name, _)| *name == package);
    miri.args(part.map_or(&[][..], |(_, part)| part));
    miri.current_dir(root());
    let flags = std::env::var("MIRIFLAGS").unwrap_or_default();
    let cases = std::env::var("PROPTEST_CASES").unwrap_or_else(|_| "8".to_owned());
    // Programs under Miri do not see our own variables. Regression files would need the host's
    // folders, which Miri shuts off.
    let set =
        "-Zmiri-env-set=PROPTEST_DISABLE_FAILURE_PERSISTENCE=true -Zmiri-env-set=PROPTEST_CASES=";
    miri.env("MIRIFLAGS", format!("{flags} -Zmiri-strict-provenance {set}{cases}").trim_start());
    miri
}
