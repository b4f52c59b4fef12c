//! Which rows are measured, how much of each, and in which order.
//!
//! ```text
//!            sizes                rounds
//!   usual    4 Ki, 256 Ki, 4 Mi   25      who had his seconds sits out, after two turns at least
//!   quick    4 Ki                 2       (instructions of one contender)
//! ```

use super::instructions::{self, Counted};
use super::lines;
use super::map::{self, Map, Visit, YARDSTICK, is_ours};
use super::rows::{Act, Order, Pages};
use crate::callgrind;
use crate::cli::Options;
use crate::clock::Stopwatch;
use crate::report::{self, Report, rounded, thousandths};
use crate::rounds::{Contender, Limits, contest};
use core::time::Duration;
use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The rounds of each row, unless one says otherwise.
const ROUNDS: u32 = 25;

/// The sizes: what `--only` takes, what titles say, how many pages.
const SIZES: [(&str, &str, usize); 3] =
    [("4k", "4 Ki", 1 << 12), ("256k", "256 Ki", 1 << 18), ("4m", "4 Mi", 1 << 22)];

/// Of which lines are counted.
const LINES_PAGES: usize = 1 << 18;

/// The last word of a quick run.
const QUICK: &str =
    "This was a quick run (--quick): no figure and no verdict in it means anything.";

/// Figures of all contenders, in the order of [`Act::ALL`].
type Figures = Vec<(&'static str, Vec<f64>)>;

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
        for order in Order::ALL {
            for (name, title, count) in SIZES {
                // A quick run has the least size in place of all of them.
                let wanted = self.options.wants(name) && (!quick || count == SIZES[0].2);
                if wanted {
                    self.time(order, title, count);
                }
            }
        }
        if self.options.wants("instructions") {
            self.instructions();
        }
        if self.options.wants("lines") {
            let count = if quick { SIZES[0].2 } else { LINES_PAGES };
            Order::ALL.into_iter().for_each(|order| self.lines(order, count));
        }
    }

    pub(super) fn into_report(mut self) -> Report {
        self.notes.extend(verdict(&self.rows));
        if self.options.quick {
            self.notes.push(QUICK.to_owned());
        }
        Report { rows: self.rows, notes: self.notes, ..Report::new() }
    }

    fn time(&mut self, order: Order, size: &str, count: usize) {
        struct Collect(Rc<Pages>, Vec<Contender>);
        impl Visit for Collect {
            fn visit<M: Map>(&mut self) {
                let pages = Rc::clone(&self.0);
                self.1.push(Contender::new(M::NAME, move || {
                    let mut nanos = Vec::new();
                    pages.turn::<M>(&mut |act| {
                        let watch = Stopwatch::start();
                        act();
                        nanos.push(watch.nanos());
                    });
                    nanos.iter().zip(pages.counts()).map(|(all, n)| all / n as f64).collect()
                }));
            }
        }
        self.bar.set_length(self.limits.rounds.into());
        self.bar.set_prefix(format!("{}, {size}", order.name()));
        let mut collect = Collect(Rc::new(Pages::new(order, count)), Vec::new());
        map::all(&mut collect);
        let mut contenders = collect.1;
        contest(&mut contenders, self.limits, |round, name| {
            self.bar.set_position(round.into());
            self.bar.set_message(name.to_owned());
            self.bar.tick();
        });
        let figures = contenders.iter().map(|c| (c.name, c.best().to_vec())).collect();
        self.push(&time_section(order), &format!(", {size}"), "ns/page", &figures);
    }

    fn instructions(&mut self) {
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
        self.bar.set_length((Order::ALL.len() * names.len()) as u64);
        self.bar.set_position(0);
        self.bar.set_prefix("instructions");
        for order in Order::ALL {
            let mut figures = Figures::new();
            for &name in &names {
                self.bar.set_message(format!("{} pages, {name}", order.name()));
                match (Counted { order, name }.per_page(&program)) {
                    Ok(counts) => figures.push((name, counts)),
                    Err(message) => self.notes.push(message),
                }
                self.bar.inc(1);
            }
            let section = format!("instructions, {} pages", order.name());
            self.push(&section, "", "instr./page", &figures);
        }
    }

    fn lines(&mut self, order: Order, count: usize) {
        let lines = lines::all(&Pages::new(order, count));
        let each = lines.iter().map(|(name, [hit, miss])| {
            format!("{name} {} and {}", thousandths(*hit), thousandths(*miss))
        });
        self.notes.push(format!(
            "Cache lines that a walker reads for a hit and for a miss, {count} {} pages: {}.",
            order.name(),
            each.collect::<Vec<_>>().join(", ")
        ));
    }

    /// A row for each act.
    fn push(&mut self, section: &str, size: &str, unit: &str, figures: &Figures) {
        for (index, act) in Act::ALL.into_iter().enumerate() {
            let figure = |(name, all): &(&'static str, Vec<f64>)| {
                Some(((*name).to_owned(), rounded(*all.get(index)?)))
            };
            let mut peers: BTreeMap<_, _> = figures.iter().filter_map(figure).collect();
            if let Some(ours) = peers.remove(YARDSTICK) {
                self.rows.push(report::Row {
                    section: section.to_owned(),
                    row: format!("{}{size}", act.name()),
                    unit: unit.to_owned(),
                    better: None,
                    yardstick: Some(YARDSTICK.to_owned()),
                    ours,
                    peers,
                });
            }
        }
    }
}

fn time_section(order: Order) -> String {
    format!("time, {} pages", order.name())
}

/// In how many of the timed rows of look-ups each design takes no more time than the yardstick.
fn verdict(rows: &[report::Row]) -> Option<String> {
    let looks = [Act::Hit, Act::Miss].map(Act::name);
    let mut counts: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.section.starts_with("time")) {
        if looks.iter().any(|act| row.row.starts_with(act)) {
            for (name, figure) in row.peers.iter().filter(|(name, _)| is_ours(name)) {
                let [met, all] = counts.entry(name).or_default();
                *met += usize::from(*figure <= row.ours);
                *all += 1;
            }
        }
    }
    let parts: Vec<_> =
        counts.iter().map(|(name, [met, all])| format!("{name} {met} of {all}")).collect();
    let target = format!("Target, at most 1.00x of {YARDSTICK}'s time on hit and miss, met by");
    (!parts.is_empty()).then(|| format!("{target}: {}.", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(section: &str, title: &str, ours: f64, chained: f64) -> report::Row {
        report::Row {
            section: section.to_owned(),
            row: title.to_owned(),
            unit: String::new(),
            better: None,
            yardstick: Some(YARDSTICK.to_owned()),
            ours,
            peers: [("chained".to_owned(), chained), ("hashbrown, word".to_owned(), 1.0)].into(),
        }
    }

    #[test]
    fn the_target_is_judged_by_timed_look_ups_of_ours() {
        let time = time_section(Order::Random);
        let rows = [
            row(&time, "hit, 4 Ki", 5.0, 5.0),
            row(&time, "miss, 4 Ki", 5.0, 5.1),
            row(&time, "insert, 4 Ki", 5.0, 1.0),
            row("instructions, random pages", "hit", 5.0, 1.0),
        ];
        assert!(verdict(&rows).unwrap().ends_with("met by: chained 1 of 2."));
        assert_eq!(verdict(&[]), None);
    }

    #[test]
    fn a_size_is_a_row() {
        assert_eq!(SIZES.map(|(name, ..)| name), super::super::ROWS[..3]);
    }
}
