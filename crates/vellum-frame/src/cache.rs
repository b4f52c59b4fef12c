//! [`Cache`]: a CPU's hand, and the allocator that it holds frames of.
//!
//! ```text
//!   CPU 0: Cache [hand]---+
//!   CPU 1: Cache [hand]---+--> FrameAllocator     no locked instruction for most calls
//!   an interrupt handler -+                       a compare-and-swap for each
//! ```

use crate::access::Atomic;
use crate::allocator::FrameAllocator;
use crate::error::FreeError;
use crate::hand::Hand;
use core::fmt;
use vellum_core::{OutOfFrames, PhysAddr};

/// What one CPU keeps at hand of a shared [`FrameAllocator`]: up to 128 frames and a block of 2
/// MiB. Most calls of order 0 and 9 take no locked instruction.
///
/// `&mut self` means that whoever holds it is alone: keep interrupts off, or let interrupt handlers
/// use the shared allocator directly, which is always allowed. A block may be freed through another
/// cache or the allocator itself.
///
/// ```
/// # use core::sync::atomic::AtomicU64;
/// # use vellum_frame::{Cache, FrameAllocator, storage_words};
/// # static STORAGE: [AtomicU64; storage_words(4096, 1)] =
/// #     [const { AtomicU64::new(0) }; storage_words(4096, 1)];
/// static FRAMES: FrameAllocator<'static> = FrameAllocator::new();
/// # // SAFETY: no memory is behind these frames, and `STORAGE` is used here alone.
/// # unsafe { FRAMES.init_in(&STORAGE, [(0, 4096 << 12)], [(0, 0); 0]) }.expect("4096 frames");
/// let mut cache = Cache::new(&FRAMES);
/// let pa = cache.alloc(0).expect("frames are free");
/// assert_eq!(cache.held(), 63); // the rest of a word came along
/// // SAFETY: allocated above, and nothing reaches it.
/// unsafe { cache.free(pa, 0) }.expect("it was allocated");
/// cache.flush();
/// assert_eq!(FRAMES.stats().free, 4096);
/// ```
pub struct Cache<'a, 'm> {
    frames: &'a FrameAllocator<'m>,
    hand: Hand<'m>,
}

impl<'a, 'm> Cache<'a, 'm> {
    /// An empty cache.
    #[must_use]
    pub const fn new(frames: &'a FrameAllocator<'m>) -> Self {
        Self { frames, hand: Hand::EMPTY }
    }

    /// As [`FrameAllocator::alloc`].
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if there is no block of that order here or in the allocator, also after what
    /// lay here was given back to it.
    #[inline]
    pub fn alloc(&mut self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        self.hand.alloc::<Atomic>(self.frames, order)
    }

    /// As [`FrameAllocator::free`].
    ///
    /// # Errors
    ///
    /// Every [`FreeError`]; nothing was changed then. A double free is seen if the frame is free in
    /// the allocator or lies here; not if it lies in another CPU's cache.
    ///
    /// # Safety
    ///
    /// As [`FrameAllocator::free`].
    #[inline]
    pub unsafe fn free(&mut self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        self.hand.free::<Atomic>(self.frames, pa, order)
    }

    /// Gives everything back to the allocator.
    pub fn flush(&mut self) {
        self.hand.flush::<Atomic>(self.frames);
    }

    /// How many free frames lie here.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.hand.count()
    }
}

impl Drop for Cache<'_, '_> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for Cache<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("hand", &self.hand).finish_non_exhaustive()
    }
}
