//! Memory for all tables, ours and the peers': one mapping with huge pages, blocks of any order.
//!
//! ```text
//!   Ram     Memory of our tables:     pointer = BASE | pa, a constant
//!   Large   allocator of the program: 64 KiB and more from the same blocks, less from the system
//!
//!   pa   2 MiB                                  64 GiB          1 TiB
//!        |####################....             |                | DATA: mapped by entries, never
//!                             ^ next                              touched
//!        free[order]: lists through the first words of blocks
//! ```
//!
//! A block that was given back serves the next request of its order, and is never split or merged;
//! so from the second turn on nobody waits for the system to find memory and to zero it, whichever
//! table it is for, and no table has larger pages of the host's than another.
//!
//! # Invariants
//!
//! - A block is below `next` and in its list, below `next` and handed out, or not below `next`.
//! - Everything below `next` is mapped, for as long as the process lives.

use core::alloc::{GlobalAlloc, Layout};
use core::num::NonZeroUsize;
use core::ptr::{NonNull, null_mut, with_exposed_provenance_mut};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};
use spin::Mutex;
use std::alloc::System;
use vellum_core::{FrameSource, Memory, OutOfFrames, PAGE_SHIFT, PhysAddr, PhysMap};

/// Where physical address 0 would be: above the memory of `radix`, and where valgrind has nothing.
const BASE: usize = 6 << 40;
/// Bytes of the mapping; what is not touched costs nothing.
const ZONE: usize = 64 << 30;
/// The first block lies here, so that no block has address 0.
const FIRST: usize = 2 << 20;
/// Orders that there are lists for.
const ORDERS: usize = 24;
/// From so many bytes on the allocator of the program takes blocks.
const LEAST: usize = 64 << 10;
/// Physical addresses from here on are mapped by entries, and have no memory.
pub const DATA: u64 = 1 << 40;

static STATE: Mutex<State> = Mutex::new(State { next: 0, free: [0; ORDERS] });

struct State {
    /// 0 before the zone is mapped.
    next: usize,
    /// The first block of each list, or 0.
    free: [usize; ORDERS],
}

impl State {
    fn take(&mut self, order: usize) -> Option<usize> {
        let first = *self.free.get(order)?;
        if first != 0 {
            // SAFETY: a block of the list is nobody's, so its first word is the list's.
            self.free[order] = unsafe { pointer(first).cast::<usize>().read() };
            return Some(first);
        }
        if self.next == 0 {
            open();
            self.next = FIRST;
        }
        let bytes = 1 << (order + usize::from(PAGE_SHIFT));
        let block = self.next.checked_next_multiple_of(bytes)?;
        let end = block.checked_add(bytes).filter(|&end| end <= ZONE)?;
        self.next = end;
        Some(block)
    }

    /// # Safety
    ///
    /// `take` handed out the block at this order, and nobody uses it any more.
    unsafe fn give(&mut self, block: usize, order: usize) {
        if let Some(first) = self.free.get_mut(order) {
            // SAFETY: it was handed out, so it is mapped, and it is nobody's now.
            unsafe { pointer(block).cast::<usize>().write(*first) };
            *first = block;
        }
    }
}

/// Where the byte of a physical address is; of an address without memory, anywhere.
#[inline(always)]
fn pointer(pa: usize) -> NonNull<u8> {
    // Never 0, and the compiler sees it.
    NonNull::with_exposed_provenance(NonZeroUsize::new(BASE | pa).unwrap_or(NonZeroUsize::MIN))
}

/// Maps the zone.
///
/// # Panics
///
/// When the system refuses: a bench without memory has nothing to measure.
fn open() {
    let wanted = with_exposed_provenance_mut(BASE);
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
    // SAFETY: the mapping replaces none.
    match unsafe { mmap_anonymous(wanted, ZONE, protection, flags) } {
        Ok(start) if start.expose_provenance() == BASE => {
            // SAFETY: the mapping from above. A refusal costs TLB misses, everybody's alike.
            let _ = unsafe { madvise(start, ZONE, Advice::LinuxHugepage) };
        }
        other => panic!("cannot map {ZONE} bytes at {wanted:?}: {other:?}"),
    }
}

/// The handle that our tables have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ram;

// SAFETY: a block that was handed out is mapped at `BASE | pa` for good, and exposed; the constant
// is a multiple of the zone's size, so that offsets and alignment carry over.
unsafe impl PhysMap for Ram {
    #[inline(always)]
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        f(pointer(pa.as_u64() as usize))
    }
}

// SAFETY: a block is aligned to its size, and is handed out once until it is given back.
unsafe impl FrameSource for Ram {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let block = STATE.lock().take(order.into()).ok_or(OutOfFrames { order })?;
        Ok(PhysAddr::new(block as u64))
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller's.
        unsafe { STATE.lock().give(pa.as_u64() as usize, order.into()) };
    }
}

// SAFETY: there is one source and one mapping, and every handle is of them.
unsafe impl Memory for Ram {}

/// An allocator that has large blocks from there, and small ones from the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Large;

/// The order of the block for a layout; `None`: the system's.
fn order(layout: Layout) -> Option<usize> {
    let bytes = layout.size().max(layout.align());
    (bytes >= LEAST).then(|| bytes.next_power_of_two().ilog2() as usize - usize::from(PAGE_SHIFT))
}

// SAFETY: which of the two has a block is a matter of its layout alone, so it goes back to where it
// came from; blocks are as large as the layout, aligned to their size, and mapped.
unsafe impl GlobalAlloc for Large {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match order(layout) {
            Some(order) => {
                STATE.lock().take(order).map_or(null_mut(), |block| pointer(block).as_ptr())
            }
            // SAFETY: the caller's.
            None => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match order(layout) {
            // SAFETY: the caller's; the block's address is `BASE` and the number that `take` gave.
            Some(order) => unsafe { STATE.lock().give(block.expose_provenance() & !BASE, order) },
            // SAFETY: the caller's.
            None => unsafe { System.dealloc(block, layout) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_apart_and_come_back() {
        let [a, b] = [3, 5].map(|order| Ram.alloc(order).unwrap());
        assert!(a.as_u64() % (8 << 12) == 0 && b.as_u64() % (32 << 12) == 0);
        assert!(a.as_u64() + (8 << 12) <= b.as_u64() || b.as_u64() + (32 << 12) <= a.as_u64());
        // SAFETY: allocated above.
        unsafe {
            Ram.free(b, 5);
            Ram.free(a, 3);
        }
        assert_eq!(Ram.alloc(40), Err(OutOfFrames { order: 40 }));
    }

    #[test]
    fn large_layouts_have_blocks_and_small_ones_the_system() {
        for (bytes, large) in [(100, false), (LEAST, true), (LEAST + 1, true)] {
            let layout = Layout::from_size_align(bytes, 8).unwrap();
            // SAFETY: the size is not 0; all of the block is written, and it goes back as it came.
            unsafe {
                let block = Large.alloc(layout);
                block.write_bytes(0x5a, bytes);
                let inside = (BASE..BASE + ZONE).contains(&block.expose_provenance());
                assert_eq!(inside, large, "{bytes}");
                Large.dealloc(block, layout);
            }
        }
        let layout = |bytes| Layout::from_size_align(bytes, 8).unwrap();
        assert_eq!([LEAST, LEAST + 1].map(|bytes| order(layout(bytes))), [Some(4), Some(5)]);
    }
}
