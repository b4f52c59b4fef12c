//! Address spaces over a kernel's own parts, on a table for RISC-V. To be copied: everything but [`Ram`], which
//! stands for the machine's memory, and the tests.
//!
//! ```text
//!   ENGINE --- Kernel --- Direct      FRAMES, and all of memory mapped at an offset
//!     |          |  |---- INFOS       a record for each frame
//!     |          |  |---- Initrd      files, and what shared anonymous memory is made of
//!     |          |  `---- Slots       swap
//!     `- Mmu ----+------- Local       what flushes this space's translations
//! ```
//!
//! Run by `cargo test -p vellum-space --example kernel`.

#![allow(clippy::print_stdout, reason = "a program of the host")]

use core::cell::UnsafeCell;
use core::fmt;
use core::ptr::NonNull;
use spin::{Mutex, Once, RwLock};
use vellum_cache::{FileError, FileId, FileLabel, Files, PageInfo, Pages, Shmem};
use vellum_core::{
    Flush, FrameBytes, FrameSource, Invalidate, Memory, OutOfFrames, PAGE_SIZE, Pfn, PhysAddr,
    PhysMap, VirtAddr,
};
use vellum_fault::{Access, Deny, Engine, FaultError, Mmu, Swap, SwapEntry, SwapError, System};
use vellum_frame::FrameAllocator;
use vellum_frame::table::FrameTable;
use vellum_radix::{Radix, RiscV};
use vellum_space::abi::{map, prot};
use vellum_space::{AddressSpace, FileMap, Layout, Limits, Process, Rules, write_processes};

/// Where memory begins, and how many frames there are.
const START: u64 = 0x8000_0000;
const COUNT: usize = 512;

/// The machine's memory.
#[repr(align(4096))]
struct Ram(UnsafeCell<[u8; COUNT * PAGE_SIZE as usize]>);

// SAFETY: who has a frame decides who touches its bytes.
unsafe impl Sync for Ram {}

static RAM: Ram = Ram(UnsafeCell::new([0; COUNT * PAGE_SIZE as usize]));
static FRAMES: FrameAllocator<'static> = FrameAllocator::new();
static INFOS: [PageInfo; COUNT] = [const { PageInfo::new() }; COUNT];
static ENGINE: Once<Engine<Kernel>> = Once::new();

/// All of memory, mapped at an offset; it has no size, since there is one.
#[derive(Clone, Copy, PartialEq)]
struct Direct;

// SAFETY: a frame of `RAM` is as far from its start as its address is from `START`; elsewhere it panics.
unsafe impl PhysMap for Direct {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        let offset = pa.as_u64().wrapping_sub(START);
        assert!(offset < COUNT as u64 * PAGE_SIZE, "no memory at {pa}");
        let Some(start) = NonNull::new(RAM.0.get().cast::<u8>()) else { unreachable!("a static") };
        // SAFETY: within the static, as was just seen.
        f(unsafe { start.add(offset as usize) })
    }
}

// SAFETY: FRAMES keeps the contract.
unsafe impl FrameSource for Direct {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        FRAMES.alloc(order)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller's promise is the same.
        unsafe { FrameSource::free(&FRAMES, pa, order) }
    }
}

// SAFETY: all that FRAMES deals out is in `RAM`, and there is one of each.
unsafe impl Memory for Direct {}

/// Files that the boot loader has left, by their number; and shared anonymous memory.
struct Initrd {
    files: &'static [&'static [u8]],
    shmem: Shmem<Direct>,
}

impl Initrd {
    /// Whether it is shared anonymous memory.
    fn is_shmem(file: FileId) -> bool {
        Shmem::<Direct>::has(file)
    }

    fn bytes(&self, file: FileId) -> &'static [u8] {
        usize::try_from(file.0).ok().and_then(|n| self.files.get(n)).copied().unwrap_or_default()
    }
}

impl Files for Initrd {
    fn len_bytes(&self, file: FileId) -> u64 {
        if Self::is_shmem(file) {
            return self.shmem.len_bytes(file);
        }
        self.bytes(file).len() as u64
    }

    fn read(&self, file: FileId, index: u64, to: FrameBytes<'_>) -> Result<(), FileError> {
        if Self::is_shmem(file) {
            return self.shmem.read(file, index, to);
        }
        let page = self.bytes(file).chunks(PAGE_SIZE as usize).nth(index as usize);
        let page = page.ok_or(FileError::Io)?;
        to.write(0, page);
        to.zero_from(page.len());
        Ok(())
    }

