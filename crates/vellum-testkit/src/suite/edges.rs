//! Single cases at the edges: of addresses, of attributes, of what a visit and a walk tell.

use super::{
    Design, Recorder, check_contents, check_flushes, contents, entry_at, halves, on, recording,
    table, windows,
};
use crate::oracle::{Oracle, pages_of};
use core::ops::ControlFlow;
use vellum_core::{
    Attr, Cause, Change, Entry, PAGE_SHIFT, PAGE_SIZE, PageTable, PhysAddr, RangeError, Ref,
    ReplaceError, Run, Span, VirtAddr, Walk as _,
};

/// A frame number that nothing is stored in: leaves only name it.
const FRAME: PhysAddr = PhysAddr::new(0x60_0000);

fn leaf(n: u64, attr: Attr) -> Entry {
    Entry::Leaf(FRAME.wrapping_add(n * PAGE_SIZE), attr)
}

/// Maps `pages` pages from `va` to [`FRAME`] on, on table and oracle.
fn map<T: PageTable>(table: &mut T, oracle: &mut Oracle, va: VirtAddr, pages: u64, attr: Attr) {
    let run = Run::new(va, FRAME, pages * PAGE_SIZE, attr);
    assert_eq!(recording(&Recorder::default(), |g| table.map(run, g)), Ok(()));
    oracle.map(run, run.len);
}

fn retire<T: PageTable>(table: T) {
    recording(&Recorder::default(), |g| table.retire(g));
}

/// Ranges that no table could hold, for this one.
fn bad_ranges<T: PageTable>(table: &T) -> Vec<(VirtAddr, u64, Cause)> {
    let canonical = table.canonical();
    let (low, half) = halves(canonical)[0];
    let beyond = low.wrapping_add(half);
    let last = beyond.wrapping_add(PAGE_SIZE.wrapping_neg());
    let at = |raw: u64| VirtAddr::new(raw);
    let mut bad = vec![
        (at(0x1001), PAGE_SIZE, Cause::Misaligned { value: 0x1001, page: PAGE_SHIFT }),
        (at(0x1000), 0x800, Cause::Misaligned { value: 0x800, page: PAGE_SHIFT }),
        (beyond, PAGE_SIZE, Cause::NonCanonical(beyond)),
        (last, 2 * PAGE_SIZE, Cause::NonCanonical(beyond)),
    ];
    let top = at(PAGE_SIZE.wrapping_neg());
    if canonical.contains(top) {
        bad.push((top, 2 * PAGE_SIZE, Cause::Wraps { va: top, len: 2 * PAGE_SIZE }));
        bad.push((last, half.wrapping_neg(), Cause::NonCanonical(beyond)));
    } else {
        bad.push((top, PAGE_SIZE, Cause::NonCanonical(top)));
    }
    bad
}

