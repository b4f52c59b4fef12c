//! The one place that touches the memory of tables.
//!
//! ```text
//!    node (a block of frames)                         slot = node + entry size * index
//!    +--------+--------+--------+---    +--------+    +--------------------------------+
//!    | entry  | entry  | entry  | ...   | counts |    | one atomic word, 32 or 64 bits |
//!    +--------+--------+--------+---    +--------+    +--------------------------------+
//! ```
//!
//! Hardware reads these words, and writes accessed and dirty into them, at any time. So every
//! access to a node that is linked is a relaxed or stronger atomic of one word, through a pointer
//! that the memory hands out for that word or its frame; there are no references and no slices over
//! a node. Nodes that nothing links are written and read plainly, which compilers vectorise.
//!
//! # Invariants
//!
//! - A [`Node`] is a block that its memory handed out and that was not given back: it is the root of
//!   a table, linked from one that is, or in the hands of the one who unlinked or allocated it.
//! - Nothing calls out of this module while it holds a pointer: a memory may have but one window.

use crate::format::{COUNT_BYTES_SHIFT, Format, Level, node_order};
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;
use vellum_core::{Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr, VirtAddr};

/// A node of a table, reached through its memory.
pub(crate) struct Node<'m, F, M> {
    mem: &'m M,
    pa: PhysAddr,
    format: PhantomData<fn() -> F>,
}

impl<F, M> Clone for Node<'_, F, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, M> Copy for Node<'_, F, M> {}

/// Entries whose values follow each other: `raw`, `raw + step`, `raw + 2 * step`, ...
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pattern {
    pub(crate) raw: u64,
    pub(crate) step: u64,
}

impl Pattern {
    /// The value of entry `i`.
    #[inline]
    pub(crate) fn at(self, i: u64) -> u64 {
        self.raw.wrapping_add(self.step.wrapping_mul(i))
    }

    /// Whether `count` leaves of 2<sup>`page`</sup> bytes can follow each other from the first on
    /// before the frame leaves its field.
    #[inline]
    pub(crate) fn has<F: Format>(self, count: u64, page: u8) -> bool {
        let mask = F::frame_mask(page);
        let ahead = self.step.saturating_mul(count.saturating_sub(1));
        (self.raw & mask).saturating_add(ahead) <= mask
    }

    /// How many leaves of 2<sup>`page`</sup> bytes can follow each other from the first before the
    /// frame leaves its field.
    #[inline]
    pub(crate) fn longest<F: Format>(self, page: u8) -> u64 {
        let mask = F::frame_mask(page);
        ((mask - (self.raw & mask)) / self.step.max(1)).saturating_add(1)
    }
}

/// Which entry of a node of this level translates `va`.
#[inline]
pub(crate) fn index(va: VirtAddr, level: Level) -> u64 {
    va.as_u64() >> level.shift & ((1 << level.bits) - 1)
}

impl<'m, F: Format, M: Memory> Node<'m, F, M> {
    /// The node at `pa`.
    ///
    /// # Safety
    ///
    /// `pa` is a block for a node that `mem` handed out, which is not given back while this value
    /// or a slot of it is used.
    #[inline]
    pub(crate) unsafe fn new(mem: &'m M, pa: PhysAddr) -> Self {
        Self { mem, pa, format: PhantomData }
    }

