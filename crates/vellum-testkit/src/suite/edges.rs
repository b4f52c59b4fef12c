//! Single cases at the edges: of addresses, of attributes, of what a visit and a walk tell.

use super::{
    Design, Recorder, base_page, check_contents, check_flushes, contents, entry_at, halves, on,
    page_bytes, recording, table, windows,
};
use crate::oracle::Oracle;
use core::ops::ControlFlow;
use vellum_core::{
    Attr, Cause, Change, Entry, MemoryType, PAGE_SHIFT, PageTable, PhysAddr, RangeError, Ref,
    ReplaceError, Run, Span, VirtAddr, Walk as _,
};

/// A frame number that nothing is stored in: leaves only name it.
const FRAME: PhysAddr = PhysAddr::new(0x60_0000);

/// Bytes of the design's page.
fn unit<D: Design>() -> u64 {
    page_bytes::<D::Table<'_>>()
}

/// The address of page `n`, in the lowest node of any table.
const fn at(n: u64, unit: u64) -> VirtAddr {
    VirtAddr::new(n * unit)
}

/// A mapping of [`FRAME`].
const fn leaf(attr: Attr) -> Entry {
    Entry::Leaf(FRAME, attr)
}

/// Maps `pages` pages from `va` to [`FRAME`] on, on table and oracle.
fn map<T: PageTable>(table: &mut T, oracle: &mut Oracle, va: VirtAddr, pages: u64, attr: Attr) {
    let run = Run::new(va, FRAME, pages * page_bytes::<T>(), attr);
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
    let (page, unit) = (base_page::<T>(), page_bytes::<T>());
    let last = beyond.wrapping_add(unit.wrapping_neg());
    let mut bad = vec![
        (VirtAddr::new(unit + 1), unit, Cause::Misaligned { value: unit + 1, page }),
        (VirtAddr::new(unit / 2), unit, Cause::Misaligned { value: unit / 2, page }),
        (at(1, unit), unit / 2, Cause::Misaligned { value: unit / 2, page }),
        (beyond, unit, Cause::NonCanonical(beyond)),
        (last, 2 * unit, Cause::NonCanonical(beyond)),
    ];
    let top = VirtAddr::new(unit.wrapping_neg());
    if canonical.contains(top) {
        bad.push((top, 2 * unit, Cause::Wraps { va: top, len: 2 * unit }));
        bad.push((last, half.wrapping_neg(), Cause::NonCanonical(beyond)));
    } else {
        bad.push((top, unit, Cause::NonCanonical(top)));
    }
    bad
}

