use super::*;
use crate::{Asid, Keys, Notes, Sequence};
use std::vec::Vec;
use vellum_core::{Memory, Ref, VirtAddr};
use vellum_testkit::pause::at_each_moment;
use vellum_testkit::{Arena, Pause, Stopped};

/// A sequence lock, a head, and up to 120 nodes, in one frame.
struct Yard<M: Memory> {
    memory: M,
    frame: PhysAddr,
}

impl<M: Memory> Yard<M> {
    fn new(memory: M) -> Self {
        let frame = crate::word::alloc_zeroed(&memory, 0).unwrap();
        Self { memory, frame }
    }

    fn sequence(&self) -> Sequence<'_, M> {
        // SAFETY: the frame's first word is nothing else, and stays for as long as the yard.
        unsafe { Sequence::new(&self.memory, self.frame) }
    }

    fn head(&self) -> u64 {
        // SAFETY: the frame's second word.
        unsafe { load(&self.memory, self.frame.wrapping_add(8)) }
    }

    fn set_head(&self, link: u64) {
        // SAFETY: the frame's second word.
        unsafe { store(&self.memory, self.frame.wrapping_add(8), link) }
    }

    fn node(&self, n: u64) -> Node<'_, M> {
        // SAFETY: the rest of the frame is nodes of 32 bytes.
        unsafe { Node::new(&self.memory, self.frame.wrapping_add(64 + n * 32)) }
    }

    /// A chain of pages 0 to `n - 1`, the last of them first.
    fn fill(&self, n: u64) {
        for i in 0..n {
            self.node(i).fill(key(i), self.head(), 100 + i);
            self.set_head(self.node(i).at().as_u64());
        }
    }

    fn find(&self, n: u64) -> Option<Found<'_, M>> {
        // SAFETY: nobody else is here, and the head leads to nodes of the frame.
        unsafe { find(&self.memory, self.head(), key(n)) }
    }

    fn look(&self, n: u64, notes: &mut impl Note) -> Option<u64> {
        let version = self.sequence().begin();
        // SAFETY: read since, and nodes are those of the frame.
        unsafe { look(&self.memory, &version, self.head(), key(n), notes) }
    }
}

impl<M: Memory> Drop for Yard<M> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`, and no node outlives the yard.
        unsafe { self.memory.free(self.frame, 0) };
    }
}

fn key(page: u64) -> Key {
    Key::new(Asid::new(5).unwrap(), VirtAddr::new(page << 12))
}

#[test]
fn a_node_is_found_with_the_one_before() {
    let arena = Arena::new(1);
    let yard = Yard::new(&arena);
    yard.fill(3);
    for n in 0..3 {
        let found = yard.find(n).unwrap();
        assert_eq!((found.node.at(), found.node.raw()), (yard.node(n).at(), 100 + n));
        let before = (n < 2).then(|| yard.node(n + 1).at());
        assert_eq!(found.before.map(|node| node.at()), before);
    }
    assert!(yard.find(3).is_none());
    let mut lowest = Lowest::new(Keys::all(Asid::new(5).unwrap()));
    // SAFETY: nobody else is here.
    unsafe { offer(&yard.memory, yard.head(), &mut lowest) };
    assert_eq!(lowest.held(), [(key(0), 100), (key(1), 101), (key(2), 102)]);
}

#[test]
fn a_walk_tells_of_every_node_once_however_long_the_chain() {
    for n in [0, 1, 15, 16, 17, 32, 33, 50] {
        let arena = Arena::new(1);
        let yard = Yard::new(&arena);
        yard.fill(n);
        // Page 0 is the last of the chain, page `n` is not in it.
        for (page, raw) in [(0, if n > 0 { 100 } else { 0 }), (n, 0)] {
            let mut told = Vec::new();
            let mut sink = |r: Ref| told.push((r.pa, r.bytes));
            let found = Notes::told(&mut sink, |notes| yard.look(page, notes).unwrap());
            assert_eq!(found, raw);
            let bytes = |i| if i == page { HIT_BYTES } else { MISS_BYTES };
            let expected = (0..n).rev().map(|i| (yard.node(i).at(), bytes(i)));
            assert_eq!(told, expected.collect::<Vec<_>>());
            assert_eq!(yard.look(page, &mut ()), Some(raw));
        }
    }
}

#[test]
fn a_look_up_goes_no_further_when_somebody_has_written() {
    let arena = Arena::new(1);
    let yard = Yard::new(&arena);
    yard.fill(2);
    let version = yard.sequence().begin();
    drop(yard.sequence().hold());
    // A node that was freed, and holds another thing than a link.
    yard.node(1).set(Words { tag: 0, next: 8, raw: 0 });
    let first = yard.node(1).at().as_u64();
    // SAFETY: the version is not current, so that what the node holds is not followed.
    let found = unsafe { look(&yard.memory, &version, first, key(0), &mut ()) };
    assert_eq!(found, None);
}

/// Looks page `n` of three up while the node of page `gone` is taken out, at each moment of that, and
/// made something else; what it found, and never a link that is none.
fn while_a_node_goes(n: u64, gone: u64, then: Words, mut found: impl FnMut(u64)) {
    at_each_moment(|moment| {
        let (arena, pause) = (Arena::new(1), Pause::new());
        let yard = Yard::new(Stopped(&arena, &pause));
        yard.fill(3);
        let look = || core::iter::repeat_with(|| yard.look(n, &mut ())).find_map(|raw| raw);
        let (raw, came) = pause.at(moment, look, || {
            let _held = yard.sequence().hold();
            let Found { node, before } = yard.find(gone).unwrap();
            match before {
                Some(before) => before.set_next(node.next()),
                None => yard.set_head(node.next()),
            }
            node.set(then);
        });
        found(raw.unwrap());
        came
    });
}

#[test]
fn a_look_up_is_right_whenever_a_node_goes_and_is_used_again() {
    // In another chain; in no chain, with a number where its link was.
    let elsewhere = Words { tag: key(7).tag(), next: 0, raw: 777 };
    for then in [elsewhere, Words { next: 8, ..elsewhere }, Words { tag: 0, next: 8, raw: 0 }] {
        for (n, gone) in (0..3).flat_map(|n| [(n, 0), (n, 1), (n, 2)]) {
            while_a_node_goes(n, gone, then, |raw| {
                assert!(raw == 100 + n || n == gone && raw == 0, "{raw} of page {n}, not {gone}");
            });
        }
        // A page that is nowhere.
        (0..3).for_each(|gone| while_a_node_goes(5, gone, then, |raw| assert_eq!(raw, 0)));
    }
}

/// A node is one page's and another's in turns, each with its own entry.
#[test]
fn nobody_gets_the_entry_of_another_page() {
    let rounds = if cfg!(miri) { 5 } else { 200_000 };
    let arena = Arena::new(1);
    let yard = Yard::new(&arena);
    yard.fill(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..rounds {
                let _held = yard.sequence().hold();
                let n = round % 2;
                yard.node(0).fill(key(n), 0, 100 + n);
            }
        });
        for n in 0..2 {
            let yard = &yard;
            scope.spawn(move || {
                for _ in 0..rounds {
                    let raw = yard.look(n, &mut ());
                    assert!([None, Some(0), Some(100 + n)].contains(&raw), "{raw:?} of page {n}");
                }
            });
        }
    });
}
