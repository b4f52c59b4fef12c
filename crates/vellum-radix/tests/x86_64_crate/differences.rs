//! Where `X86Mapper` parts from the crate's own mapper, and what it has besides.

use crate::machines::{Frames, Mapping, Memory, Ram, Seen, Unused, frame, memory, page, retire};
use core::cell::RefCell;
use vellum_core::{
    Attr, Cause, Entry, FrameSource, Gone, OutOfFrames, PageTable as _, PhysMap, VirtAddr as Va,
    Walk,
};
use vellum_radix::x86_64::{HUGE_PAT, Lend, X86Mapper, X86Memory, X86Table};
use vellum_radix::{Policy, Radix, X86_64, X86Any};
use vellum_testkit::Arena;
use vellum_testkit::suite::{Recorder, recording};
use x86_64::VirtAddr;
use x86_64::structures::paging::mapper::{
    CleanUp, FlagUpdateError, MapToError, Mapper, Translate, TranslateResult, UnmapError,
};
use x86_64::structures::paging::{
    FrameAllocator, Page, PageSize, PageTableFlags as Flags, Size1GiB, Size2MiB, Size4KiB,
};

const RW: Flags = Flags::PRESENT.union(Flags::WRITABLE);
const AT: u64 = 0x4444_4440_0000;

/// Runs `f` with a mapper of an empty table, and looks that all nodes come back.
fn with_mapper(
    policy: Policy,
    f: impl FnOnce(&Arena, &Seen<'_>, &mut X86Mapper<'_, Radix<X86_64<4>, &Memory<'_>>, &Seen<'_>>),
) {
    let arena = Arena::new(64);
    let memory = memory(&arena);
    let mut table: Radix<X86_64<4>, _> = Radix::with_policy(&memory, policy).expect("room");
    let seen = Seen { arena: Some(&arena), ..Seen::default() };
    // SAFETY: no CPU uses the table.
    f(&arena, &seen, &mut unsafe { X86Mapper::new(&mut table, &seen) });
    retire(table);
    assert_eq!(arena.frames_in_use(), 0);
}

/// `map_to`, for one page.
fn map<S: PageSize>(
    mapper: &mut impl Mapper<S>,
    va: u64,
    n: u64,
    flags: Flags,
) -> Result<(), MapToError<S>> {
    // SAFETY: no CPU uses the table.
    unsafe { mapper.map_to(page(va), frame(n), flags, &mut Unused) }.map(|flush| flush.ignore())
}

fn flags_at(mapper: &impl Translate, va: u64) -> Option<Flags> {
    match mapper.translate(VirtAddr::new(va)) {
        TranslateResult::Mapped { flags, .. } => Some(flags),
        _ => None,
    }
}

#[test]
fn updating_flags_keeps_what_hardware_has_noted() {
    with_mapper(Policy::default(), |_, seen, mapper| {
        map::<Size4KiB>(mapper, AT, 1, RW).expect("a hole");
        mapper.table().touch(Va::new(AT), Attr::WRITE, Attr::STATUS);
        // SAFETY: no CPU uses the table.
        let flush = unsafe { mapper.update_flags(page::<Size4KiB>(AT), Flags::PRESENT) };
        assert_eq!(flush.expect("it is mapped").page(), page(AT));
        let status = Flags::ACCESSED | Flags::DIRTY;
        assert_eq!(flags_at(mapper, AT), Some(Flags::PRESENT | status));
        let flushes = seen.take();
        assert!(flushes.iter().any(|flush| flush.covers(Va::new(AT))), "it lost a right");
    });
}

#[test]
fn a_page_that_is_not_present_translates_and_is_returned() {
    with_mapper(Policy::default(), |_, _, mapper| {
        map::<Size4KiB>(mapper, AT, 1, RW).expect("a hole");
        // SAFETY: no CPU uses the table.
        let guard = unsafe { mapper.update_flags(page::<Size4KiB>(AT), Flags::empty()) };
        guard.expect("it is mapped").ignore();
        assert_eq!(flags_at(mapper, AT), Some(Flags::NO_EXECUTE));
        let mapped = map::<Size4KiB>(mapper, AT, 2, RW);
        assert!(matches!(mapped, Err(MapToError::PageAlreadyMapped(f)) if f == frame(1)));
        let (returned, flush) = mapper.unmap(page::<Size4KiB>(AT)).expect("it is a mapping");
        assert_eq!((returned, flush.page()), (frame(1), page(AT)));
    });
}

