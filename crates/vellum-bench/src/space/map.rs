//! What a row needs of a map of regions, and the list of those that take part.
//!
//! ```text
//!   Map    insert  find  gap  remove      each of a list, a call for each
//!
//!   ours   VmaMap<u64>
//!   peers  BTreeMap<start, (end, value)>   rangemap   nodit   memory_set
//! ```
//!
//! Values are the numbers of the regions, so that a sum of those found tells whether all were right.

use super::ours::Ours;
use super::peers::{Areas, BTree, Nodit, RangeMap};

/// A region: its first byte, the byte behind it, and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first byte.
    pub start: u64,
    /// The byte behind the last one.
    pub end: u64,
    /// What is kept of it.
    pub value: u64,
}

/// A gap that is asked for, at least `len` bytes between `low` and `high`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// How many bytes.
    pub len: u64,
    /// Not below this.
    pub low: u64,
    /// And not from here on.
    pub high: u64,
}

/// A map of regions.
pub trait Map: Sized {
    /// As the tables of the report call it.
    const NAME: &'static str;
    /// Whether a search for a gap looks at one region after the other.
    const GAPS_ARE_SCANNED: bool;
    /// Whether taking a region out looks at all of them.
    const REMOVALS_ARE_SCANNED: bool;

    /// An empty one.
    fn new() -> Self;

    /// Puts regions in; how many were refused.
    fn insert(&mut self, regions: &[Span]) -> u64;

    /// The sum of the values of the regions that these bytes are in.
    fn find(&self, addresses: &[u64]) -> u64;

    /// The sum of the lowest addresses of such gaps.
    fn lowest(&self, asks: &[Ask]) -> u64;

    /// The sum of the highest ones; `None` where the map cannot be walked downwards.
    fn highest(&self, asks: &[Ask]) -> Option<u64>;

    /// Takes each region out and puts it back; how often that failed.
    fn pair(&mut self, regions: &[Span]) -> u64;
}

/// Something done with each map.
pub trait Visit {
    /// Does it with one.
    fn visit<M: Map>(&mut self);
}

/// Each contender, ours first.
pub fn all(visit: &mut impl Visit) {
    visit.visit::<Ours>();
    visit.visit::<BTree>();
    visit.visit::<RangeMap>();
    visit.visit::<Nodit>();
    visit.visit::<Areas>();
}

/// Ours.
pub const OURS: &str = <Ours as Map>::NAME;
