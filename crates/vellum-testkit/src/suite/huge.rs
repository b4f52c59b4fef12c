//! Large leaves: used where both addresses allow, split where a part goes, never in the way.
//!
//! A design without leaves above 4 KiB runs the same properties; it maps the same pages.

use super::{
    Design, Recorder, check_contents, check_flushes, config, next_leaf, on, recording, table,
};
use crate::oracle::{Oracle, pages_of};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use vellum_core::{
    Attr, Cause, Change, Entry, Flush, Gone, MemoryType, PAGE_SHIFT, PAGE_SIZE, PageTable,
    PhysAddr, ReplaceError, Run, Soft, Span, VirtAddr, Walk as _,
};

/// Where the leaves go: a multiple of every leaf size tried here.
const BASE: VirtAddr = VirtAddr::new(8 << 21);
const FRAMES: PhysAddr = PhysAddr::new(1 << 30);

/// The leaf size under test, in bytes as log2; 2 MiB stretches where the design has only pages.
fn size<T: PageTable>() -> u8 {
    next_leaf::<T>().unwrap_or(21)
}

/// Whether [`BASE`] and what follows exists in the design's space.
fn fits<T: PageTable>(table: &T) -> bool {
    table.canonical().check(BASE, 8 << size::<T>(), PAGE_SHIFT).is_ok()
}

fn map<T: PageTable>(table: &mut T, oracle: &mut Oracle, run: Run) {
    assert_eq!(recording(&Recorder::default(), |g| table.map(run, g)), Ok(()));
    oracle.map(run, run.len);
}

fn retire<T: PageTable>(table: T) {
    recording(&Recorder::default(), |g| table.retire(g));
}

/// A run from one page before an aligned place to one page after another has pages at its ends and
/// large leaves between; if its frames are aligned otherwise, or it does not allow them, only pages.
pub fn large_leaves_are_used_where_they_fit<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        if !fits(&table) {
            return retire(table);
        }
        let size = size::<D::Table<'_>>();
        let large = next_leaf::<D::Table<'_>>().map_or(PAGE_SIZE, |n| 1 << n);
        let va = BASE.wrapping_add((1 << size) - PAGE_SIZE);
        let len = (2 << size) + 2 * PAGE_SIZE;
        let congruent = FRAMES.wrapping_add((1 << size) - PAGE_SIZE);
        for (pa, page, middle) in [
            (congruent, size, large),
            (congruent, PAGE_SHIFT, PAGE_SIZE),
            (FRAMES, size, PAGE_SIZE),
        ]
        .into_iter()
        .take(if cfg!(miri) { 1 } else { 3 })
        {
            let mut oracle = Oracle::default();
            map(&mut table, &mut oracle, Run::new(va, pa, len, Attr::RW).with_leaves_up_to(page));
            check_contents(&table, &oracle);
            let leaf_at =
                |offset| table.walk(va.wrapping_add(offset), &mut ()).expect("canonical").len;
            assert_eq!(leaf_at(0), PAGE_SIZE);
            assert_eq!(leaf_at(PAGE_SIZE), middle);
            assert_eq!(leaf_at(len - 2 * PAGE_SIZE), middle);
            assert_eq!(leaf_at(len - PAGE_SIZE), PAGE_SIZE);
            let recorder = Recorder::default();
            recording(&recorder, |g| table.unmap(va, len, g)).expect("a good range");
            assert_eq!(pages_of(&recorder.take_gone()), oracle.unmap(va, len));
        }
        retire(table);
    });
}

/// Pages in a large leaf can change and go; the rest of it stays as it was.
pub fn part_of_a_large_leaf_can_go<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        if !fits(&table) {
            return retire(table);
        }
        let size = size::<D::Table<'_>>();
        let mut oracle = Oracle::default();
        let attr = Attr::RW | Attr::DIRTY | Attr::SOFT[0];
        map(
            &mut table,
            &mut oracle,
            Run::new(BASE, FRAMES, 2 << size, attr).with_leaves_up_to(size),
        );

        let (va, len) = (BASE.wrapping_add(5 * PAGE_SIZE), 3 * PAGE_SIZE);
        let (before, recorder) = (oracle.clone(), Recorder::default());
        let change = Change::clearing(Attr::WRITE);
        assert_eq!(recording(&recorder, |g| table.protect(va, len, change, g)), Ok(()));
        oracle.protect(va, len, change, |_| true);
        check_contents(&table, &oracle);
        check_flushes(&before, &oracle, &recorder.take_flushes());

        let va = BASE.wrapping_add((1 << size) + 5 * PAGE_SIZE);
        let before = oracle.clone();
        assert_eq!(recording(&recorder, |g| table.unmap(va, len, g)), Ok(()));
        assert_eq!(pages_of(&recorder.take_gone()), oracle.unmap(va, len));
        check_contents(&table, &oracle);
        check_flushes(&before, &oracle, &recorder.take_flushes());
        retire(table);
    });
}

