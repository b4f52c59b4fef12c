//! `compare`, `trace`, `convert`: the laboratory, built in release mode, with every argument passed
//! on; and `difftest`, likewise, but built as tests are: nearly all of its time is Linux's, and overflows
//! and debug assertions of ours are noticed.

use crate::process;
use crate::stop::{Result, Stop};
use crate::workspace::{Workspace, cargo};
use std::ffi::OsString;

/// Runs `vellum-lab COMMAND ARGS`, and leaves with its status.
pub(crate) fn run(command: &str, args: &[OsString]) -> Result {
    let args: Vec<_> = core::iter::once(command.into()).chain(args.iter().cloned()).collect();
    passed_to("vellum-lab", true, &args)
}

/// Runs `vellum-difftest ARGS`, and leaves with its status.
pub(crate) fn difftest(args: &[OsString]) -> Result {
    passed_to("vellum-difftest", false, args)
}

/// Runs the program of that package.
fn passed_to(package: &str, release: bool, args: &[OsString]) -> Result {
    let target = Workspace::load()?.target;
    let built = target.join(if release { "release" } else { "debug" }).join(package);
    let mut program = cargo();
    program.args(["run", "--package", package, "--bin", package]);
    if release {
        program.arg("--release");
    }
    // The first build takes a while and shows its progress; later ones are silent.
    if built.exists() {
        program.arg("--quiet");
    }
    // Paths in ARGS are relative to where we were called.
    if let Ok(here) = std::env::current_dir() {
        program.current_dir(here);
    }
    // What nobody named a place for goes where builds go, wherever we were called.
    program.env("VELLUM_OUT", &target);
    program.arg("--manifest-path").arg(crate::workspace::root().join("Cargo.toml"));
    let status = process::status(program.arg("--").args(args))?;
    if status.success() {
        return Ok(());
    }
    Err(Stop { status: process::passed_on(status), message: String::new() })
}