/// Misaligned, non-canonical and wrapping ranges are errors that name the value, in every
/// operation, and change nothing.
pub fn bad_ranges_are_refused_untouched<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let (mut oracle, unit) = (Oracle::of(&table), unit::<D>());
        let rw = D::portable(Attr::RW);
        map(&mut table, &mut oracle, at(1, unit), 1, rw);
        for (va, len, cause) in bad_ranges(&table) {
            let refused = Err(RangeError { cause, done: 0 });
            let recorder = Recorder::default();
            let run = Run::new(va, FRAME, len, rw);
            assert_eq!(recording(&recorder, |g| table.map(run, g)), refused);
            assert_eq!(recording(&recorder, |g| table.unmap(va, len, g)), refused);
            let change = Change::clearing(Attr::WRITE);
            assert_eq!(recording(&recorder, |g| table.protect(va, len, change, g)), refused);
            assert_eq!(table.visit(va, len, &mut |_| ControlFlow::Continue(())), Err(cause));
            let harvested =
                recording(&recorder, |g| table.harvest(va, len, Attr::STATUS, g, &mut |_| {}));
            assert_eq!(harvested, Err(cause));
            if len == unit {
                let replaced = recording(&recorder, |g| {
                    let new = leaf(rw);
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
        let crooked = Run::new(at(8, unit), PhysAddr::new(unit / 2), unit, rw);
        let cause = Cause::Misaligned { value: unit / 2, page: base_page::<D::Table<'_>>() };
        let refused = Err(RangeError { cause, done: 0 });
        assert_eq!(recording(&Recorder::default(), |g| table.map(crooked, g)), refused);
        let too_wide = Run::new(at(8, unit), PhysAddr::new(!(unit - 1)), 2 * unit, rw);
        let wide = recording(&Recorder::default(), |g| table.map(too_wide, g)).unwrap_err();
        assert!(matches!(wide, RangeError { cause: Cause::PhysTooWide(_), done: 0 }), "{wide}");
        let no_leaf = Run { page: PAGE_SHIFT - 1, ..Run::new(at(8, unit), FRAME, unit, rw) };
        let refused = Err(RangeError { cause: Cause::NoLeaf { page: PAGE_SHIFT - 1 }, done: 0 });
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
        let mut oracle = Oracle::of(&table);
        map(&mut table, &mut oracle, at(5, unit::<D>()), 1, D::portable(Attr::RW));
        let recorder = Recorder::default();
        recording(&recorder, |g| table.retire(g));
        let flushes = recorder.take_flushes();
        for (va, len) in halves(canonical) {
            for va in [va, va.wrapping_add(len - 1)] {
                assert!(flushes.iter().any(|f| f.has_tables() && f.covers(va)), "{va}");
            }
        }
    });
}

/// Operations on nothing succeed and do nothing.
pub fn an_empty_range_changes_nothing<D: Design>() {
    on::<D>(|arena, shared| {
        let mut table = table::<D>(shared);
        let (in_use, va) = (arena.frames_in_use(), at(5, unit::<D>()));
        let recorder = Recorder::default();
        let run = Run::new(va, FRAME, 0, D::portable(Attr::RW));
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
        let (mut oracle, unit) = (Oracle::of(&table), unit::<D>());
        let rw = D::portable(Attr::RW);
        let ends: Vec<_> = halves(table.canonical())
            .into_iter()
            .flat_map(|(va, len)| [va, va.wrapping_add(len - unit)])
            .collect();
        for &va in &ends {
            map(&mut table, &mut oracle, va, 1, rw);
            check_contents(&table, &oracle);
            let last_byte = va.wrapping_add(unit - 1);
            let span = table.walk(last_byte, &mut ()).expect("canonical");
            assert_eq!(span, Span { va, len: unit, entry: leaf(rw) });
        }
        for &va in &ends {
            let recorder = Recorder::default();
            assert_eq!(recording(&recorder, |g| table.unmap(va, unit, g)), Ok(()));
            assert_eq!(oracle.pages_of(&recorder.take_gone()), oracle.unmap(va, unit));
            check_contents(&table, &oracle);
        }
        retire(table);
    });
}

/// A conflict says which page, and what it holds; the page after it is not mapped.
pub fn conflicts_name_what_is_there<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let (unit, ro) = (unit::<D>(), D::portable(Attr::READ));
        for va in windows(&table) {
            let mut oracle = Oracle::of(&table);
            let taken = va.wrapping_add(70 * unit);
            map(&mut table, &mut oracle, taken, 1, ro);
            let run = Run::new(va, FRAME, 96 * unit, D::portable(Attr::RW));
            let result = recording(&Recorder::default(), |g| table.map(run, g));
            let Err(RangeError { cause: Cause::Mapped(span), .. }) = result else {
                panic!("{result:?} is no conflict");
            };
            assert_eq!((span.va, span.entry), (taken, leaf(ro)));
            super::random::map_as_expected(&mut oracle, run, result);
            check_contents(&table, &oracle);
            recording(&Recorder::default(), |g| table.unmap(va, run.len, g)).expect("a good range");
        }
        retire(table);
    });
}

/// Attributes of which a format may lack some: every combination of rights, every memory type, a
/// key, software's bits.
fn candidates<D: Design>() -> Vec<Attr> {
    let base = D::portable(Attr::READ);
    let rights = (0..8u32).map(|bits| {
        let named = [Attr::READ, Attr::WRITE, Attr::EXEC].into_iter().enumerate();
        named.filter(|&(i, _)| bits >> i & 1 == 1).fold(Attr::NONE, |all, (_, right)| all | right)
    });
    let memory = [
        MemoryType::WriteThrough,
        MemoryType::UncachedMinus,
        MemoryType::Uncached,
        MemoryType::WriteCombining,
        MemoryType::WriteProtect,
    ];
    let mut all: Vec<_> = rights.collect();
    all.extend(memory.map(|memory| base.with_memory(memory)));
    // The two values of the field that name no type.
    let nameless = base | Attr::READ.with_memory(MemoryType::UncachedMinus);
    all.push(nameless | Attr::READ.with_memory(MemoryType::WriteCombining));
    all.extend(Attr::SOFT.map(|soft| base | soft));
    all.extend([base.with_key(1), base.with_key(15), base | Attr::GLOBAL]);
    all
}

