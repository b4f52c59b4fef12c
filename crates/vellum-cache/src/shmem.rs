//! Files that are in memory only, without names: shared anonymous memory, and what a file system in
//! memory is made of. No heap.
//!
//! ```text
//!   directory           256 slots a frame
//!   +-----+         +--------+-----------------+
//!   |  o--|-------->| owners | length in bytes |   in use
//!   +-----+         +--------+-----------------+
//!   |  o--|--> ...  |   0    | next free slot  |   free
//!   +-----+         +--------+-----------------+
//! ```
//!
//! The pages themselves are in the page cache, which is the only place where they are. A file lives as
//! long as it has owners: mappings, and descriptors if there are any. With the last one its pages leave
//! the cache, and go when nobody maps them any more.
//!
//! An embedder's [`Files`] passes the files that [`Shmem::has`] on to it, and keeps the others. Owners are
//! counted by who calls: `create_shared` is `create`, `mapped` is `share`, `unmapped` is `release`, which
//! wants the cache; a kernel has that in the same static as its engine (vellum-space's example `kernel`).
//!
//! # Invariants
//!
//! - A slot is in the list of free ones exactly while it has no owner, but for the moment in which its last
//!   owner drops its pages.
//! - The number of slot frames only grows, after their place in the directory was written.
//!
//! # Lock order
//!
//! The lock of the list of free slots, innermost; under it nothing is called.

use crate::cache::Cache;
use crate::files::{FileError, FileId, FileLabel, Files};
use crate::page::Pages;
use core::fmt;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use vellum_core::{FrameBytes, Memory, OutOfFrames, PAGE_SIZE, PhysAddr};
use vellum_global::{lock, word};

/// What the numbers of all of these files have.
const OURS: u64 = 1 << 63;
const SLOT: u64 = 16;
const SLOTS: u64 = PAGE_SIZE / SLOT;
const NONE: OutOfFrames = OutOfFrames { order: 0 };

/// Files that are in memory only. See the [module](self).
pub struct Shmem<M: Memory> {
    memory: M,
    directory: PhysAddr,
    order: u8,
    /// Frames of slots that are in the directory.
    frames: AtomicU64,
    /// The first free slot's index plus one, or 0, above the bit that is the lock.
    free: AtomicU64,
}

