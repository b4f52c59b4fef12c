//! `ci`: everything that a change must pass, one step after another, and what became of each.

use crate::process;
use crate::setup;
use crate::stop::{Result, Stop};
use crate::workspace::{Workspace, cargo, root};
use crate::{test, tidy};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Instant;

/// A step: its name, and what it does.
type Step = (&'static str, fn() -> Result);

/// All steps, in their order.
const STEPS: [Step; 7] = [
    ("fmt", fmt),
    ("clippy", || clippy(&["--workspace", "--all-targets"])),
    ("clippy-image", clippy_image),
    ("doc", doc),
    ("tidy", tidy::run),
    ("msrv", oldest_compilers),
    ("test", || test::run(test::Parts::ALL)),
];

/// With which features the oldest compilers check.
const FEATURES: [&str; 2] = ["--no-default-features", "--all-features"];

/// The names of all steps, for the command line.
pub(crate) fn steps() -> [&'static str; STEPS.len()] {
    STEPS.map(|(name, _)| name)
}

/// Runs the steps of these names, or all of them; also those behind one that failed.
pub(crate) fn run(only: &[String]) -> Result {
    let mut failed = Vec::new();
    let mut report = Vec::new();
    let chosen = STEPS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name));
    for (name, step) in chosen {
        eprintln!("\nxtask: ci, {name}");
        let started = Instant::now();
        let outcome = step();
        let seconds = started.elapsed().as_secs_f64();
        let verdict = match outcome {
            Ok(()) => "ok".to_owned(),
            Err(stop) => {
                failed.push(*name);
                format!("FAILED {}", stop.message)
            }
        };
        report.push(format!("{name:<14} {seconds:>6.1} s  {}", verdict.trim_end()));
    }
    say!("\n{}", report.join("\n"));
    if failed.is_empty() {
        return Ok(());
    }
    Err(Stop::failed(format!("ci failed at: {}", failed.join(", "))))
}

fn fmt() -> Result {
    setup::component("rustfmt", "fmt")?;
    process::must_succeed(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy(what: &[&str]) -> Result {
    setup::component("clippy", "clippy")?;
    let mut clippy = cargo();
    clippy.arg("clippy").args(what).args(["--", "-D", "warnings"]);
    process::must_succeed(&mut clippy)
}

fn clippy_image() -> Result {
    setup::target(setup::BARE_METAL)?;
    clippy(&["--package", "vellum-kernel", "--target", setup::BARE_METAL])
}

fn doc() -> Result {
    let mut doc = cargo();
    doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    process::must_succeed(&mut doc)
}

/// Checks each crate with the oldest compiler that it names, where that can be had.
fn oldest_compilers() -> Result {
    let mut crates: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in Workspace::load()?.packages {
        if let Some(version) = package.rust_version {
            crates.entry(version).or_default().push(package.name);
        }
    }
    for (version, names) in crates {
        if !setup::toolchain(&version) {
            say!("skipped: Rust {version} is neither there nor to be had by rustup");
            continue;
        }
        for features in FEATURES {
            process::must_succeed(&mut check_with(&version, &names, features))?;
        }
        say!("{} crates check with Rust {version}, without and with their features", names.len());
    }
    Ok(())
}

fn check_with(version: &str, names: &[String], features: &str) -> Command {
    let mut check = Command::new("rustup");
    check.args(["run", version, "cargo", "check", "--quiet", features]).current_dir(root());
    for name in names {
        check.args(["--package", name]);
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_compiler_sees_each_crate_and_each_feature() {
        let names = ["a".to_owned(), "b".to_owned()];
        let words = FEATURES.map(|features| process::shown(&check_with("1.87", &names, features)));
        assert!(words[0].contains(" --no-default-features "), "{}", words[0]);
        assert!(words[1].contains(" --all-features "), "{}", words[1]);
        assert!(words.iter().all(|words| words.ends_with(" --package a --package b")));
    }
}
