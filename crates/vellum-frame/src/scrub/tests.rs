//! Scrubbing over real bytes: frames of a [`FrameAllocator`] in the memory of an arena.

use super::{Corruption, POISON, Policy, Scrub};
use crate::FrameAllocator;
use core::cell::RefCell;
use core::panic::AssertUnwindSafe;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use proptest::prelude::*;
use proptest::sample::Index;
use std::panic::catch_unwind;
use std::vec::Vec;
use vellum_core::{FrameSource, Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysMap};
use vellum_testkit::Arena;

const POLICIES: [Policy; 5] =
    [Policy::Off, Policy::ZeroOnAlloc, Policy::ZeroOnFree, Policy::ZeroAndCheck, Policy::Poison];

/// The arena's own allocator fills frames, so its bytes are dealt out by one that does not.
#[derive(Clone, Copy, PartialEq)]
struct Ram<'a> {
    arena: &'a Arena,
    frames: &'a FrameAllocator<'a>,
}

// SAFETY: the arena's.
unsafe impl PhysMap for Ram<'_> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        self.arena.with(pa, f)
    }
}

// SAFETY: the allocator's.
unsafe impl FrameSource for Ram<'_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        self.frames.alloc(order)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller's promise.
        assert_eq!(unsafe { self.frames.free(pa, order) }, Ok(()));
    }
}

// SAFETY: `with_ram` gives the allocator the arena's frames and no others.
unsafe impl Memory for Ram<'_> {}

/// Bytes of `frames` frames.
const fn bytes(frames: u64) -> u64 {
    frames << PAGE_SHIFT
}

/// What every byte holds before anybody has scrubbed: as a boot loader leaves it.
const LEFT: u8 = 0x77;

