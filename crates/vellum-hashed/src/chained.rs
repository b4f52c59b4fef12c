//! Hashing with chains, in a directory that grows a bucket at a time.
//!
//! ```text
//!   directory, in segments          node, 24 bytes of a pool's frame
//!  +--------------------------+    +---------------------+--------------+-------------+
//!  | 512 heads     (1 frame)  |    | 1 | 0 | asid | page | address of   | raw entry   |
//!  +--------------------------+    |    tag              | the next, 0  | (pte)       |
//!  | 512 heads     (1 frame)  |    +---------------------+--------------+-------------+
//!  +--------------------------+      0                     8              16
//!  | 1024 heads    (2 frames) |
//!  |                          |    head, 8 bytes
//!  +--------------------------+    +----------------------------------------------+---+
//!  | 2048 heads    (4 frames) |    | address of the first node, 0                 | L |
//!  | ...                      |    +----------------------------------------------+---+
//!                                    L: the chain's lock
//!
//!   n buckets, 2^k <= n < 2^(k+1);  s = n - 2^k is the next to be split
//!
//!     0 ......... s ........ 2^k ........ n
//!     | split     | whole    | halves     |
//!                                           bucket of a hash h:  b = h mod 2^(k+1);
//!     bucket s splits into s and n          if b >= n, then b - 2^k
//! ```
//!
//! A table of n buckets holds n entries before it grows (a load of 1, passed at most by the nodes
//! that stocks have in hand), and a step of growth moves half of one chain: no pause grows with the
//! table, but for filling a new segment with zeros. A segment is as large as all before it, so the
//! directory is at most half empty; where the memory has no block of that size, chains get longer
//! instead, and growth is tried again later. No allocation fails for want of a directory.
//!
//! A walker reads the head and then nodes: 8 bytes, 16 of each node of another page (tag and link),
//! 24 of the one that it looks for. That the bases of the segments and n lie in registers, as the
//! base and mask of PowerPC's table do, is assumed.
//!
//! There is no shrinking through `&self`: somebody may be waiting for the lock in a head, so a
//! segment's memory can only go when nobody holds the table. [`shrink`](Chained::shrink) and
//! `Drop` take it exclusively. Nodes are freed at any time.
//!
//! # Invariants
//!
//! - n is read before a bucket's lock is taken and again under it; if the bucket of the hash is the
//!   same, it stays so until the lock is given back, since a split of it takes that lock first.
//! - n grows by the holder of `splitting` alone, while it holds the lock of the bucket that it
//!   splits; the head that n + 1 adds is written before.
//! - A segment, once there, stays for as long as the table is shared.
//!
//! # Lock order
//!
//! One chain; nothing under it. `splitting` is only ever tried.
//!
//! Source: W. Litwin, "Linear Hashing: A New Tool for File and Table Addressing", VLDB 1980;
//! P.-A. Larson, "Dynamic Hash Tables", CACM 31(4), 1988.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vellum_core::{Memory, Need, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr, Sink};
use vellum_global::word::alloc_zeroed;
use vellum_global::{
    Asid, AsidError, Asids, Chain, Key, Lowest, Nodes, Pool, Refused, Space, Store, Trail,
};

mod grow;

/// Heads in segment 0, and in segment 1: one frame of them.
const FIRST: u64 = PAGE_SIZE / HEAD;
const HEAD: u64 = 8;
/// Segments at most: more than a tag has pages for.
const SEGMENTS: usize = 40;
/// In a segment's word: it is there. (Its address may be 0.)
const THERE: u64 = 1;

/// A hashed page table of all spaces; [`space`](Self::space) makes a handle of one.
pub struct Chained<M: Memory> {
    pool: Pool<M>,
    asids: Asids,
    /// n: how many buckets are in use.
    buckets: AtomicU64,
    entries: AtomicU64,
    /// Address of each segment, with [`THERE`].
    segments: [AtomicU64; SEGMENTS],
    count_frames: AtomicU64,
    /// Somebody is splitting a bucket.
    splitting: AtomicBool,
    /// After a segment could not be had: how many entries there will be when it is tried again.
    retry_at: AtomicU64,
}

/// The segment of a bucket, and its place in it.
const fn place(bucket: u64) -> (usize, u64) {
    match bucket.checked_ilog2() {
        Some(log2) if bucket >= FIRST => {
            ((log2 - FIRST.ilog2() + 1) as usize, bucket - (1 << log2))
        }
        _ => (0, bucket),
    }
}

