//! An inverted page table: one entry a frame, found through a hash anchor table.
//!
//! ```text
//!   anchors: 2^k words        frame entries, 32 bytes each, one block
//!  +--------------------+    +---------------------+--------------+-------------+----------+
//!  | address, 0      ------> | tag of the page     | address of   | raw entry   | reserved |  frame 0
//!  +--------------------+    | that maps frame 0   | the next, 0  | (pte)       |          |
//!  |                    |    +---------------------+--------------+-------------+----------+
//!  +--------------------+    | 0: nobody maps it   | -            | -           |          |  frame 1
//!  | ...                |    +---------------------+--------------+-------------+----------+
//!                            | ...                   0..8           8..16         16..24
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
//! # Look-ups take no lock
//!
//! A sequence lock (vellum_global::sequence), one of 512 by the number of the anchor, covers an anchor
//! and the elements of its chain. A look-up follows the link of an element only if its version has
//! not moved since that was read, and what it found counts if it has not moved at the end. Frames' entries stay
//! where they are, and alias nodes' frames stay the pool's while the table is shared, so an element
//! that was unlinked meanwhile can still be read, whoever has it now.
//!
//! That it was unlinked is always noticed, also where a page of another chain has claimed the entry
//! by then, under the lock of that: the claim reads the 0 that was stored with `Release` after the
//! unlinking, and a `Release` fence follows before anything else is stored to the entry. So who sees
//! any of that sees the version of the first chain moved.
//!
//! # Invariants
//!
//! - Anchors, and elements that are in a chain, are stored by the holder of the anchor's stripe.
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
use core::sync::atomic::{AtomicU64, Ordering, fence};
use vellum_core::{
    Entry, Memory, Need, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, Sink, order_bytes, pte,
};
use vellum_global::node::{self, Found};
use vellum_global::pool::NODE_BYTES;
use vellum_global::stripes::Held;
use vellum_global::word::{alloc_zeroed, load, store, with_word};
use vellum_global::{
    Asid, AsidError, Asids, Key, Lowest, Node, Nodes, Note, Notes, Pool, Refused, Size, Space,
    Store, Stripes,
};

/// Bytes of a frame's entry.
pub const ENTRY_BYTES: u64 = 32;
/// Bytes of an anchor.
const ANCHOR: u64 = 8;
const TAG: u64 = 0;

/// A block of frames, given back when it is dropped.
struct Block<M: Memory> {
    memory: M,
    at: PhysAddr,
    order: u8,
}

impl<M: Memory> Block<M> {
    /// A zeroed block of at least this many bytes.
    fn new(memory: M, bytes: Option<u64>) -> Result<Self, OutOfFrames> {
        let frames = bytes.ok_or(OutOfFrames { order: u8::MAX })?.div_ceil(PAGE_SIZE);
        let log2 = frames.checked_next_power_of_two().map_or(64, u64::ilog2);
        let order = u8::try_from(log2).unwrap_or(u8::MAX);
        let at = alloc_zeroed(&memory, order)?;
        Ok(Self { memory, at, order })
    }
}

impl<M: Memory> Drop for Block<M> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this order. Whoever reaches it borrows the table, which is
        // dropped.
        unsafe { self.memory.free(self.at, self.order) }
    }
}