#[test]
fn the_pat_bit_is_where_the_size_has_it() {
    with_mapper(Policy::default(), |arena, _, mapper| {
        map::<Size4KiB>(mapper, AT, 1, RW | Flags::HUGE_PAGE).expect("PAT of a small page");
        map::<Size2MiB>(mapper, AT + (2 << 20), 2, RW | HUGE_PAT).expect("PAT of a large page");
        assert_eq!(flags_at(mapper, AT), Some(RW | Flags::HUGE_PAGE));
        let huge = RW | HUGE_PAT | Flags::HUGE_PAGE;
        assert_eq!(flags_at(mapper, AT + (2 << 20)), Some(huge));
        let mut last = None;
        let mut note = |r: vellum_core::Ref| last = Some(r.pa);
        mapper.table().walk(Va::new(AT + (2 << 20)), &mut note).expect("canonical");
        // SAFETY: an entry of a node in use.
        let raw = arena.with(last.expect("read"), |p| unsafe { p.cast::<u64>().read() });
        assert_eq!(raw, frame::<Size2MiB>(2).start_address().as_u64() | 0x1083);
        let (returned, _) = mapper.unmap(page::<Size2MiB>(AT + (2 << 20))).expect("mapped");
        assert_eq!(returned, frame(2), "the bit is no part of the frame");
    });
}

#[test]
fn what_the_tables_cannot_hold_is_refused_and_named() {
    with_mapper(Policy::default(), |arena, _, mapper| {
        let refused = map::<Size4KiB>(mapper, AT, 1, RW | Flags::BIT_52);
        assert!(matches!(refused, Err(MapToError::ParentEntryHugePage)));
        assert!(matches!(mapper.refusal(), Some(Cause::Unencodable(_))));
        assert_eq!(arena.frames_in_use(), 1, "nothing was begun");
        map::<Size4KiB>(mapper, AT, 1, RW).expect("a hole");
        // SAFETY: no CPU uses the table.
        let refused = unsafe { mapper.update_flags(page::<Size4KiB>(AT), RW | Flags::BIT_58) };
        assert!(matches!(refused, Err(FlagUpdateError::ParentEntryHugePage)));
        assert_eq!(flags_at(mapper, AT), Some(RW), "as it was");
    });
}

#[test]
fn a_conflict_names_the_frame_and_the_flags_that_are_there() {
    with_mapper(Policy::default(), |_, _, mapper| {
        map::<Size2MiB>(mapper, AT, 5, RW | Flags::BIT_9).expect("a hole");
        let inside = map::<Size4KiB>(mapper, AT + 0x3000, 1, RW);
        assert!(matches!(inside, Err(MapToError::ParentEntryHugePage)));
        let Some(Cause::Mapped(span)) = mapper.refusal() else { panic!("{:?}", mapper.refusal()) };
        let Entry::Leaf(pa, attr) = span.entry else { panic!("{span:?}") };
        assert_eq!(pa.as_u64(), frame::<Size2MiB>(5).start_address().as_u64());
        assert_eq!(attr, Attr::RWX | Attr::SOFT[0]);
        let over = map::<Size2MiB>(mapper, AT, 6, RW);
        assert!(matches!(over, Err(MapToError::PageAlreadyMapped(f)) if f == frame(5)));
        let around = map::<Size1GiB>(mapper, AT, 7, RW);
        assert!(matches!(around, Err(MapToError::PageAlreadyMapped(f)) if f == frame(7)));
    });
}

#[test]
fn a_map_that_is_refused_gives_no_rights_to_the_larger_page() {
    with_mapper(Policy::default(), |_, _, mapper| {
        map::<Size2MiB>(mapper, AT, 5, Flags::PRESENT).expect("a hole");
        let inside = map::<Size4KiB>(mapper, AT + 0x3000, 1, RW | Flags::USER_ACCESSIBLE);
        assert!(matches!(inside, Err(MapToError::ParentEntryHugePage)));
        assert_eq!(flags_at(mapper, AT), Some(Flags::PRESENT | Flags::HUGE_PAGE));
    });
}

