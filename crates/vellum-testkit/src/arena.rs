//! Physical memory on the host: one aligned allocation that plays RAM.
//!
//! ```text
//!   origin                                                  origin + len
//!     v                                                        v
//!     +------+------+-------------+------+------+------+------+
//!     | head | tail |    free     | head | free | head | tail |    state, a byte a frame
//!     |  1   |      |             |  0   |      |  1   |      |    (order of the block in its head)
//!     +------+------+-------------+------+------+------+------+
//! ```
//!
//! Frames are filled with [`FRESH`] when handed out and with [`FREED`] when given back, so that a
//! table that trusts old contents, or reads what it freed, is seen. Wrong frees panic: this is a
//! test's memory.
//!
//! # Invariants
//!
//! - Every pointer handed out is derived from the one allocation, with its provenance.
//! - Frames in use + free frames = all frames.

use core::alloc::Layout;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::alloc::{alloc, dealloc, handle_alloc_error};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vellum_core::{
    FrameSource, Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, PhysMap,
};

/// What a frame holds when it is handed out.
pub const FRESH: u8 = 0xa5;
/// What a frame holds after it was given back.
pub const FREED: u8 = 0xde;

const FREE: u8 = 0xff;
const TAIL: u8 = 0xfe;

/// Simulated RAM; `&Arena` is a [`Memory`].
///
/// ```
/// use vellum_core::{FrameSource, PhysMap};
/// use vellum_testkit::Arena;
///
/// let arena = Arena::new(64);
/// let frame = arena.alloc(0)?;
/// // SAFETY: the pointer is good for the frame's 4 KiB, and nobody else has it.
/// arena.with(frame, |p| unsafe { p.write(7) });
/// assert_eq!(arena.frames_in_use(), 1);
/// // SAFETY: allocated above, used by nobody any more.
/// unsafe { arena.free(frame, 0) };
/// assert_eq!(arena.frames_in_use(), 0);
/// # Ok::<(), vellum_core::OutOfFrames>(())
/// ```
pub struct Arena {
    base: NonNull<u8>,
    layout: Layout,
    origin: PhysAddr,
    /// Of each frame, as the first of a node, how many tables link it besides one.
    sharers: Vec<AtomicU32>,
    state: Mutex<State>,
}

struct State {
    /// What each frame is: free, a tail, or the head of a block of this order.
    frames: Vec<u8>,
    /// How often each frame was given back.
    frees: Vec<u64>,
    /// Allocations that may still succeed, if there is a limit.
    budget: Option<u64>,
}

// SAFETY: the pointer is to an allocation that the arena owns; who may touch which bytes of it is
// the business of those who hold frames, and `state` is behind a mutex.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// RAM of this many frames from physical address 4 MiB on, aligned in itself to 2 MiB.
    ///
    /// # Panics
    ///
    /// When `frames` is 0 or more than the host's address space, or when the host has no memory.
    #[must_use]
    pub fn new(frames: usize) -> Self {
        Self::at(PhysAddr::new(4 << 20), frames)
    }

    /// The same from `origin` on, which is a multiple of the frame size.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new), and when `origin` is not aligned.
    #[must_use]
    pub fn at(origin: PhysAddr, frames: usize) -> Self {
        assert!(origin.is_aligned(PAGE_SHIFT), "{origin} is not the start of a frame");
        let bytes = frames.checked_mul(PAGE_SIZE as usize).expect("more frames than addresses");
        let layout = Layout::from_size_align(bytes, PAGE_SIZE as usize).expect("too many frames");
        assert!(bytes > 0, "an arena without frames");
        // SAFETY: the size is not 0.
        let base = NonNull::new(unsafe { alloc(layout) });
        let base = base.unwrap_or_else(|| handle_alloc_error(layout));
        let state = State { frames: vec![FREE; frames], frees: vec![0; frames], budget: None };
        let state = Mutex::new(state);
        let sharers = (0..frames).map(|_| AtomicU32::new(0)).collect();
        Self { base, layout, origin, sharers, state }
    }

    /// The first frame.
    #[must_use]
    pub fn first(&self) -> Pfn {
        self.origin.number()
    }

    /// How many frames there are.
    #[must_use]
    pub fn count_frames(&self) -> u64 {
        (self.layout.size() as u64) >> PAGE_SHIFT
    }

    /// How many frames are handed out.
    #[must_use]
    pub fn frames_in_use(&self) -> u64 {
        self.state().frames.iter().filter(|&&s| s != FREE).count() as u64
    }

    /// Whether the byte at `pa` is in a frame that is handed out.
    #[must_use]
    pub fn is_in_use(&self, pa: PhysAddr) -> bool {
        self.index(pa).is_some_and(|i| self.state().frames[i] != FREE)
    }

    /// How often the frame of the byte at `pa` was given back: another number says that it is not
    /// the same block any more, even if it is in use.
    #[must_use]
    pub fn times_freed(&self, pa: PhysAddr) -> u64 {
        self.index(pa).map_or(0, |i| self.state().frees[i])
    }

    /// Lets this many more allocations succeed, and fails all that follow; `None` lifts the limit.
    pub fn limit_allocations(&self, budget: Option<u64>) {
        self.state().budget = budget;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self, pa: PhysAddr) -> Option<usize> {
        let i = pa.number().checked_sub(self.first())?;
        (i < self.count_frames()).then_some(i as usize)
    }

    fn fill(&self, first: usize, count: usize, byte: u8) {
        let (offset, bytes) = (first * PAGE_SIZE as usize, count * PAGE_SIZE as usize);
        // SAFETY: the frames lie in the allocation, and at this moment belong to the allocator.
        unsafe { self.base.add(offset).write_bytes(byte, bytes) };
    }
}

