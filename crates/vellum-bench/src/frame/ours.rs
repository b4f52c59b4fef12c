//! vellum-frame in its three modes.
//!
//! ```text
//!   Exclusive   frames.exclusive()   plain loads and stores          against &mut peers
//!   Cached      Cache::new(&frames)  one CPU's cache, shared tree    against shared peers
//!   Uncached    &frames              compare-and-swap, no cache      against shared peers
//! ```

use super::allocator::{Allocator, FRAME_SHIFT, Frames, Shared, Side};
use super::reserve::Reserve;
use core::fmt;
use core::sync::atomic::AtomicU64;
use vellum_core::PhysAddr;
use vellum_frame::{Cache, FrameAllocator};

const NOTHING: [(u64, u64); 0] = [];

/// The allocator and its metadata, which no mode changes.
pub struct Ours {
    // Before `storage`, which it refers to: fields are dropped in this order.
    frames: FrameAllocator<'static>,
    storage: Reserve,
    count: u64,
}

impl fmt::Debug for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vellum-frame over {} frames", self.count)
    }
}

fn map(count: u64) -> [(u64, u64); 1] {
    [(0, count << FRAME_SHIFT)]
}

fn words(count: u64) -> usize {
    FrameAllocator::words_needed(map(count), NOTHING) as usize
}

impl Ours {
    fn new(count: u64) -> Self {
        let storage = Reserve::new(words(count) * size_of::<AtomicU64>());
        let mut ours = Self { frames: FrameAllocator::new(), storage, count };
        ours.again();
        ours
    }

    fn again(&mut self) {
        self.frames = FrameAllocator::new();
        let start = self.storage.start().cast::<AtomicU64>();
        // SAFETY: the mapping has so many words, aligned to a page and zero or written by the
        // allocator that was just dropped. It lives as long as `frames`, which alone gets it:
        // 'static is never seen outside of `self`, whose fields go in the right order.
        let storage = unsafe { core::slice::from_raw_parts(start.as_ptr(), words(self.count)) };
        // SAFETY: there is no memory that anybody could use, and `storage` is given to nobody else.
        if let Err(error) = unsafe { self.frames.init_in(storage, map(self.count), NOTHING) } {
            unreachable!("the storage is as large as asked for: {error}");
        }
    }

    fn bits_per_frame(count: u64) -> f64 {
        (words(count) * 64 + size_of::<FrameAllocator<'_>>() * 8) as f64 / count as f64
    }
}

/// Through `&self`, without a cache: what an interrupt handler may use.
#[derive(Debug)]
pub struct Uncached(Ours);

impl Frames for &FrameAllocator<'_> {
    type Block = PhysAddr;

    fn alloc(&mut self, order: u8) -> Option<PhysAddr> {
        FrameAllocator::alloc(self, order).ok()
    }

    unsafe fn free(&mut self, block: PhysAddr, order: u8) {
        // SAFETY: the caller's promise; and nothing reaches bytes that do not exist.
        let freed = unsafe { FrameAllocator::free(self, block, order) };
        debug_assert_eq!(freed, Ok(()));
    }

    fn alloc_batch(&mut self, into: &mut Vec<PhysAddr>, count: usize) {
        into.resize(count, PhysAddr::new(0));
        let had = self.alloc_bulk(into);
        into.truncate(had);
    }

    unsafe fn free_batch(&mut self, blocks: &mut Vec<PhysAddr>) {
        // SAFETY: the caller's promise.
        let freed = unsafe { self.free_bulk(blocks) };
        debug_assert_eq!(freed, Ok(()));
        blocks.clear();
    }
}

/// The parts of [`Allocator`] that do not depend on the mode.
macro_rules! ours {
    () => {
        type Block = PhysAddr;

        fn new(frames: u64) -> Self {
            Self(Ours::new(frames))
        }

        fn again(&mut self) {
            self.0.again();
        }

        fn numbering(&self) -> Box<dyn Fn(PhysAddr) -> u64> {
            Box::new(|block| block.as_u64() >> FRAME_SHIFT)
        }

        fn bits_per_frame(frames: u64) -> f64 {
            Ours::bits_per_frame(frames)
        }
    };
}

impl Allocator for Uncached {
    const NAME: &'static str = "vellum-frame, uncached";
    const SIDE: Side = Side::Shared;
    type Local<'a> = &'a FrameAllocator<'static>;
    ours!();

    fn local(&mut self) -> Self::Local<'_> {
        &self.0.frames
    }
}

impl Shared for Uncached {
    type OnCpu<'a> = &'a FrameAllocator<'static>;

    fn on(&self, _cpu: usize) -> Self::OnCpu<'_> {
        &self.0.frames
    }
}

/// Through one CPU's cache, over the tree that all share.
#[derive(Debug)]
pub struct Cached(Ours);

impl Frames for Cache<'_, 'static> {
    type Block = PhysAddr;

    fn alloc(&mut self, order: u8) -> Option<PhysAddr> {
        Cache::alloc(self, order).ok()
    }

    unsafe fn free(&mut self, block: PhysAddr, order: u8) {
        // SAFETY: the caller's promise; and nothing reaches bytes that do not exist.
        let freed = unsafe { Cache::free(self, block, order) };
        debug_assert_eq!(freed, Ok(()));
    }

    fn flush(&mut self) {
        Cache::flush(self);
    }
}

impl Allocator for Cached {
    const NAME: &'static str = "vellum-frame, cached";
    const SIDE: Side = Side::Shared;
    type Local<'a> = Cache<'a, 'static>;
    ours!();

    fn local(&mut self) -> Self::Local<'_> {
        self.on(0)
    }
}

impl Shared for Cached {
    type OnCpu<'a> = Cache<'a, 'static>;

    fn on(&self, _cpu: usize) -> Self::OnCpu<'_> {
        Cache::new(&self.0.frames)
    }
}

/// Through `&mut`: nobody else is there.
#[derive(Debug)]
pub struct Exclusive(Ours);

impl Frames for vellum_frame::Exclusive<'_, 'static> {
    type Block = PhysAddr;

    fn alloc(&mut self, order: u8) -> Option<PhysAddr> {
        vellum_frame::Exclusive::alloc(self, order).ok()
    }

    unsafe fn free(&mut self, block: PhysAddr, order: u8) {
        // SAFETY: the caller's promise; and nothing reaches bytes that do not exist.
        let freed = unsafe { vellum_frame::Exclusive::free(self, block, order) };
        debug_assert_eq!(freed, Ok(()));
    }
}

impl Allocator for Exclusive {
    const NAME: &'static str = "vellum-frame, exclusive";
    const SIDE: Side = Side::Exclusive;
    type Local<'a> = vellum_frame::Exclusive<'a, 'static>;
    ours!();

    fn local(&mut self) -> Self::Local<'_> {
        self.0.frames.exclusive()
    }
}
