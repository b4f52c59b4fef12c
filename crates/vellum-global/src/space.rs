//! One address space of a global table, as a page table.
//!
//! ```text
//!            few pages                       more pages than the table has entries
//!   unmap    a look-up a page, in order      every stripe once, in no order
//!   protect  the same                        the same, after one that looks for what cannot be
//!   harvest  the same                        the same
//!   visit    the same                        passes that take the 64 lowest keys, or look-ups
//!                                            where pages turn out to be dense (space/visit.rs)
//! ```
//!
//! The table is global: every space has its pages in it, and what implements
//! [`PageTable`] is this handle. Leaves are single 4 KiB pages.
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
//! - Gathers and callbacks are called under no lock; a sink, after the lock was given back.
//! - A change needs room for one item in the gather, and makes it before it takes a lock.
//!
//! # Lock order
//!
//! One stripe's lock at a time, and nothing under it.

use crate::key::CANONICAL;
use crate::pass::Pass;
use crate::{Asid, AsidError, Key, Keys, Lowest, Refused, Store};
use core::convert::Infallible;
use core::fmt;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{
    Attr, Canonical, Cause, Change, Entry, Flush, Gather, Need, OutOfFrames, PAGE_SHIFT, PAGE_SIZE,
    PageTable, RangeError, ReplaceError, Run, Sink, Span, VirtAddr, Walk, pte,
};

mod range;
mod replace;
mod visit;

/// A space of the table `S`: its handle, and the only one with this identifier.
pub struct Space<'t, S: Store> {
    table: &'t S,
    asid: Asid,
    count_entries: AtomicU64,
}

/// What an update did, in raw entries.
#[derive(Clone, Copy)]
struct Step {
    old: u64,
    new: u64,
}

impl<'t, S: Store> Space<'t, S> {
    /// The space `asid` of `table`, empty.
    ///
    /// # Errors
    ///
    /// [`AsidError`]: another handle has it, or the table has no such identifier.
    pub fn open(table: &'t S, asid: Asid) -> Result<Self, AsidError> {
        table.asids().claim(asid)?;
        Ok(Self { table, asid, count_entries: AtomicU64::new(0) })
    }

    /// Its identifier.
    pub const fn asid(&self) -> Asid {
        self.asid
    }

    /// The table that it is a part of.
    pub const fn table(&self) -> &'t S {
        self.table
    }

    /// How many entries it has in the table, soft ones included; with changes under way, at most so
    /// many more.
    pub fn count_entries(&self) -> u64 {
        self.count_entries.load(Ordering::Relaxed)
    }

    /// Looks the range over, before anything is done to it; `None` if it has no pages.
    fn keys(&self, va: VirtAddr, len: u64) -> Result<Option<Keys>, Cause> {
        CANONICAL.check(va, len, PAGE_SHIFT)?;
        Ok(Keys::new(self.asid, va, len))
    }

    /// [`Store::update`], counting what comes and goes: up before an entry can be found, down after
    /// it cannot, so that a count of 0 means that there is nothing.
    fn update<E>(
        &self,
        key: Key,
        stock: &mut S::Stock<'t>,
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<Step, Refused<E>> {
        let (mut new, mut comes) = (0, false);
        let updated = self.table.update(key, stock, |raw| {
            new = f(raw)?;
            comes = raw == 0 && new != 0;
            if comes {
                self.count_entries.fetch_add(1, Ordering::Relaxed);
            }
            Ok(new)
        });
        let goes = match updated {
            Ok(old) => old != 0 && new == 0,
            // Counted, and then there was no memory for it.
            Err(_) => comes,
        };
        if goes {
            self.count_entries.fetch_sub(1, Ordering::Relaxed);
        }
        Ok(Step { old: updated?, new })
    }

    /// An update that cannot be refused, as it never makes an entry where there was none.
    fn change(&self, key: Key, stock: &mut S::Stock<'t>, f: impl FnOnce(u64) -> u64) -> Step {
        let kept = |raw| Ok::<u64, Infallible>(if raw == 0 { 0 } else { f(raw) });
        match self.update(key, stock, kept) {
            Ok(step) => step,
            Err(Refused::By(never)) => match never {},
            Err(Refused::Need(_)) => {
                debug_assert!(false, "an entry that exists changes or goes without memory");
                Step { old: 0, new: 0 }
            }
        }
    }

    /// Calls `f` with every key of the range that has an entry, and perhaps with others; in no
    /// order, and more than once only if the entry moves meanwhile.
    ///
    /// Costs a call a page, or a pass over the table if that has fewer entries than the range has
    /// pages.
    fn each(&self, keys: Keys, f: &mut impl FnMut(Key)) {
        if self.count_entries() == 0 {
            return;
        }
        if keys.count_pages() <= self.table.count_entries() {
            keys.iter().for_each(f);
            return;
        }
        let (mut pass, mut found) = (Pass::new(self.table), Lowest::new(keys));
        while let Some(part) = pass.next(self.table) {
            let mut rest = Some(keys);
            while let Some(keys) = rest {
                found.restart(keys);
                if !part.offer(self.table, &mut found) {
                    pass.restart();
                }
                found.held().iter().for_each(|&(key, _)| f(key));
                rest = found.rest();
            }
        }
    }
}