    fn write(&self, file: FileId, index: u64, from: FrameBytes<'_>) -> Result<(), FileError> {
        // Nobody opens the others for writing.
        if Self::is_shmem(file) { self.shmem.write(file, index, from) } else { Err(FileError::Io) }
    }

    fn is_memory(&self, file: FileId) -> bool {
        Self::is_shmem(file)
    }

    fn create_shared(&self, len: u64) -> Result<FileId, OutOfFrames> {
        self.shmem.create(len)
    }

    fn mapped(&self, file: FileId) {
        let is_there = !Self::is_shmem(file) || self.shmem.share(file);
        debug_assert!(is_there, "a region more of a file that has none");
    }

    fn unmapped(&self, file: FileId) {
        if let Some(engine) = ENGINE.get().filter(|_| Self::is_shmem(file)) {
            self.shmem.release(file, engine.cache());
        }
    }

    fn label(&self, file: FileId) -> FileLabel {
        if Self::is_shmem(file) {
            return self.shmem.label(file);
        }
        FileLabel { major: 8, minor: 1, inode: file.0 + 1 }
    }

    fn write_name(&self, file: FileId, to: &mut dyn fmt::Write) -> fmt::Result {
        if Self::is_shmem(file) {
            return to.write_str("/dev/zero (deleted)");
        }
        write!(to, "/initrd/{}", file.0)
    }
}

/// Swap of a few places: bytes, and how many entries of tables name them.
struct Slots(Mutex<[([u8; PAGE_SIZE as usize], u32); 4]>);

impl Slots {
    /// A place for the page, with one share, if one is free.
    fn store(&self, from: FrameBytes<'_>) -> Option<SwapEntry> {
        let mut slots = self.0.lock();
        let (number, (bytes, shares)) =
            slots.iter_mut().enumerate().find(|(_, (_, shares))| *shares == 0)?;
        from.read(0, bytes);
        *shares = 1;
        Some(SwapEntry(number as u64))
    }

    /// Calls `f` with a place that is in use.
    fn with<R>(&self, entry: SwapEntry, f: impl FnOnce(&[u8], &mut u32) -> R) -> Option<R> {
        let mut slots = self.0.lock();
        let (bytes, shares) = slots.get_mut(usize::try_from(entry.0).ok()?)?;
        (*shares > 0).then(|| f(bytes, shares))
    }
}

impl Swap for Slots {
    fn read(&self, entry: SwapEntry, to: FrameBytes<'_>) -> Result<(), SwapError> {
        self.with(entry, |bytes, _| to.write(0, bytes)).ok_or(SwapError::Io)
    }

    fn share(&self, entry: SwapEntry) -> bool {
        self.with(entry, |_, shares| *shares += 1).is_some()
    }

    fn release(&self, entry: SwapEntry) {
        let was_there = self.with(entry, |_, shares| *shares -= 1);
        debug_assert!(was_there.is_some(), "a share too many was given back");
    }
}

/// What flushes one space: here nobody caches anything.
struct Local;

// SAFETY: no CPU runs on these tables. In a kernel: SFENCE.VMA for each flush, here and by interrupts on
// the other CPUs that have the space loaded.
unsafe impl Invalidate for Local {
    fn flush(&self, _: &[Flush]) {}
}

/// All parts together.
struct Kernel {
    files: Initrd,
    swap: Slots,
}

const INFO: FrameTable<'static, PageInfo> = match Pfn::new(START / PAGE_SIZE) {
    Some(first) => FrameTable::from_slice(first, &INFOS),
    None => panic!("memory begins at an address"),
};

// SAFETY: a record for each frame, in one array, lent as `&PageInfo` only.
unsafe impl Pages for Kernel {
    type Memory = Direct;

    fn memory(&self) -> &Direct {
        &Direct
    }

    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        INFO.get(pa)
    }

    fn each_info(&self, f: &mut impl FnMut(&PageInfo)) {
        INFOS.iter().for_each(f);
    }
}

impl System for Kernel {
    type Table = Radix<RiscV<3>, Direct>; // Sv39
    type Cpus = Local;
    type Files = Initrd;
    type Swap = Slots;

    fn files(&self) -> &Initrd {
        &self.files
    }

    fn swap(&self) -> &Slots {
        &self.swap
    }
}

type Space<'e> = AddressSpace<'e, Kernel, RwLock<()>>;

/// The translations of a new space.
fn mmu(engine: &Engine<Kernel>) -> Result<Mmu<'_, Kernel>, OutOfFrames> {
    let table = Radix::new(Direct)?;
    // SAFETY: the table is new, of this memory, and `Local` flushes it.
    Ok(unsafe { engine.mmu(table, Local) })
}

