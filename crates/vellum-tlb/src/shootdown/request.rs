//! What one CPU asks of another, and the queue that it goes through.
//!
//! ```text
//!   Request:  space (none: every)   generation   what: ranges | all of it | leave it
//! ```
//!
//! The queue may refuse (it is full, or looks so for a moment), and may hide a request behind another
//! that is being written (rust-embedded/heapless issue 583, which is why its `new` is deprecated: "only
//! when items can be dropped, or retried"). Both are harmless here. Who is refused asks for a flush
//! of everything instead; who is hidden is found at the latest when the writer in front, which runs
//! with interrupts off, is done and sends its own interrupt.

use super::ceiling::Ceiling;
use crate::asid::SpaceId;
use vellum_core::{Flush, RANGES, Scope};

/// Some flushes that are worth doing one by one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ranges {
    /// As many as a `Batch` keeps apart.
    flushes: [Flush; RANGES],
    count: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// These ranges.
    Ranges(Ranges),
    /// The whole space; everything, if it is every space.
    Whole,
    /// The space goes away: load another root, if it is only borrowed.
    Leave,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    /// `None`: every space, and global translations.
    pub(super) space: Option<SpaceId>,
    pub(super) generation: u64,
    pub(super) what: What,
}

impl What {
    /// The ranges, if it is ranges.
    pub(super) fn ranges(&self) -> Option<&[Flush]> {
        match self {
            Self::Ranges(ranges) => ranges.flushes.get(..ranges.count),
            _ => None,
        }
    }
}

/// What a call of `flush` comes to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan<'a> {
    flushes: &'a [Flush],
    /// How many of them count.
    due: usize,
    /// They are few, and few pages: worth doing one by one.
    single: bool,
    absence: bool,
    /// Interior entries go too.
    pub(super) tables: bool,
    /// Some of it may be cached as global: on every CPU, whatever it runs.
    pub(super) global: bool,
}

fn is_due(flush: Flush, absence: bool) -> bool {
    absence || flush.scope > Scope::Fresh
}

impl<'a> Plan<'a> {
    /// `None` if there is nothing to do: flushes of fresh mappings count only where absence is
    /// cached.
    pub(super) fn new(flushes: &'a [Flush], ceiling: Ceiling, absence: bool) -> Option<Self> {
        let (mut due, mut steps) = (0, 0_u64);
        let (mut tables, mut global) = (false, false);
        for flush in flushes.iter().filter(|flush| is_due(**flush, absence)) {
            due += 1;
            steps = steps.saturating_add(flush.steps());
            tables |= flush.has_tables();
            global |= flush.global;
        }
        let single = due <= RANGES && ceiling.allows(steps);
        (due > 0).then_some(Self { flushes, due, single, absence, tables, global })
    }

    /// The ranges as they are, if they are to be done one by one, and all of them.
    pub(super) fn as_given(&self) -> Option<&'a [Flush]> {
        (self.single && self.due == self.flushes.len()).then_some(self.flushes)
    }

    /// A copy, for other CPUs.
    pub(super) fn what(&self) -> What {
        let mut due = self.flushes.iter().filter(|flush| is_due(**flush, self.absence));
        let first = due.next().filter(|_| self.single);
        let Some(&first) = first else { return What::Whole };
        let mut ranges = Ranges { flushes: [first; RANGES], count: self.due };
        for (to, from) in ranges.flushes.iter_mut().skip(1).zip(due) {
            *to = *from;
        }
        What::Ranges(ranges)
    }
}

/// Requests of many CPUs to one.
pub(super) struct Queue {
    #[cfg(not(loom))]
    queue: heapless::mpmc::Queue<Request, LENGTH>,
    /// heapless's is not made of loom's atomics. This one can be full as well, and soon is.
    #[cfg(loom)]
    queue: loom::sync::Mutex<std::collections::VecDeque<Request>>,
}

/// A CPU that is behind by more than these flushes everything.
pub(super) const LENGTH: usize = if cfg!(loom) { 1 } else { 16 };

impl Queue {
    #[cfg(not(loom))]
    pub(super) const fn new() -> Self {
        #[expect(deprecated, reason = "requests may be refused or found later: see the module")]
        let queue = heapless::mpmc::Queue::new();
        Self { queue }
    }

    #[cfg(loom)]
    pub(super) fn new() -> Self {
        Self { queue: loom::sync::Mutex::default() }
    }

    /// Whether there was room.
    pub(super) fn push(&self, request: Request) -> bool {
        #[cfg(not(loom))]
        return self.queue.enqueue(request).is_ok();
        #[cfg(loom)]
        {
            let Ok(mut queue) = self.queue.lock() else { return false };
            let has_room = queue.len() < LENGTH;
            if has_room {
                queue.push_back(request);
            }
            has_room
        }
    }

    pub(super) fn pop(&self) -> Option<Request> {
        #[cfg(not(loom))]
        return self.queue.dequeue();
        #[cfg(loom)]
        return self.queue.lock().ok()?.pop_front();
    }
}

impl core::fmt::Debug for Queue {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Queue")
    }
}
