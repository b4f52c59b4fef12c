//! A model of every TLB that there could be, which shows each flush that is missing.
//!
//! ```text
//!   table --obligation--> Watch --> Batch --flush--> Checker: what is covered is forgotten, what
//!                           |         |                       the table says now cached at once
//!                           | look    | deliver
//!                           v         v
//!   at each point    leaves    every translation that the table had since a flush covered it
//!   (a page)         links     every interior entry on the way, and the node that it leads to
//!                    absences  that there was nothing, where processors remember that
//! ```
//!
//! A processor may walk at any time, of its own accord, and keep what it finds for as long as it
//! likes. Which of it a real one keeps is luck; so nothing is drawn by lot here. The checker holds
//! *all* that could be cached, at some points: pages whose neighbours are treated alike, such as the
//! first and the last of every range that a test uses. One CPU stands for all that there could be;
//! or there are [several](Checker::with_cpus), each with what it has cached itself, and a protocol
//! between them that brings the flushes to those that need them.
//!
//! The table is looked at between operations, and through [`Hardware`], if there is one, at every
//! call of the gather and before and after every flush: then a flush that comes before the store
//! that it is for is seen as well.
//!
//! It stands here and not beside the other models of vellum-tlb, as it needs nothing but the seams
//! of vellum-core and an [`Arena`], and the conformance suite of every design drives it.
//!
//! # Invariants, of the table, which are what is checked
//!
//! - What may be cached is what the table says now, or a gather owes a flush that covers it.
//! - It may grant less than the table does now: who faults by it forgets that page, and then finds what
//!   the table says. So a right that was given costs one spurious fault at most, on each CPU.
//! - With break-before-make, what the table says and what may still be cached never
//!   [clash](Missed::Together), whatever is owed.
//! - A frame is delivered when no CPU can have the translation any more; a node is freed when none
//!   can have an interior entry that leads to it.
//! - When a space was given up, nothing of it is left.
//!
//! Source: Intel SDM vol. 3A, 5.10 "Caching Translation Information"; Arm ARM DDI 0487, D8.16 "TLB
//! maintenance"; RISC-V Privileged Architecture, "Supervisor Memory-Management Fence Instruction".

mod cached;
mod cpu;
mod missed;
mod sabotage;
mod watch;

#[cfg(test)]
mod tests;

use crate::Arena;
use cached::{Point, Rules, denies};
use core::cell::{Ref as Borrowed, RefCell};
use core::fmt;
use vellum_core::{
    Attr, Canonical, Flush, Gone, Invalidate, PageTable, Reap, Ref, Run, Scope, Span, VirtAddr,
    Walk,
};

pub use cached::{Absence, Cached, Leaf, Link};
pub use cpu::Root;
pub use missed::Missed;
pub use sabotage::{Call, Harmless, Noted, Sabotage};
pub use watch::Watch;

use cpu::Cpu;
use sabotage::Trial;

/// A walk as the processor does it, past the code of the table: of the same memory, from the root.
///
/// It is called while the table is being changed, so it may not use the table itself.
pub type Hardware<'s> = Box<Walking<'s>>;

/// Finds what translates an address, and tells of each entry that it reads.
type Walking<'w> = dyn Fn(VirtAddr, &mut dyn FnMut(Ref)) -> Span + 'w;

/// How an access went, on a CPU that uses of all that it may have cached what grants least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It was done.
    Granted,
    /// It faulted, though the table grants it, and was done when it was tried again.
    Spurious,
    /// It faulted, as the table says that it must.
    Denied,
}

/// What flushes of the gathers go through.
type Protocol<'s> = Box<dyn Fn(&Checker<'s>, &[Flush]) + 's>;

/// The model of all TLBs, for one address space; flushes of its gathers reach it.
pub struct Checker<'s> {
    arena: &'s Arena,
    hardware: Option<Hardware<'s>>,
    protocol: Option<Protocol<'s>>,
    rules: Rules,
    state: RefCell<State>,
}

struct State {
    points: Vec<Point>,
    cpus: Vec<Cpu>,
    /// What is owed, by the number of the gather that owes it.
    pending: Vec<(usize, Flush)>,
    gathers: usize,
    noted: Vec<Noted>,
    sabotage: Option<(usize, Sabotage)>,
    trial: Option<Trial>,
    missed: Option<Missed>,
    /// There is a table, which a CPU may have loaded.
    loaded: bool,
}

