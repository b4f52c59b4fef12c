//! An inverted page table: one entry a frame, found through a hash anchor table.
//!
//! ```text
//!   anchors: 2^k heads        frame entries, 32 bytes each, one block
//!  +----------------+---+    +---------------------+--------------+-------------+----------+
//!  | address, 0     | L | -> | tag of the page     | address of   | raw entry   | reserved |  frame 0
//!  +----------------+---+    | that maps frame 0   | the next, 0  | (pte)       |          |
//!  |                |   |    +---------------------+--------------+-------------+----------+
//!  +----------------+---+    | 0: nobody maps it   | -            | -           |          |  frame 1
//!  | ...            |   |    +---------------------+--------------+-------------+----------+
//!                            | ...                   0..8           8..16         16..24
//!   L: the chain's lock
//!                            alias node, 24 bytes of a pool's frame
//!                            +---------------------+--------------+-------------+
//!                            | tag                 | address      | raw entry   |
//!                            +---------------------+--------------+-------------+
//! ```
//!
//! Its size goes by the memory that is mapped, not by the addresses: 32 bytes a frame and 8 to 16
//! of anchors, paid once. The first page that maps a frame takes the frame's own entry. What has
//! none takes an alias node: a second page of the same frame, device memory, a soft entry. So fork
//! costs one node a shared page. When the owner of an entry goes and aliases remain, the entry is
//! free for the next page that maps the frame; an alias moves in when it is next changed.
//!
//! A leaf of 2 MiB or 1 GiB takes the entry of its first frame, and leaves those of the others
//! unused: such a table saves no memory by large leaves, it only has shorter chains. (Its key says
//! how large it is.) A page that maps the same first frame takes a node, as any second page does.
//!
//! A walker reads the anchor, then elements: 8 bytes, 16 of each element of another page, 24 of the
//! one that it looks for. With a = frames mapped / anchors and no aliases that is 1 + a/2 elements.
//!
//! Links are physical addresses of 64 bits, where the classical table has 32-bit frame numbers.
//! That is 4 bytes an anchor more; in return an element may be a frame's or a node, the traversal
//! is that of the chained hash, and no size of memory is a limit. The fourth word is kept at 0 for
//! the list of a frame's aliases that reverse mapping will need.
//!
//! # Invariants
//!
//! - A frame's entry has tag 0 exactly while it is nobody's. It is taken by a compare-and-swap of
//!   the tag, because pages of different chains may want the same one, and given back by the holder
//!   of the chain that it was in, after it was unlinked.
//! - Neither block moves or grows.
//!
//! # Lock order
//!
//! One chain; nothing under it.
//!
//! Source: A. Chang and M. F. Mergen, "801 Storage: Architecture and Programming", TOCS 6(1), 1988
//! (inverted table and hash anchor table); J. Huck and J. Hays, "Architectural Support for
//! Translation Table Management in Large Address Space Machines", ISCA 1993.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{
    Entry, Memory, Need, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, Sink, order_bytes, pte,
};
use vellum_global::word::{alloc_zeroed, with_word};
use vellum_global::{
    Asid, AsidError, Asids, Chain, Found, Key, Lowest, Nodes, Pool, Refused, Size, Space, Store,
    Trail,
};

/// Bytes of a frame's entry.
pub const ENTRY_BYTES: u64 = 32;
const HEAD: u64 = 8;
const TAG: u64 = 0;

/// A block of frames.
#[derive(Clone, Copy)]
struct Block {
    at: PhysAddr,
    order: u8,
}

impl Block {
    /// A zeroed block of at least this many bytes.
    fn new<M: Memory>(memory: &M, bytes: Option<u64>) -> Result<Self, OutOfFrames> {
        let frames = bytes.ok_or(OutOfFrames { order: u8::MAX })?.div_ceil(PAGE_SIZE);
        let log2 = frames.checked_next_power_of_two().map_or(64, u64::ilog2);
        let order = u8::try_from(log2).unwrap_or(u8::MAX);
        Ok(Self { at: alloc_zeroed(memory, order)?, order })
    }

    /// # Safety
    ///
    /// The block was made from `memory`, and nobody reaches it any more.
    unsafe fn free<M: Memory>(self, memory: &M) {
        // SAFETY: the caller's.
        unsafe { memory.free(self.at, self.order) }
    }
}

/// An inverted page table of all spaces over a range of frames; [`space`](Self::space) makes a
/// handle of one.
pub struct Inverted<M: Memory> {
    pool: Pool<M>,
    asids: Asids,
    first: Pfn,
    count_frames: u64,
    frames: Block,
    anchors: Block,
    /// Their number less 1; a power of two less 1.
    anchor_mask: u64,
    entries: AtomicU64,
    aliases: AtomicU64,
}

