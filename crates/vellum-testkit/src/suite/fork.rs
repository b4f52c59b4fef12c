//! Two spaces: one made from the other, and two that have nothing to do with each other.

use super::{
    Design, Recorder, base_page, check_contents, check_flushes, contents, grants, halves,
    large_leaves_or_pages, on, page_bytes, recording, windows,
};
use crate::oracle::Oracle;
use vellum_core::{
    Attr, Cause, Change, Entry, PageTable, PhysAddr, RangeError, Run, Soft, Span, VirtAddr,
    Walk as _,
};

pub(super) const FRAME: PhysAddr = PhysAddr::new(0x60_0000);
const COW: Change = Change::clearing(Attr::WRITE);

pub(super) fn pair<'s, D: Design>(shared: &'s D::Shared<'_>) -> (D::Table<'s>, D::Table<'s>) {
    let make = |space| D::table(shared, space).expect("an empty arena has room");
    (make(1), make(2))
}

pub(super) fn retire<T: PageTable>(tables: (T, T)) {
    recording(&Recorder::default(), |g| tables.0.retire(g));
    recording(&Recorder::default(), |g| tables.1.retire(g));
}

/// Shares a range, with a gather for each table.
fn share<T: PageTable>(
    parent: &mut T,
    child: &mut T,
    (va, len): (VirtAddr, u64),
    recorder: &Recorder,
    note: &mut impl FnMut(Span),
) -> Result<(), RangeError> {
    let childs = Recorder::default();
    let result = recording(&childs, |child_gather| {
        recording(recorder, |gather| {
            parent.share(va, len, COW, gather, (&mut *child, child_gather), note)
        })
    });
    assert_eq!(childs.take_gone(), [], "nothing of the child's goes");
    result
}

/// A parent with runs of several kinds, a soft entry and holes in every window.
pub(super) fn populate<D: Design, T: PageTable>(table: &mut T, oracle: &mut Oracle) {
    let unit = page_bytes::<T>();
    for va in windows(table) {
        for (first, pages, attr) in [
            (1, 40, Attr::RW | Attr::USER | Attr::DIRTY),
            (45, 3, Attr::RX | Attr::USER),
            (50, 1, Attr::NONE),
        ] {
            let va = va.wrapping_add(first * unit);
            let pa = FRAME.wrapping_add(va.as_u64() & (0xff * unit));
            let run = Run::new(va, pa, pages * unit, D::portable(attr));
            assert_eq!(recording(&Recorder::default(), |g| table.map(run, g)), Ok(()));
            oracle.map(run, run.len);
        }
        for n in (62..92).step_by(2) {
            let va = va.wrapping_add(n * unit);
            let attr = D::portable(Attr::READ);
            let run = Run::new(va, FRAME.wrapping_add(n * unit), unit, attr);
            assert_eq!(recording(&Recorder::default(), |g| table.map(run, g)), Ok(()));
            oracle.map(run, run.len);
        }
        let (va, entry) = (va.wrapping_add(60 * unit), Entry::Soft(Soft::new(9).expect("9")));
        let mut stock = table.stock();
        recording(&Recorder::default(), |g| {
            table.replace_refilling(va, unit, Entry::Hole, entry, &mut stock, g)
        })
        .expect("a hole");
        oracle.set(va, entry);
    }
}

/// Fork: the child has every page and soft entry; both have lost the right to write; the caller
/// was told of each page before.
pub fn share_gives_the_child_the_same_pages<D: Design>() {
    on::<D>(|_, shared| {
        let (mut parent, mut child) = pair::<D>(shared);
        let mut oracle = Oracle::of(&parent);
        populate::<D, _>(&mut parent, &mut oracle);
        let (before, recorder) = (oracle.clone(), Recorder::default());
        let mut told = Vec::new();
        let mut note =
            |span: Span| told.extend(before.pages_of_span(span.va, span.len, span.entry));
        for (va, len) in halves(parent.canonical()) {
            share(&mut parent, &mut child, (va, len), &recorder, &mut note)
                .expect("the child is empty");
            oracle.protect(va, len, COW, |_| true);
        }
        assert_eq!(told, oracle.iter().collect::<Vec<_>>());
        check_contents(&parent, &oracle);
        check_contents(&child, &oracle);
        check_flushes(&before, &oracle, &recorder.take_flushes());
        assert_eq!(recorder.take_gone(), []);
        retire((parent, child));
    });
}

