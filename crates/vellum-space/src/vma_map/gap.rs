//! Room for a new region: the lowest or the highest gap that will do.
//!
//! ```text
//!   within        |<------------------------------------------>|
//!   regions    [####]       [##]             [#####]      [########]
//!   guards                                <--|         <--|            what must stay free before them
//!   gaps            |.......|  |..........|        |...|
//!                   ^ Up                ^ Down                         each rounded to the alignment
//! ```
//!
//! The tree is walked in order from one end, past every child that says of itself that it has no gap so
//! large. A gap that is long enough and will not do for its alignment or its guard costs one step more.
//!
//! Source: Linux, `vm_unmapped_area` (mm/vma.c): the same placements, lowest or highest, with
//! `stack_guard_gap` as the guard of a region that grows down. Linux asks for `len + align - 4 KiB` before
//! it aligns, and so passes over gaps in which `len` would have fitted exactly.

use super::node::{Hint, Leaf, Window};
use super::{PageRange, Region, VmaMap, pages_of};
use vellum_core::{Memory, PAGE_SHIFT, VirtAddr};

/// From which end a gap is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The lowest address.
    Up,
    /// The highest one.
    Down,
}

/// What room is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How many bytes, rounded up to whole pages; not 0.
    pub len: u64,
    /// log2 of what the address shall be a multiple of; below 12 is as 12.
    pub align: u8,
    /// Where the whole of it shall lie.
    pub within: PageRange,
    /// Which of all gaps.
    pub from: Direction,
}

/// A search under way.
struct Search<G> {
    window: Window,
    /// log2 of pages.
    align: u32,
    guard: G,
}

impl<G> Search<G> {
    /// The first page of the lowest place between `low` and `high`, the latter not counted.
    #[inline(always)]
    fn lowest(&self, low: u64, high: u64) -> Option<u64> {
        // Page numbers have 52 bits, and so has the alignment: nothing wraps.
        let mask = (1 << self.align) - 1;
        let first = (low.max(self.window.low) + mask) & !mask;
        (first + self.window.pages <= high.min(self.window.high)).then_some(first)
    }

    /// The first page of the highest place there.
    #[inline(always)]
    fn highest(&self, low: u64, high: u64) -> Option<u64> {
        let mask = (1 << self.align) - 1;
        let first = high.min(self.window.high).checked_sub(self.window.pages)? & !mask;
        (first >= low.max(self.window.low)).then_some(first)
    }
}

impl<V: Copy, M: Memory> VmaMap<V, M> {
    /// Where `room` is: the lowest or the highest address from which on it is free. `guard` says of a
    /// region how many bytes before it must stay free as well, as far as they are: 256 pages, say,
    /// before one that grows down.
    ///
    /// O(log n), and one step more for each gap that has the length, but not with the alignment, or
    /// not with the guard of the region behind it.
    #[must_use]
    pub fn find_gap(&self, room: Room, guard: impl Fn(&V) -> u64) -> Option<VirtAddr> {
        let within = room.within.intersection(self.bounds)?;
        let pages = pages_of(room.len);
        if pages == 0 || pages > within.count_pages() {
            return None;
        }
        let window = Window { low: within.first_page(), high: within.end_page(), pages };
        let align = u32::from(room.align.clamp(PAGE_SHIFT, 63) - PAGE_SHIFT);
        let search = Search { window, align, guard };
        let page = match room.from {
            Direction::Up => self.lowest_gap(&search),
            Direction::Down => self.highest_gap(&search),
        }?;
        Some(VirtAddr::new(page << PAGE_SHIFT))
    }

    fn lowest_gap<G: Fn(&V) -> u64>(&self, search: &Search<G>) -> Option<u64> {
        let (bounds, all) = (self.bounds, self.all);
        if self.len == 0 {
            return search.lowest(bounds.first_page(), bounds.end_page());
        }
        let is_below = search.window.low < all.start;
        if is_below && search.lowest(bounds.first_page(), all.start).is_some() {
            let first = self.first_below(self.root, self.height);
            let found = search.lowest(bounds.first_page(), Self::guarded(search, first, all.start));
            if found.is_some() {
                return found;
            }
        }
        if all.gap >= search.window.pages {
            let found = match self.height {
                0 => self.lowest_in(self.root, search),
                levels => self.lowest_below(self.root, levels, search),
            };
            if found.is_some() {
                return found;
            }
        }
        if search.window.high <= all.end {
            return None;
        }
        search.lowest(all.end, bounds.end_page())
    }

