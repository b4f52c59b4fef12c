//! One entry, and the entry that links a node together with the count of that node.

use super::COUNT_BYTES_SHIFT;
use super::word::{exchange, half, load, narrow, store, swap, wide};
use crate::format::Format;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed};
use vellum_core::{Memory, PhysAddr};

/// One entry in memory.
pub(crate) struct Slot<'m, F, M> {
    pub(super) mem: &'m M,
    /// Where it lies.
    pub(crate) pa: PhysAddr,
    pub(super) format: PhantomData<fn() -> F>,
}

impl<F, M> Clone for Slot<'_, F, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, M> Copy for Slot<'_, F, M> {}

impl<F: Format, M: Memory> Slot<'_, F, M> {
    #[inline(always)]
    fn with<R>(self, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        self.mem.with(self.pa, f)
    }

    // SAFETY, of all below: the slot lies in a block that the memory handed out and that is not
    // given back while the slot is in use (`Node::new`), so that the pointer is valid to the end of
    // its frame; an entry at a multiple of its size does not cross that, and is aligned since frames
    // are. All accesses to nodes that others can reach are atomic.

    /// Reads the entry; acquires what was written before a node was linked.
    #[inline]
    pub(crate) fn load(self) -> u64 {
        // SAFETY: see the head of this block.
        self.with(|p| unsafe { load::<F>(p, 0, Acquire) })
    }

    /// Writes the entry, where nobody else writes it: exclusive, or quiet.
    #[inline]
    pub(crate) fn store(self, raw: u64) {
        // SAFETY: see the head of this block.
        self.with(|p| unsafe { store::<F>(p, 0, raw) });
    }

    /// Writes the entry and returns what it was, in one step.
    #[inline]
    pub(crate) fn swap(self, raw: u64) -> u64 {
        // SAFETY: see the head of this block.
        self.with(|p| unsafe { swap::<F>(p, 0, raw) })
    }

    /// Writes `new` if the entry is `old`; otherwise returns what it is.
    #[inline]
    pub(crate) fn compare_exchange(self, old: u64, new: u64) -> Result<(), u64> {
        // SAFETY: see the head of this block.
        self.with(|p| unsafe { exchange::<F>(p, 0, old, new) })
    }

    #[inline]
    fn fetch_add(self, n: u64) {
        self.with(|p| {
            // SAFETY: see the head of this block.
            unsafe {
                if F::ENTRY_SHIFT == 3 {
                    wide(p, 0).fetch_add(n, Relaxed);
                } else {
                    half(p, 0).fetch_add(narrow(n), Relaxed);
                }
            }
        });
    }
}

/// An entry that links a node, or will, and where the count of that node is.
pub(crate) struct Link<'m, F, M> {
    pub(crate) slot: Slot<'m, F, M>,
    /// Of the count, where it is not in the entry.
    pub(super) counter: PhysAddr,
}

impl<F, M> Clone for Link<'_, F, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, M> Copy for Link<'_, F, M> {}

/// The width of a count within an entry.
const IN_ENTRY: u64 = 0x3ff;

impl<F: Format, M: Memory> Link<'_, F, M> {
    #[inline]
    fn counter<R>(self, f: impl FnOnce(&AtomicU32) -> R) -> R {
        debug_assert!(F::COUNT_SHIFT.is_none() && COUNT_BYTES_SHIFT == 2, "counts have 32 bits");
        // SAFETY: the block of a node that links others has room for their counts behind its
        // entries (`node_order`), 4 bytes each from a multiple of 4; they are accessed atomically.
        self.slot.mem.with(self.counter, |p| f(unsafe { half(p, 0) }))
    }

    /// How many entries of the node are not holes.
    #[inline]
    pub(crate) fn count(self) -> u64 {
        match F::COUNT_SHIFT {
            Some(shift) => self.slot.load() >> shift & IN_ENTRY,
            None => u64::from(self.counter(|count| count.load(Relaxed))),
        }
    }

    /// Links a node of `count` entries: `raw` is the table entry without its count. Under
    /// `&mut self`.
    #[inline]
    pub(crate) fn set(self, raw: u64, count: u64) {
        match F::COUNT_SHIFT {
            Some(shift) => self.slot.store(raw | count << shift),
            None => {
                self.counter(|counter| counter.store(narrow(count), Relaxed));
                self.slot.store(raw);
            }
        }
    }

    /// As [`set`](Self::set), if the entry is `old` now; otherwise returns what it is.
    #[inline]
    pub(crate) fn exchange(self, old: u64, raw: u64, count: u64) -> Result<(), u64> {
        match F::COUNT_SHIFT {
            Some(shift) => self.slot.compare_exchange(old, raw | count << shift),
            None => {
                self.slot.compare_exchange(old, raw)?;
                self.counter(|counter| counter.store(narrow(count), Relaxed));
                Ok(())
            }
        }
    }

    /// Unlinks the node: a hole. Under `&mut self`.
    #[inline]
    pub(crate) fn clear(self) {
        self.set(0, 0);
    }

    /// Notes `n` entries more, under `&mut self`.
    #[inline]
    pub(crate) fn add(self, n: u64) {
        match F::COUNT_SHIFT {
            Some(_) => self.add_to(self.slot.load(), n),
            None => self.add_to(0, n),
        }
    }

    /// The same, where the entry is known to be `raw`.
    #[inline]
    pub(crate) fn add_to(self, raw: u64, n: u64) {
        match F::COUNT_SHIFT {
            Some(shift) => self.slot.store(raw.wrapping_add(n << shift)),
            None => self.counter(|count| {
                count.store(count.load(Relaxed).wrapping_add(narrow(n)), Relaxed);
            }),
        }
    }

    /// Notes `n` entries fewer, under `&mut self`.
    #[inline]
    pub(crate) fn sub(self, n: u64) {
        if n > 0 {
            self.add(n.wrapping_neg());
        }
    }

    /// Notes one entry more, by any number of threads; `false` if so many are on their way that the
    /// count has no room for another.
    #[inline]
    #[must_use]
    pub(crate) fn fetch_add(self) -> bool {
        let Some(shift) = F::COUNT_SHIFT else {
            self.counter(|count| count.fetch_add(1, Relaxed));
            return true;
        };
        let mut raw = self.slot.load();
        // By compare-and-set: a carry would go into the address.
        while raw >> shift & IN_ENTRY < IN_ENTRY {
            match self.slot.compare_exchange(raw, raw + (1 << shift)) {
                Ok(()) => return true,
                Err(now) => raw = now,
            }
        }
        false
    }

    /// Notes one entry fewer, by any number of threads.
    #[inline]
    pub(crate) fn fetch_sub(self) {
        match F::COUNT_SHIFT {
            Some(shift) => self.slot.fetch_add((1u64 << shift).wrapping_neg()),
            None => self.counter(|count| {
                count.fetch_sub(1, Relaxed);
            }),
        }
    }
}
