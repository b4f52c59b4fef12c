//! free-list: a sorted vector of free ranges.
//!
//! `FreeList<16>` is what its README shows and what hermit uses: sixteen ranges in place, more on
//! the heap. A block is the crate's own `PageRange`, so that nothing is converted on the way back;
//! the layouts, which the crate checks when they are made, are made once.
//!
//! Every call goes through the ranges from the lowest on: with half a million of them, which is
//! what filling memory and freeing it in random order comes to, each free takes a millisecond. Such
//! rows would take hours, so it is left out of them.

use super::super::allocator::{Allocator, FRAME_SHIFT, Frames, Side};
use core::fmt;
use free_list::{FreeList, PageLayout, PageRange};

/// The orders that are asked for.
const ORDERS: u8 = 11;

/// `FreeList`, through `&mut`.
pub struct FreeRanges {
    ranges: FreeList<16>,
    layouts: [PageLayout; ORDERS as usize],
    count: u64,
}

impl fmt::Debug for FreeRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "free-list over {} frames: {} free bytes", self.count, self.ranges.free_space())
    }
}

impl Allocator for FreeRanges {
    const NAME: &'static str = "free-list";
    const SIDE: Side = Side::Exclusive;
    const TOO_SLOW_FOR: &'static [&'static str] =
        &["b: fill", "d: swings", "d: mixed", "f", "flat"];
    type Block = PageRange;
    type Local<'a> = &'a mut Self;

    fn new(count: u64) -> Self {
        let layouts = core::array::from_fn(|order| {
            let size = 1 << (FRAME_SHIFT as usize + order);
            PageLayout::from_size_align(size, size).expect("whole pages, a power of two")
        });
        let mut list = Self { ranges: FreeList::new(), layouts, count };
        list.again();
        list
    }

    fn blank(&mut self) {
        self.ranges = FreeList::new();
    }

    fn again(&mut self) {
        let all = PageRange::new(0, (self.count << FRAME_SHIFT) as usize).expect("whole pages");
        // SAFETY: no byte of it exists.
        let added = unsafe { self.ranges.deallocate(all) };
        debug_assert_eq!(added, Ok(()));
    }

    fn local(&mut self) -> &mut Self {
        self
    }

    fn numbering(&self) -> Box<dyn Fn(PageRange) -> u64> {
        Box::new(|block| (block.start() >> FRAME_SHIFT) as u64)
    }

    /// One range for every other frame, at worst.
    fn bits_per_frame(_: u64) -> f64 {
        (size_of::<PageRange>() * 8) as f64 / 2.0
    }
}

impl Frames for &mut FreeRanges {
    type Block = PageRange;

    fn alloc(&mut self, order: u8) -> Option<PageRange> {
        self.ranges.allocate(*self.layouts.get(usize::from(order))?).ok()
    }

    unsafe fn free(&mut self, block: PageRange, _: u8) {
        // SAFETY: the caller's promise; and no byte of it exists.
        let freed = unsafe { self.ranges.deallocate(block) };
        debug_assert_eq!(freed, Ok(()));
    }
}