impl<'s> Checker<'s> {
    /// A model of what may be cached of `table`, whose nodes are in `arena`, at these points: the
    /// first addresses of smallest pages.
    pub fn new<T: PageTable>(table: &T, arena: &'s Arena, points: &[VirtAddr]) -> Self {
        let checker = Self {
            arena,
            hardware: None,
            protocol: None,
            rules: Rules::of::<T>(table.canonical()),
            state: RefCell::new(State {
                points: points.iter().copied().map(Point::new).collect(),
                cpus: vec![Cpu::new(Root::Active, points.len())],
                pending: Vec::new(),
                gathers: 0,
                noted: Vec::new(),
                sabotage: None,
                trial: None,
                missed: None,
                loaded: true,
            }),
        };
        checker.look_at(table);
        checker
    }

    /// The same, with a walker that sees the table while it is being changed.
    #[must_use]
    pub fn with_hardware(mut self, hardware: Option<Hardware<'s>>) -> Self {
        self.hardware = hardware;
        self
    }

    /// The same, for processors that may remember that an entry which spans 2<sup>page</sup> bytes
    /// was empty, and forget it only by a flush of this scope.
    #[must_use]
    pub fn with_absence(mut self, absence: fn(u8) -> Option<Scope>) -> Self {
        self.rules.absence = absence;
        self
    }

    /// The same, for processors on which entries that clash must never be met together.
    #[must_use]
    pub const fn with_breaks(mut self, breaks: bool) -> Self {
        self.rules.breaks = breaks;
        self
    }

    /// The same, with `count` CPUs that have nothing cached yet, and none of which has the root
    /// loaded. What its gathers flush goes to `protocol`, which is to call [`forget`](Self::forget) for
    /// each CPU that has to.
    #[must_use]
    pub fn with_cpus(mut self, count: usize, protocol: impl Fn(&Self, &[Flush]) + 's) -> Self {
        self.protocol = Some(Box::new(protocol));
        let state = self.state.get_mut();
        state.cpus = vec![Cpu::new(Root::Unloaded, state.points.len()); count];
        self
    }

    /// The same, with one obligation spoilt: the `nth` of all, counted from 0.
    #[must_use]
    pub fn with_sabotage(mut self, nth: usize, sabotage: Sabotage) -> Self {
        self.state.get_mut().sabotage = Some((nth, sabotage));
        self
    }