#[test]
fn calls_on_a_page_of_another_size_change_nothing() {
    with_mapper(Policy::default(), |_, _, mapper| {
        // The first of the smaller pages is a hole: what is there lies behind it.
        map::<Size4KiB>(mapper, AT + 0x5000, 1, RW).expect("a hole");
        let large = page::<Size2MiB>(AT);
        assert!(matches!(mapper.unmap(large), Err(UnmapError::ParentEntryHugePage)));
        // SAFETY: no CPU uses the table.
        let updated = unsafe { mapper.update_flags(large, RW) };
        assert!(matches!(updated, Err(FlagUpdateError::ParentEntryHugePage)));
        assert!(mapper.translate_page(large).is_err());
        assert_eq!(mapper.translate_page(page::<Size4KiB>(AT + 0x5000)).ok(), Some(frame(1)));
        assert!(matches!(mapper.unmap(page::<Size1GiB>(1 << 40)), Err(UnmapError::PageNotMapped)));
    });
}

#[test]
fn parents_that_grant_less_than_the_leaf_are_refused() {
    with_mapper(Policy::default(), |_, _, mapper| {
        let user = RW | Flags::USER_ACCESSIBLE;
        let mut map = |flags, parents| {
            let (place, at) = (page::<Size4KiB>(AT), frame(1));
            // SAFETY: no CPU uses the table.
            unsafe { mapper.map_to_with_table_flags(place, at, flags, parents, &mut Unused) }
                .map(|flush| flush.ignore())
                .is_ok()
        };
        assert!(!map(user, RW), "the leaf would be the user's all the same");
        assert!(!map(RW, RW | Flags::NO_EXECUTE));
        assert!(!map(RW, RW | Flags::NO_CACHE));
        assert!(map(RW, user), "a parent of the user's grants nothing by itself");
    });
}

#[test]
fn flags_of_parents_can_be_asked_for_as_they_are() {
    let kernel = 0xffff_8000_0000_0000;
    let policy = Policy { kernel_from: Some(Va::new(kernel)), ..Policy::default() };
    with_mapper(policy, |_, _, mapper| {
        map::<Size4KiB>(mapper, AT, 1, RW).expect("a hole");
        map::<Size2MiB>(mapper, kernel, 1, RW).expect("a hole");
        let user = RW | Flags::USER_ACCESSIBLE;
        let (low, high) = (page::<Size4KiB>(AT), page::<Size4KiB>(kernel));
        let absent = page::<Size4KiB>(AT + (1 << 30));
        // SAFETY: no CPU uses the table.
        unsafe {
            assert!(mapper.set_flags_p4_entry(low, user).is_ok());
            assert!(mapper.set_flags_p3_entry(low, user).is_ok());
            assert!(mapper.set_flags_p2_entry(low, user).is_ok());
            assert!(mapper.set_flags_p4_entry(high, RW).is_ok());
            let refused = mapper.set_flags_p4_entry(high, user);
            assert!(matches!(refused, Err(FlagUpdateError::ParentEntryHugePage)), "the kernel's");
            let refused = mapper.set_flags_p2_entry(low, Flags::PRESENT);
            assert!(matches!(refused, Err(FlagUpdateError::ParentEntryHugePage)), "narrower");
            let refused = mapper.set_flags_p2_entry(high, RW);
            assert!(matches!(refused, Err(FlagUpdateError::ParentEntryHugePage)), "a leaf");
            let refused = mapper.set_flags_p2_entry(page::<Size2MiB>(kernel), RW);
            assert!(matches!(refused, Err(FlagUpdateError::ParentEntryHugePage)), "its own entry");
            let refused = mapper.set_flags_p2_entry(page::<Size2MiB>(AT), user);
            assert!(matches!(refused, Err(FlagUpdateError::ParentEntryHugePage)), "no parent");
            let refused = mapper.set_flags_p2_entry(absent, user);
            assert!(matches!(refused, Err(FlagUpdateError::PageNotMapped)));
            assert!(mapper.set_flags_p4_entry(absent, user).is_ok());
        }
        assert!(map::<Size4KiB>(mapper, kernel + (2 << 20), 1, user).is_err(), "the policy");
    });
}

