//! [`Spans`]: which frames have a slot, as few sorted stretches, made from a memory map in one pass.
//!
//! ```text
//!  N = 2     [==)          [=====)                        two spans, and no third fits
//!  add                              [==)
//!                <-- 10 -->       <-3->                   the narrowest gap
//!  becomes   [==)          [===========)                  ...is covered: slots for three frames
//!                                                            that do not exist
//! ```
//!
//! A map of any number of ranges, unsorted and overlapping, becomes at most `N` spans. So nothing
//! fails, and what a small `N` costs is slots.
//!
//! # Invariants
//!
//! - The first `used` spans ascend, are not empty, and have a gap between them.
//! - `base` of a span is how many frames the spans before it have.

use crate::range::PhysRange;
use core::fmt;
use vellum_core::{PAGE_SHIFT, PAGE_SIZE, Pfn};

/// One more than the last frame number.
const FRAMES_END: u64 = 1 << (u64::BITS - PAGE_SHIFT as u32);

#[derive(Clone, Copy, PartialEq, Eq)]
struct Span {
    first: u64,
    end: u64,
    base: u64,
}

impl Span {
    const EMPTY: Self = Self { first: 0, end: 0, base: 0 };
}

/// At most `N` stretches of frames, sorted, with holes between them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Spans<const N: usize = 1> {
    spans: [Span; N],
    used: usize,
}

impl Spans<1> {
    /// `count` frames from `first` on, cut off at the end of physical memory.
    #[must_use]
    pub const fn one(first: Pfn, count: u64) -> Self {
        let first = first.as_u64();
        let room = FRAMES_END - first;
        let end = first + if count < room { count } else { room };
        Self { spans: [Span { first, end, base: 0 }], used: (end > first) as usize }
    }
}

impl<const N: usize> Spans<N> {
    /// The whole frames of these ranges: any number, in any order, overlapping or touching.
    ///
    /// Where they make more than `N` stretches, the narrowest gaps are covered too, as seen when
    /// each range comes. O(ranges x `N`).
    #[must_use]
    pub fn of<U>(ranges: U) -> Self
    where
        U: IntoIterator<Item: Into<PhysRange>>,
    {
        const { assert!(N > 0, "a table of no span has no frame") };
        let mut all = Self { spans: [Span::EMPTY; N], used: 0 };
        for range in ranges {
            let (first, end) = range.into().frames_inside();
            if first < end {
                all.add(first, end);
            }
        }
        let mut base = 0;
        for span in &mut all.spans[..all.used] {
            span.base = base;
            base += span.end - span.first;
        }
        all
    }

    fn add(&mut self, mut first: u64, mut end: u64) {
        loop {
            // What touches the new span becomes part of it.
            let mut kept = 0;
            for index in 0..self.used {
                let span = self.spans[index];
                if span.end < first || end < span.first {
                    self.spans[kept] = span;
                    kept += 1;
                } else {
                    first = first.min(span.first);
                    end = end.max(span.end);
                }
            }
            self.used = kept;

            let at = self.used().iter().take_while(|span| span.end < first).count();
            if self.used < N {
                self.spans.copy_within(at..self.used, at + 1);
                self.spans[at] = Span { first, end, base: 0 };
                self.used += 1;
                return;
            }
            // None is left over: the narrowest gap is closed, to a neighbour or between two others.
            let below = at.checked_sub(1).map(|low| first - self.spans[low].end);
            let above = self.used().get(at).map(|high| high.first - end);
            let others = self.used().windows(2).map(|pair| pair[1].first - pair[0].end);
            let others = others.enumerate().min_by_key(|&(_, gap)| gap);
            let beside = [below, above].into_iter().flatten().min();
            match others {
                Some((low, gap)) if beside.is_none_or(|beside| gap < beside) => {
                    self.spans[low].end = self.spans[low + 1].end;
                    self.spans.copy_within(low + 2..self.used, low + 1);
                    self.used -= 1;
                }
                _ if below == beside => first -= below.unwrap_or_default(),
                _ => end += above.unwrap_or_default(),
            }
        }
    }

    fn used(&self) -> &[Span] {
        &self.spans[..self.used]
    }

    /// Frames in all spans: how many slots a table of them takes.
    #[must_use]
    pub const fn count_frames(&self) -> u64 {
        if self.used == 0 {
            return 0;
        }
        let last = &self.spans[self.used - 1];
        last.base + (last.end - last.first)
    }

    /// Bytes that the slots of a table of `M` take; `u64::MAX` if that does not fit 64 bits.
    #[must_use]
    pub const fn bytes<M>(&self) -> u64 {
        self.count_frames().saturating_mul(size_of::<M>() as u64)
    }

    /// Whole frames that those bytes take, for an allocator to be asked for.
    #[must_use]
    pub const fn frames_for<M>(&self) -> u64 {
        self.bytes::<M>().div_ceil(PAGE_SIZE)
    }

    /// The frames, ascending.
    pub fn frames(&self) -> impl Iterator<Item = Pfn> + use<'_, N> {
        self.used().iter().flat_map(|span| span.first..span.end).filter_map(Pfn::new)
    }

    /// How many frames lie before `frame`, if that lies in a span.
    pub(super) fn index(&self, frame: Pfn) -> Option<u64> {
        let pfn = frame.as_u64();
        let span = self.used().iter().find(|span| pfn < span.end)?;
        Some(span.base + pfn.checked_sub(span.first)?)
    }
}

impl<const N: usize> fmt::Debug for Spans<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.used().iter().map(|span| span.first..span.end)).finish()
    }
}
