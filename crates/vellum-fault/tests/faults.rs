//! Each row of the table of cases, on every design. Miri runs these, swap and threads, on one design.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

#[path = "faults/common.rs"]
mod common;
#[cfg(not(miri))]
#[path = "faults/files.rs"]
mod files;
#[path = "faults/forks.rs"]
mod forks;
#[cfg(not(miri))]
#[path = "faults/large.rs"]
mod large;
#[cfg(not(miri))]
#[path = "faults/memory.rs"]
mod memory;
#[cfg(not(miri))]
#[path = "faults/model.rs"]
mod model;
#[path = "faults/swap.rs"]
mod swap;
#[path = "faults/threads.rs"]
mod threads;

use common::{BASE, Host, Spaces, anon, get, page, put, region};
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, Walk};
use vellum_fault::System;
use vellum_fault::{Access, Backing, Cost, Deny, Engine, FaultError, Rights, RssKind, Sharing};

fn a_read_maps_the_page_of_zeros_and_a_write_its_own<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mmu, ..]: Spaces<'_, '_, T>,
) {
    let region = anon(4);
    assert_eq!(mmu.fault(&region, page(1), Access::Read), Ok(Cost::Minor));
    assert_eq!(mmu.table().translate(page(1)), Some(engine.zeros()));
    assert_eq!(mmu.rss().resident(), 0, "the page of zeros is nobody's");
    assert_eq!(mmu.fault(&region, page(1), Access::Write), Ok(Cost::Minor));
    assert_ne!(mmu.table().translate(page(1)), Some(engine.zeros()));
    assert_eq!(get(&mmu, page(1)), 0);
    assert_eq!(mmu.rss().pages(RssKind::Anon), 1);
    let Entry::Leaf(_, attr) = mmu.table().walk(page(1), &mut ()).unwrap().entry else { panic!() };
    assert!(attr.contains(Attr::RW | Attr::USER | Attr::STATUS));
    drop(mmu);
}

fn a_child_sees_what_its_parent_wrote_before_and_not_after<T: PageTable>(
    _: &Engine<Host<'_, T>>,
    [mut mmu, mut child, _]: Spaces<'_, '_, T>,
) {
    let region = anon(8);
    for i in 0..4 {
        mmu.fault(&region, page(i), Access::Write).unwrap();
        put(&mmu, page(i), 10 + i as u8);
    }
    mmu.fault(&region, page(5), Access::Read).unwrap();
    mmu.copy_to(&mut child, &region).unwrap();
    assert_eq!(child.rss().pages(RssKind::Anon), 4);
    mmu.fault(&region, page(0), Access::Write).unwrap();
    put(&mmu, page(0), 99);
    assert_eq!((get(&mmu, page(0)), get(&child, page(0))), (99, 10));
    let before = child.table().translate(page(0));
    child.fault(&region, page(0), Access::Write).unwrap();
    assert_eq!(child.table().translate(page(0)), before, "alone with it: no copy");
    drop(mmu);
    let before = child.table().translate(page(1));
    child.fault(&region, page(1), Access::Write).unwrap();
    assert_eq!(child.table().translate(page(1)), before, "alone since the parent is gone");
    assert_eq!(get(&child, page(1)), 11);
    drop(child);
}

fn a_private_file_page_is_copied_when_written<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mmu, other, _]: Spaces<'_, '_, T>,
) {
    let file = engine.system().files().create(&[7; 5000]);
    let private = region(Backing::File(file), Sharing::Private, 4);
    let shared = region(Backing::File(file), Sharing::Shared, 4);
    assert_eq!(mmu.fault(&private, page(0), Access::Read), Ok(Cost::Major));
    assert_eq!(other.fault(&shared, page(0), Access::Write), Ok(Cost::Minor));
    put(&other, page(0), 8);
    assert_eq!(get(&mmu, page(0)), 8, "not written yet, so it shows the file");
    mmu.fault(&private, page(0), Access::Write).unwrap();
    put(&mmu, page(0), 9);
    assert_eq!((get(&mmu, page(0)), get(&other, page(0))), (9, 8));
    assert_eq!(mmu.fault(&private, page(1), Access::Write), Ok(Cost::Major));
    assert_eq!((get(&mmu, page(1)), get(&mmu, page(1).wrapping_add(904))), (7, 0));
    let past = FaultError::Deny(Deny::NoPage(page(2).wrapping_add(3)));
    assert_eq!(mmu.fault(&private, page(2).wrapping_add(3), Access::Read), Err(past));
    assert_eq!((mmu.rss().pages(RssKind::Anon), mmu.rss().pages(RssKind::File)), (2, 0));
    assert_eq!((other.rss().pages(RssKind::Anon), other.rss().pages(RssKind::File)), (0, 1));
    drop(mmu);
    drop(other);
}

