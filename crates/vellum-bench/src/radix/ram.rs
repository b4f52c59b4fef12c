//! Physical memory for the tables: one mapping a thread, and a frame source that all share.
//!
//! ```text
//!   pointer = BASE | pa            a constant, as a kernel's direct map: nobody loads a base
//!
//!   pa   1 GiB        2 GiB                        1 TiB
//!        | thread 0   | thread 1   | ...           | DATA: what is mapped, and never touched
//!        |####....    |            |
//!             ^ next                free: a list through the first words of frames
//! ```
//!
//! Frames come from a list of those given back, then from where the zone was never used. They are
//! **dirty**: a turn begins where the one before it began, over what that left behind. So nobody can
//! trust a frame to be zero, and everybody gets the same frames in the same order.
//!
//! The state is the thread's own, so that the source has no atomic operation and no lock.
//!
//! # Invariants
//!
//! - A frame is below `next` and in the list, below `next` and handed out, or not below `next`.
//! - Everything below `next` is mapped, for as long as the process lives.

use core::cell::Cell;
use core::num::NonZeroUsize;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use vellum_core::{FrameSource, Memory, OutOfFrames, PAGE_SIZE, PhysAddr, PhysMap};

/// Where physical address 0 would be. Valgrind leaves this part of the address space free, too.
const BASE: usize = 1 << 42;

/// Bytes of a thread's zone: enough for the tables of [`Row::Scatter`](super::rows::Row::Scatter).
const ZONE: usize = 1 << 30;

/// Physical addresses from here on are mapped by tables, and have no memory.
pub const DATA: u64 = 1 << 40;

static ZONES: AtomicUsize = AtomicUsize::new(1);

thread_local! {
    /// Where the zone begins; 0 before there is one.
    static START: Cell<usize> = const { Cell::new(0) };
    static NEXT: Cell<usize> = const { Cell::new(0) };
    static END: Cell<usize> = const { Cell::new(0) };
    /// The first frame of the list, or 0.
    static FREE: Cell<usize> = const { Cell::new(0) };
}

/// The handle of that memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ram;

/// Where the byte of a physical address is; of an address without memory, anywhere.
#[inline(always)]
#[must_use]
pub fn pointer(pa: usize) -> NonNull<u8> {
    // Never 0, and the compiler sees it.
    NonNull::with_exposed_provenance(NonZeroUsize::new(BASE | pa).unwrap_or(NonZeroUsize::MIN))
}

/// Takes a frame, in the state in which somebody left it.
#[inline]
#[must_use]
pub fn take() -> Option<usize> {
    let free = FREE.get();
    if free != 0 {
        // SAFETY: a frame of the list is nobody's, so its first word is the list's.
        FREE.set(unsafe { pointer(free).cast::<usize>().read() });
        return Some(free);
    }
    let next = NEXT.get();
    if next == END.get() {
        return first();
    }
    NEXT.set(next + PAGE_SIZE as usize);
    Some(next)
}

/// Gives a frame back.
///
/// # Safety
///
/// [`take`] handed it out, it was not given back since, and nobody uses it any more.
#[inline]
pub unsafe fn give(frame: usize) {
    // SAFETY: it was handed out, so it is mapped, and it is nobody's now.
    unsafe { pointer(frame).cast::<usize>().write(FREE.get()) };
    FREE.set(frame);
}

/// The first frame of a thread, which has no zone yet; of one whose zone is used up, `None`.
#[cold]
fn first() -> Option<usize> {
    if START.get() != 0 {
        return None;
    }
    let zone = ZONES.fetch_add(1, Ordering::Relaxed) * ZONE;
    open(zone);
    START.set(zone);
    NEXT.set(zone + PAGE_SIZE as usize);
    END.set(zone + ZONE);
    Some(zone)
}

