//! What each CPU shows the others, and what they leave at its door.
//!
//! ```text
//!   loaded    0: no space    id << 1: runs it    id << 1 | 1: has it borrowed    all ones: switching
//!   seen      of `loaded`    every_seen   of what concerns every space
//!
//!   pending   1: something is in the inbox, and an interrupt is under way
//!   asked     how often there was no room     served   how many of those are taken care of
//! ```
//!
//! Two cache lines that others read, and the inbox that they write, lie apart.

use super::request::{Queue, Request, What};
use super::{Local, Reach};
use crate::asid::{SpaceId, Tags};
use crate::sync::{AtomicU64, const_fn};
use core::num::NonZeroU64;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use vellum_core::{Asid, Flush};

/// `loaded` between two spaces.
const SWITCHING: u64 = u64::MAX;
/// In `loaded`: this CPU uses no address of the space's own.
const LAZY: u64 = 1;

/// What a CPU has to do with a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Has {
    /// It is loaded, and used.
    Active,
    /// It is loaded, and not used.
    Lazy,
    /// It may be loaded; it will be clear in a moment.
    Unclear,
    /// It is not loaded.
    No,
}

#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Cpu {
    loaded: AtomicU64,
    seen: AtomicU64,
    every_seen: AtomicU64,
    served: AtomicU64,
    tags: AtomicU64,
    inbox: Inbox,
}

#[derive(Debug)]
#[repr(align(128))]
struct Inbox {
    pending: AtomicU64,
    asked: AtomicU64,
    queue: Queue,
}

/// How a request was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Posted {
    /// There was no room, and everything will be flushed.
    pub(super) flood: bool,
    /// Nobody has sent an interrupt yet.
    pub(super) interrupt: bool,
}

