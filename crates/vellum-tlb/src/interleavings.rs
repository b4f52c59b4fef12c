//! loom models: a few steps of two or three CPUs, in every order that matters.
//!
//! ```text
//!   switches   switch to a space beside a flush of it; coming back from a kernel thread; the end of
//!              a space that is borrowed; coming online beside a flush of the kernel's half
//!   shooters   two CPUs that flush at each other; three, of which one has a queue that is full
//!   rollover   the last identifier taken beside a switch without a lock
//! ```
//!
//! Each CPU is a thread with a TLB of its own, which caches whatever it can as early as it can and
//! forgets only what it is told to ([`Me`]). Page tables are words, read relaxed, as a walker does.
//! Frames and nodes are cells that loom watches: who uses one through a translation reads it, who
//! frees it writes it. So a use that is not ordered before the free fails, wherever it happened.
//!
//! A CPU serves where a model says, and in the end leaves the space, so that nobody waits for ever.
//! That an interrupt is under way whenever somebody would wait without one is a model of its own.
//!
//! # What they see
//!
//! Each of these was done to the code by hand once, and failed at the model named (and mostly at
//! others):
//!
//! | left out or turned round | seen by |
//! |---|---|
//! | `switch`: not in the mask, or after the generation is read; either not `SeqCst` | `a_switch_beside_…` |
//! | `switch`: not *switching* first; that store not `SeqCst` | `a_lazy_cpu_…` |
//! | `start`: mask read before the generation goes up; either not `SeqCst` | `a_switch_beside_…` |
//! | *switching* not waited for; `loaded` read relaxed | `two_cpus_…`, `a_request_…` |
//! | `end_switch`: `seen` after `loaded`, or one of them relaxed | `what_was_seen_…` |
//! | `seen` stored relaxed after a flush, or read relaxed | `a_request_…`, `two_flushes_…` |
//! | lazy CPUs skipped when nodes go | `a_node_…` |
//! | `lazy`, `leave`: relaxed | `a_lazy_cpu_…`, `two_cpus_…` |
//! | an inbox said to be empty after its queue is, or without a swap; said to hold something before it does | `who_waits_…` |
//! | `Global`: `active` stored without comparing, or not taken out by a rollover; what was active not reserved | `a_switch_beside_a_rollover_…` |
//! | `online`: look, then be seen | `a_cpu_that_comes_online_…` |
//! | `serve`: in the midst of a switch, not put off; `switch`: does not serve at its end | `a_request_that_is_served_…` |
//! | `retire`: a borrower says that it has left, and has not | `a_space_is_retired_…` |
//!
//! Not seen is an acquire in place of `SeqCst` where `loaded` is read (`Cpu::has`): the load of the mask
//! before it brings the same fence, and the proof in `shootdown.rs` has to do. Nor is a rollover that
//! makes no CPU owe a flush, or a tag that is stored relaxed, so that a CPU may miss that it owes one:
//! [`Recent`](crate::Recent) notices each identifier that changes hands by itself. That flush is asked for
//! by `asid::tests`.
//!
//! # How much they see
//!
//! loom explores the executions with at most [`PREEMPTIONS`] (or `LOOM_MAX_PREEMPTIONS`) switches away
//! from a thread that could go on, with all the values that loads may see on weakly ordered machines, and
//! each model twice, since `SeqCst` is made of fences (`sync/modelled.rs`). The queue between CPUs is a
//! model too (`shootdown/request.rs`), with room for one request.

mod rollover;
mod shooters;
mod switches;

use crate::sync::{AtomicU64, Weight, weigh};
use crate::{Interrupts, Local, Reach, Shootdown, Slots, Space, Stale, Tags};
use core::cell::RefCell;
use core::sync::atomic::AtomicU64 as Counter;
use core::sync::atomic::Ordering::{AcqRel, Relaxed};
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::thread;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use vellum_core::{Asid, Attr, Flush, Invalidate, Scope, VirtAddr};

/// Switches away from a thread that could go on, in one execution.
const PREEMPTIONS: usize = 2;

/// Runs `model` in every execution with at most [`PREEMPTIONS`].
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    for weight in [Weight::Stores, Weight::Loads] {
        weigh(weight);
        let mut builder = Builder::new();
        builder.max_branches = 20_000;
        builder.preemption_bound = builder.preemption_bound.or(Some(PREEMPTIONS));
        let executions = Arc::new(Counter::new(0));
        let (counter, model) = (Arc::clone(&executions), Arc::clone(&model));
        builder.check(move || {
            counter.fetch_add(1, Relaxed);
            model();
        });
        std::eprintln!("{weight:?}: {} executions", executions.load(Relaxed));
    }
}

/// What a CPU is, beside what the protocol knows of it.
#[derive(Default)]
struct Me {
    number: usize,
    /// The tag of the root that is loaded, if that belongs to a space.
    loaded: Option<Asid>,
    /// Frames, by tag and page.
    tlb: BTreeMap<(Asid, usize), usize>,
}

loom::thread_local! {
    static ME: RefCell<Me> = RefCell::default();
}

fn me<R>(f: impl FnOnce(&mut Me) -> R) -> R {
    ME.with(|me| f(&mut me.borrow_mut()))
}

fn become_cpu(number: usize) {
    me(|me| me.number = number);
}

