//! loom's atomic, with a step before each operation that keeps loom 0.7 from leaving out orders.
//!
//! ```text
//!   operation  =  a read-modify-write of `order`, relaxed   (which of the threads goes first?)
//!                 the operation itself                      (which value does it see?)
//! ```
//!
//! loom remembers one last access of each atomic, so that a thread's load hides what another did
//! before, and orders that matter are not tried (tokio-rs/loom issues 166 and 392). Between
//! read-modify-writes nothing is hidden. A relaxed one of an atomic of its own orders nothing else.

use core::sync::atomic::Ordering::{self, Relaxed};
use loom::sync::atomic::AtomicU64 as Modelled;

/// A word, as `core`'s type of the same name; as much of it as this crate uses.
///
/// loom sees a sequentially consistent load as such only among sequentially consistent stores, so
/// the first value is stored that way too.
#[derive(Debug)]
pub(crate) struct AtomicU64 {
    order: Modelled,
    value: Modelled,
}

impl AtomicU64 {
    pub(crate) fn new(value: u64) -> Self {
        let word = Self { order: Modelled::new(0), value: Modelled::new(value) };
        word.value.store(value, Ordering::SeqCst);
        word
    }

    fn turn(&self) -> &Modelled {
        self.order.fetch_or(0, Relaxed);
        &self.value
    }

    pub(crate) fn load(&self, order: Ordering) -> u64 {
        self.turn().load(order)
    }

    pub(crate) fn store(&self, value: u64, order: Ordering) {
        self.turn().store(value, order);
    }

    pub(crate) fn swap(&self, value: u64, order: Ordering) -> u64 {
        self.turn().swap(value, order)
    }

    pub(crate) fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.turn().fetch_add(value, order)
    }

    pub(crate) fn fetch_or(&self, value: u64, order: Ordering) -> u64 {
        self.turn().fetch_or(value, order)
    }

    pub(crate) fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
        self.turn().fetch_and(value, order)
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
}