fn with_ram<T>(count: u64, f: impl FnOnce(Ram<'_>) -> T) -> T {
    let arena = Arena::new(count as usize);
    let first = arena.first().addr();
    for index in 0..count {
        let frame = first.wrapping_add(bytes(index));
        // SAFETY: a frame of the arena that nobody has been given.
        arena.with(frame, |p| unsafe { p.write_bytes(LEFT, PAGE_SIZE as usize) });
    }
    let usable = [(first.as_u64(), first.as_u64() + bytes(count))];
    let words = FrameAllocator::words_needed(usable, [(0, 0); 0]);
    let room: Vec<AtomicU64> = (0..words).map(|_| AtomicU64::new(0)).collect();
    let frames = FrameAllocator::new();
    // SAFETY: nobody takes frames from the arena itself, and nobody writes to `room`.
    unsafe { frames.init_in(&room, usable, [(0, 0); 0]) }.expect("there are frames");
    f(Ram { arena: &arena, frames: &frames })
}

fn read(ram: &impl PhysMap, pa: PhysAddr) -> u8 {
    // SAFETY: an initialised byte of the arena; no other thread is here.
    ram.with(pa, |p| unsafe { p.read() })
}

fn write(ram: &impl PhysMap, pa: PhysAddr, byte: u8) {
    // SAFETY: a byte of the arena; no other thread is here.
    ram.with(pa, |p| unsafe { p.write(byte) });
}

/// Calls `f` for each frame of a block, with its bytes.
fn each(ram: &impl PhysMap, pa: PhysAddr, order: u8, mut f: impl FnMut(&mut [u8])) {
    for index in 0..1 << order {
        ram.with(pa.wrapping_add(bytes(index)), |p| {
            // SAFETY: the initialised bytes of a frame of the arena, which only this thread reaches.
            f(unsafe { NonNull::slice_from_raw_parts(p, PAGE_SIZE as usize).as_mut() });
        });
    }
}

/// Whether all bytes of a block are `byte`.
fn all(ram: &impl PhysMap, pa: PhysAddr, order: u8, byte: u8) -> bool {
    let mut all = true;
    each(ram, pa, order, |frame| all &= frame == [byte; PAGE_SIZE as usize]);
    all
}

/// Writes to each frame of a block, all over it (under Miri, to its start).
fn scribble(ram: &impl PhysMap, pa: PhysAddr, order: u8) {
    let len = if cfg!(miri) { 64 } else { PAGE_SIZE as usize };
    each(ram, pa, order, |frame| {
        (0..).zip(&mut frame[..len]).for_each(|(at, byte)| *byte = at as u8 | 1)
    });
}

std::thread_local! {
    static REPORTS: RefCell<Vec<Corruption>> = const { RefCell::new(Vec::new()) };
}

fn note(found: Corruption) {
    REPORTS.with_borrow_mut(|reports| reports.push(found));
}

fn reports() -> Vec<Corruption> {
    REPORTS.take()
}

#[test]
fn each_policy_gives_what_it_says() {
    for policy in POLICIES {
        for order in [0, 2] {
            with_ram(8, |ram| {
                let memory = Scrub::new(ram, policy);
                let primed = memory.prime();
                let pa = memory.alloc(order).expect("it fits");
                scribble(&memory, pa, order);
                // SAFETY: allocated above, and given back once.
                unsafe { memory.free(pa, order) };
                let (freed, given) = match policy {
                    Policy::Off => (None, None),
                    Policy::ZeroOnAlloc => (None, Some(0)),
                    Policy::ZeroOnFree | Policy::ZeroAndCheck => (Some(0), Some(0)),
                    Policy::Poison => (Some(POISON), Some(POISON)),
                };
                assert_eq!(primed, if freed.is_some() { 8 } else { 0 }, "{policy:?}");
                if let Some(byte) = freed {
                    assert!(all(&ram, ram.arena.first().addr(), 3, byte), "{policy:?}");
                } else {
                    assert_eq!(read(&ram, pa.wrapping_add(2)), 3, "{policy:?} left it alone");
                }
                let again = memory.alloc(order).expect("it was freed");
                assert_eq!(again, pa, "the block under test");
                if let Some(byte) = given {
                    assert!(all(&memory, pa, order, byte), "{policy:?}");
                }
                assert_eq!(policy.gives_zeros(), given == Some(0));
                let zeroed = memory.alloc_zeroed(order).expect("it fits");
                assert!(all(&memory, zeroed, order, 0), "{policy:?}");
                assert!(reports().is_empty());
            });
        }
    }
}

#[test]
fn priming_a_broken_memory_gives_all_of_it_back() {
    with_ram(if cfg!(miri) { 11 } else { 777 }, |ram| {
        let total = ram.frames.stats().total;
        let held: Vec<_> = (0..8).map(|_| ram.alloc(0).expect("a frame")).collect();
        for &pa in held.iter().step_by(2) {
            // SAFETY: allocated above, and every second one is given back once.
            unsafe { ram.free(pa, 0) };
        }
        let memory = Scrub::new(ram, Policy::Poison).reporting_to(note);
        assert_eq!(memory.prime(), total - 4);
        assert_eq!(ram.frames.stats().free, total - 4);
        for &pa in held.iter().skip(1).step_by(2) {
            assert!(all(&ram, pa, 0, LEFT), "a frame in use was written to");
        }
        while let Ok(pa) = memory.alloc(0) {
            assert!(all(&memory, pa, 0, POISON));
        }
        assert_eq!(reports(), []);
    });
}

#[test]
fn without_priming_what_the_boot_loader_left_is_reported() {
    with_ram(2, |ram| {
        let memory = Scrub::new(ram, Policy::ZeroAndCheck).reporting_to(note);
        let frame = memory.alloc(0).expect("a frame");
        let found = Corruption { frame, offset: 0, len: 4096, found: LEFT, expected: 0 };
        assert_eq!(reports(), [found]);
        assert!(all(&memory, frame, 0, 0), "and zeroed all the same");
    });
}

#[test]
fn a_corrupt_frame_is_a_panic_in_debug_builds() {
    with_ram(1, |ram| {
        let memory = Scrub::new(ram, Policy::Poison);
        memory.prime();
        write(&ram, ram.arena.first().addr(), 0);
        let alloc = catch_unwind(AssertUnwindSafe(|| memory.alloc(0)));
        assert_eq!(alloc.is_err(), cfg!(debug_assertions));
    });
}

#[test]
fn a_report_reads_like_a_sentence() {
    let frame = PhysAddr::new(0x5000);
    let found = Corruption { frame, offset: 0x18, len: 2, found: 7, expected: POISON };
    assert_eq!(
        std::format!("{found}"),
        "the frame at 0x5000 was written to after it was freed: \
         0x07 for 0xce at byte 0x18, 2 bytes in all"
    );
}

#[test]
fn out_of_frames_stays_out_of_frames() {
    with_ram(4, |ram| {
        let memory = Scrub::new(ram, Policy::ZeroOnAlloc);
        for order in [3, 19, 64, 255] {
            assert_eq!(memory.alloc(order), Err(OutOfFrames { order }));
            assert_eq!(memory.alloc_zeroed(order), Err(OutOfFrames { order }));
        }
    });
}

#[test]
fn handles_of_one_memory_are_equal() {
    let (one, other) = (Arena::new(1), Arena::new(1));
    let scrubbed = Scrub::new(&one, Policy::Off);
    assert_eq!(scrubbed, Scrub::new(&one, Policy::Poison));
    assert_ne!(scrubbed, Scrub::new(&other, Policy::Off));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Any bytes changed in any free frames are found, each frame once, and nothing else is.
    #[test]
    fn every_write_after_free_is_found(
        order in 0u8..3,
        zeros: bool,
        writes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
    ) {
        let (policy, expected) =
            if zeros { (Policy::ZeroAndCheck, 0) } else { (Policy::Poison, POISON) };
        with_ram(4, |ram| {
            let memory = Scrub::new(ram, policy).reporting_to(note);
            memory.prime();
            let pa = memory.alloc(order).expect("it fits");
            scribble(&memory, pa, order);
            // SAFETY: allocated above, and given back once.
            unsafe { memory.free(pa, order) };

            let mut model = std::vec![expected; bytes(1 << order) as usize];
            for (at, byte) in &writes {
                let at = at.index(model.len());
                model[at] = *byte;
                write(&ram, pa.wrapping_add(at as u64), *byte);
            }
            assert_eq!(memory.alloc(order), Ok(pa));

            let mut expect = Vec::new();
            for (index, frame) in model.chunks(PAGE_SIZE as usize).enumerate() {
                let changed: Vec<_> = (0..4096u16)
                    .filter(|&at| frame[usize::from(at)] != expected)
                    .collect();
                if let (Some(&offset), Some(&last)) = (changed.first(), changed.last()) {
                    expect.push(Corruption {
                        frame: pa.wrapping_add(bytes(index as u64)),
                        offset,
                        len: last - offset + 1,
                        found: frame[usize::from(offset)],
                        expected,
                    });
                }
            }
            prop_assert_eq!(reports(), expect);
            prop_assert!(all(&memory, pa, order, expected), "filled anew");
            Ok(())
        })?;
    }
}

/// One block of any order, whose frames are all the same 4 KiB, and which notes who is reached.
#[derive(Clone, PartialEq)]
struct OneFrame<'a> {
    arena: &'a Arena,
    reached: &'a RefCell<Vec<PhysAddr>>,
}

