//! Linear hashing: one bucket more, one bucket less.
//!
//! ```text
//!            lock s          move         publish         unlock s
//!   s: a b c d       s: a c                                            look-ups of b, d that
//!   n: -             n: b d                n + 1                       waited for s see n + 1,
//!                    (nobody looks there)                              and go to n
//! ```

use super::{Chained, FIRST, SEGMENTS, THERE, bucket_of, place, segment_order};
use core::sync::atomic::Ordering;
use vellum_core::{Memory, PhysAddr};
use vellum_global::word::with_word;
use vellum_global::{Chain, Key};

impl<M: Memory> Chained<M> {
    /// Splits up to `steps` buckets while there are more entries than buckets; does nothing while
    /// somebody else does.
    pub(super) fn grow(&self, steps: u64) {
        if !self.is_due() || self.splitting.swap(true, Ordering::Acquire) {
            return;
        }
        for _ in 0..steps {
            if !self.is_due() || !self.split() {
                break;
            }
        }
        self.splitting.store(false, Ordering::Release);
    }

    fn is_due(&self) -> bool {
        let entries = self.entries.load(Ordering::Relaxed);
        entries > self.buckets.load(Ordering::Relaxed)
            && entries >= self.retry_at.load(Ordering::Relaxed)
    }

    /// Splits the next bucket, by the holder of `splitting`; `false` if there is no memory for it.
    pub(super) fn split(&self) -> bool {
        let n = self.buckets.load(Ordering::Relaxed);
        let (segment, _) = place(n);
        if !self.has_segment(segment) && self.add_segment(segment).is_err() {
            let later = self.entries.load(Ordering::Relaxed);
            self.retry_at.store(later + n / 16, Ordering::Relaxed);
            return false;
        }
        self.split_locked(self.lock_bucket(n - (1 << n.ilog2())), n);
        true
    }

    /// Moves what belongs to bucket `n` out of the bucket that it is split from, and publishes it
    /// before the lock is given back.
    pub(super) fn split_locked(&self, mut chain: Chain<'_, M>, n: u64) {
        let moved = chain.split_off(|key: Key| bucket_of(key.hash(), n + 1) == n);
        // SAFETY: the head lies in a segment that is there; nobody looks at it before n + 1 is seen.
        unsafe {
            with_word(self.memory(), self.head(n), |head| head.store(moved, Ordering::Relaxed));
        }
        self.buckets.store(n + 1, Ordering::Release);
    }

    /// Gives memory back after many entries are gone: no more buckets than the next power of
    /// two above what is there, hence a load of at least a half where there were more, and no spare frame of nodes.
    ///
    /// Costs a step a bucket that goes. It takes the table exclusively, hence no space may be open.
    ///
    /// ```
    /// # fn main() -> Result<(), vellum_core::OutOfFrames> {
    /// use vellum_hashed::Chained;
    /// use vellum_testkit::Arena;
    ///
    /// let arena = Arena::new(64);
    /// let mut table = Chained::with_capacity(&arena, 4096)?;
    /// assert_eq!((table.count_buckets(), arena.frames_in_use()), (4096, 8));
    /// table.shrink();
    /// assert_eq!((table.count_buckets(), arena.frames_in_use()), (512, 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shrink(&mut self) {
        let entries = *self.entries.get_mut();
        let target = entries.clamp(FIRST, 1 << 45).next_power_of_two();
        let n = *self.buckets.get_mut();
        for last in (target..n).rev() {
            let mut chain = self.lock_bucket(last - (1 << last.ilog2()));
            // SAFETY: both are of this table's directory.
            unsafe { chain.absorb(&mut self.lock_bucket(last)) };
        }
        let n = n.min(target);
        *self.buckets.get_mut() = n;
        *self.retry_at.get_mut() = 0;
        let (last, _) = place(n - 1);
        for segment in last + 1..SEGMENTS {
            self.free_segment(segment);
        }
        self.pool.trim();
    }

    /// Gives a segment back if it is there: it has no bucket below n, or the table goes.
    pub(super) fn free_segment(&mut self, segment: usize) {
        let Some(word) = self.segments.get_mut(segment) else { return };
        let block = core::mem::take(word.get_mut());
        if let (true, Some(order)) = (block & THERE != 0, segment_order(segment)) {
            *self.count_frames.get_mut() -= 1 << order;
            // SAFETY: allocated with this order in `add_segment`; `&mut self`, so nobody holds or
            // awaits a lock in it, and by the caller nobody will.
            unsafe { self.memory().free(PhysAddr::new(block & !THERE), order) };
        }
    }
}
