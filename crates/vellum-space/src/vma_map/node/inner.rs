//! Inner nodes: children, with what they say of themselves.

use super::{MASK, Node, Summary, UNUSED, WIDTH, Window, raise, rank, transfer};

/// Children, with what they say of themselves.
#[derive(Clone, Copy)]
pub(in super::super) struct Inner {
    end: [u64; WIDTH],
    start: [u64; WIDTH],
    gap: [u64; WIDTH],
    child: [u32; WIDTH],
    len: u32,
}

/// A child beside which, or below which, a gap may be.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Hint {
    pub(in super::super) at: usize,
    /// The gap before the child's first region.
    pub(in super::super) between: Option<(u64, u64)>,
    pub(in super::super) inside: bool,
}

impl Inner {
    /// One over these two.
    pub(in super::super) fn new(first: (u32, Summary), second: (u32, Summary)) -> Self {
        let zeros = [0; WIDTH];
        let mut node =
            Self { end: [UNUSED; WIDTH], start: zeros, gap: zeros, child: [0; WIDTH], len: 0 };
        node.insert(0, first);
        node.insert(1, second);
        node
    }

    /// The first place whose regions do not all end at or before `page`, which one must.
    #[inline(always)]
    pub(in super::super) fn find(&self, page: u64) -> usize {
        rank(&self.end, page)
    }

    /// The child at a place.
    #[inline(always)]
    pub(in super::super) fn child(&self, at: usize) -> u32 {
        self.child[at & MASK]
    }

    /// What the child at a place says of itself.
    #[inline(always)]
    pub(in super::super) fn of(&self, at: usize) -> Summary {
        let at = at & MASK;
        Summary { start: self.start[at], end: self.end[at], gap: self.gap[at] }
    }

    #[inline(always)]
    pub(in super::super) fn set(&mut self, at: usize, summary: Summary) {
        let at = at & MASK;
        let Summary { start, end, gap } = summary;
        (self.start[at], self.end[at], self.gap[at]) = (start, end, gap);
    }

    /// Puts a child at a place, before what is there; there is room.
    pub(in super::super) fn insert(&mut self, at: usize, (child, summary): (u32, Summary)) {
        let mut to = self.len();
        while to > at {
            let below = self.of(to - 1);
            self.set(to, below);
            self.child[to & MASK] = self.child[(to - 1) & MASK];
            to -= 1;
        }
        self.set(at, summary);
        self.child[at & MASK] = child;
        self.len += 1;
    }

    /// The gap between the child at a place and the one before it; 0 where one of them is not there.
    #[inline(always)]
    fn between(&self, at: usize) -> u64 {
        if at == 0 || at >= self.len() {
            return 0;
        }
        self.start[at & MASK] - self.end[(at - 1) & MASK]
    }

    /// Takes note of what the child at a place says now; what the node says then, when it said before
    /// that `gap` is the largest. `None`: the same.
    #[inline(always)]
    pub(in super::super) fn renew(&mut self, at: usize, now: Summary, gap: u64) -> Option<Summary> {
        let was = self.of(at);
        if was == now {
            return None;
        }
        let lost = was.gap.max(self.between(at)).max(self.between(at + 1));
        self.set(at, now);
        let made = now.gap.max(self.between(at)).max(self.between(at + 1));
        if made < gap && lost >= gap {
            return Some(self.summary_below(gap));
        }
        let last = self.len().wrapping_sub(1);
        Some(Summary { start: self.start[0], end: self.end[last & MASK], gap: gap.max(made) })
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

    /// The first place from `from` on where a gap of the window may be: before the child, or in it.
    #[inline(always)]
    pub(in super::super) fn gap_above(&self, from: usize, q: Window) -> Option<Hint> {
        for at in from..self.len() {
            if self.gap[at & MASK].max(self.between(at)) >= q.pages {
                let hint = self.hint(at, q);
                if hint.is_some() {
                    return hint;
                }
            }
            if self.end[at & MASK] >= q.high {
                return None;
            }
        }
        None
    }

    /// The last place from `from` down where a gap of the window may be.
    #[inline(always)]
    pub(in super::super) fn gap_below(&self, from: usize, q: Window) -> Option<Hint> {
        for at in (0..=from.min(self.len().saturating_sub(1))).rev() {
            if self.gap[at & MASK].max(self.between(at)) >= q.pages {
                let hint = self.hint(at, q);
                if hint.is_some() {
                    return hint;
                }
            }
            if self.start[at & MASK] <= q.low {
                return None;
            }
        }
        None
    }

    fn hint(&self, at: usize, q: Window) -> Option<Hint> {
        let place = at & MASK;
        let start = self.start[place];
        let before = if at == 0 { start } else { self.end[(at - 1) & MASK] };
        let between = q.fits(before, start).then_some((before, start));
        let inside = self.gap[place] >= q.pages && start < q.high && self.end[place] > q.low;
        (inside || between.is_some()).then_some(Hint { at, between, inside })
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

impl Node for Inner {
    #[inline(always)]
    fn len(&self) -> usize {
        self.len as usize
    }

    fn summary_below(&self, most: u64) -> Summary {
        let Some(last) = self.len().checked_sub(1) else { return Summary::EMPTY };
        // None is larger than `most`, and to know that ends the search early.
        let (mut gap, mut before) = (self.gap[0], self.end[0]);
        for at in 1..self.len().min(WIDTH) {
            if gap >= most {
                break;
            }
            gap = gap.max(self.start[at] - before).max(self.gap[at]);
            before = self.end[at];
        }
        Summary { start: self.start[0], end: self.end[last & MASK], gap }
    }

    fn remove(&mut self, at: usize, count: usize) {
        let len = self.len() - count;
        for to in at..len {
            let above = self.of(to + count);
            self.set(to, above);
            self.child[to & MASK] = self.child[(to + count) & MASK];
        }
        self.shorten(len);
    }

    fn give_right(&mut self, right: &mut Self, count: usize) {
        let len = self.len() - count;
        raise(&mut right.start, count);
        raise(&mut right.end, count);
        raise(&mut right.gap, count);
        raise(&mut right.child, count);
        transfer(&self.start, len, &mut right.start, 0, count);
        transfer(&self.end, len, &mut right.end, 0, count);
        transfer(&self.gap, len, &mut right.gap, 0, count);
        transfer(&self.child, len, &mut right.child, 0, count);
        right.len += count as u32;
        self.shorten(len);
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
