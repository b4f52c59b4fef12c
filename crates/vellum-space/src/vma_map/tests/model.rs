//! The map as it might be written on a napkin.

use crate::vma_map::{Direction, PageRange, Region, Room, VmaMapError};
use std::vec::Vec;
use vellum_core::VirtAddr;

/// What regions are worth in tests: a number, and pages that must stay free before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) id: u32,
    pub(super) guard: u16,
}

/// How a value is cut: the left part remembers it, the right one says how far it was.
pub(super) fn cut(range: PageRange, value: &mut Value, at: VirtAddr) -> Value {
    let far = at.as_u64().wrapping_sub(range.start().as_u64()) >> 12;
    let right = Value { id: value.id.wrapping_mul(31).wrapping_add(far as u32), ..*value };
    value.id = value.id.wrapping_add(1);
    right
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) bounds: PageRange,
    pub(super) regions: Vec<Region<Value>>,
}

impl Model {
    pub(super) fn new(bounds: PageRange) -> Self {
        Self { bounds, regions: Vec::new() }
    }

    fn overlapping(&self, range: PageRange) -> impl Iterator<Item = Region<Value>> {
        self.regions.iter().copied().filter(move |(found, _)| found.intersection(range).is_some())
    }

    pub(super) fn find(&self, va: VirtAddr) -> Option<Region<Value>> {
        self.regions.iter().copied().find(|(range, _)| range.contains(va))
    }

    pub(super) fn next(&self, va: VirtAddr) -> Option<Region<Value>> {
        self.regions.iter().copied().find(|(range, _)| range.last() >= va)
    }

    pub(super) fn prev(&self, va: VirtAddr) -> Option<Region<Value>> {
        self.regions.iter().copied().rev().find(|(range, _)| range.last() < va)
    }

    pub(super) fn neighbours(
        &self,
        range: PageRange,
    ) -> (Option<Region<Value>>, Option<Region<Value>>) {
        let after = self.regions.iter().copied().find(|(found, _)| found.start() > range.last());
        (self.prev(range.start()), after)
    }

    pub(super) fn iter(&self, range: PageRange) -> Vec<Region<Value>> {
        self.overlapping(range).collect()
    }

    pub(super) fn insert(&mut self, range: PageRange, value: Value) -> Result<(), VmaMapError> {
        if !self.bounds.covers(range) {
            return Err(VmaMapError::Outside(range));
        }
        if let Some((found, _)) = self.overlapping(range).next() {
            return Err(VmaMapError::Taken(found));
        }
        self.regions.push((range, value));
        self.regions.sort_by_key(|(range, _)| *range);
        Ok(())
    }

    fn starting(&self, start: VirtAddr) -> Result<usize, VmaMapError> {
        let found = self.regions.iter().position(|(range, _)| range.start() == start);
        found.ok_or(VmaMapError::Missing(start))
    }

    pub(super) fn remove(&mut self, start: VirtAddr) -> Result<Region<Value>, VmaMapError> {
        Ok(self.regions.remove(self.starting(start)?))
    }

    pub(super) fn resize(&mut self, start: VirtAddr, range: PageRange) -> Result<(), VmaMapError> {
        if !self.bounds.covers(range) {
            return Err(VmaMapError::Outside(range));
        }
        let at = self.starting(start)?;
        let before = at.checked_sub(1).map(|at| self.regions[at].0);
        if let Some(before) = before.filter(|before| before.last() >= range.start()) {
            return Err(VmaMapError::Taken(before));
        }
        let after = self.regions.get(at + 1).map(|region| region.0);
        if let Some(after) = after.filter(|after| after.start() <= range.last()) {
            return Err(VmaMapError::Taken(after));
        }
        self.regions[at].0 = range;
        Ok(())
    }

    pub(super) fn update(&mut self, start: VirtAddr, id: u32) -> Result<(), VmaMapError> {
        let at = self.starting(start)?;
        self.regions[at].1.id = id;
        Ok(())
    }

    pub(super) fn split_at(&mut self, va: VirtAddr) -> Result<(), VmaMapError> {
        let halves =
            self.regions.iter().enumerate().find_map(|(at, (range, _))| {
                range.split_at(va).map(|(left, right)| (at, left, right))
            });
        let (at, left, right) = halves.ok_or(VmaMapError::Missing(va))?;
        let (range, mut value) = self.regions[at];
        let other = cut(range, &mut value, va);
        self.regions[at] = (left, value);
        self.regions.insert(at + 1, (right, other));
        Ok(())
    }

    pub(super) fn clear_range(&mut self, range: PageRange) -> Vec<Region<Value>> {
        let _ = self.split_at(range.start());
        if let Some(end) = range.end() {
            let _ = self.split_at(end);
        }
        let taken = self.iter(range);
        self.regions.retain(|(found, _)| !range.covers(*found));
        taken
    }

    /// Tries every page, one after the other.
    pub(super) fn find_gap(&self, room: Room) -> Option<VirtAddr> {
        let pages = room.len.div_ceil(4096);
        let fits = |first: u64| {
            let range = (pages > 0).then(|| vellum_core::Vpn::new(first)).flatten();
            let range = range.and_then(|first| PageRange::pages(first, pages));
            range.is_some_and(|range| {
                room.within.covers(range)
                    && self.bounds.covers(range)
                    && range.start().is_aligned(room.align.clamp(12, 63))
                    && self.overlapping(range).next().is_none()
                    && self.next(range.last()).is_none_or(|(next, value)| {
                        let room = next.start().number().as_u64() - range.last().number().as_u64();
                        room > u64::from(value.guard)
                    })
            })
        };
        let first = room.within.start().number().as_u64();
        let last = room.within.last().number().as_u64();
        let found = match room.from {
            Direction::Up => (first..=last).find(|&page| fits(page)),
            Direction::Down => (first..=last).rev().find(|&page| fits(page)),
        };
        found.map(super::va)
    }
}
