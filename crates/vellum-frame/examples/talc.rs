//! A talc heap that grows over frames, and gives blocks back that have become empty.
//!
//! ```text
//!   alloc --> HEAP (locked): talc --> no room --> Frames::acquire --> FRAMES.alloc(order) --> claim
//!   free  --> HEAP (locked): talc --> the last of a block --> Frames::resize --> FRAMES.free
//! ```
//!
//! Copy [`Frames`] and [`HEAP`], put `#[global_allocator]` above `HEAP`, and make `direct` and
//! `physical` those of your direct map. Frames must lie within it, or be mapped first.
//!
//! Locks: the heap's lock is held while frames are taken. The frame allocator has no lock and never
//! calls the heap, so there is no order to keep; but a handler that interrupts the heap must not
//! use the heap, unless interrupts are off while it is locked. Frames it may take at any time.
//!
//! `main` does it on the host: `cargo run -p vellum-frame --example talc`.

#[path = "host/ram.rs"]
mod ram;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use talc::base::{Talc, binning::Binning};
use talc::{TalcLock, min_first_heap_size, source::Source};
use vellum_core::{PAGE_SHIFT, PAGE_SIZE, PhysAddr};
use vellum_frame::FrameAllocator;

static FRAMES: FrameAllocator<'static> = FrameAllocator::new();

/// `TalcLock` takes any lock of `lock_api`; this one is `spin`'s.
static HEAP: TalcLock<spin::Mutex<()>, Frames> = TalcLock::new(Frames);

/// Where talc's memory comes from: blocks of [`FRAMES`], each of them a heap of its own to talc.
#[derive(Debug)]
struct Frames;

/// A block has at least so many frames, if there are: 256 KiB, so that growing is rare.
const GROWTH: u8 = 6;

// SAFETY: `acquire` and `resize` reach neither `HEAP` nor anything that allocates from it.
unsafe impl Source for Frames {
    fn acquire<B: Binning>(talc: &mut Talc<Self, B>, layout: Layout) -> Result<(), ()> {
        // What talc needs besides: its own lists in the first block, and a chunk at each end.
        let bytes = layout.size().checked_add(layout.align()).ok_or(())?;
        let bytes = bytes.checked_add(min_first_heap_size::<B>() + 128).ok_or(())?;
        let needed = bytes.div_ceil(PAGE_SIZE as usize).next_power_of_two().trailing_zeros() as u8;
        let block = [GROWTH.max(needed), needed]
            .into_iter()
            .find_map(|order| FRAMES.alloc(order).ok().map(|pa| (pa, order)));
        let (pa, order) = block.ok_or(())?;
        // SAFETY: the block was just allocated, and is mapped: nobody else uses it.
        let claimed = unsafe { talc.claim(direct(pa), (PAGE_SIZE as usize) << order) };
        claimed.map(|_end| ()).ok_or(())
    }

    /// Be told when what is free reaches the end of a block.
    const TRACK_HEAP_END: bool = true;

    unsafe fn resize(&mut self, chunk_base: *mut u8, end: *mut u8, is_heap_base: bool) -> *mut u8 {
        if !is_heap_base {
            return end; // part of the block is in use, or it is the first, with talc's own lists
        }
        // The chunk begins a few bytes into the block: no block is smaller than a frame.
        let first = chunk_base.map_addr(|at| (at - 1) & !(PAGE_SIZE as usize - 1));
        let frames = (end.addr() - first.addr()) >> PAGE_SHIFT;
        // SAFETY: talc has no use for the block any more: `chunk_base` as the new end says so. It
        // was claimed whole, as a power of two of frames, and never grew.
        let freed = unsafe { FRAMES.free(physical(first), frames.trailing_zeros() as u8) };
        if freed.is_ok() { chunk_base } else { end }
    }
}

/// The direct map.
fn direct(pa: PhysAddr) -> *mut u8 {
    ram::direct(pa.as_u64())
}

/// The other way round.
fn physical(pointer: *mut u8) -> PhysAddr {
    PhysAddr::new((pointer.addr() - ram::direct(0).addr()) as u64)
}

fn main() {
    // SAFETY: that memory is used by nobody else, and is mapped for good.
    unsafe { FRAMES.init([(0, ram::BYTES)], [(0, 0x10_0000)], |pa, _| NonNull::new(direct(pa))) }
        .expect("the map has frames");
    let total = FRAMES.stats().free;

    // Four thousand objects of 8 bytes to 2 KiB, each filled with a byte of its own.
    let layout = |i: usize| Layout::from_size_align(8 + i * 61 % 2041, 8 << (i % 3));
    let mut objects = Vec::new();
    for i in 0..4000 {
        let layout = layout(i).expect("small and aligned to a power of two");
        // SAFETY: no layout has size 0; the object is as large as asked for.
        unsafe {
            let object = HEAP.alloc(layout);
            assert!(!object.is_null(), "{} frames are free", FRAMES.stats().free);
            object.write_bytes(i as u8, layout.size());
            objects.push((object, layout, i as u8));
        }
    }
    let grown = FRAMES.stats().free;
    assert!(total - grown >= 4000 * 1024 / PAGE_SIZE, "objects take {} frames", total - grown);

    // What no block is large enough for fails, and changes nothing.
    let huge = Layout::from_size_align(64 << 20, 8).expect("a layout");
    // SAFETY: its size is not 0.
    assert!(unsafe { HEAP.alloc(huge) }.is_null());
    assert_eq!(FRAMES.stats().free, grown);

    let count = objects.len();
    for (object, layout, i) in objects {
        // SAFETY: allocated above with this layout, and freed once.
        unsafe {
            let bytes = core::slice::from_raw_parts(object, layout.size());
            let same = bytes[0] == i && bytes[1..] == bytes[..bytes.len() - 1];
            assert!(same, "object {i} was written by somebody else");
            HEAP.dealloc(object, layout);
        }
    }
    // Only the first block is left, which holds talc's lists.
    assert_eq!(FRAMES.stats().free, total - (1 << GROWTH));
    ram::say(format_args!(
        "{count} objects took {} frames; freed, the heap keeps {} and {} of {total} are free",
        total - grown,
        total - FRAMES.stats().free,
        FRAMES.stats().free
    ));
}

#[test]
fn the_heap_grows_over_frames_and_gives_them_back() {
    main();
}
