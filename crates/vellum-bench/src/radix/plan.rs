//! Which rows are measured, how much of each, and in which order.
//!
//! ```text
//!            amounts    rounds
//!   usual    usual      25       slow peers sit out once they had their seconds
//!   quick    small      2        (flat: 1 MiB and 64 MiB; instructions of one row of ours)
//! ```

use super::flat;
use super::instructions::Counted;
use super::live::Live;
use super::ours::Ours;
use super::ram;
use super::rows::{Amounts, Row};
use super::table::{self, Table, Visit};
use super::{ROWS, targets};
use crate::callgrind;
use crate::cli::Options;
use crate::clock::Stopwatch;
use crate::report::{self, Report, rounded};
use crate::rounds::{Contender, Limits, contest};
use core::time::Duration;
use indicatif::ProgressBar;
use std::rc::Rc;

/// The rounds of each row, unless one says otherwise.
const ROUNDS: u32 = 25;

/// As many frames as (scatter) takes, and (flat) at 64 GiB: two tables for each of 64K pages, nearly.
const FRAMES: usize = 120_000;

/// The last word of a quick run.
const QUICK: &str =
    "This was a quick run (--quick): no figure and no verdict in it means anything.";

/// What a row leaves out for one contender.
const BLIND: &str = "blind: aarch64-paging drops whole tables and looks at none of their entries; ours \
    reads every entry, since it hands back what was mapped.";

/// The sections of the report.
const TIME: &str = "time";
const COUNT: &str = "instructions";

/// What is to be done, and what has come of it.
pub(super) struct Plan<'a> {
    options: &'a Options,
    bar: &'a ProgressBar,
    limits: Limits,
    amounts: Rc<Amounts>,
    rows: Vec<report::Row>,
    notes: Vec<String>,
}

