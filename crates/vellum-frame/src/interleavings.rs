//! loom models: a few steps of two or three threads, in every order that matters.
//!
//! ```text
//!   takes    two takers of a word; a free that completes a word beside a taker; double frees
//!   moves    gather beside take, split beside take, split beside free: nothing missed meanwhile
//!   hints    a hint taken back beside a free, on every tier; unsorted groups beside a free
//!   caches   flush beside a remote free, words and blocks at hand beside takers
//! ```
//!
//! Each model runs over an allocator of a few words, and in each of its executions:
//!
//! - no frame is handed out twice ([`World::owners`]);
//! - who gets a frame comes after what its last owner did to its bytes ([`World::bytes`], which loom
//!   watches);
//! - at the end each frame is owned, or free on exactly one level, with nothing below a set bit
//!   ([`World::check`]); and once all are free again, the whole memory can be had as one block;
//! - an allocation fails only where the model says that it may.
//!
//! # What they see
//!
//! Each of these was done to the code by hand once, and failed at the model named (and mostly at
//! others):
//!
//! | left out or turned round | seen by |
//! |---|---|
//! | any compare-and-swap of a word made a load and a store | `takes`, `moves`, `caches` |
//! | acquire or release of a swap; release of a split's store | `who_gets_…`, `the_next_owner_…` |
//! | a split or gather not counted in `Moves`, or too late, or not long enough | `…_found_while_…` |
//! | `settled`: one attempt; not waiting; only open moves compared | `…_found_while_…`, `…_without_hints_…` |
//! | a gather that does not look, or sets the bit above first | `a_full_word_is_promoted_…` |
//! | `free` looking for a double free only once | `a_wrongful_free_…` |
//! | hints told before the word is changed; `or`, `and` of hints not atomic, loads weaker | `hints` |
//! | `retract`, `lower`, `sort`: no second look, or before, or at one kind | `…_comes_back_…`, `…_sorted_…` |
//! | `set`, `raise`: not up to the first tier that has it | `an_upper_hint_…` |
//! | `give`, `take_word`, `take_block`: plain stores | `caches` |
//!
//! # How much they see
//!
//! loom explores the executions with at most [`PREEMPTIONS`] (or `LOOM_MAX_PREEMPTIONS`) switches
//! away from a thread that could go on, not all of them: a search reads dozens of words. Within that
//! bound they are explored as far as loom 0.7 can tell which orders matter (`sync/modelled.rs`), with
//! all the values that loads may see on weakly ordered machines.
//!
//! loom takes a load that is `SeqCst` for one that sees the last `SeqCst` store or a later one,
//! which is right among `SeqCst` stores, and too weak where the first value was stored otherwise:
//! so [`store_again`] comes before the threads.

mod caches;
mod hints;
mod moves;
mod takes;

use crate::FrameAllocator;
use crate::sync::AtomicU64;
use crate::tree::Tree;
use core::cell::RefCell;
use core::sync::atomic::{AtomicU64 as Counter, Ordering::Relaxed, Ordering::SeqCst};
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;
use std::boxed::Box;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::vec::Vec;
use vellum_core::{PAGE_SHIFT, PhysAddr};

/// Switches away from a thread that could go on, in one execution.
const PREEMPTIONS: usize = 3;

const fn address(pfn: u64) -> PhysAddr {
    PhysAddr::new(pfn << PAGE_SHIFT)
}

/// Runs `model` in every execution with at most [`PREEMPTIONS`] preemptions.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    explore_with(PREEMPTIONS, model);
}

/// The same for a number of preemptions that is not the usual one.
fn explore_with(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    let executions = Arc::new(Counter::new(0));
    let counter = Arc::clone(&executions);
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        model();
    });
    std::eprintln!("{} executions", executions.load(Relaxed));
}

/// Words that are borrowed for ever, as a thread of loom's wants it, and yet given back.
struct Room(*mut [AtomicU64]);

impl Room {
    fn new(words: Box<[AtomicU64]>) -> Self {
        Self(Box::into_raw(words))
    }

    /// # Safety
    ///
    /// Nobody uses them after the end of this `Room`.
    unsafe fn words(&self) -> &'static [AtomicU64] {
        // SAFETY: they came out of a `Box`, and live until this is dropped, as the caller promises.
        unsafe { &*self.0 }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: it came out of a `Box`, and nobody uses it any more: the contract of `words`.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Makes the last store of each word a sequentially consistent one.
fn store_again(words: &[AtomicU64]) {
    for word in words {
        word.fetch_or(0, SeqCst);
    }
}

/// An allocator over the frames `0..count`, and who has which of them.
///
/// The threads of loom are one of the system's, which is why they may share an `Rc`.
struct World {
    frames: FrameAllocator<'static>,
    words: &'static [AtomicU64],
    count: u64,
    /// Frames that somebody has. (No atomics of loom's: it must not add to the orders.)
    owners: RefCell<Vec<bool>>,
    /// What the owners of frames write to, as loom knows it; made at the first touch.
    bytes: RefCell<BTreeMap<u64, Rc<UnsafeCell<()>>>>,
    _room: Room,
}

impl World {
    /// All frames `0..count`, which are a power of two, free.
    fn new(count: u64) -> Rc<Self> {
        let (usable, none) = ([(0, count << PAGE_SHIFT)], [(0, 0); 0]);
        let len = FrameAllocator::words_needed(usable, none);
        let room = Room::new((0..len).map(|_| AtomicU64::new(u64::MAX)).collect());
        // SAFETY: they stay in this `World`, whose threads hold it until they end.
        let words = unsafe { room.words() };
        let frames = FrameAllocator::new();
        // SAFETY: no memory is behind the frames, and nobody else writes to `words`.
        unsafe { frames.init_in(words, usable, none) }.unwrap();
        Rc::new(Self {
            frames,
            words,
            count,
            owners: RefCell::new((0..count).map(|_| false).collect()),
            bytes: RefCell::default(),
            _room: room,
        })
    }