    /// Entry `index`, which is below the entries of the node.
    #[inline]
    pub(crate) fn slot(self, index: u64) -> Slot<'m, F, M> {
        let pa = self.pa.wrapping_add(index << F::ENTRY_SHIFT);
        Slot { mem: self.mem, pa, format: PhantomData }
    }

    /// Reads entry `index` of this node, of level `level`, as [`Slot::load`] does. Where a node is one
    /// frame, through a pointer to that, so that the index costs nothing.
    #[inline(always)]
    pub(crate) fn load(self, level: Level, index: u64) -> u64 {
        if level.bits + F::ENTRY_SHIFT > PAGE_SHIFT {
            return self.slot(index).load();
        }
        // SAFETY: the node is in use (`new`), and the entry is one of the frame that it takes.
        self.mem.with(self.pa, |p| unsafe { load::<F>(p, index, Ordering::Acquire) })
    }

    /// Writes entry `index` of this node, of level `level`, as [`Slot::store`] does, and as
    /// [`load`](Self::load) reads it.
    #[inline(always)]
    pub(crate) fn store(self, level: Level, index: u64, raw: u64) {
        if level.bits + F::ENTRY_SHIFT > PAGE_SHIFT {
            return self.slot(index).store(raw);
        }
        // SAFETY: as in `load`.
        self.mem.with(self.pa, |p| unsafe { store::<F>(p, index, raw) });
    }

    /// Where it lies.
    #[inline]
    pub(crate) const fn pa(self) -> PhysAddr {
        self.pa
    }

    /// Entry `index` of this node, of level `level`, as the link to a node below.
    #[inline]
    pub(crate) fn link(self, level: Level, index: u64) -> Link<'m, F, M> {
        let counts = 1 << (level.bits + F::ENTRY_SHIFT);
        let counter = self.pa.wrapping_add(counts + (index << COUNT_BYTES_SHIFT));
        Link { slot: self.slot(index), counter }
    }

    /// Entries per frame of a node.
    const PER_FRAME: u64 = PAGE_SIZE >> F::ENTRY_SHIFT;

    /// Calls `f` for each frame that entries `first..first + count` lie in, with the first of them
    /// there, how many there are, and how many came before; until `f` returns less than all.
    /// How many entries it was in all. Inlined, so that loops in `f` know their entry's size.
    #[inline(always)]
    fn by_frame(
        self,
        first: u64,
        count: u64,
        mut f: impl FnMut(NonNull<u8>, u64, u64) -> u64,
    ) -> u64 {
        let mut done = 0;
        while done < count {
            let index = first + done;
            let here = (Self::PER_FRAME - index % Self::PER_FRAME).min(count - done);
            let good = self.mem.with(self.slot(index).pa, |p| f(p, here, done));
            done += good;
            if good < here {
                break;
            }
        }
        done
    }

    /// How many entries from `first` on are 0, of at most `count`.
    #[inline]
    pub(crate) fn count_zeros(self, first: u64, count: u64) -> u64 {
        self.by_frame(first, count, move |p, n, _| {
            let mut i = 0;
            // Eight at a time: a scan of holes that ends rarely.
            while i + 8 <= n {
                let or = (i..i + 8).fold(0, |or, i| {
                    // SAFETY: `by_frame` hands out a pointer to an entry and says how many follow
                    // in its frame.
                    or | unsafe { load::<F>(p, i, Ordering::Relaxed) }
                });
                if or != 0 {
                    break;
                }
                i += 8;
            }
            // SAFETY: as above.
            while i < n && unsafe { load::<F>(p, i, Ordering::Relaxed) } == 0 {
                i += 1;
            }
            i
        })
    }

    /// How many entries from `first` on follow the pattern, of at most `count`.
    #[inline]
    pub(crate) fn count_matching(self, first: u64, count: u64, pattern: Pattern) -> u64 {
        self.by_frame(first, count, move |p, n, done| {
            let (mut i, mut expected) = (0, pattern.at(done));
            // SAFETY: `by_frame` hands out a pointer to an entry and says how many follow.
            while i < n && unsafe { load::<F>(p, i, Ordering::Acquire) } == cut::<F>(expected) {
                i += 1;
                expected = expected.wrapping_add(pattern.step);
            }
            i
        })
    }

    /// Writes entries where nobody else writes: exclusive, or holes under `&mut self`.
    #[inline]
    pub(crate) fn store_run(self, first: u64, count: u64, pattern: Pattern) {
        self.by_frame(first, count, move |p, n, done| {
            let mut raw = pattern.at(done);
            for i in 0..n {
                // SAFETY: `by_frame` hands out a pointer to an entry and says how many follow.
                unsafe { store::<F>(p, i, raw) };
                raw = raw.wrapping_add(pattern.step);
            }
            n
        });
    }

    /// Changes entries from `first` on by exclusive-or with `delta`, as long as they are of one kind
    /// (their bits of `mask` are `flags`) or 0, which stays; at most `count`. How many were passed.
    /// `locked`: hardware may write to these, so by compare-and-set.
    #[inline]
    pub(crate) fn change_kind(
        self,
        (first, count): (u64, u64),
        (mask, flags): (u64, u64),
        delta: u64,
        locked: bool,
    ) -> u64 {
        self.by_frame(first, count, move |p, n, _| {
            for i in 0..n {
                // SAFETY: `by_frame` hands out a pointer to an entry and says how many follow.
                let raw = unsafe { load::<F>(p, i, Ordering::Acquire) };
                if raw & mask != flags {
                    if raw == 0 {
                        continue;
                    }
                    return i;
                }
                if delta == 0 {
                    continue;
                }
                if !locked {
                    // SAFETY: as above.
                    unsafe { store::<F>(p, i, raw ^ delta) };
                // SAFETY: as above.
                } else if unsafe { exchange::<F>(p, i, raw, raw ^ delta) }.is_err() {
                    // Of another kind now.
                    return i;
                }
            }
            n
        })
    }

    /// Makes entries holes from `first` on, as long as they follow the pattern, at most `count`; how
    /// many. `locked`: hardware may write status bits meanwhile; then an entry that it changed under
    /// us is cleared as well, and returned besides.
    #[inline]
    pub(crate) fn take_matching(
        self,
        first: u64,
        count: u64,
        pattern: Pattern,
        locked: bool,
    ) -> (u64, Option<u64>) {
        let mut odd = None;
        let taken = self.by_frame(first, count, |p, n, done| {
            let mut expected = cut::<F>(pattern.at(done));
            for i in 0..n {
                // SAFETY: `by_frame` hands out a pointer to an entry and says how many follow.
                if unsafe { load::<F>(p, i, Ordering::Acquire) } != expected {
                    return i;
                }
                if locked {
                    // SAFETY: as above.
                    let last = unsafe { swap::<F>(p, i, 0) };
                    if last != expected {
                        odd = Some(last);
                        return i;
                    }
                } else {
                    // SAFETY: as above.
                    unsafe { store::<F>(p, i, 0) };
                }
                expected = cut::<F>(expected.wrapping_add(pattern.step));
            }
            n
        });
        (taken, odd)
    }

    /// Fills a node of level `depth` that nothing links yet with holes.
    ///
    /// # Safety
    ///
    /// It was taken by [`alloc`] for this level, and nobody else reaches it.
    #[inline]
    unsafe fn clear(self, depth: usize) {
        for frame in 0..1 << node_order::<F>(depth) {
            self.mem.with(self.pa.wrapping_add(frame << PAGE_SHIFT), |p| {
                // SAFETY: a frame of the block that is the caller's alone.
                unsafe { p.cast::<[u8; FRAME]>().write_bytes(0, 1) };
            });
        }
    }

    /// Fills a node of `level` that nothing links yet: the pattern in entries
    /// `first..first + count`, zeros in all others and in the counts.
    ///
    /// # Safety
    ///
    /// It was taken by [`alloc`] for level `depth`, and nobody else reaches it.
    pub(crate) unsafe fn init(self, depth: usize, first: u64, count: u64, pattern: Pattern) {
        let (start, end) = (first << F::ENTRY_SHIFT, (first + count) << F::ENTRY_SHIFT);
        let mut at = 0;
        while at < PAGE_SIZE << node_order::<F>(depth) {
            // Whole frames, since processors clear those without reading them first.
            if at < start || at + PAGE_SIZE > end {
                self.mem.with(self.pa.wrapping_add(at), |p| {
                    // SAFETY: a frame of the block that is the caller's alone.
                    unsafe { p.cast::<[u8; FRAME]>().write_bytes(0, 1) };
                });
            }
            at += PAGE_SIZE;
        }
        self.by_frame(first, count, move |p, n, done| {
            let mut raw = pattern.at(done);
            for i in 0..n {
                // SAFETY: `by_frame` hands out a pointer to an entry and says how many follow;
                // nobody else reaches the node, so that the write need not be atomic.
                unsafe { write::<F>(p, i, raw) };
                raw = raw.wrapping_add(pattern.step);
            }
            n
        });
    }

    /// How many entries from `first` on follow the pattern, of at most `count`, in a node that
    /// nobody else reaches.
    ///
    /// # Safety
    ///
    /// Nothing links the node, and no CPU has an interior entry that leads to it.
    #[inline]
    pub(crate) unsafe fn count_matching_alone(
        self,
        first: u64,
        count: u64,
        pattern: Pattern,
    ) -> u64 {
        self.by_frame(first, count, move |p, n, done| {
            let (mut i, mut block) = (0, 1);
            // A block is compared without a branch, which makes vectors of it; one that differs
            // somewhere is looked at once more. Blocks grow, since most runs are short or whole.
            while i < n {
                let end = n.min(i + block);
                block = 128.min(2 * block);
                let (mut differ, mut expected) = (0, pattern.at(done + i));
                for i in i..end {
                    // SAFETY: `by_frame` hands out a pointer to an entry and says how many follow;
                    // nobody writes them.
                    differ |= unsafe { read::<F>(p, i) } ^ cut::<F>(expected);
                    expected = expected.wrapping_add(pattern.step);
                }
                if differ != 0 {
                    break;
                }
                i = end;
            }
            // SAFETY: as above.
            while i < n && unsafe { read::<F>(p, i) } == cut::<F>(pattern.at(done + i)) {
                i += 1;
            }
            i
        })
    }
}

