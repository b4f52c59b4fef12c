//! Physical memory as a table sees it: frames to take and give back, and bytes to reach.
//!
//! ```text
//!   PhysMap        pa -> pointer      offset map, identity map, window, host arena
//!   FrameSource    order <-> pa       vellum-frame, or the kernel's own allocator
//!   Memory         both, in one small handle that a table STORES
//! ```
//!
//! A table keeps its handle, and no operation takes another one: otherwise safe code could free a
//! frame of one memory into another (docs/adr/0003). A handle is zero-sized (a kernel's static) or
//! a shared reference (`&Arena`), and cheap to clone.
//!
//! # Invariants
//!
//! - Two handles that compare equal speak of the same memory.
//! - Bytes that hardware or another CPU may change are touched only through atomics; nobody makes
//!   a reference or a slice over them.

use crate::{PAGE_SHIFT, PhysAddr};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;

/// No block of this order is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfFrames {
    /// log2 of the frames that were asked for.
    pub order: u8,
}

impl fmt::Display for OutOfFrames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no free block of {} frames (order {})", 1u64 << self.order.min(63), self.order)
    }
}

impl core::error::Error for OutOfFrames {}

/// Reaches the bytes of physical memory.
///
/// # Safety
///
/// For every frame that the memory holds, `with` hands `f` a pointer that
///
/// - points at the byte `pa`, and is valid for reads and writes from there to the end of the 4 KiB
///   frame of `pa`, until `f` returns;
/// - carries provenance for those bytes, so that it may be offset within the frame;
/// - is as far from a multiple of 4 KiB as `pa` is: what is aligned in the frame is aligned here;
/// - reaches the same bytes at every call (a write is seen by a later read through another call).
///
/// What it hands out for an address that is not in this memory is unspecified; it must not be
/// undefined behaviour to ask.
#[allow(unsafe_code, reason = "declares the contract of an unsafe trait")]
pub unsafe trait PhysMap {
    /// Calls `f` with a pointer to the byte at `pa`, and returns what `f` returns.
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R;
}

/// Gives and takes frames, in blocks of 2<sup>`order`</sup> contiguous 4 KiB frames.
///
/// # Safety
///
/// A block that `alloc` returns is aligned to its own size, is not part of any other block handed
/// out and not yet freed, is read and written by nobody but whom the caller lets, and stays so until
/// `free`. Its contents are whatever they were.
#[allow(unsafe_code, reason = "declares the contract of an unsafe trait")]
pub unsafe trait FrameSource {
    /// Takes a block of 2<sup>`order`</sup> frames; its bytes are not initialised.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when no such block is free, or when `order` is larger than the source
    /// deals in.
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames>;

    /// Gives a block back.
    ///
    /// # Safety
    ///
    /// `pa` and `order` are those of a block that this source handed out and that was not freed
    /// since, and nothing reaches its bytes any more: no table, no TLB, no device.
    unsafe fn free(&self, pa: PhysAddr, order: u8);
}

/// The handle of one physical memory, as a table stores it.
///
/// # Safety
///
/// - Every frame that [`FrameSource::alloc`] hands out is in the memory that [`PhysMap::with`]
///   reaches.
/// - A clone speaks of the same memory: what one handed out may be reached and freed through the
///   other.
/// - Two that compare equal speak of the same memory.
/// - What [`sharers`](Self::sharers) gives for a block is the same word each time until the block is
///   given back, is no other block's, is 0 when the block is handed out, and is written through it only.
///
/// ```
/// use vellum_core::{FrameSource, Memory};
///
/// /// Whether a block of 2 MiB can be had; leaves everything as it was.
/// fn has_huge_frame(memory: &impl Memory) -> bool {
///     match memory.alloc(9) {
///         Ok(pa) => {
///             // SAFETY: allocated above with this order, and nothing else knows of it.
///             unsafe { memory.free(pa, 9) };
///             true
///         }
///         Err(_) => false,
///     }
/// }
/// ```
#[allow(unsafe_code, reason = "declares the contract of an unsafe trait")]
pub unsafe trait Memory: PhysMap + FrameSource + Clone + PartialEq {
    /// A count beside a block that was handed out, for the table that took it: how many tables link
    /// this node besides one. `None` where none is kept; such a node is never shared.
    ///
    /// A frame's word in `vellum_frame::FrameTable` will do, where frames of tables have none other.
    ///
    /// # Safety
    ///
    /// The caller is a table that links the node at `block`, and the count stays at least the number of
    /// tables that link it, less one: who finds it at 0 gives the node back.
    #[inline]
    unsafe fn sharers(&self, block: PhysAddr) -> Option<&AtomicU32> {
        let _ = block;
        None
    }
}

// SAFETY: forwards to `T`, which keeps the contract.
#[allow(unsafe_code, reason = "implements an unsafe trait by forwarding")]
unsafe impl<T: PhysMap + ?Sized> PhysMap for &T {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        T::with(self, pa, f)
    }
}

// SAFETY: forwards to `T`, which keeps the contract.
#[allow(unsafe_code, reason = "implements an unsafe trait by forwarding")]
unsafe impl<T: FrameSource + ?Sized> FrameSource for &T {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        T::alloc(self, order)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller keeps the contract of this same function of `T`.
        unsafe { T::free(self, pa, order) }
    }
}

/// Bytes of a block of 2<sup>`order`</sup> frames; 0 when that does not fit 64 bits.
#[must_use]
pub const fn order_bytes(order: u8) -> u64 {
    if order >= 64 - PAGE_SHIFT { 0 } else { 1 << (order + PAGE_SHIFT) }
}
