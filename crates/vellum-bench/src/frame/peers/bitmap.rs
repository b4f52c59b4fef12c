//! bitmap-allocator: a tree of 16-way bitmaps.
//!
//! One frame comes from `alloc`, which descends the tree; more come from `alloc_contiguous`, which
//! walks from the lowest free frame upwards: there is nothing else in the crate for blocks, and
//! each of its callers has it so. Its types hold 2<sup>20</sup>, 2<sup>24</sup> and 2<sup>28</sup>
//! frames, which is why memory of 4 GiB, 64 GiB and 1 TiB suits it.

use super::super::allocator::{Allocator, Frames, Side};
use super::super::reserve::Reserve;
use super::locked::{Lockable, Locked};
use bitmap_allocator::BitAlloc;
use core::fmt;
use core::marker::PhantomData;

/// `BitAlloc1M` and larger.
pub struct Bitmap<T> {
    bits: Reserve,
    count: u64,
    _type: PhantomData<T>,
}

impl<T> fmt::Debug for Bitmap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bitmap-allocator over {} frames", self.count)
    }
}

impl<T: BitAlloc> Bitmap<T> {
    fn get(&mut self) -> &mut T {
        // SAFETY: the mapping has the size of a T, is aligned to a page, lives as long as `self`,
        // and is borrowed as a whole. All `BitAlloc`s of the crate are made of `u16`s, for which
        // zeros are as good as anything that the T itself wrote later.
        unsafe { self.bits.start().cast::<T>().as_mut() }
    }
}

impl<T: BitAlloc + Send + 'static> Allocator for Bitmap<T> {
    const NAME: &'static str = "bitmap-allocator";
    const SIDE: Side = Side::Exclusive;
    type Block = usize;
    type Local<'a> = Bits<'a, T>;

    fn new(frames: u64) -> Self {
        assert!(frames <= T::CAP as u64, "the bitmap has {} bits", T::CAP);
        let bits = Reserve::new(size_of::<T>());
        let mut bitmap = Self { bits, count: frames, _type: PhantomData };
        bitmap.again();
        bitmap
    }

    fn again(&mut self) {
        let end = self.count as usize;
        self.get().insert(0..end);
    }

    fn blank(&mut self) {
        // A kernel has it in `.bss`: that it starts as zeros costs its author nothing.
        // SAFETY: a T is made of `u16`s, and the mapping has the size of one.
        unsafe { self.bits.start().cast::<T>().write_bytes(0, 1) };
    }

    fn local(&mut self) -> Bits<'_, T> {
        Bits(self.get())
    }

    fn numbering(&self) -> Box<dyn Fn(usize) -> u64> {
        Box::new(|block| block as u64)
    }

    fn bits_per_frame(frames: u64) -> f64 {
        (size_of::<T>() * 8) as f64 / frames as f64
    }
}

impl<T: BitAlloc + Send + 'static> Lockable for Bitmap<T> {
    const LOCKED: &'static str = "bitmap-allocator, locked";
}

/// The bitmap itself.
pub struct Bits<'a, T>(&'a mut T);

impl<T> fmt::Debug for Bits<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bitmap-allocator")
    }
}

impl<T: BitAlloc> Frames for Bits<'_, T> {
    type Block = usize;

    fn alloc(&mut self, order: u8) -> Option<usize> {
        if order == 0 {
            self.0.alloc()
        } else {
            self.0.alloc_contiguous(None, 1 << order, order.into())
        }
    }

    unsafe fn free(&mut self, block: usize, order: u8) {
        let freed = if order == 0 {
            self.0.dealloc(block)
        } else {
            self.0.dealloc_contiguous(block, 1 << order)
        };
        debug_assert!(freed);
    }
}

// Only that the lock may hold it.
const _: () = {
    const fn send<T: Send>() {}
    send::<Locked<Bitmap<bitmap_allocator::BitAlloc1M>>>();
};
