//! Leaves: regions, with their values.

use super::super::range::PageRange;
use super::{MASK, Node, Summary, UNUSED, WIDTH, Window, largest_gap, raise, rank, transfer};

/// Regions, with their values.
#[derive(Clone, Copy)]
pub(in super::super) struct Leaf<V> {
    end: [u64; WIDTH],
    start: [u64; WIDTH],
    value: [V; WIDTH],
    len: u32,
}

impl<V: Copy> Leaf<V> {
    /// One with one region.
    pub(in super::super) fn new(range: PageRange, value: V) -> Self {
        let mut leaf =
            Self { end: [UNUSED; WIDTH], start: [0; WIDTH], value: [value; WIDTH], len: 0 };
        leaf.insert(0, range, value);
        leaf
    }

    /// The first place whose region ends after `page`, which one must.
    #[inline(always)]
    pub(in super::super) fn find(&self, page: u64) -> usize {
        rank(&self.end, page)
    }

    /// The first place whose region ends after `page`, or [`len`](Node::len).
    #[inline(always)]
    pub(in super::super) fn position(&self, page: u64) -> usize {
        let at = rank(&self.end, page);
        at + usize::from(at == WIDTH - 1 && self.end[WIDTH - 1] <= page)
    }

    /// The region at a place that is in use.
    #[inline(always)]
    pub(in super::super) fn at(&self, at: usize) -> (PageRange, V) {
        let at = at & MASK;
        (PageRange::raw(self.start[at], self.end[at]), self.value[at])
    }

    /// The region at this place, if it is in use.
    #[inline(always)]
    pub(in super::super) fn get(&self, at: usize) -> Option<(PageRange, V)> {
        (at < self.len()).then(|| self.at(at))
    }

    pub(in super::super) fn value_mut(&mut self, at: usize) -> &mut V {
        &mut self.value[at & MASK]
    }

    pub(in super::super) fn set_range(&mut self, at: usize, range: PageRange) {
        self.start[at & MASK] = range.first_page();
        self.end[at & MASK] = range.end_page();
    }

    /// Puts a region at a place, before what is there; there is room.
    #[inline(always)]
    pub(in super::super) fn insert(&mut self, at: usize, range: PageRange, value: V) {
        let mut to = self.len();
        // One loop for three arrays: with 16 places three calls of `memmove` take longer.
        while to > at {
            let (to_place, from) = (to & MASK, (to - 1) & MASK);
            self.start[to_place] = self.start[from];
            self.end[to_place] = self.end[from];
            self.value[to_place] = self.value[from];
            to -= 1;
        }
        self.set_range(at, range);
        self.value[at & MASK] = value;
        self.len += 1;
    }

    /// What the leaf says of itself after an insertion at `at`, when it said before that `gap` is the
    /// largest.
    #[inline(always)]
    pub(in super::super) fn summary_inserted(&self, at: usize, gap: u64) -> Summary {
        let last = self.len().wrapping_sub(1);
        let (start, end) = (self.start[0], self.end[last & MASK]);
        if at == 0 {
            let made = self.start[1] - self.end[0];
            return Summary { start, end, gap: if last > 0 { gap.max(made) } else { 0 } };
        }
        let before = self.end[(at - 1) & MASK];
        if at == last {
            return Summary { start, end, gap: gap.max(self.start[at & MASK] - before) };
        }
        // A gap became two, neither of which is as large.
        let was = self.start[(at + 1) & MASK] - before;
        if was < gap { Summary { start, end, gap } } else { self.summary_below(gap) }
    }

    /// The same after regions were taken out at `at`.
    #[inline(always)]
    pub(in super::super) fn summary_removed(&self, at: usize, gap: u64) -> Summary {
        let last = self.len().wrapping_sub(1);
        if at == 0 || at > last || self.len == 0 {
            return self.summary_below(gap);
        }
        // What is now one gap was several smaller ones.
        let made = self.start[at & MASK] - self.end[(at - 1) & MASK];
        Summary { start: self.start[0], end: self.end[last & MASK], gap: gap.max(made) }
    }

    /// From which place on a search upwards begins in this window.
    #[inline(always)]
    pub(in super::super) fn lowest(&self, q: Window) -> usize {
        if q.low <= self.start[0] { 0 } else { rank(&self.end, q.low) }
    }

    /// From which place on a search downwards begins, which may be behind the last one.
    #[inline(always)]
    pub(in super::super) fn highest(&self, q: Window) -> usize {
        let last = self.len().wrapping_sub(1);
        if q.high >= self.end[last & MASK] { last } else { rank(&self.end, q.high - 1) }
    }

    /// The first gap at a place `from` or above that has the pages of the window within it: the place
    /// above it, and the gap.
    #[inline(always)]
    pub(in super::super) fn gap_above(&self, from: usize, q: Window) -> Option<(usize, u64, u64)> {
        let from = from.max(1);
        let starts = self.start.get(from..self.len())?;
        let ends = self.end.get(from - 1..)?;
        let gaps = starts.iter().zip(ends).enumerate();
        for (beyond, (&start, &end)) in gaps {
            if start - end >= q.pages && q.fits(end, start) {
                return Some((from + beyond, end, start));
            }
        }
        None
    }

    /// The last such gap at a place `from` or below.
    #[inline(always)]
    pub(in super::super) fn gap_below(&self, from: usize, q: Window) -> Option<(usize, u64, u64)> {
        let last = from.min(self.len().saturating_sub(1));
        let starts = self.start.get(1..=last)?;
        let gaps = starts.iter().zip(self.end.get(..last)?).enumerate();
        for (before, (&start, &end)) in gaps.rev() {
            if start - end >= q.pages && q.fits(end, start) {
                return Some((before + 1, end, start));
            }
        }
        None
    }

    fn shorten(&mut self, len: usize) {
        if let Some(unused) = self.end.get_mut(len..self.len as usize) {
            unused.fill(UNUSED);
        }
        self.len = len as u32;
    }

    #[cfg(test)]
    pub(in super::super) fn is_padded(&self) -> bool {
        self.end.iter().skip(self.len()).all(|&end| end == UNUSED)
    }
}

impl<V: Copy> Node for Leaf<V> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len as usize
    }

    fn summary_below(&self, most: u64) -> Summary {
        let Some(last) = self.len().checked_sub(1) else { return Summary::EMPTY };
        let gap = largest_gap(&self.start, &self.end, self.len(), most, |_| 0);
        Summary { start: self.start[0], end: self.end[last & MASK], gap }
    }

    #[inline(always)]
    fn remove(&mut self, at: usize, count: usize) {
        let len = self.len() - count;
        for to in at..len {
            let (to_place, from) = (to & MASK, (to + count) & MASK);
            self.start[to_place] = self.start[from];
            self.end[to_place] = self.end[from];
            self.value[to_place] = self.value[from];
        }
        for unused in len..len + count {
            self.end[unused & MASK] = UNUSED;
        }
        self.len = len as u32;
    }

    fn give_right(&mut self, right: &mut Self, count: usize) {
        let len = self.len() - count;
        raise(&mut right.start, count);
        raise(&mut right.end, count);
        raise(&mut right.value, count);
        transfer(&self.start, len, &mut right.start, 0, count);
        transfer(&self.end, len, &mut right.end, 0, count);
        transfer(&self.value, len, &mut right.value, 0, count);
        right.len += count as u32;
        self.shorten(len);
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
