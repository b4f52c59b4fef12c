//! One word, and who takes from it and gives to it.

use super::{World, explore};
use crate::FreeError;
use std::rc::Rc;
use vellum_core::PhysAddr;

#[test]
fn two_takers_of_the_last_two_frames_of_a_word_get_one_each() {
    explore(|| {
        let world = World::with_free(64, &[(5, 0), (9, 0)]);
        let (first, second) = world.race(|w| w.alloc(0), |w| w.alloc(0));
        assert!(first.is_some() && second.is_some());
        world.check();
    });
}

#[test]
fn one_of_two_takers_gets_the_last_run_of_a_word() {
    explore(|| {
        let world = World::with_free(64, &[(8, 2)]);
        let (first, second) = world.race(|w| w.alloc(2), |w| w.alloc(2));
        assert!(first.is_some() != second.is_some());
        world.check();
    });
}

#[test]
fn three_takers_of_two_frames_leave_one_without() {
    explore(|| {
        let world = World::with_free(64, &[(5, 0), (9, 0)]);
        let third = {
            let world = Rc::clone(&world);
            move |w: &World| {
                let other = loom::thread::spawn(move || world.alloc(0));
                (w.alloc(0), other.join().unwrap())
            }
        };
        let (first, (second, third)) = world.race(|w| w.alloc(0), third);
        assert_eq!([first, second, third].into_iter().flatten().count(), 2);
        world.check();
    });
}

/// All frames of a word but the last, and nothing else, are free.
fn all_but_one() -> Rc<World> {
    World::with_free(64, &[(0, 5), (32, 4), (48, 3), (56, 2), (60, 1), (62, 0)])
}

#[test]
fn a_frame_is_taken_while_another_free_completes_the_word() {
    explore(|| {
        let world = all_but_one();
        let (_, taken) = world.race(|w| w.free(63, 0), |w| w.alloc(0));
        assert!(taken.is_some());
        world.check();
    });
}

#[test]
fn a_word_that_a_free_completes_is_all_there_or_not_there() {
    explore(|| {
        let world = all_but_one();
        let (_, taken) = world.race(|w| w.free(63, 0), |w| w.alloc(6));
        assert!(taken.is_none_or(|pfn| pfn == 0));
        world.check();
    });
}

#[test]
fn the_next_owner_of_a_frame_comes_after_its_last() {
    explore(|| {
        let world = World::with_free(64, &[]);
        let (_, taken) = world.race(|w| w.free(7, 0), |w| w.alloc(0));
        assert!(taken.is_none_or(|pfn| pfn == 7));
        world.check();
    });
}

/// A rightful free of `whole` beside a wrongful one of `part` of the same frames, which lies on the
/// same level: one of them is refused.
fn one_of_two_frees_is_refused(whole: u8, part: u8) {
    explore(move || {
        let world = World::with_free(128, &[]);
        let free = |order| {
            move |w: &World| {
                // SAFETY: no memory is behind it; that one of the two is wrong is the point.
                unsafe { w.frames.free(PhysAddr::new(0), order) }
            }
        };
        let refused = |result| matches!(result, Err(FreeError::DoubleFree { .. }));
        let freed = match world.race(free(whole), free(part)) {
            (Ok(()), other) if refused(other) => whole,
            (other, Ok(())) if refused(other) => part,
            both => panic!("{both:?}"),
        };
        world.pass(0, freed, true);
        world.check();
    });
}

#[test]
fn a_wrongful_free_of_the_same_frame_is_refused() {
    one_of_two_frees_is_refused(0, 0);
}

#[test]
fn a_wrongful_free_of_a_frame_of_a_run_is_refused() {
    one_of_two_frees_is_refused(3, 0);
}

#[test]
fn a_wrongful_free_of_a_part_of_a_larger_block_is_refused() {
    one_of_two_frees_is_refused(7, 6);
}
