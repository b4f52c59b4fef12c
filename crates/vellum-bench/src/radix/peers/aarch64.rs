//! aarch64-paging 0.12: an inactive `Mapping` from level 0, for 48 bits.
//!
//! `map_range` is its one call for all: with an invalid descriptor it unmaps, and then drops whole
//! tables without a look at what they map. So where frames are handed back, `walk_range` goes
//! before. Rights are changed by mapping the same frames anew, since these rows know them:
//! `modify_range`, which does not need to, exchanges each descriptor atomically, at some 5 ns.
//!
//! Tables must be handed to it zeroed (everybody else zeroes them himself): that is done here. The
//! mapping is never active, so nothing is flushed.

use super::super::ram::{self, Ram};
use super::super::table::{PAGE, Table, firsts};
use aarch64_paging::Mapping;
use aarch64_paging::descriptor::{El1Attributes, PhysicalAddress};
use aarch64_paging::paging::{
    Constraints, El1And0, LEAF_LEVEL, MemoryRegion, PageTable, Translation, VaRange,
};
use core::fmt;
use core::ptr::NonNull;

/// Data of a user program.
const DATA: El1Attributes = El1Attributes::VALID
    .union(El1Attributes::ACCESSED)
    .union(El1Attributes::NON_GLOBAL)
    .union(El1Attributes::USER)
    .union(El1Attributes::INNER_SHAREABLE)
    .union(El1Attributes::ATTRIBUTE_INDEX_1)
    .union(El1Attributes::UXN)
    .union(El1Attributes::PXN);

impl Translation<El1Attributes> for Ram {
    fn allocate_table(&mut self) -> (NonNull<PageTable<El1Attributes>>, PhysicalAddress) {
        let frame = ram::take().expect("there are frames enough");
        let table = ram::pointer(frame);
        // SAFETY: taken right here.
        unsafe { table.write_bytes(0, PAGE as usize) };
        (table.cast(), PhysicalAddress(frame))
    }

    unsafe fn deallocate_table(&mut self, table: NonNull<PageTable<El1Attributes>>) {
        let zero = ram::pointer(0).addr().get();
        // SAFETY: the caller's: a table from above, and done with. Its frame is as far from address
        // 0 as its pointer is from that of address 0.
        unsafe { ram::give(table.addr().get() - zero) };
    }

    #[inline(always)]
    fn physical_to_virtual(&self, frame: PhysicalAddress) -> NonNull<PageTable<El1Attributes>> {
        ram::pointer(frame.0).cast()
    }
}

/// The peer.
pub struct Aarch64(Mapping<Ram, El1And0>);

impl fmt::Debug for Aarch64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mapping, root at {}", self.0.root_address())
    }
}

fn region(va: u64, len: u64) -> MemoryRegion {
    MemoryRegion::new(va as usize, (va + len) as usize)
}

impl Aarch64 {
    #[inline]
    fn set(&mut self, at: (u64, u64), pa: u64, flags: El1Attributes, how: Constraints) -> bool {
        let (va, len) = at;
        self.0.map_range(&region(va, len), PhysicalAddress(pa as usize), flags, how).is_ok()
    }
}

impl Table for Aarch64 {
    const NAME: &'static str = "aarch64-paging";

    fn new() -> Self {
        Self(Mapping::with_asid_and_va_range(Ram, 1, 0, El1And0, VaRange::Lower))
    }

    fn map(&mut self, va: u64, pa: u64, len: u64) -> bool {
        self.set((va, len), pa, DATA, Constraints::NO_BLOCK_MAPPINGS)
    }

    fn map_each(&mut self, mut pages: impl Iterator<Item = (u64, u64)>) -> bool {
        pages.all(|(va, pa)| self.set((va, PAGE), pa, DATA, Constraints::NO_BLOCK_MAPPINGS))
    }

    fn map_large(&mut self, va: u64, pa: u64, len: u64) -> bool {
        self.set((va, len), pa, DATA, Constraints::empty())
    }

    /// A part of a table that is unmapped leaves the table.
    fn make_room(&mut self, va: u64, len: u64) -> bool {
        self.map_each(firsts(va, len)) && firsts(va, len).all(|(va, _)| self.unmap_blind(va, PAGE))
    }

    #[inline]
    fn translate(&self, va: u64) -> Option<u64> {
        let mut found = None;
        let walked = self.0.walk_range(&region(va, 1), &mut |_, descriptor, level| {
            if descriptor.is_valid() {
                let leaf = PAGE << (9 * (LEAF_LEVEL - level));
                found = Some(descriptor.output_address().0 as u64 + va % leaf);
            }
            Ok(())
        });
        walked.ok().and(found)
    }

    fn is_writable(&self, va: u64) -> bool {
        let mut writable = false;
        let walked = self.0.walk_range(&region(va, 1), &mut |_, descriptor, _| {
            let flags = descriptor.flags();
            writable = descriptor.is_valid() && !flags.contains(El1Attributes::READ_ONLY);
            Ok(())
        });
        walked.is_ok() && writable
    }

    fn protect(&mut self, va: u64, pa: u64, len: u64, writable: bool) -> bool {
        let flags = if writable { DATA } else { DATA.union(El1Attributes::READ_ONLY) };
        self.set((va, len), pa, flags, Constraints::NO_BLOCK_MAPPINGS)
    }

    fn unmap(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool {
        let told = self.0.walk_range(&region(va, len), &mut |part, descriptor, _| {
            if descriptor.is_valid() {
                sink(descriptor.output_address().0 as u64, part.len() as u64);
            }
            Ok(())
        });
        told.is_ok() && self.unmap_blind(va, len)
    }

    /// Tables of which only a part was unmapped are found by a look at all that are left.
    fn unmap_free(&mut self, va: u64, len: u64, sink: &mut impl FnMut(u64, u64)) -> bool {
        let done = self.unmap(va, len, sink);
        self.0.compact_subtables();
        done
    }

    fn unmap_blind(&mut self, va: u64, len: u64) -> bool {
        self.set((va, len), 0, El1Attributes::empty(), Constraints::empty())
    }

    fn retire(self) {}
}
