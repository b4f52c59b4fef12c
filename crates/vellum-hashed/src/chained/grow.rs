//! Linear hashing of chains: one bucket more, one bucket less.
//!
//! ```text
//!            lock s          move         publish         unlock s
//!   s: a b c d       s: a c                                            look-ups of b, d that
//!   n: -             n: b d                n + 1                       waited for s see n + 1,
//!                    (nobody looks there)                              and go to n
//! ```

use super::Chained;
use crate::directory::{bucket_of, parent};
use core::sync::atomic::Ordering;
use vellum_core::Memory;
use vellum_global::word::with_word;
use vellum_global::{Chain, Key};

impl<M: Memory> Chained<M> {
    /// Splits up to `steps` buckets while there are more entries than buckets; does nothing while
    /// somebody else does.
    pub(super) fn grow(&self, steps: u64) {
        self.directory
            .grow(&self.entries, steps, |n| self.split_locked(self.lock_bucket(parent(n)), n));
    }

    /// Moves what belongs to bucket `n` out of the bucket that it is split from, and publishes it
    /// before the lock is given back.
    pub(super) fn split_locked(&self, mut chain: Chain<'_, M>, n: u64) {
        let moved = chain.split_off(|key: Key| bucket_of(key.hash(), n + 1) == n);
        // SAFETY: the head lies in a segment that is there; nobody looks at it before n + 1 is seen.
        unsafe {
            let head = self.directory.head(n);
            with_word(self.memory(), head, |head| head.store(moved, Ordering::Relaxed));
        }
        self.directory.publish(n);
    }

    /// Gives memory back after many entries are gone: no more buckets than the next power of
    /// two above what is there, hence a load of at least a half where there were more, and no spare
    /// frame of nodes.
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
        self.directory.shrink(*self.entries.get_mut(), |directory, last| {
            // SAFETY: heads of the directory, whose chains end at 0; the table is exclusive.
            let lock = |bucket| unsafe { Chain::lock(directory.memory(), directory.head(bucket)) };
            // SAFETY: both are of this table.
            unsafe { lock(parent(last)).absorb(&mut lock(last)) };
        });
        self.pool.trim();
    }
}
