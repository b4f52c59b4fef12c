//! A set-associative array of 64-bit tags with true LRU replacement: what a TLB, a walk cache and
//! a cache of page-table lines all are.
//!
//! ```text
//!   first     tag                     the most recent one of each set, once more
//!   tags      [ c | a | - | b ]       a tag stays in the way that it came into
//!   prints    [ . | . | . | . ]       16 bits of each, mixed: compared many at a time
//!   links       the ways of a set in a circle, from the most recent to the oldest and back
//!
//!                head
//!                 v      older -->
//!                 b ----- c ----- a ----- (empty)
//!                 +----------- newer ----------+
//!
//!   hit       take the way out of the circle, put it in again before the head: the new head
//!   insert    the way before the head is the oldest: its tag goes, and it is the head
//! ```
//!
//! A hit on the most recent tag (nearly all of them, in a program) is one load and one compare.
//! Everything else is without a branch that depends on where a tag is found: in a cache that is used
//! at random a mispredicted one costs more than comparing all ways does.
//!
//! # Invariants
//!
//! - The circle of a set has each of its ways once; those in use come first from the head, in order of
//!   recency, then the empty ones (tag 0).
//! - `first` of a set is the tag of its head; a way's print is that of its tag, if it has one.
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
    first: Vec<u64>,
    heads: Vec<u16>,
    tags: Vec<u64>,
    prints: Vec<u16>,
    links: Vec<Links>,
    ways: usize,
    sets: u64,
    /// `sets - 1` where that selects the set (a power of two), else `None`: a division is needed.
    mask: Option<u64>,
}

/// The neighbours of a way in the circle of its set.
#[derive(Clone, Copy, Debug)]
struct Links {
    newer: u16,
    older: u16,
}

impl LruSets {
    /// An empty array of this shape. A [`Geometry`] without entries never holds anything.
    #[must_use]
    pub fn new(geometry: Geometry) -> Self {
        let (sets, ways) = (geometry.sets(), geometry.ways());
        let mask = sets.is_power_of_two().then(|| u64::from(sets) - 1);
        let circle = (0..ways).map(|way| Links {
            newer: way.checked_sub(1).unwrap_or(ways - 1),
            older: if way + 1 == ways { 0 } else { way + 1 },
        });
        Self {
            first: vec![EMPTY; usize::from(sets)],
            heads: vec![0; usize::from(sets)],
            tags: vec![EMPTY; geometry.entries() as usize],
            prints: vec![0; geometry.entries() as usize],
            links: (0..sets).flat_map(|_| circle.clone()).collect(),
            ways: usize::from(ways),
            sets: u64::from(sets),
            mask,
        }
    }

    #[inline]
    fn set_of(&self, number: u64) -> usize {
        (match self.mask {
            Some(mask) => number & mask,
            None => number % self.sets.max(1),
        }) as usize
    }

    /// Whether `tag` is present in the set of `number`; if so it becomes the most recent one.
    #[inline]
    pub fn touch(&mut self, number: u64, tag: u64) -> bool {
        let set = self.set_of(number);
        match self.first.get(set) {
            Some(&first) if first == tag => true,
            Some(_) => self.touch_behind_first(set, tag),
            None => false,
        }
    }

    fn touch_behind_first(&mut self, set: usize, tag: u64) -> bool {
        let way = self.position(set, tag);
        if let Some(way) = way {
            self.promote(set, way, tag);
        }
        way.is_some()
    }

    /// Whether `tag` was present in the set of `number`; it is now, and the most recent one.
    ///
    /// As [`touch`](Self::touch) and, if that found nothing, [`insert`](Self::insert).
    #[inline]
    pub fn touch_or_insert(&mut self, number: u64, tag: u64) -> bool {
        let hit = self.touch(number, tag);
        if !hit {
            self.insert(number, tag);
        }
        hit
    }

    /// Whether `tag` is present in the set of `number`; recency stays as it is.
    #[must_use]
    pub fn contains(&self, number: u64, tag: u64) -> bool {
        let set = self.set_of(number);
        set < self.first.len() && self.position(set, tag).is_some()
    }

    /// Puts `tag`, which must not be present, in front of its set, and returns the tag that had to
    /// leave, if any.
    ///
    /// Inserting 0 does nothing: that is no tag.
    #[inline]
    pub fn insert(&mut self, number: u64, tag: u64) -> Option<u64> {
        let set = self.set_of(number);
        if tag == EMPTY || set >= self.first.len() {
            return None;
        }
        debug_assert!(!self.contains(number, tag), "tag {tag:#x} is in its set already");
        let base = set * self.ways;
        let head = usize::from(self.heads[set]);
        let oldest = self.links[base + head].newer;
        self.heads[set] = oldest;
        self.first[set] = tag;
        let way = base + usize::from(oldest);
        self.prints[way] = print(tag);
        let old = core::mem::replace(&mut self.tags[way], tag);
        (old != EMPTY).then_some(old)
    }

