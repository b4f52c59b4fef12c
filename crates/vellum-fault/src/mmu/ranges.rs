//! What the mmap family does to the pages of a range.
//!
//! ```text
//!   munmap, MADV_DONTNEED   zap        leaves and swap entries go; markers too, or stay
//!   mprotect                protect    rights change; a private page never becomes writable here,
//!                                      its next store finds out whether it is alone with it
//!   MAP_POPULATE, mlock     populate   faults, one page after the other
//!   msync                   clean      dirty bits go from leaves to the pages' records
//!   MADV_GUARD_*            guard      zap, then a marker on each page
//!   mincore, smaps          visit      reads
//! ```

use super::{Mmu, each_frame, gather, note_dirty};
use crate::outcome::FaultError;
use crate::region::{Access, Region, Rights, Sharing};
use crate::soft::Marker;
use crate::system::System;
use core::ops::ControlFlow;
use vellum_core::{
    Attr, Cause, Change, Entry, Gather, PAGE_SHIFT, PAGE_SIZE, PageTable, RangeError, ReplaceError,
    Run, Soft, Span, VirtAddr, Walk,
};

/// Markers that are looked up at a time, since a visit may not change the table.
const MARKERS: usize = 16;

/// Spans that are looked up at a time, since a visit may not call the table.
pub(super) type Spans = [Option<Span>; 16];