impl Cpu {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                loaded: AtomicU64::new(0),
                seen: AtomicU64::new(0),
                every_seen: AtomicU64::new(0),
                served: AtomicU64::new(0),
                tags: AtomicU64::new(0),
                inbox: Inbox {
                    pending: AtomicU64::new(0),
                    asked: AtomicU64::new(0),
                    queue: Queue::new(),
                },
            }
        }
    }

    // What other CPUs call.

    pub(super) fn has(&self, space: SpaceId) -> Has {
        match self.loaded.load(SeqCst) {
            SWITCHING => Has::Unclear,
            word if word == space.as_u64() << 1 => Has::Active,
            word if word == space.as_u64() << 1 | LAZY => Has::Lazy,
            _ => Has::No,
        }
    }

    /// Whether a flush of `space` need not wait for it: see the proof in `shootdown.rs`.
    pub(super) fn has_seen(&self, space: SpaceId, generation: u64, tables: bool) -> bool {
        match self.has(space) {
            Has::No => true,
            Has::Unclear => false,
            Has::Lazy if !tables => true,
            // If `seen` is of a later space already, this one has been left.
            Has::Lazy | Has::Active => self.seen.load(Acquire) >= generation,
        }
    }

    pub(super) fn has_seen_every(&self, generation: u64) -> bool {
        self.every_seen.load(Acquire) >= generation
    }

    pub(super) fn post(&self, request: Request) -> Posted {
        let flood = !self.inbox.queue.push(request);
        if flood {
            self.inbox.asked.fetch_add(1, Release);
        }
        // An interrupt that is under way finds this request: `take` swaps before it looks.
        Posted { flood, interrupt: self.inbox.pending.swap(1, AcqRel) == 0 }
    }

    /// When that many floods are served, everything left here until now is.
    pub(super) fn floods(&self) -> u64 {
        self.inbox.asked.load(Acquire)
    }

    pub(super) fn has_served(&self, floods: u64) -> bool {
        self.served.load(Acquire) >= floods
    }

    /// Whether nobody has asked anything that it has not begun to do.
    pub(super) fn is_idle(&self) -> bool {
        self.inbox.pending.load(Relaxed) == 0
    }

    // What the CPU itself calls, with interrupts off.

    /// Does all that was left at its door; in the midst of a switch nothing, since what is asked of
    /// the next space cannot be done yet, and the generation that the switch goes by was read already.
    pub(super) fn serve(&self, local: &impl Local) {
        if self.is_idle() || self.loaded.load(Relaxed) == SWITCHING {
            return;
        }
        self.serve_unasked(local);
    }

    /// The same where an interrupt may have been lost, so that this CPU may not know that it was
    /// asked: whoever asks after the swap sends another one, whoever asked before is served here.
    pub(super) fn serve_unasked(&self, local: &impl Local) {
        self.inbox.pending.swap(0, AcqRel);
        let floods = self.floods();
        if floods != self.served.load(Relaxed) {
            local.flush_all();
            self.leave_borrowed(local);
            self.served.store(floods, Release);
        }
        while let Some(request) = self.inbox.queue.pop() {
            self.apply(local, request);
        }
    }

    fn apply(&self, local: &impl Local, request: Request) {
        match (request.space, &request.what) {
            (Some(space), What::Leave) => {
                if self.has(space) == Has::Lazy {
                    self.leave_borrowed(local);
                }
            }
            (Some(space), what) => {
                self.flush_space(local, space, request.generation, what.ranges());
            }
            (None, what) => self.flush_every(local, request.generation, what.ranges()),
        }
    }

    /// Forgets what the change to `generation` was about: the ranges, if that is all that is missing.
    pub(super) fn flush_every(
        &self,
        local: &impl Local,
        generation: u64,
        ranges: Option<&[Flush]>,
    ) {
        let seen = self.every_seen.load(Relaxed);
        if seen >= generation {
            return;
        }
        match ranges {
            Some(ranges) if seen + 1 == generation => local.flush_ranges(Reach::Every, ranges),
            _ => local.flush_all(),
        }
        self.every_seen.store(generation, Release);
    }

    /// The same of one space, if it is loaded.
    pub(super) fn flush_space(
        &self,
        local: &impl Local,
        space: SpaceId,
        generation: u64,
        ranges: Option<&[Flush]>,
    ) {
        if !matches!(self.has(space), Has::Active | Has::Lazy) {
            return; // It compares generations when it loads the space again.
        }
        let seen = self.seen.load(Relaxed);
        if seen >= generation {
            return;
        }
        let tags = self.tags();
        match ranges {
            Some(ranges) if seen + 1 == generation => {
                local.flush_ranges(Reach::Space(tags), ranges);
            }
            // Something in between is missing, or it is too much.
            _ => local.flush_space(tags),
        }
        self.seen.store(generation, Release);
    }

    /// Loads a root of no space, if the loaded one is only borrowed.
    pub(super) fn leave_borrowed(&self, local: &impl Local) {
        let loaded = self.loaded.load(Relaxed);
        if loaded != SWITCHING && loaded & LAZY != 0 {
            local.leave();
            self.loaded.store(0, Release);
        }
    }

    /// The space that is loaded, and what was seen of it.
    pub(super) fn loaded(&self) -> Option<(SpaceId, u64)> {
        let word = Some(self.loaded.load(Relaxed)).filter(|&word| word != SWITCHING)?;
        Some((SpaceId(NonZeroU64::new(word >> 1)?), self.seen.load(Relaxed)))
    }

    pub(super) fn begin_switch(&self) {
        self.loaded.store(SWITCHING, SeqCst);
    }

    pub(super) fn end_switch(&self, space: SpaceId, seen: u64, tags: Tags) {
        self.set_tags(tags);
        self.seen.store(seen, Release);
        self.loaded.store(space.as_u64() << 1, Release);
    }

    pub(super) fn borrow(&self) {
        let loaded = self.loaded.load(Relaxed);
        if loaded != 0 {
            self.loaded.store(loaded | LAZY, Release);
        }
    }

    pub(super) fn unload(&self) {
        self.loaded.store(0, Release);
    }

    pub(super) fn see_every(&self, generation: u64) {
        self.every_seen.store(generation, Release);
    }

    fn tags(&self) -> Tags {
        let word = self.tags.load(Relaxed);
        Tags { kernel: asid(word).unwrap_or_default(), user: asid(word >> 16) }
    }

    fn set_tags(&self, tags: Tags) {
        let user = tags.user.map_or(u16::MAX, Asid::as_u16);
        self.tags.store(u64::from(user) << 16 | u64::from(tags.kernel.as_u16()), Relaxed);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low 16 bits are meant")]
fn asid(word: u64) -> Option<Asid> {
    Asid::new(word as u16)
}
