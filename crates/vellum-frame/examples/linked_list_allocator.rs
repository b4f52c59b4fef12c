//! A heap of `linked_list_allocator` that grows over frames.
//!
//! ```text
//!   heap 0   [============|+++++|     extend: the frames behind its end were free
//!   heap 1                      X  [======|+++       they were not: a new heap elsewhere
//! ```
//!
//! That crate's `Heap` grows at its end alone, so growth needs the very frames that lie behind it:
//! `alloc_at` takes exactly those. Where somebody has them, the next heap begins in a new block.
//! Without the second half (one heap, `extend` or fail) the heap ends at the first frame behind it
//! that a page table took: start it in a large block then, or better, map it in a range of virtual
//! addresses of its own, where any frame can follow any other.
//!
//! Copy [`Heaps`] and put `#[global_allocator]` above a static of it; make `direct` and `physical`
//! those of your direct map. Such a heap never gives frames back; talc does (see `talc.rs`).
//!
//! Locks: the heap's lock is held while frames are taken. The frame allocator has no lock and never
//! calls the heap. A handler that interrupts the heap must not use the heap, unless interrupts are
//! off while it is locked.
//!
//! `main` does it on the host: `cargo run -p vellum-frame --example linked_list_allocator`.

#[path = "host/ram.rs"]
mod ram;

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use linked_list_allocator::Heap;
use spin::Mutex;
use vellum_core::{OutOfFrames, PAGE_SIZE, PhysAddr};
use vellum_frame::FrameAllocator;

static FRAMES: FrameAllocator<'static> = FrameAllocator::new();

static HEAP: Heaps<8> = Heaps(Mutex::new([const { Heap::empty() }; 8]));

/// Up to `N` heaps, the last one that is not empty being the one that grows.
struct Heaps<const N: usize>(Mutex<[Heap; N]>);

/// A heap grows by at least 64 KiB: this many frames, or this order.
const GROWTH: u64 = 16;

// SAFETY: a block comes from the one heap that has its address, and goes back there; heaps consist
// of frames that were allocated for them alone.
unsafe impl<const N: usize> GlobalAlloc for Heaps<N> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut heaps = self.0.lock();
        loop {
            let found = heaps.iter_mut().find_map(|heap| heap.allocate_first_fit(layout).ok());
            if let Some(block) = found {
                return block.as_ptr();
            }
            if grow(&mut *heaps, layout).is_err() {
                return ptr::null_mut();
            }
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let mut heaps = self.0.lock();
        let heap = heaps.iter_mut().find(|heap| (heap.bottom()..heap.top()).contains(&block));
        if let (Some(heap), Some(block)) = (heap, NonNull::new(block)) {
            // SAFETY: the caller's promise, and the block lies in this heap.
            unsafe { heap.deallocate(block, layout) };
        }
    }
}

/// Makes room for at least one block of `layout`: at the end of the last heap, or in a new one.
fn grow(heaps: &mut [Heap], layout: Layout) -> Result<(), OutOfFrames> {
    // Beside the block itself, its alignment and the list's own two words in front and behind.
    let bytes = layout.size().saturating_add(layout.align() + 64) as u64;
    let count = bytes.div_ceil(PAGE_SIZE).max(GROWTH);
    let used = heaps.iter().take_while(|heap| !heap.bottom().is_null()).count();
    if let Some(last) = heaps[..used].last_mut() {
        // All sizes are whole frames, so the end of a heap is the start of a frame.
        let behind = physical(last.top());
        if take_run(behind, count) {
            // SAFETY: these frames lie right behind the heap, and are ours from now on.
            unsafe { last.extend((count * PAGE_SIZE) as usize) };
            return Ok(());
        }
    }
    let order = count.next_power_of_two().trailing_zeros() as u8;
    let fresh = heaps.get_mut(used).ok_or(OutOfFrames { order })?;
    let block = FRAMES.alloc(order)?;
    // SAFETY: the heap is empty, and the block is ours from now on.
    unsafe { fresh.init(direct(block), (PAGE_SIZE as usize) << order) };
    Ok(())
}

/// Takes `count` frames from `first` on, or none.
fn take_run(first: PhysAddr, count: u64) -> bool {
    let frame = |i| first.wrapping_add(i * PAGE_SIZE);
    let taken = (0..count).take_while(|&i| FRAMES.alloc_at(frame(i), 0).is_ok()).count() as u64;
    if taken < count {
        for i in 0..taken {
            // SAFETY: taken right above, and touched by nobody.
            let freed = unsafe { FRAMES.free(frame(i), 0) };
            debug_assert_eq!(freed, Ok(()));
        }
    }
    taken == count
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
    let in_use = || HEAP.0.lock().iter().filter(|heap| !heap.bottom().is_null()).count();

    let mut blocks = Vec::new();
    let mut allocate = |bytes: usize, tag: u8| {
        let layout = Layout::from_size_align(bytes, 16).expect("a layout");
        // SAFETY: the size is not 0; the block is as large as asked for.
        unsafe {
            let block = HEAP.alloc(layout);
            if block.is_null() {
                return false;
            }
            block.write_bytes(tag, bytes);
            blocks.push((block, layout, tag));
        }
        true
    };
    for i in 0..100 {
        assert!(allocate(5000, i));
    }
    assert_eq!(in_use(), 1, "nobody else takes frames, so the one heap grows");

    // A page table takes the frame behind the heap, and growth goes on elsewhere.
    let behind = physical(HEAP.0.lock()[0].top());
    FRAMES.alloc_at(behind, 0).expect("the frame behind the heap is free");
    for i in 100..200 {
        assert!(allocate(5000, i));
    }
    assert_eq!(in_use(), 2);
    assert!(allocate(1 << 20, 200), "more than one step of growth");
    let before = FRAMES.stats().free;
    assert!(!allocate(64 << 20, 201), "more than there is");
    assert_eq!(FRAMES.stats().free, before, "what failed took nothing");

    let count = blocks.len();
    for (block, layout, tag) in blocks {
        // SAFETY: allocated above with this layout, and freed once.
        unsafe {
            let bytes = core::slice::from_raw_parts(block, layout.size());
            let same = bytes[0] == tag && bytes[1..] == bytes[..bytes.len() - 1];
            assert!(same, "block {tag} has foreign bytes");
            HEAP.dealloc(block, layout);
        }
    }
    assert_eq!(HEAP.0.lock().iter().map(Heap::used).sum::<usize>(), 0);
    assert!(FRAMES.stats().free < total, "the frames stay with the heap");
    ram::say(format_args!(
        "{count} blocks in {} heaps of {} bytes together; {} of {total} frames are free",
        in_use(),
        HEAP.0.lock().iter().map(Heap::size).sum::<usize>(),
        FRAMES.stats().free
    ));
}

#[test]
fn the_heap_grows_over_frames_wherever_they_are() {
    main();
}
