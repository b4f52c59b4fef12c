//! The gather that a checker gives out: a [`Batch`] that looks on, and may be told to do less.
//!
//! An obligation that was spoilt is kept from the batch, and what hangs on it is held here
//! until the next drain; so it comes out at the usual time, only not flushed as it should be.

use super::{Call, Checker};
use core::cell::RefCell;
use core::fmt;
use core::mem::{ManuallyDrop, take};
use std::rc::Rc;
use vellum_core::{Batch, Flush, Gather, Gone, Reap, Run, Scope, Soft, VirtAddr};

/// Where deliveries go.
type Deliver<'c> = Rc<dyn Fn(Gone) + 'c>;

/// The batch inside, which delivers by a box, since a closure has no name.
type Inner<'c, 's, D, const N: usize> = Batch<&'c Checker<'s>, Box<dyn FnMut(Gone) + 'c>, D, N>;

/// A live gather of a [`Checker`]; it must be finished, as any [`Batch`].
pub struct Watch<'c, 's, D: Reap, const N: usize> {
    checker: &'c Checker<'s>,
    number: usize,
    batch: ManuallyDrop<Inner<'c, 's, D, N>>,
    deliver: Deliver<'c>,
    spoilt: Vec<Spoilt<D>>,
}

/// What hangs on an obligation that the batch does not know.
enum Spoilt<D> {
    Run(Run),
    Part(D),
}

impl<'c, 's, D: Reap, const N: usize> Watch<'c, 's, D, N> {
    pub(super) fn new(
        checker: &'c Checker<'s>,
        number: usize,
        sink: impl FnMut(Gone) + 'c,
    ) -> Self {
        let sink = RefCell::new(sink);
        let deliver: Deliver<'c> = Rc::new(move |gone| {
            if let Gone::Run(run) = &gone {
                checker.deliver(run);
            }
            (sink.borrow_mut())(gone);
        });
        let inner = Rc::clone(&deliver);
        // SAFETY: `Checker::gather` gives it out for one table, and no CPU but the modelled ones,
        // all of which the checker reaches, uses that.
        let batch = unsafe { Batch::new(checker, Box::new(move |gone| inner(gone)) as Box<_>) };
        Self { checker, number, batch: ManuallyDrop::new(batch), deliver, spoilt: Vec::new() }
    }

    /// Flushes what is owed, delivers what is held, and ends.
    pub fn finish(mut self) {
        self.drain();
    }

    /// Owes what is left of a spoilt obligation.
    fn owe_rest(&mut self, rest: Option<Flush>) {
        if let Some(rest) = rest {
            self.batch.stale(rest);
        }
    }
}

// SAFETY: everything goes through a `Batch`, in the order in which it came; only a test that asked
// for it, with `Checker::with_sabotage`, is given something whose flush is incomplete, by a gather
// that it uses with tables that nobody walks.
unsafe impl<D: Reap, const N: usize> Gather<D> for Watch<'_, '_, D, N> {
    const LIVE: bool = true;

    fn room(&self) -> usize {
        self.batch.room()
    }

    fn drain(&mut self) {
        self.batch.drain();
        for spoilt in take(&mut self.spoilt) {
            match spoilt {
                Spoilt::Run(run) => (self.deliver)(Gone::Run(run)),
                Spoilt::Part(part) => part.reap(&mut |gone| (self.deliver)(gone)),
            }
        }
        self.checker.settled(self.number);
    }

    fn owed(&self) -> Option<Scope> {
        self.batch.owed()
    }

    fn leaf(&mut self, run: Run) {
        let owed = Flush::new(run.va, run.len, run.page, run.attr);
        match self.checker.note(self.number, Call::Leaf, owed) {
            Some(flush) if flush == owed => self.batch.leaf(run),
            rest => {
                self.spoilt.push(Spoilt::Run(run));
                self.owe_rest(rest);
            }
        }
    }

    fn soft(&mut self, va: VirtAddr, soft: Soft) {
        self.batch.soft(va, soft);
    }

    fn stale(&mut self, flush: Flush) {
        let rest = self.checker.note(self.number, Call::Stale, flush);
        self.owe_rest(rest);
    }

    fn detach(&mut self, flush: Flush, part: D) {
        let owed = flush.with_scope(Scope::Tables);
        match self.checker.note(self.number, Call::Detach, owed) {
            Some(flush) if flush == owed => self.batch.detach(flush, part),
            rest => {
                self.spoilt.push(Spoilt::Part(part));
                self.owe_rest(rest);
            }
        }
    }
}

impl<D: Reap, const N: usize> Drop for Watch<'_, '_, D, N> {
    /// Lets the batch say whether it was finished, unless a test has failed already.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: once, and nobody uses it any more.
            unsafe { ManuallyDrop::drop(&mut self.batch) };
        }
    }
}

impl<D: Reap, const N: usize> fmt::Debug for Watch<'_, '_, D, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.number).field(&*self.batch).finish()
    }
}