/// Two are equal if they are the same one.
impl PartialEq for Arena {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (in_use, all) = (self.frames_in_use(), self.count_frames());
        write!(f, "Arena({in_use} of {all} frames in use, from {})", self.origin)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `at` with this layout; no handle outlives the arena.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

// SAFETY: a pointer into the allocation, at the byte that stands for `pa`, carries the provenance
// of the whole allocation, is valid while `self` is, and is aligned as `pa` is, since both the
// origin and the allocation are aligned to frames. Other addresses panic.
unsafe impl PhysMap for Arena {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        match self.index(pa) {
            Some(_) => {
                let offset = (pa.as_u64() - self.origin.as_u64()) as usize;
                // SAFETY: `index` found the byte within the allocation.
                f(unsafe { self.base.add(offset) })
            }
            None => panic!("physical address {pa} is not in the arena"),
        }
    }
}

// SAFETY: one arena is one memory: its blocks are bytes of its allocation, which `with` reaches; a
// copy of the reference is the same arena, and equality is identity. Each frame has a count of its own,
// which is made 0, and must be 0 when a block comes back.
unsafe impl Memory for &Arena {
    unsafe fn sharers(&self, block: PhysAddr) -> Option<&AtomicU32> {
        self.sharers.get(self.index(block)?)
    }
}

// SAFETY: a block is handed out only when all of its frames were free, marks them as taken under
// the mutex, and is aligned by frame number, hence by address.
unsafe impl FrameSource for Arena {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let out = OutOfFrames { order };
        let size = 1usize.checked_shl(u32::from(order)).ok_or(out)?;
        let mut state = self.state();
        let budget = match state.budget {
            Some(left) => Some(left.checked_sub(1).ok_or(out)?),
            None => None,
        };
        let frames = &mut state.frames;
        // The first index whose frame number is a multiple of the block's size.
        let skew = (self.first().as_u64() as usize).wrapping_neg() & (size - 1);
        let found = (skew..frames.len())
            .step_by(size)
            .find(|&i| frames.get(i..i + size).is_some_and(|b| b.iter().all(|&s| s == FREE)))
            .ok_or(out)?;
        frames[found] = order;
        frames[found + 1..found + size].fill(TAIL);
        state.budget = budget;
        self.fill(found, size, FRESH);
        let first = self.origin.wrapping_add((found as u64) << PAGE_SHIFT);
        Ok(first)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        let index = self.index(pa).unwrap_or_else(|| panic!("{pa} is not in the arena"));
        let State { frames, frees, .. } = &mut *self.state();
        assert!(pa.is_aligned(PAGE_SHIFT), "{pa} is not the start of a frame");
        assert_eq!(frames[index], order, "{pa} is not the head of a block of this order");
        let size = 1 << order;
        let sharers = self.sharers[index].load(Ordering::Relaxed);
        assert_eq!(sharers, 0, "{pa} is given back while tables share it");
        frames[index..index + size].fill(FREE);
        frees[index..index + size].iter_mut().for_each(|n| *n += 1);
        self.fill(index, size, FREED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::panic::AssertUnwindSafe;
    use std::panic::catch_unwind;

    #[test]
    fn blocks_are_aligned_by_their_address() {
        let arena = Arena::at(PhysAddr::new(3 * PAGE_SIZE), 64);
        for order in [0, 3, 1, 2, 4] {
            let pa = arena.alloc(order).unwrap();
            assert!(pa.is_aligned(order + PAGE_SHIFT), "{pa} for order {order}");
        }
        assert_eq!(arena.frames_in_use(), 1 + 8 + 2 + 4 + 16);
        assert_eq!(arena.alloc(6), Err(OutOfFrames { order: 6 }));
    }

    #[test]
    fn contents_tell_fresh_from_freed() {
        let arena = Arena::new(2);
        let pa = arena.alloc(0).unwrap();
        let last = pa.wrapping_add(PAGE_SIZE - 1);
        // SAFETY: within the frame that was handed out, and then within the arena's allocation.
        let read = || arena.with(last, |p| unsafe { p.read() });
        assert_eq!(read(), FRESH);
        // SAFETY: allocated above, and given back once.
        unsafe { arena.free(pa, 0) };
        assert_eq!(read(), FREED);
        assert_eq!(arena.times_freed(last), 1);
    }

    #[test]
    fn wrong_frees_are_caught() {
        let arena = Arena::new(8);
        let pa = arena.alloc(1).unwrap();
        for (wrong, order) in [(pa, 0), (pa.wrapping_add(PAGE_SIZE), 0), (PhysAddr::new(0), 0)] {
            // SAFETY: not kept, on purpose: the arena checks, and panics before it does anything.
            let freed = catch_unwind(AssertUnwindSafe(|| unsafe { arena.free(wrong, order) }));
            assert!(freed.is_err(), "{wrong} order {order}");
        }
        // SAFETY: allocated above, and given back once.
        unsafe { arena.free(pa, 1) };
        assert_eq!(arena.frames_in_use(), 0);
    }

    #[test]
    fn a_limit_fails_what_comes_after_it() {
        let arena = Arena::new(8);
        arena.limit_allocations(Some(2));
        assert!(arena.alloc(0).is_ok() && arena.alloc(0).is_ok());
        assert_eq!(arena.alloc(0), Err(OutOfFrames { order: 0 }));
        arena.limit_allocations(None);
        assert!(arena.alloc(0).is_ok());
    }
}
