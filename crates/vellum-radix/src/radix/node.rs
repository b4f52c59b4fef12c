//! The one place that touches the memory of tables.
//!
//! ```text
//!    node (a block of frames)              slot = node + 8 * index
//!    +--------+--------+--------+---       +--------------------------+
//!    | entry  | entry  | entry  | ...      | one AtomicU64 in memory  |
//!    +--------+--------+--------+---       +--------------------------+
//! ```
//!
//! Hardware reads these words, and writes accessed and dirty into them, at any time. So every
//! access is a relaxed or stronger atomic of one word, through a pointer that the memory hands out
//! for that word; there are no references and no slices over a node.
//!
//! # Invariants
//!
//! - A [`Node`] is a block that its memory handed out and that was not given back: it is the root of
//!   a table, linked from one that is, or in the hands of the one who unlinked or allocated it.

use crate::format::{ENTRY_SHIFT, Level};
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Memory, OutOfFrames, PAGE_SHIFT, PhysAddr, VirtAddr};

/// A node of a table, reached through its memory.
pub(crate) struct Node<'m, M> {
    mem: &'m M,
    pa: PhysAddr,
}

impl<M> Clone for Node<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Node<'_, M> {}

impl<'m, M: Memory> Node<'m, M> {
    /// The node at `pa`.
    ///
    /// # Safety
    ///
    /// `pa` is a block for a node that `mem` handed out, which is not given back while this value
    /// or a slot of it is used.
    pub(crate) unsafe fn new(mem: &'m M, pa: PhysAddr) -> Self {
        Self { mem, pa }
    }

    /// Entry `index`, which is below the entries of the node.
    pub(crate) fn slot(self, index: u64) -> Slot<'m, M> {
        Slot { mem: self.mem, pa: self.pa.wrapping_add(index << ENTRY_SHIFT) }
    }

    /// The entry of the node that translates `va`, when its level is `level`.
    pub(crate) fn slot_of(self, va: VirtAddr, level: Level) -> Slot<'m, M> {
        self.slot(index(va, level))
    }
}

/// Which entry of a node of this level translates `va`.
pub(crate) fn index(va: VirtAddr, level: Level) -> u64 {
    va.as_u64() >> level.shift & ((1 << level.bits) - 1)
}

/// One entry in memory.
pub(crate) struct Slot<'m, M> {
    mem: &'m M,
    /// Where it lies.
    pub(crate) pa: PhysAddr,
}

impl<M> Clone for Slot<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Slot<'_, M> {}

impl<M: Memory> Slot<'_, M> {
    fn with<R>(self, f: impl FnOnce(&AtomicU64) -> R) -> R {
        self.mem.with(self.pa, |p| {
            // SAFETY: the slot lies in a block that the memory handed out and that is not given
            // back while the slot is in use (`Node::new`), so that the pointer is valid to the end
            // of its frame; 8 bytes at a multiple of 8 do not cross that, and are aligned since
            // frames are. All accesses to nodes that others can reach are atomic.
            f(unsafe { AtomicU64::from_ptr(p.cast().as_ptr()) })
        })
    }

    /// Reads the entry; acquires what was written before a node was linked.
    pub(crate) fn load(self) -> u64 {
        self.with(|entry| entry.load(Ordering::Acquire))
    }

    /// Writes the entry, where nobody else writes it: exclusive, or quiet.
    pub(crate) fn store(self, raw: u64) {
        self.with(|entry| entry.store(raw, Ordering::Release));
    }

    /// Writes the entry and returns what it was, in one step.
    pub(crate) fn swap(self, raw: u64) -> u64 {
        self.with(|entry| entry.swap(raw, Ordering::AcqRel))
    }

    /// Writes `new` if the entry is `old`; otherwise returns what it is.
    pub(crate) fn compare_exchange(self, old: u64, new: u64) -> Result<(), u64> {
        self.with(|entry| {
            entry.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).map(drop)
        })
    }

    /// Adds to the entry, in one step.
    pub(crate) fn fetch_add(self, n: u64) {
        self.with(|entry| entry.fetch_add(n, Ordering::Relaxed));
    }

    /// Subtracts from the entry, in one step.
    pub(crate) fn fetch_sub(self, n: u64) {
        self.with(|entry| entry.fetch_sub(n, Ordering::Relaxed));
    }
}

/// 4 KiB of 8 bytes each.
const ENTRIES_PER_FRAME: usize = 512;

/// Takes a block for a node of this level, all holes.
pub(crate) fn alloc<M: Memory>(mem: &M, level: Level) -> Result<PhysAddr, OutOfFrames> {
    let pa = mem.alloc(level.order())?;
    for frame in 0..1u64 << level.order() {
        mem.with(pa.wrapping_add(frame << PAGE_SHIFT), |p| {
            // SAFETY: a frame of the block that was handed out just now, so that nobody else
            // reaches it; the pointer is valid for its 4 KiB, and aligned as frames are.
            unsafe { p.cast::<u64>().write_bytes(0, ENTRIES_PER_FRAME) };
        });
    }
    Ok(pa)
}

/// Gives a node back.
///
/// # Safety
///
/// It was taken by [`alloc`] for this level, and nobody reaches it any more: it is not linked, and
/// no CPU has an interior entry that leads to it.
pub(crate) unsafe fn free<M: Memory>(mem: &M, pa: PhysAddr, level: Level) {
    // SAFETY: passed on to the caller.
    unsafe { mem.free(pa, level.order()) };
}
