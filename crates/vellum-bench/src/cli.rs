//! The command line that every bench has.
//!
//! ```text
//!   NAME [--quick] [--only ROW]... [--rounds N]    status 0   JSON on standard output
//!                                                         1   what was to be measured failed
//!                                                         2   bad arguments: one line
//! ```

use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches};
use indicatif::{ProgressBar, ProgressStyle};
use std::ffi::OsString;

/// What every bench can be told.
#[derive(Args, Clone, Debug, Default)]
pub struct Options {
    /// A smoke run: small sizes, two rounds; the figures mean nothing
    #[arg(long)]
    pub quick: bool,

    /// Measure only this row; may be repeated
    #[arg(long, value_name = "ROW")]
    pub only: Vec<String>,

    /// The most rounds of each row [default: 25]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rounds: Option<u32>,

    /// Instead of all else: what NAME says, N times, for counting instructions
    #[arg(long, hide = true, num_args = 2, value_names = ["NAME", "N"])]
    pub pairs: Option<Vec<String>>,
}

impl Options {
    /// Whether a row is asked for.
    #[must_use]
    pub fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == row)
    }

    /// Complains about a row that does not exist.
    ///
    /// # Errors
    ///
    /// The line to say.
    pub fn check(&self, rows: &[&str]) -> Result<(), String> {
        match self.only.iter().find(|only| !rows.contains(&only.as_str())) {
            None => Ok(()),
            Some(only) => {
                Err(format!("there is no row `{only}`; choose from: {}", rows.join(", ")))
            }
        }
    }
}

/// What a bench says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Bench {
    /// The program's name.
    pub name: &'static str,
    /// What it measures, in a line.
    pub about: &'static str,
    /// The end of `--help`: its rows, and examples.
    pub examples: &'static str,
    /// What `--only` takes.
    pub rows: &'static [&'static str],
}

/// Reads the command line, or prints what is to be printed and says with which status to leave.
///
/// # Errors
///
/// The status.
fn parse(bench: &Bench, args: impl IntoIterator<Item = OsString>) -> Result<Options, u8> {
    let &Bench { name, about, examples, rows } = bench;
    // What the options are for is said by the bench, not by the comment at `Options`.
    let parsed = Options::augment_args(Command::new(name))
        .about(about)
        .after_help(examples)
        .try_get_matches_from(args)
        .and_then(|matches| Options::from_arg_matches(&matches));
    let complain = |message: &str| {
        eprintln!("{name}: {message}");
        2
    };
    match parsed {
        Ok(options) => match options.check(rows) {
            Ok(()) => Ok(options),
            Err(message) => Err(complain(&message)),
        },
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            let _ = e.print();
            Err(0)
        }
        Err(e) => {
            let text = e.to_string();
            let line = text.lines().next().unwrap_or_default();
            Err(complain(line.trim_start_matches("error: ")))
        }
    }
}

/// Runs a bench: `child` if it is to repeat one act for counting instructions, otherwise `measure`. The
/// status.
pub fn run(
    bench: &Bench,
    args: impl IntoIterator<Item = OsString>,
    child: impl FnOnce(&str, &str) -> Result<(), String>,
    measure: impl FnOnce(&Options) -> Result<(), String>,
) -> u8 {
    let options = match parse(bench, args) {
        Ok(options) => options,
        Err(status) => return status,
    };
    let done = match options.pairs.as_deref() {
        Some([name, count]) => child(name, count).map_err(|message| (2, message)),
        // clap takes two words or none.
        Some(_) => Err((2, "--pairs takes a name and a number".to_owned())),
        None => measure(&options).map_err(|message| (1, message)),
    };
    match done {
        Ok(()) => 0,
        Err((status, message)) => {
            eprintln!("{}: {message}", bench.name);
            status
        }
    }
}

/// A bar on standard error; nothing at all where that is no terminal.
#[must_use]
pub fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:<14} {bar:30} {pos:>3}/{len} {wide_msg}");
    let bar = ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(args: &[&str]) -> Result<Options, u8> {
        let args = core::iter::once("x").chain(args.iter().copied()).map(OsString::from);
        let bench = Bench { name: "x", about: "", examples: "", rows: &["a", "b"] };
        parse(&bench, args)
    }

    #[test]
    fn rows_are_chosen_by_name() {
        let options = parsed(&["--only", "a"]).unwrap();
        assert!(options.wants("a") && !options.wants("b"));
        assert!(parsed(&[]).unwrap().wants("b"));
    }

    #[test]
    fn bad_arguments_end_with_status_2_and_help_with_0() {
        for bad in [&["--only", "c"][..], &["--rounds", "0"], &["--rounds", "x"], &["y"], &["-q"]] {
            assert_eq!(parsed(bad).err(), Some(2), "{bad:?}");
        }
        assert_eq!(parsed(&["--help"]).err(), Some(0));
    }

    #[test]
    fn an_unknown_row_lists_the_choices() {
        let options = Options { only: vec!["c".into()], ..Options::default() };
        assert!(options.check(&["a", "b"]).unwrap_err().ends_with("`c`; choose from: a, b"));
    }
}
