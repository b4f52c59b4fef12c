//! CPUs that charge ahead.

use super::{Frames, drain, frames};
use crate::FreeError;
use crate::zones::{Class, Marks, Request, Tally, Through, Urgency, Zone, ZoneError, Zones};
use proptest::prelude::*;
use proptest::sample::Index;
use std::thread;
use std::vec::Vec;
use vellum_core::PhysAddr;

/// The most that a tally hides of a zone.
const HIDDEN: u64 = 64;

fn two() -> Zones<Frames, 2> {
    let zones = Zones::new([
        Zone::new(frames(0, 200), Class::Dma32).keep_ratio(10),
        Zone::new(frames(0x1000, 300), Class::Normal),
    ]);
    zones.recount();
    zones.set_marks(0, Marks::new(5, 10, 15));
    zones.set_marks(1, Marks::new(20, 40, 60));
    zones
}

fn by<'a>(zones: &'a Zones<Frames, 2>, tally: &'a Tally<2>) -> Through<'a, Frames, 2> {
    zones.through([0, 1].map(|zone| *zones.source(zone).expect("two zones"))).with_tally(tally)
}

#[derive(Clone, Debug)]
enum Op {
    Alloc(u8, Urgency),
    Free(Index),
    WrongFree(u8),
    Flush,
}

