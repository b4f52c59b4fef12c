//! Hashing of blocks of neighbouring pages: a node has the entries of 16 pages, or of 6 in one line.
//!
//! ```text
//!   directory            node of Clustered16, 144 bytes
//!  +--------+           +------------------------+--------------+-----------------------+
//!  | head --|---------> | 1 | 0 | asid | block<<4 | next     | k | pte 0 | ...   | pte 15 |
//!  +--------+           +------------------------+--------------+-----------------------+
//!  | head   |             0                        8              16                    144
//!  +--------+
//!  | ...    |            node of Clustered6, 64 bytes: a line
//!                       +------------------------+--------------+----------------------+
//!                       | 1 | 0 | asid | block*6  | next     | 0 | pte 0 | ...   | pte 5 |
//!                       +------------------------+--------------+----------------------+
//!                         0                        8              16                   64
//!     k: base or partial-subblock (clustered/block.rs)
//! ```
//!
//! A tag and a link serve a block instead of a page: 9.5 bytes a page in a full block of 16, head
//! included, against 32 of chains of single pages; 152 where a block has one. The tag is that of the
//! block's first page. Leaves of 2 MiB and 1 GiB are in blocks of their own size, 16 or 6 of them.
//!
//! The directory grows by linear hashing, with the node as the unit: at a load of one node a bucket.
//! A block's node goes when its last entry does.
//!
//! A walker reads the head, 8 bytes; tag and link, 16 bytes, of each node of another block; and of
//! the one that it looks for: 64 bytes if that is a line; else tag, link, and the two words of a
//! partial-subblock, 32 bytes; else tag and link, and then the page's entry, 8 bytes, mostly of
//! another line.
//!
//! Look-ups take no lock. The stripe of a bucket is chosen by the low 9 bits of its hashes, which
//! all buckets have that it will ever be split into; so one sequence lock covers a block wherever
//! growth moves it, and a look-up whose version did not move saw one chain, whole.
//!
//! # Invariants
//!
//! - Heads, and nodes that are in a chain, are stored under the stripe of the bucket.
//! - A look-up follows the link of a node only after it saw that the version had not moved since: then
//!   the link led to a node. If that is freed now, its frame stays the pool's, and the next look at the
//!   version tells. A head holds 0 or leads to a node at any time.
//! - Splitting a bucket holds its stripe from the first link that changes until n is published.
//!
//! # Lock order
//!
//! One stripe; nothing under it.
//!
//! Source: M. Talluri, M. D. Hill, Y. A. Khalidi, "A New Page Table for 64-bit Address Spaces", SOSP
//! 1995. There a partial-subblock's node is smaller than a base node; see clustered/block.rs.

use crate::directory::Directory;
use block::{Block, Kind, Left};
use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Memory, Need, OutOfFrames, PAGE_SHIFT, PhysAddr, Sink};
use vellum_global::stripes::Held;
use vellum_global::word::load;
use vellum_global::{
    Asid, AsidError, Asids, Key, Lowest, Nodes, Note, Notes, Pool, Refused, Size, Space, Store,
    Stripes,
};

mod block;
mod grow;

/// Bytes that a cache keeps together.
const LINE: u64 = 64;
/// Bytes that a walker reads of a head.
const HEAD_BYTES: u8 = 8;
/// Of a node of another block, and first of any: tag and link.
const HEADER_BYTES: u8 = 16;
/// Of a partial-subblock.
const PARTIAL_BYTES: u8 = 32;
/// Of an entry by itself.
const ENTRY_BYTES: u8 = 8;

/// Blocks of 16 pages.
pub type Clustered16<M> = Clustered<M, 16>;
/// Blocks of 6 pages, each a line.
pub type Clustered6<M> = Clustered<M, 6>;

/// A hashed page table of all spaces, with `PAGES` entries a node; [`space`](Self::space) makes a
/// handle of one.
pub struct Clustered<M: Memory, const PAGES: usize> {
    directory: Directory<M>,
    stripes: Stripes<M>,
    pool: Pool<M>,
    asids: Asids,
    entries: AtomicU64,
    blocks: AtomicU64,
}