/// Misaligned, non-canonical and wrapping ranges are errors that name the value, in every
/// operation, and change nothing.
pub fn bad_ranges_are_refused_untouched<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let mut oracle = Oracle::default();
        map(&mut table, &mut oracle, VirtAddr::new(0x1000), 1, Attr::RW);
        for (va, len, cause) in bad_ranges(&table) {
            let refused = Err(RangeError { cause, done: 0 });
            let recorder = Recorder::default();
            let run = Run::new(va, FRAME, len, Attr::RW);
            assert_eq!(recording(&recorder, |g| table.map(run, g)), refused);
            assert_eq!(recording(&recorder, |g| table.unmap(va, len, g)), refused);
            let change = Change::clearing(Attr::WRITE);
            assert_eq!(recording(&recorder, |g| table.protect(va, len, change, g)), refused);
            assert_eq!(table.visit(va, len, &mut |_| ControlFlow::Continue(())), Err(cause));
            let harvested =
                recording(&recorder, |g| table.harvest(va, len, Attr::STATUS, g, &mut |_| {}));
            assert_eq!(harvested, Err(cause));
            if len == PAGE_SIZE {
                let replaced = recording(&recorder, |g| {
                    let new = leaf(0, Attr::RW);
                    table.replace(va, len, Entry::Hole, new, &mut table.stock(), g)
                });
                assert_eq!(replaced, Err(ReplaceError::Invalid(cause)));
            }
            if let Cause::NonCanonical(bad) = cause {
                assert_eq!(table.walk(bad, &mut ()), Err(cause));
                assert_eq!(table.touch(bad, Attr::READ, Attr::ACCESSED), Entry::Hole);
            }
            assert_eq!((recorder.take_gone().len(), recorder.take_flushes().len()), (0, 0));
            check_contents(&table, &oracle);
        }
        let crooked = Run::new(VirtAddr::new(0x8000), PhysAddr::new(0x800), PAGE_SIZE, Attr::RW);
        let cause = Cause::Misaligned { value: 0x800, page: PAGE_SHIFT };
        let refused = Err(RangeError { cause, done: 0 });
        assert_eq!(recording(&Recorder::default(), |g| table.map(crooked, g)), refused);
        let too_wide = Run::new(VirtAddr::new(0x8000), PhysAddr::new(!0xfff), 2 << 12, Attr::RW);
        let wide = recording(&Recorder::default(), |g| table.map(too_wide, g)).unwrap_err();
        assert!(matches!(wide, RangeError { cause: Cause::PhysTooWide(_), done: 0 }), "{wide}");
        let no_leaf =
            Run { page: 11, ..Run::new(VirtAddr::new(0x8000), FRAME, PAGE_SIZE, Attr::RW) };
        let refused = Err(RangeError { cause: Cause::NoLeaf { page: 11 }, done: 0 });
        assert_eq!(recording(&Recorder::default(), |g| table.map(no_leaf, g)), refused);
        check_contents(&table, &oracle);
        retire(table);
    });
}

/// Giving a space up flushes all of it: a page that another gather still holds, and an identifier
/// that the next space may get, are in no TLB afterwards.
pub fn retiring_flushes_the_whole_space<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let canonical = table.canonical();
        map(&mut table, &mut Oracle::default(), VirtAddr::new(0x5000), 1, Attr::RW);
        let recorder = Recorder::default();
        recording(&recorder, |g| table.retire(g));
        let flushes = recorder.take_flushes();
        for (va, len) in halves(canonical) {
            for va in [va, va.wrapping_add(len - 1)] {
                assert!(flushes.iter().any(|f| f.covers(va)), "{va}");
            }
        }
    });
}

/// Operations on nothing succeed and do nothing.
pub fn an_empty_range_changes_nothing<D: Design>() {
    on::<D>(|arena, shared| {
        let mut table = table::<D>(shared);
        let (in_use, va) = (arena.frames_in_use(), VirtAddr::new(0x5000));
        let recorder = Recorder::default();
        let run = Run::new(va, FRAME, 0, Attr::RW);
        assert_eq!(recording(&recorder, |g| table.map(run, g)), Ok(()));
        assert_eq!(recording(&recorder, |g| table.unmap(va, 0, g)), Ok(()));
        let change = Change::setting(Attr::WRITE);
        assert_eq!(recording(&recorder, |g| table.protect(va, 0, change, g)), Ok(()));
        assert_eq!(table.visit(va, 0, &mut |_| panic!("nothing to visit")), Ok(()));
        assert_eq!(contents(&table), []);
        assert_eq!(arena.frames_in_use(), in_use);
        retire(table);
    });
}

/// The two ends of every half can be mapped, found and removed.
pub fn the_first_and_the_last_page_are_pages<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let mut oracle = Oracle::default();
        let ends: Vec<_> = halves(table.canonical())
            .into_iter()
            .flat_map(|(va, len)| [va, va.wrapping_add(len - PAGE_SIZE)])
            .collect();
        for &va in &ends {
            map(&mut table, &mut oracle, va, 1, Attr::RW);
            check_contents(&table, &oracle);
            let last_byte = va.wrapping_add(PAGE_SIZE - 1);
            let span = table.walk(last_byte, &mut ()).expect("canonical");
            assert_eq!(span, Span { va, len: PAGE_SIZE, entry: leaf(0, Attr::RW) });
        }
        for &va in &ends {
            let recorder = Recorder::default();
            assert_eq!(recording(&recorder, |g| table.unmap(va, PAGE_SIZE, g)), Ok(()));
            assert_eq!(pages_of(&recorder.take_gone()), oracle.unmap(va, PAGE_SIZE));
            check_contents(&table, &oracle);
        }
        retire(table);
    });
}

