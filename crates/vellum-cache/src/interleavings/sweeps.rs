//! What is done to stretches of a file, beside each other and beside those who have pages of it.

use super::{FILE, World, explore};
use crate::Page;
use crate::modelled::ORIGIN;
use crate::page::State;
use vellum_core::PhysAddr;

/// Longer than the cache: every record is looked at.
const ALL: core::ops::Range<u64> = 0..u64::MAX;

fn read(world: &World) {
    drop(world.cache.get(&world.disk, FILE, 0).unwrap());
}

/// Stores through a mapping that then goes, as the paging engine does it: the leaf's dirty bit is taken
/// over, and then its share is given back.
fn store_and_unmap(world: &World) {
    let Some(page) = world.cache.ready(FILE, 0) else { return };
    world.ram.add(page.pa(), 100);
    page.info().set(State::DIRTY);
    drop(page);
}

/// The store was never made, or is in the file, or is known to lack there.
fn nothing_is_lost(world: &World) {
    let cached = world.cache.ready(FILE, 0).map(|page| world.ram.load(page.pa()));
    let stored = world.disk.word(FILE, 0);
    if cached.is_some_and(|word| word != stored) {
        assert!(world.is_dirty(0), "{cached:?} is not {stored}");
    }
}

#[test]
fn a_store_beside_a_write_back_is_stored_or_dirty() {
    fn write_back(world: &World) {
        world.cache.write_back(&world.disk, FILE, 0..1).unwrap();
    }
    explore(
        2,
        |w| {
            read(w);
            w.cache.mark_dirty(FILE, 0);
        },
        [store_and_unmap, write_back],
        |world| {
            nothing_is_lost(world);
            assert_eq!(world.ram.load(world.cache.ready(FILE, 0).unwrap().pa()), 111);
        },
    );
}

#[test]
fn a_page_that_was_stored_to_before_its_share_went_is_not_dropped_as_clean() {
    fn drop_clean(world: &World) {
        world.cache.drop_clean(&world.disk, FILE, 0..1);
    }
    // The share is taken before, so that the store is made in any case.
    fn unmap(world: &World) {
        let pa = PhysAddr::new(ORIGIN);
        // SAFETY: the share that `before` let go of, taken once.
        let page = unsafe { Page::from_pa(&world.ram, pa) }.unwrap();
        world.ram.add(pa, 100);
        page.info().set(State::DIRTY);
    }
    fn before(world: &World) {
        let pa = world.cache.get(&world.disk, FILE, 0).unwrap().0.into_pa();
        assert_eq!(pa.as_u64(), ORIGIN);
    }
    explore(2, before, [unmap, drop_clean], |world| {
        assert!(world.is_dirty(0), "the store is lost");
        assert_eq!(world.cache.write_back(&world.disk, FILE, 0..1), Ok(1));
        assert_eq!(world.disk.word(FILE, 0), 111);
    });
}

#[test]
fn who_finds_a_page_beside_a_sweep_of_clean_pages_loses_no_store() {
    fn drop_clean(world: &World) {
        world.cache.drop_clean(&world.disk, FILE, 0..1);
    }
    fn store(world: &World) {
        if let Some(page) = world.cache.ready(FILE, 0) {
            world.ram.add(page.pa(), 100);
            assert!(world.cache.mark_dirty(FILE, 0), "it has a share, so it is not dropped");
        }
    }
    explore(2, read, [store, drop_clean], nothing_is_lost);
}

#[test]
fn a_page_is_stored_once_by_two_who_write_back() {
    fn write_back(world: &World) {
        world.cache.write_back(&world.disk, FILE, 0..1).unwrap();
    }
    fn before(world: &World) {
        read(world);
        store_and_unmap(world);
    }
    explore(2, before, [write_back, write_back], |world| {
        assert_eq!(world.disk.word(FILE, 0), 111);
        assert!(!world.is_dirty(0));
    });
}

/// The last page of a file that has become shorter stays, and everybody sees that it is there.
#[test]
fn no_sweep_misses_the_page_that_a_truncation_keeps() {
    fn cut(world: &World) {
        world.disk.resize(16);
        world.cache.truncate(&world.disk, FILE);
    }
    fn before(world: &World) {
        read(world);
        store_and_unmap(world);
    }
    fn write_back(world: &World) {
        assert_eq!(world.cache.write_back(&world.disk, FILE, ALL), Ok(1), "it was dirty before");
    }
    explore(2, before, [cut, write_back], nothing_is_lost);
    fn forget(world: &World) {
        assert_eq!(world.cache.forget(FILE), 1);
    }
    explore(2, read, [cut, forget], |world| assert_eq!(world.cache.count_pages(), 0));
}

#[test]
fn two_who_take_one_page_out_give_its_share_back_once() {
    fn forget(world: &World) {
        world.cache.forget(FILE);
    }
    fn punch(world: &World) {
        world.cache.punch(FILE, 0..1);
    }
    explore(2, read, [forget, punch], |world| {
        assert_eq!((world.cache.count_pages(), world.ram.count_free()), (0, 2));
    });
}
