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
//! ```
//!
//! A search reads `end` alone: places that are not in use hold the largest number there, so that it
//! can be halved four times without a look at how many are in use, and without a branch that the
//! processor would have to guess. Everything that is said of a child is said of its regions alone, and
//! not of what lies between it and its neighbours, so no change reaches beyond the way to the root.
//!
//! # Invariants
//!
//! - The first `len` places are in use, in ascending order, and do not overlap.
//! - `end` of the others is [`UNUSED`].

use super::range::PageRange;

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

/// Regions, with their values.
#[derive(Clone, Copy)]
pub(super) struct Leaf<V> {
    end: [u64; WIDTH],
    start: [u64; WIDTH],
    value: [V; WIDTH],
    len: u32,
}

/// Children, with what they say of themselves.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    end: [u64; WIDTH],
    start: [u64; WIDTH],
    gap: [u64; WIDTH],
    child: [u32; WIDTH],
    len: u32,
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

/// Makes room at `at` for `item`, of `len` that are in use.
fn open<T: Copy>(items: &mut [T; WIDTH], at: usize, len: usize, item: T) {
    if let Some(part) = items.get_mut(at..=len) {
        part.copy_within(..part.len() - 1, 1);
    }
    if let Some(place) = items.get_mut(at) {
        *place = item;
    }
}

/// Closes up over the `count` from `at` on.
fn close<T: Copy>(items: &mut [T; WIDTH], at: usize, count: usize, len: usize) {
    if let Some(part) = items.get_mut(at..len).filter(|part| count <= part.len()) {
        part.copy_within(count.., 0);
    }
}

/// Moves `count` items: those of `from` from `at` on to `to` on in `into`.
fn transfer<T: Copy>(from: &[T; WIDTH], at: usize, into: &mut [T; WIDTH], to: usize, count: usize) {
    if let (Some(from), Some(into)) = (from.get(at..at + count), into.get_mut(to..to + count)) {
        into.copy_from_slice(from);
    }
}

/// What both kinds of node can do; a macro would be shorter and harder to read.
pub(super) trait Node: Copy {
    /// Places in use.
    fn len(&self) -> usize;
    /// What it says of itself.
    fn summary(&self) -> Summary;
    /// Takes `count` places out from `at` on.
    fn remove(&mut self, at: usize, count: usize);
    /// Gives `count` places from its end to the front of `right`.
    fn give_right(&mut self, right: &mut Self, count: usize);
    /// Takes `count` places from the front of `right` to its end.
    fn take_right(&mut self, right: &mut Self, count: usize);

    /// Splits itself: keeps the first `keep`, and returns one that has the others.
    fn split(&mut self, keep: usize) -> Self {
        let mut right = *self;
        right.remove(0, keep);
        let len = self.len();
        self.remove(keep, len - keep);
        right
    }
}

impl<V: Copy> Leaf<V> {
    /// One with one region.
    pub(super) fn new(range: PageRange, value: V) -> Self {
        let mut leaf =
            Self { end: [UNUSED; WIDTH], start: [0; WIDTH], value: [value; WIDTH], len: 0 };
        leaf.insert(0, range, value);
        leaf
    }

    /// The first place whose region ends after `page`, which one must.
    #[inline(always)]
    pub(super) fn find(&self, page: u64) -> usize {
        rank(&self.end, page)
    }

    /// The first place whose region ends after `page`, or [`len`](Node::len).
    #[inline(always)]
    pub(super) fn position(&self, page: u64) -> usize {
        let at = rank(&self.end, page);
        at + usize::from(at == WIDTH - 1 && self.end[WIDTH - 1] <= page)
    }

    /// The region at a place that is in use.
    #[inline(always)]
    pub(super) fn at(&self, at: usize) -> (PageRange, V) {
        let at = at & MASK;
        (PageRange::raw(self.start[at], self.end[at]), self.value[at])
    }

    /// The region at this place, if it is in use.
    #[inline(always)]
    pub(super) fn get(&self, at: usize) -> Option<(PageRange, V)> {
        (at < self.len()).then(|| self.at(at))
    }

    pub(super) fn value_mut(&mut self, at: usize) -> &mut V {
        &mut self.value[at & MASK]
    }

    pub(super) fn set_range(&mut self, at: usize, range: PageRange) {
        self.start[at & MASK] = range.first_page();
        self.end[at & MASK] = range.end_page();
    }

