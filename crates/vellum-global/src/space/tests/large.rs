//! Leaves of several sizes in one space.

use super::*;
use core::sync::atomic::AtomicBool;

const LARGE: u64 = Size::Large.bytes();
const HUGE: u64 = Size::Huge.bytes();
/// Where a leaf of any size may lie.
const BASE: VirtAddr = VirtAddr::new(4 * HUGE);
const FRAMES: PhysAddr = PhysAddr::new(8 * HUGE);

fn leaf(offset: u64, attr: Attr) -> Entry {
    Entry::Leaf(FRAMES.wrapping_add(offset), attr)
}

fn at(offset: u64) -> VirtAddr {
    BASE.wrapping_add(offset)
}

fn swap(
    space: &Space<'_, Maps>,
    (offset, size): (u64, Size),
    expect: Entry,
    new: Entry,
) -> Result<(), ReplaceError> {
    let mut gather = direct(|_| {});
    space.replace(at(offset), size.bytes(), expect, new, &mut (), &mut gather)
}

fn install(space: &Space<'_, Maps>, offset: u64, size: Size) -> Result<(), ReplaceError> {
    swap(space, (offset, size), Entry::Hole, leaf(offset, Attr::RW))
}

fn drop_leaf(space: &Space<'_, Maps>, offset: u64, size: Size) -> Result<(), ReplaceError> {
    swap(space, (offset, size), leaf(offset, Attr::RW), Entry::Hole)
}

fn map(space: &mut Space<'_, Maps>, offset: u64, len: u64) {
    let run = Run::new(at(offset), FRAMES.wrapping_add(offset), len, Attr::RW);
    space.map(run.with_leaves_up_to(30), &mut direct(|_| {})).unwrap();
}

fn counts(space: &Space<'_, Maps>) -> [u64; 3] {
    Size::ALL.map(|size| space.count_of(size))
}

/// What a visit of `[offset, offset + len)` tells: offset and length in pages of 4 KiB, and frame.
fn spans(space: &Space<'_, Maps>, offset: u64, len: u64) -> Vec<(u64, u64, u64)> {
    let mut told = Vec::new();
    space
        .visit(at(offset), len, &mut |span| {
            let Entry::Leaf(pa, _) = span.entry else { panic!("{span:?}") };
            let offset = span.va.checked_sub(BASE).unwrap();
            told.push((offset >> 12, span.len >> 12, pa.checked_sub(FRAMES).unwrap() >> 12));
            ControlFlow::Continue(())
        })
        .unwrap();
    told
}

#[test]
fn a_run_takes_the_largest_leaves_that_fit() {
    let maps = Maps::default();
    let mut space = Space::open(&maps, asid(1)).unwrap();
    map(&mut space, HUGE - LARGE - 2 * PAGE_SIZE, 2 * HUGE + LARGE + 3 * PAGE_SIZE);
    // 2 pages, 1 x 2 MiB, 1 x 1 GiB, 511 x 2 MiB, and what is left of the last.
    assert_eq!(counts(&space), [2 + 1, 1, 2]);
    map(&mut space, 5 * HUGE, HUGE / 2);
    assert_eq!(counts(&space), [3, 257, 2]);
    let seen = spans(&space, 0, 6 * HUGE);
    let lens: Vec<_> = seen.iter().map(|&(_, len, _)| len).collect();
    assert_eq!(lens, [2, 512, 2 << 18, 1, 256 << 9]);
    assert!(seen.iter().all(|&(offset, _, frame)| offset == frame));
}

#[test]
fn leaves_of_different_sizes_do_not_overlap() {
    let maps = Maps::default();
    let space = Space::open(&maps, asid(1)).unwrap();
    let structure = Err(ReplaceError::Structure);
    let part = LARGE + 7 * PAGE_SIZE;
    for (inner, outer) in
        [(Size::Base, Size::Large), (Size::Base, Size::Huge), (Size::Large, Size::Huge)]
    {
        let inside = part & !(inner.bytes() - 1);
        let around = part & !(outer.bytes() - 1);
        assert_eq!(install(&space, inside, inner), Ok(()));
        assert_eq!(install(&space, around, outer), structure, "{outer:?} over {inner:?}");
        assert_eq!(drop_leaf(&space, inside, inner), Ok(()));
        assert_eq!(install(&space, around, outer), Ok(()));
        assert_eq!(install(&space, inside, inner), structure, "{inner:?} in {outer:?}");
        assert_eq!(swap(&space, (inside, inner), Entry::Hole, Entry::Hole), structure);
        assert_eq!(drop_leaf(&space, around, outer), Ok(()));
        assert_eq!(counts(&space), [0, 0, 0]);
    }
}

