//! The default run of the command line: 200,000 operations on Linux and on every design.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use vellum_difftest::cli::run;

#[test]
#[ignore = "it takes a minute; `cargo xtask test` runs it by itself"]
fn linux_and_every_design_give_the_same() {
    assert_eq!(run([std::ffi::OsString::from("difftest")].into_iter()), 0);
}
