//! The nodes of the tree, and what is done within one of them.
//!
//! ```text
//!            0      1      2             15
//!   Inner  | end  | end  | end  | ... | max  |      of the last region below each child
//!          | start| start| start| ... |      |      of the first one
//!          | gap  | gap  | gap  | ... |      |      largest between two regions below the child
//!          | child| child| child| ... |      |
//!
//!   Leaf   | end  | end  | end  | ... | max  |      of each region
//!          | start| start| start| ... |      |
//!          | value| value| value| ... |      |
//!          |   0  | class| class| ... |      |      of the gap before each region, a byte (`gaps`)
//! ```
//!
//! A search reads `end` alone: places that are not in use hold the largest number there, so that it
//! can be halved four times without a look at how many are in use, and without a branch that the
//! processor would have to guess. Everything that is said of a child is said of its regions alone, and
//! not of what lies between it and its neighbours, so no change reaches beyond the way to the root.
//!
//! Places are taken modulo [`WIDTH`], which costs less than to show that they are below it.
//!
//! # Invariants
//!
//! - The first `len` places are in use, in ascending order, and do not overlap.
//! - `end` of the others is [`UNUSED`].

mod gaps;
mod inner;
mod leaf;

pub(super) use inner::{Hint, Inner};
pub(super) use leaf::Leaf;

/// Places of a node.
pub(super) const WIDTH: usize = 16;
/// A node that has fewer, and a neighbour, takes some of it or becomes one with it.
pub(super) const LEAST: usize = 6;
const UNUSED: u64 = u64::MAX;
const MASK: usize = WIDTH - 1;

/// What a node says of all regions below it, in page numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) start: u64,
    pub(super) end: u64,
    /// The largest gap between two of them.
    pub(super) gap: u64,
}

impl Summary {
    /// Of nothing.
    pub(super) const EMPTY: Self = Self { start: 0, end: 0, gap: 0 };
}

/// What both kinds of node can do.
pub(super) trait Node: Copy {
    /// Places in use.
    fn len(&self) -> usize;
    /// What it says of itself, when it is known that no gap is larger than `most`.
    fn summary_below(&self, most: u64) -> Summary;
    /// Takes `count` places out from `at` on.
    fn remove(&mut self, at: usize, count: usize);
    /// Gives `count` places from its end to the front of `right`.
    fn give_right(&mut self, right: &mut Self, count: usize);
    /// Takes `count` places from the front of `right` to its end.
    fn take_right(&mut self, right: &mut Self, count: usize);

    /// What it says of itself.
    fn summary(&self) -> Summary {
        self.summary_below(u64::MAX)
    }

    /// Splits itself: keeps the first `keep`, and returns one that has the others.
    fn split(&mut self, keep: usize) -> Self {
        let mut right = *self;
        right.remove(0, keep);
        let len = self.len();
        self.remove(keep, len - keep);
        right
    }
}

/// Where a gap is looked for, in page numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) low: u64,
    pub(super) high: u64,
    pub(super) pages: u64,
}

impl Window {
    /// Whether what lies between two regions has as many pages within the window.
    #[inline(always)]
    fn fits(self, end: u64, start: u64) -> bool {
        start.min(self.high).saturating_sub(end.max(self.low)) >= self.pages
    }
}

/// How many of the first 15 are not above `page`.
#[inline(always)]
fn rank(end: &[u64; WIDTH], page: u64) -> usize {
    let mut at = 0;
    let mut step = WIDTH / 2;
    while step > 0 {
        at += step * usize::from(end[(at + step - 1) & MASK] <= page);
        step /= 2;
    }
    at
}

/// Copies `count` items: those of `from` from `at` on to `to` on in `into`.
fn transfer<T: Copy>(from: &[T; WIDTH], at: usize, into: &mut [T; WIDTH], to: usize, count: usize) {
    if let (Some(from), Some(into)) = (from.get(at..at + count), into.get_mut(to..to + count)) {
        into.copy_from_slice(from);
    }
}

/// Moves all items of `items` up by `count`; the last ones fall out.
fn raise<T: Copy>(items: &mut [T; WIDTH], count: usize) {
    items.copy_within(..WIDTH - count.min(WIDTH), count.min(WIDTH));
}