/// What the handler of page faults does with the program that has faulted.
#[derive(Debug, PartialEq)]
enum Then {
    /// It tries the access again.
    Resume,
    /// Others run first.
    Yield,
    /// It gets a signal: number, code and address are in there.
    Kill(Deny),
    /// The kernel's own region with this number: a device, a pager.
    Ask(u64),
    /// Memory is out: somebody pages out, drops caches, or chooses a victim.
    Starve,
}

/// The handler: `access` is from the error code, `va` the address that the processor gives.
fn page_fault(space: &Space<'_>, va: VirtAddr, access: Access) -> Then {
    match space.fault(va, access) {
        Ok(_cost) => Then::Resume,
        Err(FaultError::Deny(deny)) => Then::Kill(deny),
        Err(FaultError::Hook(number)) => Then::Ask(number),
        Err(FaultError::OutOfFrames(_)) => Then::Starve,
        Err(_) => Then::Yield,
    }
}

fn run() -> Result<String, Box<dyn core::error::Error>> {
    let end = START + COUNT as u64 * PAGE_SIZE;
    // SAFETY: `RAM` is nobody else's, and mapped for good.
    unsafe { FRAMES.init([(START, end)], [(0, 0); 0], |pa, _| Some(Direct.with(pa, |p| p)))? };
    let files = Initrd { files: &[b"#!/bin/true\n", &[7; 5000]], shmem: Shmem::new(Direct, 0)? };
    let slots = Slots(Mutex::new([([0; PAGE_SIZE as usize], 0); 4]));
    let engine = Engine::new(Kernel { files, swap: slots }, 0)?;
    let engine = ENGINE.call_once(|| engine);
    let rules = Rules::new(COUNT as u64);
    let mut text = String::new();
    {
        // The default layout is that of x86-64; it is cut to what Sv39 translates.
        let init: Space<'_> =
            AddressSpace::new(mmu(engine)?, &rules, Layout::default(), Limits::default());
        let rw = prot::READ | prot::WRITE;
        let heap = init.mmap(0, 4 * PAGE_SIZE, rw, map::PRIVATE | map::ANONYMOUS, None)?;
        let shared = init.mmap(0, PAGE_SIZE, rw, map::SHARED | map::ANONYMOUS, None)?;
        let file = FileId(1);
        let file = FileMap { file, descriptor: 3, offset: 0, readable: true, writable: false };
        let file = init.mmap(0, 3 * PAGE_SIZE, prot::READ, map::PRIVATE, Some(file))?;
        init.map_hook(0x1000_0000, PAGE_SIZE, rw, 5)?;

        let at = VirtAddr::new;
        assert_eq!(page_fault(&init, at(heap), Access::Write), Then::Resume);
        assert_eq!(page_fault(&init, at(file + 4999), Access::Read), Then::Resume);
        let behind = at(file + 2 * PAGE_SIZE);
        assert_eq!(page_fault(&init, behind, Access::Read), Then::Kill(Deny::NoPage(behind)));
        assert_eq!(page_fault(&init, at(8), Access::Read), Then::Kill(Deny::Unmapped(at(8))));
        assert_eq!(page_fault(&init, at(0x1000_0008), Access::Read), Then::Ask(5));

        init.write(at(heap), b"parent")?; // on behalf of the program
        init.write(at(shared), b"both")?;
        assert_eq!(init.page_out(at(heap), |bytes| engine.system().swap.store(bytes)), Ok(true));
        let child = init.fork(mmu(engine)?)?;
        child.write(at(heap), b"child ")?;
        let mut back = [0; 6];
        init.read(at(heap), &mut back)?;
        assert_eq!(&back, b"parent");
        child.read(at(shared), &mut back[..4])?;
        assert_eq!(&back[..4], b"both");

        init.write_maps(&mut text)?;
        let mut list = [Process::new(1, "init", &init), Process::new(2, "sh", &child)];
        write_processes(&mut list, rules.total_pages, &mut text)?;
    }
    // What is left is the file's page in the page cache: nobody owns the shared memory any more.
    assert_eq!(engine.cache().count_pages(), 1);
    Ok(text)
}

fn main() -> Result<(), Box<dyn core::error::Error>> {
    print!("{}", run()?);
    Ok(())
}

#[test]
fn it_runs_and_says_so() {
    let text = run().unwrap_or_else(|e| panic!("{e}"));
    assert!(text.contains("/dev/zero (deleted)\n") && text.contains(" init\n"), "{text}");
}
