//! The adapters under the mappers of the `x86_64` crate, which map real tables in a host buffer.

use super::X86Frames;
use crate::{FrameAllocator, Shared, Stats};
use ::x86_64::VirtAddr;
use ::x86_64::structures::paging::mapper::{
    CleanUp, MapToError, MappedPageTable, Mapper, PageTableFrameMapping, Translate,
};
use ::x86_64::structures::paging::{
    FrameAllocator as _, FrameDeallocator as _, Page, PageSize, PageTable, PageTableFlags,
    PhysFrame, Size1GiB, Size2MiB, Size4KiB,
};
use core::sync::atomic::AtomicU64;
use std::vec::Vec;
use vellum_core::{PAGE_SIZE, PhysAddr, PhysMap};
use vellum_testkit::Arena;

const NOTHING: [(u64, u64); 0] = [];
const FLAGS: PageTableFlags = PageTableFlags::PRESENT.union(PageTableFlags::WRITABLE);

/// Storage for an allocator over memory of which no byte exists.
fn storage(usable: &[(u64, u64)]) -> Vec<AtomicU64> {
    let words = FrameAllocator::words_needed(usable, NOTHING);
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

fn over<'m>(storage: &'m [AtomicU64], usable: &[(u64, u64)]) -> FrameAllocator<'m> {
    let frames = FrameAllocator::new();
    // SAFETY: there is no such memory, and `storage` is the test's own.
    unsafe { frames.init_in(storage, usable, NOTHING) }.expect("a map with frames");
    frames
}

fn take<P: PageSize>(frames: &FrameAllocator<'_>) -> Option<PhysFrame<P>> {
    X86Frames(frames).allocate_frame()
}

/// Gives back what nobody uses.
fn give<P: PageSize>(frames: &FrameAllocator<'_>, frame: PhysFrame<P>) {
    // SAFETY: the tests touch no frame of such allocators.
    unsafe { X86Frames(frames).deallocate_frame(frame) }
}

#[test]
fn each_size_takes_and_returns_as_many_frames_as_it_has() {
    let map = [(0x10_0000, 3 << 30)];
    let storage = storage(&map);
    let frames = over(&storage, &map);
    let before = frames.stats();
    let (small, large) = (take::<Size4KiB>(&frames), take::<Size2MiB>(&frames));
    let giant = take::<Size1GiB>(&frames);
    let (Some(small), Some(large), Some(giant)) = (small, large, giant) else {
        panic!("one of {small:?}, {large:?}, {giant:?} is missing");
    };
    let taken = 1 + 512 + 512 * 512;
    assert_eq!(frames.stats().free, before.free - taken);
    // A second block of 1 GiB fits as well; a third cannot, for 1 MiB is missing from the first.
    let other = take::<Size1GiB>(&frames);
    let other = other.expect("there are two aligned blocks of 1 GiB");
    assert_ne!(giant, other);
    assert_eq!(take::<Size1GiB>(&frames), None);
    give(&frames, small);
    give(&frames, large);
    give(&frames, giant);
    give(&frames, other);
    assert_eq!(frames.stats(), before);
}

#[test]
fn a_frame_that_no_entry_can_hold_is_not_dealt_out_and_not_lost() {
    let limit = 1 << 52;
    let high = [(limit, limit + (4 << 20))];
    let space = storage(&high);
    let frames = over(&space, &high);
    let before = frames.stats();
    assert_eq!(take::<Size4KiB>(&frames), None);
    assert_eq!(take::<Size2MiB>(&frames), None);
    assert_eq!(frames.stats(), before);

    let last = [(limit - PAGE_SIZE, limit)];
    let space = storage(&last);
    let frames = over(&space, &last);
    let frame = take::<Size4KiB>(&frames).expect("the last frame that an entry can hold");
    assert_eq!(frame.start_address().as_u64(), limit - PAGE_SIZE);
}

