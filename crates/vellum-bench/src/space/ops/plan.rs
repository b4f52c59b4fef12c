//! Which rows are measured, and what they are shown beside.
//!
//! ```text
//!   ops                  each act, ns                             designs
//!   ops-instructions     each act, without clearing               designs, Linux, target
//!   pages                acts on 16 to 1,048,576 pages, ns        designs
//!   pages-instructions   16 to 65,536                             designs
//!   threads              one CPU, two CPUs                        designs
//! ```

use super::acts::{self, Act, FLAT, ROWS, Row};
use super::threads;
use crate::callgrind;
use crate::cli::Options;
use crate::clock::Stopwatch;
use crate::fault::designs::{Design, NAMES, Visit, with_design};
use crate::report::{self, rounded};
use crate::rounds::{Contender, Limits, contest};
use indicatif::ProgressBar;
use std::collections::BTreeMap;
use std::path::Path;

/// Pages of the flat rows; the last of them by time alone.
const SIZES: [u64; 5] = [16, 256, 4096, 65_536, 1 << 20];
/// Of a quick run.
const QUICK_SIZES: [u64; 2] = [16, 256];
/// Turns of the flat rows, which have gigabytes to fill.
const FLAT_ROUNDS: u32 = 3;

/// A row to be measured: its number among all, what it is called, and how much of it.
struct Item {
    number: usize,
    name: String,
    row: Row,
}

