//! Every call with exactly as many frames free as it takes, one fewer, and every number below.
//!
//! ```text
//!   k free frames:   all at one place      every other frame      wherever
//!                    [#####..........]     [#.#.#.#.#.....]       [.##..#..#..]
//! ```
//!
//! Whatever a call says, the frames that are free afterwards are those before without what it
//! returned: what it took on the way to an error is back.

use super::model::{at, fitting};
use super::ways::runs;
use super::{bytes, set_up, storage};
use crate::table::{FrameTable, Spans, TableError};
use crate::zones::{Class, Request, Zone, Zones};
use crate::{AllocRunError, Cache, FrameAllocator, MAX_ORDER};
use core::ptr::NonNull;
use core::sync::atomic::AtomicU64;
use std::boxed::Box;
use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;
use vellum_core::{Pfn, PhysAddr};

/// Frames of the allocator under test: five words, neither end whole.
const FIRST: u64 = 60;
const COUNT: u64 = if cfg!(miri) { 84 } else { 330 };

/// Which frames are free, for a number of them.
const LAYOUTS: [fn(u64, u64) -> bool; 5] = [
    |nth, k| nth < k,
    |nth, k| nth >= COUNT - k,
    // Every other one, then the others.
    |nth, k| nth / 2 + nth % 2 * (COUNT / 2) < k,
    // 37 has no factor in common with either count.
    |nth, k| nth * 37 % COUNT < k,
    // Threes, scattered.
    |nth, k| nth / 3 * 37 % (COUNT / 3) * 3 + nth % 3 < k,
];