/// An inverted page table of all spaces over a range of frames; [`space`](Self::space) makes a
/// handle of one.
pub struct Inverted<M: Memory> {
    pool: Pool<M>,
    stripes: Stripes<M>,
    asids: Asids,
    first: Pfn,
    count_frames: u64,
    frames: Block<M>,
    anchors: Block<M>,
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
    /// rounded up to a power of two of frames; and one frame of locks.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when the memory has no such block; nothing is leaked.
    pub fn new(memory: M, first: Pfn, count_frames: u64) -> Result<Self, OutOfFrames> {
        let anchors = count_frames.max(1).checked_next_power_of_two();
        let frame_bytes = count_frames.max(1).checked_mul(ENTRY_BYTES);
        let anchor_bytes = anchors.and_then(|n| n.checked_mul(ANCHOR));
        Ok(Self {
            frames: Block::new(memory.clone(), frame_bytes)?,
            anchors: Block::new(memory.clone(), anchor_bytes)?,
            stripes: Stripes::new(memory.clone())?,
            pool: Pool::keeping(memory, NODE_BYTES),
            asids: Asids::new(),
            first,
            count_frames,
            anchor_mask: count_frames.max(1).next_power_of_two() - 1,
            entries: AtomicU64::new(0),
            aliases: AtomicU64::new(0),
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

    /// Gives the frames of alias nodes back that have no node in use.
    pub fn shrink(&mut self) {
        self.pool.trim();
    }

    /// [`shrink`](Self::shrink), though the table is shared.
    ///
    /// # Safety
    ///
    /// No other call on the table or its spaces is under way: a kernel's grace period has passed.
    pub unsafe fn reclaim(&self) {
        // SAFETY: the caller's: look-ups are calls.
        unsafe { self.pool.reclaim() };
    }

    /// Where the anchor of a hash is, or the one with this number.
    #[inline]
    const fn anchor(&self, hash: u64) -> PhysAddr {
        self.anchors.at.wrapping_add((hash & self.anchor_mask) * ANCHOR)
    }

    /// The address of the first element of an anchor, or 0.
    #[inline]
    fn first(&self, anchor: PhysAddr) -> u64 {
        // SAFETY: the mask in `anchor` has kept the word within the block, which is there as long as
        // `self`, and is touched through atomics only.
        unsafe { load(self.memory(), anchor) }
    }

    fn set_first(&self, anchor: PhysAddr, first: u64) {
        // SAFETY: as in `first`.
        unsafe { store(self.memory(), anchor, first) }
    }

    /// Takes the stripe of the anchor of a hash, or of the one with this number.
    #[inline]
    fn hold(&self, hash: u64) -> (PhysAddr, Held<'_, M>) {
        let held = self.stripes.hold(self.stripes.of(hash & self.anchor_mask));
        (self.anchor(hash), held)
    }

    /// The raw entry of a page, or 0.
    #[inline]
    fn look_up(&self, key: Key, notes: &mut impl Note) -> u64 {
        notes.until(|notes| self.look(key, notes))
    }

    /// A look-up, noting what a walker reads; `None` if somebody wrote meanwhile.
    #[inline]
    fn look(&self, key: Key, notes: &mut impl Note) -> Option<u64> {
        let hash = key.hash();
        let version = self.stripes.begin(self.stripes.of(hash & self.anchor_mask));
        let anchor = self.anchor(hash);
        let first = self.first(anchor);
        notes.note(anchor, ANCHOR as u8, false);
        // SAFETY: the version is that of the chain, and an anchor always holds 0 or leads to an
        // element. These are entries of a block that is there as long as `self`, or nodes of the
        // pool, which keeps its frames as long.
        unsafe { node::look(self.memory(), &version, first, key, notes) }
    }

    /// The element at this address.
    ///
    /// # Safety
    ///
    /// It is a frame's entry, or a node of the pool.
    #[inline]
    unsafe fn at(&self, element: PhysAddr) -> Node<'_, M> {
        // SAFETY: the caller's; both stay for as long as `self`.
        unsafe { Node::new(self.memory(), element) }
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
                // has done with it. Release: who sees the new tag in the old chain sees that as well.
                tag.load(Ordering::Relaxed) == 0
                    && tag
                        .compare_exchange(0, key.tag(), Ordering::AcqRel, Ordering::Relaxed)
                        .is_ok()
            })
        };
        // The same for what is stored to the entry from now on.
        fence(Ordering::Release);
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

