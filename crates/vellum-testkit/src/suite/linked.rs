//! Forks that may link parts of the parent's structure in the child, moving such parts, and filling several
//! holes at once: the provided operations of `PageTable` that designs do better.

use super::fork::{FRAME, pair, populate, retire};
use super::{
    Design, Recorder, check_contents, check_flushes, contents, grants, halves, on, page_bytes,
    recording, table, windows,
};
use crate::oracle::Oracle;
use std::collections::BTreeMap;
use vellum_core::{
    Attr, Cause, Change, Entry, Given, Gone, PageTable, RangeError, Run, Span, VirtAddr,
};

const COW: Change = Change::clearing(Attr::WRITE);

/// How often what an entry names is named: by frame and soft value.
#[derive(Debug, Default)]
struct Names(BTreeMap<(bool, u64), i64>);

impl Names {
    fn add(&mut self, pages: &[(VirtAddr, Entry)], by: i64) {
        for (_, entry) in pages {
            let name = match *entry {
                Entry::Leaf(pa, _) => (false, pa.as_u64()),
                Entry::Soft(soft) => (true, soft.get()),
                Entry::Hole => continue,
            };
            *self.0.entry(name).or_default() += by;
        }
    }

    fn lose(&mut self, oracle: &Oracle, gone: &[Gone]) {
        self.add(&oracle.pages_of(gone), -1);
    }

    fn check(&self, tables: &[&Oracle]) {
        for (name, &count) in &self.0 {
            assert!(count >= 0, "{name:x?} is named {count} times");
        }
        let mut seen = Self::default();
        tables.iter().for_each(|pages| seen.add(&pages.iter().collect::<Vec<_>>(), 1));
        for (name, &count) in &seen.0 {
            let named = self.0.get(name).copied().unwrap_or(0);
            assert!((1..=count).contains(&named), "{name:x?}: {named} of {count}");
        }
        let left = self.0.iter().filter(|(name, count)| **count > 0 && !seen.0.contains_key(name));
        assert_eq!(left.count(), 0, "what no table shows is named");
    }
}

/// Forks a range; what the child was given, and which of it with entries of its own.
fn fork<T: PageTable>(
    parent: &mut T,
    child: &mut T,
    (va, len): (VirtAddr, u64),
    recorder: &Recorder,
) -> (Result<(), RangeError>, Vec<Span>, Vec<Span>) {
    let (childs, mut all, mut own) = (Recorder::default(), Vec::new(), Vec::new());
    let result = recording(&childs, |child_gather| {
        recording(recorder, |gather| {
            parent.fork(va, len, gather, (&mut *child, child_gather), &mut |given| match given {
                Given::Own(span) => {
                    all.push(span);
                    own.push(span);
                }
                Given::Linked(span) => all.push(span),
            })
        })
    });
    assert_eq!(childs.take_gone(), [], "nothing of the child's goes");
    assert_eq!(recorder.take_gone(), [], "nor of the parent's");
    (result, all, own)
}

fn pages(oracle: &Oracle, spans: &[Span]) -> Vec<(VirtAddr, Entry)> {
    spans.iter().flat_map(|s| oracle.pages_of_span(s.va, s.len, s.entry)).collect()
}

/// Repeats a change of a range that meets linked parts, after making those its own.
fn insist<T: PageTable>(
    table: &mut T,
    (va, len): (VirtAddr, u64),
    names: &mut Names,
    oracle: &Oracle,
    mut change: impl FnMut(&mut T, (VirtAddr, u64), &Recorder) -> Result<(), RangeError>,
) {
    let (recorder, mut done) = (Recorder::default(), 0);
    while let Err(e) = change(table, (va.wrapping_add(done), len - done), &recorder) {
        let Cause::Shared(at) = e.cause else { panic!("{e}") };
        done += e.done;
        let mut copied = Vec::new();
        let unit = page_bytes::<T>();
        recording(&recorder, |g| table.unshare(at, unit, g, &mut |span| copied.push(span)))
            .expect("room for a copy");
        assert_eq!(table.next_linked(at, unit), None, "it is its own now");
        names.add(&pages(oracle, &copied), 1);
    }
    names.lose(oracle, &recorder.take_gone());
}

/// Fork: both have every page, without the right to write; what is narrowed is flushed; and each is told of
/// once, as the child's own or as linked.
pub fn fork_gives_the_child_the_same_pages<D: Design>() {
    on::<D>(|_, shared| {
        let (mut parent, mut child) = pair::<D>(shared);
        let mut oracle = Oracle::of(&parent);
        populate::<D, _>(&mut parent, &mut oracle);
        let (before, recorder) = (oracle.clone(), Recorder::default());
        let mut told = Vec::new();
        for (va, len) in halves(parent.canonical()) {
            let (result, all, own) = fork(&mut parent, &mut child, (va, len), &recorder);
            assert_eq!(result, Ok(()));
            assert_eq!(child.next_linked(va, len).is_some(), own.len() < all.len());
            told.extend(pages(&oracle, &all));
            oracle.protect(va, len, COW, |_| true);
        }
        assert_eq!(told, oracle.iter().collect::<Vec<_>>());
        check_contents(&parent, &oracle);
        check_contents(&child, &oracle);
        check_flushes(&before, &oracle, &recorder.take_flushes());
        retire((parent, child));
    });
}

