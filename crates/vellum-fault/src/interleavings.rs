//! loom models: a few faults of two CPUs, in every order that matters.
//!
//! ```text
//!   pages    two CPUs at one page: new, read before, shared with a child, of two spaces; a space that goes
//!   files    faults beside a truncation, beside storing and dropping; a private copy; fault-around
//!   swap     two CPUs at a page that is out, in one space and in two; a page that goes out
//! ```
//!
//! A page is one word, and a store adds to it, so that of several all are seen. CPUs keep translations
//! until they are flushed (`modelled::Cpu`), and a frame is used by nobody who does not come after its last
//! owner (`modelled::Ram`). At the end of each execution every record says what the tables say, every
//! counter too, and once all spaces are gone all frames and places in swap are back.
//!
//! # What they see
//!
//! Each of these was done to the code by hand once, and failed at the model named (and at others):
//!
//! | left out or turned round | seen by |
//! |---|---|
//! | `Page::found` giving a share back that it never had | `a_frame_that_was_freed_…` |
//! | the second look before a copy, or before its share; `try_get` relaxed | `a_frame_that_was_freed_…` |
//! | a copy writable at once | `who_hears_of_a_store_to_a_copy_…` |
//! | an owner overlooked by who is alone | `parent_and_child_…`, and five others |
//! | the look at the cache behind a leaf, or behind neighbours; the fence before either | `no_leaf_…`, `no_neighbour_…` |
//! | swapped in without a share of the place | `a_place_that_became_…` |
//! | a page that goes out without losing the right to be written | three of `swap` |
//! | a loser who keeps his share, or stays counted, or mapped | eight |
//! | an exchange without its flush | sixteen |
//! | a leaf's dirty bit forgotten when it goes | `a_store_through_a_mapping_that_goes_…` |
//!
//! Not seen by any, since what comes after makes up for it: a page swapped in without a second look (the
//! exchange compares the entry, whose place cannot be another's while there is a share in it), a record's
//! state cleared behind its count (who finds a frame looks again), and a page of a file that is dirty
//! by its leaf alone at first (the leaf has the bit).
//!
//! # How much they see
//!
//! Executions with at most [`PREEMPTIONS`] or [`FEW`] (or `LOOM_MAX_PREEMPTIONS`) switches away from a thread that
//! could go on. The table is one of four slots (`modelled::Table`): what designs do is theirs to model.

mod files;
mod pages;
mod swap;

use crate::modelled::{Cpu, Cpus, Machine, SLOTS, Table, page};
use crate::{Access, Backing, Engine, FaultError, Marker, Mmu, Region, Rights, RssKind, Sharing};
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicBool, AtomicU64 as Counter, Ordering::Relaxed};
use loom::model::Builder;
use loom::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use loom::thread;
use std::boxed::Box;
use std::sync::Arc;
use std::vec::Vec;
use vellum_cache::Pages;
use vellum_cache::page::State;
use vellum_core::{Attr, Entry, PAGE_SIZE, PhysAddr};
use vellum_frame::sync::AtomicU32;

/// Switches away from a thread that could go on, in one execution.
const PREEMPTIONS: usize = 2;

/// The same in models in which both threads copy a page, of hundreds of thousands of executions else:
/// `LOOM_MAX_PREEMPTIONS=2` has all of them, in some minutes.
const FEW: usize = 1;

/// A parent and its child, or two spaces of strangers.
const SPACES: usize = 2;

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

