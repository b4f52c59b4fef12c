//! Buckets whose number grows by one at a time: linear hashing, for chained and clustered tables.
//!
//! ```text
//!   segments                        n buckets, 2^k <= n < 2^(k+1);  s = n - 2^k is split next
//!  +--------------------------+
//!  | 512 heads     (1 frame)  |     0 ......... s ........ 2^k ........ n
//!  +--------------------------+     | split     | whole    | halves     |
//!  | 512 heads     (1 frame)  |
//!  +--------------------------+     bucket of a hash h:  b = h mod 2^(k+1);
//!  | 1024 heads    (2 frames) |                          if b >= n, then b - 2^k
//!  |                          |
//!  +--------------------------+     bucket s splits into s and n, and n goes up by one
//!  | 2048 heads    (4 frames) |
//!  | ...                      |
//! ```
//!
//! A step of growth moves half of one bucket: no pause grows with the table, but for filling a new
//! segment with zeros. A segment is as large as all before it, so the directory is at most half
//! empty; where the memory has no block of that size, buckets get fuller instead, and growth is
//! tried again later. No allocation fails for want of a directory.
//!
//! A head is one word, which belongs to the design and begins as 0. That the bases of the segments
//! and n lie in a walker's registers, as the base and mask of PowerPC's table do, is assumed.
//!
//! # Invariants
//!
//! - n grows by the holder of `splitting` alone, while it holds the lock of the bucket that it
//!   splits; the head that n + 1 adds is written before. So while somebody has the lock of a bucket
//!   that a hash belongs to, it stays the bucket of that hash.
//! - A bucket's low [`FIRST_BITS`] bits are those of every hash in it: a lock chosen by them is the
//!   lock of a bucket and of all that it will be split into.
//! - A segment, once there, stays for as long as the table is shared.
//!
//! Source: W. Litwin, "Linear Hashing: A New Tool for File and Table Addressing", VLDB 1980;
//! P.-A. Larson, "Dynamic Hash Tables", CACM 31(4), 1988.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vellum_core::{Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr};
use vellum_global::word::{alloc_zeroed, load, store};

/// log2 of [`FIRST`].
pub(crate) const FIRST_BITS: u8 = PAGE_SHIFT - 3;
/// Heads in segment 0, and in segment 1: one frame of them. There are never fewer buckets.
pub(crate) const FIRST: u64 = 1 << FIRST_BITS;
/// Bytes of a head.
pub(crate) const HEAD: u64 = PAGE_SIZE / FIRST;
/// More buckets than a tag has pages for.
const MOST: u64 = 1 << 45;
/// Segments at most.
const SEGMENTS: usize = 40;
/// In a segment's word: it is there. (Its address may be 0.)
const THERE: u64 = 1;

/// The heads of a table's buckets.
pub(crate) struct Directory<M: Memory> {
    memory: M,
    /// n: how many buckets are in use.
    buckets: AtomicU64,
    /// Address of each segment, with [`THERE`].
    segments: [AtomicU64; SEGMENTS],
    count_frames: AtomicU64,
    /// Somebody is splitting a bucket.
    splitting: AtomicBool,
    /// After a segment could not be had: how many items there will be when it is tried again.
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
pub(crate) const fn bucket_of(hash: u64, n: u64) -> u64 {
    let half = 1 << n.ilog2();
    let bucket = hash & (2 * half - 1);
    if bucket < n { bucket } else { bucket - half }
}

/// The bucket that splits when there are `n`, or that the last of `n + 1` came from.
pub(crate) const fn parent(n: u64) -> u64 {
    n - (1 << n.ilog2())
}

impl<M: Memory> Directory<M> {
    /// As many buckets as `want` rounded up to a power of two, 512 at least.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub(crate) fn new(memory: M, want: u64) -> Result<Self, OutOfFrames> {
        let buckets = want.clamp(FIRST, MOST).next_power_of_two();
        let directory = Self {
            memory,
            buckets: AtomicU64::new(buckets),
            segments: [const { AtomicU64::new(0) }; SEGMENTS],
            count_frames: AtomicU64::new(0),
            splitting: AtomicBool::new(false),
            retry_at: AtomicU64::new(0),
        };
        let (last, _) = place(buckets - 1);
        for segment in 0..=last {
            // On failure, dropping the directory gives back what it has got.
            directory.add_segment(segment)?;
        }
        Ok(directory)
    }

    pub(crate) const fn memory(&self) -> &M {
        &self.memory
    }

