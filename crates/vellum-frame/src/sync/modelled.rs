//! Atomics of loom's that are explored as they ought to be.
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

/// A type like `core`'s of the same name; as much of it as is used here and in the crates above.
macro_rules! atomic {
    ($name:ident, $value:ty) => {
        #[derive(Debug, Default)]
        #[allow(missing_docs, reason = "as in `core`")]
        pub struct $name {
            turn: loom::sync::atomic::AtomicU64,
            value: loom::sync::atomic::$name,
        }

        #[allow(missing_docs, reason = "as in `core`")]
        impl $name {
            pub fn new(value: $value) -> Self {
                Self { turn: Default::default(), value: loom::sync::atomic::$name::new(value) }
            }

            fn take_turn(&self) {
                self.turn.fetch_or(0, Relaxed);
            }

            pub fn load(&self, order: Ordering) -> $value {
                self.take_turn();
                self.value.load(order)
            }

            pub fn store(&self, value: $value, order: Ordering) {
                self.take_turn();
                self.value.store(value, order);
            }

            /// # Errors
            ///
            /// As in `core`.
            pub fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.take_turn();
                self.value.compare_exchange(old, new, success, failure)
            }

            /// # Errors
            ///
            /// As in `core`; it never fails for nothing.
            pub fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(old, new, success, failure)
            }

            pub fn fetch_or(&self, bits: $value, order: Ordering) -> $value {
                self.take_turn();
                self.value.fetch_or(bits, order)
            }

            pub fn fetch_and(&self, bits: $value, order: Ordering) -> $value {
                self.take_turn();
                self.value.fetch_and(bits, order)
            }

            pub fn fetch_add(&self, count: $value, order: Ordering) -> $value {
                self.take_turn();
                self.value.fetch_add(count, order)
            }

            pub fn fetch_sub(&self, count: $value, order: Ordering) -> $value {
                self.take_turn();
                self.value.fetch_sub(count, order)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