/// Maps a zone, of which each thread has its own.
///
/// # Panics
///
/// When the system refuses: a bench without memory has nothing to measure.
fn open(zone: usize) {
    assert!(zone as u64 + ZONE as u64 <= DATA, "more threads than there are zones");
    let wanted = with_exposed_provenance_mut(BASE | zone);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: the mapping replaces none.
    match unsafe { mmap_anonymous(wanted, ZONE, protection, flags) } {
        Ok(start) if start.expose_provenance() == BASE | zone => {
            // SAFETY: the mapping from above. A refusal costs TLB misses, everybody's alike.
            let _ = unsafe { madvise(start, ZONE, Advice::LinuxHugepage) };
        }
        other => panic!("cannot map {ZONE} bytes at {wanted:?}: {other:?}"),
    }
}

/// How many frames of this thread's zone are handed out.
#[must_use]
pub fn frames_in_use() -> usize {
    let mut frames = (NEXT.get() - START.get()) / PAGE_SIZE as usize;
    let mut free = FREE.get();
    while free != 0 {
        frames -= 1;
        // SAFETY: as in `take`.
        free = unsafe { pointer(free).cast::<usize>().read() };
    }
    frames
}

/// Has the host give memory to the first so many frames, on nobody's clock.
///
/// # Panics
///
/// When the zone has less, or frames are handed out.
pub fn warm(frames: usize) {
    let taken: Vec<_> = (0..frames).map(|_| take()).collect();
    assert!(taken.iter().all(Option::is_some), "a zone has no {frames} frames");
    // SAFETY: taken right here, each once.
    taken.into_iter().flatten().for_each(|frame| unsafe { give(frame) });
    rewind();
}

/// Begins anew: the next turn gets the frames in the order in which this one got them.
///
/// # Panics
///
/// When not all frames have been given back.
pub fn rewind() {
    assert_eq!(frames_in_use(), 0, "frames of tables that nobody has freed");
    NEXT.set(START.get());
    FREE.set(0);
}

// SAFETY: a frame that was handed out is mapped at `BASE | pa` for good, and exposed; the constant
// is a multiple of the zone's size, so that offsets and alignment carry over.
unsafe impl PhysMap for Ram {
    #[inline(always)]
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        f(pointer(pa.as_u64() as usize))
    }
}

// SAFETY: a frame is handed out once until it is given back; `rewind` refuses while any is out.
unsafe impl FrameSource for Ram {
    #[inline]
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        match take() {
            Some(frame) if order == 0 => Ok(PhysAddr::new(frame as u64)),
            _ => Err(OutOfFrames { order }),
        }
    }

    #[inline]
    unsafe fn free(&self, pa: PhysAddr, _: u8) {
        // SAFETY: the caller's; blocks are frames.
        unsafe { give(pa.as_u64() as usize) };
    }
}

/// How many tables link a node besides one, for the first frames of all; it is 0 again when a node is
/// given back.
static SHARERS: [AtomicU32; 1 << 24] = [const { AtomicU32::new(0) }; 1 << 24];

// SAFETY: there is one source and one mapping, and every handle is of them. Each frame has a count of
// its own, which nobody but tables writes.
unsafe impl Memory for Ram {
    unsafe fn sharers(&self, block: PhysAddr) -> Option<&AtomicU32> {
        SHARERS.get((block.as_u64() / PAGE_SIZE) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_dirty_and_in_the_same_order() {
        let all = || [(); 3].map(|()| take().unwrap());
        let first = all();
        // SAFETY: taken above, and each is given back once.
        unsafe {
            pointer(first[1]).as_ptr().add(100).write(0x5a);
            first.into_iter().for_each(|frame| give(frame));
        }
        rewind();
        let second = all();
        assert_eq!(first, second);
        // SAFETY: as above.
        unsafe {
            assert_eq!(pointer(second[1]).as_ptr().add(100).read(), 0x5a);
            second.into_iter().for_each(|frame| give(frame));
        }
        assert_eq!(frames_in_use(), 0);
    }

    #[test]
    #[should_panic = "nobody has freed"]
    fn a_leaked_frame_is_noticed() {
        assert!(take().is_some());
        rewind();
    }

    #[test]
    fn what_is_given_back_is_taken_first() {
        let [a, b] = [(); 2].map(|()| take().unwrap());
        // SAFETY: taken above.
        unsafe { give(a) };
        assert_eq!(take(), Some(a));
        // SAFETY: taken above.
        unsafe { [a, b].into_iter().for_each(|frame| give(frame)) };
    }
}
