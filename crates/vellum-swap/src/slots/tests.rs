//! Slots against a model, beside each other on threads, and at their ends.

use super::*;
use crate::fixtures::Records;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;

#[test]
fn records_that_do_not_fit_are_refused() {
    let records = Records::new(513);
    let few = Slots::new(&records.slots, &records.clusters[..1]).unwrap_err();
    assert_eq!(few, SizeError::Clusters { needed: 2, lent: 1 });
    let slots = records.slots();
    let slot = slots.take(0).unwrap();
    let again = Slots::new(&records.slots, &records.clusters).unwrap_err();
    assert_eq!(again, SizeError::InUse);
    assert_eq!(slots.put(slot), Left::Free { whole: true });
}

#[test]
fn every_slot_is_taken_once_and_then_none() {
    for len in [1, 63, 64, 65, 511, 512, 513, 1500] {
        let records = Records::new(len);
        let slots = records.slots();
        assert_eq!(slots.count_free(), len);
        let mut taken: Vec<u32> = core::iter::from_fn(|| slots.take(0)).collect();
        taken.sort_unstable();
        let all: Vec<u32> = (0..u32::try_from(len).unwrap()).collect();
        assert_eq!(taken, all);
        assert_eq!((slots.take(1), slots.count_free()), (None, 0));
    }
    let none = Records::new(0);
    assert_eq!(none.slots().take(0), None);
    assert!(none.slots().is_empty());
}

#[test]
fn who_takes_one_after_the_other_gets_neighbours_and_another_cpu_its_own_cluster() {
    let records = Records::new(2048);
    let slots = records.slots();
    assert_eq!((slots.take(0), slots.take(0), slots.take(0)), (Some(0), Some(1), Some(2)));
    // The first cluster is begun; a second CPU shares it, for its lane begins there.
    let full: Vec<u32> = core::iter::from_fn(|| slots.take(0)).take(509).collect();
    assert_eq!(full.last(), Some(&511));
    assert_eq!(slots.take(0), Some(512), "a cluster that is free as a whole");
    assert_eq!(slots.take(1), Some(1024), "another one, since the second is begun");
    assert_eq!((slots.take(0), slots.take(1)), (Some(513), Some(1025)), "each goes on in its own");
}

#[test]
fn a_slot_lasts_as_long_as_its_shares() {
    let records = Records::new(10);
    let slots = records.slots();
    let slot = slots.take(0).unwrap();
    slots.set_tag(slot, 77);
    assert!(slots.share(slot));
    assert_eq!((slots.count(slot), slots.tag(slot)), (2, 77));
    assert_eq!(slots.put(slot), Left::Shared);
    assert_eq!(slots.put(slot), Left::Free { whole: false }, "ten slots are no whole cluster");
    assert_eq!((slots.count(slot), slots.tag(slot)), (0, 0), "nothing is told of what was there");
    assert!(!slots.share(slot));
    assert_eq!(slots.put(slot), Left::Unowned);
    assert_eq!(slots.take(0), Some(slot));
    for none in [10, u32::MAX] {
        assert_eq!((slots.share(none), slots.put(none)), (false, Left::Unowned));
    }
}

#[test]
fn a_bad_slot_is_never_taken_again() {
    let records = Records::new(66);
    let slots = records.slots();
    assert!(slots.spoil_free(65) && !slots.spoil_free(65) && !slots.spoil_free(66));
    let slot = slots.take(0).unwrap();
    assert!(slots.share(slot) && !slots.spoil(slot), "somebody else names it");
    assert_eq!(slots.put(slot), Left::Shared);
    assert!(slots.spoil(slot));
    assert_eq!((slots.put(slot), slots.share(slot)), (Left::Unowned, false));
    assert_eq!(core::iter::from_fn(|| slots.take(0)).count(), 64);
}

#[test]
fn a_cluster_is_discarded_only_if_it_is_free_as_a_whole_and_nobody_takes_meanwhile() {
    let records = Records::new(600);
    let slots = records.slots();
    let slot = slots.take(0).unwrap();
    assert!(!slots.discard(0, |_, _| panic!("a slot is in use")));
    assert_eq!(slots.put(slot), Left::Free { whole: true });
    let mut told = None;
    assert!(slots.discard(0, |first, len| {
        told = Some((first, len));
        let others: Vec<u32> = core::iter::from_fn(|| slots.take(0)).collect();
        assert_eq!(others.len(), 88, "the slots of the other cluster");
        assert!(others.iter().all(|&slot| slot >= 512));
    }));
    assert_eq!((told, slots.count_free()), (Some((0, 512)), 512));
    assert!(!slots.discard(1, |_, _| panic!("it is in use, and no whole cluster")));
    assert!(!slots.discard(2, |_, _| panic!("there is none")));
}

#[test]
fn threads_that_take_and_put_never_have_the_same_slot() {
    let records = Records::new(700);
    let slots = records.slots();
    let owners: Vec<AtomicU32> = core::iter::repeat_with(AtomicU32::default).take(700).collect();
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    std::thread::scope(|scope| {
        for cpu in 0..3 {
            let (slots, owners) = (&slots, &owners);
            scope.spawn(move || {
                let mut mine = Vec::new();
                for round in 0..rounds {
                    if round % 3 != 2 {
                        // So many that all are in use now and then.
                        if let Some(slot) = slots.take(cpu) {
                            assert_eq!(owners[slot as usize].swap(1, Relaxed), 0);
                            mine.push(slot);
                        }
                    } else if let Some(slot) = mine.pop() {
                        owners[slot as usize].store(0, Relaxed);
                        assert!(matches!(slots.put(slot), Left::Free { .. }));
                    }
                }
                for slot in mine {
                    owners[slot as usize].store(0, Relaxed);
                    assert!(matches!(slots.put(slot), Left::Free { .. }));
                }
            });
        }
    });
    assert_eq!(slots.count_free(), 700);
}

proptest! {
    #[test]
    fn slots_do_what_a_map_of_shares_does(
        len in 1..1200usize,
        steps in prop::collection::vec((0..5u8, any::<prop::sample::Index>(), 0..4usize), 1..300),
    ) {
        let records = Records::new(len);
        let slots = records.slots();
        let mut model: BTreeMap<u32, u32> = BTreeMap::new();
        for (step, at, cpu) in steps {
            let some = u32::try_from(at.index(len)).unwrap();
            let known = model.get(&some).copied();
            match step {
                0 | 1 => {
                    let taken = slots.take(cpu);
                    prop_assert_eq!(taken.is_some(), model.len() < len);
                    if let Some(slot) = taken {
                        prop_assert_eq!(model.insert(slot, 1), None);
                    }
                }
                2 => {
                    prop_assert_eq!(slots.share(some), known.is_some());
                    model.entry(some).and_modify(|count| *count += 1);
                }
                3 => match (slots.put(some), known) {
                    (Left::Unowned, None) => {}
                    (Left::Shared, Some(2..)) => *model.get_mut(&some).unwrap() -= 1,
                    (Left::Free { .. }, Some(1)) => {
                        model.remove(&some);
                    }
                    wrong => prop_assert!(false, "{:?}", wrong),
                },
                _ => {
                    let cluster = some / CLUSTER;
                    let first = cluster * CLUSTER;
                    let used = model.range(first..first + CLUSTER).next().is_some();
                    let whole = (first + CLUSTER) as usize <= len;
                    prop_assert_eq!(slots.discard(cluster, |_, _| ()), whole && !used);
                }
            }
            prop_assert_eq!(slots.count_free(), len - model.len());
            prop_assert_eq!(slots.count(some), model.get(&some).copied().unwrap_or(0));
        }
    }
}
