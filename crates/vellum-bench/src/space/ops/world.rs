//! A machine with address spaces on it, for one act.
//!
//! ```text
//!   fault::ram::Machine   direct map, frames by way of CPUs' caches, records of frames
//!        |
//!   Engine --- World --- Space        with a few regions of a program's, so that none is found at
//!                                     the first look
//! ```

use crate::fault::designs::{Design, SystemOf, mmu};
use crate::fault::ram::Machine;
use core::cell::Cell;
use vellum_cache::FileId;
use vellum_core::{PAGE_SIZE, PageTable, VirtAddr};
use vellum_fault::host::MemoryFiles;
use vellum_fault::{Access, Engine, Mmu, System};
use vellum_space::abi::{map, prot};
use vellum_space::{AddressSpace, FileMap, Layout, Limits, Rules};

/// A space with such a table.
pub(super) type Space<'e, T> = AddressSpace<'e, Machine<T>, spin::RwLock<()>>;

/// Loads and stores.
pub(super) const RW: u64 = prot::READ | prot::WRITE;
/// Private memory of nobody else.
pub(super) const ANON: u64 = map::PRIVATE | map::ANONYMOUS;
/// Where acts map what has a place.
pub(super) const PLACE: u64 = 0x6000_0000_0000;
/// Regions that a space has besides its stack.
const OTHERS: u64 = 12;

/// What an act has: a space, and what its children would be made of.
pub(super) struct World<'e, 's, D: Design> {
    pub(super) engine: &'e Engine<SystemOf<'s, D>>,
    pub(super) space: Space<'e, D::Table<'s>>,
    shared: &'s D::Shared,
    /// The number of the last space.
    last: Cell<u16>,
}

impl<'e, 's, D: Design> World<'e, 's, D> {
    /// One with a space that has a program's regions.
    pub(super) fn new(
        engine: &'e Engine<SystemOf<'s, D>>,
        shared: &'s D::Shared,
        rules: &'e Rules,
    ) -> Self {
        let (mmu, layout) = (mmu::<D>(engine, shared, 1), Layout::default());
        let space = AddressSpace::new(mmu, rules, layout, Limits::default());
        for n in 0..OTHERS {
            // Rights in turn, and a gap between every two, so that they stay so many.
            let rights = [prot::READ, RW, prot::READ | prot::EXEC][n as usize % 3];
            place(&space, 0x4000_0000 + n * (1 << 20), 16 * PAGE_SIZE, rights);
        }
        // What lies near it finds nodes of the table there, as in a program that runs.
        let stack = layout.stack & !(PAGE_SIZE - 1);
        place(&space, stack, PAGE_SIZE, RW);
        touch(&space, stack, PAGE_SIZE, (1, Access::Write));
        Self { engine, space, shared, last: Cell::new(1) }
    }

    /// Translations of a child that is to be.
    pub(super) fn mmu(&self) -> Mmu<'e, SystemOf<'s, D>> {
        self.last.set(self.last.get() + 1);
        mmu::<D>(self.engine, self.shared, self.last.get())
    }

    /// A file of zeros, which is in the page cache whole.
    pub(super) fn cached_file(&self, len: u64) -> FileMap {
        let files: &MemoryFiles = self.engine.system().files();
        let file: FileId = files.create_memory(len);
        self.engine.cache().read_ahead(files, file, 0, len / PAGE_SIZE);
        FileMap { file, descriptor: 3, offset: 0, readable: true, writable: true }
    }
}

/// Maps zeros at an address.
pub(super) fn place<T: PageTable>(space: &Space<'_, T>, at: u64, len: u64, rights: u64) {
    let placed = space.mmap(at, len, rights, ANON | map::FIXED, None);
    assert_eq!(placed, Ok(at), "the place is free");
}

/// Touches each page of a range, or one of so many, ascending.
#[inline(always)]
pub(super) fn touch<T: PageTable>(
    space: &Space<'_, T>,
    start: u64,
    len: u64,
    (step, access): (u64, Access),
) {
    for at in (start..start + len).step_by((step * PAGE_SIZE) as usize) {
        space.fault(VirtAddr::new(at), access).expect("RAM is large enough");
    }
}
