//! Tables against a plain map, and counts under threads.

use super::{Count, FrameTable, Put, RefCounts, RefError, Spans, TableError};
use crate::{FrameAllocator, PhysRange, storage_words};
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::thread;
use std::vec::Vec;
use vellum_core::{PAGE_SIZE, Pfn, PhysAddr, PhysMap};
use vellum_testkit::Arena;

fn pfn(number: u64) -> Pfn {
    Pfn::new(number).expect("a frame number")
}

fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    // Bytes around frames 0 to 100: partial frames, empty and inverted ranges, all overlaps.
    let range = (0u64..100 * PAGE_SIZE, 0u64..20 * PAGE_SIZE, any::<bool>());
    let range = range.prop_map(|(start, len, inverted)| match (inverted, len % 7) {
        (true, 0) => (start + len, start),
        (_, 1..=3) => {
            (start / PAGE_SIZE * PAGE_SIZE, (start / PAGE_SIZE + len / PAGE_SIZE) * PAGE_SIZE)
        }
        _ => (start, start + len),
    });
    prop::collection::vec(range, 0..12)
}

/// The whole frames, one by one.
fn frames_of(ranges: &[(u64, u64)]) -> BTreeSet<u64> {
    let inside = |&(start, end): &(u64, u64)| start.div_ceil(PAGE_SIZE)..end / PAGE_SIZE;
    ranges.iter().flat_map(inside).collect()
}

/// How many holes there are between frames.
fn holes(frames: &BTreeSet<u64>) -> usize {
    frames.iter().zip(frames.iter().skip(1)).filter(|&(a, b)| a + 1 < *b).count()
}

