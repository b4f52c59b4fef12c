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
//! A step of growth moves half of one bucket: no pause grows with the table. A segment is as large as all before it, so the directory is at most half
//! empty; where the memory has no block of that size, buckets get fuller instead, and growth is
//! tried again later. No allocation fails for want of a directory.
//!
//! A head is one word or a few, drawn here as one; they belong to the design, which writes all of them
//! before it publishes the bucket, as a segment is not filled with zeros first. That the bases of the
//! segments and n lie in a walker's registers, as the base and mask of PowerPC's table do, is
//! assumed.
//!
//! What is kept for a segment is where bucket 0 would be if all heads were in it: so the address of
//! bucket b is found by the logarithm of b, one load, and b times a constant.
//!
//! # Invariants
//!
//! - n grows by the holder of `splitting` alone, while it holds the lock of the bucket that it
//!   splits; the head that n + 1 adds is written before. So while somebody has the lock of a bucket
//!   that a hash belongs to, it stays the bucket of that hash.
//! - The low bits of a bucket, as many as [`FIRST`](Directory::FIRST) has, are those of every hash in it: a lock chosen by them is the
//!   lock of a bucket and of all that it will be split into.
//! - A segment, once there, stays for as long as the table is shared.
//!
//! Source: W. Litwin, "Linear Hashing: A New Tool for File and Table Addressing", VLDB 1980;
//! P.-A. Larson, "Dynamic Hash Tables", CACM 31(4), 1988.

use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use vellum_core::{Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr};
use vellum_global::word::{alloc_zeroed, load, store};

/// Bytes of a word.
const WORD: u64 = 8;
/// More buckets than a tag has pages for.
const MOST: u64 = 1 << 45;

/// The heads of a table's buckets, of `WORDS` words each, a power of two.
pub(crate) struct Directory<M: Memory, const WORDS: u64 = 1> {
    memory: M,
    /// n: how many buckets are in use.
    buckets: AtomicU64,
    /// For each segment, by the logarithm of its buckets, where bucket 0 would be.
    bases: [AtomicU64; 64],
    /// A bit for each segment that is there.
    there: AtomicU64,
    count_frames: AtomicU64,
    /// Somebody is splitting a bucket.
    splitting: AtomicBool,
    /// After a segment could not be had: how many items there will be when it is tried again.
    retry_at: AtomicU64,
}

/// The bucket of `hash` among `n`, which is at least 1.
#[inline]
pub(crate) const fn bucket_of(hash: u64, n: u64) -> u64 {
    // Of 0, which it never is, the logarithm would be checked for.
    let mask = (2 << (n | 1).ilog2()) - 1;
    let bucket = hash & mask;
    if bucket < n { bucket } else { hash & mask >> 1 }
}

/// The bucket that splits when there are `n`, or that the last of `n + 1` came from.
pub(crate) const fn parent(n: u64) -> u64 {
    n ^ 1 << (n | 1).ilog2()
}

impl<M: Memory, const WORDS: u64> Directory<M, WORDS> {
    /// Buckets of the first segment, and of the second: one frame of heads. There are never fewer.
    pub(crate) const FIRST: u64 = PAGE_SIZE / Self::HEAD;
    /// Bytes of a head.
    const HEAD: u64 = WORDS * WORD;
    /// The segments, by the logarithms of their buckets.
    const FIRST_SEGMENT: u32 = Self::FIRST.ilog2() - 1;
    const LAST_SEGMENT: u32 = MOST.ilog2();

