//! What both mappers need: frames, a mapping that keeps provenance, a flush that is watched.

use core::cell::{Cell, RefCell};
use vellum_core::{Direct, Flush, FrameSource, Invalidate, PhysAddr, PhysMap, Scope};
use vellum_radix::x86_64::X86Memory;
use vellum_testkit::Arena;
use x86_64::VirtAddr;
use x86_64::structures::paging::mapper::PageTableFrameMapping;
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Page, PageSize, PageTable, PhysFrame, Size4KiB,
};

/// An arena, with the crate's frames.
#[derive(Clone, Copy)]
pub(crate) struct Ram<'a>(pub(crate) &'a Arena);

/// The kernel's allocator: the arena's frames, by `&mut`.
pub(crate) struct Frames<'a>(pub(crate) Ram<'a>);

// SAFETY: the arena hands out each frame once.
unsafe impl FrameAllocator<Size4KiB> for Frames<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let pa = self.0.0.alloc(0).ok()?;
        Some(PhysFrame::containing_address(x86_64::PhysAddr::new(pa.as_u64())))
    }
}

impl FrameDeallocator<Size4KiB> for Frames<'_> {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        // SAFETY: the caller's promise; the arena looks whether it is one of its own.
        unsafe { self.0.0.free(PhysAddr::new(frame.start_address().as_u64()), 0) }
    }
}

/// The kernel's mapping: from frames to the arena, with provenance, which an offset has not.
pub(crate) struct Mapping<'a>(pub(crate) Ram<'a>);

// SAFETY: the arena gives the same bytes for a frame at each call.
unsafe impl PageTableFrameMapping for Mapping<'_> {
    fn frame_to_pointer(&self, frame: PhysFrame) -> *mut PageTable {
        let pa = PhysAddr::new(frame.start_address().as_u64());
        self.0.0.with(pa, |bytes| bytes.cast().as_ptr())
    }
}

/// An allocator and a deallocator that nobody may ask.
pub(crate) struct Unused;

// SAFETY: hands out nothing.
unsafe impl FrameAllocator<Size4KiB> for Unused {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        panic!("the table has its memory")
    }
}

impl FrameDeallocator<Size4KiB> for Unused {
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        panic!("{frame:?} belongs to the table's memory")
    }
}

pub(crate) type Memory<'a> = X86Memory<RefCell<Frames<'a>>, Mapping<'a>>;

/// An arena as a kernel's memory.
pub(crate) fn memory(arena: &Arena) -> Memory<'_> {
    let ram = Ram(arena);
    // SAFETY: what the arena hands out, it maps.
    unsafe { X86Memory::new(RefCell::new(Frames(ram)), Mapping(ram)) }
}

/// Remembers flushes, and looks at the arena when one is made.
#[derive(Default)]
pub(crate) struct Seen<'a> {
    pub(crate) flushes: RefCell<Vec<Flush>>,
    pub(crate) arena: Option<&'a Arena>,
    /// Frames in use at the last flush.
    pub(crate) in_use: Cell<u64>,
}

// SAFETY: no CPU uses the tables of these tests.
unsafe impl Invalidate for Seen<'_> {
    fn flush(&self, flushes: &[Flush]) {
        self.flushes.borrow_mut().extend_from_slice(flushes);
        if let Some(arena) = self.arena {
            self.in_use.set(arena.frames_in_use());
        }
    }
}

impl Seen<'_> {
    /// Flushes since the last call that drop translations.
    pub(crate) fn take(&self) -> Vec<Flush> {
        let mut flushes = self.flushes.take();
        flushes.retain(|flush| flush.scope > Scope::Fresh);
        flushes
    }
}

/// The page of size `S` that the address is in.
pub(crate) fn page<S: PageSize>(va: u64) -> Page<S> {
    Page::containing_address(VirtAddr::new(va))
}

/// Some frame of size `S`, by a number.
pub(crate) fn frame<S: PageSize>(n: u64) -> PhysFrame<S> {
    PhysFrame::containing_address(x86_64::PhysAddr::new((64 << 30) + n * S::SIZE))
}

/// A fresh root for a table of the peer's.
pub(crate) fn peer_root(arena: &Arena) -> *mut PageTable {
    let pa = arena.alloc(0).expect("room");
    let root: *mut PageTable = arena.with(pa, |p| p.cast().as_ptr());
    // SAFETY: the frame is ours, and as large and aligned as a table.
    unsafe { root.write(PageTable::new()) };
    root
}

/// Gives up a table that no CPU uses.
pub(crate) fn retire(table: impl vellum_core::PageTable) {
    // SAFETY: no CPU uses the tables of these tests.
    table.retire(&mut unsafe { Direct::new(|_| {}) });
}