/// What the format cannot express is refused before anything changes; what it can is found again.
pub fn unencodable_attributes_are_refused<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let (mut oracle, unit) = (Oracle::of(&table), unit::<D>());
        let (va, other) = (at(3, unit), at(9, unit));
        map(&mut table, &mut oracle, va, 2, D::portable(Attr::READ));
        map(&mut table, &mut oracle, va.wrapping_add(2 * unit), 2, Attr::NONE);
        for attr in candidates::<D>() {
            if D::encodes(attr) {
                map(&mut table, &mut oracle, other, 1, attr);
                check_contents(&table, &oracle);
                recording(&Recorder::default(), |g| table.unmap(other, unit, g)).expect("a page");
                oracle.unmap(other, unit);
                continue;
            }
            let refused = |done| Err(RangeError { cause: Cause::Unencodable(attr), done });
            let run = Run::new(other, FRAME, unit, attr);
            assert_eq!(recording(&Recorder::default(), |g| table.map(run, g)), refused(0));
            let change = Change::to(attr, !Attr::NONE);
            let changed =
                recording(&Recorder::default(), |g| table.protect(va, 4 * unit, change, g));
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
        let (mut oracle, unit) = (Oracle::of(&table), unit::<D>());
        let va = at(3, unit);
        let noted = D::portable(Attr::RW | Attr::STATUS | Attr::SOFT[1] | Attr::USER);
        map(&mut table, &mut oracle, va, 3, noted);
        for change in [
            Change::clearing(Attr::WRITE),
            Change::to(Attr::NONE, Attr::RWX),
            Change::to(Attr::RX, Attr::RWX),
        ] {
            let (before, recorder) = (oracle.clone(), Recorder::default());
            let result = recording(&recorder, |g| table.protect(va, 2 * unit, change, g));
            assert_eq!(result, Ok(()));
            oracle.protect(va, 2 * unit, change, |_| true);
            check_contents(&table, &oracle);
            check_flushes(&before, &oracle, &recorder.take_flushes());
        }
        assert_eq!(entry_at(&table, va), leaf((noted - Attr::WRITE) | Attr::EXEC));
        retire(table);
    });
}

/// `PROT_NONE` keeps its frame, conflicts with a new mapping, and comes back when removed.
pub fn no_access_is_still_a_mapping<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let (mut oracle, unit) = (Oracle::of(&table), unit::<D>());
        let (va, none) = (at(3, unit), leaf(Attr::NONE));
        map(&mut table, &mut oracle, va, 1, Attr::NONE);
        assert_eq!(entry_at(&table, va), none);
        assert_eq!(table.touch(va, Attr::READ, Attr::ACCESSED), none);
        assert_eq!(entry_at(&table, va), none, "nothing was granted");
        let run = Run::new(va, FRAME, unit, D::portable(Attr::RW));
        let result = recording(&Recorder::default(), |g| table.map(run, g));
        assert!(matches!(result, Err(RangeError { cause: Cause::Mapped(_), done: 0 })));
        let recorder = Recorder::default();
        recording(&recorder, |g| table.unmap(va, unit, g)).expect("a good range");
        assert_eq!(oracle.pages_of(&recorder.take_gone()), [(va, none)]);
        retire(table);
    });
}

/// A visit of part of a run tells of that part, with its own frames, and stops when told to.
pub fn visits_ascend_are_cut_and_stop<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let (mut oracle, unit) = (Oracle::of(&table), unit::<D>());
        for va in windows(&table) {
            let rw = D::portable(Attr::RW);
            map(&mut table, &mut oracle, va.wrapping_add(8 * unit), 80, rw);
        }
        for va in windows(&table) {
            let (va, len) = (va.wrapping_add(30 * unit), 20 * unit);
            let mut told = Vec::new();
            let mut note = |span: Span| {
                told.extend(oracle.pages_of_span(span.va, span.len, span.entry));
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
        let (mut oracle, unit) = (Oracle::of(&table), unit::<D>());
        for va in windows(&table) {
            map(&mut table, &mut oracle, va, 40, D::portable(Attr::RW));
        }
        for va in windows(&table).into_iter().flat_map(|va| [va, va.wrapping_add(0x31 * unit)]) {
            let mut refs: Vec<Ref> = Vec::new();
            let span = table.walk(va, &mut |r| refs.push(r)).expect("canonical");
            assert_eq!(table.walk(va, &mut ()), Ok(span));
            assert!(!refs.is_empty(), "the walk to {va} read nothing");
            assert!(refs.is_sorted_by(|a, b| a.span >= b.span), "{refs:?}");
            for r in &refs {
                assert!(r.bytes > 0 && arena.is_in_use(r.pa), "{r:?}");
                assert!(1 << r.span >= unit, "{r:?}");
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
        let (mut oracle, unit) = (Oracle::of(&table), unit::<D>());
        let (va, user) = (at(3, unit), D::portable(Attr::READ | Attr::USER));
        map(&mut table, &mut oracle, va, 1, user);
        assert_eq!(table.touch(va, Attr::RW | Attr::USER, Attr::STATUS), leaf(user));
        assert_eq!(entry_at(&table, va), leaf(user), "a refused store leaves no trace");
        assert_eq!(table.touch(va, user, Attr::ACCESSED), leaf(user));
        assert_eq!(entry_at(&table, va), leaf(user | Attr::ACCESSED));
        let hole = va.wrapping_add(unit);
        assert_eq!(table.touch(hole, Attr::READ, Attr::ACCESSED), Entry::Hole);
        retire(table);
    });
}
