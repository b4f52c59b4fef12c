//! Which block is taken where several would do, and that all of them are found without a hint.
//!
//! ```text
//!   asked: order 0      ..1..... ....1111 11111111      the first, not a part of the others
//!   asked: order 2      ..1..... 1111.... 11111111      the second
//! ```

use super::model::{at, fitting};
use super::ways::runs;
use super::{bytes, cases, set_up, storage};
use crate::access::Atomic;
use crate::{Cache, FrameAllocator};
use proptest::prelude::*;
use std::vec::Vec;

/// Runs `test` with the frames `0..count`, of which only `free` are free.
fn with_free(count: u64, free: &[(u64, u64)], test: impl FnOnce(&FrameAllocator<'_>)) {
    let usable = [(0, bytes(count))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    assert_eq!(frames.alloc_contiguous(count), Ok(at(0)));
    for &(first, count) in free {
        // SAFETY: taken above, and nothing is behind it.
        assert_eq!(unsafe { frames.free_contiguous(at(first), count) }, Ok(()));
    }
    test(&frames);
}

#[test]
fn below_a_limit_too_the_smallest_block_that_will_do_is_taken() {
    with_free(128, &[(0, 4), (10, 1)], |frames| {
        assert_eq!(frames.alloc_below(0, at(11)), Ok(at(10)), "up to the very limit");
        assert_eq!(frames.alloc_below(0, at(11)), Ok(at(0)));
    });
}

#[test]
fn a_word_that_served_last_breaks_up_nothing_larger_than_then() {
    with_free(256, &[(8, 1), (12, 4), (130, 1)], |frames| {
        // Frame 8, and the word is remembered; what it has left is larger than frame 130.
        let taken = [0; 3].map(|order| frames.alloc(order).unwrap());
        assert_eq!(taken, [at(8), at(130), at(12)]);
    });
}

#[test]
fn what_a_given_block_leaves_over_is_known() {
    // Out of a run, and out of a block of the next level up.
    for (free, taken, left) in [((32, 32), 32, 33), ((64, 64), 64, 65)] {
        with_free(4096, &[free, (2048, 2048)], |frames| {
            assert_eq!(frames.alloc_at(at(taken), 0), Ok(()));
            assert_eq!(frames.alloc(0), Ok(at(left)), "the single frame beside it");
            assert_eq!(frames.alloc(1), Ok(at(left + 1)), "and the pair beside that");
        });
    }
}

#[test]
fn what_a_cache_gives_back_is_known() {
    for (count, order, want) in [(1, 0, 70), (2, 1, 70), (3, 0, 72)] {
        with_free(4096, &[(2048, 2048), (70, count)], |frames| {
            let mut cache = Cache::new(frames);
            assert_eq!(cache.alloc(0), Ok(at(70)));
            assert_eq!(cache.held(), count - 1);
            // Nobody knows of the word any more.
            assert_eq!(frames.alloc(0), Ok(at(2048)));
            // SAFETY: taken above.
            assert_eq!(unsafe { cache.free(at(70), 0) }, Ok(()));
            cache.flush();
            assert_eq!(frames.alloc_below(order, at(4096)), Ok(at(want)));
        });
    }
}

#[test]
fn a_whole_word_that_a_cache_gives_back_is_one_block_again() {
    with_free(4096, &[(64, 64)], |frames| {
        let mut cache = Cache::new(frames);
        let pa = cache.alloc(0).unwrap();
        // SAFETY: taken above.
        assert_eq!(unsafe { cache.free(pa, 0) }, Ok(()));
        cache.flush();
        let tree = frames.tree().expect("set up");
        assert!(tree.levels[1].covers::<Atomic>(64), "without a search for it");
    });
}

#[test]
fn frees_through_a_cache_are_remembered_by_order_newest_first() {
    with_free(4096, &[(2048, 2048)], |frames| {
        let mut cache = Cache::new(frames);
        // SAFETY: taken by `with_free`.
        unsafe {
            assert_eq!(cache.free(at(128), 3), Ok(()));
            assert_eq!(cache.free(at(1024), 3), Ok(()));
        }
        assert_eq!(frames.alloc_at(at(128), 3), Ok(()), "free for everybody meanwhile");
        // SAFETY: taken right here.
        assert_eq!(unsafe { frames.free(at(128), 3) }, Ok(()));
        assert_eq!((cache.alloc(3), cache.alloc(3)), (Ok(at(1024)), Ok(at(128))));
        // The same place as a part of something larger is left alone.
        // SAFETY: taken by `with_free`, or above.
        unsafe {
            assert_eq!(cache.free(at(128), 3), Ok(()));
            assert_eq!(frames.free(at(136), 3), Ok(()));
            assert_eq!(frames.free(at(200), 3), Ok(()));
        }
        assert_eq!(cache.alloc(3), Ok(at(200)));
    });
}

/// Takes back all advice.
fn forget_hints(frames: &FrameAllocator<'_>) {
    for level in &frames.tree().expect("set up").levels {
        let groups =
            level.words.len().checked_sub(1).map_or(0, |last| level.hints.group_of(last) + 1);
        (0..groups).for_each(|group| level.hints.clear::<Atomic>(u8::MAX, group));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None,
        ..ProptestConfig::with_cases(cases(300, 2)) })]

    /// Hints can be lost where several CPUs write; then the bits themselves must do.
    #[test]
    fn every_block_is_found_without_a_hint(
        // Taken blocks in what is otherwise free, most of it freed one by one.
        taken in prop::collection::vec((0u64..1 << 13, 0u8..6), 0..4),
        singly in any::<bool>(),
        order in if cfg!(miri) { 0u8..=7 } else { 0u8..=13 },
        limit in prop_oneof![1 => Just(1 << 13), 3 => 0u64..1 << 13, 3 => (0u64..16).prop_map(|n| n << 9)],
    ) {
        let (count, limit) = if cfg!(miri) { (256, limit >> 5) } else { (1 << 13, limit) };
        with_free(count, &[], |frames| {
            let mut gone: Vec<_> = taken.iter()
                .map(|&(first, order)| ((first % count) >> order << order, 1 << order))
                .collect();
            gone.sort_unstable();
            let kept = |pfn: u64| gone.iter().any(|&(f, c)| f <= pfn && pfn < f + c);
            if singly {
                for pfn in (0..count).filter(|&pfn| !kept(pfn)) {
                    // SAFETY: taken by `with_free`.
                    unsafe { frames.free(at(pfn), 0) }.unwrap();
                }
            } else {
                let mut first = 0;
                for &(start, length) in gone.iter().chain([&(count, 0)]) {
                    if start > first {
                        // SAFETY: taken by `with_free`.
                        unsafe { frames.free_contiguous(at(first), start - first) }.unwrap();
                    }
                    first = first.max(start + length);
                }
            }
            let fit = fitting(&runs(frames), order, limit.min(count));
            for _ in 0..fit.min(5) {
                forget_hints(frames);
                let pa = frames.alloc_below(order, at(limit)).expect("a block is free");
                assert!(pa.number().as_u64() + (1 << order) <= limit);
                // SAFETY: taken right here; the block again, in pieces.
                unsafe { frames.free_contiguous(pa, 1 << order) }.unwrap();
            }
            if fit == 0 {
                forget_hints(frames);
                assert!(frames.alloc_below(order, at(limit)).is_err());
            }
        });
    }
}
