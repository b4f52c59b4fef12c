//! [`Flusher`]: the sender's side, at once or in two steps.
//!
//! ```text
//!   flush(ranges)  =  start(ranges)  +  wait
//!                        |               |
//!                        |               until each CPU has seen it; serves its own queue meanwhile
//!                        posts, interrupts, flushes here; returns a Pending
//! ```
//!
//! Two CPUs that flush at each other with interrupts off both wait, and both serve: neither is stuck.
//! Three things would be: to wait inside [`switch`](super::Shootdown::switch), or with a lock held that
//! others wait for with interrupts off, or for a CPU that is off but was not said to be.

use super::cpu::Cpu;
use super::request::{Plan, Request};
use super::{CpuSet, Interrupts, Local, Shootdown, Space};
use crate::asid::SpaceId;
use core::fmt;
use core::sync::atomic::Ordering::SeqCst;
use vellum_core::{Flush, Invalidate};

impl<I: Interrupts<WORDS>, L: Local, const CPUS: usize, const WORDS: usize>
    Shootdown<I, L, CPUS, WORDS>
{
    /// Flushes `space`, on all CPUs that have it.
    pub const fn of<'a>(&'a self, space: &'a Space<WORDS>) -> Flusher<'a, I, L, CPUS, WORDS> {
        Flusher { shootdown: self, space: Some(space) }
    }

    /// Flushes what every space shares, on all CPUs that are online: the kernel's half.
    pub const fn every(&self) -> Flusher<'_, I, L, CPUS, WORDS> {
        Flusher { shootdown: self, space: None }
    }

    pub(super) fn among(&self, cpus: CpuSet<WORDS>) -> impl Iterator<Item = (usize, &Cpu)> {
        cpus.iter().filter_map(|index| Some((index, self.cpus.get(index)?)))
    }

    fn start<'a>(
        &'a self,
        space: Option<&Space<WORDS>>,
        plan: Plan<'_>,
    ) -> Pending<'a, I, L, CPUS, WORDS> {
        self.interrupts.masked(|own| {
            // The order of the next two lines is half of the proof.
            let (generation, mut targets) = match space {
                Some(space) => {
                    let before = space.generation.fetch_add(1, SeqCst);
                    (before + 1, space.cpus.load(SeqCst))
                }
                None => (self.every.fetch_add(1, SeqCst) + 1, self.online.load(SeqCst)),
            };
            targets.remove(own);
            let mut pending = Pending {
                shootdown: self,
                space: space.map(Space::id),
                generation,
                tables: plan.tables,
                waiting: targets,
                floods: CpuSet::EMPTY,
                ticket: None,
            };
            if !targets.is_empty() {
                pending.post(plan);
            }
            match plan.as_given() {
                Some(ranges) => self.flush_own(own, &pending, Some(ranges)),
                None => self.flush_own(own, &pending, plan.what().ranges()),
            }
            pending
        })
    }

    fn flush_own(
        &self,
        own: usize,
        pending: &Pending<'_, I, L, CPUS, WORDS>,
        ranges: Option<&[Flush]>,
    ) {
        let (local, generation) = (&self.local, pending.generation);
        match (self.cpus.get(own), pending.space) {
            (Some(cpu), Some(space)) => cpu.flush_space(local, space, generation, ranges),
            (Some(cpu), None) => cpu.flush_every(local, generation, ranges),
            (None, _) => local.flush_all(),
        }
    }
}

/// Flushes of one space, or of what all share: what a [`Batch`](vellum_core::Batch) flushes with.
pub struct Flusher<'a, I, L, const CPUS: usize, const WORDS: usize = 1> {
    shootdown: &'a Shootdown<I, L, CPUS, WORDS>,
    space: Option<&'a Space<WORDS>>,
}

impl<'a, I: Interrupts<WORDS>, L: Local, const CPUS: usize, const WORDS: usize>
    Flusher<'a, I, L, CPUS, WORDS>
{
    /// Begins a flush, so that something else can be done until the other CPUs are ready. Only
    /// when [`Pending::wait`] has returned is what [`Invalidate::flush`] promises true.
    pub fn start(&self, flushes: &[Flush]) -> Pending<'a, I, L, CPUS, WORDS> {
        let plan = Plan::new(flushes, self.shootdown.ceiling(), L::CACHES_ABSENCE);
        let Some(plan) = plan else { return Pending::nothing(self.shootdown) };
        // Global translations are in the TLB of any CPU, whatever it runs now.
        self.shootdown.start(self.space.filter(|_| !plan.global), plan)
    }
}

