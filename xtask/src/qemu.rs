//! The image under QEMU: built, booted, watched, and ended after a limit.
//!
//! ```text
//!   cargo build --package vellum-kernel --target x86_64-unknown-none
//!        |
//!   setpriv --pdeathsig KILL qemu-system-x86_64 -kernel IMAGE -cpu max[,-la57]
//!        |  serial port --> standard output --> a file without a name --> us, while it grows
//!        |  monitor <--> standard input <--> us, where somebody asks it (qmp)
//!        |  isa-debug-exit --> process status
//!        v
//!   End::Left(status) | End::Limit          two runs at a time share nothing but the image
//! ```
//!
//! TCG always, never KVM: what the image proves, it proves on the same machine everywhere. The two
//! CPUs take turns on one thread (`thread=single`): an interrupt from one to the other then takes
//! some ten thousand ticks instead of millions, and what one has in its TLB stays there as it does
//! with a thread for each. Output goes through a file: a QEMU that outlived us would hold a pipe
//! open for ever.
//!
//! # Invariants
//!
//! - QEMU ends with us, even where we are killed: the kernel sees to it (`process::tied`). Where
//!   there is no such `setpriv`, it ends with us unless we are killed.
//! - A run leaves no file behind, however it ends: its one file has no name while QEMU runs.

pub(crate) mod qmp;

use crate::process;
use crate::setup;
use crate::stop::{Result, Stop};
use crate::workspace::{Workspace, cargo};
use core::time::Duration;
use qmp::Monitor;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

/// MiB of memory of the machine, unless told.
pub(crate) const MEMORY_MIB: u32 = 256;

/// Seconds that a run may take, unless told.
pub(crate) const LIMIT_SECONDS: u64 = 120;

/// Seconds that a run may be given: a day.
pub(crate) const MAX_LIMIT_SECONDS: u64 = 24 * 60 * 60;

/// CPUs of the machine: the fewest on which one can miss what another has flushed.
const CPUS: u8 = 2;

/// What QEMU leaves with when the image says that all is well.
pub(crate) const SUCCESS: i32 = 33;

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// 4 or 5.
    pub(crate) levels: u8,
    /// MiB of memory.
    pub(crate) memory_mib: u32,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// The kernel's command line.
    pub(crate) words: Vec<String>,
}

impl Machine {
    /// The usual one, with this many levels.
    pub(crate) fn new(levels: u8) -> Self {
        let limit = Duration::from_secs(LIMIT_SECONDS);
        Self { levels, memory_mib: MEMORY_MIB, limit, words: Vec::new() }
    }

    /// Its QEMU command.
    fn command(&self, image: &Path) -> Command {
        let mut qemu = process::tied(setup::QEMU);
        qemu.args(["-accel", "tcg,thread=single", "-smp", &CPUS.to_string()]);
        qemu.args(["-machine", "q35", "-nodefaults", "-display", "none"]);
        qemu.args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        qemu.args(["-cpu", if self.levels == 5 { "max" } else { "max,-la57" }]);
        qemu.args(["-m", &format!("{}M", self.memory_mib)]);
        // Not `stdio`: that would read what is for the monitor.
        qemu.args(["-serial", "file:/dev/stdout", "-kernel"]).arg(image);
        if !self.words.is_empty() {
            qemu.args(["-append", &self.words.join(" ")]);
        }
        qemu
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this status (`None`: by a signal).
    Left(Option<i32>),
    /// We ended it after its limit.
    Limit,
}

/// Builds the image and says where it is.
pub(crate) fn build_image() -> Result<PathBuf> {
    setup::target(setup::BARE_METAL)?;
    let mut build = cargo();
    build.args(["build", "--package", "vellum-kernel", "--target", setup::BARE_METAL]);
    process::must_succeed(&mut build)?;
    let target = Workspace::load()?.target;
    Ok(target.join(setup::BARE_METAL).join("debug").join("vellum-kernel"))
}

/// Boots the image; `f` gets each line of its serial port, soon after it was written.
pub(crate) fn boot(
    machine: &Machine,
    image: &Path,
    f: impl FnMut(&str),
) -> Result<(End, Duration)> {
    start(machine.command(image).stdin(Stdio::null()), machine.limit, image, f)
}

/// The same; `f` gets each line, and QEMU's monitor to ask while the image goes on.
pub(crate) fn boot_monitored(
    machine: &Machine,
    image: &Path,
    mut f: impl FnMut(&str, &mut Monitor),
) -> Result<(End, Duration)> {
    let (mut monitor, theirs) = Monitor::pair()?;
    let mut command = machine.command(image);
    command.args(qmp::ARGUMENTS).stdin(theirs);
    start(&mut command, machine.limit, image, |line| f(line, &mut monitor))
}

fn start(
    command: &mut Command,
    limit: Duration,
    image: &Path,
    f: impl FnMut(&str),
) -> Result<(End, Duration)> {
    let (serial, file) = nameless_file(image.parent().unwrap_or(image))?;
    let started = Instant::now();
    let child = command.stdout(serial).spawn().map_err(|e| {
        Stop::unable(format!("cannot start {}: {e}; see `cargo xtask run`", setup::QEMU))
    })?;
    let end = watch(Running(child), limit, file, f)?;
    Ok((end, started.elapsed()))
}

/// A file in `folder` that has no name any more: one handle to write, one to read from its start.
fn nameless_file(folder: &Path) -> Result<(File, File)> {
    let stop = |e| Stop::file("create a file in", folder, e);
    let named = tempfile::NamedTempFile::new_in(folder).map_err(stop)?;
    // Opened anew: a copy of the handle would share the writer's position.
    let reader = named.reopen().map_err(stop)?;
    Ok((named.into_file(), reader))
}

/// A child that ends when this is dropped; that it ends when we are killed, `tied` sees to.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn watch(
    mut running: Running,
    limit: Duration,
    mut file: File,
    f: impl FnMut(&str),
) -> Result<End> {
    let started = Instant::now();
    let mut lines = Lines { partial: Vec::new(), f };
    loop {
        let ended = running.0.try_wait().map_err(|e| Stop::unable(format!("QEMU: {e}")))?;
        // Read after asking: what was written before the end is in the file by then.
        let mut new = Vec::new();
        file.read_to_end(&mut new).map_err(|e| Stop::unable(format!("serial output: {e}")))?;
        lines.take(&new);
        if let Some(status) = ended {
            lines.flush();
            return Ok(End::Left(status.code()));
        }
        if started.elapsed() >= limit {
            lines.flush();
            return Ok(End::Limit);
        }
        sleep(Duration::from_millis(5));
    }
}