/// Figures by contender.
type Figures = Vec<(&'static str, f64)>;

impl<'a> Plan<'a> {
    pub(super) fn new(options: &'a Options, bar: &'a ProgressBar) -> Self {
        let quick = options.quick;
        let rounds = options.rounds.unwrap_or(if quick { 2 } else { ROUNDS });
        let each = Duration::from_millis(if quick { 50 } else { 2000 });
        let amounts = Rc::new(if quick { Amounts::small() } else { Amounts::usual() });
        let limits = Limits { rounds, each };
        Self { options, bar, limits, amounts, rows: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn run(&mut self) {
        if !self.options.quick {
            ram::warm(FRAMES);
        }
        for row in Row::ALL.into_iter().filter(|row| self.options.wants(row.name())) {
            self.row(row);
        }
        if self.options.wants("live") {
            self.live();
        }
        if self.options.wants("flat") {
            self.flat();
        }
        if self.options.wants("instructions") {
            self.instructions();
        }
    }

    pub(super) fn into_report(mut self) -> Report {
        let ours = |section: &str, title: &str| {
            let mut rows = self.rows.iter();
            rows.find(|row| row.section == section && row.row == title).map(|row| row.ours)
        };
        let [blind, verdict, flatness] = [
            ours(TIME, Row::Blind.title()).map(|_| BLIND.to_owned()),
            targets::verdict(|row| ours(TIME, row.title()), |row| ours(COUNT, row.title())),
            targets::flatness(|title| ours(TIME, title)),
        ];
        self.notes.extend([blind, verdict, flatness].into_iter().flatten());
        if self.options.quick {
            self.notes.push(QUICK.to_owned());
        }
        Report { rows: self.rows, notes: self.notes, ..Report::new() }
    }

    fn row(&mut self, row: Row) {
        struct Collect(Row, Rc<Amounts>, Vec<Contender>);
        impl Visit for Collect {
            fn visit<T: Table>(&mut self) {
                let (row, amounts) = (self.0, Rc::clone(&self.1));
                if !T::LACKS.contains(&row) {
                    self.2.push(Contender::new(T::NAME, move || {
                        let mut nanos = 0.0;
                        let pages = row.turn::<T>(&amounts, &mut |act| nanos = timed(act));
                        vec![nanos / pages as f64]
                    }));
                }
            }
        }
        let mut collect = Collect(row, Rc::clone(&self.amounts), Vec::new());
        table::all(&mut collect);
        let unit = format!("ns/{}", row.per());
        self.compete(TIME, &[(row.title(), &unit)], collect.2);
    }

    fn live(&mut self) {
        for row in Live::ALL {
            let amounts = Rc::clone(&self.amounts);
            let ours = Contender::new(Ours::NAME, move || {
                let mut nanos = 0.0;
                let pages = row.turn(&amounts, &mut |act| nanos = timed(act));
                vec![nanos / pages as f64]
            });
            self.compete(TIME, &[(row.title(), "ns/page")], vec![ours]);
        }
    }

    fn flat(&mut self) {
        struct Collect(u64, Vec<Contender>);
        impl Visit for Collect {
            fn visit<T: Table>(&mut self) {
                let size = self.0;
                self.1.push(Contender::new(T::NAME, move || {
                    let mut nanos = Vec::new();
                    let pages = flat::turn::<T>(size, &mut |act| nanos.push(timed(act)));
                    nanos.iter().zip(pages).map(|(nanos, pages)| nanos / pages as f64).collect()
                }));
            }
        }
        let from = self.rows.len();
        let sizes = if self.options.quick { &flat::SIZES[..2] } else { &flat::SIZES[..] };
        for (index, &(size, _)) in sizes.iter().enumerate() {
            let mut collect = Collect(size, Vec::new());
            table::all(&mut collect);
            let labels = flat::TITLES.map(|titles| (titles[index], "ns/page"));
            self.compete(TIME, &labels, collect.1);
        }
        // Side by side: one operation at all sizes.
        let order = |row: &report::Row| {
            flat::TITLES.iter().position(|titles| titles.contains(&row.row.as_str()))
        };
        self.rows[from..].sort_by_key(order);
    }

    /// Of the rows asked for by name, or of all when there are none.
    fn instructions(&mut self) {
        struct Names(Row, Vec<&'static str>);
        impl Visit for Names {
            fn visit<T: Table>(&mut self) {
                if !T::LACKS.contains(&self.0) {
                    self.1.push(T::NAME);
                }
            }
        }
        let program = match std::env::current_exe() {
            Ok(program) if callgrind::available() => program,
            _ => {
                self.notes.push("Instructions were not counted: there is no valgrind.".to_owned());
                return;
            }
        };
        let others = ROWS.iter().filter(|&&row| row != "instructions");
        let named = others.filter(|row| self.options.only.iter().any(|only| only == *row)).count();
        let wanted = |row: &str| named == 0 || self.options.wants(row);
        let mut tasks = Vec::new();
        for row in Row::ALL.into_iter().filter(|row| wanted(row.name())) {
            let mut names = Names(row, Vec::new());
            table::all(&mut names);
            let all = names.1.into_iter().map(|name| (name, Counted::Row(row, name)));
            tasks.push((row.title(), format!("instr./{}", row.per()), all.collect()));
        }
        for row in Live::ALL.into_iter().filter(|_| wanted("live")) {
            let ours = vec![(Ours::NAME, Counted::Live(row))];
            tasks.push((row.title(), "instr./page".to_owned(), ours));
        }
        if self.options.quick {
            tasks.truncate(1);
        }
        self.bar.set_length(tasks.len() as u64);
        self.bar.set_prefix("instructions");
        for (index, (title, unit, counted)) in tasks.into_iter().enumerate() {
            self.bar.set_position(index as u64);
            let figures = self.count(&program, title, counted);
            self.push(COUNT, title, &unit, figures);
        }
    }

    fn count(
        &mut self,
        program: &std::path::Path,
        title: &str,
        counted: Vec<(&'static str, Counted)>,
    ) -> Figures {
        let mut figures = Figures::new();
        for (name, counted) in counted {
            self.bar.set_message(format!("{title}: {name}"));
            self.bar.tick();
            match counted.per_page(program) {
                Ok(count) => figures.push((name, count)),
                Err(message) => self.notes.push(message),
            }
            if self.options.quick {
                break;
            }
        }
        figures
    }

    /// Has contenders take turns, and keeps their figures as one row for each label.
    fn compete(&mut self, section: &str, labels: &[(&str, &str)], mut contenders: Vec<Contender>) {
        self.bar.set_length(self.limits.rounds.into());
        self.bar.set_prefix(labels[0].0.to_owned());
        contest(&mut contenders, self.limits, |round, name| {
            self.bar.set_position(round.into());
            self.bar.set_message(name.to_owned());
            self.bar.tick();
        });
        for (index, &(title, unit)) in labels.iter().enumerate() {
            let figure = |c: &Contender| Some((c.name, *c.best().get(index)?));
            let figures = contenders.iter().filter_map(figure).collect();
            self.push(section, title, unit, figures);
        }
    }

    fn push(&mut self, section: &str, title: &str, unit: &str, figures: Figures) {
        let figures = figures.into_iter().map(|(name, figure)| (name, rounded(figure)));
        let (ours, peers): (Figures, Figures) = figures.partition(|&(name, _)| name == Ours::NAME);
        if let Some(&(_, ours)) = ours.first() {
            self.rows.push(report::Row {
                section: section.to_owned(),
                row: title.to_owned(),
                unit: unit.to_owned(),
                better: None,
                yardstick: None,
                ours,
                peers: peers.into_iter().map(|(name, figure)| (name.to_owned(), figure)).collect(),
            });
        }
    }
}

fn timed(act: &mut dyn FnMut()) -> f64 {
    let watch = Stopwatch::start();
    act();
    watch.nanos()
}
