//! What becomes of mappings when their file changes under them.
//!
//! ```text
//!   truncate_file    the file is shorter        pages behind its end go, private copies too: SIGBUS
//!   punch_file       a hole was made in it      the file's pages go, private copies stay
//! ```
//!
//! The embedder knows which spaces map a file, and calls these for each. A child is not among them before
//! [`AddressSpace::fork`] has returned it, though it may have pages already: it is told then of what its
//! file has lost meanwhile.

use super::AddressSpace;
use super::parts::Parts;
use super::regions::Found;
use crate::errno::Errno;
use crate::vma::pages;
use crate::vma_map::PageRange;
use core::ops::Range;
use lock_api::RawRwLock;
use vellum_cache::{FileId, Files};
use vellum_core::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use vellum_fault::{Backing, System};

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Takes the pages behind the file's end away from this space. The file has its new length, and
    /// the page cache was truncated ([`vellum_cache::Cache::truncate`]).
    ///
    /// # Errors
    ///
    /// `ENOMEM` without memory to split a large leaf.
    pub fn truncate_file(&self, file: FileId) -> Result<(), Errno> {
        let mut parts = self.parts.write();
        let end = parts.files().len_bytes(file).div_ceil(PAGE_SIZE);
        parts.note_peak();
        parts.each_mapping(file, end..u64::MAX, |parts, va, len| {
            parts.mmu.zap_pages(va, len).map_err(|e| Errno::from(e.cause))
        })
    }

    /// Takes the file's pages `pages` away from this space, but not what it has copied of them.
    ///
    /// # Errors
    ///
    /// `ENOMEM` without memory.
    pub fn punch_file(&self, file: FileId, pages: Range<u64>) -> Result<(), Errno> {
        self.parts.write().zap_file(file, pages)
    }
}

impl<S: System> Parts<'_, S> {
    pub(crate) fn zap_file(&mut self, file: FileId, pages: Range<u64>) -> Result<(), Errno> {
        self.note_peak();
        self.each_mapping(file, pages, |parts, va, len| Ok(parts.mmu.zap_cached(va, len)?))
    }

    /// Calls `f` with each stretch of this space that shows some of these pages.
    fn each_mapping(
        &mut self,
        file: FileId,
        shown: Range<u64>,
        mut f: impl FnMut(&mut Self, VirtAddr, u64) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        let mut at =
            self.vmas.iter(PageRange::ALL).next().map_or(0, |found| Found::new(found).start);
        while let Some(found) = self.next(at) {
            at = found.end;
            if found.vma.backing != Backing::File(file) {
                continue;
            }
            let index = found.vma.index;
            let first = shown.start.max(index);
            let end = shown.end.min(index.saturating_add(pages(found.end - found.start)));
            if first < end {
                let va = VirtAddr::new(found.start + ((first - index) << PAGE_SHIFT));
                f(self, va, (end - first) << PAGE_SHIFT)?;
            }
        }
        Ok(())
    }
}
