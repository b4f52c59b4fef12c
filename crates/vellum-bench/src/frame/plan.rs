//! Which rows are measured, how much of each, and in which order.
//!
//! ```text
//!            frames      rounds   each turn, about
//!   usual    4 GiB       25       5 ms            slow peers sit out once they had their seconds
//!   quick    256 MiB     2        0.1 ms          (flat: 4 GiB only; one allocator's instructions)
//! ```

use super::allocator::{self, Allocator, Shared, Side, Size, Visit, VisitShared};
use super::fragmentation::{self, OCCUPANCIES, Outcome};
use super::rows::{Amounts, Label, Mixed, Single};
use super::tables::{self, Column};
use super::{instructions, scale, stream, threads};
use crate::callgrind;
use crate::cli::Options;
use crate::report::{Better, Report};
use crate::rounds::{Contender, Limits, contest};
use core::time::Duration;
use indicatif::ProgressBar;
use std::rc::Rc;

/// The rounds of each row, unless one says otherwise.
const ROUNDS: u32 = 25;

/// The last word of a quick run.
const QUICK: &str =
    "This was a quick run (--quick): no figure and no verdict in it means anything.";

/// Seeds of (f).
const SEEDS: u64 = 3;

/// What is to be done, and what has come of it.
pub(super) struct Plan<'a> {
    options: &'a Options,
    bar: &'a ProgressBar,
    limits: Limits,
    amounts: Amounts,
    /// Requests of a stream with uniform orders.
    requests: usize,
    columns: Vec<Column>,
    notes: Vec<String>,
}

/// Contenders of one row, with their sides.
type Entrants = Vec<(Side, Contender)>;

impl<'a> Plan<'a> {
    pub(super) fn new(options: &'a Options, bar: &'a ProgressBar) -> Self {
        let quick = options.quick;
        let rounds = options.rounds.unwrap_or(if quick { 2 } else { ROUNDS });
        let each = Duration::from_millis(if quick { 50 } else { 2000 });
        let frames = if quick { 1 << 16 } else { Size::Gib4.frames() };
        let requests = if quick { 2000 } else { 200_000 };
        let streams = Mixed::ALL.map(|kind| {
            let (mix, requests) = kind.stream(requests);
            Rc::new(stream::between_half_and_nine_tenths(frames, requests, mix))
        });
        let amounts = Amounts {
            frames,
            pairs: if quick { 2000 } else { 400_000 },
            batches: if quick { 10 } else { 500 },
            streams,
        };
        let limits = Limits { rounds, each };
        Self { options, bar, limits, amounts, requests, columns: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn run(&mut self) {
        for single in Single::ALL {
            let row = single.labels()[0].row;
            if self.options.wants(row) {
                self.single(single);
                if single == Single::Batch {
                    self.two_threads();
                }
            }
            if single == Single::Pair && self.options.wants("instructions") {
                self.instructions();
            }
        }
        if self.options.wants("f") {
            self.fragmentation();
        }
        if self.options.wants("flat") {
            self.flat();
        }
        if self.options.wants("init") {
            self.init();
        }
        if self.options.wants("meta") {
            self.metadata();
        }
    }

    pub(super) fn into_report(mut self) -> Report {
        if self.options.quick {
            self.notes.push(QUICK.to_owned());
        }
        Report { rows: tables::rows(&self.columns), notes: self.notes, ..Report::new() }
    }

    fn single(&mut self, single: Single) {
        struct Collect<'a>(Single, &'a Amounts, Entrants);
        impl Visit for Collect<'_> {
            fn visit<A: Allocator>(&mut self) {
                if !A::TOO_SLOW_FOR.contains(&self.0.labels()[0].title) {
                    self.2.push((A::SIDE, self.0.contender::<A>(self.1)));
                }
            }
        }
        let mut collect = Collect(single, &self.amounts, Vec::new());
        allocator::all(&mut collect);
        let entrants = collect.2;
        self.compete(single.labels(), entrants);
    }