/// A conflict says which page, and what it holds; the page after it is not mapped.
pub fn conflicts_name_what_is_there<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        for va in windows(table.canonical()) {
            let mut oracle = Oracle::default();
            let taken = va.wrapping_add(70 * PAGE_SIZE);
            map(&mut table, &mut oracle, taken, 1, Attr::READ);
            let run = Run::new(va, FRAME, 96 * PAGE_SIZE, Attr::RW);
            let result = recording(&Recorder::default(), |g| table.map(run, g));
            let Err(RangeError { cause: Cause::Mapped(span), .. }) = result else {
                panic!("{result:?} is no conflict");
            };
            assert_eq!((span.va, span.entry), (taken, leaf(0, Attr::READ)));
            super::random::map_as_expected(&mut oracle, run, result);
            check_contents(&table, &oracle);
            recording(&Recorder::default(), |g| table.unmap(va, run.len, g)).expect("a good range");
        }
        retire(table);
    });
}

/// What the format cannot express is refused before anything changes.
pub fn unencodable_attributes_are_refused<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let mut oracle = Oracle::default();
        let va = VirtAddr::new(0x3000);
        map(&mut table, &mut oracle, va, 2, Attr::READ);
        map(&mut table, &mut oracle, va.wrapping_add(2 * PAGE_SIZE), 2, Attr::NONE);
        for bits in 0..8u8 {
            let rights = [Attr::READ, Attr::WRITE, Attr::EXEC].into_iter().enumerate();
            let named = rights.filter(|&(i, _)| bits >> i & 1 == 1);
            let attr = named.fold(Attr::NONE, |all, (_, right)| all | right);
            if D::encodes(attr) {
                continue;
            }
            let refused = |done| Err(RangeError { cause: Cause::Unencodable(attr), done });
            let run = Run::new(VirtAddr::new(0x9000), FRAME, PAGE_SIZE, attr);
            assert_eq!(recording(&Recorder::default(), |g| table.map(run, g)), refused(0));
            let change = Change::to(attr, Attr::RWX);
            let changed =
                recording(&Recorder::default(), |g| table.protect(va, 4 * PAGE_SIZE, change, g));
            assert_eq!(changed, refused(0));
            check_contents(&table, &oracle);
        }
        retire(table);
    });
}

/// A change of rights keeps accessed, dirty and software bits, and the frame.
pub fn protect_keeps_what_it_does_not_name<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let mut oracle = Oracle::default();
        let va = VirtAddr::new(0x3000);
        let noted = Attr::RW | Attr::STATUS | Attr::SOFT[1] | Attr::USER;
        map(&mut table, &mut oracle, va, 3, noted);
        for change in [
            Change::clearing(Attr::WRITE),
            Change::to(Attr::NONE, Attr::RWX),
            Change::to(Attr::RX, Attr::RWX),
        ] {
            let (before, recorder) = (oracle.clone(), Recorder::default());
            let result = recording(&recorder, |g| table.protect(va, 2 * PAGE_SIZE, change, g));
            assert_eq!(result, Ok(()));
            oracle.protect(va, 2 * PAGE_SIZE, change, |_| true);
            check_contents(&table, &oracle);
            check_flushes(&before, &oracle, &recorder.take_flushes());
        }
        assert_eq!(entry_at(&table, va), leaf(0, (noted - Attr::WRITE) | Attr::EXEC));
        retire(table);
    });
}