/// The parts of a large leaf of an unusual memory type and key are of that type and key.
pub fn a_large_leaf_keeps_its_memory_type_when_it_splits<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let attr = Attr::RW.with_memory(MemoryType::WriteCombining).with_key(9);
        if !fits(&table) || !D::encodes(attr) {
            return retire(table);
        }
        let size = size::<D::Table<'_>>();
        let mut oracle = Oracle::default();
        map(
            &mut table,
            &mut oracle,
            Run::new(BASE, FRAMES, 1 << size, attr).with_leaves_up_to(size),
        );
        let whole = Change::memory(MemoryType::WriteThrough);
        for (va, len, change) in [
            (BASE, 1 << size, Change::setting(Attr::USER)),
            (BASE.wrapping_add(PAGE_SIZE), PAGE_SIZE, whole),
        ] {
            assert_eq!(
                recording(&Recorder::default(), |g| table.protect(va, len, change, g)),
                Ok(())
            );
            oracle.protect(va, len, change, |_| true);
            check_contents(&table, &oracle);
        }
        retire(table);
    });
}

/// `replace` deals in large leaves as in pages, and refuses to deal in parts of them, or in what
/// pages are under.
pub fn a_large_leaf_is_replaced_whole<D: Design>() {
    on::<D>(|_, shared| {
        let table = table::<D>(shared);
        let Some(size) = next_leaf::<D::Table<'_>>().filter(|_| fits(&table)) else {
            return retire(table);
        };
        let len = 1u64 << size;
        let at = |n: u64, attr| Entry::Leaf(FRAMES.wrapping_add(n * len), attr);
        let mut stock = table.stock();
        let mut replace = |va, len, expect, new| {
            let recorder = Recorder::default();
            let result = recording(&recorder, |g| {
                table.replace_refilling(va, len, expect, new, &mut stock, g)
            });
            (result, recorder.take_gone(), recorder.take_flushes())
        };
        let large = at(0, Attr::RW | Attr::DIRTY);
        assert_eq!(replace(BASE, len, Entry::Hole, large), (Ok(()), vec![], vec![]));
        assert_eq!(table.walk(BASE, &mut ()).map(|span| span.len), Ok(len));
        let inside = BASE.wrapping_add(PAGE_SIZE);
        let part = Entry::Leaf(FRAMES, Attr::RW);
        assert_eq!(replace(inside, PAGE_SIZE, Entry::Hole, part).0, Err(ReplaceError::Structure));
        let soft = Entry::Soft(Soft::new(1).expect("1"));
        let refused = Err(ReplaceError::Invalid(Cause::NoLeaf { page: size }));
        assert_eq!(replace(BASE, len, large, soft).0, refused);
        let (result, gone, flushes) = replace(BASE, len, at(0, Attr::RW), at(1, Attr::READ));
        assert_eq!((result, gone.len()), (Ok(()), 1));
        let run = Run { page: size, ..Run::new(BASE, FRAMES, len, Attr::RW | Attr::DIRTY) };
        assert_eq!(gone, [Gone::Run(run)]);
        assert!(flushes.iter().any(|f| f.covers(BASE) && f.covers(BASE.wrapping_add(len - 1))));
        assert_eq!(replace(BASE, len, at(1, Attr::READ), Entry::Hole).0, Ok(()));
        assert_eq!(replace(inside, PAGE_SIZE, Entry::Hole, part).0, Ok(()));
        assert_eq!(replace(BASE, len, Entry::Hole, large).0, Err(ReplaceError::Structure));
        drop(stock);
        retire(table);
    });
}

