//! What is done to a stretch of a file: writing back, truncating, dropping what is clean.
//!
//! ```text
//!   stretch of up to as many pages as are cached:  look each up
//!   longer:                                         look at the record of every frame once
//!                                                   (only `PageInfo`s, side by side in memory)
//! ```
//!
//! So a sparse file of terabytes costs no more than the memory has frames.

use super::{Cache, CacheError, PageRange};
use crate::files::{FileError, FileId, Files};
use crate::page::{Pages, State};
use crate::sync::fence;
use core::sync::atomic::Ordering::SeqCst;
use vellum_core::PAGE_SIZE;

impl<P: Pages> Cache<P> {
    /// Notes that the page differs from its file now; false if it is not cached.
    pub fn mark_dirty(&self, file: FileId, index: u64) -> bool {
        let Some(page) = self.find(file, index) else { return false };
        page.info().set(State::DIRTY);
        true
    }

    /// Stores every dirty page of the stretch, in ascending order; how many.
    ///
    /// Who may write through a mapping has to have had that mapping's dirty bits taken over first
    /// ([`State::DIRTY`]); what is written meanwhile may be stored or not, and then makes it dirty again.
    ///
    /// # Errors
    ///
    /// The first [`FileError`]; the page it happened to is dirty still, and the rest was tried.
    pub fn write_back(
        &self,
        files: &impl Files,
        file: FileId,
        pages: PageRange,
    ) -> Result<u64, FileError> {
        if files.is_memory(file) {
            return Ok(0);
        }
        let (mut written, mut failed) = (0, None);
        self.each(file, pages, |index| {
            let Some(page) = self.ready(file, index) else { return };
            // Before the bytes are read: a store behind this makes it dirty once more.
            if !page.info().clear(State::DIRTY).contains(State::DIRTY) {
                return;
            }
            match page.with_bytes(|bytes| files.write(file, index, bytes)) {
                Ok(()) => written += 1,
                Err(error) => {
                    page.info().set(State::DIRTY);
                    failed = failed.or(Some(error));
                }
            }
        });
        failed.map_or(Ok(written), Err)
    }

    /// Takes every page from `from` on out of the cache, for a file that has become shorter, and makes
    /// zeros of what lies behind the new end in its last page; how many pages.
    ///
    /// The file has its new length already, and nobody makes it longer before this has returned. Mappings of these pages are the caller's to remove, after
    /// this; a fault that has found a page before looks again whether it is cached.
    pub fn truncate(&self, files: &impl Files, file: FileId) -> u64 {
        let len = files.len_bytes(file);
        let keep = len.div_ceil(PAGE_SIZE);
        let removed = self.drop_pages(file, keep..u64::MAX);
        let tail = usize::try_from(len % PAGE_SIZE).unwrap_or(0);
        if tail == 0 {
            return removed;
        }
        // Who is reading the last page now may have read what was behind the new end: it reads again.
        let unread = self
            .remove_if(file, keep - 1, |_, info| info.clear_unless(State::CACHED, State::READY));
        if let Some(page) = self.ready(file, keep - 1) {
            page.with_bytes(|bytes| bytes.zero_from(tail));
            if files.is_memory(file) {
                // What is stored elsewhere was cut there.
                page.info().set(State::DIRTY);
            }
        }
        removed + u64::from(unread)
    }

    /// Takes every page of the stretch out of the cache, dirty or not; how many. For a hole that is
    /// punched into a file, or who knows how long a file was that is no more.
    ///
    /// Costs a look-up a page, or a pass over the records of all frames if there are fewer pages in the
    /// cache than in the stretch.
    pub fn drop_pages(&self, file: FileId, pages: PageRange) -> u64 {
        // Who puts a page in looks at the file's length after that; what was made of the file before this
        // call is seen by him, or his page here.
        fence(SeqCst);
        let mut removed = 0;
        self.each(file, pages, |index| {
            removed += u64::from(self.remove_if(file, index, |_, _| true));
        });
        removed
    }

    /// Takes the pages of the stretch out of the cache, dirty or not: a hole was made in the file. How
    /// many. Mappings are the caller's to remove, after this.
    pub fn punch(&self, file: FileId, pages: PageRange) -> u64 {
        let mut removed = 0;
        self.each(file, pages, |index| {
            removed += u64::from(self.remove_if(file, index, |_, _| true));
        });
        removed
    }

    /// Drops the pages of the stretch that are clean, whole, and used by nobody; how many. Pages of
    /// files that are in memory only stay.
    pub fn drop_clean(&self, files: &impl Files, file: FileId, pages: PageRange) -> u64 {
        if files.is_memory(file) {
            return 0;
        }
        self.drop_unwritten(file, pages)
    }

    /// The same for every file, also for one that is in memory only: who reads such a page of it again
    /// gets zeros, as if it had never been there. Whoever fills pages of such a file has marked them
    /// dirty.
    pub fn drop_unwritten(&self, file: FileId, pages: PageRange) -> u64 {
        let mut removed = 0;
        self.each(file, pages, |index| {
            let dropped = self.remove_if(file, index, |_, info| {
                // The cache's own share is the only one; nobody gets another without this lock. Who had
                // one may have made the page dirty before he gave it back, so the state is read after.
                if !info.is_sole() {
                    return false;
                }
                let state = info.state();
                state.contains(State::READY) && !state.contains(State::DIRTY)
            });
            removed += u64::from(dropped);
        });
        removed
    }

    /// Takes the whole file out of the cache, dirty or not: for one that is no more.
    pub fn forget(&self, file: FileId) -> u64 {
        self.drop_pages(file, 0..u64::MAX)
    }

    /// Reads up to `count` pages behind `index` that are not cached, until one cannot be had; how many
    /// were read. Whoever reads a file in order calls this with a window that grows.
    pub fn read_ahead(&self, files: &impl Files, file: FileId, index: u64, count: u64) -> u64 {
        let mut read = 0;
        for index in index..index.saturating_add(count) {
            match self.get(files, file, index) {
                Ok((_, new)) => read += u64::from(new),
                Err(CacheError::Busy) => {}
                Err(_) => break,
            }
        }
        read
    }

    /// Calls `f` with the number of every page of the stretch that may be cached.
    fn each(&self, file: FileId, pages: PageRange, mut f: impl FnMut(u64)) {
        let count = pages.end.saturating_sub(pages.start);
        if count <= self.count_pages().max(64) {
            pages.for_each(f);
            return;
        }
        self.pages.each_info(&mut |info| {
            let here = info.state().contains(State::CACHED) && info.owner() == file.0;
            if here && pages.contains(&info.index()) {
                f(info.index());
            }
        });
    }
}
