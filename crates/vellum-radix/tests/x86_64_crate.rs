//! The adapter beside the `x86_64` crate's own mapper: the same calls, the same answers; and where
//! that one is wrong or silent, what ours says.
//!
//! ```text
//!   random calls --+--> MappedPageTable   in one arena   (OffsetPageTable is this, with an offset)
//!                  +--> X86Mapper         in another     answers, translations and nodes compared
//! ```

#[path = "x86_64_crate/copy.rs"]
mod copy;
#[path = "x86_64_crate/differences.rs"]
mod differences;
#[path = "x86_64_crate/machines.rs"]
mod machines;

use core::fmt::Debug;
use machines::{Frames, Mapping, Memory, Ram, Seen, Unused, frame, page, peer_root};
use proptest::prelude::*;
use vellum_radix::x86_64::X86Mapper;
use vellum_radix::{Radix, X86_64};
use vellum_testkit::{Arena, suite};
use x86_64::VirtAddr;
use x86_64::structures::paging::mapper::{
    CleanUp, FlagUpdateError, MapToError, MappedPageTable, Mapper, Translate, TranslateError,
    TranslateResult, UnmapError,
};
use x86_64::structures::paging::{PageSize, PageTableFlags as Flags, Size1GiB, Size2MiB, Size4KiB};

/// A call, of a page of some size at one of a few places.
#[derive(Clone, Copy, Debug)]
struct Call {
    size: u8,
    place: u64,
    act: Act,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Map(u64, Flags),
    Unmap,
    Update(Flags),
}

/// All flags that both have for a page of any size, and that the peer keeps.
fn flags() -> impl Strategy<Value = Flags> {
    let held = Flags::all().bits() & 0xf800_0000_0000_0f1f;
    any::<u64>().prop_map(move |bits| Flags::from_bits_retain(bits & held) | Flags::PRESENT)
}

fn call() -> impl Strategy<Value = Call> {
    let act = prop_oneof![
        4 => (0u64..4, flags()).prop_map(|(n, flags)| Act::Map(n, flags)),
        3 => Just(Act::Unmap),
        2 => flags().prop_map(Act::Update),
    ];
    (prop::sample::select(vec![12u8, 12, 21, 21, 30]), any::<u64>(), act)
        .prop_map(|(size, place, act)| Call { size, place, act })
}

/// A few addresses that share nodes of every level with some others, at both ends of both halves.
fn places() -> Vec<u64> {
    let mut places = Vec::new();
    for root in [0u64, 0x7f80_0000_0000, 0xffff_8000_0000_0000, 0xffff_ff80_0000_0000] {
        for huge in [0u64, 511] {
            for large in [0u64, 511] {
                places.extend(
                    [0, 511].map(|small| root + (huge << 30) + (large << 21) + (small << 12)),
                );
            }
        }
    }
    places
}

/// Whether a larger page than `S` is at the place.
fn in_larger<S: PageSize>(mapper: &impl Translate, va: VirtAddr) -> bool {
    matches!(mapper.translate(va), TranslateResult::Mapped { frame, .. } if frame.size() > S::SIZE)
}

/// Calls both, and compares the answers.
fn step<S: PageSize + Debug>(
    ours: &mut (impl Mapper<S> + Translate),
    peer: &mut (impl Mapper<S> + Translate),
    frames: &mut Frames<'_>,
    at: u64,
    act: Act,
) -> Result<(), TestCaseError> {
    let place = page::<S>(at);
    let start = place.start_address();
    match act {
        Act::Map(n, flags) => {
            let there = ours.translate_page(place);
            let asked = frame::<S>(n);
            // SAFETY: no CPU uses the table.
            let answer = unsafe { ours.map_to(place, asked, flags, &mut Unused) };
            if in_larger::<S>(ours, start) {
                // The peer refuses as well, but not before it has given that page more rights.
                prop_assert!(matches!(answer, Err(MapToError::ParentEntryHugePage)), "{answer:?}");
                return Ok(());
            }
            // SAFETY: no CPU uses the table.
            let answers = (answer, unsafe { peer.map_to(place, asked, flags, frames) });
            match answers {
                (Ok(a), Ok(b)) => prop_assert_eq!(a.page(), b.page()),
                (Err(MapToError::PageAlreadyMapped(a)), Err(MapToError::PageAlreadyMapped(_))) => {
                    prop_assert_eq!(a, there.unwrap_or(frame::<S>(n)), "the frame that is there");
                }
                other => prop_assert!(false, "{act:?} at {start:?}: {other:?}"),
            }
        }
        Act::Unmap => match (ours.unmap(place), peer.unmap(place)) {
            (Ok((a, f)), Ok((b, g))) => prop_assert_eq!((a, f.page()), (b, g.page())),
            (Err(UnmapError::PageNotMapped), Err(UnmapError::PageNotMapped))
            | (Err(UnmapError::ParentEntryHugePage), Err(UnmapError::ParentEntryHugePage)) => {}
            other => prop_assert!(false, "{act:?} at {start:?}: {other:?}"),
        },
        Act::Update(flags) => {
            let table_here = !in_larger::<S>(ours, start);
            // SAFETY: no CPU uses either table.
            match unsafe { ours.update_flags(place, flags) } {
                // The peer would make a page of the table that is there.
                Err(FlagUpdateError::ParentEntryHugePage) if table_here => {}
                // SAFETY: as above.
                answer => match (answer, unsafe { peer.update_flags(place, flags) }) {
                    (Ok(a), Ok(b)) => prop_assert_eq!(a.page(), b.page()),
                    (Err(FlagUpdateError::PageNotMapped), Err(FlagUpdateError::PageNotMapped))
                    | (
                        Err(FlagUpdateError::ParentEntryHugePage),
                        Err(FlagUpdateError::ParentEntryHugePage),
                    ) => {}
                    other => prop_assert!(false, "{act:?} at {start:?}: {other:?}"),
                },
            }
        }
    }
    compare_page::<S>(ours, peer, place.start_address())
}

