//! buddy_system_allocator: a `BTreeSet` of free blocks for each order.
//!
//! `FrameAllocator<11>` has the orders 0 to 10, as the page allocator of Linux has; with as many as
//! ours has, 19, no row differed by more than noise. Its sets take nodes from the host's malloc, which is faster
//! than the heaps that kernels have; those that cannot have a heap below their frames cannot use it.
//!
//! Shared, it is the crate's own `LockedFrameAllocator`, a `spin::Mutex`.

use super::super::allocator::{Allocator, Frames, Shared, Side};
use buddy_system_allocator::{FrameAllocator, LockedFrameAllocator};
use core::fmt;

/// Orders 0 to 10.
const ORDERS: usize = 11;

/// What its keys alone take when every other frame is free, the most blocks there can be: the
/// nodes of the sets, which are a third empty on average, come on top.
fn bits() -> f64 {
    f64::from(usize::BITS) / 2.0
}

/// `FrameAllocator`, through `&mut`.
pub struct BuddySystem {
    frames: FrameAllocator<ORDERS>,
    count: u64,
}

impl fmt::Debug for BuddySystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buddy_system_allocator over {} frames", self.count)
    }
}

impl Allocator for BuddySystem {
    const NAME: &'static str = "buddy_system_allocator";
    const SIDE: Side = Side::Exclusive;
    type Block = usize;
    type Local<'a> = &'a mut FrameAllocator<ORDERS>;

    fn new(count: u64) -> Self {
        let mut buddy = Self { frames: FrameAllocator::new(), count };
        buddy.again();
        buddy
    }

    fn blank(&mut self) {
        self.frames = FrameAllocator::new();
    }

    fn again(&mut self) {
        self.frames.add_frame(0, self.count as usize);
    }

    fn local(&mut self) -> Self::Local<'_> {
        &mut self.frames
    }

    fn numbering(&self) -> Box<dyn Fn(usize) -> u64> {
        Box::new(|block| block as u64)
    }

    fn bits_per_frame(_: u64) -> f64 {
        bits()
    }
}

impl Frames for &mut FrameAllocator<ORDERS> {
    type Block = usize;

    fn alloc(&mut self, order: u8) -> Option<usize> {
        FrameAllocator::alloc(self, 1 << order)
    }

    unsafe fn free(&mut self, block: usize, order: u8) {
        self.dealloc(block, 1 << order);
    }
}

/// `LockedFrameAllocator`.
pub struct LockedBuddySystem {
    frames: LockedFrameAllocator<ORDERS>,
    count: u64,
}

impl fmt::Debug for LockedBuddySystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "buddy_system_allocator over {} frames, locked", self.count)
    }
}

impl Allocator for LockedBuddySystem {
    const NAME: &'static str = "buddy_system_alloc., locked";
    const SIDE: Side = Side::Shared;
    const PLACES_LIKE: &'static str = BuddySystem::NAME;
    type Block = usize;
    type Local<'a> = &'a LockedFrameAllocator<ORDERS>;

    fn new(count: u64) -> Self {
        let mut buddy = Self { frames: LockedFrameAllocator::new(), count };
        buddy.again();
        buddy
    }

    fn blank(&mut self) {
        self.frames = LockedFrameAllocator::new();
    }

    fn again(&mut self) {
        self.frames.lock().add_frame(0, self.count as usize);
    }

    fn local(&mut self) -> Self::Local<'_> {
        &self.frames
    }

    fn numbering(&self) -> Box<dyn Fn(usize) -> u64> {
        Box::new(|block| block as u64)
    }

    fn bits_per_frame(_: u64) -> f64 {
        bits()
    }
}

impl Shared for LockedBuddySystem {
    type OnCpu<'a> = &'a LockedFrameAllocator<ORDERS>;

    fn on(&self, _cpu: usize) -> Self::OnCpu<'_> {
        &self.frames
    }
}

impl Frames for &LockedFrameAllocator<ORDERS> {
    type Block = usize;

    fn alloc(&mut self, order: u8) -> Option<usize> {
        self.lock().alloc(1 << order)
    }

    unsafe fn free(&mut self, block: usize, order: u8) {
        self.lock().dealloc(block, 1 << order);
    }
}
