//! Every way to one allocator, so that a test can mix them: itself, caches, and CPUs of a [`Shared`].
//!
//! ```text
//!   way   0          1, 2      3, 4     5            6
//!         allocator  caches    CPU 0    CPU 1        CPU 2 of two: no cache
//!                              twice
//! ```

use crate::{Cache, FrameAllocator, FreeError, Local, Shared};
use std::vec::Vec;
use vellum_core::{OutOfFrames, PhysAddr};

/// How many there are.
pub(super) const WAYS: usize = 7;

/// The CPU of each way from 3 on.
const CPUS: [usize; 4] = [0, 0, 1, 2];

pub(super) struct Ways<'a, 'm> {
    pub(super) frames: &'a FrameAllocator<'m>,
    caches: [Cache<'a, 'm>; 2],
    shared: Shared<'a, 'm, 2>,
}

impl<'a, 'm> Ways<'a, 'm> {
    pub(super) fn new(frames: &'a FrameAllocator<'m>) -> Self {
        Self {
            frames,
            caches: [const { Cache::new }; 2].map(|new| new(frames)),
            shared: Shared::new(frames),
        }
    }

    fn local(&self, way: usize) -> Local<'_, 'm> {
        // SAFETY: `Ways` stays on one thread, which is every CPU by turns.
        unsafe { self.shared.on(CPUS[way - 3]) }
    }

    pub(super) fn alloc(&mut self, way: usize, order: u8) -> Result<PhysAddr, OutOfFrames> {
        match way {
            0 => self.frames.alloc(order),
            1 | 2 => self.caches[way - 1].alloc(order),
            _ => self.local(way).alloc(order),
        }
    }

    /// # Safety
    ///
    /// As [`FrameAllocator::free`].
    pub(super) unsafe fn free(
        &mut self,
        way: usize,
        pa: PhysAddr,
        order: u8,
    ) -> Result<(), FreeError> {
        // SAFETY: the caller's promise, three times.
        unsafe {
            match way {
                0 => self.frames.free(pa, order),
                1 | 2 => self.caches[way - 1].free(pa, order),
                _ => self.local(way).free(pa, order),
            }
        }
    }

    /// How many frames lie in the cache of a way.
    pub(super) fn held(&self, way: usize) -> u64 {
        match way {
            0 => 0,
            1 | 2 => self.caches[way - 1].held(),
            _ => self.local(way).held(),
        }
    }

    /// How many frames lie in caches, but for that of `way`.
    pub(super) fn held_elsewhere(&self, way: usize) -> u64 {
        let same = |other: usize| other == way || (other <= 4 && way <= 4 && other + way == 7);
        [1, 2, 3, 5].into_iter().filter(|&other| !same(other)).map(|other| self.held(other)).sum()
    }

    pub(super) fn flush(&mut self, way: usize) {
        match way {
            0 => {}
            1 | 2 => self.caches[way - 1].flush(),
            _ => self.local(way).flush(),
        }
        assert_eq!(self.held(way), 0);
    }

    /// Has a new cache take the place of one, or flushes all CPUs.
    pub(super) fn renew(&mut self, way: usize) {
        match way {
            0 => {}
            1 | 2 => self.caches[way - 1] = Cache::new(self.frames),
            _ => self.shared.flush(),
        }
        assert_eq!(self.held(way), 0);
    }

    /// The free runs of the allocator itself.
    pub(super) fn visible(&self) -> Vec<(u64, u64)> {
        runs(self.frames)
    }
}

/// The free runs of an allocator: first frame and count.
pub(super) fn runs(frames: &FrameAllocator<'_>) -> Vec<(u64, u64)> {
    frames.free_runs().map(|(start, count)| (start.number().as_u64(), count)).collect()
}
