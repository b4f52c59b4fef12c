//! The rows: which pages there are, and what a turn does with them.
//!
//! ```text
//!               random              dense                      consecutive
//!   pages       of 47 bits,         4 spaces of runs, of 1 to  4 spaces, a quarter of the pages
//!               in 4 spaces         1024 pages, with gaps      each, in a run
//!   inserted    in no order         in order                   in order
//!   looked up   in no order         in no order                in order
//!   missed      other such pages    those of the gaps          the pages behind each run
//!   deleted     in another order    in another order           in order
//! ```
//!
//! What a page table sees is mostly the second.
//!
//! A turn makes an empty map, inserts all pages, looks some up that are there and some that are not,
//! and deletes all. Small sizes are looked up more than once, so that a clock can tell.
//!
//! # Invariants
//!
//! - Each act is checked by what it returns: all were new, all found, none, all gone.

use super::map::{Map, Page, entry};
use crate::random::Random;
use core::hint::black_box;

/// Spaces, numbered from 1.
const SPACES: u64 = 4;
/// Look-ups of a turn, at least and at most; as many as there are pages, in between.
const LOOKS: [usize; 2] = [1 << 16, 1 << 20];
/// Bits of a page number in 47 bits of address.
const PAGE_BITS: u32 = 35;
/// log2 of the pages of the longest run among gaps.
const LONGEST: usize = 10;
/// The first page of a run.
const RUN: u64 = 0x7f_0000;

/// Which pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Anywhere, in no order.
    Random,
    /// In runs with gaps between, in no order.
    Dense,
    /// In runs, in order.
    Consecutive,
}

impl Order {
    /// All.
    pub const ALL: [Self; 3] = [Self::Random, Self::Dense, Self::Consecutive];

    /// As sections and `--pairs` have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Dense => "dense",
            Self::Consecutive => "consecutive",
        }
    }
}

/// What is measured, in the order of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Puts in a page that is not there; the table grows meanwhile.
    Insert,
    /// Looks up a page that is there.
    Hit,
    /// Looks up one that is not.
    Miss,
    /// Takes a page out.
    Delete,
}

impl Act {
    /// All.
    pub const ALL: [Self; 4] = [Self::Insert, Self::Hit, Self::Miss, Self::Delete];

    /// The first word of a row's title.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Insert => "insert",
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Delete => "delete",
        }
    }
}

/// Takes the time, or counts, of what it is given, and calls it once.
pub type Meter<'m> = &'m mut dyn FnMut(&mut dyn FnMut());

/// The pages of a turn.
#[derive(Clone, Debug)]
pub struct Pages {
    inserted: Vec<Page>,
    hits: Vec<Page>,
    misses: Vec<Page>,
    deleted: Vec<Page>,
    /// Sums of the entries of `hits` and `deleted`.
    sums: [u64; 2],
}

impl Pages {
    /// For a map of `count` pages, a multiple of 4.
    #[must_use]
    pub fn new(order: Order, count: usize) -> Self {
        let looks = count.clamp(LOOKS[0], LOOKS[1]);
        let (inserted, absent) = match order {
            Order::Random => scattered(count),
            Order::Dense => dense(count),
            Order::Consecutive => (runs(RUN, count), runs(RUN + count as u64, count)),
        };
        let mut random = Random::new(0x2d);
        let mut deletions: Vec<usize> = (0..count).collect();
        let mut looked: Vec<usize> = (0..looks).map(|n| n % count).collect();
        if order != Order::Consecutive {
            random.shuffle(&mut deletions);
            looked.fill_with(|| random.below(count));
        }
        let sum =
            |places: &[usize]| places.iter().map(|&n| entry(n as u64)).fold(0, u64::wrapping_add);
        let pick = |pages: &[Page], places: &[usize]| places.iter().map(|&n| pages[n]).collect();
        Self {
            hits: pick(&inserted, &looked),
            misses: pick(&absent, &looked),
            deleted: pick(&inserted, &deletions),
            sums: [sum(&looked), sum(&deletions)],
            inserted,
        }
    }

