//! Large leaves: used where both addresses allow, split where a part goes, never in the way.
//!
//! Every property runs with each size of leaf that is not too large to be looked at page by page,
//! whether that is one entry or several. A design without large leaves maps the same pages.

use super::{
    Design, Recorder, base_page, check_contents, check_flushes, config, drops_leaves,
    large_leaves_or_pages, on, page_bytes, recording, table,
};
use crate::oracle::Oracle;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vellum_core::{
    Attr, Cause, Change, Entry, Flush, Gone, MemoryType, PageTable, PhysAddr, ReplaceError, Run,
    Soft, Span, VirtAddr, Walk as _,
};

/// Where the leaves go: a multiple of every leaf size tried here.
const BASE: VirtAddr = VirtAddr::new(1 << 30);
const FRAMES: PhysAddr = PhysAddr::new(1 << 30);

/// log2 of the smallest pages of a leaf that single cases, and that random sequences, go up to.
const CASES: u8 = 13;
const SEQUENCES: u8 = 11;

/// Runs `f` for each size of leaf that the design has, as log2; for a stretch of pages if it has
/// none.
fn with_each_size<D: Design>(f: impl Fn(D::Table<'_>, u8)) {
    for size in large_leaves_or_pages::<D::Table<'_>>(CASES) {
        on::<D>(|_, shared| {
            let table = table::<D>(shared);
            if fits(&table, size) { f(table, size) } else { retire(table) }
        });
    }
}

/// Whether [`BASE`] and what follows exists in the design's space.
fn fits<T: PageTable>(table: &T, size: u8) -> bool {
    table.canonical().check(BASE, 8 << size, base_page::<T>()).is_ok()
}

/// Whether there are leaves of this size, and of one entry.
fn is_leaf<T: PageTable>(size: u8) -> bool {
    T::LEAVES >> size & 1 == 1
}

fn is_replaceable<T: PageTable>(size: u8) -> bool {
    T::REPLACEABLE >> size & 1 == 1
}

fn map<T: PageTable>(table: &mut T, oracle: &mut Oracle, run: Run) {
    assert_eq!(recording(&Recorder::default(), |g| table.map(run, g)), Ok(()));
    oracle.map(run, run.len);
}

fn retire<T: PageTable>(table: T) {
    recording(&Recorder::default(), |g| table.retire(g));
}

/// What a walk says of the size of the leaf at `va`.
fn leaf_at<T: PageTable>(table: &T, va: VirtAddr) -> u64 {
    table.walk(va, &mut ()).expect("canonical").len
}

