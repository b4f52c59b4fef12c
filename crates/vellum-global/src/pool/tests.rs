use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::thread;
use std::vec::Vec;
use vellum_testkit::Arena;

/// Nodes in a frame of those of 24 bytes.
const NODES: u64 = 170;

/// Takes `n` nodes out, one by one.
fn take<'p>(pool: &'p Pool<&Arena>, nodes: &mut Nodes<'p, &'p Arena>, n: u64) -> Vec<PhysAddr>
where
{
    (0..n)
        .map(|_| {
            if nodes.count() == 0 {
                nodes.refill(pool, 1).unwrap();
            }
            nodes.take(pool).unwrap()
        })
        .collect()
}

fn put<'p>(pool: &'p Pool<&Arena>, nodes: &mut Nodes<'p, &'p Arena>, all: Vec<PhysAddr>) {
    for node in all {
        // SAFETY: taken from this pool by `take`, put back once, and linked nowhere.
        unsafe { nodes.put(pool, node) };
    }
}

#[test]
fn a_frame_is_filled_by_nodes_that_do_not_overlap() {
    let arena = Arena::new(8);
    for (bytes, nodes_in_frame) in [(1, 255), (24, 170), (64, 63), (144, 28), (9999, 2)] {
        let pool = Pool::keeping(&arena, bytes);
        let bytes = pool.node_bytes();
        assert_eq!(pool.nodes_in_frame(), nodes_in_frame);
        let mut nodes = Nodes::new(&pool);
        let mut all = take(&pool, &mut nodes, 2 * nodes_in_frame);
        assert_eq!((pool.count_frames(), arena.frames_in_use()), (2, 2));
        all.sort();
        for pair in all.windows(2) {
            let gap = pair[1].checked_sub(pair[0]).unwrap();
            assert!(gap >= bytes, "{pair:?}");
        }
        for node in all.iter().map(|node| node.as_u64() % PAGE_SIZE) {
            assert!(node >= HEADER && node + bytes <= PAGE_SIZE, "{node} of {bytes} bytes");
        }
        put(&pool, &mut nodes, all);
    }
}

#[test]
fn nodes_of_a_line_are_lines() {
    let arena = Arena::new(8);
    let pool = Pool::keeping(&arena, 64);
    let mut nodes = Nodes::new(&pool);
    let all = take(&pool, &mut nodes, 63);
    assert!(all.iter().all(|node| node.is_aligned(6)));
    put(&pool, &mut nodes, all);
}

#[test]
fn a_pool_that_keeps_its_frames_uses_them_again() {
    let arena = Arena::new(16);
    let mut pool = Pool::keeping(&arena, NODE_BYTES);
    for _ in 0..3 {
        let mut nodes = Nodes::new(&pool);
        let all = take(&pool, &mut nodes, 5 * NODES + 1);
        assert_eq!(arena.frames_in_use(), 6);
        put(&pool, &mut nodes, all);
        drop(nodes);
        assert_eq!((pool.count_frames(), arena.frames_in_use()), (6, 6), "somebody may read them");
    }
    let mut nodes = Nodes::new(&pool);
    let one = take(&pool, &mut nodes, 1);
    // SAFETY: nobody reads nodes here.
    unsafe { pool.reclaim() };
    assert_eq!(arena.frames_in_use(), 1, "one has a node in use");
    put(&pool, &mut nodes, one);
    drop(nodes);
    pool.trim();
    assert_eq!((pool.count_frames(), arena.frames_in_use()), (0, 0));
}

#[test]
fn empty_frames_go_back_but_for_one() {
    let arena = Arena::new(16);
    let mut pool = Pool::new(&arena);
    let mut nodes = Nodes::new(&pool);
    let all = take(&pool, &mut nodes, 5 * NODES + 1);
    assert_eq!(arena.frames_in_use(), 6);
    put(&pool, &mut nodes, all);
    drop(nodes);
    assert_eq!((pool.count_frames(), arena.frames_in_use()), (1, 1));
    pool.trim();
    assert_eq!((pool.count_frames(), arena.frames_in_use()), (0, 0));
    let mut nodes = Nodes::new(&pool);
    nodes.refill(&pool, 1).unwrap();
    assert_eq!(arena.frames_in_use(), 1);
}

#[test]
fn a_refill_without_memory_keeps_what_there_is() {
    let arena = Arena::new(8);
    let pool = Pool::new(&arena);
    let mut first = Nodes::new(&pool);
    first.refill(&pool, 160).unwrap();
    arena.limit_allocations(Some(0));
    let mut second = Nodes::new(&pool);
    assert_eq!(second.refill(&pool, 11), Err(OutOfFrames { order: 0 }));
    assert_eq!(second.count(), 10);
    assert_eq!(second.refill(&pool, 10), Ok(()));
    drop(first);
    assert_eq!(second.refill(&pool, 11), Ok(()));
    assert_eq!(arena.frames_in_use(), 1);
}

