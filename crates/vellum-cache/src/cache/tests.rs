use super::*;
use crate::testing::Ram;
use core::sync::atomic::AtomicBool;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::vec::Vec;
use vellum_core::FrameBytes;
use vellum_testkit::Arena;

/// Files of which page `n` is filled with a byte, and what was asked of them.
#[derive(Default)]
struct Disk {
    len: AtomicU64,
    pages: Mutex<BTreeMap<(u64, u64), u8>>,
    reads: AtomicU64,
    is_broken: AtomicBool,
    /// Called within each read.
    pause: Mutex<Option<std::sync::Arc<Barrier>>>,
}

impl Disk {
    fn of(len: u64) -> Self {
        Self { len: AtomicU64::new(len), ..Self::default() }
    }

    fn byte(&self, file: FileId, index: u64) -> u8 {
        let default = (file.0 * 50 + index + 1) as u8;
        *self.pages.lock().unwrap().get(&(file.0, index)).unwrap_or(&default)
    }
}

impl Files for Disk {
    fn len_bytes(&self, _: FileId) -> u64 {
        self.len.load(SeqCst)
    }

    fn read(&self, file: FileId, index: u64, to: FrameBytes<'_>) -> Result<(), FileError> {
        self.reads.fetch_add(1, Relaxed);
        let rest = self.len_bytes(file).saturating_sub(index * PAGE_SIZE).min(PAGE_SIZE) as usize;
        to.write(0, &[self.byte(file, index); PAGE_SIZE as usize][..rest]);
        to.zero_from(rest);
        if let Some(pause) = self.pause.lock().unwrap().take() {
            pause.wait();
            pause.wait();
        }
        if self.is_broken.load(Relaxed) { Err(FileError::Io) } else { Ok(()) }
    }

    fn write(&self, file: FileId, index: u64, from: FrameBytes<'_>) -> Result<(), FileError> {
        if self.is_broken.load(Relaxed) {
            return Err(FileError::NoSpace);
        }
        let mut byte = [0];
        from.read(0, &mut byte);
        self.pages.lock().unwrap().insert((file.0, index), byte[0]);
        Ok(())
    }
}

const FILE: FileId = FileId(1);

fn first_byte<P: Pages>(page: &Page<'_, P>) -> u8 {
    byte_at(page, 0)
}

fn byte_at<P: Pages>(page: &Page<'_, P>, at: usize) -> u8 {
    let mut byte = [0];
    page.with_bytes(|bytes| bytes.read(at, &mut byte));
    byte[0]
}

