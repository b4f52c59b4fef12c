//! Two spaces: one made from the other, and two that have nothing to do with each other.

use super::{
    Design, Recorder, check_contents, check_flushes, contents, grants, halves, next_leaf, on,
    recording, windows,
};
use crate::oracle::{Oracle, pages_of_span};
use vellum_core::{
    Attr, Cause, Change, Entry, PAGE_SHIFT, PAGE_SIZE, PageTable, PhysAddr, RangeError, Run, Soft,
    Span, VirtAddr, Walk as _,
};

const FRAME: PhysAddr = PhysAddr::new(0x60_0000);
const COW: Change = Change::clearing(Attr::WRITE);

fn pair<'s, D: Design>(shared: &'s D::Shared<'_>) -> (D::Table<'s>, D::Table<'s>) {
    let make = |space| D::table(shared, space).expect("an empty arena has room");
    (make(1), make(2))
}

fn retire<T: PageTable>(tables: (T, T)) {
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
fn populate<T: PageTable>(table: &mut T, oracle: &mut Oracle) {
    for va in windows(table.canonical()) {
        for (first, pages, attr) in [
            (1, 40, Attr::RW | Attr::USER | Attr::DIRTY),
            (45, 3, Attr::RX | Attr::USER),
            (50, 1, Attr::NONE),
        ] {
            let va = va.wrapping_add(first * PAGE_SIZE);
            let run =
                Run::new(va, FRAME.wrapping_add(va.as_u64() & 0xf_f000), pages * PAGE_SIZE, attr);
            assert_eq!(recording(&Recorder::default(), |g| table.map(run, g)), Ok(()));
            oracle.map(run, run.len);
        }
        for n in (62..92).step_by(2) {
            let va = va.wrapping_add(n * PAGE_SIZE);
            let run = Run::new(va, FRAME.wrapping_add(n * PAGE_SIZE), PAGE_SIZE, Attr::READ);
            assert_eq!(recording(&Recorder::default(), |g| table.map(run, g)), Ok(()));
            oracle.map(run, run.len);
        }
        let (va, entry) = (va.wrapping_add(60 * PAGE_SIZE), Entry::Soft(Soft::new(9).expect("9")));
        let mut stock = table.stock();
        recording(&Recorder::default(), |g| {
            table.replace_refilling(va, PAGE_SIZE, Entry::Hole, entry, &mut stock, g)
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
        let mut oracle = Oracle::default();
        populate(&mut parent, &mut oracle);
        let (before, recorder) = (oracle.clone(), Recorder::default());
        let mut told = Vec::new();
        let mut note = |span: Span| told.extend(pages_of_span(span.va, span.len, span.entry));
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
        let mut oracle = Oracle::default();
        populate(&mut parent, &mut oracle);
        let (va, len) = halves(parent.canonical())[0];
        // Within a run of the parent's first window.
        let conflict = windows(parent.canonical())[0].wrapping_add(46 * PAGE_SIZE);
        let taken = Run::new(conflict, FRAME, PAGE_SIZE, Attr::READ);
        assert_eq!(recording(&Recorder::default(), |g| child.map(taken, g)), Ok(()));
        let recorder = Recorder::default();
        let mut told = Vec::new();
        let mut note = |span: Span| told.extend(pages_of_span(span.va, span.len, span.entry));
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
            let mut oracle = Oracle::default();
            populate(&mut parent, &mut oracle);
            let (va, len) = halves(parent.canonical())[0];
            arena.limit_allocations(Some(granted));
            let mut told = Vec::new();
            let mut note = |span: Span| told.extend(pages_of_span(span.va, span.len, span.entry));
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
    on::<D>(|_, shared| {
        let (mut parent, mut child) = pair::<D>(shared);
        let size = next_leaf::<D::Table<'_>>().unwrap_or(21);
        let (va, len) = (VirtAddr::new(1 << size), 1u64 << size);
        if parent.canonical().check(va, 2 * len, PAGE_SHIFT).is_err() {
            return retire((parent, child));
        }
        let frames = PhysAddr::new(4 << size);
        let pages = Run::new(va, frames, len, Attr::RW);
        let large = pages.skip(0).with_leaves_up_to(size);
        let large = Run { va: va.wrapping_add(len), pa: frames.wrapping_add(len), ..large };
        for run in [pages, large] {
            assert_eq!(recording(&Recorder::default(), |g| parent.map(run, g)), Ok(()));
        }
        share(&mut parent, &mut child, (va, 2 * len), &Recorder::default(), &mut |_| {})
            .expect("the child is empty");
        for n in [0, 1, len / PAGE_SIZE, 2 * len / PAGE_SIZE - 1] {
            let va = va.wrapping_add(n * PAGE_SIZE);
            let leaf = |table: &D::Table<'_>| table.walk(va, &mut ()).expect("canonical").len;
            assert_eq!(leaf(&child), leaf(&parent), "page {n}");
        }
        retire((parent, child));
    });
}

/// The same addresses in two spaces are different pages.
pub fn spaces_do_not_see_each_other<D: Design>() {
    on::<D>(|_, shared| {
        let (mut one, mut two) = pair::<D>(shared);
        let (mut first, mut second) = (Oracle::default(), Oracle::default());
        populate(&mut one, &mut first);
        check_contents(&two, &second);
        let va = windows(two.canonical())[0];
        let run = Run::new(va, FRAME.wrapping_add(1 << 20), 20 * PAGE_SIZE, Attr::READ);
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