#[test]
fn a_conflict_of_sizes_is_named_and_ends_a_run_before_it() {
    let maps = Maps::default();
    let mut space = Space::open(&maps, asid(1)).unwrap();
    let mapped = |space: &mut Space<'_, Maps>, offset, len, page| {
        let run = Run::new(at(offset), FRAMES.wrapping_add(offset), len, Attr::READ);
        let error = space.map(run.with_leaves_up_to(page), &mut direct(|_| {})).unwrap_err();
        let Cause::Mapped(span) = error.cause else { panic!("{error}") };
        (span.va.checked_sub(BASE).unwrap(), span.len, error.done)
    };
    map(&mut space, 2 * LARGE, LARGE);
    let covered = mapped(&mut space, LARGE + 9 * PAGE_SIZE, HUGE / 2, 12);
    assert_eq!(covered, (2 * LARGE, LARGE, LARGE - 9 * PAGE_SIZE));
    let inside = mapped(&mut space, 2 * LARGE + PAGE_SIZE, PAGE_SIZE, 12);
    assert_eq!(inside, (2 * LARGE, LARGE, 0));
    assert_eq!(mapped(&mut space, 0, HUGE, 30).2, 0);
    space.unmap(BASE, HUGE, &mut direct(|_| {})).unwrap();
    map(&mut space, 3 * LARGE + 5 * PAGE_SIZE, PAGE_SIZE);
    let under = mapped(&mut space, 0, 8 * LARGE, 21);
    assert_eq!(under, (3 * LARGE + 5 * PAGE_SIZE, PAGE_SIZE, 3 * LARGE));
}

#[test]
fn a_hole_in_a_huge_leaf_splits_only_what_reaches_out() {
    let maps = Maps::default();
    let mut space = Space::open(&maps, asid(1)).unwrap();
    map(&mut space, 0, 2 * HUGE);
    let (first, len) = (3 * LARGE + 2 * PAGE_SIZE, 4 * LARGE);
    let mut gone = 0;
    let sink = |item| match item {
        Gone::Run(run) => gone += run.len,
        other => panic!("{other:?}"),
    };
    space.unmap(at(first), len, &mut direct(sink)).unwrap();
    assert_eq!(gone, len);
    // Two leaves of 2 MiB became 512 pages each, and 3 between them went.
    assert_eq!(counts(&space), [512, 512 - 5, 1]);
    let after = (first + len) >> 12;
    let expected = [
        (0, 3 << 9, 0),
        (3 << 9, 2, 3 << 9),
        (after, 510, after),
        (8 << 9, 504 << 9, 8 << 9),
        (512 << 9, 512 << 9, 512 << 9),
    ];
    assert_eq!(spans(&space, 0, 4 * HUGE), expected);
    space.retire(&mut direct(|_| {}));
    assert_eq!(maps.count_entries(), 0);
}

#[test]
fn what_is_told_of_a_large_leaf_is_cut_to_the_range() {
    let maps = Maps::default();
    let mut space = Space::open(&maps, asid(1)).unwrap();
    map(&mut space, 0, LARGE);
    map(&mut space, LARGE, 2 * PAGE_SIZE);
    assert_eq!(spans(&space, 3 * PAGE_SIZE, 5 * PAGE_SIZE), [(3, 5, 3)]);
    let all = spans(&space, 500 * PAGE_SIZE, LARGE);
    assert_eq!(all, [(500, 12, 500), (512, 2, 512)], "sizes are not joined");
    space.touch(at(PAGE_SIZE), Attr::RW, Attr::STATUS);
    space.touch(at(LARGE), Attr::RW, Attr::STATUS);
    let mut told = Vec::new();
    let mut note = |span: Span| told.push((span.va.checked_sub(BASE).unwrap() >> 12, span.len));
    let (clear, mut gather) = (Attr::DIRTY, direct(|_| {}));
    space.harvest(at(5 * PAGE_SIZE), LARGE, clear, &mut gather, &mut note).unwrap();
    told.sort_unstable();
    assert_eq!(told, [(5, LARGE - 5 * PAGE_SIZE), (512, PAGE_SIZE)]);
}

