//! Nodes that somebody holds, outside of any chain: a stock.
//!
//! ```text
//!   list --> node { -, link, - } --> node { -, link, - } --> 0
//! ```
//!
//! # Invariants
//!
//! - The nodes of a list are the list's alone, so they need no lock.

use super::{LINK, Pool};
use crate::word::{load, store};
use vellum_core::{Memory, OutOfFrames, PhysAddr};

/// A list through the link words of its nodes; 0 ends it, where no node can lie (a header does).
#[derive(Debug, Default)]
pub(super) struct List {
    first: u64,
    pub(super) count: u32,
}

impl List {
    /// # Safety
    ///
    /// `node` is a node of a pool over `memory`, and nobody else's.
    pub(super) unsafe fn push<M: Memory>(&mut self, memory: &M, node: PhysAddr) {
        // SAFETY: the caller's.
        unsafe { store(memory, node.wrapping_add(LINK), self.first) };
        self.first = node.as_u64();
        self.count += 1;
    }

    /// `memory` is that of the nodes that were pushed.
    pub(super) fn pop<M: Memory>(&mut self, memory: &M) -> Option<PhysAddr> {
        let node = PhysAddr::new(self.first);
        self.count = self.count.checked_sub(1)?;
        // SAFETY: by `push` it is a node, and the list's alone.
        self.first = unsafe { load(memory, node.wrapping_add(LINK)) };
        Some(node)
    }
}

/// A few nodes of a pool, held ready; dropping it gives them back.
///
/// This is the stock of a design whose entries may need a node. It tells pools apart: one that
/// belongs to another pool is empty to this one.
///
/// A stock that is made for one entry should not cost what one for many does. So the first refill
/// brings as much as is needed, and each further one twice as much as the last, up to a batch.
pub struct Nodes<'p, M: Memory> {
    pool: &'p Pool<M>,
    list: List,
    /// What the next refill brings, if not more is needed.
    batch: u32,
}

impl<'p, M: Memory> Nodes<'p, M> {
    /// Nodes that a refill brings at most, unless more are needed; as far as no frame has to be taken
    /// for them.
    pub const BATCH: u32 = 16;
    /// Nodes that are held at most before [`put`](Self::put) gives all of them back.
    pub const MOST: u32 = 32;

    /// None.
    #[must_use]
    pub fn new(pool: &'p Pool<M>) -> Self {
        Self { pool, list: List::default(), batch: 1 }
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.list.count
    }

    /// How many a [`refill`](Self::refill) for `need` brings.
    #[must_use]
    pub fn brings(&self, need: u32) -> u32 {
        need.max(self.batch)
    }

    /// Makes sure of at least `need` nodes of `pool`.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; it keeps what it has got.
    pub fn refill(&mut self, pool: &'p Pool<M>, need: u32) -> Result<(), OutOfFrames> {
        if !core::ptr::eq(self.pool, pool) {
            *self = Self::new(pool);
        }
        let want = self.brings(need);
        self.batch = want.saturating_mul(2).min(Self::BATCH);
        pool.take(&mut self.list, need, want)
    }

    /// A node of `pool`: the caller's, in no chain.
    #[inline]
    pub fn take(&mut self, pool: &Pool<M>) -> Option<PhysAddr> {
        if core::ptr::eq(self.pool, pool) { self.list.pop(&pool.memory) } else { None }
    }

    /// Takes a node of `pool` back: to be taken again, or to the pool if this is another one's or
    /// has enough. Not under a chain's lock.
    ///
    /// # Safety
    ///
    /// `node` was taken from `pool`, is in no chain, and nobody reaches it any more.
    pub unsafe fn put(&mut self, pool: &Pool<M>, node: PhysAddr) {
        if !core::ptr::eq(self.pool, pool) {
            let mut alone = List::default();
            // SAFETY: the caller's.
            unsafe { alone.push(&pool.memory, node) };
            // SAFETY: likewise: one node of this pool, that nobody reaches.
            unsafe { pool.give(&mut alone) };
            return;
        }
        // SAFETY: the caller's.
        unsafe { self.list.push(&pool.memory, node) };
        if self.list.count > Self::MOST {
            // SAFETY: the list holds nodes of this pool that are its alone.
            unsafe { pool.give(&mut self.list) };
        }
    }
}

impl<M: Memory> Drop for Nodes<'_, M> {
    fn drop(&mut self) {
        if self.list.count > 0 {
            // SAFETY: the list holds nodes of this pool that are its alone.
            unsafe { self.pool.give(&mut self.list) };
        }
    }
}

impl<M: Memory> core::fmt::Debug for Nodes<'_, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Nodes({})", self.count())
    }
}