    /// As many buckets as `want` rounded up to a power of two, [`FIRST`](Self::FIRST) at least, with
    /// heads of zeros.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub(crate) fn new(memory: M, want: u64) -> Result<Self, OutOfFrames> {
        let buckets = want.clamp(Self::FIRST, MOST).next_power_of_two();
        let directory = Self {
            memory,
            buckets: AtomicU64::new(buckets),
            bases: [const { AtomicU64::new(0) }; 64],
            there: AtomicU64::new(0),
            count_frames: AtomicU64::new(0),
            splitting: AtomicBool::new(false),
            retry_at: AtomicU64::new(0),
        };
        for segment in Self::FIRST_SEGMENT..=Self::segment(buckets - 1) {
            // On failure, dropping the directory gives back what it has got.
            directory.add_segment(segment, true)?;
        }
        Ok(directory)
    }

    /// The segment of a bucket.
    #[inline]
    const fn segment(bucket: u64) -> u32 {
        (bucket | (Self::FIRST / 2)).ilog2()
    }

    /// The first bucket of a segment, and the order of its block.
    const fn extent(segment: u32) -> (u64, u8) {
        match segment.checked_sub(Self::FIRST_SEGMENT + 1) {
            Some(order) => (1 << segment, order as u8),
            None => (0, 0),
        }
    }

    pub(crate) const fn memory(&self) -> &M {
        &self.memory
    }

    /// n. With it come the segments of all buckets below it.
    #[inline]
    pub(crate) fn count(&self) -> u64 {
        self.buckets.load(Ordering::Acquire)
    }

    pub(crate) fn table_bytes(&self) -> u64 {
        self.count_frames.load(Ordering::Relaxed) << PAGE_SHIFT
    }

    /// The bucket of a hash.
    #[inline]
    pub(crate) fn bucket_of(&self, hash: u64) -> u64 {
        bucket_of(hash, self.count())
    }

    /// Where the head of a bucket lies, whose segment is there: one below n, or that which is added.
    #[inline]
    pub(crate) fn head(&self, bucket: u64) -> PhysAddr {
        let segment = Self::segment(bucket);
        debug_assert!(self.has_segment(segment), "bucket {bucket} has no segment");
        let base = self.bases.get(segment as usize).map_or(0, |base| base.load(Ordering::Relaxed));
        PhysAddr::new(base).wrapping_add(bucket * Self::HEAD)
    }

    /// The head's first word; of a design whose locks are elsewhere.
    #[inline]
    pub(crate) fn first(&self, bucket: u64) -> u64 {
        // SAFETY: a word of a segment, which stays while the directory is shared, and is stored
        // through atomics only.
        unsafe { load(&self.memory, self.head(bucket)) }
    }

    /// Sets the head's first word.
    #[inline]
    pub(crate) fn set_first(&self, bucket: u64, first: u64) {
        // SAFETY: as in `first`.
        unsafe { store(&self.memory, self.head(bucket), first) }
    }

    /// Takes a segment of heads from the memory; `zeroed` unless each is written before it is used.
    fn add_segment(&self, segment: u32, zeroed: bool) -> Result<(), OutOfFrames> {
        let (first, order) = Self::extent(segment);
        let Some(base) = self.bases.get(segment as usize).filter(|_| segment <= Self::LAST_SEGMENT)
        else {
            return Err(OutOfFrames { order: u8::MAX });
        };
        let block =
            if zeroed { alloc_zeroed(&self.memory, order)? } else { self.memory.alloc(order)? };
        self.count_frames.fetch_add(1 << order, Ordering::Relaxed);
        // Ordered before the first use by the store of n that lets its heads be used.
        base.store(block.as_u64().wrapping_sub(first * Self::HEAD), Ordering::Relaxed);
        self.there.fetch_or(1 << segment, Ordering::Relaxed);
        Ok(())
    }

    fn has_segment(&self, segment: u32) -> bool {
        self.there.load(Ordering::Relaxed) >> (segment & 63) & 1 != 0
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
        let segment = Self::segment(n);
        let there = self.has_segment(segment) || self.add_segment(segment, false).is_ok();
        if !there {
            self.retry_at.store(items.load(Ordering::Relaxed) + n / 16, Ordering::Relaxed);
        }
        there
    }

    /// Makes bucket `n`, which is the next, one of those in use.
    pub(crate) fn publish(&self, n: u64) {
        self.buckets.store(n + 1, Ordering::Release);
    }

    /// Reduces the number of buckets to what so many items need: the next power of two. `join` is
    /// given each bucket that goes, from the last on, and moves what belongs to it to its
    /// [`parent`]; where it cannot, and returns `false`, the bucket stays, and all before it.
    pub(crate) fn shrink(&mut self, items: u64, mut join: impl FnMut(&Self, u64) -> bool) {
        let n = *self.buckets.get_mut();
        let target = items.clamp(Self::FIRST, MOST).next_power_of_two().min(n);
        for last in (target..n).rev() {
            if !join(self, last) {
                break;
            }
            *self.buckets.get_mut() = last;
        }
        *self.retry_at.get_mut() = 0;
        let last = Self::segment(*self.buckets.get_mut() - 1);
        for segment in last + 1..=Self::LAST_SEGMENT {
            self.free_segment(segment);
        }
    }

    /// Gives a segment back if it is there: it has no bucket below n, or the directory goes.
    fn free_segment(&mut self, segment: u32) {
        if !self.has_segment(segment) {
            return;
        }
        *self.there.get_mut() &= !(1 << segment);
        let (first, order) = Self::extent(segment);
        let base = self.bases.get_mut(segment as usize).map_or(0, |base| *base.get_mut());
        *self.count_frames.get_mut() -= 1 << order;
        // SAFETY: allocated with this order in `add_segment`; `&mut self`, so nobody holds or
        // awaits a lock in it, and by the caller nobody will.
        unsafe {
            self.memory.free(PhysAddr::new(base.wrapping_add(first * Self::HEAD)), order);
        }
    }
}

impl<M: Memory, const WORDS: u64> Drop for Directory<M, WORDS> {
    fn drop(&mut self) {
        for segment in Self::FIRST_SEGMENT..=Self::LAST_SEGMENT {
            self.free_segment(segment);
        }
    }
}

impl<M: Memory, const WORDS: u64> fmt::Debug for Directory<M, WORDS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({} buckets)", self.count())
    }
}

#[cfg(test)]
mod tests;
