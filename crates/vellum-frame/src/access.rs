//! How a word is changed: among other CPUs, or by the only one there is.
//!
//! ```text
//!              load       swap, or, and                 a word changed between load and swap
//!   Atomic     SeqCst     locked read-modify-write      swap says so
//!   Plain      Relaxed    load, then store              cannot be
//! ```
//!
//! The tree is written once, for both: an exclusive borrow of the allocator
//! ([`Exclusive`](crate::Exclusive)) runs the very code that CPUs share, without the locked
//! instructions, which are most of what that code costs (rows a of `cargo xtask bench frame`).

use crate::sync::AtomicU64;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};

/// One of the two ways.
pub(crate) trait Access {
    /// Whether others may change words meanwhile.
    const SHARED: bool;

    /// What the word is now.
    fn load(cell: &AtomicU64) -> u64;

    /// Makes `old` into `new`; if the word is not `old`, says what it is instead.
    fn swap(cell: &AtomicU64, old: u64, new: u64) -> Result<(), u64>;

    /// Sets `bits`; returns what the word was.
    fn or(cell: &AtomicU64, bits: u64) -> u64;

    /// Clears all but `bits`.
    fn and(cell: &AtomicU64, bits: u64);
}

/// Other CPUs and interrupt handlers may be at it too.
#[derive(Debug)]
pub(crate) enum Atomic {}

/// Nobody else is.
#[derive(Debug)]
pub(crate) enum Plain {}

impl Access for Atomic {
    const SHARED: bool = true;

    fn load(cell: &AtomicU64) -> u64 {
        cell.load(SeqCst)
    }

    fn swap(cell: &AtomicU64, old: u64, new: u64) -> Result<(), u64> {
        cell.compare_exchange(old, new, SeqCst, SeqCst).map(drop)
    }

    fn or(cell: &AtomicU64, bits: u64) -> u64 {
        cell.fetch_or(bits, SeqCst)
    }

    fn and(cell: &AtomicU64, bits: u64) {
        cell.fetch_and(bits, SeqCst);
    }
}

impl Access for Plain {
    const SHARED: bool = false;

    fn load(cell: &AtomicU64) -> u64 {
        cell.load(Relaxed)
    }

    fn swap(cell: &AtomicU64, _old: u64, new: u64) -> Result<(), u64> {
        cell.store(new, Relaxed);
        Ok(())
    }

    fn or(cell: &AtomicU64, bits: u64) -> u64 {
        let old = cell.load(Relaxed);
        cell.store(old | bits, Relaxed);
        old
    }

    fn and(cell: &AtomicU64, bits: u64) {
        cell.store(cell.load(Relaxed) & bits, Relaxed);
    }
}