    /// Puts a region at a place, before what is there; there is room.
    pub(super) fn insert(&mut self, at: usize, range: PageRange, value: V) {
        let len = self.len();
        open(&mut self.start, at, len, range.first_page());
        open(&mut self.end, at, len, range.end_page());
        open(&mut self.value, at, len, value);
        self.len += 1;
    }

    /// The first gap at a place `from` or above that has `pages` between `low` and `high`: the place
    /// above it, and the gap.
    pub(super) fn gap_above(&self, from: usize, q: Window) -> Option<(usize, u64, u64)> {
        let len = self.len();
        for at in from.max(1)..len {
            let (start, end) = (self.start[at & MASK], self.end[(at - 1) & MASK]);
            if q.fits(end, start) {
                return Some((at, end, start));
            }
            if start >= q.high {
                return None;
            }
        }
        None
    }

    /// The last such gap at a place `from` or below.
    pub(super) fn gap_below(&self, from: usize, q: Window) -> Option<(usize, u64, u64)> {
        for at in (1..=from.min(self.len().saturating_sub(1))).rev() {
            let (start, end) = (self.start[at & MASK], self.end[(at - 1) & MASK]);
            if q.fits(end, start) {
                return Some((at, end, start));
            }
            if end <= q.low {
                return None;
            }
        }
        None
    }
}

impl<V: Copy> Node for Leaf<V> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len as usize
    }

    fn summary(&self) -> Summary {
        let Some(last) = self.len().checked_sub(1) else { return Summary::EMPTY };
        let mut gap = 0;
        for at in 1..=last.min(MASK) {
            gap = gap.max(self.start[at & MASK] - self.end[(at - 1) & MASK]);
        }
        Summary { start: self.start[0], end: self.end[last & MASK], gap }
    }

    fn remove(&mut self, at: usize, count: usize) {
        let len = self.len();
        close(&mut self.start, at, count, len);
        close(&mut self.end, at, count, len);
        close(&mut self.value, at, count, len);
        self.shorten(len - count);
    }

    fn give_right(&mut self, right: &mut Self, count: usize) {
        let (len, others) = (self.len(), right.len());
        right.start.copy_within(..others, count);
        right.end.copy_within(..others, count);
        right.value.copy_within(..others, count);
        transfer(&self.start, len - count, &mut right.start, 0, count);
        transfer(&self.end, len - count, &mut right.end, 0, count);
        transfer(&self.value, len - count, &mut right.value, 0, count);
        right.len += count as u32;
        self.shorten(len - count);
    }

    fn take_right(&mut self, right: &mut Self, count: usize) {
        let len = self.len();
        transfer(&right.start, 0, &mut self.start, len, count);
        transfer(&right.end, 0, &mut self.end, len, count);
        transfer(&right.value, 0, &mut self.value, len, count);
        self.len += count as u32;
        right.remove(0, count);
    }
}

impl<V> Leaf<V> {
    #[cfg(test)]
    pub(super) fn is_padded(&self) -> bool {
        self.end.iter().skip(self.len as usize).all(|&end| end == UNUSED)
    }

    fn shorten(&mut self, len: usize) {
        if let Some(unused) = self.end.get_mut(len..self.len as usize) {
            unused.fill(UNUSED);
        }
        self.len = len as u32;
    }
}

impl Inner {
    /// One over these two.
    pub(super) fn new(first: (u32, Summary), second: (u32, Summary)) -> Self {
        let zeros = [0; WIDTH];
        let mut node =
            Self { end: [UNUSED; WIDTH], start: zeros, gap: zeros, child: [0; WIDTH], len: 0 };
        node.insert(0, first);
        node.insert(1, second);
        node
    }

    /// The first place whose regions do not all end at or before `page`, which one must.
    #[inline(always)]
    pub(super) fn find(&self, page: u64) -> usize {
        rank(&self.end, page)
    }

    /// The child at a place.
    #[inline(always)]
    pub(super) fn child(&self, at: usize) -> u32 {
        self.child[at & MASK]
    }

    /// What the child at a place says of itself.
    pub(super) fn of(&self, at: usize) -> Summary {
        let at = at & MASK;
        Summary { start: self.start[at], end: self.end[at], gap: self.gap[at] }
    }