/// Bytes of a frame.
const FRAME: usize = 1 << PAGE_SHIFT;

mod slot;
mod word;

pub(crate) use slot::{Link, Slot};
use word::{cut, exchange, load, read, store, swap, write};

/// Takes a block for a node of level `depth`. Its contents are whatever they were.
pub(crate) fn alloc<F: Format, M: Memory>(mem: &M, depth: usize) -> Result<PhysAddr, OutOfFrames> {
    let order = node_order::<F>(depth);
    let pa = mem.alloc(order)?;
    if F::check_table(pa).is_ok() {
        return Ok(pa);
    }
    // SAFETY: taken above, and nobody knows of it.
    unsafe { mem.free(pa, order) };
    Err(OutOfFrames { order })
}

/// Takes a block for a node of level `depth`, all holes.
pub(crate) fn alloc_empty<F: Format, M: Memory>(
    mem: &M,
    depth: usize,
) -> Result<PhysAddr, OutOfFrames> {
    let pa = alloc::<F, M>(mem, depth)?;
    // SAFETY: taken just now for this level.
    unsafe { Node::<F, M>::new(mem, pa).clear(depth) };
    Ok(pa)
}

/// Gives a node of level `depth` back.
///
/// # Safety
///
/// It was taken by [`alloc`] for this level, and nobody reaches it any more: it is not linked, and
/// no CPU has an interior entry that leads to it.
pub(crate) unsafe fn free<F: Format, M: Memory>(mem: &M, pa: PhysAddr, depth: usize) {
    // SAFETY: passed on to the caller. The order is that of `alloc`.
    unsafe { mem.free(pa, node_order::<F>(depth)) };
}