impl<M: Memory> Inverted<M> {
    /// An empty table with an entry for each of the `count_frames` frames from `first` on, and at
    /// least as many anchors.
    ///
    /// Takes two blocks from the memory: of 32 bytes a frame, and of 8 bytes an anchor, each
    /// rounded up to a power of two of frames.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when the memory has no such block; nothing is leaked.
    pub fn new(memory: M, first: Pfn, count_frames: u64) -> Result<Self, OutOfFrames> {
        let anchors = count_frames.max(1).checked_next_power_of_two();
        let frames = Block::new(&memory, count_frames.max(1).checked_mul(ENTRY_BYTES))?;
        match Block::new(&memory, anchors.and_then(|n| n.checked_mul(HEAD))) {
            Ok(anchors) => Ok(Self {
                pool: Pool::new(memory),
                asids: Asids::new(),
                first,
                count_frames,
                frames,
                anchors,
                anchor_mask: count_frames.max(1).next_power_of_two() - 1,
                entries: AtomicU64::new(0),
                aliases: AtomicU64::new(0),
            }),
            Err(out) => {
                // SAFETY: made from this memory just now, and told to nobody.
                unsafe { frames.free(&memory) };
                Err(out)
            }
        }
    }

    /// The space `asid`, empty.
    ///
    /// # Errors
    ///
    /// [`AsidError`]: another handle has it, or the table has no such identifier.
    pub fn space(&self, asid: Asid) -> Result<Space<'_, Self>, AsidError> {
        Space::open(self, asid)
    }

    /// How many anchors there are.
    pub const fn count_anchors(&self) -> u64 {
        self.anchor_mask + 1
    }

    /// How many entries live in alias nodes.
    pub fn count_aliases(&self) -> u64 {
        self.aliases.load(Ordering::Relaxed)
    }

    /// The memory that it was made with.
    pub const fn memory(&self) -> &M {
        self.pool.memory()
    }

    /// Locks the chain of an anchor.
    fn lock_anchor(&self, anchor: u64) -> Chain<'_, M> {
        let at = self.anchors.at.wrapping_add((anchor & self.anchor_mask) * HEAD);
        // SAFETY: the mask keeps the head within the block, which is there as long as `self`, and
        // began as zeros. Elements are entries of the other block, or nodes of the pool that are
        // in use, until they are unlinked under this lock.
        unsafe { Chain::lock(self.memory(), at) }
    }

    fn lock(&self, key: Key) -> Chain<'_, M> {
        self.lock_anchor(key.hash())
    }

    /// The entry of the frame that a raw entry maps, of a large leaf the first of its frames, if it
    /// has one here.
    fn own(&self, raw: u64, key: Key) -> Option<PhysAddr> {
        let Entry::Leaf(pa, _) = pte::decode(raw, key.size().page()) else { return None };
        let index = pa.number().checked_sub(self.first).filter(|&i| i < self.count_frames)?;
        let at = self.frames.at.wrapping_add(index * ENTRY_BYTES);
        // Address 0 ends a chain. A frame whose entry would lie there has none.
        (at.as_u64() != 0).then_some(at)
    }

    /// Whether an element is a frame's entry, rather than a node.
    fn is_frame_entry(&self, at: PhysAddr) -> bool {
        let offset = at.checked_sub(self.frames.at);
        offset.is_some_and(|offset| offset < order_bytes(self.frames.order))
    }

    /// Takes the entry of the frame that `raw` maps for `key`, if there is one and nobody has it.
    fn claim(&self, raw: u64, key: Key) -> Option<PhysAddr> {
        let at = self.own(raw, key)?;
        // SAFETY: a word of the block of frame entries, which is there as long as `self`.
        let taken = unsafe {
            with_word(self.memory(), at.wrapping_add(TAG), |tag| {
                // A plain look first: most entries are taken, and stay so. Acquire: whoever had it
                // has done with it.
                tag.load(Ordering::Relaxed) == 0
                    && tag
                        .compare_exchange(0, key.tag(), Ordering::Acquire, Ordering::Relaxed)
                        .is_ok()
            })
        };
        taken.then_some(at)
    }

    /// An element for a new entry: the frame's own, or a node.
    fn element(&self, raw: u64, key: Key, stock: &mut Nodes<'_, M>) -> Result<PhysAddr, Need> {
        if let Some(at) = self.claim(raw, key) {
            return Ok(at);
        }
        let node = stock.take(&self.pool).ok_or(Need::new(1))?;
        self.aliases.fetch_add(1, Ordering::Relaxed);
        Ok(node)
    }

    /// Frees an element that was unlinked: a frame's entry at once; a node is returned, for the
    /// stock when the lock was given back.
    ///
    /// # Safety
    ///
    /// `at` was an element of a chain, and was unlinked by the caller, who holds its lock.
    unsafe fn leave(&self, at: PhysAddr) -> Option<PhysAddr> {
        if !self.is_frame_entry(at) {
            self.aliases.fetch_sub(1, Ordering::Relaxed);
            return Some(at);
        }
        // SAFETY: a word of the block of frame entries.
        unsafe {
            with_word(self.memory(), at.wrapping_add(TAG), |tag| tag.store(0, Ordering::Release));
        }
        None
    }

    /// Gives an entry that exists another value; the node that this leaves over, or a want of one.
    ///
    /// A frame's entry can only speak of its own frame, so another frame means another element,
    /// unless the old one is a node and the new frame's own entry is taken.
    ///
    /// # Safety
    ///
    /// `found` was found in `chain` under this lock, and nothing was changed since.
    unsafe fn rewrite(
        &self,
        chain: &mut Chain<'_, M>,
        found: &Found,
        (key, new): (Key, u64),
        stock: &mut Nodes<'_, M>,
    ) -> Result<Option<PhysAddr>, Need> {
        let is_frame_entry = self.is_frame_entry(found.at);
        let stays = self.own(new, key) == Some(found.at);
        let element = match is_frame_entry {
            true if stays => None,
            true => Some(self.element(new, key, stock)?),
            false => self.claim(new, key),
        };
        match element {
            None => {
                // SAFETY: the caller's.
                unsafe { chain.write(found, new) };
                Ok(None)
            }
            Some(element) => {
                // SAFETY: the caller's.
                unsafe { chain.unlink(found) };
                // SAFETY: claimed, or taken from the stock: ours alone, and in no chain.
                unsafe { chain.insert(element, key, new) };
                // SAFETY: unlinked just now; `chain` is locked.
                Ok(unsafe { self.leave(found.at) })
            }
        }
    }
}