/// A page that the child has already ends the sharing there.
pub fn share_stops_where_the_child_has_something<D: Design>() {
    on::<D>(|_, shared| {
        let (mut parent, mut child) = pair::<D>(shared);
        let mut oracle = Oracle::of(&parent);
        populate::<D, _>(&mut parent, &mut oracle);
        let (va, len) = halves(parent.canonical())[0];
        // Within a run of the parent's first window.
        let unit = page_bytes::<D::Table<'_>>();
        let conflict = windows(&parent)[0].wrapping_add(46 * unit);
        let taken = Run::new(conflict, FRAME, unit, D::portable(Attr::READ));
        assert_eq!(recording(&Recorder::default(), |g| child.map(taken, g)), Ok(()));
        let recorder = Recorder::default();
        let mut told = Vec::new();
        let pages = Oracle::of(&parent);
        let mut note = |span: Span| told.extend(pages.pages_of_span(span.va, span.len, span.entry));
        let result = share(&mut parent, &mut child, (va, len), &recorder, &mut note);
        let Err(RangeError { cause: Cause::Mapped(span), done }) = result else {
            panic!("{result:?} is no conflict");
        };
        assert_eq!(span.va, taken.va);
        assert!(va.wrapping_add(done) <= conflict, "{done:#x}");
        oracle.protect(va, len, COW, |_| true);
        let mut expected: Vec<_> = oracle.range(va, done).collect();
        assert_eq!(told, expected, "what the child was given, and no more");
        expected.push((taken.va, Entry::Leaf(taken.pa, taken.attr)));
        assert_eq!(contents(&child), expected);
        retire((parent, child));
    });
}

/// Out of frames at any point of a fork: the child has what `done` says and what was told, no more.
pub fn share_gives_exactly_what_it_says_when_frames_run_out<D: Design>() {
    for granted in grants() {
        let mut complete = false;
        on::<D>(|arena, shared| {
            let (mut parent, mut child) = pair::<D>(shared);
            let mut oracle = Oracle::of(&parent);
            populate::<D, _>(&mut parent, &mut oracle);
            let (va, len) = halves(parent.canonical())[0];
            arena.limit_allocations(Some(granted));
            let mut told = Vec::new();
            let pages = Oracle::of(&parent);
            let mut note =
                |span: Span| told.extend(pages.pages_of_span(span.va, span.len, span.entry));
            let result = share(&mut parent, &mut child, (va, len), &Recorder::default(), &mut note);
            arena.limit_allocations(None);
            oracle.protect(va, len, COW, |_| true);
            let done = match result {
                Ok(()) => len,
                Err(RangeError { cause: Cause::OutOfFrames(_), done }) => done,
                Err(other) => panic!("{other}"),
            };
            let given: Vec<_> = oracle.range(va, done).collect();
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

/// Pages whose frames happen to be contiguous are pages in the child as well, and a large leaf is
/// one there.
pub fn share_keeps_the_size_of_leaves<D: Design>() {
    for size in large_leaves_or_pages::<D::Table<'_>>(13) {
        on::<D>(|_, shared| {
            let (mut parent, mut child) = pair::<D>(shared);
            let unit = page_bytes::<D::Table<'_>>();
            let (va, len) = (VirtAddr::new(1 << size), 1u64 << size);
            if parent.canonical().check(va, 2 * len, base_page::<D::Table<'_>>()).is_err() {
                return retire((parent, child));
            }
            let (frames, attr) = (PhysAddr::new(4 << size), D::portable(Attr::RW));
            let pages = Run::new(va, frames, len, attr);
            let (va_large, pa_large) = (va.wrapping_add(len), frames.wrapping_add(len));
            let large = Run::new(va_large, pa_large, len, attr).with_leaves_up_to(size);
            for run in [pages, large] {
                assert_eq!(recording(&Recorder::default(), |g| parent.map(run, g)), Ok(()));
            }
            share(&mut parent, &mut child, (va, 2 * len), &Recorder::default(), &mut |_| {})
                .expect("the child is empty");
            let leaf_at = |table: &D::Table<'_>, offset| {
                table.walk(va.wrapping_add(offset), &mut ()).expect("canonical").len
            };
            for offset in [0, unit, len - unit, len, 2 * len - unit] {
                assert_eq!(leaf_at(&child, offset), leaf_at(&parent, offset), "at {offset:#x}");
            }
            let has_leaf = <D::Table<'_>>::LEAVES >> size & 1 == 1;
            assert_eq!(leaf_at(&child, 0), unit);
            assert_eq!(leaf_at(&child, len), if has_leaf { len } else { unit });
            retire((parent, child));
        });
    }
}

/// The same addresses in two spaces are different pages.
pub fn spaces_do_not_see_each_other<D: Design>() {
    on::<D>(|_, shared| {
        let (mut one, mut two) = pair::<D>(shared);
        let (mut first, mut second) = (Oracle::of(&one), Oracle::of(&two));
        populate::<D, _>(&mut one, &mut first);
        check_contents(&two, &second);
        let (va, unit) = (windows(&two)[0], page_bytes::<D::Table<'_>>());
        let attr = D::portable(Attr::READ);
        let run = Run::new(va, FRAME.wrapping_add(256 * unit), 20 * unit, attr);
        assert_eq!(recording(&Recorder::default(), |g| two.map(run, g)), Ok(()));
        second.map(run, run.len);
        check_contents(&one, &first);
        check_contents(&two, &second);
        let (all, len) = halves(one.canonical())[0];
        recording(&Recorder::default(), |g| one.unmap(all, len, g)).expect("a half");
        first.unmap(all, len);
        check_contents(&one, &first);
        check_contents(&two, &second);
        retire((one, two));
    });
}
