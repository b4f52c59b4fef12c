//! frame-alloc: bitmaps of every order with a summary above them, and per-CPU magazines of frames.
//!
//! ```text
//!   span   | its bitmap | reserved | frame 0 | frame 1 | ...
//!          0                       ^ aligned to the largest block
//! ```
//!
//! - `SummaryBuddyAllocator<11>`: the orders of its own example, and of Linux; with as many as ours
//!   has, 19, only (c) differed by more than noise, to its disadvantage.
//! - `DepotAllocator` in front of it, which is what its README calls per-CPU cached: magazines of
//!   128 frames and a depot of 512, its defaults; and, since some rows take 256 frames at a time,
//!   once more with magazines of 1024 frames, which then hold all of them.
//! - `CpuId` is a variable of the thread, one load as a kernel's would be. No `InterruptControl`:
//!   it would only add to its cost.
//!
//! It has no mode for one CPU alone. It carves its bitmap from the first usable range that has room;
//! it gets one for that below the frames that are measured, so that all frames can be had.
//! It deals out by number: no byte of a frame is touched, and only the bitmap needs to exist.

use super::super::allocator::{Allocator, CPUS, FRAME_SHIFT, Frames, Shared, Side};
use super::super::reserve::Reserve;
use core::cell::Cell;
use core::fmt;
use core::num::NonZeroUsize;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering::SeqCst};
use frame_alloc::{
    CpuId, DepotAllocator, InitError, PageSize, PhysRange, PhysicalAllocator, Provenance,
    RegionInit, SummaryBuddyAllocator,
};
use std::sync::Mutex;

/// Orders 0 to 10.
const ORDERS: usize = 11;

/// Bytes of a frame.
const BASE: PageSize = PageSize::from_log2(FRAME_SHIFT as u8);

/// Bytes of its largest block.
const LARGEST: usize = BASE.bytes() << (ORDERS - 1);

/// The frames of a magazine, unless one says otherwise.
pub const DEFAULT_MAGAZINE: usize = 128;

/// Enough for 256 frames at a time, with room for hysteresis.
pub const LARGE_MAGAZINE: usize = 1024;

type Buddy = SummaryBuddyAllocator<ORDERS, Host>;

/// Where the next bitmap goes; written and read under [`INITIALISING`].
static BITMAP: AtomicPtr<u8> = AtomicPtr::new(null_mut());
static INITIALISING: Mutex<()> = Mutex::new(());

/// Turns the bitmap's "physical" address into where it lies on the host.
#[derive(Debug)]
pub struct Host;

// SAFETY: `create` is called once for each allocator, for its bitmap (as its docs say), while
// `initialise` holds the lock and has `BITMAP` point to a mapping that is as large; `destroy` never.
unsafe impl Provenance for Host {
    unsafe fn create(_phys: usize) -> NonNull<u8> {
        NonNull::new(BITMAP.load(SeqCst)).expect("`initialise` has set it")
    }

    unsafe fn destroy<T>(ptr: NonNull<T>) -> usize {
        ptr.addr().get()
    }
}

/// The number that `on` has given the thread.
#[derive(Debug)]
pub struct Cpu;

thread_local! {
    static CPU: Cell<usize> = const { Cell::new(0) };
}

impl CpuId for Cpu {
    fn current_cpu() -> usize {
        CPU.get()
    }
}

/// What it takes for its bitmap over a span of so many bytes; it says so when that is refused.
fn bitmap_bytes(span: usize) -> usize {
    let page = [PhysRange { base: 0, len: BASE.bytes() }];
    // SAFETY: a range of one frame is refused before anything is touched.
    match unsafe { Buddy::new(BASE).try_init(0, span, &page) } {
        Err(InitError::MetadataWontFit { required_bytes }) => required_bytes,
        other => unreachable!("one frame holds no bitmap of {span} bytes: {other:?}"),
    }
}

/// The bytes of the bitmap, and where frame 0 lies.
fn layout(count: u64) -> (usize, usize) {
    let bytes = (count << FRAME_SHIFT) as usize;
    let bitmap = bitmap_bytes(bytes);
    let start = bitmap.next_multiple_of(LARGEST);
    // The bits of what lies below the frames count as well.
    (bitmap_bytes(start + bytes), start)
}

/// An allocator, and the bitmap that it points to.
struct Placed<A> {
    frames: A,
    bitmap: Reserve,
    start: usize,
    count: u64,
}

impl<A: RegionInit> Placed<A> {
    fn new(frames: A, count: u64) -> Self {
        let (bytes, start) = layout(count);
        assert!(bytes <= start, "the bitmap lies below frame 0");
        let placed = Self { frames, bitmap: Reserve::new(bytes), start, count };
        placed.initialise();
        placed
    }