    /// One turn of a contender, `meter` being called once for each of [`Act::ALL`].
    ///
    /// # Panics
    ///
    /// When the contender loses a page, or finds one that is not there.
    pub fn turn<M: Map>(&self, meter: Meter<'_>) {
        let mut map = M::new(self.inserted.len());
        let mut done = [false; 4];
        let [all_new, all_found, none_found, all_gone] = &mut done;
        let count = self.inserted.len() as u64;
        meter(&mut || *all_new = black_box(&mut map).insert(black_box(&self.inserted)) == count);
        meter(&mut || *all_found = black_box(&map).look_up(black_box(&self.hits)) == self.sums[0]);
        meter(&mut || *none_found = black_box(&map).look_up(black_box(&self.misses)) == 0);
        meter(&mut || {
            *all_gone = black_box(&mut map).delete(black_box(&self.deleted)) == self.sums[1];
        });
        assert_eq!(done, [true; 4], "{} failed with {count} pages: {:?}", M::NAME, Act::ALL);
        assert_eq!(map.look_up(&self.deleted), 0, "{} finds what it deleted", M::NAME);
    }

    /// For how many pages each act of a turn is.
    #[must_use]
    pub fn counts(&self) -> [usize; 4] {
        [self.inserted.len(), self.hits.len(), self.misses.len(), self.deleted.len()]
    }

    /// Cache lines that a walker reads, on average, for a hit and for a miss.
    #[must_use]
    pub fn lines<M: Map>(&self) -> Option<[f64; 2]> {
        let mut map = M::new(self.inserted.len());
        map.insert(&self.inserted);
        let mean = |pages: &[Page]| Some(map.lines(pages)? as f64 / pages.len() as f64);
        Some([mean(&self.hits)?, mean(&self.misses)?])
    }
}

/// Pages anywhere, and as many others.
fn scattered(count: usize) -> (Vec<Page>, Vec<Page>) {
    let mut random = Random::new(0x1a);
    let mut pages = Vec::new();
    // Two are hardly ever the same: a few more will do.
    while pages.len() < 2 * count {
        pages.extend((0..2 * count + 64 - pages.len()).map(|_| {
            let bits = random.bits();
            Page::new(1 + (bits % SPACES) as u16, bits >> (64 - PAGE_BITS))
        }));
        pages.sort_unstable();
        pages.dedup();
    }
    random.shuffle(&mut pages);
    pages.truncate(2 * count);
    let absent = pages.split_off(count);
    (pages, absent)
}

/// In each space runs, and as many pages of the gaps between them and behind. Lengths of both are powers
/// of two up to 1024, each as frequent as any other.
fn dense(count: usize) -> (Vec<Page>, Vec<Page>) {
    let mut random = Random::new(0x3b);
    let each = count / SPACES as usize;
    let (mut pages, mut absent) = (Vec::new(), Vec::new());
    for asid in 1..=SPACES as u16 {
        let (mut next, mut left, mut gaps) = (RUN, each, each);
        while left > 0 || gaps > 0 {
            for (list, left) in [(&mut pages, &mut left), (&mut absent, &mut gaps)] {
                let len = 1 << random.below(LONGEST + 1);
                list.extend((next..).take(len.min(*left)).map(|page| Page::new(asid, page)));
                next += len as u64;
                *left -= len.min(*left);
            }
        }
    }
    (pages, absent)
}

/// In each space a run from this page on.
fn runs(first: u64, count: usize) -> Vec<Page> {
    let each = count as u64 / SPACES;
    let space = |asid: u64| (first..first + each).map(move |page| Page::new(asid as u16, page));
    (1..=SPACES).flat_map(space).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn pages_differ_and_those_to_be_missed_are_not_there() {
        for order in Order::ALL {
            let pages = Pages::new(order, 4096);
            let set: BTreeSet<_> = pages.inserted.iter().copied().collect();
            assert_eq!(set.len(), 4096, "{order:?}");
            assert!(pages.hits.iter().all(|page| set.contains(page)));
            assert!(pages.misses.iter().all(|page| !set.contains(page)));
            assert!(set.into_iter().eq(pages.deleted.iter().copied().collect::<BTreeSet<_>>()));
            assert_eq!(pages.counts(), [4096, LOOKS[0], LOOKS[0], 4096]);
        }
    }
}