    /// A live gather with room for `N` items, whose deliveries go to `sink`.
    ///
    /// Give it to operations of the table that this checker was made for, and to no other.
    pub fn gather<'c, D: Reap, const N: usize>(
        &'c self,
        sink: impl FnMut(Gone) + 'c,
    ) -> Watch<'c, 's, D, N> {
        let mut state = self.state.borrow_mut();
        state.gathers += 1;
        Watch::new(self, state.gathers, sink)
    }

    /// Looks whether all that may be cached is right, or a flush of it is owed: after each operation.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong since the checker was made.
    pub fn check<T: Walk>(&self, table: &T) -> Result<(), Missed> {
        match &self.hardware {
            Some(_) => self.look(),
            None => self.look_at(table),
        }
        self.judge()
    }

    /// From here on, this is what CPU `cpu` has to do with the root. What it held before it holds still:
    /// a tag may keep that.
    pub fn set_root(&self, cpu: usize, root: Root) {
        self.look();
        let state = &mut *self.state.borrow_mut();
        state.cpus[cpu].root = root;
        state.see(&self.rules);
    }

    /// CPU `cpu` forgets what these flushes reach, and may cache again at once what the table says.
    pub fn forget(&self, cpu: usize, flushes: &[Flush]) {
        self.forgetting(|cpus, points| cpus[cpu].forget(points, &self.rules, flushes));
    }

    /// CPU `cpu` forgets all of the space; but for what is global, unless that is meant as well.
    pub fn forget_all(&self, cpu: usize, global: bool) {
        self.forgetting(|cpus, _| cpus[cpu].forget_all(global));
    }

    /// Whether CPU `cpu` may have something cached that is not global.
    pub fn holds_own(&self, cpu: usize) -> bool {
        let is_own = |cached| !matches!(cached, Cached::Leaf(l) if l.attr.contains(Attr::GLOBAL));
        self.state.borrow().cpus[cpu].held().any(|(_, cached)| is_own(cached))
    }

    /// CPU `cpu` makes an access to a point, with whatever it may have cached that grants least. If
    /// that faults, it forgets the page and, if the table grants the access, tries again.
    ///
    /// # Errors
    ///
    /// [`Missed::Stuck`] if that faults as well; or the first thing that went wrong before.
    ///
    /// # Panics
    ///
    /// If `va` is none of the points.
    pub fn access<T: Walk>(
        &self,
        cpu: usize,
        (va, need): (VirtAddr, Attr),
        table: &T,
    ) -> Result<Access, Missed> {
        self.check(table)?;
        let state = &mut *self.state.borrow_mut();
        let at = state.points.iter().position(|point| point.va == va).expect("a point");
        let State { points, cpus, missed, .. } = state;
        let (point, cpu) = (&points[at], &mut cpus[cpu]);
        let denying = |cpu: &Cpu| cpu.held_at(at).iter().copied().find(|c| denies(c, need));
        let grants = point.now.is_some_and(|leaf| leaf.attr.contains(need));
        if grants && denying(cpu).is_none() {
            return Ok(Access::Granted);
        }
        cpu.forget(points, &self.rules, &[self.rules.fault(point)]);
        let again = cpu.see(points, &self.rules);
        let stuck = denying(cpu).filter(|_| grants).map(|cached| Missed::Stuck { va, cached });
        if let Some(wrong) = again.err().or(stuck) {
            return Err(*missed.get_or_insert(wrong));
        }
        Ok(if grants { Access::Spurious } else { Access::Denied })
    }

    /// No CPU has the root loaded from here on: nothing more is cached, and everything that is has
    /// to go. To be called before the table is retired.
    pub fn unload(&self) {
        let state = &mut *self.state.borrow_mut();
        state.loaded = false;
        state.points.iter_mut().for_each(Point::see_nothing);
    }

    /// The same as [`check`](Self::check) when there is no table any more.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong since the checker was made.
    pub fn check_unloaded(&self) -> Result<(), Missed> {
        self.unload();
        self.judge()
    }

    /// Looks that nothing is left of a space that was retired, its last gather finished.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong since the checker was made.
    pub fn finish(&self) -> Result<(), Missed> {
        let state = &mut *self.state.borrow_mut();
        state.note_freed_nodes(self.arena);
        let left = state.cpus.iter().flat_map(Cpu::held).find(|(_, cached)| !cached.is_absence());
        if let Some((i, cached)) = left {
            state.missed.get_or_insert(Missed::Left { va: state.points[i].va, cached });
        }
        state.missed.map_or(Ok(()), Err)
    }

    /// Whether there are interior entries that a CPU could have cached.
    pub fn has_links(&self) -> bool {
        let is_link = |cached| matches!(cached, Cached::Link(_));
        self.state.borrow().points.iter().flat_map(Point::seen).any(is_link)
    }

    /// What was owed so far, in order.
    pub fn noted(&self) -> Borrowed<'_, [Noted]> {
        Borrowed::map(self.state.borrow(), |state| &*state.noted)
    }

    /// Why the spoilt obligation did no harm, as far as the check after it could tell; `None` if it
    /// did, or if there was none.
    pub fn harmless(&self) -> Option<Harmless> {
        self.state.borrow().trial.as_ref()?.verdict
    }

    /// log2 of the smallest page.
    fn base(&self) -> u8 {
        self.rules.base
    }

    /// Looks at the table through hardware, if there is any.
    fn look(&self) {
        if let Some(hardware) = &self.hardware {
            self.look_by(hardware);
        }
    }

    fn look_at<T: Walk>(&self, table: &T) {
        self.look_by(&|va, sink| {
            table.walk(va, &mut |r| sink(r)).unwrap_or_else(|e| panic!("a point: {e}"))
        });
    }

    fn look_by(&self, walk: &Walking<'_>) {
        let state = &mut *self.state.borrow_mut();
        if !state.loaded {
            return;
        }
        let mut path = Vec::new();
        for point in &mut state.points {
            path.clear();
            let span = walk(point.va, &mut |r| path.push(r));
            point.see(span, &path, &self.rules, self.arena);
        }
        state.see(&self.rules);
    }

    /// Looks, lets CPUs forget something, and, where a walker looks on, lets them cache again at once
    /// what the table says; without one, that is looked up between operations.
    fn forgetting(&self, forget: impl FnOnce(&mut [Cpu], &[Point])) {
        self.look();
        let state = &mut *self.state.borrow_mut();
        state.note_freed_nodes(self.arena);
        forget(&mut state.cpus, &state.points);
        if self.hardware.is_some() {
            state.see(&self.rules);
        }
    }

    fn judge(&self) -> Result<(), Missed> {
        let state = &mut *self.state.borrow_mut();
        state.note_freed_nodes(self.arena);
        let State { points, cpus, pending, missed, trial, .. } = state;
        let is_owed = |point: &Point, cached: &Cached| {
            pending.iter().any(|(_, flush)| self.rules.forgets(point, cached, *flush))
        };
        for (i, point) in points.iter().enumerate() {
            let (va, now) = (point.va, point.now);
            for cached in cpus.iter().flat_map(|cpu| cpu.used_at(i)) {
                if point.is_wrong(&cached) {
                    if !is_owed(point, &cached) {
                        missed.get_or_insert(Missed::Unowed { va, cached, now });
                    }
                } else if now.is_some_and(|now| denies(&cached, now.attr & Attr::RWX))
                    && !self.rules.forgets(point, &cached, self.rules.fault(point))
                {
                    missed.get_or_insert(Missed::Stuck { va, cached });
                }
            }
        }
        if let Some(trial) = trial.as_mut().filter(|_| missed.is_none()) {
            trial.judge(points, cpus, is_owed);
        }
        missed.map_or(Ok(()), Err)
    }

    /// A run has come out of a gather: nobody may have its translations.
    fn deliver(&self, run: &Run) {
        let State { points, cpus, missed, .. } = &mut *self.state.borrow_mut();
        for (i, point) in points.iter().enumerate() {
            let va = point.va;
            let Some(offset) = va.checked_sub(run.va).filter(|&at| at < run.len) else { continue };
            let pa = run.pa.wrapping_add(offset);
            let has_frame = |cached: &Cached| matches!(cached, Cached::Leaf(l) if l.pa == pa);
            if let Some(cached) = cpus.iter().flat_map(|cpu| cpu.used_at(i)).find(has_frame) {
                missed.get_or_insert(Missed::FrameInUse { va, cached });
            }
        }
    }

    /// Notes an obligation of gather number `gather`; what is left of it.
    fn note(&self, gather: usize, call: Call, flush: Flush) -> Option<Flush> {
        self.look();
        let base = self.base();
        let state = &mut *self.state.borrow_mut();
        let mut kept = Some(flush);
        match state.sabotage {
            Some((nth, sabotage)) if nth == state.noted.len() => {
                kept = sabotage.spoil(flush, base).unwrap_or(kept);
                state.trial =
                    Some(Trial::new(&state.points, &state.cpus, &self.rules, flush, kept));
            }
            _ => {}
        }
        state.noted.push(Noted { call, flush });
        state.pending.extend(kept.map(|flush| (gather, flush)));
        kept
    }

    /// Gather number `gather` owes nothing any more.
    fn settled(&self, gather: usize) {
        self.state.borrow_mut().pending.retain(|&(owes, _)| owes != gather);
    }
}

