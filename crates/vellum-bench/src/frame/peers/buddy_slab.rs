//! buddy-slab-allocator: 12 bytes for each frame, and doubly linked lists through them.
//!
//! ```text
//!   Reserve   | section, 12 bytes for each frame | frame 0 | frame 1 | ...
//!                                                ^ aligned to its largest block, 4 GiB
//! ```
//!
//! It is its `BuddyAllocator`, the part that deals in pages, by itself: its `GlobalAllocator` adds
//! a lock, and slabs for what is smaller than a page. It aligns blocks to their size within its
//! memory; that memory begins at a multiple of the largest block here, so blocks are aligned
//! without asking for it (a larger alignment than a page's makes it walk its lists).
//! It never touches the frames themselves, which therefore need not exist.

use super::super::allocator::{Allocator, FRAME_SHIFT, Frames, Side};
use super::super::reserve::Reserve;
use super::locked::Lockable;
use buddy_slab_allocator::BuddyAllocator;
use core::fmt;

const PAGE: usize = 1 << FRAME_SHIFT;

/// What it is aligned to: the largest block that it has.
const ALIGN: usize = PAGE << buddy_slab_allocator::buddy::MAX_ORDER;

/// More than the head of a section has.
const HEAD: usize = PAGE;

/// `BuddyAllocator`, through `&mut`.
pub struct BuddySlab {
    pages: BuddyAllocator<PAGE>,
    memory: Reserve,
    count: u64,
    /// Where frame 0 lies.
    start: usize,
}

impl fmt::Debug for BuddySlab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buddy-slab-allocator over {} frames", self.count)
    }
}

impl BuddySlab {
    /// Metadata in whole pages; `HEAD` has room for the head of the section.
    fn metadata(count: u64) -> usize {
        let bytes = BuddyAllocator::<PAGE>::required_meta_size((count << FRAME_SHIFT) as usize);
        (bytes + HEAD).next_multiple_of(PAGE)
    }
}

impl Allocator for BuddySlab {
    const NAME: &'static str = "buddy-slab-allocator";
    const SIDE: Side = Side::Exclusive;
    type Block = usize;
    type Local<'a> = &'a mut BuddyAllocator<PAGE>;

    fn new(count: u64) -> Self {
        let bytes = (count << FRAME_SHIFT) as usize;
        let metadata = Self::metadata(count);
        let memory = Reserve::new(metadata + bytes + 2 * ALIGN);
        // The first multiple of ALIGN with room for the metadata below it.
        let start = (memory.start().addr().get() + metadata).next_multiple_of(ALIGN);
        let mut slab = Self { pages: BuddyAllocator::new(), memory, count, start };
        slab.again();
        slab
    }

    fn again(&mut self) {
        let bytes = (self.count << FRAME_SHIFT) as usize;
        let metadata = Self::metadata(self.count);
        let at = self.start - metadata - self.memory.start().addr().get();
        // SAFETY: all of it lies in the mapping, which is zero or written by the allocator itself,
        // lives as long as `self`, and is reached by nobody else. The allocator keeps pointers to
        // the metadata only, which no slice of ours covers after this call.
        let done = unsafe {
            let region = self.memory.start().as_ptr().add(at);
            self.pages.init(core::slice::from_raw_parts_mut(region, metadata + bytes))
        };
        let section = self.pages.section(0);
        assert!(
            done.is_ok()
                && section
                    .is_some_and(|s| (s.start, s.total_pages) == (self.start, self.count as usize)),
            "frame 0 is to be at {:#x}: {section:?}",
            self.start
        );
    }

    fn local(&mut self) -> Self::Local<'_> {
        &mut self.pages
    }

    fn numbering(&self) -> Box<dyn Fn(usize) -> u64> {
        let start = self.start;
        Box::new(move |block| ((block - start) >> FRAME_SHIFT) as u64)
    }

    fn bits_per_frame(count: u64) -> f64 {
        let bytes = BuddyAllocator::<PAGE>::required_meta_size((count << FRAME_SHIFT) as usize);
        (bytes * 8) as f64 / count as f64
    }
}

impl Lockable for BuddySlab {
    const LOCKED: &'static str = "buddy-slab-alloc., locked";
}

impl Frames for &mut BuddyAllocator<PAGE> {
    type Block = usize;

    fn alloc(&mut self, order: u8) -> Option<usize> {
        self.alloc_pages(1 << order, PAGE).ok()
    }

    unsafe fn free(&mut self, block: usize, order: u8) {
        self.dealloc_pages(block, 1 << order);
    }
}
