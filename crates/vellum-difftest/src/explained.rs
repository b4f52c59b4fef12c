//! Differences that are known, by name, each with its reason: they are counted, not reported.
//!
//! docs/posix.md has the same list, in words for users.

use crate::compare::Difference;
use crate::op::Sequence;

/// A difference that is known.
#[derive(Clone, Copy, Debug)]
pub struct Explained {
    /// What it is called.
    pub name: &'static str,
    /// Why it is there, and stays.
    pub reason: &'static str,
    /// Whether this is it.
    pub applies: fn(&Sequence, &Difference) -> bool,
}

/// All of them.
pub const EXPLAINED: &[Explained] = &[];
