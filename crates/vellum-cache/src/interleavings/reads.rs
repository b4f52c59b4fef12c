//! Who reads a page, beside others.

use super::{FILE, OTHER, World, explore};
use crate::modelled::{ORIGIN, Ram};
use crate::{CacheError, Page};
use loom::thread;
use vellum_core::{PAGE_SIZE, PhysAddr};

fn nothing(_: &World) {}

/// The page, waited for.
fn got(world: &World, index: u64) -> Result<(Page<'_, Ram>, bool), CacheError> {
    loop {
        match world.cache.get(&world.disk, FILE, index) {
            Err(CacheError::Busy) => thread::yield_now(),
            done => return done,
        }
    }
}

/// What the byte is that says whether the file was longer when the page was read.
fn tail(page: &Page<'_, Ram>) -> u8 {
    let mut byte = [0];
    page.with_bytes(|bytes| bytes.read(16, &mut byte));
    byte[0]
}

#[test]
fn a_page_is_read_once_and_whole_for_two_who_want_it() {
    fn read(world: &World) {
        let (page, _) = got(world, 0).unwrap();
        assert_eq!(world.ram.load(page.pa()), 11);
    }
    explore(4, nothing, [read, read], |world| {
        assert_eq!((world.disk.count_reads(), world.cache.count_pages()), (1, 1));
    });
}

#[test]
fn two_pages_of_one_chain_are_both_in_it() {
    // Two heads only: of three pages two are in one chain.
    fn before(world: &World) {
        drop(got(world, 0).unwrap());
    }
    explore(
        5,
        before,
        [|world| drop(got(world, 1).unwrap()), |world| drop(got(world, 2).unwrap())],
        |world| {
            for index in 0..3 {
                assert!(world.cache.is_resident(FILE, index), "page {index}");
            }
            assert_eq!(world.cache.forget(FILE), 3);
        },
    );
}

#[test]
fn with_one_frame_for_two_readers_one_is_served_and_nothing_is_lost() {
    fn read(world: &World, index: u64) {
        match world.cache.get(&world.disk, FILE, index) {
            Ok((page, new)) => assert!(new && world.ram.load(page.pa()) == 11 + index),
            Err(error) => assert!(matches!(error, CacheError::OutOfFrames(_))),
        }
    }
    explore(1, nothing, [|world| read(world, 0), |world| read(world, 1)], |world| {
        assert_eq!((world.cache.count_pages(), world.ram.count_free()), (1, 0));
    });
}

#[test]
fn no_page_is_left_behind_an_end_that_came_while_it_was_read() {
    fn read(world: &World) {
        match world.cache.get(&world.disk, FILE, 1) {
            Ok((page, _)) => assert_eq!(world.ram.load(page.pa()), 12),
            Err(error) => assert!(matches!(error, CacheError::PastEnd | CacheError::Busy)),
        }
    }
    fn cut(world: &World) {
        world.disk.resize(0);
        world.cache.truncate(&world.disk, FILE);
    }
    explore(4, nothing, [read, cut], |world| {
        assert!(world.cache.find(FILE, 1).is_none());
        assert_eq!(world.cache.count_pages(), 0);
    });
}

#[test]
fn the_last_page_shows_nothing_of_what_was_cut_off_while_it_was_read() {
    fn read(world: &World) {
        drop(world.cache.get(&world.disk, FILE, 1));
    }
    fn cut(world: &World) {
        world.disk.resize(PAGE_SIZE + 16);
        world.cache.truncate(&world.disk, FILE);
        // From here on nobody may see it.
        if let Some(page) = world.cache.ready(FILE, 1) {
            assert_eq!(tail(&page), 0);
        }
    }
    explore(4, nothing, [read, cut], |world| {
        assert_eq!(tail(&got(world, 1).unwrap().0), 0);
    });
}

#[test]
fn a_page_that_is_found_is_that_page_and_not_what_its_frame_became() {
    fn before(world: &World) {
        drop(got(world, 0).unwrap());
    }
    fn find(world: &World) {
        if let Some(page) = world.cache.ready(FILE, 0) {
            assert_eq!((page.info().owner(), page.info().index()), (FILE.0, 0));
            assert_eq!(world.ram.load(page.pa()), 11);
        }
    }
    fn replace(world: &World) {
        world.cache.drop_clean(&world.disk, FILE, 0..1);
        drop(world.cache.get(&world.disk, OTHER, 2));
    }
    // One frame, so that it is the same one.
    explore(1, before, [find, replace], |_| {});
}

/// Two who let go of a block's frames at once give it back, whole and once.
#[test]
fn a_block_goes_back_once() {
    fn let_go(world: &World, half: u64) {
        let first = PhysAddr::new(ORIGIN);
        for i in half * 2..half * 2 + 2 {
            let pa = first.wrapping_add(i * PAGE_SIZE);
            world.ram.add(pa, 1);
            // SAFETY: `before` took a block at the first frame, and this takes each share of it once.
            drop(unsafe { Page::from_pa(&world.ram, pa) });
        }
    }
    fn before(world: &World) {
        assert_eq!(Page::block(&world.ram, 2, |_, _| {}), Ok(PhysAddr::new(ORIGIN)));
    }
    explore(4, before, [|world| let_go(world, 0), |world| let_go(world, 1)], |world| {
        assert_eq!(world.ram.count_free(), 4);
    });
}
