//! Which rows are measured, how much of each, and in which order.
//!
//! ```text
//!            regions                       rounds
//!   usual    10, 100, ... 1,000,000        25      who had his seconds sits out, after two turns
//!   quick    100                           2       (instructions of one contender)
//! ```
//!
//! Behind them come the rows of address spaces (space/ops/plan.rs).

use super::instructions;
use super::map::{self, Map, OURS, Visit};
use super::ops;
use super::rows::{Act, Regions};
use crate::callgrind;
use crate::cli::Options;
use crate::clock::Stopwatch;
use crate::report::{self, Report, rounded};
use crate::rounds::{Contender, Limits, contest};
use core::time::Duration;
use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The rounds of each row, unless one says otherwise.
const ROUNDS: u32 = 25;
/// How many regions.
const SIZES: [usize; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];
/// With how many, where instructions are counted.
const COUNTED: [usize; 2] = [1_000, 100_000];
/// Of a quick run.
const QUICK_SIZE: usize = 100;

/// The last word of a quick run.
const QUICK: &str =
    "This was a quick run (--quick): no figure and no verdict in it means anything.";

/// A figure for each act, if there is one.
type Figures = Vec<(&'static str, Vec<Option<f64>>)>;

/// What is to be done, and what has come of it.
pub(super) struct Plan<'a> {
    options: &'a Options,
    bar: &'a ProgressBar,
    limits: Limits,
    rows: Vec<report::Row>,
    notes: Vec<String>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(options: &'a Options, bar: &'a ProgressBar) -> Self {
        let quick = options.quick;
        let rounds = options.rounds.unwrap_or(if quick { 2 } else { ROUNDS });
        let each = Duration::from_millis(if quick { 50 } else { 4000 });
        Self { options, bar, limits: Limits { rounds, each }, rows: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn run(&mut self) {
        let quick = self.options.quick;
        if self.options.wants("vma") {
            let sizes = if quick { &[QUICK_SIZE][..] } else { &SIZES };
            sizes.iter().for_each(|&count| self.time(count));
        }
        if self.options.wants("vma-instructions") {
            self.instructions(if quick { &[QUICK_SIZE] } else { &COUNTED });
        }
        let outcome = ops::run(self.options, self.limits, self.bar);
        self.rows.extend(outcome.rows);
        self.notes.extend(outcome.notes);
    }

    pub(super) fn into_report(mut self) -> Report {
        self.notes.extend(verdict(&self.rows));
        if self.options.quick {
            self.notes.push(QUICK.to_owned());
        }
        Report { rows: self.rows, notes: self.notes, ..Report::new() }
    }

    fn time(&mut self, count: usize) {
        struct Collect(Rc<Regions>, Vec<Contender>);
        impl Visit for Collect {
            fn visit<M: Map>(&mut self) {
                let regions = Rc::clone(&self.0);
                self.1.push(Contender::new(M::NAME, move || {
                    let mut nanos = Vec::new();
                    let counts = regions.counts::<M>();
                    let has_high = regions.turn::<M>(&mut |act| {
                        let watch = Stopwatch::start();
                        act();
                        nanos.push(watch.nanos());
                    });
                    let each = nanos.iter().zip(counts).zip(Act::ALL);
                    each.map(|((all, count), act)| {
                        if act == Act::High && !has_high { f64::NAN } else { all / count as f64 }
                    })
                    .collect()
                }));
            }
        }
        self.bar.set_length(self.limits.rounds.into());
        self.bar.set_prefix(format!("{count} regions"));
        let mut collect = Collect(Rc::new(Regions::new(count)), Vec::new());
        map::all(&mut collect);
        let mut contenders = collect.1;
        contest(&mut contenders, self.limits, |round, name| {
            self.bar.set_position(round.into());
            self.bar.set_message(name.to_owned());
            self.bar.tick();
        });
        let best = |contender: &Contender| {
            let figures = contender.best().iter().map(|&f| f.is_finite().then_some(f)).collect();
            (contender.name, figures)
        };
        let figures = contenders.iter().map(best).collect();
        self.push("time", count, "ns", &figures);
    }

    fn instructions(&mut self, sizes: &[usize]) {
        let program = match std::env::current_exe() {
            Ok(program) if callgrind::available() => program,
            _ => {
                self.notes.push("Instructions were not counted: there is no valgrind.".to_owned());
                return;
            }
        };
        let mut names = instructions::names();
        if self.options.quick {
            names.truncate(1);
        }
        self.bar.set_length((sizes.len() * names.len()) as u64);
        self.bar.set_position(0);
        self.bar.set_prefix("instructions");
        for &count in sizes {
            let regions = Regions::new(count);
            let mut figures = Figures::new();
            for &name in &names {
                self.bar.set_message(format!("{count} regions, {name}"));
                match instructions::each(name, &regions, count, &program) {
                    Ok(counts) => figures.push((name, counts)),
                    Err(message) => self.notes.push(message),
                }
                self.bar.inc(1);
            }
            self.push("instructions", count, "instr.", &figures);
        }
    }

    /// A row for each act.
    fn push(&mut self, section: &str, count: usize, unit: &str, figures: &Figures) {
        for (index, act) in Act::ALL.into_iter().enumerate() {
            let figure = |(name, all): &(&'static str, Vec<Option<f64>>)| {
                Some(((*name).to_owned(), rounded((*all.get(index)?)?)))
            };
            let mut peers: BTreeMap<_, _> = figures.iter().filter_map(figure).collect();
            if let Some(ours) = peers.remove(OURS) {
                self.rows.push(report::Row {
                    section: section.to_owned(),
                    row: format!("{}, {count}", act.name()),
                    unit: unit.to_owned(),
                    better: None,
                    yardstick: None,
                    ours,
                    peers,
                });
            }
        }
    }
}

/// In how many of the timed rows of searches ours takes less than every peer.
fn verdict(rows: &[report::Row]) -> Option<String> {
    let searches = [Act::Find, Act::Hole, Act::Near, Act::Low, Act::High].map(Act::name);
    let timed: Vec<_> = rows
        .iter()
        .filter(|row| row.section == "time")
        .filter(|row| searches.iter().any(|act| row.row.starts_with(act)))
        .collect();
    let ahead = |row: &&&report::Row| row.peers.values().all(|&figure| row.ours < figure);
    let met = timed.iter().filter(ahead).count();
    let behind: Vec<_> =
        timed.iter().filter(|row| !ahead(row)).map(|row| format!("; not `{}`", row.row)).collect();
    (!timed.is_empty()).then(|| {
        let all = timed.len();
        format!(
            "Target, ahead of every peer on searches, met by {met} of {all}{}.",
            behind.concat()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_judged_by_timed_searches() {
        let row = |section: &str, row: &str, ours| report::Row {
            section: section.to_owned(),
            row: row.to_owned(),
            unit: String::new(),
            better: None,
            yardstick: None,
            ours,
            peers: [("a".to_owned(), 5.0), ("b".to_owned(), 9.0)].into(),
        };
        let rows = [
            row("time", "find, 10", 4.0),
            row("time", "low, 10", 6.0),
            row("time", "pair, 10", 10.0),
            row("instructions", "find, 10", 10.0),
        ];
        assert!(verdict(&rows).unwrap().ends_with("met by 1 of 2; not `low, 10`."));
        assert_eq!(verdict(&[]), None);
    }
}
