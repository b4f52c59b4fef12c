//! One way: a table of lines that grows and shrinks in place, a slot at a time.
//!
//! ```text
//!   segments                      slots in use: n = 2^k + P, P the migration pointer
//!  +-------------------------+
//!  | 64 lines     (1 frame)  |     0 ........ P ......... 2^k ........ n
//!  +-------------------------+     | migrated | not yet   | migrated   |
//!  | 64 lines     (1 frame)  |
//!  +-------------------------+     slot of a hash h:  s = h mod 2^k      s >= P
//!  | 128 lines    (2 frames) |                        s = h mod 2^(k+1)  s <  P
//!  | ...                     |
//! ```
//!
//! Of a segment is kept where slot 0 would be if it had slots down to that, so that an address is one
//! logarithm, a shift and a sum from there.
//!
//! The old table of 2^k slots is the lower half of the new one, so a line that migrates either
//! stays where it is or goes to the slot 2^k above, which is free. No memory is replaced while the
//! table is shared, and none is needed twice.
//!
//! A segment comes as it is and is not filled with zeros first, which would be half of the way in one
//! call: slot n gets its line, or zeros, before n passes it, and nobody reads a slot from n on.
//!
//! Source: in-place resizing and chunks as in J. Stojkovic, N. Mantri, D. Skarlatos, T. Xu, J.
//! Torrellas, "Memory-Efficient Hashed Page Tables", HPCA 2023.

use crate::line::{LINE_BYTES, Line, Tag, with_line};
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{FrameSource, OutOfFrames, PAGE_SIZE, PhysAddr, PhysMap, order_bytes};
use vellum_global::word::alloc_zeroed;

/// Slots of segment 0, and of segment 1: a frame of lines. A way has this many or none.
pub(super) const FIRST: u64 = PAGE_SIZE / LINE_BYTES;
/// One for each logarithm of a slot.
const SEGMENTS: usize = 64 - FIRST.ilog2() as usize + 1;
/// Segments at most: more lines than there are tags for.
const MOST: usize = 40;
/// In a segment's word: it is there. (Its address may be 0.)
const THERE: u64 = 1;

/// The slots of one way. All that changes does so under the table's lock.
pub(super) struct Way {
    /// n. Nothing else of it is read without the lock, but for the segments that n reaches.
    slots: AtomicU64,
    /// How many slots there shall be: a power of two.
    target: AtomicU64,
    /// Lines in use.
    lines: AtomicU64,
    /// Where slot 0 would be by each segment, with [`THERE`].
    segments: [AtomicU64; SEGMENTS],
}

/// The segment of a slot.
#[inline]
const fn segment_of(slot: u64) -> usize {
    ((slot | (FIRST - 1)).ilog2() - (FIRST - 1).ilog2()) as usize
}

/// How far a segment's first slot is from slot 0, in bytes.
const fn offset(segment: usize) -> u64 {
    match segment.checked_sub(1) {
        Some(doublings) => (LINE_BYTES * FIRST) << doublings,
        None => 0,
    }
}

/// The order of a segment's block, if there may be such a segment.
fn segment_order(segment: usize) -> Option<u8> {
    let order = u8::try_from(segment.saturating_sub(1)).ok()?;
    (segment < MOST).then_some(order)
}

/// The slot of a hash among `n`, which is at least 1.
#[inline]
pub(super) const fn slot_of(hash: u64, n: u64) -> u64 {
    // Most of the time it is not on its way to another size.
    if n & (n - 1) == 0 {
        return hash & (n - 1);
    }
    let log2 = n.ilog2();
    let slot = hash & ((2 << log2) - 1);
    // No branch: which it is depends on the hash.
    let is_over = (slot >= n) as u64;
    slot - (is_over << log2)
}

/// The slot that migrates when there are `n`, or that slot `n` is merged into.
pub(super) const fn parent(n: u64) -> u64 {
    n - (1 << n.ilog2())
}

impl Way {
    pub(super) const fn new() -> Self {
        Self {
            slots: AtomicU64::new(0),
            target: AtomicU64::new(0),
            lines: AtomicU64::new(0),
            segments: [const { AtomicU64::new(0) }; SEGMENTS],
        }
    }

    /// n. With it come the segments of all slots below it.
    pub(super) fn slots(&self) -> u64 {
        self.slots.load(Ordering::Acquire)
    }

    /// Makes it n, whose last slot has its segment; every slot below has been written.
    pub(super) fn set_slots(&self, n: u64) {
        self.slots.store(n, Ordering::Release);
    }

    pub(super) fn target(&self) -> u64 {
        self.target.load(Ordering::Relaxed)
    }

