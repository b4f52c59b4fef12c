//! What the two searches find, each by itself: together they would cover for one another.

use super::Tree;
use crate::access::Atomic;
use crate::init::build;
use crate::range::PhysRange;
use crate::shape::Shape;
use crate::sync::AtomicU64;
use std::vec::Vec;

/// Runs `test` on a tree over the frames `0..count`.
fn with_tree(count: u64, test: impl FnOnce(&Tree<'_>)) {
    let usable = [PhysRange::with_len(0, count << vellum_core::PAGE_SHIFT)];
    let nothing: [PhysRange; 0] = [];
    let shape = Shape::survey(&usable, &nothing).unwrap();
    let storage: Vec<AtomicU64> = (0..shape.words()).map(|_| AtomicU64::new(0)).collect();
    test(&build(&storage, shape, &usable, &nothing, (0, 0)).unwrap());
}

/// Frames and orders of the trees that are shattered: level 2 takes too long under Miri.
const COUNT: u64 = if cfg!(miri) { 128 } else { 4096 };
const ORDERS: &[u8] = if cfg!(miri) { &[0, 6, 7] } else { &[0, 3, 6, 9, 11, 12] };

/// Takes all frames one by one, and frees them one by one.
fn shatter(tree: &Tree<'_>) {
    assert!((0..COUNT).all(|_| tree.alloc::<Atomic>(0).is_some()));
    assert!((0..COUNT).all(|pfn| tree.free::<Atomic>(pfn, 0).is_ok()));
}

#[test]
fn the_scan_finds_everything_without_a_hint() {
    with_tree(COUNT, |tree| {
        for &order in ORDERS {
            shatter(tree);
            for hints in tree.levels.iter().map(|level| level.hints) {
                while let Some((kind, group)) = hints.lowest::<Atomic>() {
                    hints.clear::<Atomic>(1 << kind, group);
                }
            }
            let pfn = tree.moves.settled(|| tree.alloc_scanning::<Atomic>(order, u64::MAX));
            assert!(pfn.is_some(), "order {order}");
            assert_eq!(tree.free::<Atomic>(pfn.unwrap(), order), Ok(()));
        }
    });
}

#[test]
fn the_hints_find_everything_without_a_scan() {
    with_tree(COUNT, |tree| {
        for &order in ORDERS {
            shatter(tree);
            let blocks: Vec<u64> =
                core::iter::from_fn(|| tree.alloc_hinted::<Atomic>(order, u64::MAX)).collect();
            assert_eq!(blocks.len(), (COUNT >> order) as usize, "order {order}");
            assert!(blocks.into_iter().all(|pfn| tree.free::<Atomic>(pfn, order).is_ok()));
        }
    });
}

#[test]
fn the_smallest_run_that_will_do_is_broken_up_first() {
    with_tree(4096, |tree| {
        assert!(tree.alloc_at::<Atomic>(0, 12));
        // Runs of 32, 4, 1 and 16 frames, in words far apart.
        for (pfn, order) in [(64, 5), (1024, 2), (2051, 0), (3072, 4)] {
            assert_eq!(tree.free::<Atomic>(pfn, order), Ok(()));
        }
        let taken = [0, 1, 0, 0, 3, 5].map(|order| tree.alloc::<Atomic>(order));
        let want = [2051, 1024, 1026, 1027, 3072, 64];
        assert_eq!(taken, want.map(Some));
    });
}

#[test]
fn a_given_block_in_pieces_is_found_beside_a_move_that_stays_open() {
    with_tree(4096, |tree| {
        assert!(tree.alloc_at::<Atomic>(0, 12));
        assert!((0..64).all(|pfn| tree.free::<Atomic>(pfn, 0).is_ok()));
        tree.moves.begin::<Atomic>(); // say, at frame 2048, by a CPU that was stopped
        assert!(tree.try_alloc_at::<Atomic>(0, 6).is_some(), "in one attempt");
        assert_eq!(tree.free::<Atomic>(0, 6), Ok(()));
        assert!(tree.alloc_at::<Atomic>(0, 6));
        assert!(!tree.alloc_at::<Atomic>(2048, 0));
    });
}
