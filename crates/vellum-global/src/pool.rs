//! Nodes of one size, carved from frames.
//!
//! ```text
//!   frame   0                        8                        16     40            4072    4096
//!          +------------------------+------------------------+------+------+- - - -+--------+
//!          | next frame | free: 12  | prev frame | first: 12 | node | node |       | node   |
//!          |            |           |            |           | 0    | 1    |       | 169    |
//!          +------------------------+------------------------+------+------+- - - -+--------+
//!   free node:  { -, slot of the next free one + 1, - ... }    first: slot + 1, or 0
//!
//!   partial --> frames with some nodes free          full --> frames with none
//!   spare   --> frames with all nodes free: at most one, as others go back to the frame source;
//!               or all of them, in a pool that keeps its frames
//!
//!   nodes of     24 bytes    64 bytes    144 bytes      the nodes end where the frame does, so
//!   in a frame   170         63          28             that those of 64 bytes are cache lines
//! ```
//!
//! Frames are linked through their own headers, so a pool of any size is four words: no directory
//! that could be full while there is memory. A node in use belongs to whoever took it, whole.
//!
//! A pool that [keeps](Pool::keeping) its frames is for tables whose look-ups take no lock: one that
//! is under way may still read a node after it was freed, finds out later that it was, and must not
//! have touched memory of somebody else by then. That it does find out needs a fence: what it
//! reads may have been stored by the pool, and must not be seen before the sequence lock's move that
//! came with the unlinking of the node. So the holder of such a pool's lock passes a release fence
//! before it stores to nodes, which meets the reader's acquire fence ([`stripes`](crate::stripes)).
//!
//! # Invariants
//!
//! - A frame is in the list that its count says; headers and free nodes are touched under the lock.
//! - The frame source is called without the lock.
//! - A frame of a pool that keeps them goes back by [`trim`](Pool::trim), [`reclaim`](Pool::reclaim)
//!   or drop.
//!
//! # Lock order
//!
//! The pool's lock is innermost, and is never taken under a chain's: a node is taken from, and put
//! into, a [`Nodes`] that the caller holds alone.

use crate::lock;
use crate::word::{load, store};
use core::sync::atomic::{AtomicU64, Ordering, fence};
use vellum_core::{Memory, OutOfFrames, PAGE_SIZE, PhysAddr};

mod nodes;
use nodes::List;
pub use nodes::Nodes;

/// Bytes of a node of [`Pool::new`].
pub const NODE_BYTES: u64 = 24;

/// Bytes of a header, at least.
const HEADER: u64 = 16;
/// Bytes of the largest node: two fit a frame.
const MOST_BYTES: u64 = (PAGE_SIZE - HEADER) / 2;
/// Header words: the neighbour's address above, a number below.
const NEXT_FREE: u64 = 0;
const PREV_FIRST: u64 = 8;
const LOW: u64 = PAGE_SIZE - 1;
/// No frame: the last one of 64 bits, which no machine has. 0 would be a frame.
const NONE: u64 = !LOW;
/// The word of a free node, or of one in a list, that links it.
const LINK: u64 = 8;

/// A pool of nodes over the frames of `M`.
///
/// Dropping it gives every frame back, nodes in use included: whoever owns the pool sees to it that
/// none of them is reached any more.
pub struct Pool<M: Memory> {
    memory: M,
    /// Bytes of a node.
    bytes: u64,
    keeps: bool,
    /// The first partial frame, and the pool's lock in bit 0.
    partial: AtomicU64,
    full: AtomicU64,
    spare: AtomicU64,
    count_frames: AtomicU64,
}

impl<M: Memory> Pool<M> {
    /// An empty pool of nodes of 24 bytes, whose frames go back when they are empty.
    pub const fn new(memory: M) -> Self {
        Self::with(memory, NODE_BYTES, false)
    }

    /// An empty pool of nodes of `bytes`, rounded up to a multiple of 8 from 16 to 2040, which keeps
    /// its frames for as long as it is shared.
    pub const fn keeping(memory: M, bytes: u64) -> Self {
        let bytes = bytes.next_multiple_of(8);
        let bytes = if bytes < 2 * LINK { 2 * LINK } else { bytes };
        Self::with(memory, if bytes > MOST_BYTES { MOST_BYTES } else { bytes }, true)
    }

    const fn with(memory: M, bytes: u64, keeps: bool) -> Self {
        Self {
            memory,
            bytes,
            keeps,
            partial: AtomicU64::new(NONE),
            full: AtomicU64::new(NONE),
            spare: AtomicU64::new(NONE),
            count_frames: AtomicU64::new(0),
        }
    }

