//! One bucket more, one bucket less, and memory that goes back.

use super::Clustered;
use super::block::Block;
use crate::directory::{Directory, bucket_of, parent};
use vellum_core::{Memory, PhysAddr};
use vellum_global::Key;

impl<M: Memory, const PAGES: usize> Clustered<M, PAGES> {
    /// Splits up to `steps` buckets while there are more nodes than buckets; does nothing while
    /// somebody else does.
    pub(super) fn grow(&self, steps: u64) {
        self.directory.grow(&self.blocks, steps, |n| self.split(n));
    }

    /// Moves what belongs to bucket `n` out of the bucket that it is split from.
    pub(super) fn split(&self, n: u64) {
        let from = parent(n);
        // It is the new bucket's stripe as well.
        let _held = self.hold(from);
        let (mut link, mut before, mut moved) = (self.directory.first(from), None, 0);
        // SAFETY: the stripe is held.
        while let Some(block) = unsafe { self.follow(link) } {
            (link, _) = block.next();
            let moves =
                Key::from_tag(block.tag()).is_some_and(|key| bucket_of(key.hash(), n + 1) == n);
            if !moves {
                before = Some(block);
                continue;
            }
            match &before {
                Some(before) => before.set_next(link),
                None => self.directory.set_first(from, link),
            }
            block.set_next(moved);
            moved = block.at().as_u64();
        }
        self.directory.set_first(n, moved);
        self.directory.publish(n);
    }

    /// Gives memory back after many entries are gone: no more buckets than the next power of two
    /// above the number of blocks, and no frame without a node in use.
    ///
    /// Costs a step a bucket that goes. It takes the table exclusively, hence no space may be open.
    ///
    /// ```
    /// # fn main() -> Result<(), vellum_core::OutOfFrames> {
    /// use vellum_hashed::Clustered16;
    /// use vellum_testkit::Arena;
    ///
    /// let arena = Arena::new(64);
    /// let mut table = Clustered16::with_capacity(&arena, 4096 * 16)?;
    /// assert_eq!((table.count_buckets(), arena.frames_in_use()), (4096, 8 + 1));
    /// table.shrink();
    /// assert_eq!((table.count_buckets(), arena.frames_in_use()), (512, 1 + 1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shrink(&mut self) {
        let blocks = *self.blocks.get_mut();
        self.directory.shrink(blocks, join::<M, PAGES>);
        self.pool.trim();
    }

    /// Gives the frames of nodes back that have no node in use, though the table is shared.
    ///
    /// # Safety
    ///
    /// No other call on the table or its spaces is under way: a kernel's grace period has passed.
    pub unsafe fn reclaim(&self) {
        // SAFETY: the caller's: look-ups are calls.
        unsafe { self.pool.reclaim() };
    }
}

/// Moves the nodes of the last bucket to that which it was split from, in a table that is exclusive.
fn join<M: Memory, const PAGES: usize>(directory: &Directory<M>, last: u64) -> bool {
    let mut link = directory.first(last);
    while link != 0 {
        // SAFETY: links lead to nodes of the table's pool, which is `&mut` to the caller.
        let block = unsafe { Block::<M, PAGES>::new(directory.memory(), PhysAddr::new(link)) };
        let (next, _) = block.next();
        block.set_next(directory.first(parent(last)));
        directory.set_first(parent(last), link);
        link = next;
    }
    true
}