/// A run from one page before an aligned place to one page after another has pages at its ends and
/// large leaves between; if its frames are aligned otherwise, or it does not allow them, only pages.
pub fn large_leaves_are_used_where_they_fit<D: Design>() {
    with_each_size::<D>(|mut table, size| {
        let unit = page_bytes::<D::Table<'_>>();
        let large = if is_leaf::<D::Table<'_>>(size) { 1 << size } else { unit };
        let va = BASE.wrapping_add((1 << size) - unit);
        let len = (2 << size) + 2 * unit;
        let congruent = FRAMES.wrapping_add((1 << size) - unit);
        let cases = [
            (congruent, size, large),
            (congruent, base_page::<D::Table<'_>>(), unit),
            (FRAMES, size, unit),
        ];
        for (pa, page, middle) in cases.into_iter().take(if cfg!(miri) { 1 } else { 3 }) {
            let mut oracle = Oracle::of(&table);
            let run = Run::new(va, pa, len, D::portable(Attr::RW)).with_leaves_up_to(page);
            map(&mut table, &mut oracle, run);
            check_contents(&table, &oracle);
            let leaf_at = |offset| leaf_at(&table, va.wrapping_add(offset));
            assert_eq!(leaf_at(0), unit);
            assert_eq!(leaf_at(unit), middle);
            assert_eq!(leaf_at(len - 2 * unit), middle);
            assert_eq!(leaf_at(len - unit), unit);
            let recorder = Recorder::default();
            recording(&recorder, |g| table.unmap(va, len, g)).expect("a good range");
            assert_eq!(oracle.pages_of(&recorder.take_gone()), oracle.unmap(va, len));
        }
        retire(table);
    });
}

/// Pages in a large leaf can change and go; the rest of it stays as it was.
pub fn part_of_a_large_leaf_can_go<D: Design>() {
    with_each_size::<D>(|mut table, size| {
        let (mut oracle, unit) = (Oracle::of(&table), page_bytes::<D::Table<'_>>());
        let attr = D::portable(Attr::RW | Attr::DIRTY | Attr::SOFT[0]);
        let run = Run::new(BASE, FRAMES, 2 << size, attr).with_leaves_up_to(size);
        map(&mut table, &mut oracle, run);

        let (va, len) = (BASE.wrapping_add(5 * unit), 3 * unit);
        let (before, recorder) = (oracle.clone(), Recorder::default());
        let change = Change::clearing(Attr::WRITE);
        assert_eq!(recording(&recorder, |g| table.protect(va, len, change, g)), Ok(()));
        oracle.protect(va, len, change, |_| true);
        check_contents(&table, &oracle);
        check_flushes(&before, &oracle, &recorder.take_flushes());

        let va = BASE.wrapping_add((1 << size) + 5 * unit);
        let before = oracle.clone();
        assert_eq!(recording(&recorder, |g| table.unmap(va, len, g)), Ok(()));
        assert_eq!(oracle.pages_of(&recorder.take_gone()), oracle.unmap(va, len));
        check_contents(&table, &oracle);
        check_flushes(&before, &oracle, &recorder.take_flushes());
        retire(table);
    });
}

/// The parts of a large leaf of an unusual memory type and key are of that type and key.
pub fn a_large_leaf_keeps_its_memory_type_when_it_splits<D: Design>() {
    let attr = D::portable(Attr::RW.with_memory(MemoryType::WriteCombining).with_key(9));
    let types = [MemoryType::WriteThrough, MemoryType::Uncached, MemoryType::WriteCombining];
    let other = types
        .into_iter()
        .find(|&memory| attr.memory() != Some(memory) && D::encodes(attr.with_memory(memory)));
    with_each_size::<D>(|mut table, size| {
        let (mut oracle, unit) = (Oracle::of(&table), page_bytes::<D::Table<'_>>());
        let run = Run::new(BASE, FRAMES, 1 << size, attr).with_leaves_up_to(size);
        map(&mut table, &mut oracle, run);
        let whole = (BASE, run.len, Change::setting(Attr::USER));
        let part = other.map(|memory| (BASE.wrapping_add(unit), unit, Change::memory(memory)));
        for (va, len, change) in [whole].into_iter().chain(part) {
            let changed = recording(&Recorder::default(), |g| table.protect(va, len, change, g));
            assert_eq!(changed, Ok(()));
            oracle.protect(va, len, change, |_| true);
            check_contents(&table, &oracle);
        }
        retire(table);
    });
}

/// `replace` deals in large leaves as in pages, and refuses to deal in parts of them, or in what
/// pages are under.
pub fn a_large_leaf_is_replaced_whole<D: Design>() {
    let [read, rw, noted] =
        [Attr::READ, Attr::RW, Attr::RW | Attr::DIRTY].map(|attr| D::portable(attr));
    with_each_size::<D>(|table, size| {
        if !is_replaceable::<D::Table<'_>>(size) {
            return retire(table);
        }
        let (len, unit) = (1u64 << size, page_bytes::<D::Table<'_>>());
        let at = |n: u64, attr| Entry::Leaf(FRAMES.wrapping_add(n * len), attr);
        let mut stock = table.stock();
        let mut replace = |va, len, expect, new| {
            let recorder = Recorder::default();
            let result = recording(&recorder, |g| {
                table.replace_refilling(va, len, expect, new, &mut stock, g)
            });
            let mut flushes = recorder.take_flushes();
            flushes.retain(drops_leaves);
            (result, recorder.take_gone(), flushes)
        };
        let large = at(0, noted);
        // What a link of the root may owe (PAE) is no flush of this leaf.
        let (result, gone, _) = replace(BASE, len, Entry::Hole, large);
        assert_eq!((result, gone), (Ok(()), vec![]));
        assert_eq!(leaf_at(&table, BASE), len);
        let inside = BASE.wrapping_add(unit);
        let part = Entry::Leaf(FRAMES, rw);
        assert_eq!(replace(inside, unit, Entry::Hole, part).0, Err(ReplaceError::Structure));
        let soft = Entry::Soft(Soft::new(1).expect("1"));
        let refused = Err(ReplaceError::Invalid(Cause::NoLeaf { page: size }));
        assert_eq!(replace(BASE, len, large, soft).0, refused);
        let (result, gone, flushes) = replace(BASE, len, at(0, rw), at(1, read));
        assert_eq!((result, gone.len()), (Ok(()), 1));
        let run = Run { page: size, ..Run::new(BASE, FRAMES, len, noted) };
        assert_eq!(gone, [Gone::Run(run)]);
        assert!(flushes.iter().any(|f| f.covers(BASE) && f.covers(BASE.wrapping_add(len - 1))));
        assert_eq!(replace(BASE, len, at(1, read), Entry::Hole).0, Ok(()));
        assert_eq!(replace(inside, unit, Entry::Hole, part).0, Ok(()));
        assert_eq!(replace(BASE, len, Entry::Hole, large).0, Err(ReplaceError::Structure));
        drop(stock);
        retire(table);
    });
}

/// A leaf of several entries cannot be replaced through `&self`, nor can a page of it, and neither
/// attempt changes anything.
pub fn a_leaf_of_several_entries_is_not_replaced<D: Design>() {
    with_each_size::<D>(|mut table, size| {
        let is_several = is_leaf::<D::Table<'_>>(size) && !is_replaceable::<D::Table<'_>>(size);
        if !is_several {
            return retire(table);
        }
        let (mut oracle, unit) = (Oracle::of(&table), page_bytes::<D::Table<'_>>());
        let (rw, len) = (D::portable(Attr::RW), 1 << size);
        let run = Run::new(BASE, FRAMES, len, rw).with_leaves_up_to(size);
        map(&mut table, &mut oracle, run);
        let mut stock = table.stock();
        let mut replace = |va, len, expect, new| {
            recording(&Recorder::default(), |g| {
                table.replace_refilling(va, len, expect, new, &mut stock, g)
            })
        };
        let whole = Entry::Leaf(FRAMES, rw);
        let refused = Err(ReplaceError::Invalid(Cause::NoLeaf { page: size }));
        assert_eq!(replace(BASE, len, whole, Entry::Hole), refused);
        let page = Entry::Leaf(FRAMES.wrapping_add(unit), rw);
        let va = BASE.wrapping_add(unit);
        assert_eq!(replace(va, unit, page, Entry::Hole), Err(ReplaceError::Structure));
        drop(stock);
        check_contents(&table, &oracle);
        retire(table);
    });
}

/// Accessed and dirty of a large leaf go as a whole; what is told is the part that was asked for,
/// and what is flushed is the leaf.
pub fn a_large_leaf_is_harvested_whole_and_told_cut<D: Design>() {
    with_each_size::<D>(|mut table, size| {
        if !is_leaf::<D::Table<'_>>(size) {
            return retire(table);
        }
        let unit = page_bytes::<D::Table<'_>>();
        let attr = D::portable(Attr::RW | Attr::STATUS);
        let run = Run::new(BASE, FRAMES, 1 << size, attr).with_leaves_up_to(size);
        let mut oracle = Oracle::of(&table);
        map(&mut table, &mut oracle, run);
        let (va, len) = (BASE.wrapping_add(2 * unit), 2 * unit);
        let (mut told, recorder) = (Vec::new(), Recorder::default());
        recording(&recorder, |g| {
            table.harvest(va, len, Attr::DIRTY, g, &mut |span| told.push(span))
        })
        .expect("a good range");
        let entry = Entry::Leaf(FRAMES.wrapping_add(2 * unit), attr);
        assert_eq!(told, [Span { va, len, entry }]);
        let last = BASE.wrapping_add(run.len - 1);
        let flushed = |f: &Flush| drops_leaves(f) && f.covers(BASE) && f.covers(last);
        assert!(recorder.take_flushes().iter().any(flushed));
        let left = table.walk(BASE, &mut ()).expect("canonical");
        assert_eq!(left.entry, Entry::Leaf(FRAMES, attr - Attr::DIRTY));
        assert_eq!(left.len, run.len, "it was not taken apart");
        retire(table);
    });
}

/// Pages that came and went leave nothing behind that a large leaf would conflict with, whether
/// they were removed as a range or one by one through `&self`.
pub fn emptied_structure_does_not_block_a_large_leaf<D: Design>() {
    with_each_size::<D>(|mut table, size| {
        let unit = page_bytes::<D::Table<'_>>();
        for by_range in [true, false] {
            let mut oracle = Oracle::of(&table);
            map(&mut table, &mut oracle, Run::new(BASE, FRAMES, 3 * unit, D::portable(Attr::RW)));
            if by_range {
                recording(&Recorder::default(), |g| table.unmap(BASE, 3 * unit, g))
                    .expect("a good range");
            } else {
                for (va, entry) in oracle.iter() {
                    let mut stock = table.stock();
                    recording(&Recorder::default(), |g| {
                        table.replace_refilling(va, unit, entry, Entry::Hole, &mut stock, g)
                    })
                    .expect("the entry is there");
                }
            }
            let mut oracle = Oracle::of(&table);
            let attr = D::portable(Attr::RX);
            let run = Run::new(BASE, FRAMES, 1 << size, attr).with_leaves_up_to(size);
            map(&mut table, &mut oracle, run);
            check_contents(&table, &oracle);
            let large = if is_leaf::<D::Table<'_>>(size) { run.len } else { unit };
            assert_eq!(leaf_at(&table, BASE), large);
            recording(&Recorder::default(), |g| table.unmap(BASE, 1 << size, g))
                .expect("a good range");
        }
        retire(table);
    });
}

/// Places that were mapped and unmapped piece by piece leave no more behind than the first did.
pub fn emptied_structure_is_given_back<D: Design>() {
    on::<D>(|arena, shared| {
        let mut table = table::<D>(shared);
        let (low, len) = super::halves(table.canonical())[0];
        let places = if cfg!(miri) { 4 } else { 12 };
        let mut after_first = None;
        for n in 0..places {
            let unit = page_bytes::<D::Table<'_>>();
            let va = low.wrapping_add(len / places * n).align_down(base_page::<D::Table<'_>>());
            let mut oracle = Oracle::of(&table);
            map(&mut table, &mut oracle, Run::new(va, FRAMES, 40 * unit, D::portable(Attr::RW)));
            for (first, count) in [(30, 10), (0, 10), (10, 20)] {
                let (va, len) = (va.wrapping_add(first * unit), count * unit);
                recording(&Recorder::default(), |g| table.unmap(va, len, g)).expect("a good range");
            }
            let limit = *after_first.get_or_insert(arena.frames_in_use());
            assert!(arena.frames_in_use() <= limit, "{arena:?} at place {n}, {limit} at first");
        }
        retire(table);
    });
}

#[derive(Clone, Debug)]
enum Op {
    /// First page, count, whether frames are aligned as pages are, attributes.
    Map(u64, u64, bool, Attr),
    Unmap(u64, u64),
    Protect(u64, u64, Attr),
}

/// Random ranges of pages and of whole large leaves over a few leaves' worth of space.
pub fn operations_with_large_leaves_match_the_oracle<D: Design>() {
    // In pages, as log2.
    let base = base_page::<D::Table<'_>>();
    let sizes: Vec<_> = large_leaves_or_pages::<D::Table<'_>>(SEQUENCES)
        .into_iter()
        .map(|size| size - base)
        .collect();
    let largest = sizes.last().copied().unwrap_or(9);
    let pages = 4u64 << largest;
    let rights = || {
        let all = [Attr::READ, Attr::RW, Attr::RX | Attr::USER];
        prop::sample::select(all.map(|attr| D::portable(attr)).to_vec())
    };
    let multiples = prop::sample::select(sizes)
        .prop_flat_map(move |size| (0..pages >> size).prop_map(move |n| n << size));
    let ends = move || prop_oneof![0..pages, multiples.clone()];
    let range = move || {
        (ends(), ends()).prop_map(move |(a, b)| (a.min(b), if a == b { 1 } else { a.abs_diff(b) }))
    };
    let op = prop_oneof![
        3 => (range(), prop::bool::weighted(0.8), rights())
            .prop_map(|((first, count), aligned, attr)| Op::Map(first, count, aligned, attr)),
        1 => range().prop_map(|(first, count)| Op::Unmap(first, count)),
        1 => (range(), rights()).prop_map(|((first, count), attr)| Op::Protect(first, count, attr)),
    ];
    let length = if cfg!(miri) { 1..2 } else { 1..12 };
    TestRunner::new(config(24))
        .run(&prop::collection::vec(op, length), |ops| {
            on::<D>(|_, shared| {
                let mut table = table::<D>(shared);
                if fits(&table, base + largest) {
                    let mut oracle = Oracle::of(&table);
                    for op in &ops {
                        step(&mut table, &mut oracle, op);
                    }
                }
                retire(table);
            });
            Ok(())
        })
        .unwrap_or_else(|e| panic!("{e}"));
}

fn step<T: PageTable>(table: &mut T, oracle: &mut Oracle, op: &Op) {
    let unit = page_bytes::<T>();
    let at = |page: u64| BASE.wrapping_add(page * unit);
    let (before, recorder) = (oracle.clone(), Recorder::default());
    match *op {
        Op::Map(first, count, aligned, attr) => {
            let skew = if aligned { 0 } else { unit };
            let pa = FRAMES.wrapping_add(first * unit + skew);
            let run = Run::new(at(first), pa, count * unit, attr).with_leaves_up_to(30);
            let result = recording(&recorder, |g| table.map(run, g));
            super::random::map_as_expected(oracle, run, result);
        }
        Op::Unmap(first, count) => {
            let (va, len) = (at(first), count * unit);
            assert_eq!(recording(&recorder, |g| table.unmap(va, len, g)), Ok(()));
            assert_eq!(oracle.pages_of(&recorder.take_gone()), oracle.unmap(va, len));
        }
        Op::Protect(first, count, attr) => {
            let (va, len) = (at(first), count * unit);
            let change = Change::to(attr, Attr::RWX | Attr::USER);
            assert_eq!(recording(&recorder, |g| table.protect(va, len, change, g)), Ok(()));
            oracle.protect(va, len, change, |_| true);
        }
    }
    check_flushes(&before, oracle, &recorder.take_flushes());
    check_contents(table, oracle);
}