    fn highest_gap<G: Fn(&V) -> u64>(&self, search: &Search<G>) -> Option<u64> {
        let (bounds, all) = (self.bounds, self.all);
        if self.len == 0 {
            return search.highest(bounds.first_page(), bounds.end_page());
        }
        let is_above = search.window.high > all.end;
        let mut found = if is_above { search.highest(all.end, bounds.end_page()) } else { None };
        if found.is_none() && all.gap >= search.window.pages {
            found = match self.height {
                0 => self.highest_in(self.root, search),
                levels => self.highest_below(self.root, levels, search),
            };
        }
        let is_below = search.window.low < all.start;
        if found.is_some() || !is_below || search.highest(bounds.first_page(), all.start).is_none()
        {
            return found;
        }
        let first = self.first_below(self.root, self.height);
        search.highest(bounds.first_page(), Self::guarded(search, first, all.start))
    }

    /// Where the room before a region ends that starts at `start`.
    fn guarded<G: Fn(&V) -> u64>(search: &Search<G>, region: Option<Region<V>>, start: u64) -> u64 {
        let guard = region.map_or(0, |(_, value)| pages_of((search.guard)(&value)));
        start.saturating_sub(guard)
    }

    /// The lowest place between two regions below an inner node with `levels` of them, itself among them.
    fn lowest_below<G: Fn(&V) -> u64>(
        &self,
        node: u32,
        levels: usize,
        search: &Search<G>,
    ) -> Option<u64> {
        let window = search.window;
        let mut next = None;
        loop {
            let (hint, child) = self.inners.with(node, |inner| {
                let from = next.unwrap_or_else(|| inner.lowest(window));
                let hint = inner.gap_above(from, window);
                hint.map(|hint| (hint, inner.child(hint.at)))
            })??;
            let Hint { at, between, inside } = hint;
            let between = between.filter(|&(low, high)| search.lowest(low, high).is_some());
            if let Some((low, high)) = between {
                let high = Self::guarded(search, self.first_below(child, levels - 1), high);
                let found = search.lowest(low, high);
                if found.is_some() {
                    return found;
                }
            }
            if inside {
                let found = match levels {
                    1 => self.lowest_in(child, search),
                    _ => self.lowest_below(child, levels - 1, search),
                };
                if found.is_some() {
                    return found;
                }
            }
            next = Some(at + 1);
        }
    }

    /// The highest place there.
    fn highest_below<G: Fn(&V) -> u64>(
        &self,
        node: u32,
        levels: usize,
        search: &Search<G>,
    ) -> Option<u64> {
        let window = search.window;
        let mut next = None;
        loop {
            let (hint, child) = self.inners.with(node, |inner| {
                let from = next.unwrap_or_else(|| inner.highest(window));
                let hint = inner.gap_below(from, window);
                hint.map(|hint| (hint, inner.child(hint.at)))
            })??;
            let Hint { at, between, inside } = hint;
            if inside {
                let found = match levels {
                    1 => self.highest_in(child, search),
                    _ => self.highest_below(child, levels - 1, search),
                };
                if found.is_some() {
                    return found;
                }
            }
            let between = between.filter(|&(low, high)| search.highest(low, high).is_some());
            if let Some((low, high)) = between {
                let high = Self::guarded(search, self.first_below(child, levels - 1), high);
                let found = search.highest(low, high);
                if found.is_some() {
                    return found;
                }
            }
            next = Some(at.checked_sub(1)?);
        }
    }

    #[inline(always)]
    fn lowest_in<G: Fn(&V) -> u64>(&self, leaf: u32, search: &Search<G>) -> Option<u64> {
        let window = search.window;
        self.leaves.with(leaf, |leaf| {
            let mut places = leaf.rooms_above(window);
            while let Some(at) = places.take_first() {
                let found = Self::before_place(leaf, at, search, Search::lowest);
                if found.is_some() {
                    return found;
                }
            }
            None
        })?
    }

    #[inline(always)]
    fn highest_in<G: Fn(&V) -> u64>(&self, leaf: u32, search: &Search<G>) -> Option<u64> {
        let window = search.window;
        self.leaves.with(leaf, |leaf| {
            let mut places = leaf.rooms_below(window);
            while let Some(at) = places.take_last() {
                let found = Self::before_place(leaf, at, search, Search::highest);
                if found.is_some() {
                    return found;
                }
            }
            None
        })?
    }

    /// A place in the gap before a region.
    #[inline(always)]
    fn before_place<G: Fn(&V) -> u64>(
        leaf: &Leaf<V>,
        at: usize,
        search: &Search<G>,
        find: impl Fn(&Search<G>, u64, u64) -> Option<u64>,
    ) -> Option<u64> {
        let (low, high) = leaf.gap_before(at);
        let guard = leaf.with(at, |_, value| pages_of((search.guard)(value)));
        find(search, low, high.saturating_sub(guard))
    }
}
