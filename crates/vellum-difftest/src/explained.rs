//! Differences that are known, by name, each with its reason: a sequence is compared up to the first of
//! them, and no further. docs/posix.md has the same list.

use crate::compare::{Difference, Moment};
use crate::trace::{Outcome, Trace};

/// A difference that is known.
#[derive(Clone, Copy, Debug)]
pub struct Explained {
    /// What it is called.
    pub name: &'static str,
    /// Why it is there, and stays.
    pub reason: &'static str,
    /// Whether this is it, of a run whose first subject shows this.
    pub applies: fn(&Trace, &Difference) -> bool,
}

/// All of them.
pub const EXPLAINED: &[Explained] = &[Explained {
    name: "cut by a refused mmap",
    reason: "Linux cuts regions at the borders of a fixed mapping before it asks for limits and \
             seals, and leaves them cut when it then refuses; ours cuts nothing until all is \
             granted. Only --strict sees where regions are cut.",
    applies: |left, difference| {
        let Moment::Op(index) = difference.moment else { return false };
        let outcome = left.steps.get(index).map(|step| &step.outcome);
        difference.only_cuts && matches!(outcome, Some(Outcome::Fails(_)))
    },
}];