impl<M: Memory> Shmem<M> {
    /// Room for 131,072 files times 2<sup>`order`</sup>, which are the frames of its directory.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn new(memory: M, order: u8) -> Result<Self, OutOfFrames> {
        let directory = word::alloc_zeroed(&memory, order)?;
        let (frames, free) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { memory, directory, order, frames, free })
    }

    /// Whether the number is one of its files', now or once.
    #[must_use]
    pub const fn has(file: FileId) -> bool {
        file.0 & OURS != 0
    }

    /// A file of `len_bytes` zeros, with one owner.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; of a full directory as well.
    pub fn create(&self, len_bytes: u64) -> Result<FileId, OutOfFrames> {
        loop {
            if let Some((index, slot)) = self.pop() {
                self.with(slot.wrapping_add(8), |len| len.store(len_bytes, Relaxed));
                self.with(slot, |owners| owners.store(1, Release));
                return Ok(FileId(OURS | index));
            }
            self.grow()?;
        }
    }

    /// One owner more; false if the file has none any more.
    #[must_use]
    pub fn share(&self, file: FileId) -> bool {
        let more = |n: u64| n.checked_add(1).filter(|_| n != 0);
        self.slot(file).is_some_and(|slot| {
            self.with(slot, |owners| owners.fetch_update(Relaxed, Relaxed, more).is_ok())
        })
    }

    /// One owner fewer; with the last one the pages leave `cache`, and the number may become another
    /// file's. Whether it was the last.
    pub fn release<P: Pages>(&self, file: FileId, cache: &Cache<P>) -> bool {
        let Some(slot) = self.slot(file) else { return false };
        let less = |n: u64| n.checked_sub(1);
        let before = self.with(slot, |owners| owners.fetch_update(AcqRel, Relaxed, less));
        debug_assert!(before.is_ok(), "a file was released more often than it had owners");
        if before != Ok(1) {
            return false;
        }
        // Nobody puts a page in after this: its length is 0 now.
        let len = self.with(slot.wrapping_add(8), |len| len.load(Relaxed));
        cache.drop_pages(file, 0..len.div_ceil(PAGE_SIZE));
        self.push(file.0 & !OURS, slot);
        true
    }

    /// Makes the file longer or shorter. Its cache and its mappings are the caller's to truncate.
    pub fn resize(&self, file: FileId, len_bytes: u64) {
        // A slot comes into the list of free ones under the lock only, so that this is no link of it.
        let first = lock::acquire(&self.free);
        if let Some(slot) = self.live(file) {
            self.with(slot.wrapping_add(8), |len| len.store(len_bytes, Relaxed));
        }
        lock::release(&self.free, first);
    }

    /// How many owners the file has.
    pub fn count_owners(&self, file: FileId) -> u64 {
        self.slot(file).map_or(0, |slot| self.with(slot, |owners| owners.load(Acquire)))
    }

    fn live(&self, file: FileId) -> Option<PhysAddr> {
        self.slot(file).filter(|&slot| self.with(slot, |owners| owners.load(Acquire)) != 0)
    }

    /// Where the file's slot is, if there is one with this number.
    fn slot(&self, file: FileId) -> Option<PhysAddr> {
        let index = file.0 & !OURS;
        if !Self::has(file) || index / SLOTS >= self.frames.load(Acquire) {
            return None;
        }
        Some(self.slot_at(index))
    }

    /// The slot of an index whose frame is in the directory.
    fn slot_at(&self, index: u64) -> PhysAddr {
        let entry = self.directory.wrapping_add(index / SLOTS * 8);
        let frame = PhysAddr::new(self.with(entry, |frame| frame.load(Relaxed)));
        frame.wrapping_add(index % SLOTS * SLOT)
    }

    fn with<R>(&self, at: PhysAddr, f: impl FnOnce(&AtomicU64) -> R) -> R {
        // SAFETY: a word of the directory, or of a frame of slots in it, at a multiple of 8: `slot` has
        // seen that the index is below `frames`, and `grow` that these are below the directory's words.
        // They are given back by `drop` only, and touched through here alone.
        unsafe { word::with_word(&self.memory, at, f) }
    }

    fn pop(&self) -> Option<(u64, PhysAddr)> {
        let first = lock::acquire(&self.free);
        let index = (first >> 1).checked_sub(1);
        let taken = index.map(|index| (index, self.slot_at(index)));
        let next = taken
            .map_or(first, |(_, slot)| self.with(slot.wrapping_add(8), |next| next.load(Relaxed)));
        lock::release(&self.free, next);
        taken
    }

    fn push(&self, index: u64, slot: PhysAddr) {
        let first = lock::acquire(&self.free);
        self.with(slot.wrapping_add(8), |next| next.store(first, Relaxed));
        lock::release(&self.free, (index + 1) << 1);
    }

    /// A frame more of free slots.
    fn grow(&self) -> Result<(), OutOfFrames> {
        let frame = word::alloc_zeroed(&self.memory, 0)?;
        let first = lock::acquire(&self.free);
        let count = self.frames.load(Relaxed);
        let fits = count < (PAGE_SIZE / 8) << self.order;
        if fits {
            let entry = self.directory.wrapping_add(count * 8);
            self.with(entry, |entry| entry.store(frame.as_u64(), Relaxed));
            self.frames.store(count + 1, Release);
        }
        lock::release(&self.free, first);
        if !fits {
            // SAFETY: taken above, and nobody else knows of it.
            unsafe { self.memory.free(frame, 0) };
            return Err(NONE);
        }
        for index in (count * SLOTS..(count + 1) * SLOTS).rev() {
            self.push(index, self.slot_at(index));
        }
        Ok(())
    }
}

impl<M: Memory> Files for Shmem<M> {
    fn len_bytes(&self, file: FileId) -> u64 {
        self.live(file).map_or(0, |slot| self.with(slot.wrapping_add(8), |len| len.load(Relaxed)))
    }

    fn read(&self, _: FileId, _: u64, to: FrameBytes<'_>) -> Result<(), FileError> {
        to.zero_from(0);
        Ok(())
    }

    fn write(&self, _: FileId, _: u64, _: FrameBytes<'_>) -> Result<(), FileError> {
        Ok(())
    }

    fn is_memory(&self, _: FileId) -> bool {
        true
    }

    /// Their inodes count from 1.
    fn label(&self, file: FileId) -> FileLabel {
        FileLabel { inode: (file.0 & !OURS) + 1, ..FileLabel::default() }
    }
}

impl<M: Memory> Drop for Shmem<M> {
    fn drop(&mut self) {
        for i in 0..*self.frames.get_mut() {
            let frame = PhysAddr::new(
                self.with(self.directory.wrapping_add(i * 8), |frame| frame.load(Relaxed)),
            );
            // SAFETY: taken by `grow` as one frame, and nobody reaches it any more.
            unsafe { self.memory.free(frame, 0) };
        }
        // SAFETY: taken by `new` as a block of this order; nobody reaches it any more.
        unsafe { self.memory.free(self.directory, self.order) }
    }
}

impl<M: Memory> fmt::Debug for Shmem<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slots = self.frames.load(Relaxed) * SLOTS;
        f.debug_struct("Shmem").field("slots", &slots).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
