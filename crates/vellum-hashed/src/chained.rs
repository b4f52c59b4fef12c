//! Hashing with chains, in a directory that grows a bucket at a time.
//!
//! ```text
//!   directory                       node, 24 bytes of a pool's frame
//!  +--------------------------+    +---------------------+--------------+-------------+
//!  | head of bucket 0         |    | 1 | 0 | asid | page | address of   | raw entry   |
//!  +--------------------------+    |    tag              | the next, 0  | (pte)       |
//!  | head of bucket 1         |    +---------------------+--------------+-------------+
//!  +--------------------------+      0                     8              16
//!  | ...                      |
//!  +--------------------------+    head, 8 bytes
//!  | head of bucket n - 1     |    +----------------------------------------------+---+
//!  +--------------------------+    | address of the first node, 0                 | L |
//!                                  +----------------------------------------------+---+
//!                                    L: the chain's lock
//! ```
//!
//! The directory grows by linear hashing. A table of n buckets holds n entries before it does (a
//! load of 1, passed at most by the nodes that stocks have in hand), and a step of growth moves half
//! of one chain.
//!
//! A walker reads the head and then nodes: 8 bytes, 16 of each node of another page (tag and link),
//! 24 of the one that it looks for.
//!
//! A leaf of 2 MiB or 1 GiB is one node, under its own key: a walk for it costs what one for a page
//! does, after those for smaller sizes if its space has such leaves.
//!
//! There is no shrinking through `&self`: somebody may be waiting for the lock in a head, so a
//! segment's memory can only go when nobody holds the table. [`shrink`](Chained::shrink) and
//! `Drop` take it exclusively. Nodes are freed at any time.
//!
//! # Invariants
//!
//! - A key's bucket is looked up before the bucket's lock is taken and again under it; if it is the
//!   same, it stays so until the lock is given back, since a split of it takes that lock first.
//!
//! # Lock order
//!
//! One chain; nothing under it.
//!
//! Source: P.-A. Larson, "Dynamic Hash Tables", CACM 31(4), 1988.

use crate::directory::Directory;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Memory, Need, OutOfFrames, PAGE_SHIFT, Sink};
use vellum_global::{
    Asid, AsidError, Asids, Chain, Key, Lowest, Nodes, Pool, Refused, Size, Space, Store, Trail,
};

mod grow;

/// A hashed page table of all spaces; [`space`](Self::space) makes a handle of one.
pub struct Chained<M: Memory> {
    directory: Directory<M>,
    pool: Pool<M>,
    asids: Asids,
    entries: AtomicU64,
}

impl<M: Memory> Chained<M> {
    /// An empty table of 512 buckets: one frame.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn new(memory: M) -> Result<Self, OutOfFrames> {
        Self::with_capacity(memory, 0)
    }

    /// An empty table with a bucket for each of `pages` pages, their number rounded up to a power
    /// of two: until it holds as many entries, it does not grow.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub fn with_capacity(memory: M, pages: u64) -> Result<Self, OutOfFrames> {
        Ok(Self {
            directory: Directory::new(memory.clone(), pages)?,
            pool: Pool::new(memory),
            asids: Asids::new(),
            entries: AtomicU64::new(0),
        })
    }

    /// The space `asid`, empty.
    ///
    /// # Errors
    ///
    /// [`AsidError`]: another handle has it, or the table has no such identifier.
    pub fn space(&self, asid: Asid) -> Result<Space<'_, Self>, AsidError> {
        Space::open(self, asid)
    }

    /// How many buckets there are.
    pub fn count_buckets(&self) -> u64 {
        self.directory.count()
    }

    /// How many entries the bucket has; 0 for one that does not exist.
    pub fn count_in_bucket(&self, bucket: u64) -> u64 {
        if bucket < self.count_buckets() { self.lock_bucket(bucket).count() } else { 0 }
    }

    /// The memory that it was made with.
    pub const fn memory(&self) -> &M {
        self.pool.memory()
    }

    /// Locks a bucket below n.
    fn lock_bucket(&self, bucket: u64) -> Chain<'_, M> {
        // SAFETY: a bucket below n has its head in a segment that is there for as long as `&self`
        // is; it holds 0 or the address of a node, and so do the links of nodes. Nodes of a chain
        // are the pool's in use, so their frames stay, until they are unlinked under this lock.
        unsafe { Chain::lock(self.memory(), self.directory.head(bucket)) }
    }

    /// Locks the bucket that `key` belongs to.
    fn lock(&self, key: Key) -> Chain<'_, M> {
        let hash = key.hash();
        loop {
            let bucket = self.directory.bucket_of(hash);
            let chain = self.lock_bucket(bucket);
            if self.directory.bucket_of(hash) == bucket {
                return chain;
            }
        }
    }
}

impl<M: Memory> Store for Chained<M> {
    type Stock<'t>
        = Nodes<'t, M>
    where
        Self: 't;

    const LEAVES: u64 = Size::ALL_LEAVES;

    fn stock(&self) -> Nodes<'_, M> {
        Nodes::new(&self.pool)
    }

    fn refill<'t>(&'t self, stock: &mut Nodes<'t, M>, need: Need) -> Result<(), OutOfFrames> {
        // Two steps for each node that may be used, so that growth catches up.
        self.grow(2 * u64::from(need.get().max(Nodes::<M>::BATCH)));
        stock.refill(&self.pool, need.get())
    }

    fn walk<S: Sink>(&self, key: Key, sink: &mut S) -> u64 {
        Trail::walk(key, sink, || self.lock(key))
    }

    fn update<'t, E>(
        &'t self,
        key: Key,
        stock: &mut Nodes<'t, M>,
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<u64, Refused<E>> {
        let mut chain = self.lock(key);
        let found = chain.find(key, |_| {});
        let old = found.map_or(0, |found| found.pte);
        let new = f(old).map_err(Refused::By)?;
        match (found, new) {
            (None, 0) => {}
            (None, new) => {
                let node = stock.take(&self.pool).ok_or(Refused::Need(Need::new(1)))?;
                // SAFETY: a node of the pool, which the stock had alone.
                unsafe { chain.insert(node, key, new) };
                self.entries.fetch_add(1, Ordering::Relaxed);
            }
            (Some(found), 0) => {
                // SAFETY: found under this lock, and nothing was changed since.
                unsafe { chain.unlink(&found) };
                drop(chain);
                self.entries.fetch_sub(1, Ordering::Relaxed);
                // SAFETY: it came from the pool, and is in no chain any more; whoever reads one
                // holds its lock, so nobody has the address.
                unsafe { stock.put(&self.pool, found.at) };
            }
            (Some(_), new) if new == old => {}
            // SAFETY: found under this lock.
            (Some(found), new) => unsafe { chain.write(&found, new) },
        }
        Ok(old)
    }

    fn count_stripes(&self) -> u64 {
        self.directory.count()
    }

    fn scan(&self, stripe: u64, found: &mut Lowest) {
        if stripe < self.count_stripes() {
            self.lock_bucket(stripe).offer(found);
        }
    }

    fn count_entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn table_bytes(&self) -> u64 {
        self.directory.table_bytes() + (self.pool.count_frames() << PAGE_SHIFT)
    }

    fn asids(&self) -> &Asids {
        &self.asids
    }
}

impl<M: Memory> fmt::Debug for Chained<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chained")
            .field("entries", &self.count_entries())
            .field("buckets", &self.count_buckets())
            .field("bytes", &self.table_bytes())
            .finish()
    }
}

#[cfg(test)]
mod tests;
