//! Pages of files, through the page cache.
//!
//! ```text
//!   a fault                                    somebody truncates the file
//!   -------                                    ---------------------------
//!   finds the page in the cache                the file becomes shorter
//!   installs the leaf              (1)         takes the page out of the cache   (a)
//!   is it in the cache still?      (2)         removes the leaf from every space (b)
//!     no: takes the leaf away again
//! ```
//!
//! In whatever order these come, no leaf is left: with (1) before (b), it is found there; else (a) is
//! before (2). A full fence on both sides makes "before" mean one thing.

use super::fault::{Fault, Step};
use super::rss::Tally;
use super::{Mmu, RssKind, gather};
use crate::outcome::{Cost, FaultError};
use crate::region::Region;
use crate::sync::fence;
use crate::system::System;
use core::sync::atomic::Ordering::SeqCst;
use vellum_cache::page::{PageInfo, State};
use vellum_cache::{CacheError, FileId, Files, Page};
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, PhysAddr, VirtAddr, Walk};

/// The most pages that a fault maps: a window of 64 KiB, as Linux has it.
const WINDOW: usize = 16;

/// A window ends where another lowest table of x86-64 begins, whatever the design.
const TABLE_SHIFT: u32 = 21;

impl<S: System> Mmu<'_, S> {
    /// Nothing is there yet, and a file is what it shows.
    #[inline(never)]
    pub(super) fn fill_from_file(&self, fault: &Fault<'_>, file: FileId) -> Step {
        let region = fault.region;
        let index = region.index_of(fault.page());
        let (cache, files) = (self.engine.cache(), self.engine.system().files());
        // Before the page itself: its neighbours are mapped even if it lies behind the file's end.
        if !fault.writes() && region.around > 1 {
            self.map_around(region, fault.page(), file);
        }
        let (page, read) = cache.get(files, file, index).map_err(|error| match error {
            CacheError::Busy => FaultError::Retry,
            CacheError::OutOfFrames(e) => e.into(),
            _ => fault.deny_page(),
        })?;
        let cost = if read { Cost::Major } else { Cost::Minor };
        let private = region.is_private();
        let step = if private && fault.writes() {
            let copy = page.duplicate()?;
            let pa = copy.pa();
            self.adopt(fault, copy.info());
            let step = self.install(fault.page(), Entry::Hole, copy, fault.attr(true));
            self.unless_truncated(fault.page(), (page.info(), pa), step)?
        } else {
            if fault.writes() {
                page.info().set(State::DIRTY);
            }
            self.map_cached(fault.page(), page, fault.attr(!private))?
        };
        Ok(step.map(|_| cost))
    }

    /// Maps a page of the cache, and takes it away again if it is not in the cache any more.
    fn map_cached(&self, va: VirtAddr, page: Page<'_, S>, attr: Attr) -> Step {
        let (info, pa) = (page.info(), page.pa());
        let step = self.install(va, Entry::Hole, page, attr);
        self.unless_truncated(va, (info, pa), step)
    }

    /// Takes the leaf of `pa` that was installed away again if the page of the file that it shows, or was
    /// copied from, is not in the cache any more.
    fn unless_truncated(
        &self,
        va: VirtAddr,
        (cached, pa): (&PageInfo, PhysAddr),
        step: Step,
    ) -> Step {
        if matches!(step, Ok(Some(_))) {
            fence(SeqCst);
            if !cached.state().contains(State::CACHED) {
                self.take_away(va, pa)?;
                return Ok(None);
            }
        }
        step
    }

    /// Removes the leaf of `pa`. It may have got rights since it was made; if another page is there, that came
    /// behind this.
    #[cold]
    fn take_away(&self, va: VirtAddr, pa: PhysAddr) -> Result<(), FaultError> {
        loop {
            let old = self.table.walk(va, &mut ())?.entry;
            let still = matches!(old, Entry::Leaf(now, _) if now == pa);
            if !still || self.exchange(va, PAGE_SIZE, old, Entry::Hole)?.is_some() {
                return Ok(());
            }
        }
    }

    /// Maps what the cache has of the window around a page that is read: a program that has read one
    /// page of a file will read the next. The window begins at a multiple of its size, or with the
    /// region if that is later, and ends with its size, the region, or 2 MiB (Linux's lowest table,
    /// `do_fault_around`). Only holes are filled, and nothing is read or allocated but for the table; who
    /// has no memory for that goes without.
    fn map_around(&self, region: &Region, va: VirtAddr, file: FileId) {
        let most = region.around.clamp(1, WINDOW as u64);
        let aligned = va.as_u64() & !(most * PAGE_SIZE - 1);
        let first = VirtAddr::new(aligned.max(region.start.as_u64()));
        let left = (1 << TABLE_SHIFT) - (first.as_u64() & ((1 << TABLE_SHIFT) - 1));
        let pages = most.min(left / PAGE_SIZE);
        let end = self.engine.system().files().len_bytes(file).div_ceil(PAGE_SIZE);
        let attr = region.rights.attr();
        let attr = if region.is_private() { attr - Attr::WRITE } else { attr };
        let mut found = [const { None }; WINDOW];
        let mut frames = [None; WINDOW];
        for (i, (found, frame)) in (0..pages).zip(found.iter_mut().zip(&mut frames)) {
            let page = first.wrapping_add(i * PAGE_SIZE);
            let index = region.index_of(page);
            if page != va && region.covers(page, PAGE_SIZE) && index < end {
                *found = self.engine.cache().ready(file, index);
                *frame = found.as_ref().map(Page::pa);
            }
        }
        let mut came = Tally::default();
        for page in found.iter().flatten() {
            page.info().mapped();
            came.note(RssKind::of(page.info().state()));
        }
        came.each(|kind, pages| self.rss.add(va, kind, pages));
        let mut gather = gather::<S, 2>(self.engine, &self.cpus, &self.rss);
        let frames = frames.get(..pages as usize).unwrap_or_default();
        let put = self.table.fill_holes(first, frames, attr, &mut gather);
        gather.finish();
        fence(SeqCst);
        for (i, page) in (0..pages).zip(found) {
            let Some(page) = page else { continue };
            let (info, pa) = (page.info(), page.pa());
            if put >> i & 1 == 0 {
                self.rss.sub(va, RssKind::of(info.state()), 1);
                info.unmapped();
                continue;
            }
            let _the_leaf_has_it = page.into_pa();
            if !info.state().contains(State::CACHED) {
                // Whatever this says: the page is gone, and a fault will say the same.
                let _ = self.take_away(first.wrapping_add(i * PAGE_SIZE), pa);
            }
        }
    }
}
