//! No flush is missing, and if one were, it would be seen.
//!
//! ```text
//!   random operations ------> table --> Watch --> Checker     nothing is missed
//!   a fixed sequence  ------> table --> Watch --> Checker     notes n obligations
//!     again, with the first spoilt, the second, ...           each is missed, or did no harm
//! ```
//!
//! There are two spaces, and two gathers open for each; operations take turns with them, so that
//! what one holds is unflushed while others flush.

mod script;
mod stage;

use super::{Design, config, on};
use crate::checker::{Call, Checker, Harmless, Missed, Noted, Sabotage};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use stage::{Space, Stage, Step};
use std::collections::BTreeMap;
use vellum_core::PageTable;

/// Random sequences leave nothing cached that is wrong and not owed a flush, deliver no frame and
/// free no node that a CPU may still use, and retiring a space leaves nothing at all.
pub fn no_flush_is_missed<D: Design>() {
    let length = if cfg!(miri) { 1..6 } else { 1..40 };
    let steps = prop::collection::vec(stage::steps(), length);
    TestRunner::new(config(64))
        .run(&steps, |steps| {
            let ran = run::<D>(&steps, None);
            ran.ended.map_err(|missed| TestCaseError::fail(missed.to_string()))
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

/// Each obligation of a sequence that makes every kind of change, spoilt in every way: the checker
/// sees it, or what can be cached shows that it makes no difference.
pub fn every_spoilt_flush_is_noticed<D: Design>() {
    let steps = script::steps();
    let whole = run::<D>(&steps, None);
    assert_eq!(whole.ended, Ok(()), "nothing is spoilt yet");
    let base = <D::Table<'_> as PageTable>::LEAVES.trailing_zeros() as u8;
    let mut tally: BTreeMap<(Call, Sabotage), Tally> = BTreeMap::new();
    let stride = if cfg!(miri) { 97 } else { 1 };
    for (mutant, noted) in mutants(&whole.noted, base).into_iter().step_by(stride) {
        let ran = run::<D>(&steps, Some(mutant));
        let tally = tally.entry((noted.call, mutant.sabotage)).or_default();
        match (ran.ended, ran.harmless) {
            (Err(_), _) => tally.noticed += 1,
            (Ok(()), Some(why)) => *tally.harmless.entry(why).or_default() += 1,
            (Ok(()), None) => panic!("{mutant:?} of {noted:?} is unnoticed"),
        }
    }
    let noticed = |of: &dyn Fn(Call, Sabotage) -> bool| -> usize {
        let of = tally.iter().filter(|&(&(call, sabotage), _)| of(call, sabotage));
        of.map(|(_, tally)| tally.noticed).sum()
    };
    let shows = |what: &dyn Fn(Call, Sabotage) -> bool| noticed(what) > 0 || cfg!(miri);
    for &(call, sabotage) in tally.keys() {
        assert!(shows(&|c, s| c == call && s == Sabotage::Drop), "no {call:?} at all: {tally:?}");
        // A design that gives away single pages owes nothing that could be a page too short.
        let applies = tally.contains_key(&(Call::Leaf, sabotage));
        assert!(!applies || shows(&|_, s| s == sabotage), "{sabotage:?} of none: {tally:?}");
    }
    if whole.has_links {
        let tables = |c, s| c == Call::Detach && s == Sabotage::NarrowerScope;
        assert!(shows(&tables), "links are not flushed: {tally:?}");
    }
}

/// What became of the mutants of one kind.
#[derive(Debug, Default)]
struct Tally {
    noticed: usize,
    harmless: BTreeMap<Harmless, usize>,
}

/// A sequence in which one obligation is spoilt: the `nth` of one of the spaces.
#[derive(Clone, Copy, Debug)]
struct Mutant {
    space: usize,
    nth: usize,
    sabotage: Sabotage,
}

fn mutants(noted: &[Vec<Noted>; 2], base: u8) -> Vec<(Mutant, Noted)> {
    let mut mutants = Vec::new();
    for (space, noted) in noted.iter().enumerate() {
        for (nth, &noted) in noted.iter().enumerate() {
            for sabotage in Sabotage::ALL {
                if sabotage.spoil(noted.flush, base).is_some() {
                    mutants.push((Mutant { space, nth, sabotage }, noted));
                }
            }
        }
    }
    mutants
}

/// What a sequence led to.
struct Ran {
    ended: Result<(), Missed>,
    noted: [Vec<Noted>; 2],
    harmless: Option<Harmless>,
    /// The design has interior entries that a CPU could cache.
    has_links: bool,
}

/// Makes two spaces, takes the steps, and retires them.
fn run<D: Design>(steps: &[Step], mutant: Option<Mutant>) -> Ran {
    let noted = [const { Vec::new() }; 2];
    let mut ran = Ran { ended: Ok(()), noted, harmless: None, has_links: false };
    on::<D>(|arena, shared| {
        let tables = [1, 2].map(|n| D::table(shared, n).expect("an empty arena has room"));
        let stage = Stage::new::<D>(&tables[0], arena);
        let make = |space: usize| {
            let table = &tables[space];
            let checker = Checker::new(table, arena, stage.points())
                .with_hardware(D::hardware(shared, table))
                .with_absence(D::absence)
                .with_breaks(D::breaks());
            match mutant {
                Some(m) if m.space == space => checker.with_sabotage(m.nth, m.sabotage),
                _ => checker,
            }
        };
        let checkers = [make(0), make(1)];
        ran.has_links = checkers[0].has_links();
        let [first, second] = tables;
        let mut spaces = [Space::new(first, &checkers[0]), Space::new(second, &checkers[1])];
        for step in steps {
            stage.take(step, &mut spaces);
            ran.ended = spaces.iter().try_for_each(Space::check);
            if ran.ended.is_err() {
                break;
            }
        }
        for space in spaces {
            ran.ended = ran.ended.and(space.retire());
        }
        ran.noted = checkers.each_ref().map(|checker| checker.noted().to_vec());
        ran.harmless = checkers.iter().find_map(Checker::harmless);
    });
    ran
}