/// Runs `test`, and sees every frame back.
fn with_cache(frames: usize, test: impl FnOnce(&Arena, &Cache<Ram<'_>>)) {
    let arena = Arena::new(frames);
    {
        let cache = Cache::new(Ram::new(&arena), 0).unwrap();
        test(&arena, &cache);
    }
    assert_eq!(arena.frames_in_use(), 0, "every frame is back");
}

#[test]
fn a_page_that_is_being_read_is_busy_and_is_read_once() {
    with_cache(16, |_, cache| {
        let (disk, pause) = (Disk::of(8192), std::sync::Arc::new(Barrier::new(2)));
        *disk.pause.lock().unwrap() = Some(pause.clone());
        thread::scope(|scope| {
            let reader =
                scope.spawn(|| cache.get(&disk, FILE, 1).map(|(page, _)| first_byte(&page)));
            pause.wait();
            assert_eq!(cache.get(&disk, FILE, 1).unwrap_err(), CacheError::Busy);
            assert!(cache.find(FILE, 1).is_some() && cache.ready(FILE, 1).is_none());
            assert!(!cache.is_resident(FILE, 1));
            assert_eq!(cache.drop_clean(&disk, FILE, 0..2), 0);
            pause.wait();
            assert_eq!(reader.join().unwrap(), Ok(52));
        });
        assert!(cache.is_resident(FILE, 1) && !cache.get(&disk, FILE, 1).unwrap().1);
        assert_eq!(disk.reads.load(Relaxed), 1);
    });
}

#[test]
fn a_page_that_cannot_be_read_is_not_cached_and_can_be_read_later() {
    with_cache(16, |arena, cache| {
        let disk = Disk::of(8192);
        let before = arena.frames_in_use();
        disk.is_broken.store(true, Relaxed);
        assert_eq!(cache.get(&disk, FILE, 0).unwrap_err(), CacheError::File(FileError::Io));
        assert_eq!((cache.count_pages(), arena.frames_in_use()), (0, before));
        disk.is_broken.store(false, Relaxed);
        assert_eq!(first_byte(&cache.get(&disk, FILE, 0).unwrap().0), 51);
    });
}

#[test]
fn without_frames_nothing_is_cached_and_nothing_lost() {
    with_cache(16, |arena, cache| {
        let disk = Disk::of(1 << 20);
        arena.limit_allocations(Some(2));
        assert_eq!(cache.read_ahead(&disk, FILE, 0, 9), 2);
        let out = cache.get(&disk, FILE, 5).unwrap_err();
        assert_eq!(out, CacheError::OutOfFrames(OutOfFrames { order: 0 }));
        arena.limit_allocations(None);
        assert_eq!(cache.drop_clean(&disk, FILE, 0..9), 2);
        assert!(cache.get(&disk, FILE, 5).is_ok());
    });
}

#[test]
fn a_truncation_takes_what_is_behind_the_end_and_clears_the_rest_of_the_last_page() {
    with_cache(16, |_, cache| {
        let disk = Disk::of(4 * PAGE_SIZE);
        assert_eq!(cache.read_ahead(&disk, FILE, 0, 9), 4);
        let kept = cache.find(FILE, 3).unwrap();
        cache.mark_dirty(FILE, 3);
        disk.len.store(PAGE_SIZE + 10, SeqCst);
        assert_eq!(cache.truncate(&disk, FILE), 2);
        assert_eq!(cache.count_pages(), 2);
        assert_eq!(cache.get(&disk, FILE, 2).unwrap_err(), CacheError::PastEnd);
        let last = cache.get(&disk, FILE, 1).unwrap().0;
        assert_eq!((byte_at(&last, 9), byte_at(&last, 10), byte_at(&last, 4095)), (52, 0, 0));
        assert_eq!(first_byte(&kept), 54, "who has a page of before has it still");
        assert_eq!(cache.write_back(&disk, FILE, 0..4), Ok(0), "a page that is gone is not stored");
        disk.len.store(4 * PAGE_SIZE, SeqCst);
        assert!(cache.get(&disk, FILE, 3).unwrap().1, "read again");
    });
}

#[test]
fn a_page_that_was_read_while_the_file_became_shorter_is_read_again() {
    for len in [0, PAGE_SIZE + 10] {
        with_cache(16, |_, cache| {
            let (disk, pause) = (Disk::of(8192), std::sync::Arc::new(Barrier::new(2)));
            *disk.pause.lock().unwrap() = Some(pause.clone());
            thread::scope(|scope| {
                let reader = scope.spawn(|| cache.get(&disk, FILE, 1).map(drop));
                pause.wait();
                disk.len.store(len, SeqCst);
                assert_eq!(cache.truncate(&disk, FILE), 1);
                pause.wait();
                assert_eq!(reader.join().unwrap(), Err(CacheError::Busy));
            });
            assert_eq!(cache.count_pages(), 0);
            match cache.get(&disk, FILE, 1) {
                Ok((page, true)) => assert_eq!(byte_at(&page, 10), 0),
                other => assert_eq!(other.map(drop), Err(CacheError::PastEnd)),
            }
        });
    }
}

#[test]
fn what_could_not_be_stored_stays_dirty_and_the_rest_is_stored() {
    with_cache(16, |_, cache| {
        let disk = Disk::of(4 * PAGE_SIZE);
        for index in [0, 2] {
            let page = cache.get(&disk, FILE, index).unwrap().0;
            page.with_bytes(|bytes| bytes.write(0, &[200]));
            assert!(cache.mark_dirty(FILE, index));
        }
        assert!(!cache.mark_dirty(FILE, 3), "not cached");
        disk.is_broken.store(true, Relaxed);
        assert_eq!(cache.write_back(&disk, FILE, 0..4), Err(FileError::NoSpace));
        assert_eq!(cache.drop_clean(&disk, FILE, 0..4), 0, "dirty");
        disk.is_broken.store(false, Relaxed);
        assert_eq!(cache.write_back(&disk, FILE, 0..1), Ok(1));
        assert_eq!(cache.write_back(&disk, FILE, 0..u64::MAX), Ok(1));
        assert_eq!(disk.byte(FILE, 2), 200);
        assert_eq!(cache.drop_clean(&disk, FILE, 0..4), 2);
    });
}

#[test]
fn a_page_that_somebody_has_is_not_dropped() {
    with_cache(16, |_, cache| {
        let disk = Disk::of(8192);
        let page = cache.get(&disk, FILE, 0).unwrap().0;
        assert_eq!(cache.drop_clean(&disk, FILE, 0..2), 0);
        assert_eq!(page.info().owners(), 2);
        drop(page);
        assert_eq!(cache.drop_clean(&disk, FILE, 0..2), 1);
    });
}

#[test]
fn forgetting_a_file_leaves_the_others() {
    with_cache(128, |_, cache| {
        let disk = Disk::of(1 << 20);
        for file in 1..4 {
            assert_eq!(cache.read_ahead(&disk, FileId(file), 3, 20), 20);
        }
        cache.mark_dirty(FileId(2), 4);
        assert_eq!(cache.forget(FileId(2)), 20);
        assert_eq!(cache.count_pages(), 40);
        assert!(cache.is_resident(FileId(1), 3) && !cache.is_resident(FileId(2), 3));
        assert_eq!(cache.drop_pages(FileId(3), 10..12), 2);
    });
}

#[test]
fn a_block_goes_back_when_its_last_frame_does() {
    let arena = Arena::new(64);
    let ram = Ram::new(&arena);
    let block = Page::block(&ram, 3, |i, info| info.belongs_to(9, i)).unwrap();
    assert_eq!(arena.frames_in_use(), 8);
    for i in [3, 0, 7, 1, 2, 6, 5, 4] {
        assert_eq!(arena.frames_in_use(), 8);
        let pa = block.wrapping_add(i * PAGE_SIZE);
        // SAFETY: `block` gave a share in each of these frames, and this takes each once.
        let page = unsafe { Page::from_pa(&ram, pa) }.unwrap();
        assert_eq!((page.info().index(), page.info().owners()), (i, 1));
        assert_eq!(byte_at(&page, 100), 0);
    }
    assert_eq!(arena.frames_in_use(), 0);
}

#[test]
fn nothing_is_found_in_a_frame_that_nobody_has() {
    let arena = Arena::new(16);
    let ram = Ram::new(&arena);
    let page = Page::zeroed(&ram).unwrap();
    let pa = page.pa();
    page.info().set(State::ANON.and(State::READY));
    let again = Page::found(&ram, pa.wrapping_add(77)).unwrap();
    drop(page);
    assert_eq!(arena.frames_in_use(), 1);
    drop(again);
    assert!(Page::found(&ram, pa).is_none());
    assert_eq!(arena.frames_in_use(), 0);
    let next = Page::take(&ram).unwrap();
    assert_eq!((next.pa(), next.info().state()), (pa, State::default()), "known of nothing");
    assert_eq!(next.duplicate().unwrap().info().owners(), 1);
}

// Not under Miri, which takes minutes for one sequence; what it does there is in the tests around it.
#[cfg(not(miri))]
mod model {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Get(u64, u64),
        Write(u64, u64, u8),
        Store(u64, u64, u64),
        Drop(u64, u64, u64),
        Forget(u64),
        Len(u64),
    }

    /// What is cached of each file, and whether it is dirty.
    type Cached = BTreeMap<(u64, u64), (u8, bool)>;

    fn apply(op: Op, cache: &Cache<Ram<'_>>, disk: &Disk, model: &mut Cached) {
        let len = disk.len.load(SeqCst) / PAGE_SIZE;
        let stretch = |model: &Cached, file, from, to| -> Vec<(u64, u64)> {
            let range = (file, from)..(file, core::cmp::max(from, to));
            model.range(range).map(|(&at, _)| at).collect()
        };
        match op {
            Op::Get(file, index) => {
                let known = model.get(&(file, index)).copied();
                match cache.get(disk, FileId(file), index) {
                    Ok((page, new)) => {
                        assert_eq!(new, known.is_none());
                        let byte = known.map_or(disk.byte(FileId(file), index), |(byte, _)| byte);
                        assert_eq!(first_byte(&page), byte);
                        model.entry((file, index)).or_insert((byte, false));
                    }
                    Err(error) => assert!(error == CacheError::PastEnd && index >= len),
                }
            }
            Op::Write(file, index, byte) => {
                let page = cache.find(FileId(file), index);
                assert_eq!(page.is_some(), model.contains_key(&(file, index)));
                if let Some(page) = page {
                    page.with_bytes(|bytes| bytes.write(0, &[byte]));
                    assert!(cache.mark_dirty(FileId(file), index));
                    model.insert((file, index), (byte, true));
                }
            }
            Op::Store(file, from, to) => {
                let mut stored = 0;
                for at in stretch(model, file, from, to) {
                    if let Some((_, is_dirty @ true)) = model.get_mut(&at) {
                        *is_dirty = false;
                        stored += 1;
                    }
                }
                assert_eq!(cache.write_back(disk, FileId(file), from..to), Ok(stored));
            }
            Op::Drop(file, from, to) => {
                let clean: Vec<_> =
                    stretch(model, file, from, to).into_iter().filter(|at| !model[at].1).collect();
                assert_eq!(cache.drop_clean(disk, FileId(file), from..to), clean.len() as u64);
                model.retain(|at, _| !clean.contains(at));
            }
            Op::Forget(file) => {
                let all = stretch(model, file, 0, u64::MAX);
                assert_eq!(cache.forget(FileId(file)), all.len() as u64);
                model.retain(|at, _| !all.contains(at));
            }
            Op::Len(pages) => {
                disk.len.store(pages * PAGE_SIZE, SeqCst);
                for file in 0..3 {
                    let gone = stretch(model, file, pages, u64::MAX);
                    assert_eq!(cache.truncate(disk, FileId(file)), gone.len() as u64);
                    model.retain(|at, _| !gone.contains(at));
                }
            }
        }
    }

    fn op() -> impl Strategy<Value = Op> {
        let (file, index) = (0..3u64, 0..40u64);
        // Short stretches are looked up page by page, long ones by a pass over all records.
        let stretch = (0..40u64, prop_oneof![0..40u64, Just(u64::MAX)]);
        prop_oneof![
            8 => (file.clone(), index.clone()).prop_map(|(f, i)| Op::Get(f, i)),
            4 => (file.clone(), index, any::<u8>()).prop_map(|(f, i, b)| Op::Write(f, i, b)),
            2 => (file.clone(), stretch.clone()).prop_map(|(f, (a, b))| Op::Store(f, a, b)),
            2 => (file.clone(), stretch).prop_map(|(f, (a, b))| Op::Drop(f, a, b)),
            1 => file.prop_map(Op::Forget),
            1 => (0..40u64).prop_map(Op::Len),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

        #[test]
        fn random_sequences_do_what_a_map_does(ops in prop::collection::vec(op(), 1..120)) {
            with_cache(256, |_, cache| {
                let (disk, mut model) = (Disk::of(40 * PAGE_SIZE), Cached::new());
                for op in ops {
                    apply(op, cache, &disk, &mut model);
                    assert_eq!(cache.count_pages(), model.len() as u64);
                }
            });
        }
    }
}

#[test]
fn threads_read_each_page_once_and_see_the_same_frame() {
    let pages = if cfg!(miri) { 6 } else { 48 };
    with_cache(256, |_, cache| {
        let disk = Disk::of(64 * PAGE_SIZE);
        let run = || {
            let mut frames = Vec::new();
            for index in 0..pages {
                frames.push(loop {
                    match cache.get(&disk, FILE, index) {
                        Ok((page, _)) => break page.pa(),
                        Err(error) => assert_eq!(error, CacheError::Busy),
                    }
                    thread::yield_now();
                });
            }
            frames
        };
        let all: BTreeSet<_> = thread::scope(|scope| {
            let readers: Vec<_> = (0..3).map(|_| scope.spawn(run)).collect();
            readers.into_iter().map(|reader| reader.join().unwrap()).collect()
        });
        assert_eq!((all.len(), disk.reads.load(Relaxed)), (1, pages));
    });
}

#[test]
fn readers_beside_truncations_never_leave_a_page_behind_the_end() {
    let rounds = if cfg!(miri) { 10 } else { 3_000 };
    with_cache(256, |_, cache| {
        let (disk, done) = (Disk::of(4 * PAGE_SIZE), AtomicBool::new(false));
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut got = 0;
                while !done.load(Relaxed) {
                    for index in 0..4 {
                        if let Ok((page, _)) = cache.get(&disk, FILE, index) {
                            let byte = first_byte(&page);
                            assert!(byte == 51 + index as u8 || byte == 0);
                            got += 1;
                        }
                    }
                    thread::yield_now();
                }
                got
            });
            for round in 0..rounds {
                let pages = round % 4;
                disk.len.store(pages * PAGE_SIZE, SeqCst);
                cache.truncate(&disk, FILE);
                for index in pages..4 {
                    let found = cache.ready(FILE, index);
                    assert!(found.is_none(), "page {index} of {pages}");
                }
                disk.len.store(4 * PAGE_SIZE, SeqCst);
                thread::yield_now();
            }
            done.store(true, Relaxed);
            reader.join().unwrap();
        });
    });
}

/// A file of two pages that is cut to nothing right after somebody has asked for its length.
struct Shrinking(AtomicU64);

impl Files for Shrinking {
    fn len_bytes(&self, _: FileId) -> u64 {
        self.0.swap(0, SeqCst)
    }

    fn read(&self, _: FileId, _: u64, _: FrameBytes<'_>) -> Result<(), FileError> {
        Ok(())
    }

    fn write(&self, _: FileId, _: u64, _: FrameBytes<'_>) -> Result<(), FileError> {
        Ok(())
    }
}

#[test]
fn a_page_that_comes_after_the_truncation_is_seen_to_lie_behind_the_end() {
    with_cache(16, |_, cache| {
        let disk = Shrinking(AtomicU64::new(8192));
        assert_eq!(cache.get(&disk, FILE, 1).unwrap_err(), CacheError::PastEnd);
        assert_eq!(cache.count_pages(), 0);
    });
}
