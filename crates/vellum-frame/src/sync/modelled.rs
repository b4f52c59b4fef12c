//! An atomic of loom's that is explored as it ought to be.
//!
//! ```text
//!   load, store, swap, or ...   =   turn: read-modify-write, relaxed     every order of these
//!                                   value: the operation itself          every value it may see
//! ```
//!
//! To find the orders that matter, loom 0.7 keeps one last access of each atomic. A thread's own
//! load hides what others did before it, so that of a load followed by a compare-and-swap, which is
//! all that this crate does, most orders are left out (tokio-rs/loom issues 166 and 392). Among
//! read-modify-writes alone nothing is hidden: so each operation takes a turn first, by one of
//! those on an atomic beside the value. A turn is relaxed, and orders nothing else.

use core::sync::atomic::Ordering::{self, Relaxed};

/// A word, as `core`'s type of the same name; as much of it as this crate uses.
#[derive(Debug, Default)]
pub struct AtomicU64 {
    turn: loom::sync::atomic::AtomicU64,
    value: loom::sync::atomic::AtomicU64,
}

#[allow(missing_docs, reason = "as in `core`")]
impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        Self { turn: Default::default(), value: loom::sync::atomic::AtomicU64::new(value) }
    }

    fn take_turn(&self) {
        self.turn.fetch_or(0, Relaxed);
    }

    pub fn load(&self, order: Ordering) -> u64 {
        self.take_turn();
        self.value.load(order)
    }

    pub fn store(&self, value: u64, order: Ordering) {
        self.take_turn();
        self.value.store(value, order);
    }

    /// # Errors
    ///
    /// As in `core`.
    pub fn compare_exchange(
        &self,
        old: u64,
        new: u64,
        success: Ordering,
        failure: Ordering,
    ) -> Result<u64, u64> {
        self.take_turn();
        self.value.compare_exchange(old, new, success, failure)
    }

    pub fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
        self.take_turn();
        self.value.fetch_or(bits, order)
    }

    pub fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
        self.take_turn();
        self.value.fetch_and(bits, order)
    }

    pub fn fetch_add(&self, count: u64, order: Ordering) -> u64 {
        self.take_turn();
        self.value.fetch_add(count, order)
    }
}
