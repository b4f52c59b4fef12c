//! The bare-metal image; on the host, a program that says how to boot it.
//!
//! What needs no machine is in the library of the same name, where the host tests it.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod metal;

#[cfg(not(target_os = "none"))]
fn main() -> std::process::ExitCode {
    eprintln!("vellum-kernel is an image for bare metal; boot it with: cargo xtask run");
    std::process::ExitCode::from(2)
}
