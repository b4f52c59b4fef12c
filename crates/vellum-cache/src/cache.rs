//! The page cache: which frame holds which page of which file.
//!
//! ```text
//!   heads                      records of frames (PageInfo), linked by frame number
//!   +------+-+
//!   | 7    | |---> frame 7: file 3, page 0 ---> frame 90: file 1, page 12 ---> end
//!   +------+-+
//!   | none | |       the word's lowest bit is the chain's lock
//!   +------+-+
//!     hash(file, page)
//!
//!   a page:   absent --get--> CACHED (being read) --> READY  --mark_dirty--> DIRTY --write_back--> READY
//!                                 `--error--> absent
//! ```
//!
//! There is at most one record a frame, so the chains need no memory of their own, and a look-up can
//! never run out of it. The cache owns one share in each of its pages ([`Page`]); mappings own theirs.
//! So a page that was truncated away, or dropped, lives on where it is still used, and nobody finds it
//! any more.
//!
//! # Invariants
//!
//! - A page is in a chain exactly while it has [`State::CACHED`], and the cache has a share in it.
//! - A file's page is in the cache once.
//! - Its contents are valid from [`State::READY`] on, which is set with release order. Who sets it finds
//!   out in the same step whether the page is in the cache still, and who takes a page out, whether it
//!   was ready: so of a reader and a truncation of its page one always knows of the other.
//! - Files are called, and pages freed, under no lock.
//!
//! # Lock order
//!
//! One chain's lock at a time, innermost; under it nothing is called.

use crate::files::{FileError, FileId, Files};
use crate::page::{Page, PageInfo, Pages, State};
use crate::sync::fence;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use heads::Heads;
use vellum_core::{OutOfFrames, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr};

mod heads;
mod sweep;

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

/// Why a page cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CacheError {
    /// Somebody is reading it in now, or has truncated the file meanwhile: to be asked for again.
    Busy,
    /// No frame for it.
    OutOfFrames(OutOfFrames),
    /// It lies behind the file's end.
    PastEnd,
    /// The file could not be read.
    File(FileError),
}

impl fmt::Display for CacheError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the page is being read"),
            Self::OutOfFrames(e) => e.fmt(f),
            Self::PastEnd => f.write_str("the page lies behind the end of its file"),
            Self::File(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for CacheError {}

/// The page cache of one memory. See the [module](self).
pub struct Cache<P: Pages> {
    pages: P,
    heads: Heads,
    cached: AtomicU64,
}

impl<P: Pages> Cache<P> {
    /// An empty cache with 2<sup>`order`</sup> frames of chains, 512 chains each: a chain for every one
    /// to four pages that may be cached is right.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn new(pages: P, order: u8) -> Result<Self, OutOfFrames> {
        let heads = Heads::new(pages.memory(), order)?;
        Ok(Self { pages, heads, cached: AtomicU64::new(0) })
    }

    /// What it is of.
    pub const fn pages(&self) -> &P {
        &self.pages
    }

    /// How many pages it holds.
    pub fn count_pages(&self) -> u64 {
        self.cached.load(Relaxed)
    }

    /// The page, if it is cached, with valid contents or not.
    pub fn find(&self, file: FileId, index: u64) -> Option<Page<'_, P>> {
        self.in_chain(file, index, |chain| {
            let pa = chain.find(&self.pages, file, index)?;
            Page::found(&self.pages, pa)
        })
    }

    /// Whether the page is cached and its contents are valid: what `mincore` says.
    pub fn is_resident(&self, file: FileId, index: u64) -> bool {
        self.in_chain(file, index, |chain| {
            let pa = chain.find(&self.pages, file, index)?;
            self.pages.info(pa).map(|info| info.state().contains(State::READY))
        })
        .unwrap_or(false)
    }

    /// The page with valid contents, if it is cached.
    pub fn ready(&self, file: FileId, index: u64) -> Option<Page<'_, P>> {
        self.find(file, index).filter(|page| page.info().state().contains(State::READY))
    }

    /// The page with valid contents, read from the file if it is not cached, and whether it was.
    ///
    /// # Errors
    ///
    /// [`CacheError`]; a page that could not be read is not cached.
    pub fn get(
        &self,
        files: &impl Files,
        file: FileId,
        index: u64,
    ) -> Result<(Page<'_, P>, bool), CacheError> {
        if let Some(page) = self.find(file, index) {
            let ready = page.info().state().contains(State::READY);
            return if ready { Ok((page, false)) } else { Err(CacheError::Busy) };
        }
        let is_past_end = || index >= files.len_bytes(file).div_ceil(PAGE_SIZE);
        if is_past_end() {
            return Err(CacheError::PastEnd);
        }
        let page = Page::take(&self.pages).map_err(CacheError::OutOfFrames)?;
        page.info().belongs_to(file.0, index);
        if files.is_memory(file) {
            page.info().set(State::MEMORY);
        }
        if !self.insert(file, index, &page) {
            return Err(CacheError::Busy);
        }
        // Whoever makes the file shorter finds the page in the cache, or its new length is seen here.
        fence(SeqCst);
        if is_past_end() {
            self.remove(file, index, &page);
            return Err(CacheError::PastEnd);
        }
        match page.with_bytes(|bytes| files.read(file, index, bytes)) {
            // Taken out of the cache while it was read: what was read may be of before a truncation.
            Ok(()) if !page.info().set(State::READY).contains(State::CACHED) => {
                Err(CacheError::Busy)
            }
            Ok(()) => Ok((page, true)),
            Err(error) => {
                self.remove(file, index, &page);
                Err(CacheError::File(error))
            }
        }
    }

    /// Puts a page in, unless one is there: with a share of the cache's own.
    fn insert(&self, file: FileId, index: u64, page: &Page<'_, P>) -> bool {
        let share = page.share();
        let inserted = self.in_chain(file, index, |chain| {
            if chain.find(&self.pages, file, index).is_some() {
                return false;
            }
            page.info().set(State::CACHED);
            page.info().link.store(chain.first, Relaxed);
            chain.first = link_to(page.pa());
            true
        });
        if inserted {
            self.cached.fetch_add(1, Relaxed);
            let _ = share.into_pa();
        }
        inserted
    }

    /// Takes this very page out, if it is in; the cache's share is given back.
    fn remove(&self, file: FileId, index: u64, page: &Page<'_, P>) -> bool {
        self.remove_if(file, index, |pa, _| pa == page.pa())
    }

    /// Takes the page out if `f` says so, which is called under the chain's lock.
    pub(crate) fn remove_if(
        &self,
        file: FileId,
        index: u64,
        f: impl FnOnce(PhysAddr, &PageInfo) -> bool,
    ) -> bool {
        let removed = self.in_chain(file, index, |chain| {
            let pa = chain.find(&self.pages, file, index)?;
            let info = self.pages.info(pa)?;
            if !f(pa, info) {
                return None;
            }
            chain.unlink(&self.pages, pa, info);
            info.clear(State::CACHED);
            Some(pa)
        });
        let Some(pa) = removed else { return false };
        self.cached.fetch_sub(1, Relaxed);
        // SAFETY: the page was in a chain until just now, and the cache has a share in each that is; it
        // was unlinked under the chain's lock, so nobody else takes this share.
        drop(unsafe { Page::from_pa(&self.pages, pa) });
        true
    }

    /// Calls `f` with the chain of this page, locked.
    fn in_chain<R>(&self, file: FileId, index: u64, f: impl FnOnce(&mut Chain) -> R) -> R {
        self.heads.locked(self.pages.memory(), hash(file, index), |head| {
            let mut chain = Chain { first: *head };
            let result = f(&mut chain);
            *head = chain.first;
            result
        })
    }
}