#[test]
fn frames_of_somebody_else_are_left_alone() {
    let map = [(0x10_0000, 0x20_0000), (0x30_0000, 0x40_0000)];
    let storage = storage(&map);
    let frames = over(&storage, &map);
    let before = frames.stats();
    for pa in [0, 0x20_0000, 0x40_0000, 1 << 40] {
        let frame = PhysFrame::<Size4KiB>::containing_address(::x86_64::PhysAddr::new(pa));
        give(&frames, frame);
    }
    assert_eq!(frames.stats(), before);
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "DoubleFree"))]
fn a_double_free_panics_in_debug_builds_and_changes_nothing_in_others() {
    let map = [(0x10_0000, 0x20_0000)];
    let storage = storage(&map);
    let frames = over(&storage, &map);
    let before = frames.stats();
    let frame = take::<Size4KiB>(&frames).expect("there are frames");
    give(&frames, frame);
    give(&frames, frame);
    assert_eq!(frames.stats(), before);
}

/// A mapping from frames to the arena that keeps provenance, which an offset cannot.
struct Ram<'a>(&'a Arena);

// SAFETY: the arena gives the same bytes for a frame at each call.
unsafe impl PageTableFrameMapping for Ram<'_> {
    fn frame_to_pointer(&self, frame: PhysFrame) -> *mut PageTable {
        let pa = PhysAddr::new(frame.start_address().as_u64());
        self.0.with(pa, |bytes| bytes.cast().as_ptr())
    }
}

/// RAM with an allocator over it, whose metadata lies in it too.
fn machine(arena: &Arena) -> FrameAllocator<'_> {
    let first = arena.first().as_u64() * PAGE_SIZE;
    let usable = [(first, first + arena.count_frames() * PAGE_SIZE)];
    let frames = FrameAllocator::new();
    // SAFETY: the arena's memory is used by this allocator alone, and is one allocation.
    unsafe { frames.init(usable, NOTHING, |pa, _| Some(arena.with(pa, |bytes| bytes))) }
        .expect("a map with frames");
    frames
}

/// An empty table in a frame of its own.
fn empty_table(arena: &Arena, frames: &FrameAllocator<'_>) -> (PhysFrame, *mut PageTable) {
    let frame = take::<Size4KiB>(frames).expect("a frame for the root");
    let table = Ram(arena).frame_to_pointer(frame);
    // SAFETY: the frame is this table's alone, and is aligned and large enough for it.
    unsafe { table.write(PageTable::new()) };
    (frame, table)
}

/// Far from each other: no two of them share a table but the root.
fn pages() -> impl Iterator<Item = Page<Size4KiB>> {
    (0..4).map(|i| Page::containing_address(VirtAddr::new(0x1000 + (i << 40))))
}

#[test]
fn a_mapper_maps_translates_unmaps_and_gives_every_table_back() {
    let arena = Arena::new(64);
    let frames = machine(&arena);
    let before = frames.stats();
    let (root, table) = empty_table(&arena, &frames);
    // SAFETY: the root is an empty table of its own, and every frame of the allocator lies in
    // the arena.
    let mut mapper = unsafe { MappedPageTable::new(&mut *table, Ram(&arena)) };
    let mut handle = X86Frames(&frames);
    for page in pages() {
        let frame = handle.allocate_frame().expect("a frame to map");
        // SAFETY: the frame is new, and no CPU uses this table.
        unsafe { mapper.map_to(page, frame, FLAGS, &mut handle) }.expect("it maps").ignore();
        assert_eq!(
            mapper.translate_addr(page.start_address() + 5),
            Some(frame.start_address() + 5)
        );
    }
    // The root, and for each page its frame and three tables.
    assert_eq!(frames.stats().free, before.free - 1 - 4 * 4);
    for page in pages() {
        let (frame, flush) = mapper.unmap(page).expect("it was mapped");
        flush.ignore();
        give(&frames, frame);
        assert_eq!(mapper.translate_addr(page.start_address()), None);
    }
    // SAFETY: no CPU uses these tables, and no two entries share one.
    unsafe { mapper.clean_up(&mut handle) };
    give(&frames, root);
    assert_eq!(frames.stats(), before);
}

