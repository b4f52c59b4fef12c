//! [`X86Memory`]: a table's memory of what a kernel on the `x86_64` crate has already.
//!
//! ```text
//!   the kernel has                                  a table wants
//!   FrameAllocator + FrameDeallocator   (&mut) --+
//!        behind a lock or a RefCell: Lend        +-- X86Memory --- &X86Memory: Memory
//!   PageTableFrameMapping, or an offset       ---+       |
//!                                                        +-------- &X86Memory: FrameAllocator,
//!                                                                  for the rest of the kernel
//! ```
//!
//! The crate's allocators take `&mut self`, and are passed to each call. A table that took nodes from
//! one and gave them to another would corrupt both, so it stores one, and borrows it for the length
//! of a call: [`Lend`] is how. So the memory owns the allocator, and `&X86Memory` is what the kernel
//! passes around in its place.
//!
//! # Lock order
//!
//! The lock behind [`Lend::lend`] is innermost, and held while one frame is taken or given back. A
//! kernel that holds it must not call a mapper.

use ::x86_64::structures::paging::mapper::PageTableFrameMapping;
use ::x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, PageTable, PhysFrame, Size4KiB,
};
use ::x86_64::{PhysAddr as X86PhysAddr, VirtAddr as X86VirtAddr};
use core::cell::RefCell;
use core::fmt;
use core::ptr::NonNull;
use vellum_core::{FrameSource, Memory, OutOfFrames, PAGE_SIZE, PhysAddr, PhysMap};

/// Lends an allocator that takes `&mut self` for the length of a call.
///
/// For one CPU that is a [`RefCell`]; otherwise a type of the kernel's around its lock:
///
/// ```
/// use spin::Mutex;
/// use vellum_radix::x86_64::Lend;
/// # use x86_64::structures::paging::{FrameAllocator, FrameDeallocator, Size4KiB};
///
/// struct Locked<A>(Mutex<A>);
///
/// impl<A: FrameAllocator<Size4KiB> + FrameDeallocator<Size4KiB>> Lend for Locked<A> {
///     type Frames = A;
///     fn lend<R>(&self, f: impl FnOnce(&mut A) -> R) -> Option<R> {
///         Some(f(&mut self.0.lock()))
///     }
/// }
/// ```
pub trait Lend {
    /// The kernel's allocator.
    type Frames: FrameAllocator<Size4KiB> + FrameDeallocator<Size4KiB>;

    /// Calls `f` with the allocator, always the same one; `None`, without calling it, where it cannot
    /// be had now, which counts as out of frames.
    fn lend<R>(&self, f: impl FnOnce(&mut Self::Frames) -> R) -> Option<R>;
}

/// For tables that one CPU uses. While the cell is borrowed there are no frames, and one that comes
/// back then is lost.
impl<A: FrameAllocator<Size4KiB> + FrameDeallocator<Size4KiB>> Lend for RefCell<A> {
    type Frames = A;

    fn lend<R>(&self, f: impl FnOnce(&mut A) -> R) -> Option<R> {
        self.try_borrow_mut().ok().map(|mut frames| f(&mut frames))
    }
}

/// An allocator that takes nothing back, such as those that deal out a boot loader's memory map:
/// frames that are given to it are lost.
#[derive(Clone, Copy, Debug)]
pub struct NeverFreed<A>(
    /// The allocator.
    pub A,
);

// SAFETY: hands out what `A` does.
#[allow(unsafe_code, reason = "implements an unsafe trait by forwarding")]
unsafe impl<A: FrameAllocator<Size4KiB>> FrameAllocator<Size4KiB> for NeverFreed<A> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        self.0.allocate_frame()
    }
}

#[allow(unsafe_code, reason = "implements an unsafe function, which does nothing")]
impl<A> FrameDeallocator<Size4KiB> for NeverFreed<A> {
    unsafe fn deallocate_frame(&mut self, _: PhysFrame) {}
}

/// All of physical memory at an offset: what `OffsetPageTable` is given, as a mapping by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct X86Offset(u64);

impl X86Offset {
    /// Physical address 0 is mapped at `offset`.
    ///
    /// # Safety
    ///
    /// As of `OffsetPageTable::new`: physical memory is mapped there, writable, for good, as far as
    /// frame allocators deal it out and tables link it.
    #[allow(unsafe_code, reason = "the mapping is the caller's word")]
    #[must_use]
    pub const unsafe fn new(offset: X86VirtAddr) -> Self {
        Self(offset.as_u64())
    }
}

// SAFETY: by the contract of `new` all of physical memory is mapped, so that the sum is a pointer to
// the frame, in the kernel's own address space: no Rust object has its provenance, hence the exposed
// one.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl PageTableFrameMapping for X86Offset {
    fn frame_to_pointer(&self, frame: PhysFrame) -> *mut PageTable {
        let va = self.0.wrapping_add(frame.start_address().as_u64());
        // On narrower hosts there is no such mapping, and nobody could have made one.
        core::ptr::with_exposed_provenance_mut(usize::try_from(va).unwrap_or(0))
    }
}

// SAFETY: as above, to the byte; an address is computed, and reading is the caller's.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl PhysMap for X86Offset {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        f(byte_of(self, pa))
    }
}