    fn again(&mut self, frames: A) {
        self.frames = frames;
        self.initialise();
    }

    fn initialise(&self) {
        let (bytes, start) = layout(self.count);
        let len = (self.count << FRAME_SHIFT) as usize;
        let usable = [PhysRange { base: 0, len: bytes }, PhysRange { base: start, len }];
        let guard = INITIALISING.lock();
        BITMAP.store(self.bitmap.start().as_ptr(), SeqCst);
        // SAFETY: the first range holds the bitmap, and `Host` maps it to a mapping of that size
        // that lives as long as `self`; no byte of the second exists or is touched.
        let done = unsafe { self.frames.try_init(0, start + len, &usable) };
        drop(guard);
        assert_eq!(done, Ok(()), "the bitmap has its range");
    }
}

fn bits(count: u64, object: usize) -> f64 {
    let bytes = bitmap_bytes((count << FRAME_SHIFT) as usize);
    ((bytes + object) * 8) as f64 / count as f64
}

/// The parts of [`Allocator`] that do not depend on the magazines.
macro_rules! placed {
    ($make:expr, $type:ty) => {
        const SIDE: Side = Side::Shared;
        type Block = usize;
        type Local<'a> = &'a $type;

        fn new(frames: u64) -> Self {
            Self(Placed::new($make, frames))
        }

        fn again(&mut self) {
            self.0.again($make);
        }

        fn local(&mut self) -> Self::Local<'_> {
            self.on(0)
        }

        fn numbering(&self) -> Box<dyn Fn(usize) -> u64> {
            let start = self.0.start;
            Box::new(move |block| ((block - start) >> FRAME_SHIFT) as u64)
        }

        fn bits_per_frame(frames: u64) -> f64 {
            bits(frames, size_of::<$type>())
        }
    };
}

/// The lock-free buddy by itself.
pub struct SummaryBuddy(Placed<Buddy>);

/// The same with magazines of `CAP` frames for each CPU, and a depot of 512.
pub struct Depot<const CAP: usize>(Placed<Magazines<CAP>>);

type Magazines<const CAP: usize> = DepotAllocator<Buddy, Cpu, CPUS, CAP>;

impl fmt::Debug for SummaryBuddy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame-alloc over {} frames", self.0.count)
    }
}

impl<const CAP: usize> fmt::Debug for Depot<CAP> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame-alloc over {} frames, magazines of {CAP}", self.0.count)
    }
}

impl Allocator for SummaryBuddy {
    const NAME: &'static str = "frame-alloc";
    placed!(Buddy::new(BASE), Buddy);
}

impl<const CAP: usize> Allocator for Depot<CAP> {
    const NAME: &'static str = match CAP {
        DEFAULT_MAGAZINE => "frame-alloc, depot",
        LARGE_MAGAZINE => "frame-alloc, depot of 1024",
        _ => "frame-alloc, another depot",
    };
    placed!(Magazines::new(BASE, Buddy::new(BASE)), Magazines<CAP>);
}

impl Shared for SummaryBuddy {
    type OnCpu<'a> = &'a Buddy;

    fn on(&self, _cpu: usize) -> &Buddy {
        &self.0.frames
    }
}

impl<const CAP: usize> Shared for Depot<CAP> {
    type OnCpu<'a> = &'a Magazines<CAP>;

    fn on(&self, cpu: usize) -> &Magazines<CAP> {
        CPU.set(cpu);
        &self.0.frames
    }
}

fn count(order: u8) -> NonZeroUsize {
    // The compiler knows that a power of two is not zero.
    NonZeroUsize::new(1 << order).unwrap_or(NonZeroUsize::MIN)
}

impl Frames for &Buddy {
    type Block = usize;

    fn alloc(&mut self, order: u8) -> Option<usize> {
        self.allocate_physical(BASE, count(order)).ok()
    }

    unsafe fn free(&mut self, block: usize, order: u8) {
        // SAFETY: the caller's.
        unsafe { self.deallocate_physical(BASE, count(order), block) };
    }
}

impl<const CAP: usize> Frames for &Magazines<CAP> {
    type Block = usize;

    fn alloc(&mut self, order: u8) -> Option<usize> {
        self.allocate_physical(BASE, count(order)).ok()
    }

    unsafe fn free(&mut self, block: usize, order: u8) {
        // SAFETY: the caller's.
        unsafe { self.deallocate_physical(BASE, count(order), block) };
    }

    fn flush(&mut self) {
        DepotAllocator::flush(self);
    }
}