    pub(super) fn set(&mut self, at: usize, summary: Summary) {
        let at = at & MASK;
        let Summary { start, end, gap } = summary;
        (self.start[at], self.end[at], self.gap[at]) = (start, end, gap);
    }

    /// Puts a child at a place, before what is there; there is room.
    pub(super) fn insert(&mut self, at: usize, (child, summary): (u32, Summary)) {
        let len = self.len();
        open(&mut self.start, at, len, summary.start);
        open(&mut self.end, at, len, summary.end);
        open(&mut self.gap, at, len, summary.gap);
        open(&mut self.child, at, len, child);
        self.len += 1;
    }

    /// The first place from `from` on where a gap of the window may be: before the child, or in it.
    pub(super) fn gap_above(&self, from: usize, q: Window) -> Option<Hint> {
        for at in from..self.len() {
            let hint = self.hint(at, q);
            if hint.is_some() {
                return hint;
            }
            if self.end[at & MASK] >= q.high {
                return None;
            }
        }
        None
    }

    /// The last place from `from` down where a gap of the window may be.
    pub(super) fn gap_below(&self, from: usize, q: Window) -> Option<Hint> {
        for at in (0..=from.min(self.len().saturating_sub(1))).rev() {
            let hint = self.hint(at, q);
            if hint.is_some() {
                return hint;
            }
            if self.start[at & MASK] <= q.low {
                return None;
            }
        }
        None
    }

    #[inline(always)]
    fn hint(&self, at: usize, q: Window) -> Option<Hint> {
        let place = at & MASK;
        let start = self.start[place];
        let before = if at == 0 { start } else { self.end[(at - 1) & MASK] };
        let between = q.fits(before, start).then_some((before, start));
        let inside = self.gap[place] >= q.pages && start < q.high && self.end[place] > q.low;
        (inside || between.is_some()).then_some(Hint { at, between, inside })
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

/// A child beside which, or below which, a gap may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hint {
    pub(super) at: usize,
    /// The gap before the child's first region.
    pub(super) between: Option<(u64, u64)>,
    pub(super) inside: bool,
}

impl Node for Inner {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len as usize
    }

    fn summary(&self) -> Summary {
        let Some(last) = self.len().checked_sub(1) else { return Summary::EMPTY };
        let mut gap = self.gap[0];
        for at in 1..=last.min(MASK) {
            let between = self.start[at & MASK] - self.end[(at - 1) & MASK];
            gap = gap.max(between).max(self.gap[at & MASK]);
        }
        Summary { start: self.start[0], end: self.end[last & MASK], gap }
    }

    fn remove(&mut self, at: usize, count: usize) {
        let len = self.len();
        close(&mut self.start, at, count, len);
        close(&mut self.end, at, count, len);
        close(&mut self.gap, at, count, len);
        close(&mut self.child, at, count, len);
        self.shorten(len - count);
    }

    fn give_right(&mut self, right: &mut Self, count: usize) {
        let (len, others) = (self.len(), right.len());
        right.start.copy_within(..others, count);
        right.end.copy_within(..others, count);
        right.gap.copy_within(..others, count);
        right.child.copy_within(..others, count);
        transfer(&self.start, len - count, &mut right.start, 0, count);
        transfer(&self.end, len - count, &mut right.end, 0, count);
        transfer(&self.gap, len - count, &mut right.gap, 0, count);
        transfer(&self.child, len - count, &mut right.child, 0, count);
        right.len += count as u32;
        self.shorten(len - count);
    }

    fn take_right(&mut self, right: &mut Self, count: usize) {
        let len = self.len();
        transfer(&right.start, 0, &mut self.start, len, count);
        transfer(&right.end, 0, &mut self.end, len, count);
        transfer(&right.gap, 0, &mut self.gap, len, count);
        transfer(&right.child, 0, &mut self.child, len, count);
        self.len += count as u32;
        right.remove(0, count);
    }
}

impl Inner {
    #[cfg(test)]
    pub(super) fn is_padded(&self) -> bool {
        self.end.iter().skip(self.len()).all(|&end| end == UNUSED)
    }

    fn shorten(&mut self, len: usize) {
        if let Some(unused) = self.end.get_mut(len..self.len as usize) {
            unused.fill(UNUSED);
        }
        self.len = len as u32;
    }
}