#[test]
fn a_misfit_is_the_lowest_of_all_sizes() {
    let maps = Maps::default();
    let mut space = Space::open(&maps, asid(1)).unwrap();
    let mut none = |offset, len| {
        let run = Run::new(at(offset), FRAMES.wrapping_add(offset), len, Attr::NONE);
        space.map(run.with_leaves_up_to(21), &mut direct(|_| {})).unwrap();
    };
    none(9 * LARGE, PAGE_SIZE);
    none(5 * LARGE, LARGE);
    none(7 * LARGE, PAGE_SIZE);
    map(&mut space, LARGE, 2 * LARGE);
    let change = Change::setting(Attr::WRITE | Attr::USER);
    let result = space.protect(BASE, HUGE, change, &mut direct(|_| {}));
    assert_eq!(result.map_err(|e| e.done), Err(5 * LARGE));
    let user = |offset| match space.walk(at(offset), &mut ()).unwrap().entry {
        Entry::Leaf(_, attr) => attr.contains(Attr::USER),
        other => panic!("{other:?}"),
    };
    let [below, misfit, above] = [LARGE, 5 * LARGE, 9 * LARGE].map(user);
    assert_eq!([below, misfit, above], [true, false, false]);
}

#[test]
fn a_space_without_large_leaves_asks_for_no_other_size() {
    let maps = Maps::default();
    let mut space = Space::open(&maps, asid(1)).unwrap();
    map(&mut space, 0, 3 * PAGE_SIZE);
    let _ = maps.calls();
    space.walk(at(PAGE_SIZE), &mut ()).unwrap();
    space.walk(at(9 * PAGE_SIZE), &mut ()).unwrap();
    assert_eq!(maps.calls(), (2, 0));
    assert_eq!(install(&space, 4 * PAGE_SIZE, Size::Base), Ok(()));
    assert_eq!(maps.calls(), (0, 0), "a page that comes looks for nothing else");
    map(&mut space, LARGE, LARGE);
    let _ = maps.calls();
    space.walk(at(LARGE), &mut ()).unwrap();
    assert_eq!(maps.calls(), (2, 0));
    assert_eq!(install(&space, 2 * LARGE, Size::Base), Ok(()));
    assert_eq!(maps.calls(), (1, 0), "one look for a leaf of 2 MiB, none for 1 GiB");
}

/// Threads put pages and large leaves in and out at the same place; whenever one of them has got its
/// own in, nothing of another size is there until it takes it out.
fn contend(places: &[(u64, Size)], rounds: u64) {
    let maps = Maps { restless: true, ..Maps::default() };
    let space = Space::open(&maps, asid(1)).unwrap();
    let (overlapped, installed) = (AtomicBool::new(false), AtomicU64::new(0));
    let here = |offset, size| maps.walk(Key::of(asid(1), at(offset), size), &mut ()) != 0;
    std::thread::scope(|scope| {
        for &(offset, size) in places {
            let (space, overlapped, installed) = (&space, &overlapped, &installed);
            scope.spawn(move || {
                for _ in 0..rounds {
                    match install(space, offset, size) {
                        Ok(()) => installed.fetch_or(size.bytes(), Ordering::Relaxed),
                        Err(ReplaceError::Structure) => continue,
                        Err(other) => panic!("{other}"),
                    };
                    let other = |&(at, of): &(u64, Size)| of != size && here(at, of);
                    // Stays for a while, for the others to run into.
                    if (0..4).any(|_| places.iter().any(other)) {
                        overlapped.store(true, Ordering::Relaxed);
                    }
                    assert_eq!(drop_leaf(space, offset, size), Ok(()));
                }
            });
        }
    });
    assert!(!overlapped.into_inner(), "two sizes were there at a time");
    assert_eq!(counts(&space), [0, 0, 0]);
    assert!(cfg!(miri) || installed.into_inner() != 0, "nothing ever came in");
}

#[test]
fn pages_and_large_leaves_never_overlap_in_parallel() {
    let rounds = if cfg!(miri) { 2 } else { 150 };
    contend(
        &[(LARGE, Size::Base), (2 * LARGE - PAGE_SIZE, Size::Base), (LARGE, Size::Large)],
        rounds,
    );
}

#[test]
#[cfg_attr(miri, ignore = "looks at hundreds of leaves a round")]
fn large_and_huge_leaves_never_overlap_in_parallel() {
    contend(&[(3 * LARGE, Size::Large), (20 * LARGE, Size::Large), (0, Size::Huge)], 150);
}
