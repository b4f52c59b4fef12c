//! A machine as a kernel would have it: a direct map that is a constant, frames from vellum-frame with a
//! cache for each CPU, records of frames in a static array.
//!
//! ```text
//!   pa   2 MiB                    4.5 GiB          pointer = BASE | pa
//!        |-------- FRAMES --------|                CPU n = a thread that has said so
//! ```
//!
//! # Invariants
//!
//! - A thread has a CPU's number while it has [`turn_of`], or is a worker of who has it.

use core::cell::Cell;
use core::marker::PhantomData;
use core::num::NonZeroUsize;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::AtomicU32;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use vellum_cache::{PageInfo, Pages};
use vellum_core::{FrameSource, Memory, OutOfFrames, PAGE_SHIFT, PageTable, PhysAddr, PhysMap};
use vellum_fault::host::{MemoryFiles, NoTlb};
use vellum_fault::{NoSwap, System};
use vellum_frame::{FrameAllocator, Shared};

/// Where physical address 0 would be: where valgrind has nothing, nor another bench.
const BASE: usize = 7 << 40;
/// Where RAM begins.
const ORIGIN: u64 = 2 << 20;
/// 4.5 GiB, as the widest row of `space` wants it; what is not touched costs nothing.
const COUNT: usize = (1 << 20) + (1 << 17);
/// CPUs that there are caches for.
const CPUS_MOST: usize = 2;

static FRAMES: FrameAllocator<'static> = FrameAllocator::new();
static CPUS: Shared<'static, 'static, CPUS_MOST> = Shared::new(&FRAMES);
static INFOS: [PageInfo; COUNT] = [const { PageInfo::new() }; COUNT];
static TURN: Mutex<()> = Mutex::new(());
static OPEN: Once = Once::new();

std::thread_local! {
    /// Nobody's: whoever has said nothing goes to the allocator itself.
    static CPU: Cell<usize> = const { Cell::new(CPUS_MOST) };
}

/// What one thread of the program has at a time: all CPUs, of which it is the first.
#[derive(Debug)]
pub(crate) struct Turn {
    _held: MutexGuard<'static, ()>,
}

/// Waits for the machine.
pub(crate) fn turn_of() -> Turn {
    let held = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    OPEN.call_once(open);
    CPU.set(0);
    Turn { _held: held }
}

impl Turn {
    /// Makes this thread CPU `cpu`, until it ends.
    ///
    /// # Safety
    ///
    /// The caller is a thread of its own, started by who has the turn and waits for it without taking
    /// a frame, and no two have the same number.
    pub(crate) unsafe fn worker(cpu: usize) {
        CPU.set(cpu);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // SAFETY: as in `Zone::alloc`; this thread is CPU 0 still.
        unsafe { CPUS.on(0) }.flush();
        CPU.set(CPUS_MOST);
    }
}

fn open() {
    let bytes = ORIGIN as usize + (COUNT << PAGE_SHIFT);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
    let wanted = with_exposed_provenance_mut(BASE);
    // SAFETY: the mapping replaces none.
    match unsafe { mmap_anonymous(wanted, bytes, protection, flags) } {
        Ok(start) if start.expose_provenance() == BASE => {}
        other => panic!("cannot map {bytes} bytes at {wanted:?}: {other:?}"),
    }
    let end = ORIGIN + ((COUNT as u64) << PAGE_SHIFT);
    // SAFETY: mapped above for good, and nobody else's; the allocator keeps its words to itself.
    let ready = unsafe {
        FRAMES.init([(ORIGIN, end)], [(0, 0); 0], |pa, _| Some(pointer(pa.as_u64() as usize)))
    };
    ready.expect("RAM has room for the allocator");
}

#[inline(always)]
fn pointer(pa: usize) -> NonNull<u8> {
    // Never 0, and the compiler sees it.
    NonNull::with_exposed_provenance(NonZeroUsize::new(BASE | pa).unwrap_or(NonZeroUsize::MIN))
}

/// The handle of that memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone;

// SAFETY: all of RAM is mapped at `BASE | pa` for good, and exposed; the constant is a multiple of more than
// its size, so that offsets and alignment carry over.
unsafe impl PhysMap for Zone {
    #[inline(always)]
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        f(pointer(pa.as_u64() as usize))
    }
}

// SAFETY: forwards to `FrameAllocator`, by way of this CPU's cache, which keeps the contract.
unsafe impl FrameSource for Zone {
    #[inline]
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        // SAFETY: the number is this thread's alone, by the invariant of the module; there are no interrupts.
        unsafe { CPUS.on(CPU.get()) }.alloc(order)
    }

    #[inline]
    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: as above; and the caller's.
        let freed = unsafe { CPUS.on(CPU.get()).free(pa, order) };
        assert_eq!(freed, Ok(()), "a frame was given back wrongly");
    }
}

// SAFETY: there is one source and one mapping, and every handle is of them. Each frame has a record, whose
// word for sharers nobody else asks for; it is 0 to begin with, and a table leaves it at 0 with the block.
unsafe impl Memory for Zone {
    #[inline]
    unsafe fn sharers(&self, block: PhysAddr) -> Option<&AtomicU32> {
        // SAFETY: the caller's.
        info(block).map(|info| unsafe { info.sharers() })
    }
}

#[inline]
fn info(pa: PhysAddr) -> Option<&'static PageInfo> {
    INFOS.get((pa.as_u64().wrapping_sub(ORIGIN) >> PAGE_SHIFT) as usize)
}

/// The machine's parts, with tables of type `T`.
#[derive(Debug)]
pub(crate) struct Machine<T> {
    files: MemoryFiles,
    table: PhantomData<fn() -> T>,
}

impl<T> Machine<T> {
    pub(crate) fn new() -> Self {
        Self { files: MemoryFiles::default(), table: PhantomData }
    }
}

// SAFETY: the records are in one array, by frame from ORIGIN on, as many as frames.
unsafe impl<T> Pages for Machine<T> {
    type Memory = Zone;

    fn memory(&self) -> &Zone {
        &Zone
    }

    #[inline]
    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        info(pa)
    }

    fn each_info(&self, f: &mut impl FnMut(&PageInfo)) {
        INFOS.iter().for_each(f);
    }
}

impl<T: PageTable> System for Machine<T> {
    type Table = T;
    type Cpus = NoTlb;
    type Files = MemoryFiles;
    type Swap = NoSwap;

    fn files(&self) -> &MemoryFiles {
        &self.files
    }

    fn swap(&self) -> &NoSwap {
        &NoSwap
    }
}
