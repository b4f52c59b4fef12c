//! `compare`, `trace`, `convert`: the laboratory, built in release mode, with every argument passed on.

use crate::process;
use crate::stop::{Result, Stop};
use crate::workspace::{Workspace, cargo};
use std::ffi::OsString;

/// Runs `vellum-lab COMMAND ARGS`, and leaves with its status.
pub(crate) fn run(command: &str, args: &[OsString]) -> Result {
    let target = Workspace::load()?.target;
    let built = target.join("release").join("vellum-lab");
    let mut lab = cargo();
    lab.args(["run", "--release", "--package", "vellum-lab", "--bin", "vellum-lab"]);
    // The first build takes a while and shows its progress; later ones are silent.
    if built.exists() {
        lab.arg("--quiet");
    }
    // Paths in ARGS are relative to where we were called.
    if let Ok(here) = std::env::current_dir() {
        lab.current_dir(here);
    }
    // What nobody named a place for goes where builds go, wherever we were called.
    lab.env("VELLUM_OUT", &target);
    lab.arg("--manifest-path").arg(crate::workspace::root().join("Cargo.toml"));
    let status = process::status(lab.args(["--", command]).args(args))?;
    if status.success() {
        return Ok(());
    }
    Err(Stop { status: process::passed_on(status), message: String::new() })
}
