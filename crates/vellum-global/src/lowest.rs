//! The lowest few of many keys, in a fixed room.
//!
//! ```text
//!   offered, in any order:   50  20  90  10  70  20
//!   room 3, range 15..:      [50] [20 50] [20 50 90]  -  [20 50 70]  -
//! ```
//!
//! A global table has its entries in no order. To go through them in order, or to take a stripe in
//! portions while others change it, one asks for the lowest keys above those already seen: that
//! stays right whatever moves in between, where a position would not.
//!
//! # Invariants
//!
//! - Keys are held once each, ascending, all in the range.
//! - If fewer are held than there is room, nothing in the range was turned away.

use crate::{Key, Keys};

/// Keys of a range with their raw entries: the lowest of those that were offered.
#[derive(Clone, Debug)]
pub struct Lowest {
    range: Keys,
    len: usize,
    held: [(Key, u64); Self::ROOM],
}

impl Lowest {
    /// How many it holds: 64, which with their entries are 1 KiB.
    pub const ROOM: usize = 64;

    /// An empty one for the keys of `range`.
    #[must_use]
    pub const fn new(range: Keys) -> Self {
        Self { range, len: 0, held: [(range.first(), 0); Self::ROOM] }
    }

    /// Empties it, for the keys of another range.
    pub const fn restart(&mut self, range: Keys) {
        self.range = range;
        self.len = 0;
    }

    /// The keys that it takes.
    #[must_use]
    pub const fn range(&self) -> Keys {
        self.range
    }

    /// Takes a key and its raw entry if it is in the range, not 0, and low enough.
    pub fn offer(&mut self, key: Key, raw: u64) {
        if raw == 0 || !self.range.contains(key) {
            return;
        }
        let (Ok(at) | Err(at)) = self.held().binary_search_by_key(&key, |&(key, _)| key);
        let known = self.held().get(at).is_some_and(|&(held, _)| held == key);
        if !known && at < Self::ROOM {
            let len = Self::ROOM.min(self.len + 1);
            if let Some(tail) = self.held.get_mut(at..len) {
                tail.rotate_right(1);
            }
            self.len = len;
        }
        if let Some(slot) = self.held.get_mut(at) {
            *slot = (key, raw);
        }
    }

    /// What it holds, ascending.
    #[must_use]
    pub fn held(&self) -> &[(Key, u64)] {
        self.held.get(..self.len).unwrap_or(&[])
    }

    /// The part of the range that may hold more than was taken; `None` if there can be none.
    #[must_use]
    pub fn rest(&self) -> Option<Keys> {
        let (last, _) = self.held().last()?;
        if self.len < Self::ROOM { None } else { self.range.after(*last) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Asid;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::vec::Vec;
    use vellum_core::VirtAddr;

    fn key(page: u64) -> Key {
        Key::new(Asid::new(1).unwrap(), VirtAddr::new(page << 12))
    }

    proptest! {
        #![proptest_config(vellum_testkit::suite::config(256))]

        #[test]
        fn it_holds_the_lowest_of_the_range(
            first in 0..200u64,
            offers in prop::collection::vec((0..400u64, 1..100u64), 0..300),
        ) {
            let range = Keys::new(Asid::new(1).unwrap(), VirtAddr::new(first << 12), 150 << 12);
            let mut lowest = Lowest::new(range.unwrap());
            let mut all = BTreeMap::new();
            for (page, raw) in offers {
                lowest.offer(key(page), raw);
                if (first..first + 150).contains(&page) {
                    all.insert(key(page), raw);
                }
            }
            let expected: Vec<_> = all.iter().map(|(&k, &raw)| (k, raw)).take(Lowest::ROOM).collect();
            let keys: Vec<_> = lowest.held().iter().map(|&(k, _)| k).collect();
            prop_assert_eq!(keys, expected.iter().map(|&(k, _)| k).collect::<Vec<_>>());
            // Nothing is turned away for good that the rest of the range does not bring again.
            let turned_away = all.keys().nth(Lowest::ROOM);
            let rest = lowest.rest();
            prop_assert!(turned_away.is_none_or(|&k| rest.is_some_and(|r| r.contains(k))));
        }
    }

    #[test]
    fn an_entry_offered_again_is_the_newer_one() {
        let mut lowest = Lowest::new(Keys::all(Asid::new(1).unwrap()));
        lowest.offer(key(5), 1);
        lowest.offer(key(5), 2);
        lowest.offer(key(6), 0);
        assert_eq!(lowest.held(), [(key(5), 2)]);
        assert_eq!(lowest.rest(), None);
    }
}