    /// The memory that it takes frames from.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// Frames that it has.
    pub fn count_frames(&self) -> u64 {
        self.count_frames.load(Ordering::Relaxed)
    }

    /// Bytes of a node.
    pub const fn node_bytes(&self) -> u64 {
        self.bytes
    }

    /// Nodes in a frame.
    pub const fn nodes_in_frame(&self) -> u64 {
        (PAGE_SIZE - HEADER) / self.bytes
    }

    /// Where in a frame its first node is.
    const fn first_node(&self) -> u64 {
        PAGE_SIZE - self.nodes_in_frame() * self.bytes
    }

    /// Gives the spare frames back, if there are any.
    pub fn trim(&mut self) {
        // SAFETY: `&mut self`: nobody else calls or reads anything.
        unsafe { self.reclaim() }
    }

    /// [`trim`](Self::trim) of a pool that is shared.
    ///
    /// # Safety
    ///
    /// If the pool keeps its frames, nobody may be reading a node that was put back: no look-up in
    /// what the pool's nodes are part of is under way.
    pub unsafe fn reclaim(&self) {
        let spare = {
            let _held = self.hold();
            self.spare.swap(NONE, Ordering::Relaxed)
        };
        // SAFETY: spare frames have no node in use, and were in no other list.
        unsafe { self.free_chain(spare) };
    }

    /// Fills `list` up to `want` nodes from free ones, taking a frame only if it has fewer than
    /// `need`.
    fn take(&self, list: &mut List, need: u32, want: u32) -> Result<(), OutOfFrames> {
        let mut fresh = NONE;
        loop {
            let mut held = self.hold();
            if fresh != NONE {
                held.link(Which::Partial, fresh);
            }
            while list.count < want {
                let Some(node) = held.pop() else { break };
                // SAFETY: the node was free, and is ours now.
                unsafe { list.push(&self.memory, node) };
            }
            drop(held);
            if list.count >= need {
                return Ok(());
            }
            fresh = self.alloc()?;
        }
    }

    /// A frame of free nodes, in no list.
    fn alloc(&self) -> Result<u64, OutOfFrames> {
        let frame = self.memory.alloc(0)?;
        self.count_frames.fetch_add(1, Ordering::Relaxed);
        let put = |offset, value| {
            // SAFETY: the frame was allocated just now and is ours alone.
            unsafe { store(&self.memory, frame.wrapping_add(offset), value) }
        };
        let nodes = self.nodes_in_frame();
        put(NEXT_FREE, NONE | nodes);
        put(PREV_FIRST, NONE | 1);
        for slot in 0..nodes {
            let next = if slot + 1 < nodes { slot + 2 } else { 0 };
            put(self.first_node() + slot * self.bytes + LINK, next);
        }
        Ok(frame.as_u64())
    }

    /// Takes back every node of `list`, and gives back the frames that this empties.
    ///
    /// # Safety
    ///
    /// They are nodes of this pool, nobody reaches them, and each comes back once.
    unsafe fn give(&self, list: &mut List) {
        let mut dead = NONE;
        {
            let mut held = self.hold();
            while let Some(node) = list.pop(&self.memory) {
                held.push(node, &mut dead);
            }
        }
        // SAFETY: `push` put frames there that have no node in use and are in no list.
        unsafe { self.free_chain(dead) };
    }

    /// Gives back a frame and those that follow it.
    ///
    /// # Safety
    ///
    /// They are frames of this pool, in no list that anybody will read, and no node of them is
    /// reached any more.
    unsafe fn free_chain(&self, mut frame: u64) {
        while frame != NONE {
            // SAFETY: still ours, by the caller.
            let next = unsafe { load(&self.memory, PhysAddr::new(frame + NEXT_FREE)) } & !LOW;
            self.count_frames.fetch_sub(1, Ordering::Relaxed);
            // SAFETY: allocated in `alloc` with order 0; unreachable, by the caller.
            unsafe { self.memory.free(PhysAddr::new(frame), 0) };
            frame = next;
        }
    }

    fn hold(&self) -> Held<'_, M> {
        let partial = lock::acquire(&self.partial);
        if self.keeps {
            fence(Ordering::Release);
        }
        Held { pool: self, partial }
    }
}

impl<M: Memory> Drop for Pool<M> {
    fn drop(&mut self) {
        for list in [&self.partial, &self.full, &self.spare] {
            // SAFETY: `&mut self`: nobody else is here; that nodes are not reached any more is the
            // owner's promise.
            unsafe { self.free_chain(list.load(Ordering::Relaxed)) };
        }
    }
}

