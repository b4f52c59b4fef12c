use super::*;
use crate::Asid;
use std::vec::Vec;
use vellum_core::{FrameSource, VirtAddr};
use vellum_testkit::Arena;

/// Two heads and up to 120 elements, in one frame.
struct Yard {
    arena: Arena,
    frame: PhysAddr,
}

impl Yard {
    fn new() -> Self {
        let arena = Arena::new(1);
        let frame = crate::word::alloc_zeroed(&arena, 0).unwrap();
        Self { arena, frame }
    }

    fn lock(&self, head: u64) -> Chain<'_, Arena> {
        // SAFETY: the frame's first words are heads that begin as 0, the rest of it is elements,
        // and a test touches them through chains only.
        unsafe { Chain::lock(&self.arena, self.frame.wrapping_add(head * 8)) }
    }

    fn element(&self, n: u64) -> PhysAddr {
        self.frame.wrapping_add(64 + n * 32)
    }

    /// A chain of pages 0 to `n - 1`, the last of them first.
    fn fill(&self, n: u64) {
        let mut chain = self.lock(0);
        for i in 0..n {
            // SAFETY: an element of the frame that is in no chain.
            unsafe { chain.insert(self.element(i), key(i), 100 + i) };
        }
    }

    fn pages(&self, head: u64) -> Vec<u64> {
        let chain = self.lock(head);
        let tags = chain.elements().map(|at| chain.load(at, TAG));
        tags.map(|tag| Key::from_tag(tag).unwrap().va().number().as_u64()).collect()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, and no chain outlives the yard.
        unsafe { self.arena.free(self.frame, 0) };
    }
}

fn key(page: u64) -> Key {
    Key::new(Asid::new(5).unwrap(), VirtAddr::new(page << 12))
}

#[test]
fn elements_can_be_taken_out_anywhere() {
    for gone in 0..3 {
        let yard = Yard::new();
        yard.fill(3);
        {
            let mut chain = yard.lock(0);
            let found = chain.find(key(gone), |_| {}).unwrap();
            assert_eq!((found.at, found.pte), (yard.element(gone), 100 + gone));
            // SAFETY: found in this chain just now.
            unsafe { chain.unlink(&found) };
            assert!(chain.find(key(gone), |_| {}).is_none());
        }
        let left: Vec<_> = [2, 1, 0].into_iter().filter(|&n| n != gone).collect();
        assert_eq!(yard.pages(0), left);
    }
}

#[test]
fn a_chain_splits_and_joins_again() {
    let yard = Yard::new();
    yard.fill(9);
    let even = |key: Key| key.va().number().as_u64() & 1 == 0;
    {
        let moved = yard.lock(0).split_off(even);
        let mut second = yard.lock(1);
        second.head = moved;
    }
    assert_eq!(yard.pages(0), [7, 5, 3, 1]);
    let mut moved = yard.pages(1);
    moved.sort_unstable();
    assert_eq!(moved, [0, 2, 4, 6, 8]);
    // SAFETY: both chains are of one arena.
    unsafe { yard.lock(0).absorb(&mut yard.lock(1)) };
    assert_eq!(yard.pages(1), []);
    let mut all = yard.pages(0);
    all.sort_unstable();
    assert_eq!(all, (0..9).collect::<Vec<_>>());
    // SAFETY: both chains are of one arena.
    unsafe { yard.lock(0).absorb(&mut yard.lock(1)) };
    assert_eq!(yard.lock(0).count(), 9, "nothing to absorb");
}

#[test]
fn a_walk_tells_of_every_element_once_however_long_the_chain() {
    for n in [0, 1, 15, 16, 17, 32, 33, 50] {
        let yard = Yard::new();
        yard.fill(n);
        // Page 0 is the last of the chain, page `n` is not in it.
        for (page, raw) in [(0, if n > 0 { 100 } else { 0 }), (n, 0)] {
            let mut told = Vec::new();
            let found = Trail::walk(key(page), &mut |r: Ref| told.push(r), || yard.lock(0));
            assert_eq!(found, raw);
            let mut expected = std::vec![(yard.frame, HEAD_BYTES)];
            expected.extend(
                (0..n)
                    .rev()
                    .map(|i| (yard.element(i), if i == page { HIT_BYTES } else { MISS_BYTES })),
            );
            assert_eq!(told.iter().map(|r| (r.pa, r.bytes)).collect::<Vec<_>>(), expected);
            assert!(told.iter().all(|r| r.span == 12 && !r.parallel));
            assert_eq!(Trail::walk(key(page), &mut (), || yard.lock(0)), raw);
        }
    }
}

#[test]
fn a_sink_may_take_its_time_without_the_lock() {
    let yard = Yard::new();
    yard.fill(3);
    let mut lengths = Vec::new();
    // Locking the chain from within the sink would hang if the walk still held it.
    let mut sink = |_: Ref| lengths.push(yard.lock(0).count());
    Trail::walk(key(1), &mut sink, || yard.lock(0));
    assert_eq!(lengths, [3, 3, 3]);
}
