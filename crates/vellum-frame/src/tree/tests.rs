//! What the two searches find, each by itself: together they would cover for one another.

use super::Tree;
use crate::bits::WORD_ORDER;
use crate::init::build;
use crate::range::PhysRange;
use crate::shape::Shape;
use core::sync::atomic::AtomicU64;
use std::vec::Vec;

/// Runs `test` on a tree over the frames `0..count`.
fn with_tree(count: u64, test: impl FnOnce(&Tree<'_>)) {
    let usable = [PhysRange::with_len(0, count << vellum_core::PAGE_SHIFT)];
    let nothing: [PhysRange; 0] = [];
    let shape = Shape::survey(&usable, &nothing).unwrap();
    let storage: Vec<AtomicU64> = (0..shape.words()).map(|_| AtomicU64::new(0)).collect();
    test(&build(&storage, shape, &usable, &nothing, (0, 0)).unwrap());
}

/// Takes all frames one by one, and frees them one by one.
fn shatter(tree: &Tree<'_>, count: u64) {
    assert!((0..count).all(|_| tree.alloc(0).is_some()));
    assert!((0..count).all(|pfn| tree.free(pfn, 0).is_ok()));
}

#[test]
fn the_scan_finds_everything_without_a_hint() {
    with_tree(4096, |tree| {
        for order in [0, 3, 6, 9, 11, 12] {
            shatter(tree, 4096);
            for hints in tree.levels.iter().map(|level| level.hints) {
                for kind in 0..=WORD_ORDER {
                    while let Some(group) = hints.find(kind) {
                        hints.clear(kind, group);
                    }
                }
            }
            let pfn = tree.moves.settled(|| tree.alloc_scanning(order));
            assert!(pfn.is_some(), "order {order}");
            assert_eq!(tree.free(pfn.unwrap(), order), Ok(()));
        }
    });
}

#[test]
fn the_hints_find_everything_without_a_scan() {
    with_tree(4096, |tree| {
        for order in [0, 3, 6, 9, 11, 12] {
            shatter(tree, 4096);
            let blocks: Vec<u64> = core::iter::from_fn(|| tree.alloc_hinted(order)).collect();
            assert_eq!(blocks.len(), 4096 >> order, "order {order}");
            assert!(blocks.into_iter().all(|pfn| tree.free(pfn, order).is_ok()));
        }
    });
}

#[test]
fn the_smallest_run_that_will_do_is_broken_up_first() {
    with_tree(4096, |tree| {
        assert!(tree.alloc_at(0, 12));
        // Runs of 32, 4, 1 and 16 frames, in words far apart.
        for (pfn, order) in [(64, 5), (1024, 2), (2051, 0), (3072, 4)] {
            assert_eq!(tree.free(pfn, order), Ok(()));
        }
        let taken = [0, 1, 0, 0, 3, 5].map(|order| tree.alloc(order));
        let want = [2051, 1024, 1026, 1027, 3072, 64];
        assert_eq!(taken, want.map(Some));
    });
}
