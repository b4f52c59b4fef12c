//! loom models: programs' accesses beside calls that change regions, in every order that matters.
//!
//! ```text
//!   accesses, shared    read, write; the first write to a region; both of two CPUs at one page
//!   calls, exclusive    munmap, mprotect, mremap, madvise, fork; a child that goes
//! ```
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vellum-space --lib interleavings` runs them, and so does
//! `cargo xtask test --loom`. The lock is made of loom's mutex and condition variable, the rest is
//! `vellum_fault::modelled`: a table of four slots, frames that nobody may use who does not come after their
//! last owner. Bytes are the host's: what is seen of them is what the order of all other steps allows.
//!
//! # What they see
//!
//! Each of these was done to the code by hand once:
//!
//! | left out or turned round | seen by |
//! |---|---|
//! | the second look at a page that is read; a frame that went taken for a device's | `a_load_beside_a_copy_…` |
//!
//! # How much they see
//!
//! Executions with at most [`PREEMPTIONS`] (or `LOOM_MAX_PREEMPTIONS`) switches away from a thread that
//! could go on.

mod calls;

use crate::abi::{map, prot};
use crate::{AddressSpace, Layout, Limits, Rules};
use core::sync::atomic::{AtomicU64 as Counter, Ordering::Relaxed};
use lock_api::{GuardSend, RawRwLock};
use loom::model::Builder;
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::boxed::Box;
use std::sync::{Arc, OnceLock};
use std::vec::Vec;
use vellum_cache::Page;
use vellum_core::{PAGE_SIZE, PhysAddr};
use vellum_fault::modelled::{Cpus, Machine, SLOTS, Table, page};
use vellum_fault::{Engine, Mmu};

/// Switches away from a thread that could go on, in one execution.
const PREEMPTIONS: usize = 2;

/// A lock whose waiting loom knows. It is made at its first use, since nothing of loom's is constant.
struct Lock(OnceLock<(Mutex<Held>, Condvar)>);

#[derive(Default)]
struct Held {
    readers: u32,
    is_exclusive: bool,
}

impl Lock {
    /// Waits until `f` says that it has changed what is held.
    fn change(&self, f: impl Fn(&mut Held) -> bool) {
        let (held, changed) = self.0.get_or_init(Default::default);
        let mut held = held.lock().unwrap();
        while !f(&mut held) {
            held = changed.wait(held).unwrap();
        }
        drop(held);
        changed.notify_all();
    }
}

// SAFETY: it is taken exclusively only if nobody has it, and shared only if nobody has it exclusively.
unsafe impl RawRwLock for Lock {
    #[allow(clippy::declare_interior_mutable_const, reason = "what a lock begins as")]
    const INIT: Self = Self(OnceLock::new());
    type GuardMarker = GuardSend;

    fn lock_shared(&self) {
        self.change(|held| {
            held.readers += u32::from(!held.is_exclusive);
            !held.is_exclusive
        });
    }

    fn try_lock_shared(&self) -> bool {
        unreachable!("a space waits for its lock")
    }

    unsafe fn unlock_shared(&self) {
        self.change(|held| {
            held.readers -= 1;
            true
        });
    }

    fn lock_exclusive(&self) {
        self.change(|held| {
            let is_free = held.readers == 0 && !held.is_exclusive;
            held.is_exclusive |= is_free;
            is_free
        });
    }

    fn try_lock_exclusive(&self) -> bool {
        unreachable!("a space waits for its lock")
    }

    unsafe fn unlock_exclusive(&self) {
        self.change(|held| {
            held.is_exclusive = false;
            true
        });
    }
}

type Space = AddressSpace<'static, Machine, Lock>;

static RULES: Rules = Rules::new(64);

const RW: u64 = prot::READ | prot::WRITE;
const ANON: u64 = map::PRIVATE | map::ANONYMOUS | map::FIXED;

/// The engine, borrowed for ever, as a thread of loom's wants it, and yet given back.
struct Room(*mut Engine<Machine>);

// SAFETY: an engine is `Sync`, and the pointer is to one on the heap.
unsafe impl Send for Room {}
// SAFETY: as above.
unsafe impl Sync for Room {}

impl Drop for Room {
    fn drop(&mut self) {
        // SAFETY: it came out of a `Box`; the spaces, which borrow it, are dropped before: they come first
        // in `World`.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// A space with one private region over all slots, and a child if there is one.
struct World {
    space: Space,
    child: Mutex<Option<Space>>,
    /// Frames that somebody else has, until the end.
    taken: Mutex<Vec<PhysAddr>>,
    room: Room,
}

impl World {
    fn new(frames: u32) -> Self {
        let engine = Box::new(Engine::new(Machine::new(frames), 0).unwrap());
        let room = Room(Box::into_raw(engine));
        let space = Space::new(mmu(&room), &RULES, Layout::default(), Limits::default());
        let start = page(0).as_u64();
        assert_eq!(space.mmap(start, SLOTS as u64 * PAGE_SIZE, RW, ANON, None), Ok(start));
        Self { space, child: Mutex::new(None), taken: Mutex::new(Vec::new()), room }
    }

    fn fork(&self) -> Space {
        self.space.fork(mmu(&self.room)).unwrap()
    }

    fn machine(&self) -> &Machine {
        // SAFETY: it lives as long as this.
        unsafe { &*self.room.0 }.system()
    }
}

/// The translations of a new space.
fn mmu(room: &Room) -> Mmu<'static, Machine> {
    // SAFETY: it goes after the spaces, and nobody takes them out of their `World`.
    let engine: &'static Engine<Machine> = unsafe { &*room.0 };
    // SAFETY: the table is new, and nobody else has these CPUs.
    unsafe { engine.mmu(Table::default(), Cpus::default()) }
}

/// A part of a model that is one thread's.
type Part = fn(&World);

/// [`explore_within`] of [`PREEMPTIONS`].
fn explore<const N: usize>(before: Part, parts: [Part; N], after: Part) {
    explore_within(PREEMPTIONS, before, parts, after);
}

/// Runs `before`, then `parts` as threads, then `after`, in every execution of that many preemptions.
fn explore_within<const N: usize>(preemptions: usize, before: Part, parts: [Part; N], after: Part) {
    const FRAMES: u32 = 12;
    let mut builder = Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    let executions = Arc::new(Counter::new(0));
    let counter = Arc::clone(&executions);
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        let world = Arc::new(World::new(FRAMES));
        before(&world);
        let threads: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let world = Arc::clone(&world);
                thread::spawn(move || part(&world))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        after(&world);
        for pa in world.taken.lock().unwrap().drain(..) {
            // SAFETY: a share that a part let go of, once.
            drop(unsafe { Page::from_pa(world.machine(), pa) });
        }
        let ram = world.machine().ram.clone();
        drop(Arc::into_inner(world).expect("no thread has it any more"));
        assert_eq!(ram.count_free(), FRAMES, "every frame is back");
    });
    std::eprintln!("{} executions", executions.load(Relaxed));
}
