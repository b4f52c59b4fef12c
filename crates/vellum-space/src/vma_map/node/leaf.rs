//! Leaves: regions, with their values.

use super::super::range::PageRange;
use super::gaps::{Gaps, Places};
use super::{MASK, Node, Summary, UNUSED, WIDTH, Window, raise, rank, transfer};

/// What touches a range: the left one; the right one, or that there is none, if that is known here.
type Touching<V> = (Option<(PageRange, V)>, Option<Option<(PageRange, V)>>);

/// Regions, with their values.
#[derive(Clone, Copy)]
pub(in super::super) struct Leaf<V> {
    end: [u64; WIDTH],
    start: [u64; WIDTH],
    value: [V; WIDTH],
    gaps: Gaps,
    len: u32,
}

impl<V: Copy> Leaf<V> {
    /// One with one region.
    pub(in super::super) fn new(range: PageRange, value: V) -> Self {
        let mut leaf = Self {
            end: [UNUSED; WIDTH],
            start: [0; WIDTH],
            value: [value; WIDTH],
            gaps: Gaps::NONE,
            len: 0,
        };
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

    /// What `f` makes of the region at a place that is in use, where it lies.
    #[inline(always)]
    pub(in super::super) fn with<R>(&self, at: usize, f: impl FnOnce(PageRange, &V) -> R) -> R {
        let at = at & MASK;
        f(PageRange::raw(self.start[at], self.end[at]), &self.value[at])
    }

    /// The region that ends with the page before `first`, and the one that starts with `end`; of the
    /// latter nothing where it would be in another leaf. Some region here ends at `first` or behind it, and
    /// at most one lies between the two pages.
    #[inline(always)]
    pub(in super::super) fn touching(&self, first: u64, end: u64) -> Touching<V> {
        let at = self.find(first.wrapping_sub(1));
        let ends = self.end[at & MASK] == first;
        let left = if ends { Some(self.at(at)) } else { None };
        let mut right = at + usize::from(ends);
        // What lies in the range itself is nobody's neighbour.
        right += usize::from(right < self.len() && self.end[right & MASK] <= end);
        if right >= self.len() {
            return (left, None);
        }
        let begins = self.start[right & MASK] == end;
        (left, Some(if begins { Some(self.at(right)) } else { None }))
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
        self.gaps.set(at, [self.gap(at), self.gap(at + 1)]);
    }

    /// How large the gap before a place is; where none is in use, nothing.
    #[inline(always)]
    fn gap(&self, at: usize) -> u64 {
        let (end, start) = self.gap_before(at);
        if at > 0 && at < self.len() { start.wrapping_sub(end) } else { 0 }
    }

    /// Notes how large all gaps are.
    fn note_gaps(&mut self) {
        (0..WIDTH).for_each(|at| self.gaps.set(at, [self.gap(at), 0]));
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
        self.value[at & MASK] = value;
        self.len += 1;
        self.gaps.open(at);
        self.set_range(at, range);
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

    /// The places before which there may be room in this window, for a search upwards.
    #[inline(always)]
    pub(in super::super) fn rooms_above(&self, q: Window) -> Places {
        let places = self.gaps.places(q.pages);
        if q.low <= self.start[0] { places } else { places.from(rank(&self.end, q.low)) }
    }

    /// The same for a search downwards.
    #[inline(always)]
    pub(in super::super) fn rooms_below(&self, q: Window) -> Places {
        let places = self.gaps.places(q.pages);
        let last = self.len().wrapping_sub(1);
        let is_all = q.high >= self.end[last & MASK];
        if is_all { places } else { places.up_to(rank(&self.end, q.high - 1)) }
    }

    /// The gap before a place, from the first.
    #[inline(always)]
    pub(in super::super) fn gap_before(&self, at: usize) -> (u64, u64) {
        (self.end[at.wrapping_sub(1) & MASK], self.start[at & MASK])
    }

    fn shorten(&mut self, len: usize) {
        if let Some(unused) = self.end.get_mut(len..self.len as usize) {
            unused.fill(UNUSED);
        }
        self.len = len as u32;
    }

    #[cfg(test)]
    pub(in super::super) fn is_padded(&self) -> bool {
        let mut noted = *self;
        noted.note_gaps();
        noted.gaps == self.gaps && self.end.iter().skip(self.len()).all(|&end| end == UNUSED)
    }
}

impl<V: Copy> Node for Leaf<V> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len as usize
    }

    fn summary_below(&self, most: u64) -> Summary {
        let Some(last) = self.len().checked_sub(1) else { return Summary::EMPTY };
        // None is larger than `most`, and to know that ends the search early.
        let (mut gap, mut before) = (0, self.end[0]);
        for at in 1..self.len().min(WIDTH) {
            if gap >= most {
                break;
            }
            gap = gap.max(self.start[at] - before);
            before = self.end[at];
        }
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
        self.gaps.close(at, count, self.gap(at));
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
        self.note_gaps();
        right.note_gaps();
    }

    fn take_right(&mut self, right: &mut Self, count: usize) {
        let len = self.len();
        transfer(&right.start, 0, &mut self.start, len, count);
        transfer(&right.end, 0, &mut self.end, len, count);
        transfer(&right.value, 0, &mut self.value, len, count);
        self.len += count as u32;
        self.note_gaps();
        right.remove(0, count);
    }
}
