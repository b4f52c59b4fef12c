//! page_table_multiarch 0.6: `X64PageTable`, changed through one cursor for each call here.
//!
//! `map_region` and `protect_region` are its ranges. Its `unmap_region` tells nobody of the frames,
//! so where they are handed back each page is unmapped by itself, by one cursor for all. What a
//! cursor has collected it flushes on bare metal only; the list itself is kept here too. A table is
//! freed when the whole is dropped, not before.

use super::super::ram::{self, Ram};
use super::super::rows::Row;
use super::super::table::{PAGE, Table, firsts};
use core::fmt;
use memory_addr::{PhysAddr, VirtAddr};
use page_table_multiarch::x86_64::{X64PageTable, X64PageTableCursor};
use page_table_multiarch::{MappingFlags, PageSize, PagingHandler};

/// Data of a user program.
const DATA: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE).union(MappingFlags::USER);

/// The peer.
pub struct Multiarch(X64PageTable<Ram>);

impl fmt::Debug for Multiarch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X64PageTable, root at {:?}", self.0.root_paddr())
    }
}

impl PagingHandler for Ram {
    fn alloc_frames(count: usize, align: usize) -> Option<PhysAddr> {
        if count == 1 && align <= PAGE as usize { ram::take().map(PhysAddr::from) } else { None }
    }

    fn dealloc_frames(frame: PhysAddr, _: usize) {
        // SAFETY: the library gives back what it took, a frame at a time, when it is done with it.
        unsafe { ram::give(frame.as_usize()) };
    }

    #[inline(always)]
    fn phys_to_virt(frame: PhysAddr) -> VirtAddr {
        VirtAddr::from(ram::pointer(frame.as_usize()).as_ptr().expose_provenance())
    }
}

impl Multiarch {
    fn map_region(&mut self, va: u64, pa: u64, len: u64, large: bool) -> bool {
        let frame = |at: VirtAddr| PhysAddr::from((at.as_usize() as u64 - va + pa) as usize);
        let mut cursor = self.0.cursor();
        cursor.map_region(VirtAddr::from(va as usize), frame, len as usize, DATA, large).is_ok()
    }
}

fn map_one(cursor: &mut X64PageTableCursor<'_, Ram>, va: u64, pa: u64) -> bool {
    let (va, pa) = (VirtAddr::from(va as usize), PhysAddr::from(pa as usize));
    cursor.map(va, pa, PageSize::Size4K, DATA).is_ok()
}

impl Table for Multiarch {
    const NAME: &'static str = "page_table_multiarch";
    const LACKS: &'static [Row] = &[Row::Free];

    fn new() -> Self {
        Self(X64PageTable::try_new().expect("a frame for the root"))
    }

    fn map(&mut self, va: u64, pa: u64, len: u64) -> bool {
        self.map_region(va, pa, len, false)
    }

    fn map_each(&mut self, mut pages: impl Iterator<Item = (u64, u64)>) -> bool {
        let mut cursor = self.0.cursor();
        pages.all(|(va, pa)| map_one(&mut cursor, va, pa))
    }

    fn map_large(&mut self, va: u64, pa: u64, len: u64) -> bool {
        self.map_region(va, pa, len, true)
    }

    fn make_room(&mut self, va: u64, len: u64) -> bool {
        self.map_each(firsts(va, len))
            && firsts(va, len).all(|(va, _)| self.unmap(va, PAGE, &mut |_, _| ()))
    }

    #[inline]
    fn translate(&self, va: u64) -> Option<u64> {
        let found = self.0.query(VirtAddr::from(va as usize));
        found.ok().map(|(pa, _, _)| pa.as_usize() as u64)
    }

    fn is_writable(&self, va: u64) -> bool {
        let found = self.0.query(VirtAddr::from(va as usize));
        found.is_ok_and(|(_, flags, _)| flags.contains(MappingFlags::WRITE))
    }

    fn protect(&mut self, va: u64, _: u64, len: u64, writable: bool) -> bool {
        let flags = if writable { DATA } else { DATA.difference(MappingFlags::WRITE) };
        self.0.cursor().protect_region(VirtAddr::from(va as usize), len as usize, flags).is_ok()
    }

    fn unmap(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool {
        let mut cursor = self.0.cursor();
        (va..va + len).step_by(PAGE as usize).all(|va| {
            let unmapped = cursor.unmap(VirtAddr::from(va as usize));
            unmapped.map(|(pa, _, _)| sink(pa.as_usize() as u64, PAGE)).is_ok()
        })
    }

    fn unmap_free(&mut self, _: u64, _: u64, _: &mut impl FnMut(u64, u64)) -> bool {
        false
    }

    fn unmap_blind(&mut self, va: u64, len: u64) -> bool {
        self.0.cursor().unmap_region(VirtAddr::from(va as usize), len as usize).is_ok()
    }

    fn retire(self) {}
}