fn op() -> impl Strategy<Value = Op> {
    let urgencies = [Urgency::Normal, Urgency::Atomic, Urgency::Emergency];
    let urgency = prop::sample::select(urgencies.to_vec());
    let order = prop_oneof![6 => Just(0u8), 2 => 1u8..4, 1 => 4u8..9];
    prop_oneof![
        6 => (order, urgency).prop_map(|(order, urgency)| Op::Alloc(order, urgency)),
        4 => any::<Index>().prop_map(Op::Free),
        1 => (0u8..10).prop_map(Op::WrongFree),
        1 => Just(Op::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 3 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// What is counted and what is charged ahead is what is free; a request leaves its floor; and
    /// who is refused would not have been without tallies, but for what they hide.
    #[test]
    fn tallies_hide_a_little_and_lose_nothing(
        ops in prop::collection::vec((0usize..2, op()), 1..if cfg!(miri) { 60 } else { 400 }),
    ) {
        let zones = two();
        let tallies = [Tally::new(), Tally::new()];
        let mut held: Vec<(PhysAddr, u8)> = Vec::new();
        for (cpu, op) in ops {
            let here = by(&zones, &tallies[cpu]);
            match op {
                Op::Alloc(order, urgency) => {
                    let floors = match urgency {
                        Urgency::Normal => [5 + 30, 20],
                        Urgency::Atomic => [2 + 30, 10],
                        _ => [0, 0],
                    };
                    match here.alloc(Request::new(order).urgency(urgency)) {
                        Ok(pa) => {
                            let zone = zones.zone_of(pa).expect("a zone");
                            let left = zones.source(zone).expect("a zone").stats().free;
                            prop_assert!(left >= floors[zone], "{} left in {}", left, zone);
                            held.push((pa, order));
                        }
                        Err(error) => {
                            let no_zone = matches!(error, ZoneError::NoZone { .. });
                            prop_assert!(!no_zone);
                            prop_assert_eq!((tallies[cpu].ahead(0), tallies[cpu].ahead(1)), (0, 0));
                            for (zone, floor) in floors.into_iter().enumerate() {
                                let stats = zones.source(zone).expect("a zone").stats();
                                let seen = stats.free.saturating_sub(HIDDEN);
                                let enough = seen >= floor + (1 << order);
                                prop_assert!(!enough || stats.available(order) == 0);
                            }
                        }
                    }
                }
                Op::Free(at) if !held.is_empty() => {
                    let (pa, order) = held.swap_remove(at.index(held.len()));
                    // SAFETY: taken out of the list of what is held.
                    prop_assert_eq!(unsafe { here.free(pa, order) }, Ok(()));
                }
                Op::WrongFree(order) => {
                    if let Some((pa, _)) = zones.source(1).expect("a zone").free_runs().next() {
                        // SAFETY: nothing reaches a free frame.
                        let freed = unsafe { here.free(pa, order) };
                        prop_assert!(freed.is_err());
                    }
                }
                Op::Free(_) => {}
                Op::Flush => here.flush_tally(),
            }
            for zone in 0..2 {
                let counted = zones.level(zone).expect("a zone").free;
                let ahead: u64 = tallies.iter().map(|tally| tally.ahead(zone)).sum();
                let free = zones.source(zone).expect("a zone").stats().free;
                prop_assert_eq!(counted + ahead, free, "zone {}", zone);
                prop_assert!(tallies.iter().all(|tally| tally.ahead(zone) <= HIDDEN));
            }
        }
    }
}

#[test]
fn in_the_usual_case_the_shared_count_is_left_alone() {
    let zones = two();
    let tally = Tally::new();
    let here = by(&zones, &tally);
    let first = here.alloc(Request::new(0)).unwrap();
    let counted = zones.level(1);
    for _ in 0..10 {
        let taken: [PhysAddr; 31] = core::array::from_fn(|_| here.alloc(Request::new(0)).unwrap());
        assert_eq!(zones.level(1), counted);
        for pa in taken {
            // SAFETY: allocated above, and given back once.
            assert_eq!(unsafe { here.free(pa, 0) }, Ok(()));
        }
        assert_eq!(zones.level(1), counted);
    }
    // SAFETY: as above.
    assert_eq!(unsafe { here.free(first, 0) }, Ok(()));
    here.flush_tally();
    assert_eq!(zones.level(1).unwrap().free, 300);
}

#[test]
fn what_was_charged_for_a_block_that_is_not_there_stays_charged_ahead() {
    let zones = Zones::new([Zone::new(frames(0, 200), Class::Normal)]);
    zones.recount();
    let tally = Tally::new();
    let here = zones.through([*zones.source(0).unwrap()]).with_tally(&tally);
    let taken = drain(&here, Request::new(0)).0;
    for &pa in taken.iter().filter(|pa| pa.is_aligned(13)) {
        // SAFETY: allocated above, and given back once.
        assert_eq!(unsafe { here.free(pa, 0) }, Ok(()));
    }
    for order in 1..5 {
        let request = Request::new(order);
        assert_eq!(here.alloc(request), Err(ZoneError::NoBlock { request }), "every other frame");
        assert_eq!(zones.level(0).unwrap().free + tally.ahead(0), 100);
    }
}

#[test]
fn a_handler_on_top_of_a_change_counts_with_everybody() {
    let zones = two();
    let tally = Tally::new();
    let here = by(&zones, &tally);
    let mine = here.alloc(Request::new(0)).unwrap();
    let (ahead, counted) = (tally.ahead(1), zones.level(1).unwrap().free);
    let page = tally.interrupted(|| here.alloc(Request::new(0)).unwrap());
    assert_eq!((tally.ahead(1), zones.level(1).unwrap().free), (ahead, counted - 1));
    // SAFETY: allocated above, and given back once.
    tally.interrupted(|| unsafe { here.free(page, 0) }).unwrap();
    assert_eq!((tally.ahead(1), zones.level(1).unwrap().free), (ahead, counted));
    // SAFETY: as above: the second time nobody has it.
    let twice = tally.interrupted(|| unsafe { here.free(page, 0) });
    assert_eq!(twice, Err(FreeError::DoubleFree { pa: page }));
    assert_eq!((tally.ahead(1), zones.level(1).unwrap().free), (ahead, counted));
    // SAFETY: as above.
    unsafe { here.free(mine, 0) }.unwrap();
}

#[test]
fn cpus_with_tallies_stop_before_the_watermark_and_lose_nothing() {
    for _ in 0..if cfg!(miri) { 2 } else { 100 } {
        let zones = two();
        let tallies = [const { Tally::new() }; 3];
        let taken: Vec<PhysAddr> = thread::scope(|scope| {
            let threads: Vec<_> = tallies
                .iter()
                .map(|tally| {
                    let zones = &zones;
                    scope.spawn(move || {
                        let here = by(zones, tally);
                        let taken = drain(&here, Request::new(0)).0;
                        // A part goes back, for others to take.
                        for &pa in taken.iter().step_by(3) {
                            // SAFETY: allocated above, and given back once.
                            assert_eq!(unsafe { here.free(pa, 0) }, Ok(()));
                        }
                        let kept = (0..).zip(taken).filter(|(at, _)| at % 3 != 0);
                        kept.map(|(_, pa)| pa).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
        });
        tallies.iter().for_each(|tally| by(&zones, tally).flush_tally());
        let free = [0, 1].map(|zone| zones.level(zone).unwrap().free);
        assert!(free[0] >= 35 && free[1] >= 20, "{free:?}");
        assert_eq!(free[0] + free[1] + taken.len() as u64, 500);
        for (zone, free) in free.into_iter().enumerate() {
            assert_eq!(zones.source(zone).unwrap().stats().free, free);
        }
    }
}
