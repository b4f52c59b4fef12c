//! A system on the host, for tests and laboratories: RAM that is one allocation, files and swap in
//! the host's memory, and a processor that walks the table for every access and caches nothing.
//!
//! ```text
//!   4 MiB                                                             4 MiB + len
//!     +----------------------------------------------------+----------+
//!     | frames, dealt out by vellum-frame's allocator      | its own  |     one host allocation
//!     +----------------------------------------------------+----------+
//!     | PageInfo | PageInfo | ...                                     |     a vector
//! ```
//!
//! The code that runs over it is the code that boots.
//!
//! # Invariants
//!
//! - A pointer to a frame is derived from the one allocation.

use crate::system::System;
use core::alloc::Layout;
use core::fmt;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicI64, AtomicU32, Ordering::Relaxed};
use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error};
use std::boxed::Box;
use vellum_cache::{PageInfo, Pages};
use vellum_core::{
    Flush, FrameSource, Invalidate, Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PageTable, Pfn,
    PhysAddr, PhysMap,
};
use vellum_frame::FrameAllocator;

#[cfg(feature = "designs")]
pub mod designs;
mod files;
mod swap;

pub use files::MemoryFiles;
pub use swap::MemorySwap;

/// Where RAM begins.
const ORIGIN: u64 = 4 << 20;

/// RAM on the host; `&Ram` is a [`Memory`].
pub struct Ram {
    // Before `host`, whose memory it has its own words in.
    frames: FrameAllocator<'static>,
    host: Host,
    infos: Box<[PageInfo]>,
    /// Allocations that may still succeed, if not negative.
    budget: AtomicI64,
}

/// The allocation; given back when dropped.
struct Host {
    base: NonNull<u8>,
    layout: Layout,
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: allocated by `Ram::new` with this layout, once.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

// SAFETY: the pointer is to an allocation that this owns; who may touch which bytes of it is the
// business of those who have frames.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Ram {
    /// RAM of this many frames, of which the allocator takes a few for itself.
    ///
    /// # Panics
    ///
    /// If the host has no such memory, or there are too few frames for the allocator's words.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        let bytes = frames * PAGE_SIZE as usize;
        let layout = Layout::from_size_align(bytes, 1 << 21).expect("RAM of a size");
        // SAFETY: the size is not 0: the allocator would refuse it below.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        let host = Host { base, layout };
        let allocator = FrameAllocator::new();
        let end = ORIGIN + bytes as u64;
        // SAFETY: this memory is nobody else's; a pointer to its words is used by `allocator` only,
        // which goes before the memory does.
        unsafe {
            allocator
                .init([(ORIGIN, end)], [(0, 0); 0], |pa, _| Some(host.at(pa.as_u64() - ORIGIN)))
        }
        .expect("RAM of more than a few frames");
        let infos = (0..frames).map(|_| PageInfo::new()).collect();
        Self { frames: allocator, host, infos, budget: AtomicI64::new(-1) }
    }

    /// Lets this many more allocations succeed, and none after them; `None` lifts that.
    pub fn limit(&self, allocations: Option<u32>) {
        self.budget.store(allocations.map_or(-1, i64::from), Relaxed);
    }

    /// Frames that are not free.
    pub fn frames_in_use(&self) -> u64 {
        let stats = self.frames.stats();
        stats.total - stats.free
    }

    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        let frame = pa.as_u64().wrapping_sub(ORIGIN) >> PAGE_SHIFT;
        self.infos.get(usize::try_from(frame).ok()?)
    }

    /// The first frame.
    #[must_use]
    pub fn first(&self) -> Pfn {
        PhysAddr::new(ORIGIN).number()
    }

    /// Frames that there are.
    pub fn count_frames(&self) -> u64 {
        self.frames.stats().total
    }
}

impl Host {
    fn at(&self, offset: u64) -> NonNull<u8> {
        assert!(offset < self.layout.size() as u64, "no RAM at offset {offset:#x}");
        // SAFETY: within the allocation, as was just seen.
        unsafe { self.base.add(offset as usize) }
    }
}

// SAFETY: the pointer is as far behind `base` as the address is behind ORIGIN, which is within the one
// allocation; both are aligned to 2 MiB, so it is good to the end of its frame. Elsewhere it panics.
unsafe impl PhysMap for Ram {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        f(self.host.at(pa.as_u64().wrapping_sub(ORIGIN)))
    }
}

// SAFETY: forwards to `FrameAllocator`, which keeps the contract; what is refused for the budget was
// not taken.
unsafe impl FrameSource for Ram {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let budget = self.budget.fetch_update(Relaxed, Relaxed, |n| match n {
            0 => None,
            n if n < 0 => Some(n),
            n => Some(n - 1),
        });
        budget.map_err(|_| OutOfFrames { order })?;
        self.frames.alloc(order)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller's.
        let freed = unsafe { self.frames.free(pa, order) };
        assert_eq!(freed, Ok(()), "a frame was given back wrongly");
    }
}

// SAFETY: all frames are in the one allocation; a copy of the reference is the same memory, and
// equality is identity. Each frame has a record, whose word for sharers nobody else asks for; it is 0 to
// begin with, and a table leaves it at 0 with the block.
unsafe impl Memory for &Ram {
    unsafe fn sharers(&self, block: PhysAddr) -> Option<&AtomicU32> {
        // SAFETY: the caller's.
        self.info(block).map(|info| unsafe { info.sharers() })
    }
}

impl PartialEq for Ram {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl fmt::Debug for Ram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ram").field("frames", &self.frames.stats()).finish_non_exhaustive()
    }
}

/// A processor that caches nothing: it walks the table for every access.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTlb;

// SAFETY: there is no CPU that could have cached anything.
unsafe impl Invalidate for NoTlb {
    fn flush(&self, _: &[Flush]) {}
}

/// A system over [`Ram`], [`MemoryFiles`] and [`MemorySwap`], with tables of type `T`.
pub struct HostSystem<'r, T> {
    ram: &'r Ram,
    files: MemoryFiles,
    swap: MemorySwap,
    table: PhantomData<fn() -> T>,
}

impl<'r, T> HostSystem<'r, T> {
    /// A system without files, and nothing in swap.
    #[must_use]
    pub fn new(ram: &'r Ram) -> Self {
        Self { ram, files: MemoryFiles::default(), swap: MemorySwap::default(), table: PhantomData }
    }

    /// The RAM.
    #[must_use]
    pub const fn ram(&self) -> &'r Ram {
        self.ram
    }
}

// SAFETY: the records are in one vector, by frame from ORIGIN on, and there are as many as frames; they
// are lent as `&PageInfo` only.
unsafe impl<'r, T> Pages for HostSystem<'r, T> {
    type Memory = &'r Ram;

    fn memory(&self) -> &Self::Memory {
        &self.ram
    }

    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        self.ram.info(pa)
    }

    fn each_info(&self, f: &mut impl FnMut(&PageInfo)) {
        self.ram.infos.iter().for_each(f);
    }
}

impl<T: PageTable> System for HostSystem<'_, T> {
    type Table = T;
    type Cpus = NoTlb;
    type Files = MemoryFiles;
    type Swap = MemorySwap;

    fn files(&self) -> &MemoryFiles {
        &self.files
    }

    fn swap(&self) -> &MemorySwap {
        &self.swap
    }
}

impl<T> fmt::Debug for HostSystem<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSystem").field("ram", &self.ram).finish_non_exhaustive()
    }
}