#[test]
fn a_refill_brings_twice_as_much_as_the_last_but_no_frame_that_is_not_needed() {
    let arena = Arena::new(8);
    let pool = Pool::new(&arena);
    let (mut first, mut second) = (Nodes::new(&pool), Nodes::new(&pool));
    first.refill(&pool, 165).unwrap();
    for count in [1, 2, 4, 5] {
        second.refill(&pool, 1).unwrap();
        assert_eq!((second.count(), arena.frames_in_use()), (count, 1));
    }
    second.refill(&pool, 6).unwrap();
    assert_eq!((second.count(), arena.frames_in_use()), (Nodes::<&Arena>::BATCH, 2));
    assert_eq!(second.brings(1), Nodes::<&Arena>::BATCH);
}

#[test]
fn nodes_of_another_pool_are_told_apart() {
    let arena = Arena::new(8);
    let (mut one, two) = (Pool::new(&arena), Pool::new(&arena));
    let mut nodes = Nodes::new(&one);
    nodes.refill(&one, 1).unwrap();
    let node = nodes.take(&one).unwrap();
    assert_eq!(nodes.take(&two), None);
    nodes.refill(&two, 1).unwrap();
    assert_eq!(nodes.take(&one), None);
    // SAFETY: taken from pool one above, and linked nowhere.
    unsafe { nodes.put(&one, node) };
    drop(nodes);
    one.trim();
    assert_eq!((one.count_frames(), two.count_frames()), (0, 1), "each has its own back");
}

#[test]
fn a_pool_that_goes_takes_nodes_in_use_with_it() {
    let arena = Arena::new(8);
    let pool = Pool::new(&arena);
    let mut nodes = Nodes::new(&pool);
    let _ = take(&pool, &mut nodes, 400);
    core::mem::forget(nodes);
    drop(pool);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn frame_zero_is_a_frame() {
    let arena = Arena::at(PhysAddr::new(0), 4);
    let mut pool = Pool::new(&arena);
    let mut nodes = Nodes::new(&pool);
    let all = take(&pool, &mut nodes, 3 * NODES);
    assert!(all.iter().any(|node| node.as_u64() < PAGE_SIZE));
    put(&pool, &mut nodes, all);
    drop(nodes);
    pool.trim();
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn no_node_is_in_two_hands() {
    let (threads, rounds) = if cfg!(miri) { (2, 4) } else { (4, 400) };
    let arena = Arena::new(64);
    let mut pool = Pool::new(&arena);
    thread::scope(|scope| {
        for me in 1..=threads {
            let (pool, arena) = (&pool, &arena);
            scope.spawn(move || {
                let mut nodes = Nodes::new(pool);
                for round in 0..rounds {
                    let held = take(pool, &mut nodes, 20 + round % 30);
                    for &node in &held {
                        // SAFETY: the node is this thread's.
                        unsafe { store(&arena, node, me) };
                    }
                    for &node in &held {
                        // SAFETY: likewise.
                        assert_eq!(unsafe { load(&arena, node) }, me);
                    }
                    put(pool, &mut nodes, held);
                }
            });
        }
    });
    pool.trim();
    assert_eq!((pool.count_frames(), arena.frames_in_use()), (0, 0));
}

proptest! {
    #![proptest_config(vellum_testkit::suite::config(64))]

    #[test]
    fn what_comes_out_is_out_once(
        steps in prop::collection::vec((any::<bool>(), 1..200u64), 1..if cfg!(miri) { 4 } else { 40 }),
    ) {
        let arena = Arena::new(256);
        let pool = Pool::new(&arena);
        let mut nodes = Nodes::new(&pool);
        let mut out = BTreeSet::new();
        for (taking, n) in steps {
            if taking {
                for node in take(&pool, &mut nodes, n) {
                    prop_assert!(out.insert(node), "{node} was out already");
                }
            } else {
                // From the middle, so that frames become partial in any order.
                let some = out.iter().copied().skip(out.len() / 3).take(n as usize);
                let some: Vec<_> = some.collect();
                some.iter().for_each(|node| _ = out.remove(node));
                put(&pool, &mut nodes, some);
            }
            prop_assert_eq!(pool.count_frames(), arena.frames_in_use());
            let frames = out.iter().map(|node| node.number()).collect::<BTreeSet<_>>().len() as u64;
            let held = u64::from(nodes.count());
            prop_assert!(pool.count_frames() <= frames + held + 1, "empty frames were kept");
        }
    }
}
