//! The tests that a checker runs: models under loom, and everything quick under Miri.
//!
//! ```text
//!   loom   RUSTFLAGS=--cfg loom, profile loom, target/loom    MODELS: `interleavings` in each
//!   Miri   cargo +nightly miri test --lib, target/miri        QUICK: its unit tests, but for some
//! ```
//!
//! Each has a target folder of its own, so that no other build begins anew because of its flags.
//! Miri needs a nightly toolchain, which is installed like the rest of what is missing; where that
//! cannot be (nobody is online), the step says so and counts nothing.

use super::{Count, each_test, runner};
use crate::stop::Result;
use crate::workspace::{Workspace, cargo};
use crate::{miri, setup};
use std::path::Path;
use std::process::Command;

/// The crates with models for loom.
const MODELS: &[&str] =
    &["vellum-frame", "vellum-tlb", "vellum-cache", "vellum-fault", "vellum-space"];

/// The module that the models of each of them lie in.
const MODULE: &str = "interleavings";

/// The crates whose unit tests take Miri no more than some minutes, and the modules to leave out for
/// that: long sequences against a model. (`cargo xtask miri` leaves nothing out.)
const QUICK: &[(&str, &[&str])] = &[
    ("vellum-core", &[]),
    ("vellum-frame", &["tests::alone", "tests::exhaustion", "tests::stress", "tests::surface"]),
];

/// Runs the models of all crates that have some.
pub(super) fn loom() -> Result<Count> {
    let target = Workspace::load()?.target.join("loom");
    let mut count = Count::default();
    for name in MODELS {
        say!("\n     Running the models of {name} under loom");
        count += each_test(&mut models(name, &target), &mut |line| say!("{line}"))?;
    }
    Ok(count)
}

fn models(package: &str, target: &Path) -> Command {
    let mut test = cargo();
    test.args(["test", "--profile", "loom", "--lib", "--package", package]);
    test.arg("--target-dir").arg(target).arg(MODULE).envs(runner());
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    test.env("RUSTFLAGS", format!("{flags} --cfg loom").trim_start());
    // It would count for more than the other.
    test.env_remove("CARGO_ENCODED_RUSTFLAGS");
    test
}

/// Runs unit tests under Miri, if it can be had; `print` gets what there is to say.
pub(super) fn miri(print: &mut dyn FnMut(&str)) -> Result<Count> {
    if let Err(missing) = setup::miri() {
        print(&format!("\nskipped: the tests under Miri: {}", missing.message));
        return Ok(Count::default());
    }
    let mut count = Count::default();
    for (name, slow) in QUICK {
        print(&format!("\n     Running the unit tests of {name} under Miri"));
        let mut tests = miri::command(name);
        tests.args(["--lib", "--"]).args(slow.iter().flat_map(|module| ["--skip", module]));
        count += each_test(&mut tests, print)?;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    #[test]
    fn each_crate_with_models_has_the_module_and_builds_it_for_loom_alone() {
        for name in MODELS {
            let library = root().join("crates").join(name).join("src/lib.rs");
            let text = std::fs::read_to_string(library).unwrap();
            assert!(text.contains(&format!("#[cfg(loom)]\nmod {MODULE};")), "{name}");
        }
    }

    #[test]
    fn models_are_built_with_their_flag_in_their_own_folder() {
        let command = models("vellum-frame", Path::new("/t/loom"));
        let flags = command.get_envs().find(|(key, _)| *key == "RUSTFLAGS").and_then(|(_, v)| v);
        assert!(flags.is_some_and(|flags| flags.to_string_lossy().ends_with("--cfg loom")));
        let words = crate::process::shown(&command);
        assert!(words.ends_with(" --target-dir /t/loom interleavings"), "{words}");
    }
}
