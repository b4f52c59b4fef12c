//! x86_64 0.15: `MappedPageTable`, the mapper behind `OffsetPageTable`.
//!
//! It has calls for one page each, so a range is a loop here. Used directly, and with a mapping of
//! frames that is a constant, it is spared the check of `OffsetPageTable`, which adds its offset as
//! a virtual address and has that be canonical. The flags of parents are given, not derived from the
//! page's at each call (`map_to_with_table_flags`). A flush is a value, which is ignored.

use super::super::ram::{self, Ram};
use super::super::table::{LARGE, PAGE, Table, firsts};
use core::fmt;
use x86_64::structures::paging::mapper::{CleanUp, MappedPageTable, Mapper, Translate};
use x86_64::structures::paging::mapper::{PageTableFrameMapping, TranslateResult};
use x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Page, PageSize, PageTable, PageTableFlags, PhysFrame,
    Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

/// Flags of tables, and with NX of data pages.
const TABLE: PageTableFlags =
    PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE).union(PageTableFlags::USER_ACCESSIBLE);

/// Data of a user program.
const DATA: PageTableFlags = TABLE.union(PageTableFlags::NO_EXECUTE);

/// The peer.
pub struct X86_64 {
    mapper: MappedPageTable<'static, Ram>,
    root: usize,
}

impl fmt::Debug for X86_64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MappedPageTable, root at {:#x}", self.root)
    }
}

// SAFETY: frames of tables are frames of this memory, where a pointer is right.
unsafe impl PageTableFrameMapping for Ram {
    #[inline(always)]
    fn frame_to_pointer(&self, frame: PhysFrame) -> *mut PageTable {
        ram::pointer(frame.start_address().as_u64() as usize).as_ptr().cast()
    }
}

// SAFETY: the source hands a frame out once until it is given back.
unsafe impl FrameAllocator<Size4KiB> for Ram {
    #[inline]
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        ram::take().map(|pa| frame(pa as u64))
    }
}

impl FrameDeallocator<Size4KiB> for Ram {
    #[inline]
    unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
        // SAFETY: the caller's: it is unused now.
        unsafe { ram::give(frame.start_address().as_u64() as usize) };
    }
}

#[inline(always)]
fn page<S: PageSize>(va: u64) -> Page<S> {
    Page::containing_address(VirtAddr::new_truncate(va))
}

#[inline(always)]
fn frame<S: PageSize>(pa: u64) -> PhysFrame<S> {
    PhysFrame::containing_address(PhysAddr::new_truncate(pa))
}

impl X86_64 {
    #[inline(always)]
    fn map_one<S: PageSize>(&mut self, va: u64, pa: u64) -> bool
    where
        MappedPageTable<'static, Ram>: Mapper<S>,
    {
        // SAFETY: nobody uses the page, nor ever the frame.
        let mapped = unsafe {
            self.mapper.map_to_with_table_flags(page(va), frame(pa), DATA, TABLE, &mut Ram)
        };
        mapped.map(|flush| flush.ignore()).is_ok()
    }
}

/// Frees the tables below a node of this level, and the node; the crate frees empty ones only.
fn free(node: usize, level: u32) {
    if level > 1 {
        // SAFETY: a linked node, and nobody else looks at the table.
        let table = unsafe { ram::pointer(node).cast::<PageTable>().as_ref() };
        for entry in table.iter() {
            let flags = entry.flags();
            if flags.contains(PageTableFlags::PRESENT) && !flags.contains(PageTableFlags::HUGE_PAGE)
            {
                free(entry.addr().as_u64() as usize, level - 1);
            }
        }
    }
    // SAFETY: taken for this node, which nobody uses any more.
    unsafe { ram::give(node) };
}

impl Table for X86_64 {
    const NAME: &'static str = "x86_64";

    fn new() -> Self {
        let root = ram::take().expect("a frame for the root");
        // SAFETY: taken right here; zeroed it is an empty table.
        let table = unsafe {
            let mut table = ram::pointer(root).cast::<PageTable>();
            table.write_bytes(0, 1);
            table.as_mut()
        };
        // SAFETY: the table is empty, and `Ram` is right for all that will be in it.
        Self { mapper: unsafe { MappedPageTable::new(table, Ram) }, root }
    }

    fn map(&mut self, va: u64, pa: u64, len: u64) -> bool {
        (0..len).step_by(PAGE as usize).all(|at| self.map_one::<Size4KiB>(va + at, pa + at))
    }

    fn map_each(&mut self, mut pages: impl Iterator<Item = (u64, u64)>) -> bool {
        pages.all(|(va, pa)| self.map_one::<Size4KiB>(va, pa))
    }

    fn map_large(&mut self, va: u64, pa: u64, len: u64) -> bool {
        (0..len).step_by(LARGE as usize).all(|at| self.map_one::<Size2MiB>(va + at, pa + at))
    }

    /// Emptied tables stay until `clean_up`.
    fn make_room(&mut self, va: u64, len: u64) -> bool {
        self.map_each(firsts(va, len))
            && firsts(va, len).all(|(va, _)| self.unmap(va, PAGE, &mut |_, _| ()))
    }

    #[inline]
    fn translate(&self, va: u64) -> Option<u64> {
        self.mapper.translate_addr(VirtAddr::new_truncate(va)).map(PhysAddr::as_u64)
    }

    fn is_writable(&self, va: u64) -> bool {
        match self.mapper.translate(VirtAddr::new_truncate(va)) {
            TranslateResult::Mapped { flags, .. } => flags.contains(PageTableFlags::WRITABLE),
            _ => false,
        }
    }

    fn protect(&mut self, va: u64, _: u64, len: u64, writable: bool) -> bool {
        let flags = if writable { DATA } else { DATA.difference(PageTableFlags::WRITABLE) };
        (va..va + len).step_by(PAGE as usize).all(|va| {
            // SAFETY: nobody uses the page.
            let updated = unsafe { self.mapper.update_flags(page::<Size4KiB>(va), flags) };
            updated.map(|flush| flush.ignore()).is_ok()
        })
    }

    fn unmap(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool {
        (va..va + len).step_by(PAGE as usize).all(|va| {
            let unmapped = self.mapper.unmap(page::<Size4KiB>(va));
            unmapped
                .map(|(frame, flush)| {
                    flush.ignore();
                    sink(frame.start_address().as_u64(), PAGE);
                })
                .is_ok()
        })
    }

    fn unmap_free(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool {
        let all = self.unmap(va, len, sink);
        let range = Page::range_inclusive(page(va), page(va + len - 1));
        // SAFETY: nobody looks at the tables, and they are frames of this memory.
        unsafe { self.mapper.clean_up_addr_range(range, &mut Ram) };
        all
    }

    fn unmap_blind(&mut self, va: u64, len: u64) -> bool {
        self.unmap(va, len, &mut |_, _| ())
    }

    fn retire(self) {
        free(self.root, 4);
    }
}
