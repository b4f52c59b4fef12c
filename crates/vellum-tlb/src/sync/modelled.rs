//! loom's atomic, made to explore what it ought to.
//!
//! ```text
//!   operation  =  a read-modify-write of `order`, relaxed   (which of the threads goes first?)
//!                 the operation itself                      (which value does it see?)
//!
//!   SeqCst        weight on stores: store, fence            weight on loads: fence, load
//! ```
//!
//! loom 0.7 remembers one last access of each atomic, so that a thread's load hides what another did
//! before, and orders that matter are not tried (tokio-rs/loom issues 166 and 392). Between
//! read-modify-writes nothing is hidden. A relaxed one of an atomic of its own orders nothing else.
//!
//! And it takes sequentially consistent accesses for little more than acquire and release (issue 180),
//! which finds faults that are none; but fences it knows. Where one thread stores and loads, and
//! another the other way round, a fence between the two is what a pair of such accesses amounts to. Put
//! behind stores, it would make up for a load that is too weak; before loads, for a store: so each
//! model runs both ways ([`Weight`]).

use core::cell::Cell;
use core::sync::atomic::Ordering::{self, AcqRel, Acquire, Relaxed, Release, SeqCst};
use loom::sync::atomic::{AtomicU64 as Modelled, fence};

/// Which of the sequentially consistent accesses bring the fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    Stores,
    Loads,
}

std::thread_local! {
    static WEIGHT: Cell<Weight> = const { Cell::new(Weight::Stores) };
}

/// Has all models that this thread of the system runs from now on weigh so.
#[cfg(test)]
pub(crate) fn weigh(weight: Weight) {
    WEIGHT.set(weight);
}

/// A word, as `core`'s type of the same name; as much of it as this crate uses.
#[derive(Debug)]
pub(crate) struct AtomicU64 {
    order: Modelled,
    value: Modelled,
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        Self { order: Modelled::new(0), value: Modelled::new(value) }
    }

    fn turn(&self) -> &Modelled {
        self.order.fetch_or(0, Relaxed);
        &self.value
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        let value = self.turn();
        if order != SeqCst {
            return value.load(order);
        }
        if WEIGHT.get() == Weight::Loads {
            fence(SeqCst);
        }
        value.load(Acquire)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.turn().store(value, if order == SeqCst { Release } else { order });
        after_store(order);
    }

    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.change(order, |word, order| word.swap(value, order))
    }

    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.change(order, |word, order| word.fetch_add(value, order))
    }

    pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        self.change(order, |word, order| word.fetch_or(value, order))
    }

    pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        self.change(order, |word, order| word.fetch_and(value, order))
    }

    pub(crate) fn compare_exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.turn().compare_exchange(old, new, success, failure)
    }

    fn change(&self, order: Ordering, change: impl FnOnce(&Modelled, Ordering) -> u64) -> u64 {
        let old = change(self.turn(), if order == SeqCst { AcqRel } else { order });
        after_store(order);
        old
    }
}

fn after_store(order: Ordering) {
    if order == SeqCst && WEIGHT.get() == Weight::Stores {
        fence(SeqCst);
    }
}
