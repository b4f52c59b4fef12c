//! What a row needs of a page table, and the list of those that take part.
//!
//! ```text
//!             changes                                   looks
//!   Table     map  map_each  map_large  make_room       translate  is_writable
//!             protect  unmap  unmap_free  unmap_blind
//!
//!   Ours   X86_64   Multiarch   Generic   Aarch64
//! ```
//!
//! Rows are generic over this trait, so that every library's code is inlined as far as the compiler
//! cares to. A call that changes something says whether all of it went well: nobody is spared the
//! look at his own errors, since a kernel has to take it as well.

use super::ours::Ours;
use super::peers::{Aarch64, Generic, Multiarch, X86_64};
use super::rows::Row;

/// Bytes of a page.
pub const PAGE: u64 = 1 << 12;

/// Bytes of a large leaf.
pub const LARGE: u64 = 1 << 21;

/// A table with its frames in [`Ram`](super::ram::Ram), which no CPU reaches.
pub trait Table: Sized {
    /// As the tables of the report call it.
    const NAME: &'static str;

    /// What it has no call for.
    const LACKS: &'static [Row] = &[];

    /// An empty one.
    fn new() -> Self;

    /// Maps pages to frames that follow each other, read and write, by leaves of 4 KiB.
    fn map(&mut self, va: u64, pa: u64, len: u64) -> bool;

    /// The same for pages and frames as they come, one call each.
    fn map_each(&mut self, pages: impl Iterator<Item = (u64, u64)>) -> bool;

    /// As [`map`](Self::map), by leaves of 2 MiB. The frames are not aligned to 1 GiB.
    fn map_large(&mut self, va: u64, pa: u64, len: u64) -> bool;

    /// Has tables of the lowest level for the range, with nothing in them.
    fn make_room(&mut self, va: u64, len: u64) -> bool;

    /// Where the byte at `va` is.
    fn translate(&self, va: u64) -> Option<u64>;

    /// Whether the page at `va` may be written.
    fn is_writable(&self, va: u64) -> bool;

    /// Takes the right to write, or gives it back, for the range that was mapped to the frames from
    /// `pa` on.
    fn protect(&mut self, va: u64, pa: u64, len: u64, writable: bool) -> bool;

    /// Unmaps; `sink` hears of all frames: where they begin, and how many bytes.
    fn unmap(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool;

    /// The same, and the tables that are empty then are given back.
    fn unmap_free(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool;

    /// Unmaps, and nobody needs to hear of the frames.
    fn unmap_blind(&mut self, va: u64, len: u64) -> bool;

    /// Gives back all frames that it has for itself, whatever is mapped.
    fn retire(self);
}

/// Something done with each table.
pub trait Visit {
    /// Does it with one.
    fn visit<T: Table>(&mut self);
}

/// Each contender, ours first.
pub fn all(visit: &mut impl Visit) {
    visit.visit::<Ours>();
    visit.visit::<X86_64>();
    visit.visit::<Multiarch>();
    visit.visit::<Generic>();
    visit.visit::<Aarch64>();
}

/// The first pages of the large leaves of a range, each with the same frame: whoever maps and
/// unmaps them has made room.
pub(super) fn firsts(va: u64, len: u64) -> impl Iterator<Item = (u64, u64)> {
    (va..va + len).step_by(LARGE as usize).map(|va| (va, super::ram::DATA))
}