/// Tells the gather what a step at `va` took away or narrowed. Needs room for one item.
fn settle<G: Gather<Infallible>>(va: VirtAddr, step: Step, gather: &mut G) {
    match (decode(step.old), decode(step.new)) {
        (Entry::Leaf(a, old), Entry::Leaf(b, new)) if a == b && !old.narrows_to(new) => {}
        (Entry::Leaf(a, old), Entry::Leaf(b, _)) if a == b => {
            gather.stale(Flush::new(va, PAGE_SIZE, PAGE_SHIFT, old));
        }
        (Entry::Leaf(pa, attr), _) => gather.leaf(Run::new(va, pa, PAGE_SIZE, attr)),
        (Entry::Soft(old), new) if new != Entry::Soft(old) => gather.soft(va, old),
        _ => {}
    }
}

fn make_room<G: Gather<Infallible>>(gather: &mut G) {
    if gather.room() == 0 {
        gather.drain();
    }
}

fn decode(raw: u64) -> Entry {
    pte::decode(raw, PAGE_SHIFT)
}

/// The bits of a raw leaf for accessed and dirty.
fn status(attr: Attr) -> u64 {
    let bit = |of, raw| if attr.contains(of) { raw } else { 0 };
    bit(Attr::ACCESSED, pte::ACCESSED) | bit(Attr::DIRTY, pte::DIRTY)
}

impl<S: Store> Walk for Space<'_, S> {
    fn walk<T: Sink>(&self, va: VirtAddr, sink: &mut T) -> Result<Span, Cause> {
        if !CANONICAL.contains(va) {
            return Err(Cause::NonCanonical(va));
        }
        let raw = self.table.walk(Key::new(self.asid, va), sink);
        Ok(Span { va: va.align_down(PAGE_SHIFT), len: PAGE_SIZE, entry: decode(raw) })
    }

    fn touch(&self, va: VirtAddr, need: Attr, bits: Attr) -> Entry {
        if !CANONICAL.contains(va) {
            return Entry::Hole;
        }
        let bits = status(bits);
        let step =
            self.change(Key::new(self.asid, va), &mut self.table.stock(), |raw| {
                match decode(raw) {
                    Entry::Leaf(_, attr) if attr.contains(need) => raw | bits,
                    _ => raw,
                }
            });
        decode(step.old)
    }
}

impl<'t, S: Store> PageTable for Space<'t, S> {
    type Stock = S::Stock<'t>;
    type Detached = Infallible;

    const LEAVES: u64 = 1 << PAGE_SHIFT;
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
        self.replace_page(va, len, (expect, new), stock, gather)
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
        if let Some(keys) = self.keys(va, len)? {
            self.remove(keys, gather);
        }
        Ok(())
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
        self.remove(Keys::all(self.asid), gather);
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
