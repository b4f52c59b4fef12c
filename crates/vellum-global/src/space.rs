//! One address space of a global table, as a page table.
//!
//! ```text
//!            few pages                       more blocks than the table has entries
//!   unmap    a look-up a block, in order     look-ups where entries lie close (space/step.rs),
//!                                            else every stripe once more, in no order
//!   protect  the same                        the same, after one that looks for what cannot be
//!   harvest  the same                        the same
//!   visit    the same                        passes that take the 64 lowest keys, or look-ups
//!                                            where pages turn out to be dense (space/visit.rs)
//! ```
//!
//! The table is global: every space has its pages in it, and what implements [`PageTable`] is this
//! handle.
//!
//! # Leaves of several sizes
//!
//! The size is a part of the key, so a page is looked for in each size of which the space has any
//! entry, the smallest first; a count of each says which these are. What is true of a range is done
//! for each of them. A space without large leaves reads two counts that are 0, and no more; a design
//! without large leaves ([`Store::LEAVES`]) not even these.
//!
//! A leaf that reaches out of a range is split before anything else is changed: the smaller entries
//! go in first, and out again if there is no memory for all of them; then the large one goes. In
//! between both are there, which only `&mut self` can do.
//!
//! That no two leaves overlap when pages are put in through `&self` is the protocol of
//! space/replace.rs.
//!
//! No hardware that Vellum runs on walks such a table; accessed and dirty are set by
//! [`touch`](Walk::touch), under the same lock as every other change. So a live table and one that
//! nobody can reach are the same code here, and [`Gather::LIVE`] is not looked at.
//!
//! Dropping a handle without [`retire`](PageTable::retire) leaves its entries in the table and its
//! identifier taken, until the table itself goes: only a retired space is known to be flushed.
//!
//! # Invariants
//!
//! - Entries of an identifier change through the one handle that has claimed it.
//! - Of the entries of a space no two cover the same page, but for the inside of a `&mut self`.
//! - The count of a size is at least that of its entries that can be found.
//! - Gathers and callbacks are called under no lock; a sink, after the lock was given back.
//! - A step gives the gather what it took away under no lock, and makes room for it before.
//!
//! # Lock order
//!
//! A region of the space (space/replace.rs), then one stripe of the table, and nothing under that.

use crate::key::CANONICAL;
use crate::{Asid, AsidError, Key, Keys, Size, Store};
use core::convert::Infallible;
use core::fmt;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};
use replace::Regions;
use step::{decode, status};
use vellum_core::{
    Attr, Canonical, Cause, Change, Entry, Flush, Gather, Need, OutOfFrames, PAGE_SHIFT, PAGE_SIZE,
    PageTable, RangeError, ReplaceError, Run, Sink, Span, VirtAddr, Walk,
};

mod cursor;
mod range;
mod replace;
mod split;
mod step;
mod visit;

/// A space of the table `S`: its handle, and the only one with this identifier.
pub struct Space<'t, S: Store> {
    table: &'t S,
    asid: Asid,
    /// Entries of each size; of the large ones also those that somebody is about to put in.
    counts: [AtomicU64; Size::ALL.len()],
    regions: Regions,
}

impl<'t, S: Store> Space<'t, S> {
    /// The space `asid` of `table`, empty.
    ///
    /// # Errors
    ///
    /// [`AsidError`]: another handle has it, or the table has no such identifier.
    pub fn open(table: &'t S, asid: Asid) -> Result<Self, AsidError> {
        const { assert!(Size::Base.is_in(S::LEAVES), "every design has leaves of 4 KiB") };
        table.asids().claim(asid)?;
        let counts = [const { AtomicU64::new(0) }; Size::ALL.len()];
        Ok(Self { table, asid, counts, regions: Regions::new() })
    }

    /// Its identifier.
    pub const fn asid(&self) -> Asid {
        self.asid
    }