/// How many nodes there are of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// With an entry for each page.
    pub base: u64,
    /// With one word for some of their pages.
    pub partial: u64,
    /// With one word for all of their pages.
    pub superpages: u64,
}

/// A node and the one before it in its chain.
struct Found<'m, M, const PAGES: usize> {
    block: Block<'m, M, PAGES>,
    before: Option<Block<'m, M, PAGES>>,
}

impl<M: Memory, const PAGES: usize> Clustered<M, PAGES> {
    /// An empty table of 512 buckets: one frame, and one of locks.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn new(memory: M) -> Result<Self, OutOfFrames> {
        Self::with_capacity(memory, 0)
    }

    /// An empty table with a bucket for each block of `pages` neighbouring pages, their number
    /// rounded up to a power of two: until it has as many blocks, it does not grow.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub fn with_capacity(memory: M, pages: u64) -> Result<Self, OutOfFrames> {
        Ok(Self {
            directory: Directory::new(memory.clone(), pages.div_ceil(PAGES as u64))?,
            stripes: Stripes::new(memory.clone())?,
            pool: Pool::keeping(memory, Block::<M, PAGES>::BYTES),
            asids: Asids::new(),
            entries: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
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

    /// The memory that it was made with.
    pub const fn memory(&self) -> &M {
        self.directory.memory()
    }

    /// How many buckets there are.
    pub fn count_buckets(&self) -> u64 {
        self.directory.count()
    }

    /// How many nodes there are: blocks with an entry.
    pub fn count_blocks(&self) -> u64 {
        self.blocks.load(Ordering::Relaxed)
    }

    /// How many nodes the bucket has; 0 for one that does not exist.
    pub fn count_in_bucket(&self, bucket: u64) -> u64 {
        let mut count = 0;
        self.each_block(bucket, |_| count += 1);
        count
    }

    /// Counts nodes by their kinds, in a pass over the table.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for bucket in 0..self.count_buckets() {
            self.each_block(bucket, |block| match block.next().1 {
                Kind::Base => census.base += 1,
                Kind::Partial if block.entries().contains(&0) => census.partial += 1,
                Kind::Partial => census.superpages += 1,
            });
        }
        census
    }

    /// The first page of the block of a key, and the key's place in it.
    fn block_of(key: Key) -> (Key, usize) {
        let place = key.number() % PAGES as u64;
        // The place is no more than the number, so this does not leave the space.
        (key.plus(place.wrapping_neg()), place as usize)
    }

    /// Takes the stripe of a bucket or of a hash.
    fn hold(&self, n: u64) -> Held<'_, M> {
        self.stripes.hold(self.stripes.of(n))
    }

    /// The node that a link leads to.
    ///
    /// # Safety
    ///
    /// `link` was in a chain when its stripe was held, or its version current, since it was read; or it
    /// was read in a head.
    unsafe fn follow(&self, link: u64) -> Option<Block<'_, M, PAGES>> {
        // SAFETY: links in chains are 0 or lead to nodes of our pool. That has nodes of this size,
        // and keeps their frames while `&self` is.
        (link != 0).then(|| unsafe { Block::new(self.memory(), PhysAddr::new(link)) })
    }

    /// Calls `f` with each node of a bucket, under its stripe.
    fn each_block(&self, bucket: u64, mut f: impl FnMut(&Block<'_, M, PAGES>)) {
        let _held = self.hold(bucket);
        if bucket >= self.directory.count() {
            return;
        }
        let mut link = self.directory.first(bucket);
        // SAFETY: the stripe is held.
        while let Some(block) = unsafe { self.follow(link) } {
            f(&block);
            (link, _) = block.next();
        }
    }

    /// The node of a block, in a bucket whose stripe is held.
    fn find(&self, bucket: u64, key: Key) -> Option<Found<'_, M, PAGES>> {
        let (mut link, mut before) = (self.directory.first(bucket), None);
        // SAFETY: the stripe is held.
        while let Some(block) = unsafe { self.follow(link) } {
            if block.tag() == key.tag() {
                return Some(Found { block, before });
            }
            (link, _) = block.next();
            before = Some(block);
        }
        None
    }

    /// The raw entry of a page, or 0.
    #[inline]
    fn look_up<N: Note>(&self, key: Key, notes: &mut N) -> u64 {
        let (block, place) = Self::block_of(key);
        let raw = self.look(block, notes, |block, notes| {
            note_hit(notes, block, place);
            block.entry(place)
        });
        raw.unwrap_or(0)
    }

    /// Finds the node of a block, noting what a walker reads of others, and calls `read` with it;
    /// what that returned, if there is one. All of it again if somebody wrote meanwhile.
    #[inline]
    fn look<N: Note, R>(
        &self,
        key: Key,
        notes: &mut N,
        mut read: impl FnMut(&Block<'_, M, PAGES>, &mut N) -> R,
    ) -> Option<R> {
        notes.until(|notes| self.try_look(key, notes, &mut read))
    }

    /// [`look`](Self::look) once; `None` if somebody wrote meanwhile.
    #[inline]
    fn try_look<N: Note, R>(
        &self,
        key: Key,
        notes: &mut N,
        read: &mut impl FnMut(&Block<'_, M, PAGES>, &mut N) -> R,
    ) -> Option<Option<R>> {
        let hash = key.hash();
        let version = self.stripes.begin(self.stripes.of(hash));
        let head = self.directory.head(self.directory.bucket_of(hash));
        notes.note(head, HEAD_BYTES, false);
        // SAFETY: a head's word, which stays while `&self` is, and is touched through atomics.
        let mut link = unsafe { load(self.memory(), head) };
        loop {
            // SAFETY: heads hold 0 or lead to a node, always; the link of a node was read while the
            // version was current.
            let Some(block) = (unsafe { self.follow(link) }) else {
                return version.is_current().then_some(None);
            };
            let header = block.header();
            if header.tag == key.tag() {
                let result = read(&block, notes);
                return version.is_current().then_some(Some(result));
            }
            notes.note(block.at(), HEADER_BYTES, false);
            if !version.is_current() {
                return None;
            }
            link = header.next;
        }
    }

    /// Takes a node out of its chain that has no entry left, gives its stripe back, and puts it
    /// into the stock.
    fn unlink<'t>(
        &'t self,
        bucket: u64,
        found: &Found<'t, M, PAGES>,
        held: Held<'_, M>,
        stock: &mut Nodes<'t, M>,
    ) {
        let (next, _) = found.block.next();
        match &found.before {
            Some(before) => before.set_next(next),
            None => self.directory.set_first(bucket, next),
        }
        drop(held);
        self.blocks.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: it came from the pool, and is in no chain any more; a look-up that has its
        // address still reads it, which the pool allows for.
        unsafe { stock.put(&self.pool, found.block.at()) };
    }
}

