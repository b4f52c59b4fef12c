//! [`Exclusive`]: the same allocator for as long as nobody else can use it.
//!
//! ```text
//!   &FrameAllocator      any CPU, any time       compare-and-swap
//!   &mut FrameAllocator  -> Exclusive            load and store
//! ```
//!
//! While memory is set up on one CPU, under a lock, or in a simulator, the locked instructions buy
//! nothing. It keeps a word and a block at hand as a [`Cache`](crate::Cache) does, and gives them
//! back when it is dropped.
//!
//! # Invariants
//!
//! - Nobody else uses the tree. No two calls are in here at once: it is not `Sync`, and no call
//!   runs code of the caller's.

use crate::access::Plain;
use crate::allocator::FrameAllocator;
use crate::error::FreeError;
use crate::hand::Hand;
use core::cell::UnsafeCell;
use core::fmt;
use vellum_core::{FrameSource, OutOfFrames, PhysAddr};

/// A [`FrameAllocator`] that is borrowed whole, and works without atomic read-modify-writes; made
/// by [`FrameAllocator::exclusive`].
///
/// It can go to another thread, but not be shared with one:
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<vellum_frame::Exclusive<'_, '_>>();
/// ```
pub struct Exclusive<'a, 'm> {
    frames: &'a FrameAllocator<'m>,
    /// Not `Sync`: two at a time would lose each other's stores.
    hand: UnsafeCell<Hand<'m>>,
}

impl<'m> FrameAllocator<'m> {
    /// Borrows the whole allocator, to use it without atomic read-modify-writes meanwhile.
    ///
    /// ```
    /// # use core::sync::atomic::AtomicU64;
    /// # use vellum_frame::{FrameAllocator, storage_words};
    /// # static STORAGE: [AtomicU64; storage_words(256, 1)] =
    /// #     [const { AtomicU64::new(0) }; storage_words(256, 1)];
    /// let mut frames = FrameAllocator::new();
    /// // SAFETY: no memory is behind these frames, and `STORAGE` is used here alone.
    /// unsafe { frames.init_in(&STORAGE, [(0, 256 << 12)], [(0, 0); 0]) }.expect("256 frames");
    /// let alone = frames.exclusive();
    /// let pa = alone.alloc(3).expect("a free block");
    /// // SAFETY: allocated above, and nothing reaches it.
    /// unsafe { alone.free(pa, 3) }.expect("it was allocated");
    /// ```
    pub fn exclusive(&mut self) -> Exclusive<'_, 'm> {
        Exclusive { frames: self, hand: UnsafeCell::new(Hand::EMPTY) }
    }
}

impl<'m> Exclusive<'_, 'm> {
    #[allow(clippy::mut_from_ref, reason = "private; what it returns ends within one call here")]
    #[inline]
    fn hand(&self) -> &mut Hand<'m> {
        // SAFETY: only this thread is here, since the type is not `Sync`; every caller is one of
        // the methods below, uses it for one call, and that call runs no code of a user's.
        unsafe { &mut *self.hand.get() }
    }

    /// As [`FrameAllocator::alloc`].
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if no block of that order is free, or if `order` is above
    /// [`MAX_ORDER`](crate::MAX_ORDER).
    #[inline]
    pub fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        self.hand().alloc::<Plain>(self.frames, order)
    }

    /// As [`FrameAllocator::free`]; here every double free is seen.
    ///
    /// # Errors
    ///
    /// Every [`FreeError`]; nothing was changed then.
    ///
    /// # Safety
    ///
    /// As [`FrameAllocator::free`].
    #[inline]
    pub unsafe fn free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        self.hand().free::<Plain>(self.frames, pa, order)
    }
}

impl Drop for Exclusive<'_, '_> {
    fn drop(&mut self) {
        self.hand.get_mut().flush::<Plain>(self.frames);
    }
}

impl fmt::Debug for Exclusive<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exclusive").finish_non_exhaustive()
    }
}

// SAFETY: blocks come from the tree of a `FrameAllocator`, whose implementation says why they are
// aligned and disjoint, or were taken from it before and are handed out but once. The loads and stores that stand for its compare-and-swaps cannot be interleaved
// with others: the exclusive borrow keeps away every other handle, this one is not `Sync`, and no
// caller's code runs in between.
unsafe impl FrameSource for Exclusive<'_, '_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        self.alloc(order)
    }

    /// # Panics
    ///
    /// In debug builds, when the block cannot have come from `alloc`; in release builds such a call
    /// changes nothing.
    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the contract of the trait is that of the checked function.
        let freed = unsafe { self.free(pa, order) };
        debug_assert!(freed.is_ok(), "free of {pa}, order {order}: {freed:?}");
    }
}
