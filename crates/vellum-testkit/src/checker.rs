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
//! *all* that could be cached, by any number of CPUs, at some points: pages whose neighbours are
//! treated alike, such as the first and the last of every range that a test uses.
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
//! - A frame is delivered when no CPU can have the translation any more; a node is freed when none
//!   can have an interior entry that leads to it.
//! - When a space was given up, nothing of it is left.
//!
//! Source: Intel SDM vol. 3A, 5.10 "Caching Translation Information"; Arm ARM DDI 0487, D8.16 "TLB
//! maintenance"; RISC-V Privileged Architecture, "Supervisor Memory-Management Fence Instruction".

mod cached;
mod sabotage;
mod watch;

#[cfg(test)]
mod tests;

use crate::Arena;
use cached::{Point, Rules};
use core::cell::{Ref as Borrowed, RefCell};
use core::fmt;
use vellum_core::{
    Canonical, Flush, Gone, Invalidate, PageTable, Reap, Ref, Run, Scope, Span, VirtAddr, Walk,
};

pub use cached::{Absence, Cached, Leaf, Link};
pub use sabotage::{Call, Harmless, Noted, Sabotage};
pub use watch::Watch;

use sabotage::Trial;

/// A walk as the processor does it, past the code of the table: of the same memory, from the root.
///
/// It is called while the table is being changed, so it may not use the table itself.
pub type Hardware<'s> = Box<Walking<'s>>;

/// Finds what translates an address, and tells of each entry that it reads.
type Walking<'w> = dyn Fn(VirtAddr, &mut dyn FnMut(Ref)) -> Span + 'w;

/// The first thing that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// A CPU may use this, the table says something else, and no gather owes a flush for it.
    Unowed {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
        /// What the table translates it to.
        now: Option<Leaf>,
    },
    /// The frame was delivered, and a CPU may still have this translation.
    FrameInUse {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
    },
    /// The node was freed, and a CPU may still have this interior entry, which leads to it.
    NodeInUse {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
    },
    /// The space was given up, and a CPU may still have this.
    Left {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
    },
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unowed { va, cached, now } => {
                write!(
                    f,
                    "{va}: {cached:?} may be cached, the table says {now:?}, no flush is owed"
                )
            }
            Self::FrameInUse { va, cached } => {
                write!(f, "{va}: a frame was delivered while {cached:?} may be cached")
            }
            Self::NodeInUse { va, cached } => {
                write!(f, "{va}: a node was freed while {cached:?} may be cached")
            }
            Self::Left { va, cached } => {
                write!(f, "{va}: {cached:?} may be cached of a space that is no more")
            }
        }
    }
}

impl core::error::Error for Missed {}

/// The model of all TLBs, for one address space; flushes of its gathers reach it.
pub struct Checker<'s> {
    arena: &'s Arena,
    hardware: Option<Hardware<'s>>,
    rules: Rules,
    state: RefCell<State>,
}

struct State {
    points: Vec<Point>,
    /// What is owed, by the number of the gather that owes it.
    pending: Vec<(usize, Flush)>,
    gathers: usize,
    noted: Vec<Noted>,
    sabotage: Option<(usize, Sabotage)>,
    trial: Option<Trial>,
    missed: Option<Missed>,
    /// A CPU may have the root loaded.
    loaded: bool,
}

impl<'s> Checker<'s> {
    /// A model of what may be cached of `table`, whose nodes are in `arena`, at these points: the
    /// first addresses of smallest pages.
    pub fn new<T: PageTable>(table: &T, arena: &'s Arena, points: &[VirtAddr]) -> Self {
        let checker = Self {
            arena,
            hardware: None,
            rules: Rules::of::<T>(table.canonical()),
            state: RefCell::new(State {
                points: points.iter().copied().map(Point::new).collect(),
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
        for point in &state.points {
            if let Some(&cached) = point.cached.iter().find(|cached| !cached.is_absence()) {
                state.missed.get_or_insert(Missed::Left { va: point.va, cached });
            }
        }
        state.missed.map_or(Ok(()), Err)
    }

    /// Whether there are interior entries that a CPU could have cached.
    pub fn has_links(&self) -> bool {
        let is_link = |cached: &Cached| matches!(cached, Cached::Link(_));
        self.state.borrow().points.iter().any(|point| point.cached.iter().any(is_link))
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
        let State { points, loaded: true, .. } = &mut *self.state.borrow_mut() else { return };
        let mut path = Vec::new();
        for point in points {
            path.clear();
            let span = walk(point.va, &mut |r| path.push(r));
            point.see(span, &path, &self.rules, self.arena);
        }
    }

    fn judge(&self) -> Result<(), Missed> {
        let state = &mut *self.state.borrow_mut();
        state.note_freed_nodes(self.arena);
        let State { points, pending, missed, trial, .. } = state;
        let is_owed = |point: &Point, cached: &Cached| {
            pending.iter().any(|(_, flush)| self.rules.forgets(point, cached, *flush))
        };
        for point in &*points {
            for &cached in &point.cached {
                if point.is_wrong(&cached) && !is_owed(point, &cached) {
                    missed.get_or_insert(Missed::Unowed { va: point.va, cached, now: point.now });
                }
            }
        }
        if let Some(trial) = trial.as_mut().filter(|_| missed.is_none()) {
            trial.judge(points, is_owed);
        }
        missed.map_or(Ok(()), Err)
    }

    /// A run has come out of a gather: nobody may have its translations.
    fn deliver(&self, run: &Run) {
        let State { points, missed, .. } = &mut *self.state.borrow_mut();
        for point in points {
            let Some(offset) = point.va.checked_sub(run.va).filter(|&at| at < run.len) else {
                continue;
            };
            let pa = run.pa.wrapping_add(offset);
            let has_frame = |cached: &&Cached| matches!(cached, Cached::Leaf(l) if l.pa == pa);
            if let Some(&cached) = point.cached.iter().find(has_frame) {
                missed.get_or_insert(Missed::FrameInUse { va: point.va, cached });
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
                state.trial = Some(Trial::new(&state.points, &self.rules, flush, kept));
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
    fn note_freed_nodes(&mut self, arena: &Arena) {
        for point in &self.points {
            for &cached in &point.cached {
                let Cached::Link(link) = cached else { continue };
                if arena.times_freed(link.node) != link.freed {
                    self.missed.get_or_insert(Missed::NodeInUse { va: point.va, cached });
                }
            }
        }
    }
}

// SAFETY: no CPU walks the table; the model of one forgets here what the contract says that it must.
unsafe impl Invalidate for Checker<'_> {
    fn flush(&self, flushes: &[Flush]) {
        self.look();
        let state = &mut *self.state.borrow_mut();
        state.note_freed_nodes(self.arena);
        for point in &mut state.points {
            let cached = core::mem::take(&mut point.cached);
            let stays = |cached: &Cached| {
                !flushes.iter().any(|&flush| self.rules.forgets(point, cached, flush))
            };
            point.cached = cached.into_iter().filter(stays).collect();
            // What the table says can be cached again at once; between operations, that is looked up.
            if state.loaded && self.hardware.is_some() {
                point.see_again();
            }
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
