//! [`X86Frames`]: the frame traits of the `x86_64` crate, on a handle of a static allocator.
//!
//! ```text
//!   OffsetPageTable::map_to(.., &mut X86Frames(&FRAMES))
//!        |
//!        v allocate_frame                           deallocate_frame
//!   Size4KiB  order 0   --+                     +--  PhysFrame<Size4KiB>
//!   Size2MiB  order 9   --+--> alloc    free <--+--  PhysFrame<Size2MiB>
//!   Size1GiB  order 18  --+                     +--  PhysFrame<Size1GiB>
//! ```
//!
//! Those traits take `&mut self`, which a `static` cannot give. The handle is a copy of a reference,
//! so everybody makes one where they need it: the allocator behind takes `&self`, without a lock.
//!
//! # Invariants
//!
//! - A frame that leaves here has an address below 2<sup>52</sup>, which is all that an entry of an
//!   x86-64 table has room for (Intel SDM vol. 3A, 5.4.1: MAXPHYADDR is at most 52). `PhysAddr` of
//!   the `x86_64` crate cannot hold another.

use crate::allocator::FrameAllocator;
use crate::checked::CheckedSource;
use crate::error::FreeError;
use ::x86_64::PhysAddr as X86PhysAddr;
use ::x86_64::structures::paging::{
    FrameAllocator as AllocateFrame, FrameDeallocator as DeallocateFrame, PageSize, PhysFrame,
};
use vellum_core::{PAGE_SIZE, PhysAddr};

/// A handle of a frame allocator for the mappers of the `x86_64` crate: 4 KiB, 2 MiB and 1 GiB.
///
/// It is copied like the reference that it is, and made where it is needed. [`Local`](crate::Local),
/// [`Exclusive`](crate::Exclusive) and [zones](crate::zones) do as well in place of the allocator
/// itself: every [`CheckedSource`].
///
/// ```
/// use core::ptr::NonNull;
/// use vellum_frame::{FrameAllocator, X86Frames};
/// use x86_64::structures::paging::mapper::{MapToError, Mapper, Translate};
/// use x86_64::structures::paging::{
///     FrameAllocator as _, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
/// };
/// use x86_64::VirtAddr;
/// # use vellum_core::PhysMap;
/// # use vellum_testkit::Arena;
/// # // Miri with strict provenance has no pointers made of numbers, and the mapper makes them.
/// # if cfg!(miri) { return Ok(()) }
///
/// static FRAMES: FrameAllocator<'static> = FrameAllocator::new();
///
/// # let origin = 0x20_0000;
/// # let ram = Box::leak(Box::new(Arena::at(vellum_core::PhysAddr::new(origin), 64)));
/// # let usable = [(origin, origin + 64 * 4096)];
/// # let offset = ram.with(vellum_core::PhysAddr::new(origin), |p| p.expose_provenance().get());
/// # let offset = (offset as u64).wrapping_sub(origin);
/// // `usable` is RAM that is mapped at `offset`: here a buffer, in a kernel the direct map.
/// let direct = |pa: u64| core::ptr::with_exposed_provenance_mut((offset + pa) as usize);
/// // SAFETY: nobody else uses that memory, and it stays mapped.
/// unsafe { FRAMES.init(usable, [(0, 0x1000)], |pa, _len| NonNull::new(direct(pa.as_u64()))) }
///     .expect("there is memory");
///
/// let mut frames = X86Frames(&FRAMES);
/// let root: PhysFrame = frames.allocate_frame().ok_or(MapToError::<Size4KiB>::FrameAllocationFailed)?;
/// let root: *mut PageTable = direct(root.start_address().as_u64()).cast();
/// // SAFETY: the frame is ours and mapped; an empty table is a table.
/// let mut mapper = unsafe {
///     root.write(PageTable::new());
///     OffsetPageTable::new(&mut *root, VirtAddr::new(offset))
/// };
///
/// let page = Page::<Size4KiB>::containing_address(VirtAddr::new(0x4444_4444_0000));
/// let frame = frames.allocate_frame().ok_or(MapToError::FrameAllocationFailed)?;
/// let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
/// // SAFETY: the frame is mapped nowhere else, and no CPU uses this table, hence no flush.
/// unsafe { mapper.map_to(page, frame, flags, &mut frames) }?.ignore();
/// let va = page.start_address() + 0x123;
/// assert_eq!(mapper.translate_addr(va), Some(frame.start_address() + 0x123));
/// # Ok::<(), MapToError<Size4KiB>>(())
/// ```
///
/// # What a mapper may give back
///
/// [`deallocate_frame`](DeallocateFrame::deallocate_frame) asks its caller for a frame that is
/// unused, not for one that came from here: `CleanUp::clean_up` also finds empty tables that the
/// boot loader made. Such a frame (a reserved one, or one outside of the map) is left alone.
/// One that is free already is a mistake of the caller: a panic in debug builds, without effect in
/// others.
#[derive(Debug)]
pub struct X86Frames<'a, S: ?Sized = FrameAllocator<'static>>(
    /// Where the frames come from.
    pub &'a S,
);

impl<S: ?Sized> Clone for X86Frames<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S: ?Sized> Copy for X86Frames<'_, S> {}

/// The order of a block as large as a page of this size: 0, 9 or 18.
const fn order<P: PageSize>() -> u8 {
    (P::SIZE / PAGE_SIZE).trailing_zeros() as u8
}

// SAFETY: a block of a `FrameSource` is part of no other block that is handed out and not freed,
// and nobody else uses it: a unique and unused frame.
unsafe impl<S: CheckedSource + ?Sized, P: PageSize> AllocateFrame<P> for X86Frames<'_, S> {
    /// `None` also for a block above 2<sup>52</sup>, which goes back at once. (Firmware that
    /// reports such memory is wrong; reserve it, and what lies below is found.)
    fn allocate_frame(&mut self) -> Option<PhysFrame<P>> {
        let pa = self.0.alloc(order::<P>()).ok()?;
        let frame = X86PhysAddr::try_new(pa.as_u64()).ok().map(PhysFrame::from_start_address);
        if let Some(Ok(frame)) = frame {
            return Some(frame);
        }
        // SAFETY: allocated above, and seen by nobody.
        let freed = unsafe { self.0.try_free(pa, order::<P>()) };
        debug_assert!(freed.is_ok(), "free of {pa}, just allocated: {freed:?}");
        None
    }
}

impl<S: CheckedSource + ?Sized, P: PageSize> DeallocateFrame<P> for X86Frames<'_, S> {
    /// # Panics
    ///
    /// In debug builds, when a part of the frame is free already.
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame<P>) {
        let pa = PhysAddr::new(frame.start_address().as_u64());
        // SAFETY: the caller's promise is that the frame is unused, so that nothing reaches its
        // bytes, and that it is theirs to give; whether it came from here, the source sees.
        let freed = unsafe { self.0.try_free(pa, order::<P>()) };
        let fine = matches!(
            freed,
            Ok(()) | Err(FreeError::Reserved { .. } | FreeError::OutOfRange { .. })
        );
        debug_assert!(fine, "deallocation of {frame:?}: {freed:?}");
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