    /// Makes an element the first of an anchor that is held.
    ///
    /// # Safety
    ///
    /// It was claimed, or taken from the stock: the caller's alone, and in no chain.
    unsafe fn link(&self, anchor: PhysAddr, element: PhysAddr, (key, raw): (Key, u64)) {
        // SAFETY: the caller's.
        unsafe { self.at(element) }.fill(key, self.first(anchor), raw);
        self.set_first(anchor, element.as_u64());
    }

    /// Takes an element out; a node that this leaves over.
    ///
    /// # Safety
    ///
    /// It was found at this anchor, which has been held since.
    unsafe fn unlink(&self, anchor: PhysAddr, found: &Found<'_, M>) -> Option<PhysAddr> {
        let next = found.node.next();
        match found.before {
            Some(before) => before.set_next(next),
            None => self.set_first(anchor, next),
        }
        // SAFETY: by the caller it was an element until now, and the anchor is held.
        unsafe { self.leave(found.node.at()) }
    }

    /// Gives an entry that exists another value; the node that this leaves over, or a want of one.
    ///
    /// A frame's entry can only speak of its own frame, so another frame means another element,
    /// unless the old one is a node and the new frame's own entry is taken.
    ///
    /// # Safety
    ///
    /// It was found at this anchor, which has been held since.
    unsafe fn rewrite(
        &self,
        anchor: PhysAddr,
        found: &Found<'_, M>,
        (key, new): (Key, u64),
        stock: &mut Nodes<'_, M>,
    ) -> Result<Option<PhysAddr>, Need> {
        let at = found.node.at();
        let stays = self.own(new, key) == Some(at);
        let element = match self.is_frame_entry(at) {
            true if stays => None,
            true => Some(self.element(new, key, stock)?),
            false => self.claim(new, key),
        };
        let Some(element) = element else {
            found.node.set_raw(new);
            return Ok(None);
        };
        // SAFETY: the caller's.
        let left = unsafe { self.unlink(anchor, found) };
        // SAFETY: claimed, or taken from the stock.
        unsafe { self.link(anchor, element, (key, new)) };
        Ok(left)
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
        let (anchor, held) = self.hold(key.hash());
        // SAFETY: the anchor is held.
        let found = unsafe { node::find(self.memory(), self.first(anchor), key) };
        let old = found.as_ref().map_or(0, |found| found.node.raw());
        let new = f(old).map_err(Refused::By)?;
        let left = match (found, new) {
            (None, 0) => None,
            (None, new) => {
                let element = self.element(new, key, stock).map_err(Refused::Need)?;
                // SAFETY: claimed, or taken from the stock.
                unsafe { self.link(anchor, element, (key, new)) };
                self.entries.fetch_add(1, Ordering::Relaxed);
                None
            }
            (Some(found), 0) => {
                self.entries.fetch_sub(1, Ordering::Relaxed);
                // SAFETY: found just now, under this hold.
                unsafe { self.unlink(anchor, &found) }
            }
            (Some(_), new) if new == old => None,
            // SAFETY: found just now, under this hold.
            (Some(found), new) => unsafe {
                self.rewrite(anchor, &found, (key, new), stock).map_err(Refused::Need)?
            },
        };
        drop(held);
        if let Some(node) = left {
            // SAFETY: what is no frame's entry came from the pool; it is unlinked, and a look-up that
            // has its address only reads it, which the pool allows for.
            unsafe { stock.put(&self.pool, node) };
        }
        Ok(old)
    }

    fn count_stripes(&self) -> u64 {
        self.count_anchors()
    }

    fn scan(&self, stripe: u64, found: &mut Lowest) {
        if stripe < self.count_anchors() {
            let (anchor, _held) = self.hold(stripe);
            // SAFETY: the anchor is held.
            unsafe { node::offer(self.memory(), self.first(anchor), found) };
        }
    }

    fn count_entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn table_bytes(&self) -> u64 {
        let blocks = order_bytes(self.frames.order) + order_bytes(self.anchors.order);
        blocks + self.stripes.table_bytes() + (self.pool.count_frames() << PAGE_SHIFT)
    }

    fn asids(&self) -> &Asids {
        &self.asids
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