/// Accessed and dirty of a large leaf go as a whole; what is told is the part that was asked for,
/// and what is flushed is the leaf.
pub fn a_large_leaf_is_harvested_whole_and_told_cut<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let Some(size) = next_leaf::<D::Table<'_>>().filter(|_| fits(&table)) else {
            return retire(table);
        };
        let attr = Attr::RW | Attr::STATUS;
        let run = Run::new(BASE, FRAMES, 1 << size, attr).with_leaves_up_to(size);
        map(&mut table, &mut Oracle::default(), run);
        let (va, len) = (BASE.wrapping_add(2 * PAGE_SIZE), 3 * PAGE_SIZE);
        let (mut told, recorder) = (Vec::new(), Recorder::default());
        recording(&recorder, |g| {
            table.harvest(va, len, Attr::DIRTY, g, &mut |span| told.push(span))
        })
        .expect("a good range");
        let entry = Entry::Leaf(FRAMES.wrapping_add(2 * PAGE_SIZE), attr);
        assert_eq!(told, [Span { va, len, entry }]);
        let flushed = |f: &Flush| f.covers(BASE) && f.covers(BASE.wrapping_add(run.len - 1));
        assert!(recorder.take_flushes().iter().any(flushed));
        let left = table.walk(BASE, &mut ()).expect("canonical");
        assert_eq!(left.entry, Entry::Leaf(FRAMES, Attr::RW | Attr::ACCESSED));
        retire(table);
    });
}

/// Pages that came and went leave nothing behind that a large leaf would conflict with, whether
/// they were removed as a range or one by one through `&self`.
pub fn emptied_structure_does_not_block_a_large_leaf<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        if !fits(&table) {
            return retire(table);
        }
        let size = size::<D::Table<'_>>();
        for by_range in [true, false] {
            let mut oracle = Oracle::default();
            map(&mut table, &mut oracle, Run::new(BASE, FRAMES, 3 * PAGE_SIZE, Attr::RW));
            if by_range {
                recording(&Recorder::default(), |g| table.unmap(BASE, 3 * PAGE_SIZE, g))
                    .expect("a good range");
            } else {
                for (va, entry) in oracle.iter() {
                    let mut stock = table.stock();
                    recording(&Recorder::default(), |g| {
                        table.replace_refilling(va, PAGE_SIZE, entry, Entry::Hole, &mut stock, g)
                    })
                    .expect("the entry is there");
                }
            }
            let mut oracle = Oracle::default();
            let run = Run::new(BASE, FRAMES, 1 << size, Attr::RX).with_leaves_up_to(size);
            map(&mut table, &mut oracle, run);
            check_contents(&table, &oracle);
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
            let va = low.wrapping_add(len / places * n).align_down(PAGE_SHIFT);
            let mut oracle = Oracle::default();
            map(&mut table, &mut oracle, Run::new(va, FRAMES, 40 * PAGE_SIZE, Attr::RW));
            for (first, count) in [(30, 10), (0, 10), (10, 20)] {
                let (va, len) = (va.wrapping_add(first * PAGE_SIZE), count * PAGE_SIZE);
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
    let pages = 4u64 << (21 - PAGE_SHIFT);
    let rights = || prop::sample::select(vec![Attr::READ, Attr::RW, Attr::RX | Attr::USER]);
    let ends = || prop_oneof![0..pages, (0..4u64).prop_map(|n| n << (21 - PAGE_SHIFT))];
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
                if fits(&table) {
                    let mut oracle = Oracle::default();
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
    let at = |page: u64| BASE.wrapping_add(page * PAGE_SIZE);
    let (before, recorder) = (oracle.clone(), Recorder::default());
    match *op {
        Op::Map(first, count, aligned, attr) => {
            let skew = if aligned { 0 } else { PAGE_SIZE };
            let pa = FRAMES.wrapping_add(first * PAGE_SIZE + skew);
            let run = Run::new(at(first), pa, count * PAGE_SIZE, attr).with_leaves_up_to(30);
            let result = recording(&recorder, |g| table.map(run, g));
            super::random::map_as_expected(oracle, run, result);
        }
        Op::Unmap(first, count) => {
            let (va, len) = (at(first), count * PAGE_SIZE);
            assert_eq!(recording(&recorder, |g| table.unmap(va, len, g)), Ok(()));
            assert_eq!(pages_of(&recorder.take_gone()), oracle.unmap(va, len));
        }
        Op::Protect(first, count, attr) => {
            let (va, len) = (at(first), count * PAGE_SIZE);
            let change = Change::to(attr, Attr::RWX | Attr::USER);
            assert_eq!(recording(&recorder, |g| table.protect(va, len, change, g)), Ok(()));
            oracle.protect(va, len, change, |_| true);
        }
    }
    check_flushes(&before, oracle, &recorder.take_flushes());
    check_contents(table, oracle);
}