impl<S: System> Mmu<'_, S> {
    /// Takes everything out of the range.
    ///
    /// # Errors
    ///
    /// Out of memory, for a large leaf of which a part stays, or a part of the table that is linked:
    /// exactly `done` bytes are gone. Not after [`split_ends`](Self::split_ends) of the same range.
    pub fn zap(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        if self.links { self.zap_linked(va, len) } else { self.zap_own(va, len) }
    }

    /// Takes every page out of the range, and leaves guard markers where they are.
    ///
    /// # Errors
    ///
    /// As [`zap`](Self::zap).
    pub fn zap_pages(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        if !self.has_guards {
            return self.zap(va, len);
        }
        let mut done = 0;
        while done < len {
            let from = va.wrapping_add(done);
            let next =
                self.next_marker(from, len - done).map_err(|cause| RangeError { cause, done })?;
            let until =
                next.map_or(len - done, |marker| marker.as_u64().wrapping_sub(from.as_u64()));
            self.zap(from, until).map_err(|e| RangeError { done: done + e.done, ..e })?;
            done += until + if next.is_some() { PAGE_SIZE } else { 0 };
        }
        Ok(())
    }

    fn next_marker(&self, va: VirtAddr, len: u64) -> Result<Option<VirtAddr>, Cause> {
        let mut found = None;
        self.table.visit(va, len, &mut |span| match span.entry {
            Entry::Soft(soft) if Marker::of(soft) == Some(Marker::Guard) => {
                found = Some(span.va);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        })?;
        Ok(found)
    }

    /// Gives the pages of the range the rights of their region, which are new.
    ///
    /// # Errors
    ///
    /// As [`zap`](Self::zap), and not after [`own_pages`](Self::own_pages) and
    /// [`split_ends`](Self::split_ends).
    pub fn protect(
        &mut self,
        va: VirtAddr,
        len: u64,
        rights: Rights,
        sharing: Sharing,
    ) -> Result<(), RangeError> {
        let attr = rights.attr();
        let set = if sharing == Sharing::Private { attr - Attr::WRITE } else { attr };
        let change = Change { set, clear: Attr::RWX - attr };
        self.own_pages(va, len).map_err(|e| RangeError { done: 0, ..e })?;
        let Self { engine, table, cpus, rss, .. } = self;
        let mut gather = gather::<S, 8>(engine, cpus, rss);
        let done = table.protect(va, len, change, &mut gather);
        gather.drain();
        done
    }

    /// Makes a leaf of 4 KiB of `page`, if it is part of a larger one.
    ///
    /// A table need not split a leaf for a change that leaves it as it is; so accessed is changed, and
    /// changed back.
    pub(super) fn split(&mut self, page: VirtAddr) -> Result<(), RangeError> {
        let span = self.table.walk(page, &mut ())?;
        let Entry::Leaf(_, attr) = span.entry else { return Ok(()) };
        if span.len == PAGE_SIZE {
            return Ok(());
        }
        let (set, clear) = (Change::setting(Attr::ACCESSED), Change::clearing(Attr::ACCESSED));
        let changes = if attr.contains(Attr::ACCESSED) { [clear, set] } else { [set, clear] };
        let Self { engine, table, cpus, rss, .. } = self;
        let mut gather = gather::<S, 8>(engine, cpus, rss);
        let mut done = Ok(());
        for change in changes {
            done = done.and_then(|()| table.protect(page, PAGE_SIZE, change, &mut gather));
        }
        gather.finish();
        done
    }

    /// Faults in every page of `[va, va + len)`, which `region` covers, as if each was accessed.
    ///
    /// # Errors
    ///
    /// Of the first page that cannot be had, with that page's address; those before it are there.
    pub fn populate(
        &self,
        region: &Region,
        va: VirtAddr,
        len: u64,
        access: Access,
    ) -> Result<(), (VirtAddr, FaultError)> {
        let mut done = 0;
        while done < len {
            let page = va.wrapping_add(done);
            self.fault(region, page, access).map_err(|e| (page, e))?;
            let span = self.table.walk(page, &mut ()).map_err(|e| (page, e.into()))?;
            // A large leaf is all there.
            let behind = page.as_u64().wrapping_sub(span.va.as_u64());
            if access == Access::Write {
                self.note_written(page, span.entry, behind);
            }
            let step = match span.entry {
                Entry::Leaf(..) => span.len.saturating_sub(behind).max(PAGE_SIZE),
                _ => PAGE_SIZE,
            };
            done = done.saturating_add(step);
        }
        Ok(())
    }

    /// Makes a page dirty that is there as if it had been written; one that was clean is so for all who map
    /// it, as in Linux.
    fn note_written(&self, page: VirtAddr, entry: Entry, behind: u64) {
        if let Entry::Leaf(pa, attr) = entry {
            if !attr.contains(Attr::DIRTY) {
                let run = Run::new(page, pa.wrapping_add(behind), PAGE_SIZE, Attr::NONE);
                each_frame(self.engine, run, note_dirty);
            }
        }
        self.table.touch(page, Access::Write.attr() | Attr::USER, Attr::STATUS);
    }

    /// Takes the dirty bits over from the leaves of the range, so that what is stored after this makes
    /// its page dirty once more.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold.
    pub fn clean(&self, va: VirtAddr, len: u64) -> Result<(), Cause> {
        let engine = self.engine;
        self.harvest(va, len, Attr::DIRTY, &mut |span| {
            if let Entry::Leaf(pa, _) = span.entry {
                let run = Run::new(span.va, pa, span.len, Attr::NONE);
                each_frame(engine, run, note_dirty);
            }
        })
    }

    /// Clears accessed or dirty in every leaf of the range, and reports those that had it.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold.
    pub fn harvest(
        &self,
        va: VirtAddr,
        len: u64,
        clear: Attr,
        f: &mut impl FnMut(Span),
    ) -> Result<(), Cause> {
        let mut gather = gather::<S, 8>(self.engine, &self.cpus, &self.rss);
        let done = self.table.harvest(va, len, clear, &mut gather, f);
        gather.finish();
        done
    }

    /// Reports everything in the range that is not a hole, in ascending order, until `f` breaks. Spans are
    /// read a few at a time, so `f` may ask this space's translations of what it is told.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold.
    pub fn visit(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        let mut done = 0;
        loop {
            let (spans, more) = self.some_spans(va.wrapping_add(done), len - done)?;
            for span in spans.into_iter().flatten() {
                if f(span).is_break() {
                    return Ok(());
                }
                done = span.va.as_u64().wrapping_sub(va.as_u64()) + span.len;
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// The first spans of a range that are no holes, and whether there are more.
    pub(super) fn some_spans(&self, va: VirtAddr, len: u64) -> Result<(Spans, bool), Cause> {
        let mut spans = Spans::default();
        let mut slots = spans.iter_mut();
        let mut more = false;
        self.table.visit(va, len, &mut |span| match slots.next() {
            Some(slot) => {
                *slot = Some(span);
                ControlFlow::Continue(())
            }
            None => {
                more = true;
                ControlFlow::Break(())
            }
        })?;
        Ok((spans, more))
    }

    /// Takes every page out of the range and makes each a guard page.
    ///
    /// # Errors
    ///
    /// Out of memory for the table: `done` bytes are guarded, and the pages behind may be gone.
    pub fn guard(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        self.zap_pages(va, len)?;
        self.make_own(va, len).map_err(|e| RangeError { done: 0, ..e })?;
        let Some(guard) = Marker::Guard.soft() else { return Ok(()) };
        self.has_guards = true;
        let mut done = 0;
        while done < len {
            let page = va.wrapping_add(done);
            let new = Entry::Soft(guard);
            match self.replace(page, PAGE_SIZE, Entry::Hole, new) {
                Ok(()) | Err(ReplaceError::Changed(_)) => {}
                Err(ReplaceError::Invalid(cause)) => return Err(RangeError { cause, done }),
                Err(_) => {
                    let cause = Cause::NoLeaf { page: PAGE_SHIFT };
                    return Err(RangeError { cause, done });
                }
            }
            done += PAGE_SIZE;
        }
        Ok(())
    }

    /// Removes the guard markers of the range; pages stay.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold, or out of memory: no marker is gone.
    pub fn unguard(&mut self, va: VirtAddr, len: u64) -> Result<(), Cause> {
        self.own_pages(va, len).map_err(|e| e.cause)?;
        let end = va.wrapping_add(len);
        let mut from = va;
        loop {
            let mut found: [Option<(VirtAddr, Soft)>; MARKERS] = [None; MARKERS];
            let mut slots = found.iter_mut();
            let rest = end.as_u64().wrapping_sub(from.as_u64());
            self.table.visit(from, rest, &mut |span| match span.entry {
                Entry::Soft(soft) if Marker::of(soft) == Some(Marker::Guard) => {
                    match slots.next() {
                        Some(slot) => {
                            *slot = Some((span.va, soft));
                            ControlFlow::Continue(())
                        }
                        None => ControlFlow::Break(()),
                    }
                }
                _ => ControlFlow::Continue(()),
            })?;
            let mut last = None;
            for (page, soft) in found.into_iter().flatten() {
                // Nobody else has this space now, so nothing can have changed.
                let _removed = self.replace(page, PAGE_SIZE, Entry::Soft(soft), Entry::Hole);
                last = Some(page);
            }
            match last {
                Some(page) => from = page.wrapping_add(PAGE_SIZE),
                None => return Ok(()),
            }
            if from == end {
                return Ok(());
            }
        }
    }
}