    /// Makes `way`, which is not the head and holds `tag`, the head.
    #[inline]
    fn promote(&mut self, set: usize, way: usize, tag: u64) {
        self.make_oldest(set, way);
        self.heads[set] = way as u16;
        self.first[set] = tag;
    }

    /// Takes `way`, which is not the head, out of the circle, and puts it in again before the head.
    #[inline]
    fn make_oldest(&mut self, set: usize, way: usize) {
        let base = set * self.ways;
        let head = self.heads[set];
        let links = &mut self.links[base..base + self.ways];
        let Links { newer, older } = links[way];
        links[usize::from(newer)].older = older;
        links[usize::from(older)].newer = newer;
        let oldest = links[usize::from(head)].newer;
        links[usize::from(oldest)].older = way as u16;
        links[way] = Links { newer: oldest, older: head };
        links[usize::from(head)].newer = way as u16;
    }

    /// The way of `set` that holds `tag`: the prints say which it could be, or that it is none.
    #[inline]
    fn position(&self, set: usize, tag: u64) -> Option<usize> {
        let ways = set * self.ways..(set + 1) * self.ways;
        let at = match_of(&self.prints[ways.clone()], print(tag));
        let tags = &self.tags[ways];
        match at.checked_sub(1) {
            None => None,
            Some(way) if tags.get(way) == Some(&tag) => Some(way),
            Some(_) => position_by_tags(tags, tag),
        }
    }

    /// Drops every tag for which `keep` is false; the others keep their order.
    pub fn retain(&mut self, mut keep: impl FnMut(u64) -> bool) {
        for set in 0..self.first.len() {
            self.retain_in(set, &mut keep);
        }
    }

    /// As [`retain`](Self::retain), in the set of `number` alone.
    pub fn retain_set(&mut self, number: u64, mut keep: impl FnMut(u64) -> bool) {
        let set = self.set_of(number);
        if set < self.first.len() {
            self.retain_in(set, &mut keep);
        }
    }

    fn retain_in(&mut self, set: usize, keep: &mut impl FnMut(u64) -> bool) {
        let base = set * self.ways;
        let (mut dropped, mut kept) = (0, 0);
        for tag in &mut self.tags[base..base + self.ways] {
            if *tag != EMPTY {
                let stays = keep(*tag);
                kept += usize::from(stays);
                dropped += usize::from(!stays);
                *tag = if stays { *tag } else { EMPTY };
            }
        }
        if dropped > 0 && kept > 0 {
            self.empty_ways_last(set);
        }
        self.first[set] = self.tags[base + usize::from(self.heads[set])];
    }

    /// Gives the circle of a set its order again after ways became empty.
    fn empty_ways_last(&mut self, set: usize) {
        let base = set * self.ways;
        let mut way = usize::from(self.heads[set]);
        for _ in 0..self.ways {
            let older = self.links[base + way].older;
            if self.tags[base + way] == EMPTY {
                if way == usize::from(self.heads[set]) {
                    // Turning the circle by one makes the head the oldest.
                    self.heads[set] = older;
                } else {
                    self.make_oldest(set, way);
                }
            }
            way = usize::from(older);
        }
    }

    /// Empties the array.
    pub fn clear(&mut self) {
        self.tags.fill(EMPTY);
        self.first.fill(EMPTY);
    }

    /// The tags present, in no promised order.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.tags.iter().copied().filter(|&tag| tag != EMPTY)
    }
}

/// 16 bits that depend on all of `tag`.
#[inline]
const fn print(tag: u64) -> u16 {
    (tag.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u16
}

/// One more than the place of the one print that is `wanted`; 0 if none is. If several are, it is
/// some number but 0.
///
/// There is no branch but the loop's own, so that it becomes vector compares.
#[inline]
fn match_of(prints: &[u16], wanted: u16) -> usize {
    let places = prints.iter().zip(0u16..);
    let matched = places.map(|(&print, place)| if print == wanted { place + 1 } else { 0 });
    usize::from(matched.fold(0, |all, number| all | number))
}

/// Two ways have the same print, which is rare: look at the tags.
#[cold]
fn position_by_tags(tags: &[u64], tag: u64) -> Option<usize> {
    tags.iter().position(|&way| way == tag)
}

#[cfg(test)]
mod tests;
