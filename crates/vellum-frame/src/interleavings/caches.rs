//! What one CPU has at hand, while others free into the same words and take from them.

use super::{World, explore};
use crate::Cache;
use core::cell::RefCell;

/// A cache over the allocator of a world.
struct Hands<'a>(&'a World, RefCell<Cache<'a, 'static>>);

impl<'a> Hands<'a> {
    fn new(world: &'a World) -> Self {
        Self(world, RefCell::new(Cache::new(&world.frames)))
    }

    fn alloc(&self, order: u8) -> Option<u64> {
        self.1.borrow_mut().alloc(order).ok().map(|pa| self.0.got(pa, order))
    }

    fn free(&self, pfn: u64, order: u8) {
        let pa = self.0.gives(pfn, order);
        // SAFETY: `gives` saw that it is owned, and made it not so; no memory is behind it.
        assert_eq!(unsafe { self.1.borrow_mut().free(pa, order) }, Ok(()));
    }
}

#[test]
fn a_word_is_flushed_beside_a_free_into_it() {
    explore(|| {
        let world = World::with_free(64, &[(0, 0), (1, 0)]);
        world.race(
            |w| {
                let hands = Hands::new(w);
                assert!(hands.alloc(0).is_some());
                // Drop gives the other one back.
            },
            |w| w.free(2, 0),
        );
        world.check();
    });
}

#[test]
fn collected_frames_are_flushed_beside_frees_into_their_word() {
    explore(|| {
        let world = World::with_free(64, &[]);
        world.race(
            |w| {
                let hands = Hands::new(w);
                hands.free(0, 0);
                hands.free(1, 0);
                hands.free(2, 0);
            },
            |w| {
                w.free(3, 0);
                w.free(4, 1);
            },
        );
        world.check();
    });
}

#[test]
fn a_whole_word_is_flushed_while_it_is_promoted() {
    explore(|| {
        let world = World::with_free(64, &[(0, 5), (32, 5)]);
        world.race(
            |w| {
                let hands = Hands::new(w);
                if let Some(frame) = hands.alloc(0) {
                    hands.free(frame, 0);
                }
            },
            |w| w.alloc(6),
        );
        world.check();
    });
}

#[test]
fn a_word_goes_to_a_cache_or_to_a_taker() {
    explore(|| {
        let world = World::with_free(64, &[(0, 0), (1, 0)]);
        let (cached, taken) = world.race(|w| Hands::new(w).alloc(0), |w| w.alloc(0));
        // The cache may have had both for a while.
        assert!(cached.is_some());
        assert!(taken.is_none_or(|pfn| pfn < 2));
        world.check();
    });
}

#[test]
fn two_caches_share_what_two_words_have() {
    explore(|| {
        let world = World::with_free(128, &[(3, 0), (70, 0)]);
        let (first, second) = world.race(|w| Hands::new(w).alloc(0), |w| Hands::new(w).alloc(0));
        assert!(first.is_some() && second.is_some());
        world.check();
    });
}

#[test]
fn a_remembered_block_is_had_again_or_is_somebody_elses() {
    explore(|| {
        let world = World::with_free(64, &[]);
        world.race(
            |w| {
                let hands = Hands::new(w);
                hands.free(2, 1);
                hands.alloc(1)
            },
            |w| w.alloc(0),
        );
        world.check();
    });
}

#[test]
fn bulk_takes_of_one_word_share_it() {
    explore(|| {
        let world = World::with_free(64, &[(0, 1), (8, 0)]);
        let bulk = |w: &World| {
            let mut frames = [vellum_core::PhysAddr::new(0); 2];
            let count = w.frames.alloc_bulk(&mut frames);
            for &pa in &frames[..count] {
                w.got(pa, 0);
            }
            count
        };
        let (first, second) = world.race(bulk, bulk);
        assert!((2..=3).contains(&(first + second)), "{first} and {second}");
        world.check();
    });
}