/// Cuts a growing text into lines.
struct Lines<F> {
    partial: Vec<u8>,
    f: F,
}

impl<F: FnMut(&str)> Lines<F> {
    fn take(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            (self.f)(String::from_utf8_lossy(&line).trim_end());
        }
    }

    fn flush(&mut self) {
        if !self.partial.is_empty() {
            self.take(b"\n");
        }
    }
}

/// `cargo xtask run`.
pub(crate) fn run_image(levels: u8, memory_mib: u32, limit: u64, words: &[String]) -> Result {
    setup::qemu()?;
    let image = build_image()?;
    let limit = Duration::from_secs(limit);
    let machine = Machine { levels, memory_mib, limit, words: words.to_vec() };
    let (end, took) = boot(&machine, &image, |line| say!("{line}"))?;
    match end {
        End::Left(Some(SUCCESS)) => {
            eprintln!("xtask: the machine ran for {:.2} s", took.as_secs_f64());
            Ok(())
        }
        End::Left(Some(status)) => Err(Stop::failed(format!("the image left with {status}"))),
        End::Left(None) => Err(Stop::failed("QEMU was ended by a signal")),
        End::Limit => Err(Stop::failed(format!(
            "the image did not end within {} s; allow more with --limit",
            limit.as_secs()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_decides_the_levels() {
        let words = |levels| {
            let machine = Machine { words: vec!["a".into(), "b".into()], ..Machine::new(levels) };
            process::shown(&machine.command(Path::new("/image")))
        };
        assert!(words(5).contains("-cpu max "));
        assert!(words(4).contains("-cpu max,-la57 "));
        assert!(words(4).contains(" -accel tcg,thread=single -smp 2 "));
        assert!(words(4).ends_with("-serial file:/dev/stdout -kernel /image -append a b"));
    }

    #[test]
    fn lines_are_whole_whatever_the_pieces() {
        let mut seen = Vec::new();
        let mut lines = Lines { partial: Vec::new(), f: |line: &str| seen.push(line.to_owned()) };
        for piece in ["te", "st a\r\ntest", " b\n", "", "rest"] {
            lines.take(piece.as_bytes());
        }
        lines.flush();
        assert_eq!(seen, ["test a", "test b", "rest"]);
    }

    #[cfg(unix)]
    #[test]
    fn the_serial_file_has_no_name_and_is_read_from_its_start() {
        let folder = tempfile::tempdir().unwrap();
        let (mut serial, mut file) = nameless_file(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let mut text = String::new();
        for piece in ["a", "b"] {
            std::io::Write::write_all(&mut serial, piece.as_bytes()).unwrap();
            file.read_to_string(&mut text).unwrap();
        }
        assert_eq!(text, "ab");
    }

    #[cfg(unix)]
    #[test]
    fn what_runs_too_long_is_ended() {
        let sleeper = Command::new("sleep").arg("60").spawn().unwrap();
        let file = tempfile::tempfile().unwrap();
        let started = Instant::now();
        let end = watch(Running(sleeper), Duration::from_millis(50), file, |_| ()).unwrap();
        assert_eq!(end, End::Limit);
        assert!(started.elapsed() < Duration::from_secs(30), "it was waited for");
    }
}
