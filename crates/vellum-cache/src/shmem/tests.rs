use super::*;
use crate::cache::CacheError;
use crate::testing::Ram;
use std::collections::BTreeSet;
use std::thread;
use std::vec::Vec;
use vellum_testkit::Arena;

#[test]
fn a_file_lives_as_long_as_it_has_owners() {
    let arena = Arena::new(64);
    {
        let shmem = Shmem::new(&arena, 0).unwrap();
        let cache = Cache::new(Ram::new(&arena), 0).unwrap();
        let file = shmem.create(2 * PAGE_SIZE + 1).unwrap();
        assert!(Shmem::<&Arena>::has(file) && shmem.share(file));
        let (page, _) = cache.get(&shmem, file, 2).unwrap();
        page.with_bytes(|bytes| bytes.write(0, b"here"));
        assert_eq!(cache.drop_clean(&shmem, file, 0..3), 0, "it is nowhere else");
        assert_eq!(cache.get(&shmem, file, 3).unwrap_err(), CacheError::PastEnd);
        assert!(!shmem.release(file, &cache));
        assert_eq!((shmem.len_bytes(file), cache.count_pages()), (2 * PAGE_SIZE + 1, 1));
        assert!(shmem.release(file, &cache));
        assert_eq!((shmem.len_bytes(file), cache.count_pages()), (0, 0));
        assert!(!shmem.share(file), "nobody can own it any more");
        assert_eq!(cache.get(&shmem, file, 0).unwrap_err(), CacheError::PastEnd);
        let mut bytes = [0; 4];
        page.with_bytes(|page| page.read(0, &mut bytes));
        assert_eq!(&bytes, b"here", "who has the page has it still");
    }
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn a_file_grows_with_zeros_and_shrinks() {
    let arena = Arena::new(64);
    let shmem = Shmem::new(&arena, 0).unwrap();
    let cache = Cache::new(Ram::new(&arena), 0).unwrap();
    let file = shmem.create(0).unwrap();
    assert_eq!(cache.get(&shmem, file, 0).unwrap_err(), CacheError::PastEnd);
    shmem.resize(file, 5000);
    let (page, _) = cache.get(&shmem, file, 1).unwrap();
    page.with_bytes(|bytes| bytes.write(0, &[7; 4096]));
    shmem.resize(file, 4098);
    assert_eq!(cache.truncate(&shmem, file), 0);
    let mut bytes = [9; 3];
    page.with_bytes(|page| page.read(1, &mut bytes));
    assert_eq!(bytes, [7, 0, 0]);
    shmem.release(file, &cache);
}

#[test]
fn numbers_are_distinct_and_used_again() {
    let arena = Arena::new(64);
    let shmem = Shmem::new(&arena, 0).unwrap();
    let cache = Cache::new(Ram::new(&arena), 0).unwrap();
    let many = SLOTS as usize * 2 + 3;
    let all: BTreeSet<_> = (0..many).map(|_| shmem.create(1).unwrap()).collect();
    assert_eq!(all.len(), many);
    let taken = arena.frames_in_use();
    for &file in &all {
        assert!(shmem.release(file, &cache));
    }
    let again: BTreeSet<_> = (0..many).map(|_| shmem.create(1).unwrap()).collect();
    assert_eq!((again.len(), arena.frames_in_use()), (many, taken));
}

#[test]
fn what_was_never_created_is_no_file() {
    let arena = Arena::new(16);
    let shmem = Shmem::new(&arena, 0).unwrap();
    let cache = Cache::new(Ram::new(&arena), 0).unwrap();
    for file in [FileId(0), FileId(OURS), FileId(OURS | SLOTS), FileId(u64::MAX)] {
        shmem.resize(file, 4096);
        assert!(!shmem.share(file) && !shmem.release(file, &cache));
        assert_eq!((shmem.len_bytes(file), shmem.count_owners(file)), (0, 0));
    }
    shmem.create(1).unwrap();
    assert_eq!(shmem.len_bytes(FileId(OURS | 1)), 0, "a slot that nobody has");
}

#[test]
fn without_memory_there_is_no_file_and_nothing_is_lost() {
    let arena = Arena::new(16);
    {
        arena.limit_allocations(Some(0));
        assert!(Shmem::new(&arena, 0).is_err());
        arena.limit_allocations(Some(1));
        let shmem = Shmem::new(&arena, 0).unwrap();
        assert!(shmem.create(1).is_err());
        arena.limit_allocations(None);
        shmem.create(1).unwrap();
    }
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn threads_that_create_and_release_never_get_one_file_twice() {
    let rounds = if cfg!(miri) { 8 } else { 2_000 };
    let arena = Arena::new(64);
    let shmem = Shmem::new(&arena, 0).unwrap();
    let cache = Cache::new(Ram::new(&arena), 0).unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..rounds {
                    let files: Vec<_> = (1..4).map(|len| shmem.create(len).unwrap()).collect();
                    for (len, &file) in (1..4).zip(&files) {
                        assert_eq!((shmem.len_bytes(file), shmem.count_owners(file)), (len, 1));
                        assert!(shmem.release(file, &cache));
                    }
                }
            });
        }
    });
}

#[test]
fn who_resizes_a_file_that_goes_meanwhile_leaves_the_list_of_free_ones_alone() {
    // What a link to the first slot would be.
    const LINK: u64 = 2;
    let rounds = if cfg!(miri) { 20 } else { 100_000 };
    let arena = Arena::new(64);
    let shmem = Shmem::new(&arena, 0).unwrap();
    let cache = Cache::new(Ram::new(&arena), 0).unwrap();
    let kept = shmem.create(7).unwrap();
    let going = shmem.create(1).unwrap();
    shmem.release(going, &cache);
    let done = core::sync::atomic::AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                shmem.resize(going, LINK);
            }
        });
        let mut distinct = true;
        for _ in 0..rounds {
            let files = [shmem.create(1).unwrap(), shmem.create(1).unwrap()];
            distinct &= files[0] != files[1] && !files.contains(&kept);
            for file in files {
                if file != kept {
                    shmem.release(file, &cache);
                }
            }
        }
        done.store(true, Relaxed);
        assert!(distinct, "a file was dealt out twice");
    });
    assert_eq!(shmem.len_bytes(kept), 7);
}
