//! Files: windows around a fault, reads that fail, and files that become shorter.

use crate::common::{self, BASE, Host, Spaces, audit, get, page, put, region};
use vellum_core::{Attr, Entry, PAGE_SIZE, PageTable, Walk};
use vellum_fault::{
    Access, Backing, Cost, Deny, Engine, FaultError, Region, Rights, RssKind, Sharing, System,
};

fn contents(pages: u8) -> Vec<u8> {
    (0..pages).flat_map(|n| [n + 1; PAGE_SIZE as usize]).collect()
}

fn a_window_is_clipped_by_region_end_of_file_and_what_is_cached<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mmu, ..]: Spaces<'_, '_, T>,
) {
    let system = engine.system();
    let bytes = contents(12);
    let file = system.files().create(&bytes[..11 * PAGE_SIZE as usize + 10]);
    for n in [0, 1, 2, 3, 5, 6, 11] {
        engine.cache().get(system.files(), file, n).unwrap();
    }
    // Pages 2.. of the file; its windows of 8 pages begin at multiples of 8 of the address.
    let all = region(Backing::File(file), Sharing::Private, 20);
    let region = Region { start: page(2), len: 14 * PAGE_SIZE, index: 2, around: 8, ..all };
    assert_eq!(mmu.fault(&region, page(5), Access::Read), Ok(Cost::Minor));
    let mapped = |n: u64| mmu.table().translate(page(n)).is_some();
    assert_eq!((0..8).filter(|&n| mapped(n)).collect::<Vec<_>>(), [2, 3, 5, 6]);
    assert_eq!((get(&mmu, page(2)), get(&mmu, page(6))), (3, 7));
    let Entry::Leaf(_, attr) = mmu.table().walk(page(5), &mut ()).unwrap().entry else { panic!() };
    assert!(!attr.contains(Attr::WRITE), "private: the file's page");
    assert_eq!(mmu.fault(&region, page(9), Access::Read), Ok(Cost::Major));
    assert_eq!((8..16).filter(|&n| mapped(n)).collect::<Vec<_>>(), [9, 11], "10 was not read");
    assert_eq!((get(&mmu, page(11)), get(&mmu, page(11).wrapping_add(10))), (12, 0));
    assert_eq!(mmu.rss().pages(RssKind::File), 6);
    assert_eq!(system.files().count_reads(), 8);
    audit(engine, &[&mmu]);
}

fn a_window_leaves_alone_what_is_there<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, ..]: Spaces<'_, '_, T>,
) {
    let system = engine.system();
    let file = system.files().create(&contents(8));
    engine.cache().read_ahead(system.files(), file, 0, 8);
    let private = Region { around: 8, ..region(Backing::File(file), Sharing::Private, 8) };
    mmu.fault(&private, page(3), Access::Write).unwrap();
    assert_eq!(mmu.rss().resident(), 1, "a store maps what it is for");
    put(&mmu, page(3), 99);
    mmu.guard(page(4), PAGE_SIZE).unwrap();
    mmu.fault(&private, page(0), Access::Read).unwrap();
    assert_eq!((get(&mmu, page(3)), get(&mmu, page(7))), (99, 8));
    assert_eq!(mmu.rss().pages(RssKind::File), 6);
    assert!(mmu.fault(&private, page(4), Access::Read).is_err());
    audit(engine, &[&mmu]);
}

fn a_file_that_cannot_be_read_is_sigbus_until_it_can<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mmu, ..]: Spaces<'_, '_, T>,
) {
    let files = engine.system().files();
    let file = files.create(&contents(2));
    let shared = region(Backing::File(file), Sharing::Shared, 2);
    files.set_broken(file, true);
    for access in [Access::Read, Access::Write] {
        let denied = Err(FaultError::Deny(Deny::NoPage(page(1))));
        assert_eq!(mmu.fault(&shared, page(1), access), denied);
    }
    assert_eq!(engine.cache().count_pages(), 0);
    audit(engine, &[&mmu]);
    files.set_broken(file, false);
    assert_eq!(mmu.fault(&shared, page(1), Access::Read), Ok(Cost::Major));
    assert_eq!(get(&mmu, page(1)), 2);
}