/// The order of a segment's block, if there may be such a segment.
fn segment_order(segment: usize) -> Option<u8> {
    let order = u8::try_from(segment.saturating_sub(1)).ok()?;
    (segment < SEGMENTS).then_some(order)
}

/// The bucket of `hash` among `n`, which is at least 1.
const fn bucket_of(hash: u64, n: u64) -> u64 {
    let half = 1 << n.ilog2();
    let bucket = hash & (2 * half - 1);
    if bucket < n { bucket } else { bucket - half }
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
        let buckets = pages.clamp(FIRST, 1 << 45).next_power_of_two();
        let table = Self {
            pool: Pool::new(memory),
            asids: Asids::new(),
            buckets: AtomicU64::new(FIRST),
            entries: AtomicU64::new(0),
            segments: [const { AtomicU64::new(0) }; SEGMENTS],
            count_frames: AtomicU64::new(0),
            splitting: AtomicBool::new(false),
            retry_at: AtomicU64::new(0),
        };
        let (last, _) = place(buckets - 1);
        for segment in 0..=last {
            // On failure, dropping the table gives back what it has got.
            table.add_segment(segment)?;
        }
        table.buckets.store(buckets, Ordering::Relaxed);
        Ok(table)
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
        self.buckets.load(Ordering::Relaxed)
    }

    /// How many entries the bucket has; 0 for one that does not exist.
    pub fn count_in_bucket(&self, bucket: u64) -> u64 {
        if bucket < self.count_buckets() { self.lock_bucket(bucket).count() } else { 0 }
    }

    /// The memory that it was made with.
    pub const fn memory(&self) -> &M {
        self.pool.memory()
    }

    /// Takes a segment of heads from the memory.
    fn add_segment(&self, segment: usize) -> Result<(), OutOfFrames> {
        let order = segment_order(segment).ok_or(OutOfFrames { order: u8::MAX })?;
        let Some(word) = self.segments.get(segment) else { return Ok(()) };
        let block = alloc_zeroed(self.memory(), order)?;
        self.count_frames.fetch_add(1 << order, Ordering::Relaxed);
        // Ordered before the first use by the store of n that lets its heads be used.
        word.store(block.as_u64() | THERE, Ordering::Relaxed);
        Ok(())
    }

    fn has_segment(&self, segment: usize) -> bool {
        self.segments.get(segment).is_some_and(|word| word.load(Ordering::Relaxed) & THERE != 0)
    }

    /// Where the head of a bucket lies, whose segment is there.
    fn head(&self, bucket: u64) -> PhysAddr {
        let (segment, offset) = place(bucket);
        let base = self.segments.get(segment).map_or(0, |word| word.load(Ordering::Relaxed));
        debug_assert!(base & THERE != 0, "bucket {bucket} has no segment");
        PhysAddr::new(base & !THERE).wrapping_add(offset * HEAD)
    }

    /// Locks a bucket below n.
    fn lock_bucket(&self, bucket: u64) -> Chain<'_, M> {
        // SAFETY: a bucket below n has its head in a segment that is there for as long as `&self`
        // is; it holds 0 or the address of a node, and so do the links of nodes. Nodes of a chain
        // are the pool's in use, so their frames stay, until they are unlinked under this lock.
        unsafe { Chain::lock(self.memory(), self.head(bucket)) }
    }

    /// Locks the bucket that `key` belongs to.
    fn lock(&self, key: Key) -> Chain<'_, M> {
        let hash = key.hash();
        loop {
            // Acquire: with n comes the segment of the last bucket.
            let bucket = bucket_of(hash, self.buckets.load(Ordering::Acquire));
            let chain = self.lock_bucket(bucket);
            if bucket_of(hash, self.buckets.load(Ordering::Acquire)) == bucket {
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
        self.buckets.load(Ordering::Acquire)
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
        (self.count_frames.load(Ordering::Relaxed) + self.pool.count_frames()) << PAGE_SHIFT
    }

    fn asids(&self) -> &Asids {
        &self.asids
    }
}

impl<M: Memory> Drop for Chained<M> {
    fn drop(&mut self) {
        // The pool gives back the nodes; the chains that led to them go here.
        for segment in 0..SEGMENTS {
            self.free_segment(segment);
        }
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