/// The byte at `pa`, as a mapping reaches its frame.
fn byte_of(map: &impl PageTableFrameMapping, pa: PhysAddr) -> NonNull<u8> {
    let frame = PhysFrame::containing_address(X86PhysAddr::new_truncate(pa.as_u64()));
    let start: *mut u8 = map.frame_to_pointer(frame).cast();
    let offset = usize::try_from(pa.as_u64() % PAGE_SIZE).unwrap_or(0);
    NonNull::new(start.wrapping_add(offset)).unwrap_or(NonNull::dangling())
}

/// The memory of tables, of a kernel's own allocator and mapping. Its [`Memory`] is `&X86Memory`.
///
/// `&X86Memory` is a `FrameAllocator<Size4KiB>` and `FrameDeallocator<Size4KiB>` as well, for the
/// code that had the allocator itself; each call borrows it anew.
///
/// ```
/// use core::cell::RefCell;
/// use vellum_radix::x86_64::{NeverFreed, X86Memory, X86Offset};
/// use vellum_radix::{Radix, X86_64};
/// use x86_64::VirtAddr;
/// use x86_64::structures::paging::{FrameAllocator, PhysFrame, Size4KiB};
///
/// struct BootInfoFrameAllocator; // yours
/// # // SAFETY: hands out nothing.
/// # unsafe impl FrameAllocator<Size4KiB> for BootInfoFrameAllocator {
/// #     fn allocate_frame(&mut self) -> Option<PhysFrame> {
/// #         None
/// #     }
/// # }
/// # let offset = VirtAddr::new(0xffff_8000_0000_0000);
/// // SAFETY: the boot loader has mapped all of physical memory at `offset`.
/// let memory = unsafe {
///     X86Memory::new(RefCell::new(NeverFreed(BootInfoFrameAllocator)), X86Offset::new(offset))
/// };
/// let table = Radix::<X86_64<4>, _>::new(&memory);
/// assert!(table.is_err(), "this allocator is empty");
/// ```
pub struct X86Memory<L, P> {
    frames: L,
    map: P,
    /// Two memories at one time are at two addresses, which is how they are told apart.
    _apart: u8,
}

impl<L: Lend, P: PageTableFrameMapping> X86Memory<L, P> {
    /// The memory of this allocator, through this mapping.
    ///
    /// # Safety
    ///
    /// For every frame that the allocator hands out, until it is given back, `map` gives a pointer to
    /// all of its 4 KiB, the same bytes each time, which is not null and good for reads and writes;
    /// and nobody else touches those bytes.
    #[allow(unsafe_code, reason = "joins two halves whose contracts do not name each other")]
    pub const unsafe fn new(frames: L, map: P) -> Self {
        Self { frames, map, _apart: 0 }
    }

    fn take(&self) -> Option<PhysFrame> {
        self.frames.lend(FrameAllocator::allocate_frame).flatten()
    }

    /// Gives a frame back.
    ///
    /// # Safety
    ///
    /// The frame is unused.
    #[allow(unsafe_code, reason = "the contract of FrameDeallocator")]
    unsafe fn give(&self, frame: PhysFrame) {
        // SAFETY: the caller's promise.
        let given = self.frames.lend(|frames| unsafe { frames.deallocate_frame(frame) });
        debug_assert!(given.is_some(), "{frame:?} is lost: its allocator is in use elsewhere");
    }
}

impl<L, P> fmt::Debug for X86Memory<L, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("X86Memory").finish_non_exhaustive()
    }
}

/// Two are equal if they are the same one.
impl<L, P> PartialEq for X86Memory<L, P> {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

// SAFETY: for frames of the allocator, the pointer is that of the mapping, of which the contract of
// `new` says what is asked here; the offset within the frame is added. For others, the address is
// computed and not used.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<L, P: PageTableFrameMapping> PhysMap for X86Memory<L, P> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        f(byte_of(&self.map, pa))
    }
}

// SAFETY: `FrameAllocator` promises unique frames that nobody uses, 4 KiB each and aligned to that;
// larger blocks are refused.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<L: Lend, P: PageTableFrameMapping> FrameSource for X86Memory<L, P> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let frame = if order == 0 { self.take() } else { None };
        frame.map(super::pa_of).ok_or(OutOfFrames { order })
    }

    unsafe fn free(&self, pa: PhysAddr, _: u8) {
        // SAFETY: handed out by `alloc`, with order 0, and reached by nothing: the caller's promise.
        unsafe { self.give(super::frame_at(pa)) }
    }
}

// SAFETY: what the allocator hands out, the mapping reaches (`new`); a copy of the reference is the
// same memory; and so are two that are equal, for one that has a size is alone at its address.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<L: Lend, P: PageTableFrameMapping> Memory for &X86Memory<L, P> {}

// SAFETY: the frames of the kernel's allocator, which are unique and unused.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<L: Lend, P: PageTableFrameMapping> FrameAllocator<Size4KiB> for &X86Memory<L, P> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        self.take()
    }
}

#[allow(unsafe_code, reason = "implements an unsafe function")]
impl<L: Lend, P: PageTableFrameMapping> FrameDeallocator<Size4KiB> for &X86Memory<L, P> {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        // SAFETY: the caller's promise.
        unsafe { self.give(frame) }
    }
}
