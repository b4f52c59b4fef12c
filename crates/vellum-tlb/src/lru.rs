//! A set-associative array of 64-bit tags with true LRU replacement: what a TLB, a walk cache and
//! a cache of page-table lines all are.
//!
//! ```text
//!            most recent                        least recent
//!  set 0   [   tag   |   tag   |   tag   |  empty  ]
//!  set 1   [   tag   |  empty  |  empty  |  empty  ]
//!  ...            \________/ a hit moves its tag to the front, an insertion pushes the last out
//! ```
//!
//! The order in memory *is* the recency, so a hit on the most recent way (nearly all of them, in a
//! program) is one load and one compare, and no age needs a field.
//!
//! # Invariants
//!
//! - Within a set the tags in use come first; what follows them is empty (0).
//! - No tag is in the same set twice.
//!
//! Source: the list formulation of LRU, Mattson et al., "Evaluation techniques for storage
//! hierarchies", IBM Systems Journal 9(2), 1970.

use crate::Geometry;
use alloc::vec;
use alloc::vec::Vec;

/// A way that holds nothing.
const EMPTY: u64 = 0;

/// Sets of tags, each set in order of recency.
///
/// A tag is any number but 0, which stands for an empty way and is not to be looked up; the caller
/// also says which set it belongs to, by a number that is taken modulo the number of sets.
///
/// ```
/// use vellum_tlb::{Geometry, LruSets};
///
/// let mut cache = LruSets::new(Geometry::full(2));
/// assert_eq!(cache.insert(0, 10), None);
/// assert_eq!(cache.insert(0, 20), None);
/// assert!(cache.touch(0, 10)); // 20 is now the oldest
/// assert_eq!(cache.insert(0, 30), Some(20));
/// ```
#[derive(Clone, Debug)]
pub struct LruSets {
    tags: Vec<u64>,
    ways: usize,
    sets: u64,
    /// `sets - 1` where that selects the set (a power of two), else `None`: a division is needed.
    mask: Option<u64>,
}

impl LruSets {
    /// An empty array of this shape. A [`Geometry`] without entries never holds anything.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        let sets = u64::from(geometry.sets());
        let mask = sets.is_power_of_two().then(|| sets - 1);
        let ways = usize::from(geometry.ways());
        Self { tags: vec![EMPTY; geometry.entries() as usize], ways, sets, mask }
    }

    /// Index of the first way of the set of `number`.
    #[inline]
    fn base(&self, number: u64) -> usize {
        let set = match self.mask {
            Some(mask) => number & mask,
            None => number % self.sets.max(1),
        };
        set as usize * self.ways
    }

    /// Whether `tag` is present in the set of `number`; if so it becomes the most recent one.
    #[inline]
    pub fn touch(&mut self, number: u64, tag: u64) -> bool {
        let base = self.base(number);
        match self.tags.get(base) {
            Some(&first) if first == tag => true,
            Some(_) => self.touch_behind_first(base, tag),
            None => false,
        }
    }

    fn touch_behind_first(&mut self, base: usize, tag: u64) -> bool {
        let set = &mut self.tags[base..base + self.ways];
        let Some(way) = position(set, tag) else { return false };
        set.copy_within(..way, 1);
        set[0] = tag;
        true
    }

    /// Whether `tag` is present in the set of `number`; recency stays as it is.
    #[must_use]
    pub fn contains(&self, number: u64, tag: u64) -> bool {
        let base = self.base(number);
        self.tags.get(base..base + self.ways).is_some_and(|set| set.contains(&tag))
    }

    /// Puts `tag`, which must not be present, in front of its set, and returns the tag that had to
    /// leave, if any.
    ///
    /// Inserting 0 does nothing: that is no tag.
    pub fn insert(&mut self, number: u64, tag: u64) -> Option<u64> {
        let base = self.base(number);
        let set = self.tags.get_mut(base..base + self.ways)?;
        let &last = set.last()?;
        if tag == EMPTY {
            return None;
        }
        debug_assert!(!set.contains(&tag), "tag {tag:#x} is in its set already");
        set.copy_within(..set.len() - 1, 1);
        set[0] = tag;
        (last != EMPTY).then_some(last)
    }

    /// Drops every tag for which `keep` is false; the others keep their order.
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        for set in self.tags.chunks_exact_mut(self.ways.max(1)) {
            retain_in(set, &mut keep);
        }
    }

    /// As [`retain`](Self::retain), in the set of `number` alone.
    pub fn retain_set(&mut self, number: u64, mut keep: impl FnMut(u64) -> bool) {
        let base = self.base(number);
        if let Some(set) = self.tags.get_mut(base..base + self.ways) {
            retain_in(set, &mut keep);
        }
    }

    /// Empties the array.
    pub fn clear(&mut self) {
        self.tags.fill(EMPTY);
    }

    /// The tags present, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.tags.iter().copied().filter(|&tag| tag != EMPTY)
    }
}

/// Where `tag` is. Eight ways are compared at a time, which the compiler turns into vector
/// compares: a miss in a fully associative array of 96 then costs about what 12 ways do.
#[inline]
fn position(set: &[u64], tag: u64) -> Option<usize> {
    const STEP: usize = 8;
    let mut start = 0;
    for chunk in set.chunks_exact(STEP) {
        if chunk.iter().fold(false, |any, &way| any | (way == tag)) {
            break;
        }
        start += STEP;
    }
    set[start..].iter().position(|&way| way == tag).map(|way| start + way)
}

fn retain_in(set: &mut [u64], keep: &mut impl FnMut(u64) -> bool) {
    let mut kept = 0;
    for way in 0..set.len() {
        let tag = set[way];
        if tag == EMPTY {
            break;
        }
        if keep(tag) {
            set[kept] = tag;
            kept += 1;
        }
    }
    set[kept..].fill(EMPTY);
}

#[cfg(test)]
mod tests;