/// Runs `test` with an allocator of exactly these free frames.
fn with_free(free: impl Fn(u64) -> bool, test: impl FnOnce(&FrameAllocator<'_>, &BTreeSet<u64>)) {
    let usable = [(bytes(FIRST), bytes(FIRST + COUNT))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    let mut all = vec![at(0); COUNT as usize];
    assert_eq!(frames.alloc_bulk(&mut all) as u64, COUNT);
    let set: BTreeSet<u64> = (0..COUNT).filter(|&nth| free(nth)).map(|nth| FIRST + nth).collect();
    for &pfn in &set {
        // SAFETY: all frames were taken above.
        assert_eq!(unsafe { frames.free(at(pfn), 0) }, Ok(()));
    }
    test(&frames, &set);
}

/// Runs `test` with 0, 1, 2, ... free frames in every layout.
fn in_every_shortage(test: impl Fn(&FrameAllocator<'_>, &BTreeSet<u64>)) {
    let step = if cfg!(miri) { 28 } else { 1 };
    for layout in LAYOUTS {
        for k in (0..=COUNT).step_by(step) {
            with_free(
                |nth| layout(nth, k),
                |frames, set| {
                    assert_eq!(set.len() as u64, k);
                    test(frames, set);
                },
            );
        }
    }
}

fn free_set(frames: &FrameAllocator<'_>) -> BTreeSet<u64> {
    runs(frames).into_iter().flat_map(|(first, count)| first..first + count).collect()
}

/// `before` without `count` frames from `first` on, which were in it.
fn without(before: &BTreeSet<u64>, first: u64, count: u64) -> BTreeSet<u64> {
    let taken: BTreeSet<u64> = (first..first + count).collect();
    assert!(taken.is_subset(before), "{count} frames at {first} were not free");
    before - &taken
}

#[test]
fn a_run_is_found_if_there_is_one_and_nothing_is_lost_if_not() {
    in_every_shortage(|frames, before| {
        let longest = runs(frames).into_iter().map(|run| run.1).max().unwrap_or(0);
        for count in [1, 2, 3, 7, 31, 33, 64, 65, 100, 129, longest, longest + 1, COUNT + 1] {
            match frames.alloc_contiguous(count) {
                Ok(pa) => {
                    assert!(count <= longest);
                    let first = pa.number().as_u64();
                    assert_eq!(free_set(frames), without(before, first, count));
                    // SAFETY: taken above.
                    assert_eq!(unsafe { frames.free_contiguous(pa, count) }, Ok(()));
                }
                Err(AllocRunError::Empty) => assert_eq!(count, 0),
                Err(error) => {
                    assert_eq!(error, AllocRunError::NoRun { count });
                    assert!(count > longest, "{count} of {longest} frames");
                }
            }
            assert_eq!(free_set(frames), *before);
        }
    });
}

#[test]
fn a_bulk_gets_as_many_as_there_are() {
    in_every_shortage(|frames, before| {
        let k = before.len();
        for asked in [0, 1, 63, 64, 65, k.saturating_sub(1), k, k + 1] {
            let mut list = vec![at(0); asked];
            let got = frames.alloc_bulk(&mut list);
            assert_eq!(got, asked.min(k));
            let taken: BTreeSet<u64> = list[..got].iter().map(|pa| pa.number().as_u64()).collect();
            assert_eq!(taken.len(), got, "one frame twice");
            assert!(taken.is_subset(before));
            assert_eq!(free_set(frames), before - &taken);
            // SAFETY: taken above.
            assert_eq!(unsafe { frames.free_bulk(&list[..got]) }, Ok(()));
            assert_eq!(free_set(frames), *before);
        }
    });
}

#[test]
fn every_order_is_had_exactly_as_often_as_it_is_there() {
    in_every_shortage(|frames, before| {
        for order in 0..=9 {
            let fit = fitting(&runs(frames), order, u64::MAX);
            let mut taken: Vec<PhysAddr> = Vec::new();
            taken.extend(core::iter::from_fn(|| frames.alloc(order).ok()));
            assert_eq!(taken.len() as u64, fit, "order {order}");
            let mut left = before.clone();
            for pa in &taken {
                left = without(&left, pa.number().as_u64(), 1 << order);
            }
            assert_eq!(free_set(frames), left);
            for pa in taken {
                // SAFETY: taken above.
                assert_eq!(unsafe { frames.free(pa, order) }, Ok(()));
            }
            assert_eq!(free_set(frames), *before);
        }
    });
}

#[test]
fn a_cache_gets_the_last_frame_and_returns_what_it_does_not_give() {
    in_every_shortage(|frames, before| {
        let mut cache = Cache::new(frames);
        let mut other = Cache::new(frames);
        // What another cache has is not to be had; everything else is.
        let first = other.alloc(0).ok();
        let out_of_reach = other.held() + u64::from(first.is_some());
        let mut taken: Vec<_> = core::iter::from_fn(|| cache.alloc(0).ok()).collect();
        assert_eq!(taken.len() as u64, before.len() as u64 - out_of_reach);
        assert_eq!((cache.held(), frames.stats().free), (0, 0));
        for order in [1, 5, 6, 9, 10, MAX_ORDER] {
            assert!(cache.alloc(order).is_err());
        }
        // Freed through the other, from where the first cannot have them yet.
        while let Some(pa) = taken.pop() {
            // SAFETY: taken above.
            assert_eq!(unsafe { other.free(pa, 0) }, Ok(()));
        }
        assert_eq!(
            frames.stats().free + other.held() + u64::from(first.is_some()),
            before.len() as u64
        );
        other.flush();
        let again = core::iter::from_fn(|| cache.alloc(0).ok()).count();
        assert_eq!(again, before.len() - usize::from(first.is_some()));
    });
}

#[test]
fn a_failed_alloc_flushes_what_lay_at_hand_and_that_is_used() {
    // The 64 frames of one word, all in a cache: a block of order 6 is there after all.
    with_free(
        |nth| (FIRST + nth) / 64 == 1,
        |frames, before| {
            assert_eq!(before.len(), 64);
            let mut cache = Cache::new(frames);
            let pa = cache.alloc(0).unwrap();
            assert_eq!((cache.held(), frames.stats().free), (63, 0));
            // SAFETY: taken above.
            assert_eq!(unsafe { cache.free(pa, 0) }, Ok(()));
            assert_eq!(cache.alloc(6), Ok(at(64)));
            assert!(cache.alloc(0).is_err());
        },
    );
}

#[test]
fn a_table_that_finds_no_room_takes_nothing() {
    type Entry = [u64; 64]; // 8 to a frame
    in_every_shortage(|frames, before| {
        let longest = runs(frames).into_iter().map(|run| run.1).max().unwrap_or(0);
        for slots in [1, 8, 9, 64, 8 * longest, 8 * longest + 1] {
            let spans = Spans::one(Pfn::new(0).expect("frame 0"), slots);
            let mut asked = None;
            let unreachable = |pa: PhysAddr, _| {
                asked = Some(pa);
                None::<NonNull<u8>>
            };
            // SAFETY: no pointer is ever returned.
            let made =
                unsafe { FrameTable::<Entry>::carve(frames, spans, unreachable, |_| [0; 64]) };
            let want = match asked {
                Some(pa) => TableError::OutOfReach { pa },
                None => TableError::NoRoom { slots },
            };
            assert_eq!(asked.is_some(), slots > 0 && slots.div_ceil(8) <= longest);
            if slots > 0 {
                assert_eq!(made.map(|_| ()), Err(want));
            }
            assert_eq!(free_set(frames), *before, "{slots} slots");
        }
    });
}

#[test]
fn zones_run_dry_to_the_last_frame_and_count_right() {
    let low: &'static FrameAllocator<'static> = Box::leak(Box::default());
    let high: &'static FrameAllocator<'static> = Box::leak(Box::default());
    for (zone, first) in [(low, 0), (high, 1000)] {
        let usable = [(bytes(first), bytes(first + 70))];
        let room: &'static [AtomicU64] =
            Box::leak(storage(FrameAllocator::words_needed(usable, [(0, 0); 0])));
        set_up(zone, room, usable, [(0, 0); 0]).unwrap();
    }
    let zones: Zones<_, 2> = Zones::new([
        Zone::new(low, Class::Dma32).keep_ratio(0),
        Zone::new(high, Class::Normal).keep_ratio(0),
    ]);
    zones.recount();
    let levels = || [0, 1].map(|zone| zones.level(zone).expect("a zone").free);
    for order in 0..=7 {
        for k in (0..=70).step_by(if cfg!(miri) { 23 } else { 1 }) {
            // All but k frames of each zone, from below.
            let mut taken = Vec::new();
            for zone in [low, high] {
                let first = zone.free_runs().next().expect("free frames").0;
                for nth in k..70 {
                    zone.alloc_at(first.wrapping_add(bytes(nth)), 0).unwrap();
                    taken.push((zone, first.wrapping_add(bytes(nth))));
                }
            }
            zones.recount();
            let fit: u64 = [low, high].map(|z| fitting(&runs(z), order, u64::MAX)).iter().sum();
            let got: Vec<_> =
                core::iter::from_fn(|| zones.alloc(Request::new(order)).ok()).collect();
            assert_eq!(got.len() as u64, fit, "order {order}, {k} frames each");
            assert_eq!(levels(), [low, high].map(|zone| zone.stats().free));
            for pa in got {
                // SAFETY: taken above.
                unsafe { zones.free(pa, order) }.unwrap();
            }
            assert_eq!(levels(), [k, k]);
            for (zone, pa) in taken {
                // SAFETY: taken above.
                unsafe { zone.free(pa, 0) }.unwrap();
            }
        }
    }
}