fn agrees_with_a_set<const N: usize>(map: &[(u64, u64)]) -> Result<(), TestCaseError> {
    let frames = frames_of(map);
    let spans = Spans::<N>::of(map);
    let covered: BTreeSet<u64> = spans.frames().map(Pfn::as_u64).collect();
    prop_assert!(covered.is_superset(&frames));
    prop_assert!(holes(&covered) < N);
    prop_assert_eq!(covered.first(), frames.first());
    prop_assert_eq!(covered.last(), frames.last());
    if holes(&frames) < N && map.len() <= N {
        prop_assert_eq!(&covered, &frames, "nothing had to be covered");
    }
    prop_assert_eq!(spans.count_frames(), covered.len() as u64);

    let slots: Vec<u64> = covered.iter().copied().collect();
    let table = FrameTable::new(spans, &slots).expect("as many slots as frames");
    for number in 0..130 {
        let pa = pfn(number).addr().wrapping_add(number % PAGE_SIZE);
        let slot = covered.get(&number);
        prop_assert_eq!(table.get(pa), slot, "frame {}", number);
    }
    prop_assert!(table.iter().all(|(frame, &slot)| frame.as_u64() == slot));
    prop_assert_eq!(table.iter().count(), slots.len());
    if let Some((_, short)) = slots.split_last() {
        let slots = slots.len() as u64;
        let refused = FrameTable::new(spans, short).map(|_| ());
        prop_assert_eq!(refused, Err(TableError::NoRoom { slots }));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 4 } else { 1000 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_frame_of_a_map_has_a_slot_of_its_own(map in ranges()) {
        agrees_with_a_set::<1>(&map)?;
        agrees_with_a_set::<2>(&map)?;
        agrees_with_a_set::<4>(&map)?;
        agrees_with_a_set::<16>(&map)?;
    }

    /// Any calls on one count, against a number.
    #[test]
    fn a_count_counts(start in prop_oneof![0u32..4, u32::MAX - 3..=u32::MAX], calls: Vec<u8>) {
        let count = Count::of(start);
        let mut model = start;
        let pinned = Count::PINNED;
        for call in calls {
            match call % 4 {
                0 => {
                    prop_assert_eq!(count.take(), model == 0);
                    model = model.max(1);
                }
                1 | 2 => {
                    let got = if call % 4 == 1 { count.get() } else { count.try_get() };
                    prop_assert_eq!(got, model != 0);
                    model = if model == 0 { 0 } else { model.saturating_add(1) };
                }
                _ => {
                    let put = match model {
                        0 => Put::Unowned,
                        1 => Put::Last,
                        _ => Put::Shared,
                    };
                    prop_assert_eq!(count.put(), put);
                    model = if model == pinned { pinned } else { model.saturating_sub(1) };
                }
            }
            prop_assert_eq!(count.count(), model);
            prop_assert_eq!(count.is_sole(), model == 1);
        }
    }
}

#[test]
fn the_narrowest_gap_is_covered_first() {
    let frames = |(first, end)| PhysRange::new(first * PAGE_SIZE, end * PAGE_SIZE);
    for (map, covered) in [
        // To the neighbour below, to the one above, and between two others.
        ([(0, 10), (50, 60), (12, 20)], [(0, 20), (50, 60)]),
        ([(0, 10), (50, 60), (40, 47)], [(0, 10), (40, 60)]),
        ([(0, 10), (13, 20), (50, 60)], [(0, 20), (50, 60)]),
        ([(50, 60), (13, 20), (0, 10)], [(0, 20), (50, 60)]),
    ] {
        let spans = Spans::<2>::of(map.map(frames));
        assert_eq!(spans, Spans::<2>::of(covered.map(frames)), "{map:?}");
    }
}

#[test]
fn spans_end_where_physical_memory_ends() {
    let last = pfn((1 << 52) - 1);
    assert_eq!(Spans::one(last, 5).count_frames(), 1);
    assert_eq!(Spans::<3>::of([0..=u64::MAX]).count_frames(), 1 << 52);
    assert_eq!(Spans::one(pfn(0), u64::MAX).bytes::<[u8; 1 << 20]>(), u64::MAX);
    assert_eq!(Spans::one(pfn(7), 1025).frames_for::<Count>(), 2);
    let table = FrameTable::from_slice(last, &[3, 4]);
    assert_eq!(table.at(last), Some(&3));
    assert_eq!(table.iter().count(), 1);
}

#[test]
fn a_table_in_raw_memory_holds_what_each_frame_was_given() {
    let spans = Spans::<2>::of([(0x1000, 0x4000), (0x10_0000, 0x10_2000)]);
    let mut raw = [const { MaybeUninit::<u64>::uninit() }; 6];
    let at = NonNull::from(&mut raw).cast::<u8>();
    // SAFETY: six words for five, which nobody else reaches while the tables live.
    let skewed = unsafe { FrameTable::write_at(spans, at.add(1), Pfn::as_u64) };
    assert_eq!(skewed.map(|_| ()), Err(TableError::Misaligned { align: align_of::<u64>() }));
    // SAFETY: as above.
    let table = unsafe { FrameTable::write_at(spans, at, Pfn::as_u64) }.expect("it fits");
    let all: Vec<u64> = table.iter().map(|(_, &slot)| slot).collect();
    assert_eq!(all, [1, 2, 3, 0x100, 0x101]);
    assert_eq!(table.get(PhysAddr::new(0x10_1fff)), Some(&0x101));
    assert_eq!(table.get(PhysAddr::new(0xfff)), None);
}

#[test]
fn a_table_too_large_for_the_address_space_is_refused() {
    let spans = Spans::<1>::of([0..=u64::MAX]);
    // SAFETY: nothing is written, since 2^52 slots of 8 KiB are more than there can be.
    let table = unsafe { FrameTable::write_at(spans, NonNull::dangling(), |_| [0u8; 8192]) };
    assert_eq!(table.map(|_| ()), Err(TableError::NoRoom { slots: 1 << 52 }));
}

#[test]
fn a_table_carved_out_of_memory_takes_its_frames_and_describes_them_too() {
    let arena = Arena::new(64);
    let first = arena.first();
    let map = [(first.addr().as_u64(), first.addr().as_u64() + 64 * PAGE_SIZE)];
    let words = [const { AtomicU64::new(0) }; storage_words(64, 1)];
    let frames = FrameAllocator::new();
    // SAFETY: nobody takes frames from the arena itself, nor writes to `words`.
    unsafe { frames.init_in(&words, map, [(0, 0); 0]) }.unwrap();
    let spans = Spans::<1>::of(map);
    // The arena's pointers stay good while it lives.
    let reach = |pa, _| Some(arena.with(pa, |p| p));

    // SAFETY: as above; nothing but frames that `frames` gives is reached.
    let refused = unsafe { FrameTable::carve(&frames, spans, |_, _| None, |_| [0u8; 200]) };
    let pa = first.addr();
    assert_eq!(refused.map(|_| ()), Err(TableError::OutOfReach { pa }));
    assert_eq!(frames.stats().free, 64, "what was taken went back");
    // SAFETY: as above.
    let refused = unsafe { FrameTable::carve(&frames, spans, reach, |_| [0u8; 4097]) };
    assert_eq!(refused.map(|_| ()), Err(TableError::NoRoom { slots: 64 }));
    assert_eq!(frames.stats().free, 64);

    // SAFETY: as above.
    let table =
        unsafe { FrameTable::carve(&frames, spans, reach, |_| [const { Count::new() }; 50]) }
            .unwrap();
    assert_eq!(frames.stats().free, 64 - 4, "200 bytes a frame");
    let page = frames.alloc(0).unwrap();
    let count = table.get(page).and_then(|counts| counts.last()).unwrap();
    assert!(count.take() && table.at(first).unwrap()[0].take(), "its own frames have slots");
    assert_eq!(table.iter().flat_map(|(_, all)| all).filter(|count| count.is_sole()).count(), 2);

    // SAFETY: as above; nothing is reached.
    let none = unsafe { FrameTable::carve(&frames, spans, |_, _| None, |_| ()) }.unwrap();
    assert_eq!((none.get(page), frames.stats().free), (Some(&()), 64 - 5));
}

#[test]
fn errors_name_the_frame() {
    let slots = [const { Count::new() }; 2];
    let owners = RefCounts::from_slice(pfn(4), &slots);
    let pa = PhysAddr::new(0x4000);
    let outside = PhysAddr::new(0x6000);
    assert_eq!(owners.get_ref(pa), Err(RefError::Unowned { pa }));
    assert_eq!(owners.put_ref(pa), Err(RefError::Unowned { pa }));
    assert_eq!(owners.try_get_ref(pa), Ok(false));
    assert_eq!(owners.take_ref(pa), Ok(()));
    assert_eq!(owners.take_ref(pa), Err(RefError::Owned { pa }));
    assert_eq!(owners.try_get_ref(outside), Err(RefError::NoFrame { pa: outside }));
    assert_eq!(owners.put_ref(pa), Ok(true));
}

#[test]
fn a_pinned_frame_is_never_freed() {
    let slots = [Count::pinned()];
    let owners = RefCounts::from_slice(pfn(0), &slots);
    let pa = PhysAddr::new(0);
    assert_eq!(owners.take_ref(pa), Err(RefError::Owned { pa }));
    assert_eq!(owners.put_ref(pa), Ok(false));
    assert_eq!(owners.get_ref(pa), Ok(()));
    assert_eq!(slots[0].count(), Count::PINNED);
    let counted = Count::of(1);
    counted.pin();
    assert_eq!(counted.put(), Put::Shared);
}

/// Threads that get and put one frame, and one that finds it late: it is freed once, and not before
/// every owner has written its last word.
#[test]
fn owners_on_several_threads_free_a_frame_once_and_after_their_last_write() {
    const OWNERS: u32 = 3;
    let words = [const { AtomicU64::new(0) }; storage_words(1, 1)];
    let frames = FrameAllocator::new();
    // SAFETY: no memory is behind the frame, and nobody else writes to `words`.
    unsafe { frames.init_in(&words, [(0x1000, 0x2000)], [(0, 0); 0]) }.unwrap();
    let slots = [const { Count::new() }; 1];
    let owners = RefCounts::from_slice(pfn(1), &slots);
    for _ in 0..if cfg!(miri) { 8 } else { 3000 } {
        let pa = frames.alloc(0).expect("it was freed in the last round");
        // What each owner writes to the frame, without any order of its own.
        let bytes = [const { AtomicU32::new(0) }; OWNERS as usize];
        owners.take_ref(pa).unwrap();
        for _ in 1..OWNERS {
            owners.get_ref(pa).unwrap();
        }
        let freed = AtomicU32::new(0);
        let let_go = || {
            // SAFETY: one frame of `frames`, and this is one of its owners, which lets go once.
            if unsafe { owners.put_or_free(pa, 0, &frames) } == Ok(true) {
                let done = bytes.iter().filter(|byte| byte.load(Relaxed) == 1).count();
                assert_eq!(done, OWNERS as usize, "freed under an owner's hands");
                freed.fetch_add(1, Relaxed);
            }
        };
        thread::scope(|scope| {
            for byte in &bytes {
                scope.spawn(move || {
                    byte.store(1, Relaxed);
                    let_go();
                });
            }
            scope.spawn(|| {
                if owners.try_get_ref(pa) == Ok(true) {
                    let_go();
                }
            });
        });
        assert_eq!(freed.into_inner(), 1);
        assert_eq!(slots[0].count(), 0);
    }
}