/// Compares `translate_page`, but where the peer would take a table for a page.
fn compare_page<S: PageSize>(
    ours: &(impl Mapper<S> + Translate),
    peer: &(impl Mapper<S> + Translate),
    va: VirtAddr,
) -> Result<(), TestCaseError> {
    let place = page::<S>(va.as_u64());
    match ours.translate_page(place) {
        Err(TranslateError::ParentEntryHugePage) if !in_larger::<S>(ours, va) => {}
        answer => match (answer, peer.translate_page(place)) {
            (Ok(a), Ok(b)) => prop_assert_eq!(a, b),
            (Err(TranslateError::PageNotMapped), Err(TranslateError::PageNotMapped))
            | (
                Err(TranslateError::ParentEntryHugePage),
                Err(TranslateError::ParentEntryHugePage),
            ) => {}
            other => prop_assert!(false, "{va:?}: {other:?}"),
        },
    }
    Ok(())
}

/// What a translation says, as something that can be compared.
fn said(mapper: &impl Translate, va: VirtAddr) -> Option<(u64, u64, u64, Flags)> {
    match mapper.translate(va) {
        TranslateResult::Mapped { frame, offset, flags } => {
            Some((frame.start_address().as_u64(), frame.size(), offset, flags))
        }
        TranslateResult::NotMapped => None,
        TranslateResult::InvalidFrameAddress(pa) => panic!("{va:?} leads to {pa:?}"),
    }
}

proptest! {
    #![proptest_config(suite::config(128))]

    #[test]
    #[cfg_attr(miri, ignore = "the peer's own tables are what an interpreter has no time for")]
    fn answers_are_those_of_the_crate_s_own_mapper(calls in prop::collection::vec(call(), 1..60)) {
        let (arena, theirs) = (Arena::new(256), Arena::new(256));
        let memory: Memory<'_> = machines::memory(&arena);
        let mut table: Radix<X86_64<4>, &Memory<'_>> = Radix::new(&memory).expect("room");
        let seen = Seen::default();
        // SAFETY: no CPU uses the table.
        let mut ours = unsafe { X86Mapper::new(&mut table, &seen) };
        let root = peer_root(&theirs);
        // SAFETY: a fresh table, and a mapping of the arena that it is in.
        let mut peer = unsafe { MappedPageTable::new(&mut *root, Mapping(Ram(&theirs))) };
        let mut frames = Frames(Ram(&theirs));
        let places = places();
        for call in calls {
            let at = places[(call.place % places.len() as u64) as usize];
            match call.size {
                12 => step::<Size4KiB>(&mut ours, &mut peer, &mut frames, at, call.act)?,
                21 => step::<Size2MiB>(&mut ours, &mut peer, &mut frames, at, call.act)?,
                _ => step::<Size1GiB>(&mut ours, &mut peer, &mut frames, at, call.act)?,
            }
            // SAFETY: no CPU uses the peer's table, and its nodes are its own.
            unsafe { peer.clean_up(&mut frames) };
            for &at in &places {
                let va = VirtAddr::new(at + 0xabc);
                prop_assert_eq!(said(&ours, va), said(&peer, va), "{:?} after {:?}", va, call);
            }
            prop_assert_eq!(arena.frames_in_use(), theirs.frames_in_use(), "nodes, after {:?}", call);
        }
        machines::retire(table);
        prop_assert_eq!(arena.frames_in_use(), 0);
    }
}
