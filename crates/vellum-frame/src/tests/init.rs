//! Memory maps: which frames come out of them, and where the metadata goes.

use super::{bytes, cases, free_frames, set_up, storage};
use crate::{AllocAtError, FrameAllocator, InitError, PhysRange, storage_words};
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;
use vellum_core::{FrameSource, PhysAddr};

/// Frames of the window that the random maps lie in.
const WINDOW: u64 = if cfg!(miri) { 90 } else { 700 };

/// First frames of windows: the bottom, across a boundary of each level, the top.
const BASES: [u64; 5] = [0, 4096 - 100, (1 << 18) - 300, (1 << 36) + 5, (1 << 52) - WINDOW];

/// Ranges in bytes of the window: whole frames, ragged, inverted, beyond its end.
fn ranges(most: usize) -> impl Strategy<Value = Vec<(u64, u64)>> {
    let edge = prop_oneof![
        (0..=WINDOW).prop_map(bytes),
        0..=bytes(WINDOW),
        (0..=WINDOW, 0..3u64)
            .prop_map(|(frame, off)| (bytes(frame) + off).saturating_sub(1).min(bytes(WINDOW))),
    ];
    prop::collection::vec((edge.clone(), edge), 0..most)
}

/// The window's ranges at their place; an end that would be 2^64 is written as an inclusive one.
fn placed(ranges: &[(u64, u64)], base: u64) -> Vec<PhysRange> {
    let place = |&(start, end): &(u64, u64)| {
        if start >= end {
            // Inverted, or empty: kept as it is, to be ignored.
            return PhysRange::from((bytes(base) | start, bytes(base)));
        }
        PhysRange::from(bytes(base) + start..=bytes(base) + (end - 1))
    };
    ranges.iter().map(place).collect()
}

/// The frames by the definition: all bytes usable in one range, none reserved.
fn expected(usable: &[(u64, u64)], reserved: &[(u64, u64)], base: u64) -> BTreeSet<u64> {
    (0..WINDOW)
        .filter(|&frame| {
            let (low, high) = (bytes(frame), bytes(frame + 1));
            usable.iter().any(|&(start, end)| start <= low && high <= end)
                && !reserved.iter().any(|&(start, end)| start < end && start < high && low < end)
        })
        .map(|frame| base + frame)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None,
        ..ProptestConfig::with_cases(cases(512, 3)) })]

    #[test]
    fn exactly_the_usable_unreserved_frames_come_out(
        usable in ranges(12), reserved in ranges(8), base in prop::sample::select(&BASES[..]),
    ) {
        let want = expected(&usable, &reserved, base);
        let (usable, reserved) = (placed(&usable, base), placed(&reserved, base));
        let room = storage(FrameAllocator::words_needed(&usable, &reserved));
        let frames = FrameAllocator::new();
        let done = set_up(&frames, &room, &usable, &reserved);
        if want.is_empty() {
            prop_assert_eq!(done, Err(InitError::NoFrames));
            return Ok(());
        }
        prop_assert_eq!(done, Ok(()));
        prop_assert!(free_frames(&frames).iter().eq(&want));
        let stats = frames.stats();
        prop_assert_eq!(stats.free, want.len() as u64);
        prop_assert_eq!(stats.total, want.len() as u64);
        let span = want.last().unwrap() - want.first().unwrap() + 1;
        prop_assert_eq!(stats.reserved, span - stats.total);

        let got: BTreeSet<u64> =
            core::iter::from_fn(|| frames.alloc(0).ok()).map(|pa| pa.number().as_u64()).collect();
        prop_assert_eq!(&got, &want);
        prop_assert_eq!(frames.stats().largest, None);
    }

    #[test]
    fn metadata_carved_out_of_the_map_is_reserved_and_nothing_else(
        usable in ranges(12), reserved in ranges(8), base in prop::sample::select(&BASES[..]),
        reachable in 0..WINDOW,
    ) {
        let want = expected(&usable, &reserved, base);
        let (usable, reserved) = (placed(&usable, base), placed(&reserved, base));
        // The memory of the window; the map reaches frames from `reachable` on.
        let mut memory: Vec<[u64; 512]> = std::vec![[!0; 512]; WINDOW as usize];
        let memory = NonNull::from(&mut memory[..]).cast::<u8>();
        let mut carved = None;
        let frames = FrameAllocator::new();
        let reach = |pa: PhysAddr, len: u64| {
            let at = pa.as_u64() - bytes(base);
            if at < bytes(reachable) {
                return None;
            }
            assert!(at + len <= bytes(WINDOW));
            carved = Some((pa.number().as_u64(), len.div_ceil(4096)));
            // SAFETY: just seen to lie within the memory.
            Some(unsafe { memory.add(at as usize) })
        };
        // SAFETY: nobody else uses the memory, which outlives the allocator.
        let done = unsafe { frames.init(&usable, &reserved, reach) };
        match (done, carved) {
            (Ok(()), Some((first, count))) => {
                let own: BTreeSet<u64> = (first..first + count).collect();
                prop_assert!(own.is_subset(&want), "metadata at {first:#x} is not usable memory");
                prop_assert!(free_frames(&frames).iter().eq(want.difference(&own)));
            }
            (Err(InitError::NoFrames), _) => {
                prop_assert!(want.len() as u64 <= carved.map_or(0, |(_, count)| count));
            }
            (Err(InitError::NoRoom { words }), None) => {
                let count = (words * 8).div_ceil(4096);
                prop_assert_eq!(words, FrameAllocator::words_needed(&usable, &reserved));
                // One frame is enough in windows of this size, so any reachable one would have
                // done.
                prop_assert_eq!(count, 1);
                prop_assert!(want.iter().all(|&frame| frame < base + reachable));
            }
            (done, carved) => prop_assert!(false, "{done:?} with metadata at {carved:?}"),
        }
    }

    #[test]
    fn storage_words_is_enough_wherever_the_span_starts(
        first in 0u64..1 << 40, frames in 1u64..1 << 34, ranges in 1usize..100,
    ) {
        let one = PhysRange::with_len(bytes(first), bytes(frames));
        let usable = core::iter::once(one).chain((1..ranges).map(|_| one));
        let needed = FrameAllocator::words_needed(usable, [(0, 0); 0]);
        prop_assert!(needed <= storage_words(frames, ranges) as u64);
    }
}

