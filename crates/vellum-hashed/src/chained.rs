//! Hashing with chains, in a directory of nodes that grows a bucket at a time.
//!
//! ```text
//!   bucket, 32 bytes of the directory                        node, 24 bytes of a pool's frame
//!  +---------------------+---------+-----------+---------+  +---------------------+------+-----+
//!  | 1 | 0 | asid | page | next, 0 | raw entry | version |  | 1 | 0 | asid | page | next | raw |
//!  |    tag, 0: empty    |   --------------------------------->  tag              |      |     |
//!  +---------------------+---------+-----------+---------+  +---------------------+------+-----+
//!    0                     8         16          24           0                     8      16
//! ```
//!
//! A bucket is the first node of its chain, so that a look-up that finds its page there, as two of
//! three do at a load of 1, has read one line. Nodes are for what collides.
//!
//! The directory grows by linear hashing. A table of n buckets holds n entries before it does (a
//! load of 1, passed at most by what stocks have in hand), and a step of growth divides one chain.
//!
//! A walker reads 16 bytes of the bucket and of each node that is of another page (tag and next), 24
//! of the one that it looks for: 1 + a/2 of them for a hit at a load of a, a + e^-a for a miss.
//!
//! A leaf of 2 MiB or 1 GiB is one entry, under its own key: a walk for it costs what one for a page
//! does, after those for smaller sizes if its space has such leaves.
//!
//! # Look-ups take no lock
//!
//! The fourth word of a bucket is a sequence lock (vellum_global::sequence) of the bucket and the
//! nodes behind it. A look-up finds the bucket of n, begins at its version, and looks at n again: if
//! that is the same, the bucket was the right one when the version was read, since
//!
//! - a split that was over by then has stored n + 1 before it gave the lock back, which the look-up
//!   would see;
//! - one that begins later takes the lock of the bucket that it divides first, and moves the version.
//!
//! What it reads then counts if the version has not moved at the end. A page that nobody changes is
//! not missed: it is in the chain that the version stands for, whole.
//!
//! Nodes' frames stay the pool's while the table is shared, as a look-up may still read a node that
//! was freed; [`shrink`](Chained::shrink), [`reclaim`](Chained::reclaim) and `Drop` give them back.
//! Segments of the directory go by `shrink` and `Drop` alone.
//!
//! # Invariants
//!
//! - A bucket with tag 0 has no nodes behind it.
//! - Words of a bucket below n, and nodes in its chain, are stored by the holder of its version.
//! - Who holds a bucket that a hash belongs to, having looked at n since, holds the one that it
//!   belongs to until it is given back: a split of it takes its lock first.
//! - The second word of a bucket below n is 0 or the address of a node, always; one of a node is
//!   followed only after a look at the version (vellum_global::node).
//!
//! # Lock order
//!
//! One bucket; nothing under it.
//!
//! Source: P.-A. Larson, "Dynamic Hash Tables", CACM 31(4), 1988; D. E. Knuth, "The Art of Computer
//! Programming", vol. 3, 6.4 "Hashing" (chains whose heads are records: the counts above).

use crate::directory::{Directory, bucket_of};
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Memory, Need, OutOfFrames, PAGE_SHIFT, Sink};
use vellum_global::node::{self, Found, HIT_BYTES, MISS_BYTES, Words};
use vellum_global::pool::NODE_BYTES;
use vellum_global::sequence::Held;
use vellum_global::{
    Asid, AsidError, Asids, Key, Lowest, Node, Nodes, Note, Notes, Pool, Refused, Sequence, Size,
    Space, Store,
};

mod grow;

/// Words of a bucket.
const WORDS: u64 = 4;
/// Where in a bucket its version is.
const VERSION: u64 = 24;
/// The words of a bucket that is empty.
const EMPTY: Words = Words { tag: 0, next: 0, raw: 0 };

/// A hashed page table of all spaces; [`space`](Self::space) makes a handle of one.
pub struct Chained<M: Memory> {
    directory: Directory<M, WORDS>,
    pool: Pool<M>,
    asids: Asids,
    entries: AtomicU64,
}