impl<M: Memory> Store for Inverted<M> {
    type Stock<'t>
        = Nodes<'t, M>
    where
        Self: 't;

    const LEAVES: u64 = Size::ALL_LEAVES;

    fn stock(&self) -> Nodes<'_, M> {
        Nodes::new(&self.pool)
    }

    fn refill<'t>(&'t self, stock: &mut Nodes<'t, M>, need: Need) -> Result<(), OutOfFrames> {
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
        let left = match (found, new) {
            (None, 0) => None,
            (None, new) => {
                let element = self.element(new, key, stock).map_err(Refused::Need)?;
                // SAFETY: claimed, or taken from the stock: ours alone, and in no chain.
                unsafe { chain.insert(element, key, new) };
                self.entries.fetch_add(1, Ordering::Relaxed);
                None
            }
            (Some(found), 0) => {
                // SAFETY: found under this lock, and nothing was changed since.
                unsafe { chain.unlink(&found) };
                self.entries.fetch_sub(1, Ordering::Relaxed);
                // SAFETY: unlinked just now, under the lock that is still held.
                unsafe { self.leave(found.at) }
            }
            (Some(_), new) if new == old => None,
            // SAFETY: found under this lock, and nothing was changed since.
            (Some(found), new) => unsafe {
                self.rewrite(&mut chain, &found, (key, new), stock).map_err(Refused::Need)?
            },
        };
        drop(chain);
        if let Some(node) = left {
            // SAFETY: what is no frame's entry came from the pool; it is unlinked, and whoever
            // reads a chain holds its lock, so nobody has the address.
            unsafe { stock.put(&self.pool, node) };
        }
        Ok(old)
    }

    fn count_stripes(&self) -> u64 {
        self.count_anchors()
    }

    fn scan(&self, stripe: u64, found: &mut Lowest) {
        if stripe < self.count_anchors() {
            self.lock_anchor(stripe).offer(found);
        }
    }

    fn count_entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn table_bytes(&self) -> u64 {
        let blocks = order_bytes(self.frames.order) + order_bytes(self.anchors.order);
        blocks + (self.pool.count_frames() << PAGE_SHIFT)
    }

    fn asids(&self) -> &Asids {
        &self.asids
    }
}

impl<M: Memory> Drop for Inverted<M> {
    fn drop(&mut self) {
        for block in [self.frames, self.anchors] {
            // SAFETY: made from this memory in `new`; nobody holds the table, so nobody reaches
            // it. The pool gives back the nodes.
            unsafe { block.free(self.pool.memory()) };
        }
    }
}

impl<M: Memory> fmt::Debug for Inverted<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inverted")
            .field("first", &self.first)
            .field("count_frames", &self.count_frames)
            .field("entries", &self.count_entries())
            .field("aliases", &self.count_aliases())
            .field("bytes", &self.table_bytes())
            .finish()
    }
}

#[cfg(test)]
mod tests;