    /// All frames taken but those of `free`: blocks, as first frame and order, freed in this order.
    fn with_free(count: u64, free: &[(u64, u8)]) -> Rc<Self> {
        let world = Self::new(count);
        assert_eq!(world.alloc(world.order()), Some(0));
        for &(pfn, order) in free {
            world.free(pfn, order);
        }
        world
    }

    fn order(&self) -> u8 {
        self.count.ilog2() as u8
    }

    fn tree(&self) -> &Tree<'static> {
        self.frames.tree().unwrap()
    }

    /// Runs `first` beside `second`, and returns what they return.
    fn race<A: 'static, B>(
        self: &Rc<Self>,
        first: impl FnOnce(&Self) -> A + 'static,
        second: impl FnOnce(&Self) -> B,
    ) -> (A, B) {
        store_again(self.words);
        let own = Rc::clone(self);
        let first = thread::spawn(move || first(&own));
        let second = second(self);
        (first.join().unwrap(), second)
    }

    /// The frames of a block change hands: they were `owned` before.
    fn pass(&self, pfn: u64, order: u8, owned: bool) {
        for frame in pfn..pfn + (1 << order) {
            let slot = &mut self.owners.borrow_mut()[frame as usize];
            assert_eq!(*slot, owned, "frame {frame} of {pfn}, order {order}");
            *slot = !owned;
        }
    }

    /// The owner of a block writes to its frames; of many, to the first ones and the last.
    fn touch(&self, pfn: u64, order: u8) {
        let end = pfn + (1 << order);
        for frame in (pfn..end.min(pfn + 8)).chain([end - 1]) {
            let cell = Rc::clone(self.bytes.borrow_mut().entry(frame).or_default());
            cell.with_mut(drop);
        }
    }

    /// Notes that the caller got a block.
    fn got(&self, pa: PhysAddr, order: u8) -> u64 {
        let pfn = pa.number().as_u64();
        assert_eq!(pfn % (1 << order), 0);
        self.pass(pfn, order, false);
        self.touch(pfn, order);
        pfn
    }

    /// Notes that the caller is about to give a block away.
    fn gives(&self, pfn: u64, order: u8) -> PhysAddr {
        self.touch(pfn, order);
        self.pass(pfn, order, true);
        address(pfn)
    }

    fn alloc(&self, order: u8) -> Option<u64> {
        self.frames.alloc(order).ok().map(|pa| self.got(pa, order))
    }

    fn free(&self, pfn: u64, order: u8) {
        let pa = self.gives(pfn, order);
        // SAFETY: `gives` saw that it is owned, and made it not so; no memory is behind it.
        assert_eq!(unsafe { self.frames.free(pa, order) }, Ok(()));
    }

    /// Everything is in order; frees what is owned; then everything can be had at once.
    fn check(self: Rc<Self>) {
        self.check_levels();
        let owners = self.owners.borrow().clone();
        for first in (0..self.count).step_by(64) {
            let owned = |pfn: u64| owners[pfn as usize];
            if (first..first + 64).all(owned) {
                self.free(first, 6);
            } else {
                (first..first + 64).filter(|&pfn| owned(pfn)).for_each(|pfn| self.free(pfn, 0));
            }
        }
        let order = self.order();
        assert_eq!(self.alloc(order), Some(0), "all frames are free");
        assert_eq!(self.frames.free_runs().next(), None);
    }

    /// Each frame is owned, or free on one level, with zeros below it.
    fn check_levels(&self) {
        let owners = self.owners.borrow();
        let mut free: Vec<u32> = owners.iter().map(|_| 0).collect();
        for level in &self.tree().levels {
            for (index, word) in level.words.iter().enumerate() {
                let word = word.load(SeqCst);
                for bit in (0..64).filter(|bit| word >> bit & 1 == 1) {
                    let first = level.frame(index, bit) as usize;
                    free[first..first + (1 << level.shift)].iter_mut().for_each(|n| *n += 1);
                }
            }
        }
        for (frame, (&owned, &free)) in owners.iter().zip(&free).enumerate() {
            assert_eq!(u32::from(owned) + free, 1, "frame {frame}: owned {owned}, free {free}");
        }
        assert_eq!(self.tree().moves.open(), 0);
    }
}