    fn two_threads(&mut self) {
        struct Collect(u64, usize, Entrants);
        impl VisitShared for Collect {
            fn visit<A: Shared>(&mut self) {
                self.2.push((A::SIDE, threads::contender::<A>(self.0, self.1)));
            }
        }
        let mut collect = Collect(self.amounts.frames, self.amounts.batches, Vec::new());
        allocator::shared(&mut collect);
        let label = Label { row: "e", title: "e: 2 threads", unit: "ns/pair" };
        self.compete(&[label], collect.2);
    }

    fn flat(&mut self) {
        struct Collect(Size, Rc<stream::Stream>, usize, Entrants);
        impl Visit for Collect {
            fn visit<A: Allocator>(&mut self) {
                if !A::TOO_SLOW_FOR.contains(&"flat") {
                    self.3.push((A::SIDE, scale::flat::<A>(self.0, &self.1, self.2)));
                }
            }
        }
        let sizes = [
            (Size::Gib4, ["pair, 4 GiB", "mixed, 4 GiB"]),
            (Size::Gib64, ["pair, 64 GiB", "mixed, 64 GiB"]),
            (Size::Tib1, ["pair, 1 TiB", "mixed, 1 TiB"]),
        ];
        let requests = self.requests;
        let from = self.columns.len();
        for (size, titles) in &sizes[..if self.options.quick { 1 } else { 3 }] {
            let stream = Rc::new(stream::at_seven_tenths(size.frames(), requests, 0xf));
            let mut collect = Collect(*size, stream, self.amounts.pairs, Vec::new());
            allocator::designs(*size, &mut collect);
            let labels = [("ns/pair", titles[0]), ("ns/op", titles[1])];
            let labels = labels.map(|(unit, title)| Label { row: "flat", title, unit });
            self.compete(&labels, collect.3);
        }
        // Side by side: the pairs of all sizes, then the mixed requests of all sizes.
        self.columns[from..].sort_by_key(|column| column.label.unit == "ns/op");
    }

    fn init(&mut self) {
        struct Collect(Size, Entrants);
        impl Visit for Collect {
            fn visit<A: Allocator>(&mut self) {
                self.1.push((A::SIDE, scale::init::<A>(self.0)));
            }
        }
        let size = if self.options.quick { Size::Gib4 } else { Size::Tib1 };
        let mut collect = Collect(size, Vec::new());
        allocator::designs(size, &mut collect);
        let title = if self.options.quick { "init 4 GiB" } else { "init 1 TiB" };
        self.compete(&[Label { row: "init", title, unit: "ms" }], collect.1);
    }

    /// Has contenders take turns, and keeps their figures as one column for each label.
    fn compete(&mut self, labels: &[Label], entrants: Entrants) {
        let (sides, mut contenders): (Vec<_>, Vec<_>) = entrants.into_iter().unzip();
        let Limits { rounds, .. } = self.limits;
        self.bar.set_length(rounds.into());
        self.bar.set_prefix(labels[0].title);
        contest(&mut contenders, self.limits, |round, name| {
            self.bar.set_position(round.into());
            self.bar.set_message(name.to_owned());
            self.bar.tick();
        });
        for (index, &label) in labels.iter().enumerate() {
            let figures = sides
                .iter()
                .zip(&contenders)
                .map(|(&side, c)| (side, c.name, c.best().get(index).copied().unwrap_or(f64::NAN)))
                .collect();
            self.columns.push(Column { label, better: None, figures });
        }
    }

