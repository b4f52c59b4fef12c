//! The parts of a comparison that replay no trace, or replay it otherwise than from end to end.
//!
//! ```text
//!   ops        what one call costs: map, fault, unmap, protect, 1,000 pages, fork, exit
//!   sparsity   bytes a page, at five densities of mapped pages
//!   resize     filling and emptying a table page by page: the worst single call
//!   switches   the traces as processes, several quanta, with and without identifiers
//!   forks      a program that forks again and again: sharing and copy-on-write
//!   huge       the traces with 2 MiB leaves, by several policies
//!   tlb        the traces with second-level TLBs of several sizes
//! ```
//!
//! Fields are described in docs/report.md.

pub mod forks;
pub mod huge;
pub mod ops;
pub mod resize;
pub mod sparsity;
pub mod switches;
pub mod tlb;

use core::fmt;
use core::str::FromStr;

/// A part of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Every trace through every design.
    Runs,
    /// See [`ops`].
    Ops,
    /// See [`sparsity`].
    Sparsity,
    /// See [`resize`].
    Resize,
    /// See [`switches`].
    Switches,
    /// See [`huge`].
    Huge,
    /// See [`forks`].
    Forks,
    /// See [`tlb`].
    Tlb,
}

impl Part {
    /// Every part, in the order of the report.
    pub const ALL: [Self; 8] = [
        Self::Runs,
        Self::Ops,
        Self::Sparsity,
        Self::Resize,
        Self::Switches,
        Self::Huge,
        Self::Forks,
        Self::Tlb,
    ];

    /// What it is asked for by, and the report's field.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runs => "runs",
            Self::Ops => "ops",
            Self::Sparsity => "sparsity",
            Self::Resize => "resize",
            Self::Switches => "switches",
            Self::Huge => "huge",
            Self::Forks => "forks",
            Self::Tlb => "tlb",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|part| part.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("no such part; choose from {names}")
        })
    }
}
