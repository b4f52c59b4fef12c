//! An address space: regions, translations, limits, behind one lock.
//!
//! ```text
//!   program's access            system calls
//!        |                           |
//!        v shared                    v exclusive
//!   +-- lock ------------------------------------------+
//!   | Parts   regions (VmaMap)  translations (Mmu)     |
//!   |         limits, counts, heap                     |
//!   +--------------------------------------------------+
//!        |                           |
//!     fault: find, resolve      mmap, munmap, mprotect, mremap, madvise, brk, fork ...
//! ```
//!
//! Faults of many CPUs run side by side: they find their region and resolve the fault with the lock
//! shared. A fault that needs more (a stack that grows, the first private page of a region, a large leaf
//! to split) takes the lock for itself and begins again.
//!
//! Each call has Linux's checks in Linux's order, so that its errors are Linux's; docs/posix.md lists
//! them by flag.
//!
//! # Lock order
//!
//! This lock, then the page cache's chains and the tables' own. With it held, files are asked for pages;
//! they may wait, and must not touch the space. Of two spaces (fork) the child is not shared yet.

use crate::errno::Errno;
use crate::rules::{Layout, Limits, Rules};
use crate::vma::Vma;
use crate::vma_map::PageRange;
use core::fmt;
use lock_api::{RawRwLock, RwLock};
use vellum_cache::FileId;
use vellum_core::{PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use vellum_fault::{Mmu, System};

mod access;
mod advise;
mod brk;
mod fault;
mod file;
mod fork;
mod lock;
mod map;
mod maps;
mod parts;
mod place;
mod protect;
mod regions;
mod remap;
mod smaps;
mod swap;
mod sync;
mod unmap;
mod usage;

pub use access::AccessError;
pub use usage::Usage;

use parts::Parts;

/// A file to map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMap {
    /// Which.
    pub file: FileId,
    /// By which descriptor: regions of one file become one only if this is equal.
    pub descriptor: u64,
    /// From which byte on.
    pub offset: u64,
    /// Whether it is open for reading.
    pub readable: bool,
    /// Whether it is open for writing.
    pub writable: bool,
}

/// An address space of the system `S`, locked by `L`. See the [module](self).
pub struct AddressSpace<'e, S: System, L> {
    parts: RwLock<L, Parts<'e, S>>,
}

impl<'e, S: System, L: RawRwLock> AddressSpace<'e, S, L> {
    /// A space without regions. What of `layout` lies behind the addresses that the table translates, or is no
    /// multiple of 4 KiB and has to be, is taken for the last page boundary before it:
    /// [`layout`](Self::layout) says what it came to.
    pub fn new(mmu: Mmu<'e, S>, rules: &'e Rules, layout: Layout, limits: Limits) -> Self {
        Self { parts: RwLock::new(Parts::new(mmu, rules, layout, limits)) }
    }

    /// What the process may use.
    pub fn limits(&self) -> Limits {
        self.parts.read().limits
    }

    /// Changes what the process may use; what it uses already stays.
    pub fn set_limits(&self, limits: Limits) {
        self.parts.write().limits = limits;
    }

    /// Where things lie.
    pub fn layout(&self) -> Layout {
        self.parts.read().layout
    }

    /// Calls `f` with the translations: to load the root, to read the counters.
    pub fn with_mmu<R>(&self, f: impl FnOnce(&Mmu<'e, S>) -> R) -> R {
        f(&self.parts.read().mmu)
    }

    /// Calls `f` with each region and where it is, ascending, until it returns false.
    pub fn each_region(&self, mut f: impl FnMut(PageRange, &Vma) -> bool) {
        let parts = self.parts.read();
        for (range, vma) in parts.vmas.iter(PageRange::ALL) {
            if !f(range, &vma) {
                return;
            }
        }
    }

    /// Bytes of all regions together (VSZ).
    pub fn size_bytes(&self) -> u64 {
        self.parts.read().used.total << PAGE_SHIFT
    }

    /// Bytes of all locked regions.
    pub fn locked_bytes(&self) -> u64 {
        self.parts.read().used.locked << PAGE_SHIFT
    }
}

impl<S: System, L: RawRwLock> fmt::Debug for AddressSpace<'_, S, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace").finish_non_exhaustive()
    }
}

/// Bytes rounded up to pages; 0 where that passes 2^64.
pub(crate) const fn page_align(bytes: u64) -> u64 {
    bytes.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1)
}

/// Whether it is a multiple of 4 KiB.
pub(crate) const fn is_aligned(va: u64) -> bool {
    va.is_multiple_of(PAGE_SIZE)
}

/// `[start, end)` as pages.
pub(crate) fn pages_of(start: u64, end: u64) -> Result<PageRange, Errno> {
    let len = end.checked_sub(start).ok_or(Errno::Einval)?;
    PageRange::new(VirtAddr::new(start), len).map_err(|_| Errno::Einval)
}

/// First and end address of a range of user space.
pub(crate) fn bounds_of(range: PageRange) -> (u64, u64) {
    let start = range.start().as_u64();
    (start, start + (range.count_pages() << PAGE_SHIFT))
}
