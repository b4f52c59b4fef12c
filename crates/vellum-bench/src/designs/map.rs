//! What a row needs of a map from page to entry, and the list of those that take part.
//!
//! ```text
//!   Map    insert  look_up  delete        each of a list of pages, a call a page
//!
//!   ours   Chained  Clustered16  Clustered6  Line8, and by Robin Hood  Htab  Cuckoo  Inverted
//!   peers  hashbrown, by (asid, page); the same with foldhash's better mixing; by one word
//!
//!   a page of a list:   | address, 52 bits | asid, 12 |
//! ```
//!
//! Everybody makes his key of that word, inside what is measured. What is found is added up: an entry
//! that is not there counts 0, so that the sum tells whether all were right.

use super::ours::Ours;
use super::peers::{Pair, Peer, Quality, Word};
use super::ram::{DATA, Ram};
use vellum_core::VirtAddr;
use vellum_hashed::{Asid, Chained, Clustered6, Clustered16, Cuckoo, Htab, Line8};
use vellum_inverted::Inverted;

/// The first frame that an entry maps.
const FIRST: u64 = DATA;
/// The low bits of an entry: present, writable, user, accessed, dirty.
const LEAF: u64 = 0x67;
/// Bits of a page's word that are not its address.
const ASID: u64 = 0xfff;

/// A page of an address space, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Page(u64);

impl Page {
    /// The page `number` of space `asid`, which is below 4095.
    #[must_use]
    pub const fn new(asid: u16, number: u64) -> Self {
        Self(number << 12 | asid as u64 & ASID)
    }

    /// The space.
    #[inline(always)]
    #[must_use]
    pub fn asid(self) -> Asid {
        Asid::new((self.0 & ASID) as u16).unwrap_or(Asid::ZERO)
    }

    /// Where the page begins.
    #[inline(always)]
    #[must_use]
    pub const fn va(self) -> VirtAddr {
        VirtAddr::new(self.0 & !ASID)
    }

    /// Both, as they come.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        self.0
    }
}

/// The entry of the `n`th page that is inserted: a frame of its own, read and write, for a user.
#[inline(always)]
#[must_use]
pub const fn entry(n: u64) -> u64 {
    FIRST + ((n << 12) | LEAF)
}

/// A map from page to entry.
pub trait Map: Sized {
    /// As the tables of the report call it.
    const NAME: &'static str;

    /// An empty one, as small as it comes; `pages` is what one that cannot grow has to hold.
    fn new(pages: usize) -> Self;

    /// Gives each page its [`entry`], counted from 0; how many had none before.
    fn insert(&mut self, pages: &[Page]) -> u64;

    /// The sum of the entries of these pages.
    fn look_up(&self, pages: &[Page]) -> u64;

    /// Takes these pages out; the sum of their entries.
    fn delete(&mut self, pages: &[Page]) -> u64;

    /// Cache lines that a walker reads for these pages, if it is a table that has walkers.
    fn lines(&self, pages: &[Page]) -> Option<u64>;
}

/// Something done with each map.
pub trait Visit {
    /// Does it with one.
    fn visit<M: Map>(&mut self);
}

/// Each contender: the yardstick, the other peers, ours.
pub fn all(visit: &mut impl Visit) {
    visit.visit::<Peer<Pair>>();
    visit.visit::<Peer<Quality>>();
    visit.visit::<Peer<Word>>();
    visit.visit::<Ours<Chained<Ram>>>();
    visit.visit::<Ours<Clustered16<Ram>>>();
    visit.visit::<Ours<Clustered6<Ram>>>();
    visit.visit::<Ours<Line8<Ram>>>();
    visit.visit::<Ours<Line8<Ram, true>>>();
    visit.visit::<Ours<Htab<Ram>>>();
    visit.visit::<Ours<Cuckoo<Ram>>>();
    visit.visit::<Ours<Inverted<Ram>>>();
}

/// The name of the one that the others are measured by.
pub const YARDSTICK: &str = <Peer<Pair> as Map>::NAME;

/// Whether a contender is one of ours.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    !name.starts_with(YARDSTICK)
}
