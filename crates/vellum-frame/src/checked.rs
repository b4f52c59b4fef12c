//! [`CheckedSource`]: a frame source that looks at what it is given back.
//!
//! ```text
//!   FrameSource     free may trust its caller            tables, heaps
//!     ^
//!   CheckedSource   try_free says what is wrong          zones (which of us owns it?),
//!                                                        the x86_64 crate's deallocators
//! ```

use crate::allocator::FrameAllocator;
use crate::error::FreeError;
use crate::exclusive::Exclusive;
use crate::percpu::Local;
use vellum_core::{FrameSource, PhysAddr};

/// A source that refuses what it never gave, as far as it can tell.
///
/// That is more than [`FrameSource`] asks.
pub trait CheckedSource: FrameSource {
    /// Gives a block back, or says why it cannot be this source's to take.
    ///
    /// # Errors
    ///
    /// Every [`FreeError`]; nothing was changed then.
    ///
    /// # Safety
    ///
    /// As [`FrameAllocator::free`].
    unsafe fn try_free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError>;
}

impl CheckedSource for FrameAllocator<'_> {
    unsafe fn try_free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: the same contract.
        unsafe { self.free(pa, order) }
    }
}

impl CheckedSource for Exclusive<'_, '_> {
    unsafe fn try_free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: the same contract.
        unsafe { self.free(pa, order) }
    }
}

impl CheckedSource for Local<'_, '_> {
    unsafe fn try_free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: the same contract.
        unsafe { self.free(pa, order) }
    }
}

impl<T: CheckedSource + ?Sized> CheckedSource for &T {
    unsafe fn try_free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: the caller keeps the contract of this same function of `T`.
        unsafe { T::try_free(self, pa, order) }
    }
}
