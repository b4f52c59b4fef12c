//! Several CPUs in the same pages.

use crate::common::{self, BASE, Host, Spaces, anon, audit, page, region};
use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Barrier, RwLock};
use std::thread;
use vellum_cache::Pages;
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, PhysMap, VirtAddr, Walk};
use vellum_fault::{
    Access, Backing, Deny, Engine, FaultError, Mmu, Region, RssKind, Sharing, System,
};

const PAGES: u64 = if cfg!(miri) { 4 } else { 96 };

/// A word of the page at `va`, if the leaf grants `need`.
fn word<T: PageTable, R>(
    mmu: &Mmu<'_, Host<'_, T>>,
    va: VirtAddr,
    need: Attr,
    f: impl FnOnce(&AtomicU64) -> R,
) -> Option<R> {
    let Entry::Leaf(_, attr) = mmu.table().touch(va, need, Attr::STATUS) else { return None };
    if !attr.contains(need) {
        return None;
    }
    let pa = mmu.table().translate(va)?;
    // SAFETY: a word of a frame that this space maps; everybody in these tests uses atomics.
    Some(mmu.engine().system().memory().with(pa, |p| f(unsafe { p.cast().as_ref() })))
}

/// Stores as a program would: faults until it may. What comes of it.
fn store<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>, region: &Region, va: VirtAddr, value: u64) {
    while word(mmu, va, Attr::WRITE, |word| word.store(value, Relaxed)).is_none() {
        match mmu.fault(region, va, Access::Write) {
            Ok(_) => {}
            Err(FaultError::Retry) => thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn load<T: PageTable>(mmu: &Mmu<'_, Host<'_, T>>, va: VirtAddr) -> u64 {
    word(mmu, va, Attr::READ, |word| word.load(Relaxed)).unwrap()
}

/// Two threads that store a word of their own to each page, in opposite order on every other round.
fn store_both<T: PageTable + Send + Sync>(mmu: &Mmu<'_, Host<'_, T>>, region: &Region) {
    let start = Barrier::new(2);
    thread::scope(|scope| {
        for cpu in 0..2u64 {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                for n in 0..PAGES {
                    store(mmu, region, page(n).wrapping_add(8 * cpu), n << 1 | cpu);
                }
            });
        }
    });
    for n in 0..PAGES {
        for cpu in 0..2 {
            assert_eq!(load(mmu, page(n).wrapping_add(8 * cpu)), n << 1 | cpu, "page {n}");
        }
    }
}

fn both_stores_to_a_new_page_are_there<T: PageTable + Send + Sync>(
    engine: &Engine<Host<'_, T>>,
    [mmu, ..]: Spaces<'_, '_, T>,
) {
    store_both(&mmu, &anon(PAGES));
    assert_eq!(mmu.rss().pages(RssKind::Anon), PAGES);
    audit(engine, &[&mmu]);
}

fn both_stores_to_a_page_that_was_read_are_there<T: PageTable + Send + Sync>(
    engine: &Engine<Host<'_, T>>,
    [mmu, ..]: Spaces<'_, '_, T>,
) {
    let region = anon(PAGES);
    mmu.populate(&region, BASE, region.len, Access::Read).unwrap();
    store_both(&mmu, &region);
    audit(engine, &[&mmu]);
}

/// Both threads of a space store to a page that a child has too; no store may go into a copy that loses.
fn both_stores_to_a_page_that_a_child_has_are_there<T: PageTable + Send + Sync>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, mut child, _]: Spaces<'_, '_, T>,
) {
    let region = anon(PAGES);
    for n in 0..PAGES {
        store(&mmu, &region, page(n).wrapping_add(16), 1000 + n);
    }
    mmu.copy_to(&mut child, &region).unwrap();
    // What is linked takes the space for oneself; this is of what comes behind that.
    mmu.make_own(BASE, region.len).unwrap();
    store_both(&mmu, &region);
    for n in 0..PAGES {
        assert_eq!(load(&mmu, page(n).wrapping_add(16)), 1000 + n, "what was there is copied");
        assert_eq!((load(&child, page(n)), load(&child, page(n).wrapping_add(8))), (0, 0));
    }
    audit(engine, &[&mmu, &child]);
}

fn parent_and_child_part_at_once<T: PageTable + Send + Sync>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, mut child, _]: Spaces<'_, '_, T>,
) {
    let (region, start) = (anon(PAGES), Barrier::new(2));
    for n in 0..PAGES {
        store(&mmu, &region, page(n).wrapping_add(8), n);
    }
    mmu.copy_to(&mut child, &region).unwrap();
    mmu.make_own(BASE, region.len).unwrap();
    child.make_own(BASE, region.len).unwrap();
    thread::scope(|scope| {
        for (space, value) in [(&mmu, 100), (&child, 200)] {
            let (start, region) = (&start, &region);
            scope.spawn(move || {
                start.wait();
                for n in 0..PAGES {
                    store(space, region, page(n), value + n);
                }
            });
        }
    });
    for (space, value) in [(&mmu, 100), (&child, 200)] {
        for n in 0..PAGES {
            assert_eq!(
                (load(space, page(n)), load(space, page(n).wrapping_add(8))),
                (value + n, n)
            );
        }
    }
    audit(engine, &[&mmu, &child]);
}