/// Figures by design, each with those of all items; a figure that there is not is no number.
type Figures = Vec<(&'static str, Vec<f64>)>;

/// What has come of it.
#[derive(Debug, Default)]
pub(in super::super) struct Outcome {
    pub(in super::super) rows: Vec<report::Row>,
    pub(in super::super) notes: Vec<String>,
}

/// Measures what was asked for.
pub(in super::super) fn run(options: &Options, limits: Limits, bar: &ProgressBar) -> Outcome {
    let mut outcome = Outcome::default();
    let sizes = if options.quick { &QUICK_SIZES[..] } else { &SIZES };
    let few = Limits { rounds: limits.rounds.min(FLAT_ROUNDS), ..limits };
    if options.wants("ops") {
        outcome.push("operations, time", "ns", &items(), &timed(items, limits, bar), false);
    }
    if options.wants("pages") {
        for &size in sizes {
            let flat = move || flat(size);
            outcome.push("a page of many, time", "ns", &flat(), &timed(flat, few, bar), false);
        }
    }
    if options.wants("threads") {
        outcome.threads(limits, bar);
    }
    let program = std::env::current_exe().ok().filter(|_| callgrind::available());
    let wants_counts = options.wants("ops-instructions") || options.wants("pages-instructions");
    let Some(program) = program.filter(|_| wants_counts) else {
        if wants_counts {
            outcome.notes.push("Operations were not counted: there is no valgrind.".to_owned());
        }
        return outcome;
    };
    let designs = if options.quick { &NAMES[..1] } else { &NAMES };
    if options.wants("ops-instructions") {
        let figures = outcome.counted(&items(), designs, &program, bar);
        outcome.push("operations, instructions", "instr.", &items(), &figures, true);
    }
    if options.wants("pages-instructions") {
        for &size in sizes.iter().filter(|&&size| size < 1 << 20) {
            let figures = outcome.counted(&flat(size), designs, &program, bar);
            outcome.push("a page of many, instructions", "instr.", &flat(size), &figures, false);
        }
    }
    outcome
}

/// The rows that are set beside Linux.
fn items() -> Vec<Item> {
    let item = |(number, row): (usize, Row)| Item { number, name: row.name.to_owned(), row };
    ROWS.into_iter().enumerate().map(item).collect()
}

/// The flat rows, for so many pages.
fn flat(size: u64) -> Vec<Item> {
    let item = |(number, row): (usize, Row)| Item {
        number: ROWS.len() + number,
        name: format!("{}, {size}", row.name),
        row: Row { count: size, per: size, ..row },
    };
    FLAT.into_iter().enumerate().map(item).collect()
}

/// The least figures of each design's turns.
fn timed(
    items: impl Fn() -> Vec<Item> + Copy + 'static,
    limits: Limits,
    bar: &ProgressBar,
) -> Figures {
    struct Turn(Vec<Item>, Vec<f64>);
    impl Visit for Turn {
        fn visit<D: Design>(&mut self) {
            for Item { row, .. } in &self.0 {
                let mut nanos = 0.0;
                let done = acts::run::<D>(row.act, row.count, &mut |act| {
                    let watch = Stopwatch::start();
                    act();
                    nanos = watch.nanos();
                });
                self.1.push(if done { nanos / row.per as f64 } else { f64::NAN });
            }
        }
    }
    contested(limits, bar, move |name| {
        let mut turn = Turn(items(), Vec::new());
        with_design(name, &mut turn);
        turn.1
    })
}

fn contested(
    limits: Limits,
    bar: &ProgressBar,
    turn: impl Fn(&str) -> Vec<f64> + Copy + 'static,
) -> Figures {
    let mut contenders = NAMES.map(|name| Contender::new(name, move || turn(name)));
    contest(&mut contenders, limits, |round, name| {
        bar.set_message(format!("{name}, round {round}"));
        bar.tick();
    });
    contenders.iter().map(|c| (c.name, c.best().to_vec())).collect()
}

impl Outcome {
    /// One CPU beside two.
    fn threads(&mut self, limits: Limits, bar: &ProgressBar) {
        struct Both(Vec<f64>);
        impl Visit for Both {
            fn visit<D: Design>(&mut self) {
                let each = |cpus| threads::passed::<D>(cpus) / threads::PAGES as f64;
                self.0 = [1, 2].map(each).to_vec();
            }
        }
        let figures = contested(limits, bar, |name| {
            let mut both = Both(Vec::new());
            with_design(name, &mut both);
            both.0
        });
        let item = |name: &str| Item { number: 0, name: name.to_owned(), row: ROWS[0] };
        let items = ["one CPU, anonymous write", "two CPUs, a page of both"].map(item);
        self.push("faults in one space, time passed", "ns", &items, &figures, false);
        let times = figures.iter().filter_map(|(name, figures)| match figures[..] {
            [one, two] => Some(format!("{name} {}", rounded(one / two))),
            _ => None,
        });
        let times = times.collect::<Vec<_>>().join(", ");
        self.notes.push(format!(
            "Two CPUs that fault in one space do so many times the work of one (target: 1.7): {times}."
        ));
    }

    /// Instructions of each item, for each design.
    fn counted(
        &mut self,
        items: &[Item],
        designs: &[&'static str],
        program: &Path,
        bar: &ProgressBar,
    ) -> Figures {
        let mut all = Figures::new();
        for &design in designs {
            let mut figures = Vec::new();
            for item in items {
                bar.set_message(format!("{design}, {}", item.name));
                bar.tick();
                let word = format!("op:{design}:{}:{}", item.number, item.row.count);
                let count = |acts| callgrind::collected(program, &word, acts);
                let figure = match count(0).and_then(|without| Ok((without, count(1)?))) {
                    // What ends with this status has done something else.
                    Ok((without, with)) if with > without => (with - without) as f64,
                    Ok(_) => f64::NAN,
                    Err(message) => {
                        self.notes.push(message);
                        f64::NAN
                    }
                };
                figures.push(figure / item.row.per as f64);
            }
            all.push((design, figures));
        }
        all
    }

    /// A row for each item; without clearing, beside Linux and the target, where `beside`.
    fn push(&mut self, section: &str, unit: &str, items: &[Item], figures: &Figures, beside: bool) {
        for (index, item) in items.iter().enumerate() {
            let cost = item.row.cost.filter(|_| beside);
            let figure = |(name, all): &(&'static str, Vec<f64>)| {
                let clearing = cost.map_or(0.0, |cost| cost.clears * all[0]);
                let figure = all.get(index)? - clearing;
                figure.is_finite().then(|| ((*name).to_owned(), rounded(figure)))
            };
            let mut peers: BTreeMap<_, _> = figures.iter().filter_map(figure).collect();
            let Some(ours) = peers.remove(NAMES[0]) else { continue };
            if let Some([linux, target]) = cost.map(super::linux::Cost::alone) {
                peers.insert("Linux 6.12".to_owned(), rounded(linux));
                peers.insert("target".to_owned(), rounded(target));
                if ours > target {
                    self.notes.push(format!(
                        "Over the target: {}, {ours} against {}.",
                        item.name,
                        rounded(target)
                    ));
                }
            }
            self.rows.push(report::Row {
                section: section.to_owned(),
                row: item.name.clone(),
                unit: unit.to_owned(),
                better: None,
                yardstick: Some(NAMES[0].to_owned()),
                ours,
                peers,
            });
        }
    }
}

/// Makes an act ready and, if `acts` is 1, does it; then the process ends, so that nothing else is
/// counted.
///
/// # Errors
///
/// The line to say when there is no such design, act, or number.
pub(in super::super) fn child(word: &str, acts: &str) -> Result<(), String> {
    struct Once(Act, u64, bool);
    impl Visit for Once {
        fn visit<D: Design>(&mut self) {
            let &mut Self(act, n, does) = self;
            let done = acts::run::<D>(act, n, &mut |act| {
                if does {
                    act();
                    // A large leaf that is none would be told behind this alone.
                    if !matches!(self.0, Act::Huge) {
                        std::process::exit(0);
                    }
                } else {
                    std::process::exit(0);
                }
            });
            std::process::exit(u8::from(!done).into());
        }
    }
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
    let unknown = || format!("`{word}` is no design, row and number");
    let [design, row, n] = *word.split(':').collect::<Vec<_>>() else { return Err(unknown()) };
    let row = acts::numbered(number(row)? as usize).ok_or_else(unknown)?;
    if !NAMES.contains(&design) {
        return Err(format!("no design is called `{design}`"));
    }
    let mut once = Once(row.act, number(n)?, number(acts)? != 0);
    with_design(design, &mut once);
    Ok(())
}
