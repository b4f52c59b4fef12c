//! page-table-generic 0.9: `PageTable` with an x86-64 format.
//!
//! The crate has no format of its own; its user writes one, here as plain as can be. `map` and
//! `unmap_with_config` are its ranges, told not to flush. `unmap` tells nobody of the frames, so
//! where they are handed back, its iterator `walk_occupied_range` goes before. It frees the tables
//! that it empties at once.

use super::super::ram::{self, Ram};
use super::super::table::{PAGE, Table, firsts};
use core::fmt;
use page_table_generic::{
    FrameAllocator, MapConfig, PageTable, PageTableEntry, PhysAddr, TableMeta, UnmapConfig,
    VirtAddr,
};

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LEAF: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// Data of a user program.
const DATA: u64 = PRESENT | WRITABLE | USER | NO_EXECUTE;

/// An x86-64 entry; its configuration is the bits that are not the frame.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Entry(u64);

impl PageTableEntry for Entry {
    type PteConfig = u64;

    #[inline(always)]
    fn new_page(pa: PhysAddr, flags: u64, large: bool) -> Self {
        Self(pa.as_usize() as u64 | flags | if large { LEAF } else { 0 })
    }

    #[inline(always)]
    fn new_table(pa: PhysAddr) -> Self {
        Self(pa.as_usize() as u64 | PRESENT | WRITABLE | USER)
    }

    #[inline(always)]
    fn paddr(&self, _: bool) -> PhysAddr {
        PhysAddr::from_usize((self.0 & FRAME) as usize)
    }

    #[inline(always)]
    fn config(&self, is_dir: bool) -> u64 {
        self.0 & !FRAME & if is_dir { !LEAF } else { u64::MAX }
    }

    #[inline(always)]
    fn present(&self) -> bool {
        self.0 & PRESENT != 0
    }

    #[inline(always)]
    fn huge(&self, is_dir: bool) -> bool {
        is_dir && self.0 & LEAF != 0
    }

    #[inline(always)]
    fn unused(&self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.0 = 0;
    }
}

/// Four levels of nine bits.
#[derive(Clone, Copy)]
struct X86;

impl TableMeta for X86 {
    type P = Entry;
    const PAGE_SIZE: usize = PAGE as usize;
    const LEVEL_BITS: &[usize] = &[9, 9, 9, 9];
    const MAX_BLOCK_LEVEL: usize = 3;

    #[inline(always)]
    fn flush(_: Option<VirtAddr>) {}
}

impl FrameAllocator for Ram {
    #[inline]
    fn alloc_frame(&self) -> Option<PhysAddr> {
        ram::take().map(PhysAddr::from_usize)
    }

    #[inline]
    fn dealloc_frame(&self, frame: PhysAddr) {
        // SAFETY: the library gives back what it took, when it is done with it.
        unsafe { ram::give(frame.as_usize()) };
    }

    #[inline(always)]
    fn phys_to_virt(&self, frame: PhysAddr) -> *mut u8 {
        ram::pointer(frame.as_usize()).as_ptr()
    }
}

/// The peer.
pub struct Generic(PageTable<X86, Ram>);

impl fmt::Debug for Generic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PageTable, root at {:?}", self.0.root_paddr())
    }
}

impl Generic {
    #[inline]
    fn map_range(&mut self, va: u64, pa: u64, len: u64, large: bool) -> bool {
        let config = MapConfig {
            vaddr: address(va),
            paddr: PhysAddr::from_usize(pa as usize),
            size: len as usize,
            pte: DATA,
            allow_huge: large,
            flush: false,
        };
        self.0.map(&config).is_ok()
    }
}

#[inline(always)]
fn address(va: u64) -> VirtAddr {
    VirtAddr::from_usize(va as usize)
}

impl Table for Generic {
    const NAME: &'static str = "page-table-generic";

    fn new() -> Self {
        Self(PageTable::new(Ram).expect("a frame for the root"))
    }

    fn map(&mut self, va: u64, pa: u64, len: u64) -> bool {
        self.map_range(va, pa, len, false)
    }

    fn map_each(&mut self, mut pages: impl Iterator<Item = (u64, u64)>) -> bool {
        pages.all(|(va, pa)| self.map_range(va, pa, PAGE, false))
    }

    fn map_large(&mut self, va: u64, pa: u64, len: u64) -> bool {
        self.map_range(va, pa, len, true)
    }

    /// It has calls for just that: tables down to where a page is to be, but not the page.
    fn make_room(&mut self, va: u64, len: u64) -> bool {
        firsts(va, len).all(|(va, _)| {
            let path = self.0.plan_map_page(address(va), PAGE as usize);
            match path.and_then(|plan| plan.prepare_path()) {
                Ok(Some(path)) => self.0.try_install_map_path(path).is_ok(),
                other => other.is_ok(),
            }
        })
    }

    #[inline]
    fn translate(&self, va: u64) -> Option<u64> {
        self.0.translate_phys(address(va)).ok().map(|pa| pa.as_usize() as u64)
    }

    fn is_writable(&self, va: u64) -> bool {
        self.0.query(address(va)).is_ok_and(|(_, flags, _)| flags & WRITABLE != 0)
    }

    fn protect(&mut self, va: u64, _: u64, len: u64, writable: bool) -> bool {
        let flags = if writable { DATA } else { DATA & !WRITABLE };
        self.0.protect_region(address(va), len as usize, flags).is_ok()
    }

    fn unmap(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool {
        for leaf in self.0.walk_occupied_range(address(va), address(va + len)) {
            sink(leaf.pte.paddr(false).as_usize() as u64, PAGE);
        }
        self.unmap_blind(va, len)
    }

    fn unmap_free(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool {
        self.unmap(va, len, sink)
    }

    fn unmap_blind(&mut self, va: u64, len: u64) -> bool {
        let config = UnmapConfig { start_vaddr: address(va), size: len as usize, flush: false };
        self.0.unmap_with_config(&config).is_ok()
    }

    fn retire(self) {}
}