/// The interrupts that are under way, a bit for each CPU.
#[derive(Debug)]
struct Board(AtomicU64);

impl Board {
    /// Whether CPU `number` is interrupted, which it is not any more then.
    fn take(&self, number: usize) -> bool {
        self.0.fetch_and(!(1 << number), AcqRel) >> number & 1 == 1
    }
}

// SAFETY: each thread has one number, and interrupts are taken where a model says.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Interrupts for Board {
    fn masked<R>(&self, f: impl FnOnce(usize) -> R) -> R {
        let number = me(|me| me.number);
        f(number)
    }

    fn send(&self, cpus: &crate::CpuSet) {
        self.0.fetch_or(cpus.words()[0], AcqRel);
    }

    fn relax(&self) {
        thread::yield_now();
    }
}

#[derive(Debug)]
struct Machine;

fn page_of(page: usize) -> VirtAddr {
    VirtAddr::new((page as u64) << 12)
}

// SAFETY: forgets what it is asked to.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Local for Machine {
    const CACHES_ABSENCE: bool = false;

    fn flush_ranges(&self, reach: Reach, flushes: &[Flush]) {
        let covers = |page| flushes.iter().any(|flush| flush.covers(page_of(page)));
        me(|me| {
            me.tlb.retain(|&(tag, page), _| match reach {
                Reach::Space(tags) => tag != tags.kernel || !covers(page),
                Reach::Every => !covers(page),
            });
        });
    }

    fn flush_space(&self, tags: Tags) {
        me(|me| me.tlb.retain(|&(tag, _), _| tag != tags.kernel));
    }

    fn flush_all(&self) {
        me(|me| me.tlb.clear());
    }

    fn leave(&self) {
        me(|me| me.loaded = None);
    }
}

const PAGES: usize = 2;

/// One space of two pages, each with a frame at first: page n has frame n.
struct World {
    shootdown: Shootdown<Board, Machine, 3>,
    space: Space,
    /// 1 if the page is mapped.
    table: [AtomicU64; PAGES],
    frames: [UnsafeCell<()>; PAGES],
}

impl World {
    fn new() -> Rc<Self> {
        // SAFETY: the models keep to it.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        let shootdown = unsafe { Shootdown::new(Board(AtomicU64::new(0)), Machine) };
        let space = shootdown.new_space();
        Rc::new(Self {
            space,
            shootdown,
            table: core::array::from_fn(|_| AtomicU64::new(1)),
            frames: core::array::from_fn(|_| UnsafeCell::new(())),
        })
    }

    /// Runs `f` on CPU `number`, beside the caller.
    fn beside(self: &Rc<Self>, number: usize, f: impl FnOnce(&Self) + 'static) -> Joined {
        let world = Rc::clone(self);
        thread::spawn(move || {
            become_cpu(number);
            f(&world);
        })
    }

    /// The space was loaded here before, and all of it was cached; then it was left.
    fn was_here(&self) -> Slots {
        let mut slots = Slots::new(4, false);
        self.enter(&mut slots, None);
        self.look();
        self.leave();
        slots
    }

    fn enter(&self, slots: &mut Slots, from: Option<&Space>) {
        let load = |turn| {
            let load = slots.load(turn);
            if load.stale != Stale::Nothing {
                Machine.flush_space(load.tags);
            }
            me(|me| me.loaded = Some(load.tags.kernel));
            load.tags
        };
        // SAFETY: `load` does what it must; the models pass what is loaded.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        unsafe {
            self.shootdown.switch(from, &self.space, load);
        }
    }

    fn leave(&self) {
        // SAFETY: the root is left; each model has just this space.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        unsafe {
            self.shootdown.leave(&self.space, || Machine.leave());
        }
    }

    fn lazy(&self) {
        // SAFETY: models use nothing before they enter again.
        #[allow(unsafe_code, reason = "calls an unsafe function")]
        unsafe {
            self.shootdown.lazy();
        }
    }

    /// Caches what can be cached, as a processor may at any time.
    fn look(&self) {
        let Some(tag) = me(|me| me.loaded) else { return };
        for page in 0..PAGES {
            let cached = me(|me| me.tlb.contains_key(&(tag, page)));
            if !cached && self.table[page].load(Relaxed) == 1 {
                me(|me| me.tlb.insert((tag, page), page));
            }
        }
    }

    /// Uses each page that is mapped, as this CPU believes.
    fn touch(&self) {
        self.look();
        let Some(tag) = me(|me| me.loaded) else { return };
        for page in 0..PAGES {
            if me(|me| me.tlb.contains_key(&(tag, page))) {
                self.frames[page].with(drop);
            }
        }
    }

    fn unlink(&self, page: usize) -> Flush {
        self.table[page].store(0, Relaxed);
        Flush::new(page_of(page), 4096, 12, Attr::RW)
    }

    fn free(&self, page: usize) {
        self.frames[page].with_mut(drop);
    }

    /// Unmaps a page, and frees its frame.
    fn unmap(&self, page: usize, scope: Scope) {
        let flush = self.unlink(page);
        self.shootdown.of(&self.space).flush(&[flush.with_scope(scope)]);
        self.free(page);
    }
}

type Joined = thread::JoinHandle<()>;
