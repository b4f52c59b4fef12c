//! Several threads, and an owner for each frame.
//!
//! Under Miri these run with its random scheduling and weak memory:
//! `MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-many-seeds=0..16" cargo +nightly miri test races`.

use super::{bytes, set_up, storage};
use crate::{FrameAllocator, FreeError};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::thread;
use std::vec::Vec;
use vellum_core::PhysAddr;

/// Marsaglia's xorshift: enough to mix operations.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Who owns each frame; 0 for nobody. Relaxed: it must not order what it watches.
struct Owners(Vec<AtomicU8>);

impl Owners {
    fn change(&self, pa: PhysAddr, order: u8, from: u8, to: u8) {
        let first = pa.number().as_u64() as usize;
        for (frame, owner) in self.0.iter().enumerate().skip(first).take(1 << order) {
            assert_eq!(owner.swap(to, Relaxed), from, "frame {frame} of order {order} at {pa}");
        }
    }
}

fn churn(frames: &FrameAllocator<'_>, owners: &Owners, me: u8, rounds: u32, most: u64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(me) << 40);
    let mut held: Vec<(PhysAddr, u8)> = Vec::new();
    for _ in 0..rounds {
        let order = random.below(most + 1).min(random.below(most + 1)) as u8;
        let got = match random.below(20) {
            0..=8 => frames.alloc(order).ok(),
            9 => {
                let count = owners.0.len() as u64 >> order;
                let pa = PhysAddr::new(bytes(random.below(count) << order));
                frames.alloc_at(pa, order).is_ok().then_some(pa)
            }
            _ => {
                if let Some(at) = random.below(64).checked_rem(held.len() as u64) {
                    let (pa, order) = held.swap_remove(at as usize);
                    owners.change(pa, order, me, 0);
                    // SAFETY: this thread took the block, and takes it from its list.
                    assert_eq!(unsafe { frames.free(pa, order) }, Ok(()));
                }
                None
            }
        };
        if let Some(pa) = got {
            owners.change(pa, order, 0, me);
            held.push((pa, order));
        }
    }
    for (pa, order) in held {
        owners.change(pa, order, me, 0);
        // SAFETY: this thread took the block.
        assert_eq!(unsafe { frames.free(pa, order) }, Ok(()));
    }
}

fn no_frame_twice(threads: u8, count: u64, rounds: u32, most: u64) {
    let usable = [(0, bytes(count))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    let owners = Owners((0..count).map(|_| AtomicU8::new(0)).collect());
    thread::scope(|scope| {
        for me in 1..=threads {
            let (frames, owners) = (&frames, &owners);
            scope.spawn(move || churn(frames, owners, me, rounds, most));
        }
    });
    assert!(frames.free_runs().eq([(PhysAddr::new(0), count)]));
    let largest = frames.stats().largest.unwrap();
    assert!(frames.alloc(largest).is_ok(), "everything is one again");
}

#[test]
fn no_frame_is_given_twice_in_plenty() {
    let (rounds, count) = if cfg!(miri) { (60, 256) } else { (150_000, 1 << 15) };
    no_frame_twice(4, count, rounds, if cfg!(miri) { 7 } else { 10 });
}

#[test]
fn no_frame_is_given_twice_when_memory_is_scarce() {
    let (rounds, count) = if cfg!(miri) { (60, 128) } else { (150_000, 1 << 11) };
    no_frame_twice(3, count, rounds, if cfg!(miri) { 7 } else { 10 });
}

#[test]
fn no_frame_is_given_twice_between_two_threads_and_two_words() {
    no_frame_twice(2, 128, if cfg!(miri) { 100 } else { 400_000 }, 7);
}

/// Two words of frames and two threads, each with at most one block of at most one word: a word is
/// always wholly free for the other, whole or in pieces or on the move.
#[test]
fn a_thread_is_never_refused_while_a_block_is_free() {
    let usable = [(0, bytes(128))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    let rounds = if cfg!(miri) { 60 } else { 400_000 };
    thread::scope(|scope| {
        for me in 1..=2u64 {
            let frames = &frames;
            scope.spawn(move || {
                let mut random = Random(me << 32 | 0x1234_5678);
                for round in 0..rounds {
                    let order = [0, 6, 3, 5][random.below(4) as usize];
                    match frames.alloc(order) {
                        // SAFETY: allocated right here.
                        Ok(pa) => assert_eq!(unsafe { frames.free(pa, order) }, Ok(())),
                        Err(error) => panic!("thread {me}, round {round}: {error}"),
                    }
                }
            });
        }
    });
}

#[test]
fn a_second_initialiser_is_refused_and_never_sees_half_an_allocator() {
    let usable = [(0, bytes(128))];
    let room = [(); 2].map(|()| storage(FrameAllocator::words_needed(usable, [(0, 0); 0])));
    for _ in 0..if cfg!(miri) { 2 } else { 300 } {
        let frames = FrameAllocator::new();
        let won = AtomicU8::new(0);
        let go = AtomicBool::new(false);
        thread::scope(|scope| {
            for room in &room {
                let (frames, won, go) = (&frames, &won, &go);
                scope.spawn(move || {
                    while !go.load(SeqCst) {
                        thread::yield_now();
                    }
                    if set_up(frames, room, usable, [(0, 0); 0]).is_ok() {
                        won.fetch_add(1, SeqCst);
                    }
                    if let Ok(pa) = frames.alloc(0) {
                        assert!(pa.as_u64() < bytes(128));
                    }
                });
            }
            go.store(true, SeqCst);
        });
        assert_eq!(won.into_inner(), 1);
        assert!(frames.stats().free >= 126);
    }
}

/// Of two frees of one block that run at the same time, on one level of the tree, one is refused.
#[test]
fn a_double_free_on_one_level_is_seen_at_the_same_moment_too() {
    let usable = [(0, bytes(4096))];
    let room = storage(FrameAllocator::words_needed(usable, [(0, 0); 0]));
    let frames = FrameAllocator::new();
    set_up(&frames, &room, usable, [(0, 0); 0]).unwrap();
    let turn = AtomicU64::new(0);
    for (whole, part) in [(0, 0), (5, 0), (6, 6), (11, 6)] {
        for _ in 0..if cfg!(miri) { 3 } else { 1000 } {
            let pa = frames.alloc(whole).unwrap();
            turn.store(0, SeqCst);
            let free = |order| {
                turn.fetch_add(1, SeqCst);
                while turn.load(SeqCst) < 2 {
                    thread::yield_now();
                }
                // SAFETY: allocated above; the second of the two is an error, which is the point.
                unsafe { frames.free(pa, order) }
            };
            let (of_all, of_part) = thread::scope(|scope| {
                let of_all = scope.spawn(|| free(whole));
                let of_part = free(part);
                (of_all.join().expect("no panic"), of_part)
            });
            let refused = Err(FreeError::DoubleFree { pa });
            match (of_all, of_part) {
                (Ok(()), Err(FreeError::DoubleFree { .. })) => {}
                (all, Ok(())) if all == refused => {
                    for rest in 1..1 << (whole - part) {
                        // SAFETY: part of the block above, which was not freed as a whole.
                        let freed =
                            unsafe { frames.free(pa.wrapping_add(bytes(rest << part)), part) };
                        assert_eq!(freed, Ok(()));
                    }
                }
                both => panic!("orders {whole} and {part}: {both:?}"),
            }
            assert!(frames.free_runs().eq([(PhysAddr::new(0), 4096)]));
        }
    }
}
