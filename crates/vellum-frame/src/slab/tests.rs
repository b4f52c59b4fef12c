//! The slab beside a hash map, and every frame back at the end.

use super::Slab;
use proptest::prelude::*;
use std::collections::HashMap;
use std::vec::Vec;
use vellum_core::OutOfFrames;
use vellum_testkit::Arena;

/// An object of `N` words that says which one it is, in each.
fn object<const N: usize>(n: u64) -> [u64; N] {
    core::array::from_fn(|i| n.wrapping_mul(0x9e37_79b9).wrapping_add(i as u64))
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64),
    Remove(usize),
    Change(usize, u64),
    Reserve(u32),
    Release,
    Shrink,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => any::<u64>().prop_map(Op::Insert),
        6 => any::<usize>().prop_map(Op::Remove),
        2 => (any::<usize>(), any::<u64>()).prop_map(|(at, n)| Op::Change(at, n)),
        1 => (0..40u32).prop_map(Op::Reserve),
        1 => Just(Op::Release),
        1 => Just(Op::Shrink),
    ]
}

/// Runs the operations on objects of `N` words; allocations fail from the `budget`th on.
fn run<const N: usize>(ops: &[Op], budget: u64) {
    let arena = Arena::new(128);
    arena.limit_allocations(Some(budget));
    let mut slab = Slab::new(&arena);
    let mut model: Vec<(u32, [u64; N])> = Vec::new();
    let mut promised = 0u32;
    for op in ops {
        match *op {
            Op::Insert(n) => match slab.insert(object(n)) {
                Ok(index) => {
                    assert!(model.iter().all(|&(other, _)| other != index), "{index} is taken");
                    model.push((index, object(n)));
                    promised = promised.saturating_sub(1);
                }
                Err(OutOfFrames { order: 0 }) => assert_eq!(promised, 0, "{slab:?}"),
                Err(other) => panic!("{other}"),
            },
            Op::Remove(at) if !model.is_empty() => {
                let (index, value) = model.swap_remove(at % model.len());
                assert_eq!(slab.remove(index), Some(value));
                assert_eq!(slab.remove(index), None);
            }
            Op::Change(at, n) if !model.is_empty() => {
                let chosen = at % model.len();
                let (index, value) = &mut model[chosen];
                *value = object(n);
                slab.with_mut(*index, |place| *place = object(n)).unwrap();
            }
            Op::Reserve(n) if slab.reserve(n).is_ok() => promised = promised.max(n),
            Op::Release => {
                slab.release();
                promised = 0;
            }
            Op::Shrink => {
                slab.shrink();
                promised = 0;
            }
            _ => {}
        }
        assert_eq!(slab.len() as usize, model.len());
        assert_eq!(slab.bytes(), arena.frames_in_use() << 12);
        for &(index, value) in &model {
            assert_eq!(slab.with(index, |place| *place), Some(value));
        }
    }
    drop(slab);
    assert_eq!(arena.frames_in_use(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 256 }))]

    #[test]
    fn objects_stay_what_they_are_until_they_go(
        ops in prop::collection::vec(op(), 0..if cfg!(miri) { 24 } else { 300 }),
        budget in 0..60u64,
    ) {
        run::<1>(&ops, budget);
        run::<9>(&ops, budget);
        run::<63>(&ops, budget);
        run::<300>(&ops, budget);
    }
}

#[test]
fn indices_that_were_never_given_out_name_nothing() {
    let arena = Arena::new(64);
    let mut slab = Slab::new(&arena);
    assert_eq!(slab.with(0, |_: &[u64; 100]| ()), None);
    let index = slab.insert([1u64; 100]).unwrap();
    // Five slots, whose numbers have three bits; the others were never used.
    assert_eq!(slab.insert([2; 100]), Ok(1));
    let named = (0..64).filter(|&at| slab.with(at, |_| ()).is_some()).count();
    assert_eq!((index, named), (0, 2));
    for never in [2, 5, 8, 1 << 20, u32::MAX] {
        assert_eq!(slab.with_mut(never, |_| ()), None);
        assert_eq!(slab.remove(never), None);
        assert_eq!(slab.with_pair(index, never, |_, _| ()), None);
    }
    assert_eq!(slab.with_pair(index, index, |_, _| ()), None);
    // A slot that was freed holds a value, but none to be removed.
    assert!(slab.remove(1).is_some() && slab.with(1, |_| ()).is_some());
    assert_eq!(slab.remove(1), None);
    // Reserved, but not used yet.
    slab.reserve(50).unwrap();
    assert_eq!(slab.with(8, |_| ()), None);
}

#[test]
fn two_objects_can_be_changed_at_once() {
    let arena = Arena::new(64);
    let mut slab = Slab::new(&arena);
    let indices: Vec<_> = (0..40u64).map(|n| slab.insert([n; 60]).unwrap()).collect();
    for pair in indices.windows(2) {
        slab.with_pair(pair[0], pair[1], core::mem::swap).unwrap();
    }
    let first = slab.with(indices[39], |object| object[0]);
    assert_eq!(first, Some(0));
}

#[test]
fn a_slab_of_many_frames_finds_each() {
    // 256 entries a directory frame: past the first level of it.
    let count = if cfg!(miri) { 258 } else { 4000 };
    let arena = Arena::new(count + 64);
    let mut slab = Slab::new(&arena);
    let mut found = HashMap::new();
    for n in 0..count as u64 {
        found.insert(slab.insert([n; 500]).unwrap(), n);
    }
    for (&index, &n) in &found {
        assert_eq!(slab.with(index, |object| object[499]), Some(n));
    }
    assert_eq!(slab.bytes(), arena.frames_in_use() << 12);
    for index in found.into_keys() {
        slab.remove(index).unwrap();
    }
    // One that is empty stays.
    assert!(slab.is_empty() && slab.frames == 1, "{slab:?}");
    slab.shrink();
    assert_eq!(arena.frames_in_use(), 0);
    slab.insert([7; 500]).unwrap();
    drop(slab);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn a_promise_outlives_removals() {
    let arena = Arena::new(64);
    let mut slab = Slab::new(&arena);
    let indices: Vec<_> = (0..30u64).map(|n| slab.insert([n; 100]).unwrap()).collect();
    slab.reserve(60).unwrap();
    arena.limit_allocations(Some(0));
    for index in indices {
        slab.remove(index).unwrap();
    }
    for n in 0..60 {
        slab.insert([n; 100]).unwrap();
    }
}

#[test]
fn a_reservation_that_fails_gives_back_what_it_took() {
    let arena = Arena::new(64);
    let mut slab = Slab::new(&arena);
    slab.insert([0u64; 500]).unwrap();
    let before = arena.frames_in_use();
    arena.limit_allocations(Some(10));
    assert_eq!(slab.reserve(20), Err(OutOfFrames { order: 0 }));
    // But for one that is kept as the spare, and the directory.
    assert_eq!(arena.frames_in_use(), before + 2);
    slab.shrink();
    assert_eq!(arena.frames_in_use(), before + 1);
    slab.remove(0).unwrap();
    slab.shrink();
    assert_eq!(arena.frames_in_use(), 0);
}
