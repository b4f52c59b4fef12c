//! Differences that are known, by name, each with its reason: a sequence is compared up to the first of
//! them, and no further. docs/posix.md has the same list.

use crate::compare::Difference;
use crate::trace::Trace;

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

/// All of them: none, since regions are cut where Linux cuts them for a call that it then refuses.
pub const EXPLAINED: &[Explained] = &[];