/// `PROT_NONE` keeps its frame, conflicts with a new mapping, and comes back when removed.
pub fn no_access_is_still_a_mapping<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let mut oracle = Oracle::default();
        let va = VirtAddr::new(0x3000);
        map(&mut table, &mut oracle, va, 1, Attr::NONE);
        assert_eq!(entry_at(&table, va), leaf(0, Attr::NONE));
        assert_eq!(table.touch(va, Attr::READ, Attr::ACCESSED), leaf(0, Attr::NONE));
        assert_eq!(entry_at(&table, va), leaf(0, Attr::NONE), "nothing was granted");
        let run = Run::new(va, FRAME, PAGE_SIZE, Attr::RW);
        let result = recording(&Recorder::default(), |g| table.map(run, g));
        assert!(matches!(result, Err(RangeError { cause: Cause::Mapped(_), done: 0 })));
        let recorder = Recorder::default();
        recording(&recorder, |g| table.unmap(va, PAGE_SIZE, g)).expect("a good range");
        assert_eq!(pages_of(&recorder.take_gone()), [(va, leaf(0, Attr::NONE))]);
        retire(table);
    });
}

/// A visit of part of a run tells of that part, with its own frames, and stops when told to.
pub fn visits_ascend_are_cut_and_stop<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let mut oracle = Oracle::default();
        for va in windows(table.canonical()) {
            map(&mut table, &mut oracle, va.wrapping_add(8 * PAGE_SIZE), 80, Attr::RW);
        }
        for va in windows(table.canonical()) {
            let (va, len) = (va.wrapping_add(30 * PAGE_SIZE), 20 * PAGE_SIZE);
            let mut told = Vec::new();
            let mut note = |span: Span| {
                told.extend(crate::oracle::pages_of_span(span.va, span.len, span.entry));
                ControlFlow::Continue(())
            };
            table.visit(va, len, &mut note).expect("a good range");
            assert_eq!(told, oracle.range(va, len).collect::<Vec<_>>());
        }
        let (va, len) = halves(table.canonical())[0];
        let mut calls = 0;
        table
            .visit(va, len, &mut |_| {
                calls += 1;
                ControlFlow::Break(())
            })
            .expect("a good range");
        assert_eq!(calls, 1);
        retire(table);
    });
}

/// A walk reports at least one entry for whatever is mapped, all in memory that is in use, spans
/// never growing and never below the leaf; and the same result as a walk that nobody watches.
pub fn walks_report_what_they_read<D: Design>() {
    on::<D>(|arena, shared| {
        let mut table = table::<D>(shared);
        let mut oracle = Oracle::default();
        for va in windows(table.canonical()) {
            map(&mut table, &mut oracle, va, 40, Attr::RW);
        }
        for va in
            windows(table.canonical()).into_iter().flat_map(|va| [va, va.wrapping_add(0x31_000)])
        {
            let mut refs: Vec<Ref> = Vec::new();
            let span = table.walk(va, &mut |r| refs.push(r)).expect("canonical");
            assert_eq!(table.walk(va, &mut ()), Ok(span));
            assert!(!refs.is_empty(), "the walk to {va} read nothing");
            assert!(refs.is_sorted_by(|a, b| a.span >= b.span), "{refs:?}");
            for r in &refs {
                assert!(r.bytes > 0 && arena.is_in_use(r.pa), "{r:?}");
                assert!(r.span >= PAGE_SHIFT, "{r:?}");
            }
            let last = refs.last().map(|r| 1 << r.span);
            assert!(span.entry == Entry::Hole || last == Some(span.len), "{refs:?} to {span:?}");
        }
        retire(table);
    });
}

/// A walker's accessed and dirty go in where the entry grants the access, and nowhere else.
pub fn touch_grants_only_what_the_entry_does<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let mut oracle = Oracle::default();
        let (va, user) = (VirtAddr::new(0x3000), Attr::READ | Attr::USER);
        map(&mut table, &mut oracle, va, 1, user);
        assert_eq!(table.touch(va, Attr::RW | Attr::USER, Attr::STATUS), leaf(0, user));
        assert_eq!(entry_at(&table, va), leaf(0, user), "a refused store leaves no trace");
        assert_eq!(table.touch(va, user, Attr::ACCESSED), leaf(0, user));
        assert_eq!(entry_at(&table, va), leaf(0, user | Attr::ACCESSED));
        let hole = va.wrapping_add(PAGE_SIZE);
        assert_eq!(table.touch(hole, Attr::READ, Attr::ACCESSED), Entry::Hole);
        retire(table);
    });
}
