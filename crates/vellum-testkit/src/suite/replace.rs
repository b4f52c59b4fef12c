//! The compare-and-set of one leaf, which faults use, alone and from several threads.

use super::{Design, Recorder, base_page, contents, entry_at, on, page_bytes, recording, table};
use crate::oracle::Oracle;
use core::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use vellum_core::{
    Attr, Cause, Entry, Gone, PageTable, PhysAddr, ReplaceError, Run, Soft, VirtAddr, Walk as _,
};

const FRAME: u64 = 0x60_0000;

/// Bytes of the design's page.
fn unit<D: Design>() -> u64 {
    page_bytes::<D::Table<'_>>()
}

/// The page that changes.
fn place<D: Design>() -> VirtAddr {
    VirtAddr::new(7 * unit::<D>())
}

fn leaf<D: Design>(n: u64, attr: Attr) -> Entry {
    Entry::Leaf(PhysAddr::new(FRAME + n * unit::<D>()), D::portable(attr))
}

fn soft(value: u64) -> Entry {
    Entry::Soft(Soft::new(value).expect("not 0"))
}

/// One replacement with a fresh stock; what the gather delivered.
fn replace<T: PageTable>(
    table: &T,
    va: VirtAddr,
    expect: Entry,
    new: Entry,
) -> (Result<(), ReplaceError>, Vec<Gone>) {
    let recorder = Recorder::default();
    let mut stock = table.stock();
    let result = recording(&recorder, |g| {
        table.replace_refilling(va, page_bytes::<T>(), expect, new, &mut stock, g)
    });
    (result, recorder.take_gone())
}

fn retire<T: PageTable>(table: T) {
    recording(&Recorder::default(), |g| table.retire(g));
}

/// The life of a page: faulted in, copied on write, swapped out, swapped in, dropped.
pub fn compares_and_sets<D: Design>() {
    on::<D>(|_, shared| {
        let table = table::<D>(shared);
        let va = place::<D>();
        let ro = |n| leaf::<D>(n, Attr::READ | Attr::USER);
        let rw = |n| leaf::<D>(n, Attr::RW | Attr::USER);
        let life = [Entry::Hole, ro(1), rw(2), soft(77), rw(3), Entry::Hole];
        for step in life.windows(2) {
            let refused = (Err(ReplaceError::Changed(step[0])), vec![]);
            assert_eq!(replace(&table, va, ro(9), step[1]), refused);
            assert_eq!(entry_at(&table, va), step[0]);
            let (result, gone) = replace(&table, va, step[0], step[1]);
            assert_eq!(result, Ok(()));
            let left = (step[0] != Entry::Hole).then_some((va, step[0]));
            assert_eq!(Oracle::of(&table).pages_of(&gone), Vec::from_iter(left));
            assert_eq!(entry_at(&table, va), step[1]);
        }
        retire(table);
    });
}

/// Accessed and dirty are not compared, stay while the frame stays, and leave with it.
pub fn keeps_status_with_the_frame<D: Design>() {
    on::<D>(|_, shared| {
        let table = table::<D>(shared);
        let va = place::<D>();
        let [rw, ro] = [Attr::RW, Attr::READ].map(|attr| leaf::<D>(1, attr));
        let noted = leaf::<D>(1, Attr::READ | Attr::STATUS);
        replace(&table, va, Entry::Hole, rw).0.expect("a hole");
        table.touch(va, Attr::RW, Attr::STATUS);
        assert_eq!(replace(&table, va, rw, ro), (Ok(()), vec![]));
        assert_eq!(entry_at(&table, va), noted);
        let other = leaf::<D>(2, Attr::READ);
        let (result, gone) = replace(&table, va, ro, other);
        assert_eq!(result, Ok(()));
        assert_eq!(Oracle::of(&table).pages_of(&gone), [(va, noted)]);
        assert_eq!(entry_at(&table, va), other);
        retire(table);
    });
}

