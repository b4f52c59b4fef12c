//! The peers, used as a kernel would use them for its regions.
//!
//! ```text
//!   BTreeMap     start -> (end, value); an insertion looks at the neighbour on either side first
//!   rangemap     RangeMap<u64, u64>: joins neighbours of equal values, of which there are none here
//!   nodit        NoditMap<u64, Interval<u64>, u64>, insert_strict
//!   memory_set   MemorySet<Nothing>, whose mappings do nothing; the value is its area's flags
//! ```
//!
//! Only memory_set has a search for a gap (upwards); for the others it is a scan over their iterator.

use super::map::{Ask, Map, Span};
use core::fmt;
use core::hint::black_box;
use memory_set::{MappingBackend, MemoryArea, MemorySet};
use nodit::interval::ie;
use nodit::{Interval, NoditMap};
use std::collections::BTreeMap;

/// The lowest gap between regions that come in ascending order.
#[inline(always)]
fn first_gap(ask: &Ask, regions: impl Iterator<Item = (u64, u64)>) -> u64 {
    let mut low = ask.low;
    for (start, end) in regions {
        if start.saturating_sub(low) >= ask.len {
            return low;
        }
        low = low.max(end);
    }
    if ask.high.saturating_sub(low) >= ask.len { low } else { 0 }
}

/// The highest gap between regions that come in descending order.
#[inline(always)]
fn last_gap(ask: &Ask, regions: impl Iterator<Item = (u64, u64)>) -> u64 {
    let mut high = ask.high;
    for (start, end) in regions {
        if high.saturating_sub(end) >= ask.len {
            return high - ask.len;
        }
        high = high.min(start);
    }
    if high.saturating_sub(ask.low) >= ask.len { high - ask.len } else { 0 }
}

/// The sum of what `one` is of each item.
#[inline(always)]
fn sum<T>(items: &[T], mut one: impl FnMut(&T) -> u64) -> u64 {
    items.iter().fold(0, |sum, item| sum.wrapping_add(one(item)))
}

/// The standard library's tree.
#[derive(Debug)]
pub struct BTree(BTreeMap<u64, (u64, u64)>);

impl BTree {
    #[inline(always)]
    fn put(&mut self, span: &Span) -> bool {
        let map = black_box(&mut self.0);
        let below = map.range(..span.end).next_back();
        if below.is_some_and(|(_, &(end, _))| end > span.start) {
            return false;
        }
        map.insert(span.start, (span.end, span.value)).is_none()
    }
}

impl Map for BTree {
    const NAME: &'static str = "BTreeMap";
    const GAPS_ARE_SCANNED: bool = true;
    const REMOVALS_ARE_SCANNED: bool = false;

    fn new() -> Self {
        Self(BTreeMap::new())
    }

    #[inline(never)]
    fn insert(&mut self, regions: &[Span]) -> u64 {
        sum(regions, |span| u64::from(!self.put(span)))
    }

    #[inline(never)]
    fn find(&self, addresses: &[u64]) -> u64 {
        sum(addresses, |&va| {
            let below = black_box(&self.0).range(..=va).next_back();
            below.filter(|(_, (end, _))| va < *end).map_or(0, |(_, &(_, value))| value)
        })
    }

    #[inline(never)]
    fn lowest(&self, asks: &[Ask]) -> u64 {
        sum(asks, |ask| {
            let map = black_box(&self.0);
            // The region that `low` may be in begins below it.
            let below = map.range(..ask.low).next_back();
            let low = below.map_or(ask.low, |(_, &(end, _))| ask.low.max(end));
            let regions = map.range(ask.low..ask.high).map(|(&start, &(end, _))| (start, end));
            first_gap(&Ask { low, ..*ask }, regions)
        })
    }

    #[inline(never)]
    fn highest(&self, asks: &[Ask]) -> Option<u64> {
        Some(sum(asks, |ask| {
            let regions = black_box(&self.0).range(..ask.high).rev();
            last_gap(ask, regions.map(|(&start, &(end, _))| (start, end)))
        }))
    }

    #[inline(never)]
    fn pair(&mut self, regions: &[Span]) -> u64 {
        sum(regions, |span| {
            let gone = black_box(&mut self.0).remove(&span.start).is_some();
            u64::from(!gone) + u64::from(!self.put(span))
        })
    }
}

/// `rangemap`.
#[derive(Debug)]
pub struct RangeMap(rangemap::RangeMap<u64, u64>);

impl Map for RangeMap {
    const NAME: &'static str = "rangemap";
    const GAPS_ARE_SCANNED: bool = true;
    const REMOVALS_ARE_SCANNED: bool = false;

    fn new() -> Self {
        Self(rangemap::RangeMap::new())
    }

    #[inline(never)]
    fn insert(&mut self, regions: &[Span]) -> u64 {
        // It overwrites what is there, and has nothing to refuse.
        regions
            .iter()
            .for_each(|span| black_box(&mut self.0).insert(span.start..span.end, span.value));
        0
    }

    #[inline(never)]
    fn find(&self, addresses: &[u64]) -> u64 {
        sum(addresses, |va| black_box(&self.0).get(va).copied().unwrap_or(0))
    }

