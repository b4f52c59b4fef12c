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

use super::Mmu;
use super::fault::{Fault, Step};
use crate::outcome::{Cost, FaultError};
use crate::region::Region;
use crate::system::System;
use core::sync::atomic::{Ordering::SeqCst, fence};
use vellum_cache::page::{PageInfo, State};
use vellum_cache::{CacheError, FileId, Files, Page};
use vellum_core::{Attr, Entry, PAGE_SIZE, PhysAddr, VirtAddr, Walk};

/// A window ends where another lowest table of x86-64 begins, whatever the design.
const TABLE_SHIFT: u32 = 21;

impl<S: System> Mmu<'_, S> {
    /// Nothing is there yet, and a file is what it shows.
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
                // It may have got rights meanwhile; if it is another page's, that came behind this.
                loop {
                    let old = self.table.walk(va, &mut ())?.entry;
                    let still = matches!(old, Entry::Leaf(now, _) if now == pa);
                    if !still || self.exchange(va, PAGE_SIZE, old, Entry::Hole)?.is_some() {
                        return Ok(None);
                    }
                }
            }
        }
        step
    }

    /// Maps what the cache has of the window around a page that is read: a program that has read one
    /// page of a file will read the next. The window begins at a multiple of its size, or with the
    /// region if that is later, and ends with its size, the region, or 2 MiB (Linux's lowest table,
    /// `do_fault_around`). Only holes are filled, and nothing is read or allocated but for the table; who
    /// has no memory for that goes without.
    fn map_around(&self, region: &Region, va: VirtAddr, file: FileId) {
        let window = region.around * PAGE_SIZE;
        let aligned = va.as_u64() & !(window - 1);
        let first = VirtAddr::new(aligned.max(region.start.as_u64()));
        let table = va.as_u64() >> TABLE_SHIFT;
        let files = self.engine.system().files();
        let end = files.len_bytes(file).div_ceil(PAGE_SIZE);
        let attr = region.rights.attr();
        let attr = if region.is_private() { attr - Attr::WRITE } else { attr };
        for i in 0..region.around {
            let page = first.wrapping_add(i * PAGE_SIZE);
            if page.as_u64() >> TABLE_SHIFT != table {
                return;
            }
            if page == va || !region.covers(page, PAGE_SIZE) || region.index_of(page) >= end {
                continue;
            }
            let Some(cached) = self.engine.cache().ready(file, region.index_of(page)) else {
                continue;
            };
            if self.map_cached(page, cached, attr).is_err() {
                return;
            }
        }
    }
}