/// What all threads of a model share.
struct World {
    spaces: [RwLock<Mmu<'static, Machine>>; SPACES],
    /// Whether a part wants a space for itself: others let go of theirs between a fault and the next access
    /// then, which is no step that would matter otherwise.
    has_writers: AtomicBool,
    /// What one program tells another, in memory that no model is about.
    told: AtomicU32,
    engine: Room,
}

/// A private anonymous region of all pages.
const ANON: Region = Region {
    start: page(0),
    len: SLOTS as u64 * PAGE_SIZE,
    rights: Rights::RW,
    backing: Backing::Anon,
    sharing: Sharing::Private,
    index: 0,
    family: 7,
    huge: false,
    around: 1,
};

impl World {
    fn new(frames: u32) -> Self {
        let engine = Box::new(Engine::new(Machine::new(frames), 0).unwrap());
        let engine = Room(Box::into_raw(engine));
        // SAFETY: `engine` goes after the spaces, and nobody takes them out of here.
        let lent: &'static Engine<Machine> = unsafe { &*engine.0 };
        // SAFETY: the table is new, and only those CPUs use it that have this handle.
        let space = |_| RwLock::new(unsafe { lent.mmu(Table::default(), Cpus::default()) });
        Self {
            spaces: core::array::from_fn(space),
            has_writers: AtomicBool::new(false),
            told: AtomicU32::new(0),
            engine,
        }
    }

    fn engine(&self) -> &Engine<Machine> {
        // SAFETY: it lives as long as this.
        unsafe { &*self.engine.0 }
    }

    fn machine(&self) -> &Machine {
        self.engine().system()
    }

    /// A space, as faults have it.
    fn space(&self, n: usize) -> RwLockReadGuard<'_, Mmu<'static, Machine>> {
        self.spaces[n].read().unwrap()
    }

    /// A space for oneself. Who wants one in a thread says so before ([`Self::has_writers`]).
    fn own(&self, n: usize) -> RwLockWriteGuard<'_, Mmu<'static, Machine>> {
        self.spaces[n].write().unwrap()
    }

    /// Gives space 1 what space 0 has.
    fn fork(&self) {
        let (mut parent, mut child) = (self.own(0), self.own(1));
        parent.copy_to(&mut child, &ANON).unwrap();
    }

    /// Adds `value` to page `n` of a space, as a program does: faults until it may.
    fn store(&self, cpu: &mut Cpu, region: &Region, (space, n): (usize, u64), value: u64) {
        self.try_store(cpu, region, (space, n), value).unwrap();
    }

    /// The same, or what comes of it.
    fn try_store(
        &self,
        cpu: &mut Cpu,
        region: &Region,
        (space, n): (usize, u64),
        value: u64,
    ) -> Result<(), FaultError> {
        let add = |pa| self.machine().ram.add(pa, value);
        self.access(cpu, region, (space, n), (Access::Write, Attr::WRITE), add)
    }

    /// What a program reads at page `n` of a space, or what comes of it.
    fn try_load(
        &self,
        cpu: &mut Cpu,
        region: &Region,
        (space, n): (usize, u64),
    ) -> Result<u64, FaultError> {
        let load = |pa| self.machine().ram.load(pa);
        self.access(cpu, region, (space, n), (Access::Read, Attr::READ), load)
    }

    /// Tries and faults, until it is allowed or refused.
    fn access<R>(
        &self,
        cpu: &mut Cpu,
        region: &Region,
        (space, n): (usize, u64),
        (access, need): (Access, Attr),
        f: impl Fn(PhysAddr) -> R,
    ) -> Result<R, FaultError> {
        let mut mmu = self.space(space);
        loop {
            let mut result = None;
            if cpu.access(&mmu, n, need, |pa| result = Some(f(pa))) {
                return Ok(result.expect("it was called"));
            }
            let is_busy = match mmu.fault(region, page(n), access) {
                Ok(_) => false,
                Err(FaultError::Retry) => true,
                Err(error) => return Err(error),
            };
            if is_busy || self.has_writers.load(Relaxed) {
                drop(mmu);
                if is_busy {
                    thread::yield_now();
                }
                mmu = self.space(space);
            }
        }
    }

    fn load(&self, cpu: &mut Cpu, region: &Region, at: (usize, u64)) -> u64 {
        self.try_load(cpu, region, at).unwrap()
    }

