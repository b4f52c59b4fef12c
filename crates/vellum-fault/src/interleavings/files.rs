//! Faults in a file, beside what happens to the file.

use super::{ANON, World, explore, explore_few, explore_with_writer};
use crate::modelled::{Cpu, page};
use crate::{Backing, Deny, FaultError, Region, Sharing};
use core::sync::atomic::Ordering::SeqCst;
use vellum_cache::FileId;
use vellum_core::{Entry, PAGE_SIZE, Walk};
use vellum_frame::sync::fence;

const FILE: FileId = FileId(1);
const SHARED: Region = Region { backing: Backing::File(FILE), sharing: Sharing::Shared, ..ANON };
const PRIVATE: Region = Region { sharing: Sharing::Private, ..SHARED };
/// Page 0 of the file has this word.
const WORD: u64 = 11;

fn nothing(_: &World, _: &mut Cpu) {}

/// Cuts the file to nothing, and unmaps its first two pages beside faults, as reclaim does it: by a
/// comparison of each entry. (Who has the space for himself finds no fault under way.)
fn cut(world: &World, _: &mut Cpu) {
    let machine = world.machine();
    machine.disk.resize(0);
    world.engine().cache().truncate(&machine.disk, FILE);
    fence(SeqCst);
    let mmu = world.space(0);
    for n in 0..2 {
        loop {
            let entry = mmu.table().walk(page(n), &mut ()).unwrap().entry;
            let gone = entry == Entry::Hole
                || mmu.exchange(page(n), PAGE_SIZE, entry, Entry::Hole).unwrap().is_some();
            if gone {
                break;
            }
        }
    }
}

/// No leaf of a page that the cache does not have any more.
fn no_leaf(world: &World, n: u64) {
    let entry = world.space(0).table().walk(page(n), &mut ()).unwrap().entry;
    assert_eq!(entry, Entry::Hole, "page {n} is left behind the file's end");
}

fn past_end(done: Result<u64, FaultError>) -> Option<u64> {
    match done {
        Ok(word) => Some(word),
        Err(FaultError::Deny(Deny::NoPage(_))) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_page_of_a_file_is_read_once_for_two_cpus() {
    fn read(world: &World, cpu: &mut Cpu) {
        assert_eq!(world.load(cpu, &SHARED, (0, 0)), WORD);
    }
    explore(3, nothing, [read, read], |world, _| assert_eq!(world.machine().disk.count_reads(), 1));
}

#[test]
fn no_leaf_stays_that_was_made_while_its_file_became_shorter() {
    fn read(world: &World, cpu: &mut Cpu) {
        past_end(world.try_load(cpu, &SHARED, (0, 0)));
    }
    explore(3, nothing, [read, cut], |world, _| no_leaf(world, 0));
}

#[test]
fn no_leaf_stays_that_was_made_for_a_store_meanwhile() {
    fn write(world: &World, cpu: &mut Cpu) {
        past_end(world.try_store(cpu, &SHARED, (0, 0), 100).map(|()| 0));
    }
    // The page is cached: what matters comes after.
    fn before(world: &World, _: &mut Cpu) {
        drop(world.engine().cache().get(&world.machine().disk, FILE, 0).unwrap());
    }
    explore(3, before, [write, cut], |world, _| no_leaf(world, 0));
}

#[test]
fn no_private_copy_stays_of_a_page_that_went_while_it_was_copied() {
    fn write(world: &World, cpu: &mut Cpu) {
        past_end(world.try_store(cpu, &PRIVATE, (0, 0), 100).map(|()| 0));
    }
    explore(3, nothing, [write, cut], |world, _| no_leaf(world, 0));
}

#[test]
fn no_neighbour_that_was_mapped_along_stays() {
    fn read(world: &World, cpu: &mut Cpu) {
        past_end(world.try_load(cpu, &Region { around: 2, ..SHARED }, (0, 1)));
    }
    fn before(world: &World, _: &mut Cpu) {
        for index in 0..2 {
            drop(world.engine().cache().get(&world.machine().disk, FILE, index).unwrap());
        }
    }
    explore(3, before, [read, cut], |world, _| {
        no_leaf(world, 0);
        no_leaf(world, 1);
    });
}

#[test]
fn a_store_through_a_mapping_is_in_the_file_or_known_to_lack_there() {
    fn before(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &SHARED, (0, 0), 100);
    }
    fn store(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &SHARED, (0, 0), 1000);
    }
    fn sync(world: &World, _: &mut Cpu) {
        let (cache, machine) = (world.engine().cache(), world.machine());
        world.space(0).clean(ANON.start, ANON.len).unwrap();
        cache.write_back(&machine.disk, FILE, 0..1).unwrap();
        assert!(machine.disk.word(FILE, 0) >= WORD + 100);
    }
    explore_with_writer(3, before, [store, sync], |world, cpu| {
        sync(world, cpu);
        assert_eq!(world.machine().disk.word(FILE, 0), WORD + 1100);
    });
}

#[test]
fn a_store_through_a_mapping_that_goes_is_not_dropped_with_a_clean_page() {
    fn store_and_unmap(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &SHARED, (0, 0), 100);
        world.own(0).zap(ANON.start, ANON.len).unwrap();
    }
    fn drop_clean(world: &World, _: &mut Cpu) {
        let (cache, machine) = (world.engine().cache(), world.machine());
        cache.drop_clean(&machine.disk, FILE, 0..1);
    }
    fn before(world: &World, cpu: &mut Cpu) {
        assert_eq!(world.load(cpu, &SHARED, (0, 0)), WORD);
    }
    explore_with_writer(3, before, [store_and_unmap, drop_clean], |world, cpu| {
        assert_eq!(world.load(cpu, &SHARED, (0, 0)), WORD + 100);
    });
}

#[test]
fn private_copies_of_two_cpus_are_one_and_the_file_stays_as_it_is() {
    fn store(world: &World, cpu: &mut Cpu) {
        world.store(cpu, &PRIVATE, (0, 0), 100);
    }
    fn before(world: &World, cpu: &mut Cpu) {
        assert_eq!(world.load(cpu, &PRIVATE, (0, 0)), WORD);
    }
    explore_few(4, before, [store, store], |world, cpu| {
        assert_eq!(world.load(cpu, &PRIVATE, (0, 0)), WORD + 200);
        assert_eq!(world.load(cpu, &SHARED, (1, 0)), WORD);
    });
}
