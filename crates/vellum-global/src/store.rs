//! The seam below a global design: one table of raw entries for all spaces.
//!
//! ```text
//!        PageTable      Space (table, asid)          ranges, attributes, gathers, errors
//!            |
//!        Store          key -> raw entry             chains, lines, growth, locks, nodes
//!            |
//!        Memory         frames, bytes
//! ```
//!
//! A design implements six functions over (key, 64-bit entry) pairs, and [`Space`](crate::Space)
//! makes a [`PageTable`](vellum_core::PageTable) of any of them. An entry is in the format of
//! [`vellum_core::pte`] at the size of its key; 0 is no entry.
//!
//! A store deals in exact keys: that leaves of different sizes do not overlap, that a page is looked
//! for in every size, and what a range does to a leaf that reaches out of it, is the space's.
//!
//! A *block* is so many neighbouring leaves of one size that a design keeps together: the 8 entries
//! of a line, the 16 of a cluster. Whoever looks at a range looks a block up, and not each page.
//!
//! A *stripe* is what one lock covers: a chain, a line, a group, a shard. Stripes are numbered from
//! 0, and the number of them may grow while the table is in use.
//!
//! # Invariants
//!
//! - Each function takes at most one stripe's lock at a time, and under it calls nothing but the
//!   closure of [`update`](Store::update).
//! - An entry that moves while the table is shared moves to a stripe of a higher number, or is one
//!   of those that [`scan_moved`](Store::scan_moved) offers. So stripes taken in ascending order,
//!   with what has moved meanwhile, show every entry that was there throughout.
//! - Memory is taken by [`refill`](Store::refill) and under no lock.
//! - An entry that exists is removed, or changed but for its frame, without any.
//! - Calls of [`update`](Store::update), [`change_block`](Store::change_block) and
//!   [`scan`](Store::scan) that speak of the same key are one after the other, whether or not it has
//!   an entry: what the caller of the earlier one did before it has happened before the later one
//!   looks. (All three take the stripe's lock; only look-ups need not.)

use crate::{Asids, Key, Lowest, Size};
use core::convert::Infallible;
use core::num::NonZeroU64;
use vellum_core::{Need, OutOfFrames, Sink, pte};

/// Leaves of a block at most.
pub const BLOCK: usize = 16;

/// Why [`Store::update`] changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused<E> {
    /// The stock lacks this much.
    Need(Need),
    /// The closure said so.
    By(E),
}

/// A table of raw entries for many spaces, changed through `&self`.
pub trait Store {
    /// What [`update`](Self::update) may consume. Dropping it gives it back.
    type Stock<'t>
    where
        Self: 't;

    /// How many bits of a [`Soft`](vellum_core::Soft) value a raw entry may have, at most those of
    /// [`pte`]: a design that keeps something else in entries has fewer.
    const SOFT_BITS: u8 = pte::SOFT_BITS;

    /// The sizes of leaves that it holds, each as its bytes (bit `n` for leaves of 2<sup>n</sup>
    /// bytes): those of [`Size`], 4 KiB always.
    const LEAVES: u64 = Size::Base.bytes();

    /// How many neighbouring leaves of this size lie together, at most [`BLOCK`]. A block begins
    /// where [`Key::number`] is a multiple of it.
    #[must_use]
    fn block(size: Size) -> NonZeroU64 {
        let _ = size;
        NonZeroU64::MIN
    }

    /// An empty stock.
    fn stock(&self) -> Self::Stock<'_>;

    /// Adds to `stock` at least what `need` asks for, and grows the table by a bounded number of
    /// steps if it is due. A stock of another table is emptied into that one first.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if `need` is not met; never because growth was not possible.
    fn refill<'t>(&'t self, stock: &mut Self::Stock<'t>, need: Need) -> Result<(), OutOfFrames>;

    /// The raw entry of `key`, or 0, telling `sink` of everything that a walker would read; after
    /// the lock was given back.
    fn walk<S: Sink>(&self, key: Key, sink: &mut S) -> u64;

    /// Replaces the raw entry of `key`, 0 standing for none, by what `f` makes of it, atomically:
    /// the one way in which entries come, change and go. The old one.
    ///
    /// `f` runs under the stripe's lock, at most once, and must not call the table. A stock of
    /// another table counts as empty. What an entry leaves behind goes into `stock`, or back to
    /// the table after the lock was given back.
    ///
    /// # Errors
    ///
    /// [`Refused`]; nothing has changed then.
    fn update<'t, E>(
        &'t self,
        key: Key,
        stock: &mut Self::Stock<'t>,
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<u64, Refused<E>>;

    /// Fills `raws` with the raw entries of as many leaves from `first` on, all of one block; 0 for
    /// none. By default a [`walk`](Self::walk) each.
    fn read_block(&self, first: Key, raws: &mut [u64]) {
        for (n, raw) in (0..).zip(raws) {
            *raw = self.walk(first.plus(n), &mut ());
        }
    }

    /// Replaces the raw entry of each of the `count` leaves from `first` on, all of one block, that
    /// has one, by what `f` makes of it: 0, or another one of the same frame. By default an
    /// [`update`](Self::update) each.
    ///
    /// `f` is under the same rules as in `update`; it is called at most once for a leaf.
    fn change_block<'t>(
        &'t self,
        first: Key,
        count: usize,
        stock: &mut Self::Stock<'t>,
        f: &mut impl FnMut(Key, u64) -> u64,
    ) {
        for n in 0..count as u64 {
            let key = first.plus(n);
            let kept = |raw| Ok::<u64, Infallible>(if raw == 0 { 0 } else { f(key, raw) });
            let changed = self.update(key, stock, kept);
            debug_assert!(changed.is_ok(), "an entry that exists changes or goes without memory");
        }
    }

    /// How many stripes there are now.
    fn count_stripes(&self) -> u64;

    /// Offers the entries of a stripe, of all sizes, to `found`.
    fn scan(&self, stripe: u64, found: &mut Lowest);

    /// How many entries have moved to a lower stripe since the table was made, blocks counting as
    /// one; all, by the time that the number of stripes may have become smaller for it.
    fn moves(&self) -> u64 {
        0
    }

    /// Offers the entries that have, since there were `since` of them; `false` if it is no longer
    /// known which these are, so that a pass has to begin again.
    #[must_use]
    fn scan_moved(&self, since: u64, found: &mut Lowest) -> bool {
        let _ = (since, found);
        true
    }

    /// How many entries there are, of all spaces and sizes.
    fn count_entries(&self) -> u64;

    /// Bytes of memory taken from the frame source, for all spaces.
    fn table_bytes(&self) -> u64;

    /// The identifiers of its spaces.
    fn asids(&self) -> &Asids;
}
