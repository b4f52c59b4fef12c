//! A [`Shared`] under its own CPU's interrupts: for real, with signals that stop a thread anywhere.
//!
//! ```text
//!   the thread     alloc ... free .. | .. alloc ......... | .....      through its `Local`
//!   SIGUSR1                          [ alloc .. | .. free ]            on top of it, the same CPU
//!   SIGUSR2                                     [ free ]               on top of that
//! ```
//!
//! And `Local`s by themselves: several of one CPU, and of a CPU that has no slot.

use super::model::at;
use super::ways::runs;
use super::{bytes, set_up, storage};
use crate::{FrameAllocator, Local, Shared};
use vellum_core::FrameSource;

/// Runs `test` on an allocator of the frames `0..count`.
fn with_frames(count: u64, test: impl FnOnce(&FrameAllocator<'_>)) {
    let usable = [(0, bytes(count))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    test(&frames);
}

#[test]
fn two_locals_of_one_cpu_are_one_cache() {
    with_frames(4096, |frames| {
        let shared = Shared::<2>::new(frames);
        // SAFETY: this thread is CPU 0, and the only one.
        let [one, other] = [0, 0].map(|cpu| unsafe { shared.on(cpu) });
        let first = one.alloc(0).unwrap();
        assert_eq!((one.held(), other.held()), (63, 63));
        let second = other.alloc(0).unwrap();
        assert_eq!(second, first.wrapping_add(4096), "from the same word");
        // SAFETY: taken above, and the second time an error.
        unsafe {
            assert_eq!(one.free(second, 0), Ok(()));
            assert_eq!(other.free(first, 0), Ok(()));
            assert!(other.free(second, 0).is_err());
        }
        assert_eq!((one.held(), frames.stats().free), (64, 4096 - 64));
        other.flush();
        assert_eq!((one.held(), frames.stats().free), (0, 4096));
    });
}

#[test]
fn every_cpu_has_a_cache_of_its_own() {
    with_frames(4096, |frames| {
        let shared = Shared::<2>::new(frames);
        // SAFETY: this thread is both CPUs, by turns.
        let [zero, one] = [0, 1].map(|cpu| unsafe { shared.on(cpu) });
        let pa = zero.alloc(0).unwrap();
        assert_eq!((zero.held(), one.held()), (63, 0));
        assert_ne!(one.alloc(0).unwrap().number().as_u64() / 64, pa.number().as_u64() / 64);
        assert_eq!((zero.held(), one.held()), (63, 63));
        one.flush();
        assert_eq!((zero.held(), one.held()), (63, 0));
        // SAFETY: taken above.
        unsafe { zero.free(pa, 0) }.unwrap();
        drop(shared);
        assert_eq!(frames.stats().free, 4095, "one is still taken");
    });
}

#[test]
fn a_cpu_beyond_the_slots_works_without_a_cache() {
    with_frames(4096, |frames| {
        let shared = Shared::<1>::new(frames);
        for cpu in [1, 2, usize::MAX] {
            // SAFETY: this thread is that CPU.
            let local = unsafe { shared.on(cpu) };
            for order in [0, 3, 9, 10] {
                let pa = local.alloc(order).unwrap();
                assert_eq!((local.held(), frames.stats().free), (0, 4096 - (1 << order)));
                assert!(local.owns(pa));
                // SAFETY: taken above; the second time it is an error.
                unsafe {
                    assert_eq!(local.free(pa, order), Ok(()));
                    assert!(local.free(pa, order).is_err());
                }
                local.flush();
                assert_eq!((local.held(), runs(frames)), (0, std::vec![(0, 4096)]));
            }
        }
        // SAFETY: as above.
        assert!(!unsafe { shared.on(9) }.owns(at(4096)));
    });
}

#[test]
fn what_lies_in_the_slots_goes_back_on_flush_and_on_drop() {
    with_frames(4096, |frames| {
        let mut shared = Shared::<4>::new(frames);
        for by_drop in [false, true] {
            for cpu in 0..4 {
                // SAFETY: this thread is every CPU, by turns.
                let local = unsafe { shared.on(cpu) };
                let (frame, block) = (local.alloc(0).unwrap(), local.alloc(9).unwrap());
                // SAFETY: taken above.
                unsafe { local.free(frame, 0).and(local.free(block, 9)) }.unwrap();
                assert!(local.held() > 512, "a word's rest, and a block");
            }
            assert!(frames.stats().free < 4096 - 4 * 512);
            if by_drop {
                drop(shared);
                break;
            }
            shared.flush();
            assert_eq!(runs(frames), [(0, 4096)]);
        }
        assert_eq!(runs(frames), [(0, 4096)]);
    });
}

#[test]
fn a_local_is_a_source_of_frames() {
    fn round_trip(source: &impl FrameSource, order: u8) -> u64 {
        let pa = source.alloc(order).expect("free blocks");
        // SAFETY: taken right here.
        unsafe { source.free(pa, order) };
        pa.number().as_u64()
    }
    with_frames(4096, |frames| {
        let shared = Shared::<1>::new(frames);
        // SAFETY: this thread is CPU 0.
        let local: Local<'_, '_> = unsafe { shared.on(0) };
        let first = round_trip(&local, 0);
        assert_eq!(round_trip(&local, 0), first, "from the cache");
        assert_eq!(local.held(), 64);
    });
}

#[cfg(all(target_os = "linux", not(miri)))]
mod signals {
    use super::{at, runs, with_frames};
    use crate::tests::stress::{Owners, Random};
    use crate::{FrameAllocator, Shared};
    use core::ffi::c_int;
    use core::sync::atomic::{
        AtomicBool, AtomicPtr, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    };
    use std::thread;
    use std::vec::Vec;

    // The C library's: std links it anyway.
    unsafe extern "C" {
        fn signal(number: c_int, handler: extern "C" fn(c_int)) -> usize;
        fn pthread_self() -> usize;
        fn pthread_kill(thread: usize, number: c_int) -> c_int;
    }

    const SIGUSR1: c_int = 10;
    const SIGUSR2: c_int = 12;
    const COUNT: u64 = 1500;

    /// What the handlers work on.
    struct Scene<'a, 'm> {
        shared: &'a Shared<'a, 'm, 1>,
        owners: &'a Owners,
        /// What each of the two has: a frame number and an order, or `NOTHING`.
        held: [[AtomicU64; 20]; 2],
        seeds: [AtomicU64; 2],
        calls: [AtomicU64; 2],
        /// A handler cannot panic.
        failed: AtomicBool,
    }

    const NOTHING: u64 = u64::MAX;

    static SCENE: AtomicPtr<Scene<'static, 'static>> = AtomicPtr::new(core::ptr::null_mut());

    extern "C" fn handler(number: c_int) {
        // SAFETY: the pointer is null but while `Scene` lives, and this thread is in the middle of
        // the function that keeps it. Lifetimes are as long as that.
        let Some(scene) = (unsafe { SCENE.load(Acquire).as_ref() }) else { return };
        let nth = usize::from(number == SIGUSR2);
        scene.calls[nth].fetch_add(1, Relaxed);
        let mut random = Random(scene.seeds[nth].load(Relaxed));
        // SAFETY: signals are sent to one thread, which is CPU 0: this is its interrupt handler.
        let local = unsafe { scene.shared.on(0) };
        for _ in 0..1 + random.below(6) {
            let slot = &scene.held[nth][random.below(20) as usize];
            let (held, mine) = (slot.load(Relaxed), nth as u8 + 2);
            let bad = if held == NOTHING {
                let order = [0, 0, 0, 1, 3, 6, 9][random.below(7) as usize];
                let Ok(pa) = local.alloc(order) else { continue };
                let first = pa.number().as_u64();
                slot.store(first << 8 | u64::from(order), Relaxed);
                scene.owners.change(first, 1 << order, 0, mine).is_some()
            } else {
                let (first, order) = (held >> 8, held as u8);
                slot.store(NOTHING, Relaxed);
                scene.owners.change(first, 1 << order, mine, 0).is_some()
                    // SAFETY: this handler's, and nothing is behind it.
                    || unsafe { local.free(at(first), order) }.is_err()
            };
            scene.failed.fetch_or(bad, Relaxed);
        }
        scene.seeds[nth].store(random.0, Relaxed);
    }

    fn churn(frames: &FrameAllocator<'_>, scene: &Scene<'_, '_>, rounds: u32) {
        let mut random = Random(0x1234_5678_9abc_def1);
        let mut held: Vec<(u64, u8)> = Vec::new();
        // SAFETY: this thread is CPU 0.
        let local = unsafe { scene.shared.on(0) };
        let mut round = 0;
        // The sender may not run for a while.
        let enough = |calls: &AtomicU64| calls.load(Relaxed) > 1000;
        while round < rounds || !scene.calls.iter().all(enough) {
            round += 1;
            if random.below(2) == 0 {
                let order = [0, 0, 0, 0, 2, 4, 7, 9][random.below(8) as usize];
                let got = match random.below(16) {
                    0 => frames.alloc(order),
                    _ => local.alloc(order),
                };
                if let Ok(pa) = got {
                    let first = pa.number().as_u64();
                    assert_eq!(scene.owners.change(first, 1 << order, 0, 1), None);
                    held.push((first, order));
                }
            } else if let Some(nth) = random.below(64).checked_rem(held.len() as u64) {
                let (first, order) = held.swap_remove(nth as usize);
                assert_eq!(scene.owners.change(first, 1 << order, 1, 0), None);
                // SAFETY: taken above, and nothing is behind it.
                assert_eq!(unsafe { local.free(at(first), order) }, Ok(()));
            }
            if random.below(300) == 0 {
                local.flush();
            }
            assert!(!scene.failed.load(Relaxed), "a handler got a frame that is not free");
        }
        for (first, order) in held {
            scene.owners.change(first, 1 << order, 1, 0);
            // SAFETY: as above.
            assert_eq!(unsafe { local.free(at(first), order) }, Ok(()));
        }
    }

    #[test]
    fn interrupts_on_top_of_any_instruction_get_frames_of_their_own() {
        with_frames(COUNT, |frames| {
            let owners = Owners::new(COUNT);
            let shared = Shared::<1>::new(frames);
            let scene = Scene {
                shared: &shared,
                owners: &owners,
                held: [(); 2].map(|()| [const { AtomicU64::new(NOTHING) }; 20]),
                seeds: [AtomicU64::new(77), AtomicU64::new(991)],
                calls: [AtomicU64::new(0), AtomicU64::new(0)],
                failed: AtomicBool::new(false),
            };
            let done = AtomicBool::new(false);
            // SAFETY: a function of the C library's, without arguments.
            let victim = unsafe { pthread_self() };
            thread::scope(|scope| {
                // SAFETY: the handler makes no call but into this crate, which may be called there.
                unsafe {
                    signal(SIGUSR1, handler);
                    signal(SIGUSR2, handler);
                }
                SCENE.store((&raw const scene).cast_mut().cast(), Release);
                let sender = scope.spawn(|| {
                    let mut random = Random(5);
                    while !done.load(Acquire) {
                        let number = if random.below(2) == 0 { SIGUSR1 } else { SIGUSR2 };
                        // SAFETY: that thread waits for this one before it ends.
                        unsafe { pthread_kill(victim, number) };
                        for _ in 0..random.below(2000) {
                            core::hint::spin_loop();
                        }
                    }
                });
                let outcome = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| {
                    churn(frames, &scene, 400_000);
                }));
                done.store(true, Release);
                sender.join().expect("it only sends");
                // A handler runs to its end on this very thread; one that comes late finds nothing.
                SCENE.store(core::ptr::null_mut(), Release);
                if let Err(panic) = outcome {
                    std::panic::resume_unwind(panic);
                }
            });
            let held = scene.held.iter().flatten().map(|slot| slot.load(Relaxed));
            for held in held.filter(|&held| held != NOTHING) {
                // SAFETY: the handlers', which run no more.
                assert_eq!(unsafe { frames.free(at(held >> 8), held as u8) }, Ok(()));
            }
            drop(shared);
            assert_eq!(runs(frames), [(0, COUNT)]);
        });
    }
}