fn a_page_of_a_file_is_read_once_for_all<T: PageTable + Send + Sync>(
    engine: &Engine<Host<'_, T>>,
    [mmu, other, _]: Spaces<'_, '_, T>,
) {
    let files = engine.system().files();
    let file = files.create(&vec![3; (PAGES * PAGE_SIZE) as usize]);
    let region = Region { around: 4, ..region(Backing::File(file), Sharing::Shared, PAGES) };
    thread::scope(|scope| {
        for space in [&mmu, &mmu, &other] {
            let region = &region;
            scope.spawn(move || {
                for n in 0..PAGES {
                    while space.fault(region, page(n), Access::Read) == Err(FaultError::Retry) {
                        thread::yield_now();
                    }
                    assert_eq!(load(space, page(n)), 0x0303_0303_0303_0303);
                }
            });
        }
    });
    assert_eq!(files.count_reads(), PAGES);
    audit(engine, &[&mmu, &other]);
}

fn a_page_in_swap_comes_back_once<T: PageTable + Send + Sync>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let (region, swap) = (anon(PAGES), engine.system().swap());
    for n in 0..PAGES {
        store(&mmu, &region, page(n).wrapping_add(16), n + 1);
        assert_eq!(mmu.page_out(page(n), |bytes| Some(swap.store(bytes))), Ok(true));
    }
    store_both(&mmu, &region);
    for n in 0..PAGES {
        assert_eq!(load(&mmu, page(n).wrapping_add(16)), n + 1);
    }
    assert_eq!((mmu.rss().pages(RssKind::Anon), mmu.rss().pages(RssKind::Swap)), (PAGES, 0));
    audit(engine, &[&mmu]);
}

/// Readers, and stores to copies, beside somebody who makes the file shorter and longer again.
fn no_leaf_is_left_behind_a_truncation<T: PageTable + Send + Sync>(
    engine: &Engine<Host<'_, T>>,
    [mmu, ..]: Spaces<'_, '_, T>,
) {
    let rounds = if cfg!(miri) { 4 } else { 150 };
    let files = engine.system().files();
    let file = files.create(&[3; 4 * PAGE_SIZE as usize]);
    let shared = Region { around: 4, ..region(Backing::File(file), Sharing::Shared, 4) };
    let private = Region { sharing: Sharing::Private, start: page(8), ..shared };
    let (space, done) = (RwLock::new(mmu), AtomicBool::new(false));
    thread::scope(|scope| {
        for region in [&shared, &private] {
            let (space, done) = (&space, &done);
            scope.spawn(move || {
                for n in (0..4).cycle() {
                    if done.load(Relaxed) {
                        return;
                    }
                    let access = if region.sharing == Sharing::Private {
                        Access::Write
                    } else {
                        Access::Read
                    };
                    let va = region.start.wrapping_add(n * PAGE_SIZE);
                    match space.read().unwrap().fault(region, va, access) {
                        Ok(_) | Err(FaultError::Retry | FaultError::Deny(Deny::NoPage(_))) => {}
                        Err(error) => panic!("{error}"),
                    }
                    thread::yield_now();
                }
            });
        }
        for round in 0..rounds {
            let pages = round % 4;
            files.set_len(file, pages * PAGE_SIZE);
            engine.cache().truncate(files, file);
            {
                let mut space = space.write().unwrap();
                for region in [&shared, &private] {
                    let from = region.start.wrapping_add(pages * PAGE_SIZE);
                    space.zap_pages(from, (4 - pages) * PAGE_SIZE).unwrap();
                }
            }
            {
                let space = space.read().unwrap();
                for region in [&shared, &private] {
                    for n in pages..4 {
                        let va = region.start.wrapping_add(n * PAGE_SIZE);
                        let there = space.table().walk(va, &mut ()).unwrap().entry;
                        assert_eq!(there, Entry::Hole, "page {n} of {pages}");
                    }
                }
            }
            files.set_len(file, 4 * PAGE_SIZE);
            thread::yield_now();
        }
        done.store(true, SeqCst);
    });
    let mmu = space.into_inner().unwrap();
    audit(engine, &[&mmu]);
}

common::on_every_design! {
    both_stores_to_a_new_page_are_there,
    both_stores_to_a_page_that_was_read_are_there,
    both_stores_to_a_page_that_a_child_has_are_there,
    parent_and_child_part_at_once,
    a_page_of_a_file_is_read_once_for_all,
    a_page_in_swap_comes_back_once,
    no_leaf_is_left_behind_a_truncation,
}