fn what_a_region_does_not_allow_is_refused<T: PageTable>(
    _: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let mut region = anon(2);
    mmu.fault(&region, page(0), Access::Write).unwrap();
    region.rights = Rights::READ;
    mmu.protect(BASE, region.len, region.rights, region.sharing).unwrap();
    let forbidden = Err(FaultError::Deny(Deny::Forbidden(page(0))));
    assert_eq!(mmu.fault(&region, page(0), Access::Write), forbidden);
    region.rights = Rights::RW;
    mmu.protect(BASE, region.len, region.rights, region.sharing).unwrap();
    let before = mmu.table().translate(page(0));
    mmu.fault(&region, page(0), Access::Write).unwrap();
    assert_eq!(mmu.table().translate(page(0)), before);
    drop(mmu);
}

fn pages_move_with_their_contents<T: PageTable>(
    _: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let region = anon(64);
    for i in [0, 1, 5, 30] {
        mmu.fault(&region, page(i), Access::Write).unwrap();
        put(&mmu, page(i), i as u8 + 1);
    }
    mmu.guard(page(7), PAGE_SIZE).unwrap();
    mmu.relocate(BASE, page(1000), 32 * PAGE_SIZE).unwrap();
    for i in [0, 1, 5, 30] {
        assert_eq!(get(&mmu, page(1000 + i)), i as u8 + 1);
        assert_eq!(mmu.table().translate(page(i)), None);
    }
    let moved = vellum_fault::Region { start: page(1000), ..region };
    let guarded = Err(FaultError::Deny(Deny::Unmapped(page(1007))));
    assert_eq!(mmu.fault(&moved, page(1007), Access::Read), guarded);
    mmu.zap_pages(page(1000), 32 * PAGE_SIZE).unwrap();
    assert_eq!(mmu.fault(&moved, page(1007), Access::Read), guarded);
    mmu.unguard(page(1000), 32 * PAGE_SIZE).unwrap();
    assert_eq!(mmu.fault(&moved, page(1007), Access::Read), Ok(Cost::Minor));
    assert_eq!(mmu.rss().resident(), 0);
    drop(mmu);
}

/// Nothing has changed then, whether parts of the table are linked or not.
fn what_is_no_range_of_pages_is_refused<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, mut child, second]: Spaces<'_, '_, T>,
) {
    let region = anon(600);
    for i in (0..600).step_by(3) {
        mmu.fault(&region, page(i), Access::Write).unwrap();
    }
    mmu.copy_to(&mut child, &region).unwrap();
    let resident = mmu.rss().resident();
    let far = page(9 << 9);
    for len in [1, PAGE_SIZE - 1, PAGE_SIZE + 1, u64::MAX, PAGE_SIZE.wrapping_neg()] {
        assert!(mmu.split_ends(page(0), len).is_err(), "{len:#x}");
        assert!(mmu.zap(page(0), len).is_err(), "{len:#x}");
        assert!(mmu.zap_pages(page(0), len).is_err(), "{len:#x}");
        assert!(mmu.relocate(page(0), far, len).is_err(), "{len:#x}");
        assert!(mmu.relocate(far, page(0), len).is_err(), "{len:#x}");
    }
    let (by_one, pages) = (page(1), 9 * PAGE_SIZE);
    assert!(mmu.relocate(page(0), by_one, pages).is_err(), "they overlap");
    assert!(mmu.relocate(by_one, page(0), pages).is_err(), "they overlap");
    assert!(mmu.relocate(page(4), page(4), PAGE_SIZE).is_err(), "they are the same");
    assert_eq!((mmu.rss().resident(), child.rss().resident()), (resident, resident));
    common::audit(engine, &[&mmu, &child, &second]);
}

common::on_every_design! {
    a_read_maps_the_page_of_zeros_and_a_write_its_own,
    a_child_sees_what_its_parent_wrote_before_and_not_after,
    a_private_file_page_is_copied_when_written,
    what_a_region_does_not_allow_is_refused,
    pages_move_with_their_contents,
    what_is_no_range_of_pages_is_refused,
}