// SAFETY: every address is the arena's first frame; no test reads one frame after it has written
// to another and expects a difference.
unsafe impl PhysMap for OneFrame<'_> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        self.reached.borrow_mut().push(pa);
        self.arena.with(self.arena.first().addr(), f)
    }
}

// SAFETY: not kept: the block may be had twice, which the test does not do.
unsafe impl FrameSource for OneFrame<'_> {
    fn alloc(&self, _order: u8) -> Result<PhysAddr, OutOfFrames> {
        Ok(PhysAddr::new(0x4000_0000))
    }

    unsafe fn free(&self, _pa: PhysAddr, _order: u8) {}
}

// SAFETY: as the two above.
unsafe impl Memory for OneFrame<'_> {}

#[test]
fn blocks_of_every_order_are_scrubbed_frame_by_frame() {
    let arena = Arena::new(1);
    let reached = RefCell::new(Vec::new());
    for policy in [Policy::ZeroOnAlloc, Policy::ZeroOnFree, Policy::Poison] {
        let memory = Scrub::new(OneFrame { arena: &arena, reached: &reached }, policy);
        for order in if cfg!(miri) { [0, 1, 4] } else { [0, 9, 18] } {
            // The frame may hold anything: what the policy before this one left.
            memory.with(PhysAddr::new(0), |p| {
                // SAFETY: the arena's one frame.
                unsafe { p.write_bytes(if policy == Policy::Poison { POISON } else { 0 }, 4096) }
            });
            let frames = || (0..1 << order).map(|i| PhysAddr::new(0x4000_0000 + bytes(i)));
            reached.take();
            let pa = memory.alloc(order).expect("always");
            let on_alloc = policy != Policy::ZeroOnFree;
            assert!(reached.take().into_iter().eq(frames().filter(|_| on_alloc)), "{order}");
            // SAFETY: nobody else has the block.
            unsafe { memory.free(pa, order) };
            let on_free = policy != Policy::ZeroOnAlloc;
            assert!(reached.take().into_iter().eq(frames().filter(|_| on_free)), "{order}");
        }
    }
}

/// Frames go from thread to thread with what they were filled with, and Miri sees no race on the
/// bytes.
#[test]
fn what_one_cpu_scrubs_another_finds_scrubbed() {
    with_ram(4, |ram| {
        Scrub::new(ram, Policy::Poison).prime();
        std::thread::scope(|scope| {
            for me in 0..3u8 {
                scope.spawn(move || {
                    // Panics in a debug build at the first byte that is not poison.
                    let memory = Scrub::new(ram, Policy::Poison);
                    for _ in 0..if cfg!(miri) { 3 } else { 2000 } {
                        if let Ok(pa) = memory.alloc(0) {
                            assert!(all(&memory, pa, 0, POISON));
                            write(&memory, pa.wrapping_add(u64::from(me) * 1000), me);
                            // SAFETY: allocated above, and given back once.
                            unsafe { memory.free(pa, 0) };
                        }
                    }
                });
            }
        });
    });
}
