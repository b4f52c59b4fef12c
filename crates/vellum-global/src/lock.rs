//! A lock in bit 0 of the word that it protects.
//!
//! ```text
//!   63                                    1    0
//!  +----------------------------------------+------+
//!  | address of the first element, or 0     | held |
//!  +----------------------------------------+------+
//!
//!  acquire: fetch_or 1 until the old value had it clear      value, now ours alone
//!  release: one store of the new value, bit 0 clear          value, for the next
//! ```
//!
//! A chain needs no memory for its lock, and the read that finds its first element is the read that
//! locks it. Waiting spins: what is done under the lock is a walk of a short chain, and never an
//! allocation, a flush or a call out of the table. On a kernel that preempts or takes interrupts
//! which use the table, both have to be off meanwhile.
//!
//! # Invariants
//!
//! - Only the holder stores to the word, but for others setting bit 0 again.

use core::sync::atomic::{AtomicU64, Ordering};

/// The bit. What the word holds otherwise must leave it 0.
pub const HELD: u64 = 1;

/// Takes the lock; the value that it protects.
pub fn acquire(word: &AtomicU64) -> u64 {
    loop {
        let value = word.fetch_or(HELD, Ordering::Acquire);
        if value & HELD == 0 {
            return value;
        }
        // Wait on a plain read, which leaves the line shared, rather than on the exchange.
        while word.load(Ordering::Relaxed) & HELD != 0 {
            core::hint::spin_loop();
        }
    }
}

/// Sets the value and gives the lock back, which the caller holds.
pub fn release(word: &AtomicU64, value: u64) {
    debug_assert!(word.load(Ordering::Relaxed) & HELD != 0, "released without being held");
    word.store(value & !HELD, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn the_value_survives_the_lock() {
        let word = AtomicU64::new(0x7000);
        assert_eq!(acquire(&word), 0x7000);
        assert_eq!(word.load(Ordering::Relaxed), 0x7001);
        release(&word, 0x8000);
        assert_eq!(word.load(Ordering::Relaxed), 0x8000);
    }

    #[test]
    fn nobody_else_is_inside() {
        let (threads, rounds) = if cfg!(miri) { (3, 20) } else { (4, 5_000) };
        let word = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        let value = acquire(&word);
                        release(&word, value + 2);
                    }
                });
            }
        });
        assert_eq!(word.into_inner(), threads * rounds * 2);
    }
}
