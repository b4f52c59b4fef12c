//! Which rows are measured, how much of each, and in which order.
//!
//! ```text
//!            pages     frames    references
//!   small        997       128      100,000     25 rounds
//!   large    262,144    32,768    1,000,000     4 at least
//!   quick        997       128        5,000     2
//! ```

use super::contenders::{self, Entry};
use super::instructions;
use crate::callgrind;
use crate::cli::Options;
use crate::clock::Stopwatch;
use crate::report::{Report, Row, rounded};
use crate::rounds::{Contender, Limits, contest};
use core::time::Duration;
use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::rc::Rc;
use vellum_reclaim::host::{Stream, opt};

/// The rounds of each row, unless one says otherwise.
const ROUNDS: u32 = 25;

/// The targets, in nanoseconds a reference.
const TARGET: f64 = 2.0;
const TARGET_LRU: f64 = 7.0;

/// The last word of a quick run.
const QUICK: &str =
    "This was a quick run (--quick): no figure and no verdict in it means anything.";

/// A memory, and a program for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) name: &'static str,
    pub(super) pages: u32,
    pub(super) frames: u32,
    pub(super) references: usize,
}

/// What instructions are counted with, too.
pub(super) const SMALL: Size = Size { name: "small", pages: 997, frames: 128, references: 100_000 };
const LARGE: Size = Size { name: "large", pages: 262_144, frames: 32_768, references: 1_000_000 };
const QUICK_SIZE: Size = Size { references: 5_000, ..SMALL };

/// A figure of each contender that has one.
type Figures = Vec<(Entry, f64)>;

/// Measures what is asked for.
pub(super) fn run(options: &Options, bar: &ProgressBar) -> Report {
    let quick = options.quick;
    let rounds = options.rounds.unwrap_or(if quick { 2 } else { ROUNDS });
    let limits = Limits { rounds, each: Duration::from_millis(if quick { 50 } else { 4000 }) };
    let mut report = Report::new();
    if options.wants("policies") {
        let sizes = if quick { &[QUICK_SIZE][..] } else { &[SMALL, LARGE] };
        for size in sizes {
            policies(*size, limits, bar, &mut report);
        }
        report.notes.extend(verdict(&report.rows));
    }
    if options.wants("policies-instructions") {
        count(quick, bar, &mut report);
    }
    if quick {
        report.notes.push(QUICK.to_owned());
    }
    report
}

/// Time and misses of all with this size.
fn policies(size: Size, limits: Limits, bar: &ProgressBar, report: &mut Report) {
    let Size { name, pages, frames, references } = size;
    let stream = Rc::new(Stream::synthetic(pages, references));
    let entries: Vec<Entry> =
        contenders::all().into_iter().filter(|it| it.most_frames >= frames).collect();
    let contender = |entry: &Entry| {
        let (entry, stream) = (*entry, Rc::clone(&stream));
        Contender::new(entry.name, move || {
            let mut figures = Vec::new();
            (entry.turn)(&stream, frames, &mut |pass| {
                let watch = Stopwatch::start();
                let misses = pass();
                figures = vec![watch.nanos_each(references), misses as f64];
            });
            figures
        })
    };
    let mut contest_of: Vec<Contender> = entries.iter().map(contender).collect();
    bar.set_length(limits.rounds.into());
    bar.set_prefix(name);
    contest(&mut contest_of, limits, |round, name| {
        bar.set_position(round.into());
        bar.set_message(name.to_owned());
        bar.tick();
    });
    let figures = |which: usize| -> Figures {
        let best = |it: &Contender| it.best().get(which).copied().unwrap_or(f64::NAN);
        entries.iter().copied().zip(contest_of.iter().map(best)).collect()
    };
    report.rows.extend(rows(&format!("time, {name}"), "ns", &figures(0)));
    report.rows.extend(rows(&format!("misses, {name}"), "misses", &figures(1)));
    let bound = opt::misses(&stream, frames);
    let distinct = stream.distinct();
    report.notes.push(format!(
        "{name}: {references} references to {distinct} pages in {frames} frames; the bound (OPT) is \
         {bound} misses."
    ));
}

/// Instructions of a reference.
fn count(quick: bool, bar: &ProgressBar, report: &mut Report) {
    let program = match std::env::current_exe() {
        Ok(program) if callgrind::available() => program,
        _ => {
            report.notes.push("Instructions were not counted: there is no valgrind.".to_owned());
            return;
        }
    };
    let mut entries = contenders::all();
    if quick {
        entries.truncate(1);
    }
    bar.set_length(entries.len() as u64);
    bar.set_position(0);
    bar.set_prefix("instructions");
    let mut figures = Figures::new();
    for entry in entries {
        bar.set_message(entry.name);
        match instructions::each(&entry, &program) {
            Ok(each) => figures.push((entry, each)),
            Err(message) => report.notes.push(message),
        }
        bar.inc(1);
    }
    report.rows.extend(rows("instructions, small", "instr.", &figures));
}

/// A row for each policy of ours, with the peers that have it.
fn rows(section: &str, unit: &str, figures: &Figures) -> Vec<Row> {
    let peers = |row: &str| -> BTreeMap<String, f64> {
        let of_row = figures.iter().filter(|(it, _)| !it.is_ours && it.row == row);
        of_row.map(|(it, figure)| (it.name.to_owned(), rounded_of(unit, *figure))).collect()
    };
    let ours = figures.iter().filter(|(it, _)| it.is_ours);
    ours.map(|(it, figure)| Row {
        section: section.to_owned(),
        row: it.row.to_owned(),
        unit: unit.to_owned(),
        better: None,
        yardstick: None,
        ours: rounded_of(unit, *figure),
        peers: peers(it.row),
    })
    .collect()
}

/// Misses are exact.
fn rounded_of(unit: &str, figure: f64) -> f64 {
    if unit == "misses" { figure } else { rounded(figure) }
}

/// Which policies take no more time than is wanted, in the small memory.
fn verdict(rows: &[Row]) -> Option<String> {
    let timed: Vec<&Row> = rows.iter().filter(|row| row.section == "time, small").collect();
    let target = |row: &Row| if row.row == "lru" { TARGET_LRU } else { TARGET };
    let missed: Vec<String> = timed
        .iter()
        .filter(|row| row.ours > target(row))
        .map(|row| format!("; not {} ({})", row.row, row.ours))
        .collect();
    let (all, met) = (timed.len(), timed.len() - missed.len());
    (all > 0).then(|| {
        format!(
            "Target, {TARGET} ns a reference (LRU {TARGET_LRU}) in the small memory, met by {met} of {all}{}.",
            missed.concat()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_judged_by_the_small_memory() {
        let row = |section: &str, row: &str, ours| Row {
            section: section.to_owned(),
            row: row.to_owned(),
            unit: "ns".to_owned(),
            better: None,
            yardstick: None,
            ours,
            peers: BTreeMap::new(),
        };
        let rows = [
            row("time, small", "lru", 6.9),
            row("time, small", "arc", 2.1),
            row("time, large", "fifo", 99.0),
        ];
        assert!(verdict(&rows).unwrap().ends_with("met by 1 of 2; not arc (2.1)."));
        assert_eq!(verdict(&rows[2..]), None);
    }
}
