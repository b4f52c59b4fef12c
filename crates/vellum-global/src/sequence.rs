//! A sequence lock in a word of table memory: who writes holds it, who reads looks whether it moved.
//!
//! ```text
//!       writer                        reader
//!       v: even -> odd, by CAS        v, once it is even
//!       --- fence (Release)           data words
//!       data words                    --- fence (Acquire)
//!       v: odd -> the next even       v again: if it moved, once more from the top
//! ```
//!
//! A look-up that locks writes to a line that every CPU wants to read. Here it only reads: the
//! version before, the table's words, the version after.
//!
//! # Why a read that saw half of a change is always noticed
//!
//! The data words are atomics, loaded and stored with `Relaxed`, so a race is no undefined behaviour
//! and every load gives some value that was stored. Let a reader see version e before and after.
//!
//! - *Nothing older than e.* The first load of the version is `Acquire` and reads what a writer
//!   stored with `Release` when it was done (or the zeros of the start, which whoever shares the
//!   table has seen). Everything that writers up to it stored happens before, so no load of the
//!   reader gives a value that one of them replaced.
//! - *Nothing newer than e.* Suppose some load gave a value that a writer stored after e. That writer
//!   had made the version odd, and then come to its `Release` fence, before that store; the reader
//!   comes to its `Acquire` fence after that load. So the fences synchronize, the odd version
//!   happens before the reader's second load, and that cannot give e any more.
//!
//! Both together: every word is as it was while the version was e.
//!
//! # Invariants
//!
//! - Words that a sequence lock covers are stored by its holder alone, through
//!   [`word`](crate::word).
//! - What a reader does between its two loads ends whatever it reads, touches only memory that
//!   stays with the table while it is shared, and has no effect until the version is confirmed.
//! - A version only rises, by 2 for each change.
//!
//! Source: H.-J. Boehm, "Can Seqlocks Get Along with Programming Language Memory Models?", MSPC 2012.

use crate::word::with_word;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use vellum_core::{PhysAddr, PhysMap};

/// In a version: somebody is writing.
pub(crate) const ODD: u64 = 1;

/// A sequence lock, where it is.
pub struct Sequence<'m, M> {
    memory: &'m M,
    at: PhysAddr,
}

/// What a version was when a read began.
#[must_use = "what was read is worth nothing until the version is confirmed"]
pub struct Version<'m, M> {
    sequence: Sequence<'m, M>,
    even: u64,
}

/// A sequence lock, held for writing; dropping it gives it back.
#[must_use = "the lock is held until this is dropped"]
pub struct Held<'m, M: PhysMap> {
    sequence: Sequence<'m, M>,
    odd: u64,
}

impl<'m, M: PhysMap> Sequence<'m, M> {
    /// The lock whose version is at `at`; an even number to begin with.
    ///
    /// # Safety
    ///
    /// `at` is a multiple of 8 in a frame of `memory` that stays for as long as `'m`, and nothing
    /// but a sequence lock touches that word in the meantime.
    #[inline]
    pub const unsafe fn new(memory: &'m M, at: PhysAddr) -> Self {
        Self { memory, at }
    }

    #[inline]
    fn with<R>(self, f: impl FnOnce(&AtomicU64) -> R) -> R {
        // SAFETY: promised to `new`.
        unsafe { with_word(self.memory, self.at, f) }
    }

    /// Takes it for writing, spinning until it is free. Never from within a read.
    #[inline]
    pub fn hold(self) -> Held<'m, M> {
        let odd = self.with(acquire);
        // With it, whoever sees a store of the holder sees the odd version too.
        fence(Ordering::Release);
        Held { sequence: self, odd }
    }

    /// The version, once nobody writes.
    #[inline]
    pub fn begin(self) -> Version<'m, M> {
        let even = self.with(|word| word.load(Ordering::Acquire));
        let even = if even & ODD == 0 { even } else { self.await_even() };
        Version { sequence: self, even }
    }

    #[cold]
    fn await_even(self) -> u64 {
        loop {
            core::hint::spin_loop();
            let version = self.with(|word| word.load(Ordering::Acquire));
            if version & ODD == 0 {
                return version;
            }
        }
    }
}

/// Makes an even version odd; the odd one.
#[inline]
fn acquire(word: &AtomicU64) -> u64 {
    loop {
        // Wait on a plain read, which leaves the line shared.
        let version = word.load(Ordering::Relaxed);
        if version & ODD == 0 {
            let odd = version | ODD;
            // Acquire: what the last holder did has happened.
            let taken =
                word.compare_exchange_weak(version, odd, Ordering::Acquire, Ordering::Relaxed);
            if taken.is_ok() {
                return odd;
            }
        }
        core::hint::spin_loop();
    }
}

impl<'m, M: PhysMap> Version<'m, M> {
    /// Whether nobody has written since: what was read after [`begin`](Sequence::begin) and before
    /// this belongs together.
    #[inline]
    #[must_use]
    pub fn is_current(&self) -> bool {
        // Without it the loads before could be of a later time than the one below.
        fence(Ordering::Acquire);
        self.sequence.with(|word| word.load(Ordering::Relaxed)) == self.even
    }

    /// Takes the lock for writing if nobody has since; waits for nobody.
    ///
    /// For who writes down what it has learnt elsewhere meanwhile, and must not if that may have
    /// changed.
    #[inline]
    pub fn hold_if_current(self) -> Option<Held<'m, M>> {
        let (sequence, even, odd) = (self.sequence, self.even, self.even | ODD);
        let taken = sequence
            .with(|word| word.compare_exchange(even, odd, Ordering::Acquire, Ordering::Relaxed));
        fence(Ordering::Release);
        // Made only then: dropping one gives back what somebody else may hold.
        taken.is_ok().then(|| Held { sequence, odd })
    }
}

impl<M: PhysMap> Drop for Held<'_, M> {
    #[inline]
    fn drop(&mut self) {
        let even = self.odd.wrapping_add(1);
        self.sequence.with(|word| word.store(even, Ordering::Release));
    }
}

impl<M> Clone for Sequence<'_, M> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Sequence<'_, M> {}

impl<M> Clone for Version<'_, M> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Version<'_, M> {}

impl<M> fmt::Debug for Sequence<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sequence({})", self.at)
    }
}

impl<M> fmt::Debug for Version<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({} at {})", self.even, self.sequence.at)
    }
}

impl<M: PhysMap> fmt::Debug for Held<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.sequence.at)
    }
}
