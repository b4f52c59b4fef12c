//! Links the image by `linker.ld`; on the host there is nothing to do.

#![allow(clippy::print_stdout, reason = "a build script talks to cargo on standard output")]

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=linker.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    // Absolute boot addresses (R_X86_64_32) do not go into a position-independent executable.
    println!("cargo::rustc-link-arg-bins=--no-pie");
    println!("cargo::rustc-link-arg-bins=--build-id=none");
    println!("cargo::rustc-link-arg-bins=-zmax-page-size=4096");
    println!("cargo::rustc-link-arg-bins=-T{folder}/linker.ld");
}
