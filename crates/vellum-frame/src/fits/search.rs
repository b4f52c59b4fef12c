//! The four ways to choose a hole.
//!
//! ```text
//!   wanted: 3      holes, ascending:   [  8  ] [ 2 ] [ 4 ] [    12    ] [ 3 ]
//!                                         ^            ^        ^         ^
//!   First  the lowest that fits         here           |        |         |
//!   Next   the same, from where the last search ended  here     |         |
//!   Worst  the largest                                         here       |
//!   Best   the smallest that fits                                        here
//! ```
//!
//! First and next fit stop at the first hole that fits, best fit at one that fits exactly; otherwise
//! every hole is looked at, which is what [`Effort`](super::Effort) counts. Of equal holes the lowest
//! is taken.
//!
//! O(holes). A tree of holes in which each node knows the largest below it (C. J. Stephenson, "Fast
//! fits", 1983) would make all but next fit O(log holes); the systems that paging replaced walked
//! lists, and what they paid is to be seen here.
//!
//! Source: D. E. Knuth, *The Art of Computer Programming*, vol. 1, 2.5.

use super::blocks::Blocks;

/// Which hole a partition is made in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fit {
    /// The lowest hole that is large enough.
    First,
    /// The next hole that is large enough, from the one on that the last partition was made in;
    /// behind the highest hole comes the lowest.
    Next,
    /// The smallest hole that is large enough.
    Best,
    /// The largest hole.
    Worst,
}

impl Fit {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::First, Self::Next, Self::Best, Self::Worst];

    /// What it is called, `first` for instance.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Next => "next",
            Self::Best => "best",
            Self::Worst => "worst",
        }
    }
}

/// How a search went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Search {
    /// The hole to use.
    pub(super) found: Option<u32>,
    /// Holes looked at.
    pub(super) examined: u64,
    /// The largest of those.
    pub(super) largest: u64,
}

impl Blocks<'_> {
    /// Looks for a hole of `wanted` bytes at least. A search that finds none has looked at all.
    pub(super) fn search(&self, fit: Fit, wanted: u64) -> Search {
        let mut search = Search::default();
        let mut best = None;
        let rover = match fit {
            Fit::Next => self.get(self.rover).map(|_| self.rover),
            _ => None,
        };
        let start = rover.unwrap_or(self.first_hole);
        let wrapped = self.holes_from(self.first_hole).take_while(|&(slot, _)| slot != start);
        for (slot, hole) in self.holes_from(start).chain(wrapped) {
            search.examined += 1;
            search.largest = search.largest.max(hole.len);
            if hole.len < wanted {
                continue;
            }
            let better = match (fit, best) {
                (_, None) => true,
                (Fit::Worst, Some(len)) => hole.len > len,
                (_, Some(len)) => hole.len < len,
            };
            if better {
                best = Some(hole.len);
                search.found = Some(slot);
            }
            let done = match fit {
                Fit::First | Fit::Next => true,
                Fit::Best => hole.len == wanted,
                Fit::Worst => false,
            };
            if done {
                break;
            }
        }
        search
    }
}
