//! Out of frames, at every allocation there is: errors are exact, and nothing is leaked.

use super::{
    Design, Recorder, base_page, check_contents, grants, halves, large_leaves_or_pages, on,
    page_bytes, recording, table, windows,
};
use crate::Arena;
use crate::oracle::Oracle;
use vellum_core::{
    Attr, Cause, Change, Entry, PageTable, PhysAddr, RangeError, Ref, ReplaceError, Run, VirtAddr,
    Walk as _,
};

const FRAME: PhysAddr = PhysAddr::new(0x60_0000);

/// Runs the same script with 0, 1, 2 … allocations granted, until none fails; after every step the
/// table holds what its result says, and at the end all frames are back.
pub fn running_out_leaves_an_exact_prefix_and_no_leak<D: Design>() {
    making_one_without_memory_leaks_nothing::<D>();
    for granted in grants() {
        let mut failures = 0;
        on::<D>(|arena, shared| {
            let mut table = table::<D>(shared);
            let mut oracle = Oracle::of(&table);
            arena.limit_allocations(Some(granted));
            failures = script::<D, _>(&mut table, &mut oracle);
            arena.limit_allocations(None);
            recording(&Recorder::default(), |g| table.retire(g));
        });
        if failures == 0 {
            return;
        }
    }
    panic!("the script should not need that many frames");
}

fn making_one_without_memory_leaks_nothing<D: Design>() {
    for granted in grants() {
        let arena = Arena::new(D::FRAMES);
        arena.limit_allocations(Some(granted));
        let made = D::shared(&arena).and_then(|shared| {
            let table = D::table(&shared, 1)?;
            recording(&Recorder::default(), |g| table.retire(g));
            Ok(())
        });
        assert_eq!(arena.frames_in_use(), 0, "leaked with {granted} frames granted");
        if made.is_ok() {
            return;
        }
    }
    panic!("a table should not need that many frames");
}

/// Maps, replaces, splits; how many steps ran out of frames.
fn script<D: Design, T: PageTable>(table: &mut T, oracle: &mut Oracle) -> usize {
    let (unit, attr) = (page_bytes::<T>(), D::portable(Attr::RW));
    let mut failures = 0;
    for va in windows(table) {
        let run = Run::new(va.wrapping_add(3 * unit), FRAME, 80 * unit, attr);
        let result = recording(&Recorder::default(), |g| table.map(run, g));
        failures += usize::from(ran_out(result));
        oracle.map(run, result.map_or_else(|e| e.done, |()| run.len));
        check_contents(table, oracle);
    }
    let (va, len) = halves(table.canonical())[0];
    // Beside the windows, wherever those lie in a space of this size.
    let place = |quarters: u64| va.wrapping_add(len / 4 * quarters + 200 * unit);
    for place in [place(2), place(1)] {
        failures += usize::from(fault(table, oracle, place, attr));
        check_contents(table, oracle);
    }
    for page in large_leaves_or_pages::<T>(11) {
        failures += split(table, oracle, (place(3), page), attr);
    }
    failures
}

fn ran_out(result: Result<(), RangeError>) -> bool {
    match result {
        Ok(()) => false,
        Err(RangeError { cause: Cause::OutOfFrames(_), .. }) => true,
        Err(other) => panic!("{other}"),
    }
}

fn fault<T: PageTable>(table: &T, oracle: &mut Oracle, va: VirtAddr, attr: Attr) -> bool {
    let entry = Entry::Leaf(FRAME, attr);
    let mut stock = table.stock();
    let result = recording(&Recorder::default(), |g| {
        table.replace_refilling(va, page_bytes::<T>(), Entry::Hole, entry, &mut stock, g)
    });
    match result {
        Ok(()) => {
            oracle.set(va, entry);
            false
        }
        Err(ReplaceError::Invalid(Cause::OutOfFrames(_))) => true,
        Err(other) => panic!("{other}"),
    }
}

/// Changes pages in the middle of a large leaf, where the design has one of this size, and removes
/// the rest.
fn split<T: PageTable>(
    table: &mut T,
    oracle: &mut Oracle,
    (va, page): (VirtAddr, u8),
    attr: Attr,
) -> usize {
    let va = va.align_down(page);
    let size = 1 << page;
    let run = Run::new(va, FRAME.align_down(page), size, attr).with_leaves_up_to(page);
    let result = recording(&Recorder::default(), |g| table.map(run, g));
    oracle.map(run, result.map_or_else(|e| e.done, |()| run.len));
    let mut failures = usize::from(ran_out(result));

    // A page off the middle half: no part of it is a large leaf itself.
    let first = va.wrapping_add(size / 4 + page_bytes::<T>()).align_down(base_page::<T>());
    let len = size / 2;
    let change = Change::clearing(Attr::WRITE);
    let result = recording(&Recorder::default(), |g| table.protect(first, len, change, g));
    failures += usize::from(ran_out(result));
    oracle.protect(first, result.map_or_else(|e| e.done, |()| len), change, |_| true);
    check_contents(table, oracle);

    for (first, len) in [(first, len), (va, size)] {
        let result = recording(&Recorder::default(), |g| table.unmap(first, len, g));
        failures += usize::from(ran_out(result));
        oracle.unmap(first, result.map_or_else(|e| e.done, |()| len));
        check_contents(table, oracle);
    }
    failures
}

/// A stock that was filled and not used gives everything back when it is dropped.
pub fn a_stock_gives_back_what_it_holds<D: Design>() {
    on::<D>(|_, shared| {
        let table = table::<D>(shared);
        let mut stock = table.stock();
        let va = windows(&table).pop().expect("a window");
        let new = Entry::Leaf(FRAME, D::portable(Attr::RW));
        let len = page_bytes::<D::Table<'_>>();
        recording(&Recorder::default(), |g| {
            let result = table.replace(va, len, Entry::Hole, new, &mut stock, g);
            if let Err(ReplaceError::Need(need)) = result {
                table.refill(&mut stock, need).expect("there are frames");
                table.refill(&mut stock, need).expect("once more does no harm");
            }
        });
        drop(stock);
        recording(&Recorder::default(), |g| table.retire(g));
    });
}

/// A stock that was filled by a table of one memory brings nothing of it into a table of another.
pub fn a_stock_of_another_memory_is_not_used<D: Design>() {
    let arenas = [Arena::new(D::FRAMES), Arena::new(D::FRAMES)];
    {
        let shared = arenas.each_ref().map(|arena| D::shared(arena).expect("an empty arena"));
        let [one, two] = shared.each_ref().map(|shared| table::<D>(shared));
        let va = windows(&one).pop().expect("a window");
        let new = Entry::Leaf(FRAME, D::portable(Attr::RW));
        let len = page_bytes::<D::Table<'_>>();
        let mut stock = one.stock();
        recording(&Recorder::default(), |g| {
            if let Err(ReplaceError::Need(need)) =
                one.replace(va, len, Entry::Hole, new, &mut stock, g)
            {
                one.refill(&mut stock, need).expect("there are frames");
            }
            let result = two.replace_refilling(va, len, Entry::Hole, new, &mut stock, g);
            assert_eq!(result, Ok(()));
        });
        two.walk(va, &mut |r: Ref| assert!(arenas[1].is_in_use(r.pa), "{r:?} is not in its arena"))
            .expect("canonical");
        recording(&Recorder::default(), |g| one.retire(g));
        recording(&Recorder::default(), |g| two.retire(g));
        drop(stock);
    }
    for arena in &arenas {
        assert_eq!(arena.frames_in_use(), 0, "frames were leaked");
    }
}