#[test]
fn metadata_takes_1_04_bits_a_frame() {
    for gib in [1u64, 4, 64, 1024, 16 << 10] {
        let words = FrameAllocator::words_needed([(0, gib << 30)], [(0, 0); 0]);
        let bits_a_frame = (words * 64) as f64 / (gib << 18) as f64;
        assert!(bits_a_frame < 1.045, "{gib} GiB: {bits_a_frame}");
    }
}

#[test]
fn an_empty_map_is_an_error_and_may_be_followed_by_a_better_one() {
    let room = storage(4096);
    let frames = FrameAllocator::new();
    let nothing: [(u64, u64); 0] = [];
    assert_eq!(set_up(&frames, &room, nothing, nothing), Err(InitError::NoFrames));
    assert_eq!(set_up(&frames, &room, [(0x1001, 0x2fff)], nothing), Err(InitError::NoFrames));
    assert_eq!(set_up(&frames, &room, [(0, 0x9000)], [(0, 0x9000)]), Err(InitError::NoFrames));
    let few = FrameAllocator::words_needed([(0, 0x9000)], nothing);
    let short = set_up(&frames, &room[..few as usize - 1], [(0, 0x9000)], nothing);
    assert_eq!(short, Err(InitError::NoRoom { words: few }));
    assert_eq!(frames.alloc(0).ok(), None);
    assert_eq!(set_up(&frames, &room, [(0, 0x9000)], nothing), Ok(()));
    assert_eq!(frames.stats().free, 9);
    assert_eq!(set_up(&frames, &room, [(0, 0x9000)], nothing), Err(InitError::AlreadyInitialised));
    assert_eq!(frames.stats().free, 9);
}

#[test]
fn a_map_that_changes_between_readings_is_refused_or_cut_but_never_trusted() {
    use core::cell::Cell;
    let room = storage(4096);
    let readings = Cell::new(0);
    // First one frame, then sixty-four with gaps between them.
    let shifty = || {
        readings.set(readings.get() + 1);
        let (step, count) = if readings.get() == 1 { (128, 1) } else { (2, 64) };
        (0..count).map(move |i| PhysRange::with_len(bytes(i * step), bytes(1)))
    };
    #[derive(Clone)]
    struct Map<F>(F);
    impl<I: Iterator<Item = PhysRange>, F: Fn() -> I> IntoIterator for Map<F> {
        type Item = PhysRange;
        type IntoIter = I;
        fn into_iter(self) -> I {
            (self.0)()
        }
    }
    let frames = FrameAllocator::new();
    assert_eq!(set_up(&frames, &room, Map(&shifty), [(0, 0); 0]), Ok(()));
    assert_eq!(frames.stats().total, 1, "cut to the span of the first reading");
    readings.set(0);
    let wide = || {
        readings.set(readings.get() + 1);
        let count = if readings.get() == 1 { 1 } else { 64 };
        let len = if count == 1 { bytes(128) } else { bytes(1) };
        (0..count).map(move |i| PhysRange::with_len(bytes(i * 2), len))
    };
    let frames = FrameAllocator::new();
    assert_eq!(set_up(&frames, &room, Map(&wide), [(0, 0); 0]), Err(InitError::Unstable));
}

#[test]
fn a_static_allocator_serves_from_its_own_storage() {
    const WORDS: usize = storage_words(1024, 3);
    static STORAGE: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];
    static FRAMES: FrameAllocator<'static> = FrameAllocator::new();
    assert!(FRAMES.alloc(0).is_err());
    set_up(&FRAMES, &STORAGE, [(0x1000, 0x9fc00), (0x10_0000, 0x40_0000)], [(0, 1)]).unwrap();
    let source: &'static dyn Fn(u8) -> Option<PhysAddr> =
        &|order| FrameSource::alloc(&FRAMES, order).ok();
    let huge = source(9).unwrap();
    assert_eq!(huge, PhysAddr::new(0x20_0000));
    assert_eq!(source(9), None);
    // SAFETY: allocated above, and nobody reaches it.
    unsafe { FrameSource::free(&FRAMES, huge, 9) };
    assert_eq!(FRAMES.stats().free, 0x9e + 0x300);
}

