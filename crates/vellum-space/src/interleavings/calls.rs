//! An access of one CPU, and a call or an access of another.

use super::{ANON, RW, Space, World, explore, explore_within};
use crate::abi::{madv, mremap, prot};
use vellum_cache::Page;
use vellum_core::{PAGE_SIZE, VirtAddr};
use vellum_fault::modelled::page;
use vellum_fault::{Deny, FaultError};

/// Where the two bytes are in each page that these models are about.
const OFFSET: u64 = 16;

fn at(n: u64) -> VirtAddr {
    page(n).wrapping_add(OFFSET)
}

/// The two bytes of page `n`, or the refusal.
fn read(space: &Space, n: u64) -> Result<[u8; 2], Deny> {
    let mut bytes = [0; 2];
    match space.read(at(n), &mut bytes) {
        Ok(()) => Ok(bytes),
        Err(error) => Err(denied(error.error)),
    }
}

fn denied(error: FaultError) -> Deny {
    match error {
        FaultError::Deny(deny) => deny,
        error => panic!("{error}"),
    }
}

/// Stores 9 to the second byte of page 0, if that is allowed.
fn store(world: &World) {
    if let Err(error) = world.space.write(at(0).wrapping_add(1), &[9]) {
        let _refused = denied(error.error);
    }
}

/// Page 0 has 5 in its first byte.
fn written(world: &World) {
    world.space.write(at(0), &[5]).unwrap();
}

fn resident(world: &World) -> u64 {
    world.space.with_mmu(|mmu| mmu.rss().resident())
}

#[test]
fn two_first_stores_to_a_region_are_in_one_page() {
    fn other(world: &World) {
        world.space.write(at(0), &[5]).unwrap();
    }
    explore(
        |_| {},
        [store, other],
        |world| {
            assert_eq!((read(&world.space, 0), resident(world)), (Ok([5, 9]), 1));
        },
    );
}

#[test]
fn a_store_beside_munmap_is_made_before_or_refused() {
    fn unmap(world: &World) {
        world.space.munmap(page(0).as_u64(), PAGE_SIZE).unwrap();
        assert_eq!(read(&world.space, 0), Err(Deny::Unmapped(at(0))));
    }
    explore(written, [store, unmap], |world| assert_eq!(resident(world), 0));
}

#[test]
fn a_store_beside_a_new_region_is_in_the_old_one_or_the_new_one() {
    fn map_anew(world: &World) {
        let start = page(0).as_u64();
        assert_eq!(world.space.mmap(start, PAGE_SIZE, RW, ANON, None), Ok(start));
    }
    explore(written, [store, map_anew], |world| {
        let bytes = read(&world.space, 0).unwrap();
        assert!(matches!(bytes, [0, 0 | 9]), "{bytes:?}: the old page is gone");
    });
}

#[test]
fn nothing_is_stored_once_the_right_to_is_gone() {
    fn protect(world: &World) {
        world.space.mprotect(page(0).as_u64(), PAGE_SIZE, prot::READ).unwrap();
        let first = read(&world.space, 0);
        assert_eq!(read(&world.space, 0), first);
    }
    explore(written, [store, protect], |world| {
        assert!(matches!(read(&world.space, 0), Ok([5, 0 | 9])));
    });
}

#[test]
fn a_page_moves_with_what_was_stored_before() {
    fn move_away(world: &World) {
        let flags = mremap::MAYMOVE | mremap::FIXED;
        let (from, to) = (page(0).as_u64(), page(2).as_u64());
        assert_eq!(world.space.mremap(from, PAGE_SIZE, PAGE_SIZE, flags, to), Ok(to));
    }
    explore(written, [store, move_away], |world| {
        assert_eq!(read(&world.space, 0), Err(Deny::Unmapped(at(0))));
        assert!(matches!(read(&world.space, 2), Ok([5, 0 | 9])));
    });
}

#[test]
fn a_page_that_is_given_up_is_zeros_but_for_what_is_stored_after() {
    fn give_up(world: &World) {
        world.space.madvise(page(0).as_u64(), PAGE_SIZE, madv::DONTNEED).unwrap();
    }
    explore(written, [store, give_up], |world| {
        assert!(matches!(read(&world.space, 0), Ok([0, 0 | 9])));
    });
}

#[test]
fn a_child_has_what_was_stored_before_the_fork_and_nothing_after() {
    fn fork(world: &World) {
        let child = world.fork();
        let first = read(&child, 0).unwrap();
        assert!(matches!(first, [5, 0 | 9]), "{first:?}");
        assert_eq!(read(&child, 0), Ok(first));
        *world.child.lock().unwrap() = Some(child);
    }
    explore(written, [store, fork], |world| {
        assert_eq!(read(&world.space, 0), Ok([5, 9]));
        world.child.lock().unwrap().take();
    });
}

/// The page that one CPU reads is copied by another, and its frame becomes somebody else's.
#[test]
fn a_load_beside_a_copy_sees_the_space_and_no_other() {
    fn before(world: &World) {
        written(world);
        *world.child.lock().unwrap() = Some(world.fork());
    }
    fn load(world: &World) {
        let bytes = read(&world.space, 0).unwrap();
        assert!(matches!(bytes, [5, 0 | 9]), "{bytes:?} is another's");
    }
    fn copy_and_take(world: &World) {
        store(world);
        drop(world.child.lock().unwrap().take());
        while let Ok(page) = Page::take(world.machine()) {
            page.with_bytes(|bytes| bytes.write(OFFSET as usize, &[7, 7]));
            world.taken.lock().unwrap().push(page.into_pa());
        }
    }
    // With one more it takes minutes.
    explore_within(1, before, [load, copy_and_take], |world| {
        assert_eq!(read(&world.space, 0), Ok([5, 9]));
    });
}