impl<M: Memory> core::fmt::Debug for Pool<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Pool({} frames)", self.count_frames())
    }
}

#[derive(Clone, Copy)]
enum Which {
    Partial,
    Full,
}

/// The pool, locked.
struct Held<'p, M: Memory> {
    pool: &'p Pool<M>,
    partial: u64,
}

impl<M: Memory> Held<'_, M> {
    /// A word of a header or of a free node.
    fn load(&self, at: u64) -> u64 {
        // SAFETY: `at` is a word of a frame in one of the lists, or of one just taken out of them;
        // those are the pool's until `free_chain`, and the lock is held.
        unsafe { load(&self.pool.memory, PhysAddr::new(at)) }
    }

    fn store(&self, at: u64, value: u64) {
        // SAFETY: as in `load`.
        unsafe { store(&self.pool.memory, PhysAddr::new(at), value) }
    }

    /// Replaces the address part of a header word.
    fn point(&self, at: u64, to: u64) {
        self.store(at, to | self.load(at) & LOW);
    }

    /// Replaces the number part of a header word.
    fn number(&self, at: u64, n: u64) {
        self.store(at, self.load(at) & !LOW | n);
    }

    fn first(&self, which: Which) -> u64 {
        match which {
            Which::Partial => self.partial,
            Which::Full => self.pool.full.load(Ordering::Relaxed),
        }
    }

    fn set_first(&mut self, which: Which, frame: u64) {
        match which {
            Which::Partial => self.partial = frame,
            Which::Full => self.pool.full.store(frame, Ordering::Relaxed),
        }
    }

    fn link(&mut self, which: Which, frame: u64) {
        let next = self.first(which);
        self.point(frame + NEXT_FREE, next);
        self.point(frame + PREV_FIRST, NONE);
        if next != NONE {
            self.point(next + PREV_FIRST, frame);
        }
        self.set_first(which, frame);
    }

    fn unlink(&mut self, which: Which, frame: u64) {
        let next = self.load(frame + NEXT_FREE) & !LOW;
        let prev = self.load(frame + PREV_FIRST) & !LOW;
        if next != NONE {
            self.point(next + PREV_FIRST, prev);
        }
        if prev == NONE {
            self.set_first(which, next);
        } else {
            self.point(prev + NEXT_FREE, next);
        }
    }

    /// A free node, if there is one.
    fn pop(&mut self) -> Option<PhysAddr> {
        if self.partial == NONE {
            let spare = self.pool.spare.load(Ordering::Relaxed);
            if spare == NONE {
                return None;
            }
            let next = self.load(spare + NEXT_FREE) & !LOW;
            self.pool.spare.store(next, Ordering::Relaxed);
            self.link(Which::Partial, spare);
        }
        let frame = self.partial;
        let slot = (self.load(frame + PREV_FIRST) & LOW) - 1;
        let node = frame + self.pool.first_node() + slot * self.pool.bytes;
        self.number(frame + PREV_FIRST, self.load(node + LINK));
        let free = (self.load(frame + NEXT_FREE) & LOW) - 1;
        self.number(frame + NEXT_FREE, free);
        if free == 0 {
            self.unlink(Which::Partial, frame);
            self.link(Which::Full, frame);
        }
        Some(PhysAddr::new(node))
    }

    /// Makes `node` free; a frame that is to go back is put before `dead`.
    fn push(&mut self, node: PhysAddr, dead: &mut u64) {
        let node = node.as_u64();
        let frame = node & !LOW;
        let slot = (node - frame - self.pool.first_node()) / self.pool.bytes;
        self.store(node + LINK, self.load(frame + PREV_FIRST) & LOW);
        self.number(frame + PREV_FIRST, slot + 1);
        let free = (self.load(frame + NEXT_FREE) & LOW) + 1;
        self.number(frame + NEXT_FREE, free);
        if free == 1 {
            self.unlink(Which::Full, frame);
            self.link(Which::Partial, frame);
        } else if free == self.pool.nodes_in_frame() {
            self.unlink(Which::Partial, frame);
            let spare = self.pool.spare.load(Ordering::Relaxed);
            if spare == NONE || self.pool.keeps {
                self.point(frame + NEXT_FREE, spare);
                self.pool.spare.store(frame, Ordering::Relaxed);
            } else {
                self.point(frame + NEXT_FREE, *dead);
                *dead = frame;
            }
        }
    }
}

impl<M: Memory> Drop for Held<'_, M> {
    fn drop(&mut self) {
        lock::release(&self.pool.partial, self.partial);
    }
}

#[cfg(test)]
mod tests;