    pub(super) fn set_target(&self, slots: u64) {
        self.target.store(slots, Ordering::Relaxed);
    }

    pub(super) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// One line more, or one less.
    pub(super) fn count(&self, change: i64) {
        // Under the lock, so that nobody's count is lost.
        self.lines.store(self.lines().wrapping_add_signed(change), Ordering::Relaxed);
    }

    /// Where hash function `way`, which is this one's, puts a tag; `None` if there are no slots.
    #[inline]
    pub(super) fn slot(&self, tag: Tag, way: usize) -> Option<u64> {
        let n = self.slots();
        // There are at most eight ways.
        (n > 0).then(|| slot_of(tag.hash(way as u8), n))
    }

    /// Where a slot lies, whose segment is there.
    #[inline]
    pub(super) fn address(&self, slot: u64) -> PhysAddr {
        let word =
            self.segments.get(segment_of(slot)).map_or(0, |word| word.load(Ordering::Relaxed));
        debug_assert!(word & THERE != 0, "slot {slot} has no segment");
        PhysAddr::new(word.wrapping_add(slot * LINE_BYTES).wrapping_sub(THERE))
    }

    /// Calls `f` with the line of a slot below n, or of slot n when its segment is there.
    #[inline]
    pub(super) fn line<M: PhysMap, R>(
        &self,
        memory: &M,
        slot: u64,
        f: impl FnOnce(&Line) -> R,
    ) -> R {
        // SAFETY: by the caller the segment is there, so this is a line of frames that are the
        // way's until nobody shares the table; lines are touched here only.
        unsafe { with_line(memory, self.address(slot), f) }
    }

    /// The segment that slot n would need, if it is not there.
    pub(super) fn missing(&self) -> Option<usize> {
        let segment = segment_of(self.slots());
        let word = self.segments.get(segment)?;
        (word.load(Ordering::Relaxed) & THERE == 0).then_some(segment)
    }

    /// Takes a block for a segment from the memory: of zeros if it is the first, which is used whole
    /// at once, or if `zeroed`; else each slot is written before n reaches it.
    pub(super) fn alloc<M: PhysMap + FrameSource>(
        memory: &M,
        segment: usize,
        zeroed: bool,
    ) -> Result<PhysAddr, OutOfFrames> {
        let order = segment_order(segment).ok_or(OutOfFrames { order: u8::MAX })?;
        if zeroed || segment == 0 { alloc_zeroed(memory, order) } else { memory.alloc(order) }
    }

    /// Gives a block from [`alloc`](Self::alloc) back, which was not installed.
    pub(super) fn discard<M: FrameSource>(memory: &M, segment: usize, block: PhysAddr) {
        if let Some(order) = segment_order(segment) {
            // SAFETY: allocated with this order, and nobody has come to know of it.
            unsafe { memory.free(block, order) };
        }
    }

    /// Makes the block a segment, unless that is there.
    pub(super) fn install(&self, segment: usize, block: PhysAddr) -> bool {
        let Some(word) = self.segments.get(segment) else { return false };
        let absent = word.load(Ordering::Relaxed) & THERE == 0;
        if absent {
            // Ordered before the first use by the store of n that lets its slots be used.
            let slot_0 = block.as_u64().wrapping_sub(offset(segment));
            word.store(slot_0 | THERE, Ordering::Relaxed);
        }
        absent
    }

    /// Bytes of the segments that are there.
    pub(super) fn bytes(&self) -> u64 {
        let bytes = |(segment, word): (usize, &AtomicU64)| {
            let there = word.load(Ordering::Relaxed) & THERE != 0;
            segment_order(segment).filter(|_| there).map(order_bytes)
        };
        self.segments.iter().enumerate().filter_map(bytes).sum()
    }

    /// Gives back the segments that have no slot below n.
    ///
    /// # Safety
    ///
    /// No call on the table is under way that has read an n before which reached them, and they
    /// came from `memory`.
    pub(super) unsafe fn trim<M: FrameSource>(&self, memory: &M) {
        let first = match self.slots().checked_sub(1) {
            Some(last) => segment_of(last) + 1,
            None => 0,
        };
        for (segment, word) in self.segments.iter().enumerate().skip(first) {
            let word = word.swap(0, Ordering::Relaxed);
            if let (true, Some(order)) = (word & THERE != 0, segment_order(segment)) {
                let block = PhysAddr::new((word & !THERE).wrapping_add(offset(segment)));
                // SAFETY: allocated with this order in `alloc`; by the caller nobody reads it, and
                // with its word gone nobody will.
                unsafe { memory.free(block, order) };
            }
        }
    }
}