    /// The table that it is a part of.
    pub const fn table(&self) -> &'t S {
        self.table
    }

    /// How many entries it has in the table, of all sizes, soft ones included; with changes under
    /// way, at most so many more.
    pub fn count_entries(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// How many entries of this size it has; with changes under way, at most so many more.
    pub fn count_of(&self, size: Size) -> u64 {
        self.count(size).load(Ordering::Relaxed)
    }

    const fn count(&self, size: Size) -> &AtomicU64 {
        let [base, large, huge] = &self.counts;
        match size {
            Size::Base => base,
            Size::Large => large,
            Size::Huge => huge,
        }
    }

    /// Whether there may be an entry of this size.
    fn has(&self, size: Size) -> bool {
        size.is_in(S::LEAVES) && self.count_of(size) != 0
    }

    /// Whether there may be an entry of more than 4 KiB.
    fn has_large(&self) -> bool {
        self.has(Size::Large) || self.has(Size::Huge)
    }

    /// Looks the range over, before anything is done to it; `None` if it has no pages.
    fn keys(&self, va: VirtAddr, len: u64) -> Result<Option<Keys>, Cause> {
        CANONICAL.check(va, len, PAGE_SHIFT)?;
        Ok(Keys::new(self.asid, va, len))
    }

    /// The leaf of `size` that the byte at `va` lies in.
    const fn key(&self, va: VirtAddr, size: Size) -> Key {
        Key::of(self.asid, va, size)
    }

    /// The sizes in which a page is to be looked for: those that there are, or the smallest.
    fn sizes(&self) -> impl Iterator<Item = Size> {
        let alone = !self.has_large();
        Size::ALL.into_iter().filter(move |&size| size == Size::Base && alone || self.has(size))
    }
}

impl<S: Store> Walk for Space<'_, S> {
    fn walk<T: Sink>(&self, va: VirtAddr, sink: &mut T) -> Result<Span, Cause> {
        if !CANONICAL.contains(va) {
            return Err(Cause::NonCanonical(va));
        }
        for size in self.sizes() {
            let raw = self.table.walk(self.key(va, size), sink);
            if raw != 0 {
                let va = va.align_down(size.page());
                return Ok(Span { va, len: size.bytes(), entry: decode(raw, size) });
            }
        }
        Ok(Span { va: va.align_down(PAGE_SHIFT), len: PAGE_SIZE, entry: Entry::Hole })
    }

    fn touch(&self, va: VirtAddr, need: Attr, bits: Attr) -> Entry {
        if !CANONICAL.contains(va) {
            return Entry::Hole;
        }
        let (bits, mut stock) = (status(bits), self.table.stock());
        for size in self.sizes() {
            let step = self.change(self.key(va, size), &mut stock, |raw| match decode(raw, size) {
                Entry::Leaf(_, attr) if attr.contains(need) => raw | bits,
                _ => raw,
            });
            if step.old != 0 {
                return decode(step.old, size);
            }
        }
        Entry::Hole
    }
}

impl<'t, S: Store> PageTable for Space<'t, S> {
    type Stock = S::Stock<'t>;
    type Detached = Infallible;

    const LEAVES: u64 = S::LEAVES;
    const SOFT_BITS: u8 = S::SOFT_BITS;

    fn canonical(&self) -> Canonical {
        CANONICAL
    }

    fn table_bytes(&self) -> u64 {
        self.table.table_bytes()
    }

    fn stock(&self) -> Self::Stock {
        self.table.stock()
    }

    fn refill(&self, stock: &mut Self::Stock, need: Need) -> Result<(), OutOfFrames> {
        self.table.refill(stock, need)
    }

    fn replace<G: Gather<Infallible>>(
        &self,
        va: VirtAddr,
        len: u64,
        expect: Entry,
        new: Entry,
        stock: &mut Self::Stock,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        self.replace_leaf(va, len, (expect, new), stock, gather)
    }

    fn map<G: Gather<Infallible>>(&mut self, run: Run, _: &mut G) -> Result<(), RangeError> {
        self.map_run(run)
    }

    fn unmap<G: Gather<Infallible>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        match self.keys(va, len)? {
            Some(keys) => self.unmap_keys(keys, gather).map_err(RangeError::from),
            None => Ok(()),
        }
    }

    fn protect<G: Gather<Infallible>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        match self.keys(va, len)? {
            Some(keys) => self.protect_keys(keys, change, gather),
            None => Ok(()),
        }
    }

    fn visit(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        if let Some(keys) = self.keys(va, len)? {
            self.visit_keys(keys, f);
        }
        Ok(())
    }

    fn harvest<G: Gather<Infallible>>(
        &self,
        va: VirtAddr,
        len: u64,
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), Cause> {
        if let Some(keys) = self.keys(va, len)? {
            self.harvest_keys(keys, clear & Attr::STATUS, gather, f);
        }
        Ok(())
    }

    fn retire<G: Gather<Infallible>>(self, gather: &mut G) {
        self.remove(Keys::all(self.asid), &mut self.table.stock(), gather);
        // The next owner of the identifier must not meet translations of this one, nor of pages that
        // went into another gather which is yet to be finished.
        for (va, half) in CANONICAL.halves() {
            gather.stale(Flush::tables(va, half, true));
        }
        gather.drain();
        self.table.asids().release(self.asid);
    }
}

impl<S: Store> fmt::Debug for Space<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Space({}, {} entries)", self.asid, self.count_entries())
    }
}

#[cfg(test)]
mod tests;