    /// n. With it come the segments of all buckets below it.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.load(Ordering::Acquire)
    }

    pub(crate) fn table_bytes(&self) -> u64 {
        self.count_frames.load(Ordering::Relaxed) << PAGE_SHIFT
    }

    /// The bucket of a hash.
    pub(crate) fn bucket_of(&self, hash: u64) -> u64 {
        bucket_of(hash, self.count())
    }

    /// Where the head of a bucket lies, whose segment is there: one below n, or that which is added.
    pub(crate) fn head(&self, bucket: u64) -> PhysAddr {
        let (segment, offset) = place(bucket);
        let base = self.segments.get(segment).map_or(0, |word| word.load(Ordering::Relaxed));
        debug_assert!(base & THERE != 0, "bucket {bucket} has no segment");
        PhysAddr::new(base & !THERE).wrapping_add(offset * HEAD)
    }

    /// The head's word; of a design whose locks are elsewhere.
    pub(crate) fn first(&self, bucket: u64) -> u64 {
        // SAFETY: a word of a segment, which stays while the directory is shared, and is stored
        // through atomics only.
        unsafe { load(&self.memory, self.head(bucket)) }
    }

    /// Sets the head's word.
    pub(crate) fn set_first(&self, bucket: u64, first: u64) {
        // SAFETY: as in `first`.
        unsafe { store(&self.memory, self.head(bucket), first) }
    }

    /// Takes a segment of heads from the memory.
    fn add_segment(&self, segment: usize) -> Result<(), OutOfFrames> {
        let order = segment_order(segment).ok_or(OutOfFrames { order: u8::MAX })?;
        let Some(word) = self.segments.get(segment) else { return Ok(()) };
        let block = alloc_zeroed(&self.memory, order)?;
        self.count_frames.fetch_add(1 << order, Ordering::Relaxed);
        // Ordered before the first use by the store of n that lets its heads be used.
        word.store(block.as_u64() | THERE, Ordering::Relaxed);
        Ok(())
    }

    fn has_segment(&self, segment: usize) -> bool {
        self.segments.get(segment).is_some_and(|word| word.load(Ordering::Relaxed) & THERE != 0)
    }

    /// Up to `steps` splits while there are more of `items` than buckets; does nothing while
    /// somebody else does.
    ///
    /// `split` is given n. It locks the [`parent`], moves what belongs to bucket n, writes that
    /// head, calls [`publish`](Self::publish), and unlocks.
    pub(crate) fn grow(&self, items: &AtomicU64, steps: u64, mut split: impl FnMut(u64)) {
        if !self.is_due(items) || self.splitting.swap(true, Ordering::Acquire) {
            return;
        }
        for _ in 0..steps {
            if !self.is_due(items) || !self.make_room(items) {
                break;
            }
            split(self.buckets.load(Ordering::Relaxed));
        }
        self.splitting.store(false, Ordering::Release);
    }

    fn is_due(&self, items: &AtomicU64) -> bool {
        let items = items.load(Ordering::Relaxed);
        items > self.buckets.load(Ordering::Relaxed)
            && items >= self.retry_at.load(Ordering::Relaxed)
    }

    /// Makes sure of bucket n's segment, by the holder of `splitting`.
    fn make_room(&self, items: &AtomicU64) -> bool {
        let n = self.buckets.load(Ordering::Relaxed);
        let (segment, _) = place(n);
        let there = self.has_segment(segment) || self.add_segment(segment).is_ok();
        if !there {
            self.retry_at.store(items.load(Ordering::Relaxed) + n / 16, Ordering::Relaxed);
        }
        there
    }

    /// Makes bucket `n`, which is the next, one of those in use.
    pub(crate) fn publish(&self, n: u64) {
        self.buckets.store(n + 1, Ordering::Release);
    }

    /// Reduces the number of buckets to what so many items need: the next power of two. What
    /// belonged to a bucket that goes was moved by `join`, which is given each from the last on.
    pub(crate) fn shrink(&mut self, items: u64, join: impl Fn(&Self, u64)) {
        let n = *self.buckets.get_mut();
        let target = items.clamp(FIRST, MOST).next_power_of_two().min(n);
        for last in (target..n).rev() {
            join(self, last);
            *self.buckets.get_mut() = last;
        }
        *self.retry_at.get_mut() = 0;
        let (last, _) = place(target - 1);
        for segment in last + 1..SEGMENTS {
            self.free_segment(segment);
        }
    }

    /// Gives a segment back if it is there: it has no bucket below n, or the directory goes.
    fn free_segment(&mut self, segment: usize) {
        let Some(word) = self.segments.get_mut(segment) else { return };
        let block = core::mem::take(word.get_mut());
        if let (true, Some(order)) = (block & THERE != 0, segment_order(segment)) {
            *self.count_frames.get_mut() -= 1 << order;
            // SAFETY: allocated with this order in `add_segment`; `&mut self`, so nobody holds or
            // awaits a lock in it, and by the caller nobody will.
            unsafe { self.memory.free(PhysAddr::new(block & !THERE), order) };
        }
    }
}

impl<M: Memory> Drop for Directory<M> {
    fn drop(&mut self) {
        for segment in 0..SEGMENTS {
            self.free_segment(segment);
        }
    }
}

impl<M: Memory> fmt::Debug for Directory<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({} buckets)", self.count())
    }
}

#[cfg(test)]
mod tests;
