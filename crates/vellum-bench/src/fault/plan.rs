//! Which rows are measured, and how often.
//!
//! ```text
//!            rounds     instructions
//!   usual    25         of each design
//!   quick    2          of the first
//! ```

use super::acts::{self, ACTS, PAGES};
use super::designs::{Design, NAMES, Visit, with_design};
use crate::callgrind;
use crate::cli::{self, Options};
use crate::clock::Stopwatch;
use crate::report::{Report, Row, rounded};
use crate::rounds::{Contender, Limits, contest};
use core::time::Duration;
use std::path::Path;

/// The rounds of each row, unless one says otherwise.
const ROUNDS: u32 = 25;

/// Figures of all designs, in the order of [`NAMES`]: of each, those of [`ACTS`].
type Figures = Vec<(&'static str, Vec<f64>)>;

/// Measures what was asked for.
pub(super) fn run(options: &Options) -> Report {
    let mut report = Report::new();
    let rounds = options.rounds.unwrap_or(if options.quick { 2 } else { ROUNDS });
    let each = Duration::from_millis(if options.quick { 50 } else { 4000 });
    let limits = Limits { rounds, each };
    if options.wants("time") {
        push(&mut report, "time", "ns/page", &ACTS, &measured(limits, turn));
    }
    if options.wants("threads") {
        let figures = measured(limits, parallel);
        let rows = ["one CPU, anonymous write", "two CPUs, a page of both"];
        push(&mut report, "threads", "ns/page", &rows, &figures);
        report.notes.push(speedups(&figures));
    }
    if options.wants("instructions") {
        instructions(&mut report, options.quick);
    }
    if options.quick {
        report.notes.push("This was a quick run (--quick): no figure in it means anything.".into());
    }
    report
}

/// The least figures of each design's turns.
fn measured(limits: Limits, turn: fn(&str) -> Vec<f64>) -> Figures {
    let contender = |name| Contender::new(name, move || turn(name));
    let mut contenders = NAMES.map(contender);
    let bar = cli::bar();
    contest(&mut contenders, limits, |round, name| {
        bar.set_message(format!("{name}, round {round}"));
        bar.tick();
    });
    bar.finish_and_clear();
    contenders.iter().map(|c| (c.name, c.best().to_vec())).collect()
}

fn turn(name: &str) -> Vec<f64> {
    struct Turn(Vec<f64>);
    impl Visit for Turn {
        fn visit<D: Design>(&mut self) {
            acts::turn::<D>(&mut |act| {
                let watch = Stopwatch::start();
                act();
                self.0.push(watch.nanos_each(PAGES as usize));
            });
        }
    }
    let mut turn = Turn(Vec::new());
    with_design(name, &mut turn);
    turn.0
}

fn parallel(name: &str) -> Vec<f64> {
    struct Both(Vec<f64>);
    impl Visit for Both {
        fn visit<D: Design>(&mut self) {
            self.0 = [1, 2].map(|cpus| acts::threads::<D>(cpus) / PAGES as f64).to_vec();
        }
    }
    let mut both = Both(Vec::new());
    with_design(name, &mut both);
    both.0
}

fn speedups(figures: &Figures) -> String {
    let each = figures.iter().filter_map(|(name, figures)| match figures[..] {
        [one, two] => Some(format!("{name} {}", rounded(one / two))),
        _ => None,
    });
    let each = each.collect::<Vec<_>>().join(", ");
    format!("Two CPUs that fault in one space do so many times the work of one: {each}.")
}

fn instructions(report: &mut Report, quick: bool) {
    let program = match std::env::current_exe() {
        Ok(program) if callgrind::available() => program,
        _ => {
            report.notes.push("Instructions were not counted: there is no valgrind.".to_owned());
            return;
        }
    };
    let mut figures = Figures::new();
    for name in &NAMES[..if quick { 1 } else { NAMES.len() }] {
        match counted(&program, name) {
            Ok(counts) => figures.push((name, counts)),
            Err(message) => report.notes.push(message),
        }
    }
    push(report, "instructions", "instr./page", &ACTS, &figures);
}

fn counted(program: &Path, name: &str) -> Result<Vec<f64>, String> {
    let count = |acts| callgrind::collected(program, name, acts);
    let counts = (0..=ACTS.len() as u64).map(count).collect::<Result<Vec<_>, _>>()?;
    let each = |pair: &[u64]| (pair[1] as f64 - pair[0] as f64) / PAGES as f64;
    Ok(counts.windows(2).map(each).collect())
}

/// A row for each act.
fn push(report: &mut Report, section: &str, unit: &str, rows: &[&str], figures: &Figures) {
    for (index, row) in rows.iter().enumerate() {
        let figure = |(name, all): &(&'static str, Vec<f64>)| {
            Some(((*name).to_owned(), rounded(*all.get(index)?)))
        };
        let mut peers: std::collections::BTreeMap<_, _> =
            figures.iter().filter_map(figure).collect();
        if let Some(ours) = peers.remove(NAMES[0]) {
            report.rows.push(Row {
                section: section.to_owned(),
                row: (*row).to_owned(),
                unit: unit.to_owned(),
                better: None,
                yardstick: Some(NAMES[0].to_owned()),
                ours,
                peers,
            });
        }
    }
}
