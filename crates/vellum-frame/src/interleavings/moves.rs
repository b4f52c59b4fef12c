//! What moves between levels: while it is on none, nobody else may conclude that it is not there.

use super::{World, address, explore, explore_with};
use crate::FreeError;
use crate::access::Atomic;
use std::rc::Rc;
use std::vec::Vec;
use vellum_core::PhysAddr;

/// `count` frames, of which those of `words` lie there freed one by one, so that the words are full
/// and nobody has gathered them.
fn ungathered(count: u64, words: &[u64]) -> Rc<World> {
    let halves: Vec<_> = words.iter().flat_map(|&w| [(64 * w, 5), (64 * w + 32, 5)]).collect();
    World::with_free(count, &halves)
}

#[test]
fn a_full_word_is_promoted_or_claimed() {
    explore(|| {
        let world = ungathered(64, &[0]);
        let (block, frame) = world.race(|w| w.alloc(6), |w| w.alloc(0));
        assert!(block.is_some() != frame.is_some());
        world.check();
    });
}

#[test]
fn a_full_word_is_promoted_for_one_of_two() {
    explore(|| {
        let world = ungathered(64, &[0]);
        let (first, second) = world.race(|w| w.alloc(6), |w| w.alloc(6));
        assert!(first.is_some() != second.is_some());
        world.check();
    });
}

#[test]
fn two_searches_that_promote_the_same_words_do_not_both_fail() {
    explore(|| {
        let world = ungathered(128, &[0, 1]);
        let (pair, word) = world.race(|w| w.alloc(7), |w| w.alloc(6));
        assert!(pair.is_some() != word.is_some());
        world.check();
    });
}

#[test]
fn a_frame_is_found_while_its_word_is_promoted_in_vain() {
    explore(|| {
        let world = ungathered(128, &[0]);
        let (pair, frame) = world.race(|w| w.alloc(7), |w| w.alloc(0));
        assert!(pair.is_none() && frame.is_some());
        world.check();
    });
}

#[test]
fn a_given_block_is_taken_in_pieces_or_claimed() {
    explore(|| {
        let world = ungathered(64, &[0]);
        let at = |w: &World| {
            let taken = w.frames.alloc_at(PhysAddr::new(0), 6);
            taken.is_ok().then(|| w.got(PhysAddr::new(0), 6))
        };
        let (block, frame) = world.race(at, |w| w.alloc(0));
        assert!(block.is_some() != frame.is_some());
        world.check();
    });
}

#[test]
fn two_frames_are_found_while_one_block_is_split() {
    explore(|| {
        let world = World::new(64);
        let (first, second) = world.race(|w| w.alloc(0), |w| w.alloc(0));
        assert!(first.is_some() && second.is_some());
        world.check();
    });
}

#[test]
fn two_frames_are_found_without_hints_while_one_block_is_split() {
    explore(|| {
        let world = World::new(64);
        // The search of each goes through the levels upward; the frames come down past it.
        world.tree().levels[1].hints.clear::<Atomic>(u8::MAX, 0);
        let (first, second) = world.race(|w| w.alloc(0), |w| w.alloc(0));
        assert!(first.is_some() && second.is_some());
        world.check();
    });
}

#[test]
fn a_block_is_found_while_a_larger_one_is_split_through_two_levels() {
    // Many words, so that each execution takes long.
    explore_with(2, || {
        let world = World::new(4096);
        let (frame, block) = world.race(|w| w.alloc(0), |w| w.alloc(6));
        assert!(frame.is_some() && block.is_some());
        world.check();
    });
}

#[test]
fn a_block_is_split_beside_a_free() {
    for (pfn, order) in [(64, 0), (64, 6)] {
        explore(move || {
            let world = World::with_free(128, &[(0, 6)]);
            let (run, _) = world.race(|w| w.alloc(3), move |w| w.free(pfn, order));
            assert!(run.is_some());
            world.check();
        });
    }
}

#[test]
fn what_a_split_leaves_over_is_freed_into_at_once() {
    explore(|| {
        let world = World::new(64);
        let (_, other) = world.race(
            |w| {
                let frame = w.alloc(0).unwrap();
                w.free(frame, 0);
            },
            |w| w.alloc(4),
        );
        assert!(other.is_some());
        world.check();
    });
}

#[test]
fn a_double_free_is_refused_beside_a_split_of_other_frames() {
    for (pfn, order) in [(70, 0), (64, 6)] {
        explore(move || {
            // Of the second word frame 70 alone is free, and too small.
            let world = World::with_free(128, &[(0, 6), (70, 0)]);
            let (run, freed) = world.race(
                |w| w.alloc(1),
                // SAFETY: no memory is behind it; that it is free already is the point.
                move |w| unsafe { w.frames.free(address(pfn), order) },
            );
            assert!(run.is_some());
            assert_eq!(freed, Err(FreeError::DoubleFree { pa: address(70) }));
            world.check();
        });
    }
}

#[test]
fn a_block_that_is_free_throughout_is_found() {
    explore(|| {
        let world = World::new(128);
        let (block, _) = world.race(
            |w| w.alloc(6),
            |w| {
                let frame = w.alloc(0).unwrap();
                w.free(frame, 0);
            },
        );
        assert!(block.is_some());
        world.check();
    });
}

#[test]
fn who_gets_a_part_of_a_split_block_comes_after_the_last_owner() {
    explore(|| {
        let world = World::with_free(64, &[]);
        let (frame, _) = world.race(
            |w| {
                w.free(0, 6);
                w.alloc(0)
            },
            |w| w.alloc(0),
        );
        assert!(frame.is_some());
        world.check();
    });
}

#[test]
fn who_gets_a_promoted_word_comes_after_its_last_owners() {
    explore(|| {
        let world = World::with_free(128, &[(32, 5)]);
        let (pair, _) = world.race(
            |w| {
                w.free(0, 5);
                w.alloc(7)
            },
            |w| w.alloc(6),
        );
        assert_eq!(pair, None);
        world.check();
    });
}