    /// Sees that every share, every `maps` and every counter is what the tables say.
    fn audit(&self) {
        let mut leaves = Vec::<PhysAddr>::new();
        for mmu in &self.spaces {
            let mmu = mmu.read().unwrap();
            let mut counts = [0; 4];
            mmu.visit(ANON.start, ANON.len, &mut |span| {
                match span.entry {
                    Entry::Leaf(pa, _) if pa != self.engine().zeros() => {
                        let info = self.machine().info(pa).unwrap();
                        counts[RssKind::of(info.state()) as usize] += 1;
                        leaves.push(pa);
                    }
                    Entry::Soft(soft) if matches!(Marker::of(soft), Some(Marker::Swap(_))) => {
                        counts[RssKind::Swap as usize] += 1;
                    }
                    _ => {}
                }
                ControlFlow::Continue(())
            })
            .unwrap();
            for kind in [RssKind::Anon, RssKind::File, RssKind::Shmem, RssKind::Swap] {
                assert_eq!(mmu.rss().pages(kind), counts[kind as usize], "{kind:?}");
            }
        }
        let mut maps = 0;
        self.machine().each_info(&mut |info| maps += info.maps());
        assert_eq!(maps as usize, leaves.len(), "mappings of what nobody maps");
        for pa in &leaves {
            let info = self.machine().info(*pa).unwrap();
            let here = leaves.iter().filter(|leaf| *leaf == pa).count() as u32;
            let cached = u32::from(info.state().contains(State::CACHED));
            assert_eq!((info.maps(), info.owners()), (here, here + cached), "{pa}: {info:?}");
        }
    }
}

/// A part of a model that is one thread's, on a CPU of its own.
type Part = fn(&World, &mut Cpu);

/// [`explore`], with a part that wants a space for itself.
fn explore_with_writer<const N: usize>(frames: u32, before: Part, parts: [Part; N], after: Part) {
    explore_as(PREEMPTIONS, true, frames, (before, after), parts);
}

/// Runs `before`, then `parts` as threads, then `after`, in every execution, with as many frames besides
/// that of zeros.
fn explore<const N: usize>(frames: u32, before: Part, parts: [Part; N], after: Part) {
    explore_as(PREEMPTIONS, false, frames, (before, after), parts);
}

/// The same with [`FEW`] preemptions.
fn explore_few<const N: usize>(frames: u32, before: Part, parts: [Part; N], after: Part) {
    explore_as(FEW, false, frames, (before, after), parts);
}

fn explore_as<const N: usize>(
    preemptions: usize,
    has_writers: bool,
    frames: u32,
    (before, after): (Part, Part),
    parts: [Part; N],
) {
    let mut builder = Builder::new();
    builder.max_branches = 20_000;
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    let executions = Arc::new(Counter::new(0));
    let counter = Arc::clone(&executions);
    builder.check(move || {
        counter.fetch_add(1, Relaxed);
        let world = Arc::new(World::new(frames + 1));
        world.has_writers.store(has_writers, Relaxed);
        before(&world, &mut Cpu::default());
        let threads: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let world = Arc::clone(&world);
                thread::spawn(move || part(&world, &mut Cpu::default()))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        after(&world, &mut Cpu::default());
        world.audit();
        finish(world, frames + 1);
    });
    std::eprintln!("{} executions", executions.load(Relaxed));
}

/// Sees that everything is given back.
fn finish(world: Arc<World>, frames: u32) {
    let world = Arc::into_inner(world).expect("no thread has it any more");
    let (ram, World { spaces, engine, .. }) = (world.machine().ram.clone(), world);
    drop(spaces);
    // SAFETY: it lives until `engine` is dropped, below.
    let places = unsafe { &*engine.0 }.system().places.count_used();
    assert_eq!(places, 0, "every place in swap is free");
    drop(engine);
    assert_eq!(ram.count_free(), frames, "every frame is back");
}
