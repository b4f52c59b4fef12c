//! `VmaMap`, with numbers as values, in the memory that the designs' tables lie in too.

use super::map::{Ask, Map, Span};
use crate::designs::ram::Ram;
use core::hint::black_box;
use vellum_core::VirtAddr;
use vellum_space::vma_map::{Direction, Room};
use vellum_space::{PageRange, VmaMap};

/// The map.
#[derive(Debug)]
pub struct Ours(VmaMap<u64, Ram>);

/// A range of a row, whose addresses are whole pages.
fn range(start: u64, end: u64) -> PageRange {
    PageRange::touching(VirtAddr::new(start), VirtAddr::new(end - 1)).unwrap_or(PageRange::ALL)
}

impl Ours {
    #[inline(always)]
    fn gaps(&self, asks: &[Ask], from: Direction) -> u64 {
        let found = asks.iter().map(|ask| {
            let within = range(ask.low, ask.high);
            let room = Room { len: ask.len, align: 12, within, from };
            black_box(&self.0).find_gap(room, |_| 0).map_or(0, VirtAddr::as_u64)
        });
        found.fold(0, u64::wrapping_add)
    }
}

impl Map for Ours {
    const NAME: &'static str = "vellum";
    const GAPS_ARE_SCANNED: bool = false;
    const REMOVALS_ARE_SCANNED: bool = false;

    fn new() -> Self {
        Self(VmaMap::new(Ram, PageRange::ALL))
    }

    #[inline(never)]
    fn insert(&mut self, regions: &[Span]) -> u64 {
        let mut refused = 0;
        for span in regions {
            let done = black_box(&mut self.0).insert(range(span.start, span.end), span.value);
            refused += u64::from(done.is_err());
        }
        refused
    }

    #[inline(never)]
    fn find(&self, addresses: &[u64]) -> u64 {
        let found = addresses
            .iter()
            .map(|&va| black_box(&self.0).find(VirtAddr::new(va)).map_or(0, |(_, value)| value));
        found.fold(0, u64::wrapping_add)
    }

    #[inline(never)]
    fn lowest(&self, asks: &[Ask]) -> u64 {
        self.gaps(asks, Direction::Up)
    }

    #[inline(never)]
    fn highest(&self, asks: &[Ask]) -> Option<u64> {
        Some(self.gaps(asks, Direction::Down))
    }

    #[inline(never)]
    fn pair(&mut self, regions: &[Span]) -> u64 {
        let mut failed = 0;
        for span in regions {
            let map = black_box(&mut self.0);
            failed += u64::from(map.remove(VirtAddr::new(span.start)).is_err());
            failed += u64::from(map.insert(range(span.start, span.end), span.value).is_err());
        }
        failed
    }
}