fn behind_a_truncation_there_is_nothing<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, mut other, _]: Spaces<'_, '_, T>,
) {
    let files = engine.system().files();
    let file = files.create(&contents(4));
    let shared = region(Backing::File(file), Sharing::Shared, 4);
    let private = region(Backing::File(file), Sharing::Private, 4);
    for n in 0..4 {
        mmu.fault(&shared, page(n), Access::Write).unwrap();
        other.fault(&private, page(n), Access::Read).unwrap();
    }
    other.fault(&private, page(1), Access::Write).unwrap();
    other.fault(&private, page(3), Access::Write).unwrap();
    files.set_len(file, PAGE_SIZE + 100);
    assert_eq!(engine.cache().truncate(files, file), 2);
    for space in [&mut mmu, &mut other] {
        space.zap_pages(page(2), 2 * PAGE_SIZE).unwrap();
    }
    for n in [2, 3] {
        let denied = Err(FaultError::Deny(Deny::NoPage(page(n))));
        assert_eq!(mmu.fault(&shared, page(n), Access::Read), denied);
        assert_eq!(other.fault(&private, page(n), Access::Write), denied);
    }
    let last = |byte| page(1).wrapping_add(byte);
    assert_eq!((get(&mmu, last(99)), get(&mmu, last(100))), (2, 0), "zeros behind the end");
    assert_eq!(get(&other, last(100)), 2, "a copy of its own is as it was");
    audit(engine, &[&mmu, &other]);
    files.set_len(file, 3 * PAGE_SIZE);
    assert_eq!(mmu.fault(&shared, page(2), Access::Read), Ok(Cost::Major));
    assert_eq!(get(&mmu, page(2)), 0);
}

fn stores_to_a_shared_file_reach_it<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, other, _]: Spaces<'_, '_, T>,
) {
    let (files, cache) = (engine.system().files(), engine.cache());
    let file = files.create(&contents(3));
    let shared = region(Backing::File(file), Sharing::Shared, 3);
    mmu.fault(&shared, page(0), Access::Write).unwrap();
    put(&mmu, page(0), 50);
    mmu.clean(BASE, shared.len).unwrap();
    assert_eq!(cache.write_back(files, file, 0..3), Ok(1));
    assert_eq!(files.stored(file)[0], 50);
    assert_eq!(cache.write_back(files, file, 0..3), Ok(0));
    // The leaf is writable still; hardware notes the next store, and `clean` takes it over.
    put(&mmu, page(0), 51);
    mmu.clean(BASE, shared.len).unwrap();
    assert_eq!(cache.write_back(files, file, 0..3), Ok(1));
    assert_eq!(files.stored(file)[0], 51);
    // Unmapped without being cleaned; moved; read-only mappings dirty nothing.
    put(&mmu, page(0), 52);
    mmu.relocate(page(0), page(9), PAGE_SIZE).unwrap();
    mmu.zap(page(9), PAGE_SIZE).unwrap();
    let reader = Region { rights: Rights::READ, ..shared };
    other.fault(&reader, page(1), Access::Read).unwrap();
    assert_eq!(cache.write_back(files, file, 0..3), Ok(1));
    assert_eq!(files.stored(file)[0], 52);
    assert_eq!(get(&other, page(1)), 2);
    audit(engine, &[&mmu, &other]);
}

fn shared_zeros_are_one_page_for_all<T: PageTable>(
    engine: &Engine<Host<'_, T>>,
    [mut mmu, mut child, _]: Spaces<'_, '_, T>,
) {
    let file = engine.system().files().create_memory(4 * PAGE_SIZE);
    let shared = region(Backing::File(file), Sharing::Shared, 4);
    mmu.fault(&shared, page(0), Access::Read).unwrap();
    assert_ne!(mmu.table().translate(page(0)), Some(engine.zeros()));
    mmu.copy_to(&mut child, &shared).unwrap();
    child.fault(&shared, page(0), Access::Write).unwrap();
    put(&child, page(0), 7);
    assert_eq!(get(&mmu, page(0)), 7);
    assert_eq!(mmu.rss().pages(RssKind::Shmem), 1);
    assert_eq!(engine.cache().drop_clean(engine.system().files(), file, 0..4), 0);
    audit(engine, &[&mmu, &child]);
    // A region that says so and has no file is private: nobody stores to the page of zeros.
    let wrong = region(Backing::Anon, Sharing::Shared, 8);
    mmu.fault(&wrong, page(5), Access::Read).unwrap();
    mmu.fault(&wrong, page(5), Access::Write).unwrap();
    assert_ne!(mmu.table().translate(page(5)), Some(engine.zeros()));
}

common::on_every_design! {
    a_window_is_clipped_by_region_end_of_file_and_what_is_cached,
    a_window_leaves_alone_what_is_there,
    a_file_that_cannot_be_read_is_sigbus_until_it_can,
    behind_a_truncation_there_is_nothing,
    stores_to_a_shared_file_reach_it,
    shared_zeros_are_one_page_for_all,
}