/// A chain whose lock is held.
struct Chain {
    /// A link: see [`link_to`].
    first: u64,
}

impl Chain {
    fn find<P: Pages>(&self, pages: &P, file: FileId, index: u64) -> Option<PhysAddr> {
        let mut link = self.first;
        while let Some(pa) = linked(link) {
            let info = pages.info(pa)?;
            if info.index() == index && info.owner() == file.0 {
                return Some(pa);
            }
            link = info.link.load(Relaxed);
        }
        None
    }

    fn unlink<P: Pages>(&mut self, pages: &P, pa: PhysAddr, info: &PageInfo) {
        let (own, next) = (link_to(pa), info.link.load(Relaxed));
        if self.first == own {
            self.first = next;
            return;
        }
        let mut link = self.first;
        while let Some(before) = linked(link).and_then(|pa| pages.info(pa)) {
            link = before.link.load(Relaxed);
            if link == own {
                before.link.store(next, Relaxed);
                return;
            }
        }
    }
}

/// A frame's number plus one, above the bit that is the lock in a head; 0 is the end.
fn link_to(pa: PhysAddr) -> u64 {
    ((pa.as_u64() >> PAGE_SHIFT) + 1) << 1
}

fn linked(link: u64) -> Option<PhysAddr> {
    Some(Pfn::new((link >> 1).checked_sub(1)?)?.addr())
}

/// Pages of a file in order fall into chains far apart; so do files.
///
/// Source: the finaliser of splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
fn hash(file: FileId, index: u64) -> u64 {
    let mut x = file.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

impl<P: Pages> Drop for Cache<P> {
    /// Gives back every page, dirty or not, and the chains.
    fn drop(&mut self) {
        for n in 0..self.heads.count() {
            let memory = self.pages.memory();
            let mut link = self.heads.locked(memory, n, |head| *head);
            while let Some((pa, info)) =
                linked(link).and_then(|pa| Some((pa, self.pages.info(pa)?)))
            {
                link = info.link.load(Relaxed);
                info.clear(State::CACHED);
                // SAFETY: as in `remove_if`: it was in a chain, which is not used any more.
                drop(unsafe { Page::from_pa(&self.pages, pa) });
            }
        }
        // SAFETY: `new` took it from this memory, and nobody else has the cache any more.
        unsafe { self.heads.give_back(self.pages.memory()) }
    }
}

impl<P: Pages> fmt::Debug for Cache<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("pages", &self.count_pages()).finish_non_exhaustive()
    }
}

/// Pages of a file, by number.
pub type PageRange = Range<u64>;