/// Lengths that are no leaf of the design, crooked frames and oversized values are refused.
pub fn refuses_what_is_no_leaf<D: Design>() {
    on::<D>(|_, shared| {
        let table = table::<D>(shared);
        let (va, unit) = (place::<D>(), unit::<D>());
        let try_one = |len, new| {
            let mut stock = table.stock();
            recording(&Recorder::default(), |g| {
                table.replace_refilling(va, len, Entry::Hole, new, &mut stock, g)
            })
        };
        for len in [0, 1, unit / 2, 2 * unit, 3 * unit, 1 << 63] {
            let result = try_one(len, leaf::<D>(0, Attr::RW));
            assert!(matches!(result, Err(ReplaceError::Invalid(_))), "{len:#x}: {result:?}");
        }
        let crooked = Entry::Leaf(PhysAddr::new(FRAME + unit / 2), D::portable(Attr::RW));
        let result = try_one(unit, crooked);
        assert!(matches!(result, Err(ReplaceError::Invalid(Cause::Misaligned { .. }))));
        if let Some(too_big) = 1u64.checked_shl(u32::from(<D::Table<'_>>::SOFT_BITS)) {
            let result = try_one(unit, soft(too_big));
            assert_eq!(result, Err(ReplaceError::Invalid(Cause::SoftTooWide(too_big))));
            assert_eq!(try_one(unit, soft(too_big - 1)), Ok(()));
            assert_eq!(entry_at(&table, va), soft(too_big - 1));
        }
        retire(table);
    });
}

/// A soft entry is found, conflicts, outlives a change of rights, and leaves through the gather.
pub fn soft_entries_live_where_leaves_do<D: Design>() {
    on::<D>(|_, shared| {
        let mut table = table::<D>(shared);
        let (va, unit) = (place::<D>(), unit::<D>());
        let at = |n: u64| va.wrapping_add(n * unit);
        for n in 0..5 {
            replace(&table, at(n), Entry::Hole, soft(100 + n)).0.expect("a hole");
        }
        let run = Run::new(at(2), PhysAddr::new(FRAME), unit, D::portable(Attr::RW));
        let result = recording(&Recorder::default(), |g| table.map(run, g));
        assert!(
            matches!(result.unwrap_err().cause, Cause::Mapped(span) if span.entry == soft(102))
        );
        let change = vellum_core::Change::setting(Attr::USER);
        let len = 5 * unit;
        assert_eq!(recording(&Recorder::default(), |g| table.protect(va, len, change, g)), Ok(()));
        let all: Vec<_> = (0..5).map(|n| (at(n), soft(100 + n))).collect();
        assert_eq!(contents(&table), all);
        let recorder = Recorder::default();
        recording(&recorder, |g| table.unmap(va, len, g)).expect("a good range");
        assert_eq!(Oracle::of(&table).pages_of(&recorder.take_gone()), all);
        assert_eq!(contents(&table), []);
        retire(table);
    });
}

/// Threads that fault on the same pages: each page is installed by exactly one of them.
pub fn parallel_faults_install_each_page_once<D: Design>() {
    let (threads, pages) = if cfg!(miri) { (2, 6) } else { (4, 300) };
    on::<D>(|_, shared| {
        let table = table::<D>(shared);
        let installed = AtomicUsize::new(0);
        // Strides of 513 pages, so that structure is built in parallel as well; less where the
        // space is small.
        let unit = unit::<D>();
        let space = 1u64 << table.canonical().bits().min(40);
        let stride = (space / 1024).min(513 * unit) & !(unit - 1);
        thread::scope(|scope| {
            for me in 0..threads {
                let (table, installed) = (&table, &installed);
                scope.spawn(move || {
                    for n in 0..pages {
                        let va = VirtAddr::new(n * stride);
                        match replace(table, va, Entry::Hole, leaf::<D>(me, Attr::RW)).0 {
                            Ok(()) => {
                                installed.fetch_add(1, Ordering::Relaxed);
                            }
                            Err(ReplaceError::Changed(Entry::Leaf(..))) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                });
            }
        });
        assert_eq!(installed.into_inner() as u64, pages);
        assert_eq!(contents(&table).len() as u64, pages);
        retire(table);
    });
}

/// Threads that replace one page over and over: every frame that went in comes out once.
pub fn parallel_changes_of_one_page_lose_nothing<D: Design>() {
    let (threads, rounds) = if cfg!(miri) { (2, 10) } else { (4, 400) };
    on::<D>(|_, shared| {
        let table = table::<D>(shared);
        let mut came_out: Vec<u64> = thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|me| {
                    let table = &table;
                    scope.spawn(move || {
                        let mut out = Vec::new();
                        for round in 0..rounds {
                            out.extend(exchange::<D, _>(table, me * rounds + round));
                        }
                        out
                    })
                })
                .collect();
            workers.into_iter().flat_map(|w| w.join().expect("no panic")).collect()
        });
        let recorder = Recorder::default();
        recording(&recorder, |g| table.retire(g));
        came_out.extend(frames::<D>(&recorder.take_gone()));
        came_out.sort_unstable();
        assert_eq!(came_out, (0..threads * rounds).collect::<Vec<_>>());
    });
}

/// Puts frame `n` at the [`place`], whatever is there, and returns the frames that came out.
fn exchange<D: Design, T: PageTable>(table: &T, n: u64) -> Vec<u64> {
    let mut expect = Entry::Hole;
    loop {
        match replace(table, place::<D>(), expect, leaf::<D>(n, Attr::RW)) {
            (Ok(()), gone) => return frames::<D>(&gone),
            (Err(ReplaceError::Changed(now)), _) => expect = now,
            (Err(other), _) => panic!("{other}"),
        }
    }
}

fn frames<D: Design>(gone: &[Gone]) -> Vec<u64> {
    Oracle::with_pages_of(base_page::<D::Table<'_>>())
        .pages_of(gone)
        .into_iter()
        .map(|(_, entry)| match entry {
            Entry::Leaf(pa, _) => (pa.as_u64() - FRAME) / unit::<D>(),
            other => panic!("{other:?} was never put in"),
        })
        .collect()
}