    #[inline(never)]
    fn lowest(&self, asks: &[Ask]) -> u64 {
        sum(asks, |ask| {
            let regions = black_box(&self.0).overlapping(ask.low..ask.high);
            first_gap(ask, regions.map(|(range, _)| (range.start, range.end)))
        })
    }

    #[inline(never)]
    fn highest(&self, asks: &[Ask]) -> Option<u64> {
        Some(sum(asks, |ask| {
            let regions = black_box(&self.0).overlapping(ask.low..ask.high).rev();
            last_gap(ask, regions.map(|(range, _)| (range.start, range.end)))
        }))
    }

    #[inline(never)]
    fn pair(&mut self, regions: &[Span]) -> u64 {
        for span in regions {
            let map = black_box(&mut self.0);
            map.remove(span.start..span.end);
            map.insert(span.start..span.end, span.value);
        }
        0
    }
}

/// `nodit`.
#[derive(Debug)]
pub struct Nodit(NoditMap<u64, Interval<u64>, u64>);

impl Map for Nodit {
    const NAME: &'static str = "nodit";
    const GAPS_ARE_SCANNED: bool = true;
    const REMOVALS_ARE_SCANNED: bool = false;

    fn new() -> Self {
        Self(NoditMap::new())
    }

    #[inline(never)]
    fn insert(&mut self, regions: &[Span]) -> u64 {
        sum(regions, |span| {
            let map = black_box(&mut self.0);
            u64::from(map.insert_strict(ie(span.start, span.end), span.value).is_err())
        })
    }

    #[inline(never)]
    fn find(&self, addresses: &[u64]) -> u64 {
        sum(addresses, |va| black_box(&self.0).get_at_point(va).copied().unwrap_or(0))
    }

    #[inline(never)]
    fn lowest(&self, asks: &[Ask]) -> u64 {
        sum(asks, |ask| {
            let within = ie(ask.low, ask.high);
            let regions = black_box(&self.0).overlapping(&within);
            first_gap(ask, regions.map(|(found, _)| (*found.start(), *found.end() + 1)))
        })
    }

    #[inline(never)]
    fn highest(&self, asks: &[Ask]) -> Option<u64> {
        Some(sum(asks, |ask| {
            let within = ie(ask.low, ask.high);
            let regions = black_box(&self.0).overlapping(&within).rev();
            last_gap(ask, regions.map(|(found, _)| (*found.start(), *found.end() + 1)))
        }))
    }

    #[inline(never)]
    fn pair(&mut self, regions: &[Span]) -> u64 {
        sum(regions, |span| {
            let map = black_box(&mut self.0);
            let interval = ie(span.start, span.end);
            let gone = map.remove_overlapping(&interval).count() == 1;
            u64::from(!gone) + u64::from(map.insert_strict(interval, span.value).is_err())
        })
    }
}

/// Mappings of which nothing comes.
#[derive(Clone, Copy, Debug)]
struct Nothing;

impl MappingBackend for Nothing {
    type Addr = usize;
    type Flags = u64;
    type PageTable = ();

    #[inline(always)]
    fn map(&self, _: usize, _: usize, _: u64, (): &mut ()) -> bool {
        true
    }

    #[inline(always)]
    fn unmap(&self, _: usize, _: usize, (): &mut ()) -> bool {
        true
    }

    #[inline(always)]
    fn protect(&self, _: usize, _: usize, _: u64, (): &mut ()) -> bool {
        true
    }
}

/// `memory_set`.
pub struct Areas(MemorySet<Nothing>);

impl fmt::Debug for Areas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} areas", Self::NAME, self.0.len())
    }
}

impl Areas {
    #[inline(always)]
    fn put(&mut self, span: &Span) -> bool {
        let size = (span.end - span.start) as usize;
        let area = MemoryArea::new(span.start as usize, size, span.value, Nothing);
        black_box(&mut self.0).map(area, &mut (), false).is_ok()
    }
}

impl Map for Areas {
    const NAME: &'static str = "memory_set";
    const GAPS_ARE_SCANNED: bool = true;
    const REMOVALS_ARE_SCANNED: bool = true;

    fn new() -> Self {
        Self(MemorySet::new())
    }

    #[inline(never)]
    fn insert(&mut self, regions: &[Span]) -> u64 {
        sum(regions, |span| u64::from(!self.put(span)))
    }

    #[inline(never)]
    fn find(&self, addresses: &[u64]) -> u64 {
        sum(addresses, |&va| black_box(&self.0).find(va as usize).map_or(0, MemoryArea::flags))
    }

    #[inline(never)]
    fn lowest(&self, asks: &[Ask]) -> u64 {
        sum(asks, |ask| {
            let limit = (ask.low as usize..ask.high as usize).try_into();
            let Ok(limit) = limit else { return 0 };
            let set = black_box(&self.0);
            let found = set.find_free_area(ask.low as usize, ask.len as usize, limit, 4096);
            found.unwrap_or(0) as u64
        })
    }

    fn highest(&self, _: &[Ask]) -> Option<u64> {
        None
    }

    #[inline(never)]
    fn pair(&mut self, regions: &[Span]) -> u64 {
        sum(regions, |span| {
            let size = (span.end - span.start) as usize;
            let gone = black_box(&mut self.0).unmap(span.start as usize, size, &mut ()).is_ok();
            u64::from(!gone) + u64::from(!self.put(span))
        })
    }
}
