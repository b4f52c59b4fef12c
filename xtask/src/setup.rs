//! What a fresh machine lacks, and how it gets there.
//!
//! ```text
//!   target      rustc --print target-libdir exists?   else rustup target add
//!   toolchain   rustup toolchain list                  else rustup toolchain install
//!   miri        cargo +nightly miri --version          else rustup component add
//!   QEMU        qemu-system-x86_64 --version           else apt-get, dnf, pacman or brew,
//!                                                      if root or CI=true; else one line to type
//! ```

use crate::process;
use crate::stop::{Result, Stop};
use crate::workspace::root;
use std::path::Path;
use std::process::Command;

/// The target of the image.
pub(crate) const BARE_METAL: &str = "x86_64-unknown-none";

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// Sees to it that the toolchain can build for `target`.
pub(crate) fn target(target: &str) -> Result {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]).current_dir(root());
    let folder = process::output(&mut rustc);
    if folder.is_some_and(|folder| Path::new(folder.trim()).exists()) {
        return Ok(());
    }
    eprintln!("xtask: adding target {target}");
    let mut rustup = Command::new("rustup");
    rustup.args(["target", "add", target]).current_dir(root());
    if process::succeeds(&mut rustup).unwrap_or(false) {
        return Ok(());
    }
    Err(Stop::unable(format!(
        "target {target} is missing; add it with: rustup target add {target}"
    )))
}

/// Sees to it that `cargo SUBCOMMAND`, which comes with a component, is there.
pub(crate) fn component(name: &str, subcommand: &str) -> Result {
    let mut cargo = crate::workspace::cargo();
    if process::output(cargo.args([subcommand, "--version"])).is_some() {
        return Ok(());
    }
    eprintln!("xtask: adding component {name}");
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", name]).current_dir(root());
    if process::succeeds(&mut rustup).unwrap_or(false) {
        return Ok(());
    }
    Err(Stop::unable(format!("{name} is missing; add it with: rustup component add {name}")))
}

/// Whether `rustup run NAME` works, after an attempt to install it.
pub(crate) fn toolchain(name: &str) -> bool {
    let mut rustc = Command::new("rustup");
    rustc.args(["run", name, "rustc", "--version"]);
    if process::output(&mut rustc).is_some() {
        return true;
    }
    eprintln!("xtask: installing toolchain {name}");
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", name, "--profile", "minimal", "--no-self-update"]);
    process::succeeds(&mut install).unwrap_or(false)
}

/// Sees to it that `rustup run nightly cargo miri` works.
pub(crate) fn miri() -> Result {
    let works = || {
        let mut miri = Command::new("rustup");
        process::output(miri.args(["run", "nightly", "cargo", "miri", "--version"])).is_some()
    };
    if works() {
        return Ok(());
    }
    let mut add = Command::new("rustup");
    add.args(["component", "add", "miri", "rust-src", "--toolchain", "nightly"]);
    if toolchain("nightly") && process::succeeds(&mut add).unwrap_or(false) && works() {
        return Ok(());
    }
    Err(Stop::unable(
        "Miri is missing; add it with: rustup toolchain install nightly --component miri,rust-src",
    ))
}

/// Sees to it that QEMU is there.
pub(crate) fn qemu() -> Result {
    let works = || process::output(Command::new(QEMU).arg("--version")).is_some();
    if works() {
        return Ok(());
    }
    let found = MANAGERS
        .iter()
        .find(|manager| process::output(Command::new(manager.program).arg("--version")).is_some());
    let root = process::output(Command::new("id").arg("-u")).is_some_and(|id| id.trim() == "0");
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let steps = plan(found, root, ci)?;
    for words in &steps {
        eprintln!("xtask: {}", words.join(" "));
        process::must_succeed(Command::new(words[0]).args(&words[1..])).map_err(|stop| {
            Stop::unable(format!("{QEMU} could not be installed: {}", stop.message))
        })?;
    }
    if works() {
        return Ok(());
    }
    Err(Stop::unable(format!("{QEMU} is still missing after `{}`", steps.concat().join(" "))))
}

/// One package manager: what brings QEMU.
#[derive(Debug)]
struct Manager {
    program: &'static str,
    /// Each step's arguments.
    steps: &'static [&'static [&'static str]],
    /// Refuses to run as root, and needs no rights.
    as_user: bool,
}

const MANAGERS: [Manager; 4] = [
    Manager {
        program: "apt-get",
        steps: &[&["update"], &["install", "--yes", "--no-install-recommends", "qemu-system-x86"]],
        as_user: false,
    },
    Manager {
        program: "dnf",
        steps: &[&["install", "--assumeyes", "qemu-system-x86-core"]],
        as_user: false,
    },
    Manager {
        program: "pacman",
        steps: &[&["-S", "--noconfirm", "qemu-system-x86"]],
        as_user: false,
    },
    Manager { program: "brew", steps: &[&["install", "qemu"]], as_user: true },
];

/// The commands that install QEMU here, or why none may run.
fn plan(manager: Option<&Manager>, root: bool, ci: bool) -> Result<Vec<Vec<&'static str>>> {
    let Some(manager) = manager else {
        return Err(Stop::unable(format!(
            "{QEMU} is missing, and so is apt-get, dnf, pacman and brew; install QEMU by hand"
        )));
    };
    let sudo = !root && !manager.as_user;
    let steps: Vec<Vec<_>> = manager
        .steps
        .iter()
        .map(|step| {
            let start = if sudo { vec!["sudo", manager.program] } else { vec![manager.program] };
            [start, step.to_vec()].concat()
        })
        .collect();
    if root || ci {
        return Ok(steps);
    }
    let typed = steps.last().map(|words| words.join(" ")).unwrap_or_default();
    Err(Stop::unable(format!("{QEMU} is missing; install it with: {typed}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_installs_without_sudo_and_ci_with_it() {
        let steps = plan(Some(&MANAGERS[0]), true, false).unwrap();
        assert_eq!(steps[0], ["apt-get", "update"]);
        assert_eq!(steps[1][..2], ["apt-get", "install"]);
        let steps = plan(Some(&MANAGERS[1]), false, true).unwrap();
        assert_eq!(steps[0][..2], ["sudo", "dnf"]);
        let steps = plan(Some(&MANAGERS[3]), false, true).unwrap();
        assert_eq!(steps, [["brew", "install", "qemu"]]);
    }

    #[test]
    fn a_plain_user_is_told_the_one_line() {
        let stop = plan(Some(&MANAGERS[2]), false, false).unwrap_err();
        assert_eq!(stop.status, 2);
        assert!(stop.message.ends_with("sudo pacman -S --noconfirm qemu-system-x86"));
        let stop = plan(None, true, true).unwrap_err();
        assert!(stop.message.contains("by hand"));
    }

    #[test]
    fn the_compiler_knows_its_own_target() {
        let host = process::output(Command::new("rustc").args(["--print", "host-tuple"])).unwrap();
        target(host.trim()).unwrap();
    }
}