/// Notes what a walker reads of the node that it looks for.
#[inline]
fn note_hit<M: Memory, const PAGES: usize>(
    notes: &mut impl Note,
    block: &Block<'_, M, PAGES>,
    place: usize,
) {
    match block.next().1 {
        Kind::Base if Block::<M, PAGES>::BYTES <= LINE => {
            notes.note(block.at(), Block::<M, PAGES>::BYTES as u8, false);
        }
        Kind::Base => {
            notes.note(block.at(), HEADER_BYTES, false);
            notes.note(block.place(place), ENTRY_BYTES, false);
        }
        Kind::Partial => notes.note(block.at(), PARTIAL_BYTES, false),
    }
}

impl<M: Memory, const PAGES: usize> Store for Clustered<M, PAGES> {
    type Stock<'t>
        = Nodes<'t, M>
    where
        Self: 't;

    const LEAVES: u64 = Size::ALL_LEAVES;

    fn block(_: Size) -> NonZeroU64 {
        NonZeroU64::new(PAGES as u64).unwrap_or(NonZeroU64::MIN)
    }

    fn stock(&self) -> Nodes<'_, M> {
        Nodes::new(&self.pool)
    }

    fn refill<'t>(&'t self, stock: &mut Nodes<'t, M>, need: Need) -> Result<(), OutOfFrames> {
        // Two steps for each node that may be used, so that growth catches up.
        self.grow(2 * u64::from(stock.brings(need.get())));
        stock.refill(&self.pool, need.get())
    }

    fn walk<S: Sink>(&self, key: Key, sink: &mut S) -> u64 {
        if S::HEARS {
            Notes::told(sink, |notes| self.look_up(key, notes))
        } else {
            self.look_up(key, &mut ())
        }
    }

    fn read_block(&self, first: Key, raws: &mut [u64]) {
        let (block, place) = Self::block_of(first);
        let entries = self.look(block, &mut (), |b, ()| b.entries());
        let entries = entries.unwrap_or([0; PAGES]);
        for (raw, &entry) in raws.iter_mut().zip(entries.iter().skip(place)) {
            *raw = entry;
        }
    }

    fn change_block<'t>(
        &'t self,
        first: Key,
        count: usize,
        stock: &mut Nodes<'t, M>,
        f: &mut impl FnMut(Key, u64) -> u64,
    ) {
        let (block, place) = Self::block_of(first);
        let hash = block.hash();
        let held = self.hold(hash);
        let bucket = self.directory.bucket_of(hash);
        let Some(found) = self.find(bucket, block) else { return };
        let old = found.block.entries();
        let mut new = old;
        let mut gone = 0;
        for (n, raw) in (0..).zip(new.iter_mut().skip(place).take(count)) {
            if *raw != 0 {
                *raw = f(first.plus(n), *raw);
                gone += u64::from(*raw == 0);
            }
        }
        if new != old && found.block.set_all(&new) == Left::Nothing {
            self.unlink(bucket, &found, held, stock);
        }
        self.entries.fetch_sub(gone, Ordering::Relaxed);
    }

    fn update<'t, E>(
        &'t self,
        key: Key,
        stock: &mut Nodes<'t, M>,
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<u64, Refused<E>> {
        let (key, place) = Self::block_of(key);
        let hash = key.hash();
        let held = self.hold(hash);
        let bucket = self.directory.bucket_of(hash);
        let found = self.find(bucket, key);
        let old = found.as_ref().map_or(0, |found| found.block.entry(place));
        let new = f(old).map_err(Refused::By)?;
        if new == old {
            return Ok(old);
        }
        match found {
            None => {
                let node = stock.take(&self.pool).ok_or(Refused::Need(Need::new(1)))?;
                // SAFETY: a node of our pool, which the stock had alone.
                let block = unsafe { Block::<M, PAGES>::new(self.memory(), node) };
                block.begin(key, self.directory.first(bucket), place, new);
                self.directory.set_first(bucket, node.as_u64());
                self.blocks.fetch_add(1, Ordering::Relaxed);
            }
            Some(found) => {
                if found.block.set(place, new) == Left::Nothing {
                    self.unlink(bucket, &found, held, stock);
                }
            }
        }
        match (old, new) {
            (0, _) => self.entries.fetch_add(1, Ordering::Relaxed),
            (_, 0) => self.entries.fetch_sub(1, Ordering::Relaxed),
            _ => 0,
        };
        Ok(old)
    }

    fn count_stripes(&self) -> u64 {
        self.directory.count()
    }

    fn scan(&self, stripe: u64, found: &mut Lowest) {
        self.each_block(stripe, |block| {
            if let Some(first) = Key::from_tag(block.tag()) {
                (0..).zip(block.entries()).for_each(|(n, raw)| found.offer(first.plus(n), raw));
            }
        });
    }

    fn count_entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn table_bytes(&self) -> u64 {
        self.directory.table_bytes()
            + self.stripes.table_bytes()
            + (self.pool.count_frames() << PAGE_SHIFT)
    }

    fn asids(&self) -> &Asids {
        &self.asids
    }
}

impl<M: Memory, const PAGES: usize> fmt::Debug for Clustered<M, PAGES> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clustered")
            .field("pages", &PAGES)
            .field("entries", &self.count_entries())
            .field("blocks", &self.count_blocks())
            .field("buckets", &self.count_buckets())
            .field("bytes", &self.table_bytes())
            .finish()
    }
}

#[cfg(test)]
mod tests;
