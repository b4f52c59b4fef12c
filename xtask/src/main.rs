//! `cargo xtask`: what one does with this repository, as one ordinary program.
//!
//! ```text
//!   compare ARGS...   the laboratory, in release mode          --> vellum-lab compare
//!   trace -- PROGRAM  record one by valgrind; `convert`     --> vellum-lab trace, convert
//!   difftest          our address spaces against Linux's        --> vellum-difftest
//!   test              host, doc tests, models, then the image  --> cargo test, loom, Miri, QEMU
//!   run               the image under QEMU                     --> QEMU
//!   bench NAME        ours beside the peers                    --> the crate's bench binary
//!   tidy              the rules of the house                   --> cargo metadata, the files
//!   ci                everything that a change must pass       --> all of these, fmt, clippy, doc
//!   miri              the unsafe crates, interpreted           --> cargo +nightly miri
//!   mutants           each flush left out in turn, noticed?    --> a copy, its tests of flushes
//! ```
//!
//! Exit status: 0, or 1 when what was checked failed, or 2 when it could not be checked (a wrong
//! argument, something missing). An error is one line: the thing, the value, the remedy.

/// Prints a line; a reader who has left (`| head`) is no error.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}

mod bench;
mod ci;
mod compare;
mod miri;
mod mutants;
mod process;
mod qemu;
mod setup;
mod stop;
mod test;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;
use stop::Stop;

/// Builds, tests and compares Vellum.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compare page-table designs on traces of real programs (`compare --help` tells the options)
    #[command(disable_help_flag = true)]
    Compare {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Record a program's trace by valgrind: `trace -- PROGRAM ARGS` (`trace --help` tells the options)
    #[command(disable_help_flag = true)]
    Trace {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Convert a trace: `convert IN OUT` (`convert --help` tells the options)
    #[command(disable_help_flag = true)]
    Convert {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run random mmap sequences on Linux and on ours, and compare (`difftest --help` tells the options)
    #[command(disable_help_flag = true)]
    Difftest {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run host tests, doc tests, loom's models, Miri, and the image's tests under QEMU
    Test {
        #[command(flatten)]
        parts: test::Parts,
    },
    /// Boot the image under QEMU; its serial port is standard output
    Run {
        /// Levels of page tables, by the CPU that QEMU shows
        #[arg(long, value_parser = clap::value_parser!(u8).range(4..=5), default_value_t = 5)]
        levels: u8,
        /// Memory of the machine, in MiB
        #[arg(long, value_parser = clap::value_parser!(u32).range(16..), default_value_t = qemu::MEMORY_MIB)]
        memory: u32,
        /// Seconds until the machine is ended
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..=qemu::MAX_LIMIT_SECONDS), default_value_t = qemu::LIMIT_SECONDS)]
        limit: u64,
        /// Words for the kernel's command line, such as `filter=tables`
        words: Vec<String>,
    },
    /// Measure one crate beside its peers
    #[command(after_help = bench::EXAMPLES)]
    Bench {
        /// Which; the list is below
        name: Option<String>,
        #[command(flatten)]
        options: bench::Options,
    },
    /// Check the rules of the house: layers, file sizes, lints, documents
    Tidy,
    /// Check everything that a change must pass, or only these steps of it
    Ci {
        #[arg(value_parser = clap::builder::PossibleValuesParser::new(ci::steps()))]
        steps: Vec<String>,
    },
    /// Run the tests of the crates with unsafe code under Miri, with strict provenance
    Miri {
        /// Only these crates
        #[arg(long, short)]
        package: Vec<String>,
    },
    /// Leave out each flush that the tables tell a gather of, and see that a test notices
    Mutants {
        /// Only in places that contain this, such as `radix/unmap.rs`; works on a copy in the target folder
        place: Option<String>,
    },
}

/// Everything behind the command as it was typed: `--` means something to the laboratory, and the
/// parser would take a first one for its own.
fn passed_on() -> Vec<OsString> {
    std::env::args_os().skip(2).collect()
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Compare { args } => compare::run("compare", &args),
        Command::Trace { .. } => compare::run("trace", &passed_on()),
        Command::Convert { args } => compare::run("convert", &args),
        Command::Difftest { args } => compare::difftest(&args),
        Command::Test { parts } => test::run(parts),
        Command::Run { levels, memory, limit, words } => {
            qemu::run_image(levels, memory, limit, &words)
        }
        Command::Bench { name, options } => bench::run(name.as_deref(), &options),
        Command::Tidy => tidy::run(),
        Command::Ci { steps } => ci::run(&steps),
        Command::Miri { package } => miri::run(&package),
        Command::Mutants { place } => mutants::run(place.as_deref()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop { status, message }) => {
            if !message.is_empty() {
                eprintln!("xtask: {message}");
            }
            ExitCode::from(status)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn compare_passes_every_argument_on() {
        let line = ["xtask", "compare", "--help", "--trace", "x.vt", "-h"];
        let Command::Compare { args } = Cli::parse_from(line).command else {
            panic!("another command");
        };
        assert_eq!(args, ["--help", "--trace", "x.vt", "-h"]);
    }

    #[test]
    fn a_run_has_4_or_5_levels() {
        assert!(Cli::try_parse_from(["xtask", "run", "--levels", "4"]).is_ok());
        assert!(Cli::try_parse_from(["xtask", "run", "--levels", "3"]).is_err());
    }

    #[test]
    fn a_run_has_a_limit_that_a_clock_can_hold() {
        let accepted =
            |limit: &str| Cli::try_parse_from(["xtask", "run", "--limit", limit]).is_ok();
        assert!(accepted("1") && accepted("86400"));
        assert!(!accepted("0") && !accepted("86401") && !accepted("18446744073709551615"));
    }
}
