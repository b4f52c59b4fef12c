//! The heads of the chains: a block of words, each with its chain's lock in it.
//!
//! ```text
//!   63                                      1      0
//!  +------------------------------------------+------+
//!  | number of the first page's frame, plus 1 | held |     one of 512 << order words
//!  +------------------------------------------+------+
//! ```
//!
//! Models have two of loom's mutexes instead: who waits for a bit by looking at it again and again is more
//! than loom can follow.
//!
//! # Invariants
//!
//! - The words are touched through [`Heads::locked`] only, until [`Heads::give_back`].

use vellum_core::{Memory, OutOfFrames};
#[cfg(not(loom))]
use vellum_core::{PAGE_SIZE, PhysAddr};
#[cfg(not(loom))]
use vellum_global::{lock, word};

/// The heads of one cache's chains.
#[cfg(not(loom))]
pub(super) struct Heads {
    at: PhysAddr,
    order: u8,
}

#[cfg(not(loom))]
impl Heads {
    /// 512 times 2<sup>`order`</sup> empty chains.
    pub(super) fn new(memory: &impl Memory, order: u8) -> Result<Self, OutOfFrames> {
        Ok(Self { at: word::alloc_zeroed(memory, order)?, order })
    }

    /// How many there are.
    pub(super) const fn count(&self) -> u64 {
        (PAGE_SIZE / 8) << self.order
    }

    /// Calls `f` with number `n`, counted round and round, and its lock held.
    pub(super) fn locked<R>(
        &self,
        memory: &impl Memory,
        n: u64,
        f: impl FnOnce(&mut u64) -> R,
    ) -> R {
        let at = self.at.wrapping_add(n % self.count() * 8);
        // SAFETY: one of the words of the block that `new` took from this memory, which is given back by
        // `give_back` only; all accesses to it go through here.
        unsafe {
            word::with_word(memory, at, |word| {
                let mut first = lock::acquire(word);
                let result = f(&mut first);
                lock::release(word, first);
                result
            })
        }
    }

    /// Gives the block back.
    ///
    /// # Safety
    ///
    /// `new` took it from this memory, and nobody uses it after this.
    pub(super) unsafe fn give_back(&self, memory: &impl Memory) {
        // SAFETY: taken by `new` as a block of this order; nobody reaches it any more.
        unsafe { memory.free(self.at, self.order) }
    }
}

#[cfg(loom)]
#[derive(Default)]
pub(super) struct Heads([loom::sync::Mutex<u64>; 2]);

#[cfg(loom)]
impl Heads {
    pub(super) fn new(_: &impl Memory, _: u8) -> Result<Self, OutOfFrames> {
        Ok(Self::default())
    }

    pub(super) const fn count(&self) -> u64 {
        2
    }

    pub(super) fn locked<R>(&self, _: &impl Memory, n: u64, f: impl FnOnce(&mut u64) -> R) -> R {
        let [even, odd] = &self.0;
        let mut first =
            if n.is_multiple_of(2) { even } else { odd }.lock().expect("a thread panicked");
        f(&mut first)
    }

    pub(super) unsafe fn give_back(&self, _: &impl Memory) {}
}