#[test]
fn touching_ranges_make_one_place_for_the_metadata_and_one_block() {
    // 1 GiB in slices of 64 KiB, backwards: none has room for the metadata by itself.
    let slice = bytes(16);
    let count = if cfg!(miri) { 100 } else { 1 << 30 >> 16 };
    let map = (0..count).rev().map(|i| PhysRange::with_len(i * slice, slice));
    let words = FrameAllocator::words_needed(map.clone(), [(0, 0); 0]) as usize;
    let mut memory = std::vec![0u64; words];
    let memory = NonNull::from(&mut memory[..]).cast::<u8>();
    let frames = FrameAllocator::new();
    // SAFETY: the memory is nobody else's, outlives the allocator, and is `words` words long.
    let done = unsafe { frames.init(map, [(0, 0); 0], |_, _| Some(memory)) };
    assert_eq!(done, Ok(()));
    // The map is backwards, so the metadata is near the top, and below it is one run from 0.
    let (start, below) = frames.free_runs().next().unwrap();
    assert_eq!(start, PhysAddr::new(0));
    assert!(below > count * 16 - 100, "{below} of {} frames", count * 16);
    assert_eq!(frames.stats().largest, Some(below.ilog2() as u8));
}

#[test]
fn a_pointer_that_is_not_aligned_is_not_used() {
    let mut memory = [0u64; 4096];
    let base = NonNull::from(&mut memory).cast::<u8>();
    let frames = FrameAllocator::new();
    let mut asked = 0;
    let reach = |_: PhysAddr, _: u64| {
        asked += 1;
        // SAFETY: within `memory`.
        Some(if asked == 1 { unsafe { base.add(1) } } else { base })
    };
    // SAFETY: `memory` is nobody else's while `frames` lives, and larger than the metadata.
    let done = unsafe { frames.init([(0, bytes(9)), (bytes(16), bytes(32))], [(0, 0); 0], reach) };
    assert_eq!((done, asked), (Ok(()), 2));
    assert_eq!(frames.stats().free, 9 + 16 - 1);
    let pa = PhysAddr::new(bytes(1));
    assert_eq!(frames.alloc_at(pa, 0), Err(AllocAtError::Reserved { pa }));
}

/// Where the metadata of 1 GiB (9 frames) goes if frames `from..end` are within reach, and how
/// often `reach` was asked.
fn carved(reserved: &[(u64, u64)], from: u64, end: u64) -> (Result<u64, InitError>, u64) {
    let mut memory = std::vec![[0u64; 512]; 9];
    let memory = NonNull::from(&mut memory[..]).cast::<u8>();
    let frames = FrameAllocator::new();
    let (mut asked, mut place) = (0, 0);
    let reach = |pa: PhysAddr, len: u64| {
        asked += 1;
        place = pa.number().as_u64();
        assert_eq!(len.div_ceil(4096), 9);
        (bytes(from) <= pa.as_u64() && pa.as_u64() + len <= bytes(end)).then_some(memory)
    };
    // SAFETY: the memory is nobody else's, outlives the allocator, and is 9 frames long.
    let done = unsafe { frames.init([(0, 1 << 30)], reserved, reach) };
    (done.map(|()| place), asked)
}

#[test]
#[cfg_attr(miri, ignore = "sets up 1 GiB eighty times")]
fn a_range_that_is_within_reach_in_its_middle_only_has_room() {
    // Two times the metadata less a frame, wherever it starts, with and without a hole.
    for from in 0..40 {
        for reserved in [&[][..], &[(bytes(3), bytes(5))]] {
            let at = from.max(if from < 5 && !reserved.is_empty() { 5 } else { 0 });
            let (done, _) = carved(reserved, from, at + 17);
            assert!(done.is_ok_and(|place| (at..at + 9).contains(&place)), "{from}: {done:?}");
        }
    }
    // One try for each 9 of the 2^18 frames, and no more; the last few are not enough.
    let (done, asked) = carved(&[], 1 << 18, 1 << 18);
    assert!(matches!(done, Err(InitError::NoRoom { .. })), "{done:?}");
    assert_eq!(asked, (1 << 18) / 9);
}

#[test]
fn a_size_that_does_not_fit_is_the_largest_there_is() {
    assert_eq!(storage_words(1, usize::MAX), usize::MAX);
    assert_eq!(storage_words(u64::MAX, usize::MAX / 2), usize::MAX);
    let all = storage_words(u64::MAX, 1);
    assert_eq!(all, storage_words(1 << 52, 1));
    assert!((1 << 46..1 << 48).contains(&all));
}
