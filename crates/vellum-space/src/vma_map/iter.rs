//! The regions of a range, in order.

use super::node::Node;
use super::{PageRange, Region, VmaMap};
use core::fmt;
use core::iter::FusedIterator;
use vellum_core::Memory;

/// The regions that have a page in a range, ascending: [`VmaMap::iter`].
///
/// It knows its leaf, and finds the next one from the root when that is at its end.
pub struct Regions<'a, V: Copy, M: Memory> {
    map: &'a VmaMap<V, M>,
    /// Where to go on.
    leaf: Option<u32>,
    at: usize,
    /// A page that only regions to come end after.
    page: u64,
    end: u64,
}

impl<'a, V: Copy, M: Memory> Regions<'a, V, M> {
    pub(super) fn new(map: &'a VmaMap<V, M>, range: PageRange) -> Self {
        let mut regions =
            Self { map, leaf: None, at: 0, page: range.first_page(), end: range.end_page() };
        regions.descend();
        regions
    }

    fn descend(&mut self) {
        self.leaf = self.map.leaf_with(self.page);
        let at = self.leaf.and_then(|leaf| self.map.leaves.with(leaf, |leaf| leaf.find(self.page)));
        self.at = at.unwrap_or(0);
    }
}

impl<V: Copy, M: Memory> Iterator for Regions<'_, V, M> {
    type Item = Region<V>;

    fn next(&mut self) -> Option<Region<V>> {
        let leaf = self.leaf?;
        let (region, is_last) =
            self.map.leaves.with(leaf, |leaf| (leaf.get(self.at), self.at + 1 >= leaf.len()))?;
        let (range, value) = region?;
        if range.first_page() >= self.end {
            self.leaf = None;
            return None;
        }
        self.page = range.end_page();
        self.at += 1;
        if is_last {
            self.descend();
        }
        Some((range, value))
    }
}

impl<V: Copy, M: Memory> FusedIterator for Regions<'_, V, M> {}

impl<V: Copy, M: Memory> Clone for Regions<'_, V, M> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<V: Copy, M: Memory> fmt::Debug for Regions<'_, V, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Regions(those with a page from {:#x} to {:#x})", self.page, self.end)
    }
}