    fn instructions(&mut self) {
        struct Names(Vec<(Side, &'static str)>);
        impl Visit for Names {
            fn visit<A: Allocator>(&mut self) {
                self.0.push((A::SIDE, A::NAME));
            }
        }
        let program = match std::env::current_exe() {
            Ok(program) if callgrind::available() => program,
            _ => {
                self.notes.push("Instructions were not counted: there is no valgrind.".to_owned());
                return;
            }
        };
        let mut names = Names(Vec::new());
        allocator::all(&mut names);
        if self.options.quick {
            names.0.truncate(1);
        }
        self.bar.set_length(names.0.len() as u64);
        self.bar.set_prefix("instructions");
        let mut figures = Vec::new();
        for (index, (side, name)) in names.0.into_iter().enumerate() {
            self.bar.set_position(index as u64);
            self.bar.set_message(name);
            match instructions::per_pair(&program, name) {
                Ok(count) => figures.push((side, name, count)),
                Err(message) => self.notes.push(message),
            }
        }
        let label = Label { row: "instructions", title: "a: instr.", unit: "each pair" };
        self.columns.push(Column { label, better: None, figures });
    }

    fn fragmentation(&mut self) {
        struct Lead<'a>(u64, &'a [fragmentation::Life], Vec<(Side, &'static str, Outcome)>);
        impl Visit for Lead<'_> {
            fn visit<A: Allocator>(&mut self) {
                if A::TOO_SLOW_FOR.contains(&"f") {
                    return;
                }
                // Slow ones take seconds: not twice.
                let like = self.2.iter().find(|(_, name, _)| *name == A::PLACES_LIKE);
                if let Some(&(_, _, outcome)) = like {
                    self.2.push((A::SIDE, A::NAME, outcome));
                    return;
                }
                let mut sum = Outcome::default();
                for life in self.1 {
                    let one = fragmentation::outcome::<A>(self.0, life);
                    sum.had += one.had;
                    sum.possible += one.possible;
                    sum.ideal += one.ideal;
                    sum.failed += one.failed;
                }
                self.2.push((A::SIDE, A::NAME, sum));
            }
        }
        let frames = self.amounts.frames;
        let titles = ["f: 60% used", "f: 80% used", "f: 95% used"];
        self.bar.set_length(titles.len() as u64);
        // Over all occupancies: requests refused on the way, and whole blocks not had at the end.
        let mut refused: Vec<(Side, &'static str, f64)> = Vec::new();
        let mut missed = Vec::new();
        for (index, (percent, title)) in OCCUPANCIES.into_iter().zip(titles).enumerate() {
            self.bar.set_position(index as u64);
            self.bar.set_prefix(title);
            let seeds = if self.options.quick { 1 } else { SEEDS };
            let lives: Vec<_> =
                (1..=seeds).map(|seed| fragmentation::life(frames, percent, seed)).collect();
            let mut lead = Lead(frames, &lives, Vec::new());
            allocator::all(&mut lead);
            let share = |o: Outcome| o.had as f64 * 100.0 / o.ideal as f64;
            let figures = lead.2.iter().map(|&(side, name, o)| (side, name, share(o))).collect();
            let label = Label { row: "f", title, unit: "% had" };
            self.columns.push(Column { label, better: Some(Better::Higher), figures });
            if index == 0 {
                refused = lead.2.iter().map(|&(side, name, _)| (side, name, 0.0)).collect();
                missed.clone_from(&refused);
            }
            for (at, (_, _, outcome)) in lead.2.iter().enumerate() {
                refused[at].2 += outcome.failed as f64;
                missed[at].2 += (outcome.possible - outcome.had) as f64;
            }
        }
        let sums = [("f: refused", "requests", refused), ("f: missed", "blocks", missed)];
        for (title, unit, figures) in sums {
            let label = Label { row: "f", title, unit };
            self.columns.push(Column { label, better: None, figures });
        }
    }

    fn metadata(&mut self) {
        struct Bits(u64, Vec<(Side, &'static str, f64)>);
        impl Visit for Bits {
            fn visit<A: Allocator>(&mut self) {
                self.1.push((A::SIDE, A::NAME, A::bits_per_frame(self.0)));
            }
        }
        let mut small = Bits(Size::Gib4.frames(), Vec::new());
        allocator::all(&mut small);
        let mut large = Bits(Size::Tib1.frames(), Vec::new());
        allocator::designs(Size::Tib1, &mut large);
        for (title, bits) in [("metadata, 4 GiB", small), ("metadata, 1 TiB", large)] {
            let label = Label { row: "meta", title, unit: "bits/frame" };
            self.columns.push(Column { label, better: None, figures: bits.1 });
        }
    }
}