#[test]
fn huge_pages_are_mapped_from_blocks_of_their_size() {
    let arena = Arena::at(PhysAddr::new(2 << 20), 4 * 512);
    let frames = machine(&arena);
    let (_, table) = empty_table(&arena, &frames);
    // SAFETY: as above.
    let mut mapper = unsafe { MappedPageTable::new(&mut *table, Ram(&arena)) };
    let mut handle = X86Frames(&frames);
    let frame = handle.allocate_frame().expect("2 MiB are free");
    let page = Page::<Size2MiB>::containing_address(VirtAddr::new(0x4000_0000));
    // SAFETY: the block is new, and no CPU uses this table.
    unsafe { mapper.map_to(page, frame, FLAGS, &mut handle) }.expect("it maps").ignore();
    let far = 0x1f_f123;
    assert_eq!(
        mapper.translate_addr(page.start_address() + far),
        Some(frame.start_address() + far)
    );
}

#[test]
fn without_frames_a_mapping_fails_and_keeps_the_table_usable() {
    let arena = Arena::new(16);
    let frames = machine(&arena);
    let (_, table) = empty_table(&arena, &frames);
    // SAFETY: as above.
    let mut mapper = unsafe { MappedPageTable::new(&mut *table, Ram(&arena)) };
    let mut handle = X86Frames(&frames);
    let frame = handle.allocate_frame().expect("a frame to map");
    let page = Page::<Size4KiB>::containing_address(VirtAddr::new(0x1000));
    let held: Vec<PhysFrame> = core::iter::from_fn(|| handle.allocate_frame()).collect();
    assert_eq!(frames.stats().free, 0);
    // SAFETY: the frame is new, and no CPU uses this table.
    let full = unsafe { mapper.map_to(page, frame, FLAGS, &mut handle) };
    assert!(matches!(full, Err(MapToError::FrameAllocationFailed)), "{full:?}");
    for frame in held {
        give(&frames, frame);
    }
    // SAFETY: as above.
    unsafe { mapper.map_to(page, frame, FLAGS, &mut handle) }.expect("it maps now").ignore();
    assert_eq!(mapper.translate_addr(page.start_address()), Some(frame.start_address()));
}

#[test]
fn a_cpus_cache_and_an_exclusive_hold_give_frames_as_well() {
    let map = [(0x10_0000, 0x80_0000)];
    let storage = storage(&map);
    let mut frames = over(&storage, &map);
    let before = frames.stats();
    {
        let shared = Shared::<1>::new(&frames);
        // SAFETY: this thread is the only CPU.
        let cpu = unsafe { shared.on(0) };
        let mut handle = X86Frames(&cpu);
        let frame: PhysFrame = handle.allocate_frame().expect("there are frames");
        // SAFETY: allocated above, and never touched.
        unsafe { handle.deallocate_frame(frame) };
    }
    assert_eq!(frames.stats(), before);
    {
        let hold = frames.exclusive();
        let mut handle = X86Frames(&hold);
        let frame: PhysFrame<Size2MiB> = handle.allocate_frame().expect("there is a block");
        // SAFETY: allocated above, and never touched.
        unsafe { handle.deallocate_frame(frame) };
    }
    assert_eq!(frames.stats(), before);
}

#[test]
fn copies_of_a_handle_speak_of_one_allocator() {
    static FRAMES: FrameAllocator<'static> = FrameAllocator::new();
    static HANDLE: X86Frames<'static> = X86Frames(&FRAMES);
    let (mut one, mut other) = (HANDLE, HANDLE);
    let frame: Option<PhysFrame> = one.allocate_frame();
    assert_eq!(frame, None, "there are no frames before `init`");
    let frame: Option<PhysFrame<Size1GiB>> = other.allocate_frame();
    assert_eq!(frame, None);
    assert_eq!(FRAMES.stats(), Stats::default());
}