#[test]
fn running_out_of_frames_is_said_and_leaks_nothing() {
    with_mapper(Policy::default(), |arena, _, mapper| {
        for budget in 0..3 {
            arena.limit_allocations(Some(budget));
            let refused = map::<Size4KiB>(mapper, AT, 1, RW);
            assert!(matches!(refused, Err(MapToError::FrameAllocationFailed)), "{budget}");
            assert_eq!(arena.frames_in_use(), 1);
        }
        arena.limit_allocations(None);
        map::<Size4KiB>(mapper, AT, 1, RW).expect("room");
    });
}

#[test]
fn an_allocator_that_is_in_use_is_out_of_frames() {
    let arena = Arena::new(64);
    let frames = RefCell::new(Frames(Ram(&arena)));
    /// Lends a cell of somebody else's.
    struct Borrowed<'c, A>(&'c RefCell<A>);
    impl<'a> Lend for Borrowed<'_, Frames<'a>> {
        type Frames = Frames<'a>;
        fn lend<R>(&self, f: impl FnOnce(&mut Self::Frames) -> R) -> Option<R> {
            self.0.lend(f)
        }
    }
    let map = Mapping(Ram(&arena));
    // SAFETY: what the arena hands out, it maps.
    let memory = unsafe { X86Memory::new(Borrowed(&frames), map) };
    let mut handle = &memory;
    let held = frames.borrow_mut();
    assert!(Radix::<X86_64<4>, _>::new(&memory).is_err());
    assert!(handle.allocate_frame().is_none());
    drop(held);
    let table = Radix::<X86_64<4>, _>::new(&memory).expect("room");
    assert!(handle.allocate_frame().is_some());
    assert_eq!(arena.frames_in_use(), 2);
    assert_eq!(memory.alloc(1), Err(OutOfFrames { order: 1 }), "it deals in single frames");
    retire(table);
    assert_eq!(arena.frames_in_use(), 1);
}

#[test]
fn nodes_are_in_use_until_their_flush() {
    with_mapper(Policy::default(), |arena, seen, mapper| {
        map::<Size4KiB>(mapper, AT, 1, RW).expect("a hole");
        assert!(seen.take().is_empty(), "what was a hole is in no TLB");
        assert_eq!(arena.frames_in_use(), 4);
        let unmapped = mapper.unmap(page::<Size4KiB>(AT)).expect("mapped");
        assert_eq!(unmapped.0, frame(1));
        assert_eq!(seen.in_use.get(), 4, "at the flush, nothing had been given back");
        assert_eq!(arena.frames_in_use(), 1, "after it, all three nodes were");
        let flushes = seen.take();
        assert!(flushes.iter().any(|f| f.has_tables() && f.covers(Va::new(AT))));
    });
}

#[test]
fn ranges_are_mapped_updated_and_unmapped_in_one_call() {
    with_mapper(Policy::default(), |arena, seen, mapper| {
        let large = Page::range_inclusive(page::<Size2MiB>(AT), page(AT + (6 << 20)));
        mapper.map_range(large, frame(8), RW).expect("holes");
        assert_eq!(flags_at(mapper, AT + (5 << 20)), Some(RW | Flags::HUGE_PAGE));
        // One small page of a large one: that is split.
        let one = Page::range_inclusive(page::<Size4KiB>(AT + 0x3000), page(AT + 0x3000));
        mapper.update_range(one, Flags::PRESENT).expect("room");
        assert_eq!(flags_at(mapper, AT + 0x3000), Some(Flags::PRESENT));
        assert_eq!(flags_at(mapper, AT + 0x4000), Some(RW));
        assert!(!seen.take().is_empty());
        let mut bytes = 0;
        let all = Page::range_inclusive(page::<Size4KiB>(AT), page(AT + (8 << 20) - 0x1000));
        let sink = |gone| {
            assert!(!seen.flushes.borrow().is_empty(), "delivered before the flush");
            if let Gone::Run(run) = gone {
                bytes += run.len;
            }
        };
        mapper.unmap_range(all, sink).expect("a range");
        assert_eq!((bytes, arena.frames_in_use()), (8 << 20, 1));
        let taken = map::<Size4KiB>(mapper, AT + 0x2000, 1, RW);
        taken.expect("a hole");
        let small = Page::range_inclusive(page::<Size4KiB>(AT), page(AT + 0x4000));
        let error = mapper.map_range(small, frame(1), RW).expect_err("one is taken");
        assert!(matches!(error.cause, Cause::Mapped(span) if span.va == Va::new(AT + 0x2000)));
        assert_eq!(mapper.refusal(), Some(error.cause));
        let done = Page::range(page::<Size4KiB>(AT), page(AT + error.done));
        assert!(done.into_iter().all(|page| mapper.translate_page(page).is_ok()));
        let everything = Page::range_inclusive(page::<Size4KiB>(0), page(0xffff_ffff_ffff_f000));
        assert!(mapper.update_range(everything, RW).is_err(), "more than 64 bits of length");
    });
}