impl<M: Memory> Chained<M> {
    /// An empty table of 128 buckets: one frame.
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
            pool: Pool::keeping(memory, NODE_BYTES),
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
        if bucket >= self.count_buckets() {
            return 0;
        }
        let (bucket, _held) = self.hold_bucket(bucket);
        // SAFETY: the bucket is held.
        let behind = unsafe { node::nodes(self.memory(), bucket.next()) }.count();
        u64::from(bucket.tag() != 0) + behind as u64
    }

    /// The memory that it was made with.
    pub const fn memory(&self) -> &M {
        self.directory.memory()
    }

    /// A bucket below n, as a node; or the one that is added.
    #[inline]
    fn bucket(&self, bucket: u64) -> Node<'_, M> {
        // SAFETY: its segment is there, for as long as `&self` is; buckets are 32 bytes and aligned
        // to that. They and nodes are touched through atomics only.
        unsafe { Node::new(self.memory(), self.directory.head(bucket)) }
    }

    /// The lock of a bucket and what is behind it.
    #[inline]
    fn sequence(&self, bucket: Node<'_, M>) -> Sequence<'_, M> {
        // SAFETY: as in `bucket`; the fourth word is nothing else.
        unsafe { Sequence::new(self.memory(), bucket.at().wrapping_add(VERSION)) }
    }

    /// Holds a bucket below n.
    fn hold_bucket(&self, bucket: u64) -> (Node<'_, M>, Held<'_, M>) {
        let bucket = self.bucket(bucket);
        (bucket, self.sequence(bucket).hold())
    }

    /// Holds the bucket that a hash belongs to.
    #[inline]
    fn hold(&self, hash: u64) -> (Node<'_, M>, Held<'_, M>) {
        loop {
            let number = self.directory.bucket_of(hash);
            let held = self.hold_bucket(number);
            if self.directory.bucket_of(hash) == number {
                return held;
            }
        }
    }

    /// The raw entry of a page, or 0.
    #[inline]
    fn look_up(&self, key: Key, notes: &mut impl Note) -> u64 {
        notes.until(|notes| self.look(key, notes))
    }

    /// A look-up, noting what a walker reads; `None` if somebody wrote meanwhile.
    #[inline]
    fn look(&self, key: Key, notes: &mut impl Note) -> Option<u64> {
        let n = self.directory.count();
        let bucket = self.bucket(bucket_of(key.hash(), n));
        let version = self.sequence(bucket).begin();
        if self.directory.count() != n {
            return None;
        }
        let first = bucket.words();
        if first.tag == key.tag() {
            notes.note(bucket.at(), HIT_BYTES, false);
            return version.is_current().then_some(first.raw);
        }
        notes.note(bucket.at(), MISS_BYTES, false);
        // SAFETY: the version is that of the bucket and of the nodes behind it, which are the pool's,
        // and that keeps its frames while `&self` is. Buckets below n hold links there at all times.
        unsafe { node::look(self.memory(), &version, first.next, key, notes) }
    }

    /// The entry of a page in a bucket that is held; one without a node before it is the bucket's.
    #[inline]
    fn find<'t>(&'t self, bucket: Node<'t, M>, key: Key) -> Option<Found<'t, M>> {
        let first = bucket.words();
        if first.tag == key.tag() {
            return Some(Found { node: bucket, before: None });
        }
        // SAFETY: the bucket is held.
        let found = unsafe { node::find(self.memory(), first.next, key) }?;
        Some(Found { before: found.before.or(Some(bucket)), ..found })
    }

    /// Adds an entry to a bucket that is held.
    #[inline]
    fn insert<'t>(
        &'t self,
        bucket: Node<'t, M>,
        (key, raw): (Key, u64),
        stock: &mut Nodes<'t, M>,
    ) -> Result<(), Need> {
        if bucket.tag() == 0 {
            bucket.fill(key, 0, raw);
        } else {
            let at = stock.take(&self.pool).ok_or(Need::new(1))?;
            // SAFETY: a node of our pool, which the stock had alone.
            let node = unsafe { Node::new(self.memory(), at) };
            node.fill(key, bucket.next(), raw);
            bucket.set_next(at.as_u64());
        }
        Ok(())
    }

    /// Empties a bucket that is held, or gives it the entry of the first node behind it, which is in
    /// no chain then.
    fn vacate<'t>(&'t self, bucket: Node<'t, M>) -> Option<Node<'t, M>> {
        // SAFETY: the bucket is held.
        let next = unsafe { Node::follow(self.memory(), bucket.next()) };
        bucket.set(next.map_or(EMPTY, |node| node.words()));
        next
    }

    /// Takes out an entry that was found in a bucket that is held; the node that this leaves.
    #[inline]
    fn remove<'t>(&'t self, found: &Found<'t, M>) -> Option<Node<'t, M>> {
        match found.before {
            None => self.vacate(found.node),
            Some(before) => {
                before.set_next(found.node.next());
                Some(found.node)
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
        self.grow(2 * u64::from(stock.brings(need.get())), stock);
        stock.refill(&self.pool, need.get())
    }

    #[inline]
    fn walk<S: Sink>(&self, key: Key, sink: &mut S) -> u64 {
        if S::HEARS {
            Notes::told(sink, |notes| self.look_up(key, notes))
        } else {
            self.look_up(key, &mut ())
        }
    }

    fn update<'t, E>(
        &'t self,
        key: Key,
        stock: &mut Nodes<'t, M>,
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<u64, Refused<E>> {
        let (bucket, held) = self.hold(key.hash());
        let found = self.find(bucket, key);
        let old = found.as_ref().map_or(0, |found| found.node.raw());
        let new = f(old).map_err(Refused::By)?;
        match (found, new) {
            (None, 0) => {}
            (None, new) => {
                self.insert(bucket, (key, new), stock).map_err(Refused::Need)?;
                drop(held);
                self.entries.fetch_add(1, Ordering::Relaxed);
            }
            (Some(found), 0) => {
                let left = self.remove(&found);
                drop(held);
                self.entries.fetch_sub(1, Ordering::Relaxed);
                if let Some(node) = left {
                    // SAFETY: it came from the pool, and is in no chain any more; a look-up that has
                    // its address still reads it, which the pool allows for.
                    unsafe { stock.put(&self.pool, node.at()) };
                }
            }
            (Some(_), new) if new == old => {}
            (Some(found), new) => found.node.set_raw(new),
        }
        Ok(old)
    }

    fn count_stripes(&self) -> u64 {
        self.directory.count()
    }

    fn scan(&self, stripe: u64, found: &mut Lowest) {
        if stripe < self.count_stripes() {
            let (bucket, _held) = self.hold_bucket(stripe);
            if let Some(key) = Key::from_tag(bucket.tag()) {
                found.offer(key, bucket.raw());
            }
            // SAFETY: the bucket is held.
            unsafe { node::offer(self.memory(), bucket.next(), found) };
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