/// What is done to one of the two after a fork is done to that one, and everything that pages name is named
/// as long as somebody shows it, and no longer.
pub fn changes_after_a_fork_stay_with_the_table<D: Design>() {
    on::<D>(|_, shared| {
        let (mut parent, mut child) = pair::<D>(shared);
        let (mut oracle, mut names) = (Oracle::of(&parent), Names::default());
        populate::<D, _>(&mut parent, &mut oracle);
        names.add(&oracle.iter().collect::<Vec<_>>(), 1);
        let recorder = Recorder::default();
        for (va, len) in halves(parent.canonical()) {
            let (result, _, own) = fork(&mut parent, &mut child, (va, len), &recorder);
            assert_eq!(result, Ok(()));
            names.add(&pages(&oracle, &own), 1);
            oracle.protect(va, len, COW, |_| true);
        }
        let (unit, mut theirs) = (page_bytes::<D::Table<'_>>(), oracle.clone());
        names.check(&[&oracle, &theirs]);
        for va in windows(&child) {
            let middle = (va.wrapping_add(20 * unit), 10 * unit);
            insist(&mut child, middle, &mut names, &oracle, |table, (va, len), recorder| {
                recording(recorder, |g| table.unmap(va, len, g))
            });
            theirs.unmap(middle.0, middle.1);
            names.check(&[&oracle, &theirs]);
            let new = Run::new(middle.0, FRAME, 10 * unit, D::portable(Attr::RW));
            insist(&mut child, middle, &mut names, &oracle, |table, (va, len), recorder| {
                let pa = new.pa.wrapping_add(va.as_u64().wrapping_sub(new.va.as_u64()));
                recording(recorder, |g| table.map(Run { va, pa, len, ..new }, g))
            });
            theirs.map(new, new.len);
            names.add(
                &pages(
                    &oracle,
                    &[Span { va: new.va, len: new.len, entry: Entry::Leaf(new.pa, new.attr) }],
                ),
                1,
            );
            // No right: formats differ in those that they can take away.
            let change = Change { set: Attr::SOFT[1], clear: Attr::DIRTY };
            let first = (va, 19 * unit);
            insist(&mut parent, first, &mut names, &theirs, |table, (va, len), recorder| {
                recording(recorder, |g| table.protect(va, len, change, g))
            });
            oracle.protect(first.0, first.1, change, |_| true);
            check_contents(&parent, &oracle);
            check_contents(&child, &theirs);
            names.check(&[&oracle, &theirs]);
        }
        recording(&recorder, |g| parent.retire(g));
        names.lose(&oracle, &recorder.take_gone());
        check_contents(&child, &theirs);
        recording(&recorder, |g| child.retire(g));
        names.lose(&theirs, &recorder.take_gone());
        names.check(&[]);
    });
}

/// Out of frames at any point of a fork: the child has what `done` says and what was told, no more.
pub fn fork_gives_exactly_what_it_says_when_frames_run_out<D: Design>() {
    for granted in grants() {
        let mut complete = false;
        on::<D>(|arena, shared| {
            let (mut parent, mut child) = pair::<D>(shared);
            let mut oracle = Oracle::of(&parent);
            populate::<D, _>(&mut parent, &mut oracle);
            let (va, len) = halves(parent.canonical())[0];
            arena.limit_allocations(Some(granted));
            let (result, all, _) = fork(&mut parent, &mut child, (va, len), &Recorder::default());
            arena.limit_allocations(None);
            let done = match result {
                Ok(()) => len,
                Err(RangeError { cause: Cause::OutOfFrames(_), done }) => done,
                Err(other) => panic!("{other}"),
            };
            oracle.protect(va, len, COW, |_| true);
            let given: Vec<_> = oracle.range(va, done).collect();
            let told = pages(&oracle, &all);
            assert_eq!((contents(&child), told), (given.clone(), given), "with {granted} frames");
            complete = result.is_ok();
            retire((parent, child));
        });
        if complete {
            return;
        }
    }
    panic!("a fork should not need that many frames");
}

/// Several holes are filled as by one `replace` each: what is there stays, and the bits say what was put.
pub fn holes_are_filled_where_there_are_some<D: Design>() {
    for granted in [None, Some(0), Some(1), Some(2)] {
        on::<D>(|arena, shared| {
            let mut table = table::<D>(shared);
            let mut oracle = Oracle::of(&table);
            populate::<D, _>(&mut table, &mut oracle);
            let (unit, attr) = (page_bytes::<D::Table<'_>>(), D::portable(Attr::READ));
            let frame = |i: u64| FRAME.wrapping_add((512 + 3 * i) * unit);
            let places = windows(&table).into_iter().flat_map(|va| {
                // At the first pages, over runs and lone pages, and where nothing is near.
                [va, va.wrapping_add(38 * unit), va.wrapping_add(600 * unit)]
            });
            arena.limit_allocations(granted);
            for va in places {
                let frames: Vec<_> = (0..30).map(|i| (i % 5 != 2).then(|| frame(i))).collect();
                if table
                    .canonical()
                    .check(va, 30 * unit, super::base_page::<D::Table<'_>>())
                    .is_err()
                {
                    continue;
                }
                let recorder = Recorder::default();
                let put = recording(&recorder, |g| table.fill_holes(va, &frames, attr, g));
                assert_eq!(recorder.take_gone(), []);
                for (i, given) in (0..).zip(frames) {
                    let page = va.wrapping_add(i * unit);
                    let was_put = put >> i & 1 == 1;
                    let is_free = given.is_some() && oracle.get(page) == Entry::Hole;
                    assert!(is_free || !was_put, "page {i} from {va}");
                    assert!(was_put || !is_free || granted.is_some(), "page {i} from {va}");
                    if was_put {
                        oracle.set(page, Entry::Leaf(frame(i), attr));
                    }
                }
                assert_eq!(put >> 30, 0, "more bits than frames");
            }
            arena.limit_allocations(None);
            check_contents(&table, &oracle);
            recording(&Recorder::default(), |g| table.retire(g));
        });
    }
}

/// Moving parts: all or nothing, with or without frames, also what a child links; what was there is flushed.
pub fn parts_move_whole_or_not_at_all<D: Design>() {
    for granted in grants() {
        let mut complete = true;
        on::<D>(|arena, shared| {
            let (mut parent, mut child) = pair::<D>(shared);
            let mut oracle = Oracle::of(&parent);
            populate::<D, _>(&mut parent, &mut oracle);
            let part = <D::Table<'_>>::PART.max(page_bytes::<D::Table<'_>>());
            let halves = halves(parent.canonical());
            let (half, all) = halves[0];
            let result = fork(&mut parent, &mut child, (half, all / 4), &Recorder::default()).0;
            assert_eq!(result, Ok(()));
            oracle.protect(half, all / 4, COW, |_| true);
            let theirs = contents(&child);
            // The first window, and what is around the middle of the half: of each, two parts.
            for (from, to) in [(0, 8 * part), (all / 2 - part, all / 2 + 4 * part)] {
                let (from, to) = (half.wrapping_add(from), half.wrapping_add(to));
                if all < 32 * part {
                    continue;
                }
                let before = oracle.clone();
                let recorder = Recorder::default();
                arena.limit_allocations(Some(granted));
                let moved = recording(&recorder, |g| parent.move_parts(from, to, 2 * part, g));
                arena.limit_allocations(None);
                match moved {
                    Ok(true) => {
                        for (va, entry) in oracle.unmap(from, 2 * part) {
                            let offset = va.as_u64().wrapping_sub(from.as_u64());
                            oracle.set(to.wrapping_add(offset), entry);
                        }
                        let covers = |flush: &vellum_core::Flush, va| {
                            super::drops_leaves(flush) && flush.covers(va)
                        };
                        let flushes = recorder.take_flushes();
                        for (va, _) in before.range(from, 2 * part) {
                            assert!(flushes.iter().any(|flush| covers(flush, va)), "{va}");
                        }
                    }
                    Ok(false) => {}
                    Err(Cause::OutOfFrames(_)) => complete = false,
                    Err(other) => panic!("{other}"),
                }
                assert_eq!(recorder.take_gone(), [], "everything is somewhere");
                check_contents(&parent, &oracle);
                assert_eq!(contents(&child), theirs);
                if moved != Ok(true) {
                    continue;
                }
                let back = recording(&recorder, |g| parent.move_parts(to, from, 2 * part, g));
                assert_eq!(back, Ok(true));
                check_contents(&parent, &before);
                oracle = before;
                // Onto something.
                let one = page_bytes::<D::Table<'_>>();
                let there = Run::new(to, FRAME, one, D::portable(Attr::READ));
                assert_eq!(recording(&recorder, |g| parent.map(there, g)), Ok(()));
                let is_empty = oracle.range(from, 2 * part).next().is_none();
                let onto = recording(&recorder, |g| parent.move_parts(from, to, 2 * part, g));
                assert_eq!(matches!(onto, Err(Cause::Mapped(_))), !is_empty, "{onto:?}");
                assert_eq!(recording(&recorder, |g| parent.unmap(to, one, g)), Ok(()));
                check_contents(&parent, &oracle);
            }
            retire((parent, child));
        });
        if complete {
            return;
        }
    }
    panic!("moving should not need that many frames");
}