#[test]
fn cleaning_up_takes_what_faults_have_emptied_and_nothing_else() {
    with_mapper(Policy::default(), |arena, seen, mapper| {
        let (stays, near, far) = (AT, AT + (4 << 20), AT + (1 << 40));
        for va in [stays, near, far] {
            map::<Size4KiB>(mapper, va, 1, RW).expect("a hole");
        }
        let in_use = arena.frames_in_use();
        for va in [near, far] {
            let table = mapper.table();
            let old = table.walk(Va::new(va), &mut ()).expect("canonical").entry;
            let recorder = Recorder::default();
            recording(&recorder, |g| {
                table.replace(Va::new(va), 4096, old, Entry::Hole, &mut table.stock(), g)
            })
            .expect("it is there");
        }
        assert_eq!(arena.frames_in_use(), in_use, "faults free no nodes");
        let part = Page::range_inclusive(page(stays), page(near));
        // SAFETY: the nodes are this table's own.
        unsafe { mapper.clean_up_addr_range(part, &mut Unused) };
        assert_eq!(arena.frames_in_use(), in_use - 1, "the leaf table of `near`");
        assert_eq!(seen.in_use.get(), in_use, "which was in use until the flush");
        // SAFETY: as above.
        unsafe { mapper.clean_up(&mut Unused) };
        assert_eq!(arena.frames_in_use(), in_use - 4, "and all three of `far`");
        assert_eq!(mapper.translate_page(page::<Size4KiB>(stays)).ok(), Some(frame(1)));
    });
}

/// A page at either end, and its way back.
fn both_ends<T: X86Table>(mut table: T, arena: &Arena, levels: u64) {
    let seen = Seen::default();
    // SAFETY: no CPU uses the table.
    let mut mapper = unsafe { X86Mapper::new(&mut table, &seen) };
    let (low, high) = (0, 0xffff_ffff_ffff_f000);
    for (n, va) in [(3, high), (4, low)] {
        map::<Size4KiB>(&mut mapper, va, n, RW).expect("a hole");
        let start = frame::<Size4KiB>(n).start_address();
        assert_eq!(mapper.translate_addr(VirtAddr::new(va)), Some(start));
    }
    assert_eq!(arena.frames_in_use(), 2 * levels - 1);
    // SAFETY: the nodes are this table's own.
    unsafe { mapper.clean_up(&mut Unused) };
    assert_eq!(mapper.unmap(page::<Size4KiB>(high)).expect("mapped").0, frame(3));
    assert_eq!(arena.frames_in_use(), levels);
    retire(table);
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn with_five_levels_or_either_it_is_the_same() {
    let arena = Arena::new(64);
    let memory = memory(&arena);
    both_ends(X86Any::five(&memory).expect("room"), &arena, 5);
    if cfg!(miri) {
        return; // a whole table is cleaned up, which takes an interpreter long enough once
    }
    both_ends(X86Any::four(&memory).expect("room"), &arena, 4);
    both_ends(Radix::<X86_64<4>, _>::new(&memory).expect("room"), &arena, 4);
    both_ends(Radix::<X86_64<5>, _>::new(&memory).expect("room"), &arena, 5);
}

#[test]
fn two_memories_are_not_equal() {
    let arena = Arena::new(1);
    let (a, b) = (memory(&arena), memory(&arena));
    assert_eq!(a, *core::convert::identity(&a));
    assert_ne!(a, b, "the same allocator behind both, and yet nobody could know");
}
