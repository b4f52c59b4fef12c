//! `hashbrown`, which is also the standard library's map, by three kinds of keys and hashes.
//!
//! ```text
//!   hashbrown            HashMap<(asid, page), entry>, as it comes: its hash is foldhash's fast one
//!   hashbrown, quality   the same with foldhash's better mixing
//!   hashbrown, word      HashMap<u64, entry>: asid and page packed into one word by the caller
//! ```

use super::map::{Map, Page, entry};
use core::fmt;
use core::hash::{BuildHasher, Hash};
use core::hint::black_box;
use hashbrown::{DefaultHashBuilder, HashMap};

/// A kind of key and hash.
pub trait Kind {
    /// As the tables of the report call it.
    const NAME: &'static str;
    /// What pages are found by.
    type Key: Copy + Eq + Hash;
    /// How it is hashed.
    type Build: BuildHasher + Default;

    /// The key of a page.
    fn key(page: Page) -> Self::Key;
}

/// By space and page, as it comes.
#[derive(Debug)]
pub enum Pair {}
/// By space and page, better mixed.
#[derive(Debug)]
pub enum Quality {}
/// By one word.
#[derive(Debug)]
pub enum Word {}

impl Kind for Pair {
    const NAME: &'static str = "hashbrown";
    type Key = (u16, u64);
    type Build = DefaultHashBuilder;

    #[inline(always)]
    fn key(page: Page) -> (u16, u64) {
        (page.asid().as_u16(), page.va().number().as_u64())
    }
}

impl Kind for Quality {
    const NAME: &'static str = "hashbrown, quality";
    type Key = (u16, u64);
    type Build = foldhash::quality::RandomState;

    #[inline(always)]
    fn key(page: Page) -> (u16, u64) {
        Pair::key(page)
    }
}

impl Kind for Word {
    const NAME: &'static str = "hashbrown, word";
    type Key = u64;
    type Build = DefaultHashBuilder;

    #[inline(always)]
    fn key(page: Page) -> u64 {
        page.word()
    }
}

/// A map of one kind.
pub struct Peer<K: Kind>(HashMap<K::Key, u64, K::Build>);

impl<K: Kind> fmt::Debug for Peer<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} entries", K::NAME, self.0.len())
    }
}

impl<K: Kind> Map for Peer<K> {
    const NAME: &'static str = K::NAME;

    fn new(_: usize) -> Self {
        Self(HashMap::default())
    }

    #[inline(never)]
    fn insert(&mut self, pages: &[Page]) -> u64 {
        let mut new = 0;
        for (n, &page) in (0..).zip(pages) {
            let old = black_box(&mut self.0).insert(K::key(page), entry(n));
            new += u64::from(old.unwrap_or(0) == 0);
        }
        new
    }

    #[inline(never)]
    fn look_up(&self, pages: &[Page]) -> u64 {
        let found = pages.iter().map(|&page| black_box(&self.0).get(&K::key(page)));
        found.map(|entry| entry.copied().unwrap_or(0)).fold(0, u64::wrapping_add)
    }

    #[inline(never)]
    fn delete(&mut self, pages: &[Page]) -> u64 {
        let gone = pages.iter().map(|&page| black_box(&mut self.0).remove(&K::key(page)));
        gone.map(Option::unwrap_or_default).fold(0, u64::wrapping_add)
    }

    fn lines(&self, _: &[Page]) -> Option<u64> {
        None
    }
}