impl State {
    /// All CPUs that may cache what the table says.
    fn see(&mut self, rules: &Rules) {
        if !self.loaded {
            return;
        }
        for cpu in &mut self.cpus {
            if let Err(clash) = cpu.see(&self.points, rules) {
                self.missed.get_or_insert(clash);
            }
        }
    }

    fn note_freed_nodes(&mut self, arena: &Arena) {
        for cpu in &self.cpus {
            if let Err(missed) = cpu.freed_node(&self.points, arena) {
                self.missed.get_or_insert(missed);
            }
        }
    }
}

// SAFETY: no CPU walks the table; the model of one forgets here what the contract says that it must.
unsafe impl Invalidate for Checker<'_> {
    fn flush(&self, flushes: &[Flush]) {
        match &self.protocol {
            Some(protocol) => protocol(self, flushes),
            None => self.forget(0, flushes),
        }
    }
}

impl fmt::Debug for Checker<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("Checker")
            .field("points", &state.points.len())
            .field("pending", &state.pending)
            .field("missed", &state.missed)
            .finish_non_exhaustive()
    }
}

/// The half of all addresses that `va` is in: what a root translates of it.
fn half_of(canonical: Canonical, va: VirtAddr) -> (VirtAddr, VirtAddr) {
    let [(low, len), (high, _)] = canonical.halves();
    let first = if va < high { low } else { high };
    (first, first.wrapping_add(len - 1))
}