// SAFETY: `wait` returns when each CPU that was in the mask after the generation went up has
// acknowledged it, or has not had the space loaded or in use since (`Cpu::has_seen`, and the proof in
// `shootdown.rs`). Who was not in the mask, or was found without the space, compares generations
// before it uses it again (the contract of `Shootdown::switch`), and forgets what it must. This CPU has
// done so itself, in `start`. An acknowledgment follows the local flush, whose contract (`Local`) is
// the one here, for this CPU; it is a release, and `wait` acquires it, so that stores made through old
// translations are visible. Global ranges concern the mask `online`, in which all are that use such
// translations (the contract of `Shootdown::new`). `Plan` drops only flushes of fresh mappings, and
// only where the processor needs none.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<I: Interrupts<WORDS>, L: Local, const CPUS: usize, const WORDS: usize> Invalidate
    for Flusher<'_, I, L, CPUS, WORDS>
{
    fn flush(&self, flushes: &[Flush]) {
        self.start(flushes).wait();
    }
}

impl<I, L, const CPUS: usize, const WORDS: usize> Clone for Flusher<'_, I, L, CPUS, WORDS> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<I, L, const CPUS: usize, const WORDS: usize> Copy for Flusher<'_, I, L, CPUS, WORDS> {}

impl<I, L, const CPUS: usize, const WORDS: usize> fmt::Debug for Flusher<'_, I, L, CPUS, WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flusher").field("space", &self.space).finish_non_exhaustive()
    }
}

/// A flush that other CPUs are busy with.
///
/// Dropping it is harmless by itself: the flush goes on. But then nobody knows when it is done, so
/// that what it is about can never be freed.
#[must_use = "nothing may be freed before `wait` has returned"]
pub struct Pending<'a, I, L, const CPUS: usize, const WORDS: usize = 1> {
    shootdown: &'a Shootdown<I, L, CPUS, WORDS>,
    space: Option<SpaceId>,
    generation: u64,
    tables: bool,
    waiting: CpuSet<WORDS>,
    /// Those of them that had no room, and will flush everything.
    floods: CpuSet<WORDS>,
    /// The one of them that is waited for now, and how many floods it has to serve.
    ticket: Option<(usize, u64)>,
}

impl<'a, I: Interrupts<WORDS>, L: Local, const CPUS: usize, const WORDS: usize>
    Pending<'a, I, L, CPUS, WORDS>
{
    fn nothing(shootdown: &'a Shootdown<I, L, CPUS, WORDS>) -> Self {
        let none = CpuSet::EMPTY;
        let (waiting, floods) = (none, none);
        Self { shootdown, space: None, generation: 0, tables: false, waiting, floods, ticket: None }
    }

    /// Leaves the request with each CPU that needs it, and interrupts them all at once.
    #[cold]
    fn post(&mut self, plan: Plan<'_>) {
        let (space, generation) = (self.space, self.generation);
        let request = Request { space, generation, what: plan.what() };
        let mut interrupts = CpuSet::EMPTY;
        for (index, cpu) in self.shootdown.among(self.waiting) {
            if self.has_seen(index, cpu) {
                self.waiting.remove(index);
                continue;
            }
            let posted = cpu.post(request);
            if posted.flood {
                self.floods.insert(index);
            }
            if posted.interrupt {
                interrupts.insert(index);
            }
        }
        if !interrupts.is_empty() {
            self.shootdown.interrupts.send(&interrupts);
        }
    }

    fn has_seen(&self, index: usize, cpu: &Cpu) -> bool {
        match self.space {
            Some(space) => cpu.has_seen(space, self.generation, self.tables),
            None => {
                cpu.has_seen_every(self.generation)
                    || !self.shootdown.online.contains(index, SeqCst)
            }
        }
    }

    /// Whether all CPUs are done; does not wait, nor serve this CPU's own queue.
    #[must_use]
    pub fn poll(&mut self) -> bool {
        while let Some((index, cpu)) = self.shootdown.among(self.waiting).next() {
            if !self.has_seen(index, cpu) && !self.is_served(index, cpu) {
                return false;
            }
            self.waiting.remove(index);
        }
        true
    }

    /// Whether a CPU that had no room has flushed everything since.
    fn is_served(&mut self, index: usize, cpu: &Cpu) -> bool {
        if !self.floods.contains(index) {
            return false;
        }
        // Other floods may have come after ours: what is asked now is enough, if it is asked once.
        let floods = match self.ticket {
            Some((same, floods)) if same == index => floods,
            _ => cpu.floods(),
        };
        self.ticket = Some((index, floods));
        cpu.has_served(floods)
    }

    /// Waits until no CPU uses what was flushed. Does what other CPUs ask of this one meanwhile.
    pub fn wait(mut self) {
        while !self.poll() {
            self.shootdown.relax();
        }
    }
}

impl<I, L, const CPUS: usize, const WORDS: usize> fmt::Debug for Pending<'_, I, L, CPUS, WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("space", &self.space)
            .field("generation", &self.generation)
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}
