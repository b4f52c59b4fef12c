//! Which lines went to a lower stripe, for scans that have passed it by.
//!
//! ```text
//!   a frame of 512 tags, written in a circle           head: moves since the table was made
//!  +-----+-----+-----+- - -+-----+
//!  | tag | tag | tag |     | tag |     a scan at head = m saw all that was below it then;
//!  +-----+-----+-----+- - -+-----+     what came down since is m .. head
//! ```
//!
//! A kick may carry a line from a stripe that a scan has yet to see to one that it has seen. A scan
//! therefore keeps the head as it was, and looks up the tags that were written since. One that
//! falls 512 moves behind begins again.
//!
//! # Invariants
//!
//! - Written and read under the table's lock only.

use crate::line::Tag;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Memory, OutOfFrames, PAGE_SIZE, PhysAddr};
use vellum_global::word::{alloc_zeroed, load, store};

const WORD: u64 = 8;
/// Moves that are remembered.
pub(super) const ROOM: u64 = PAGE_SIZE / WORD;

/// The last moves to lower stripes, in a frame of `M`, which dropping it gives back.
pub(super) struct Moves<M: Memory> {
    memory: M,
    frame: PhysAddr,
    head: AtomicU64,
}

impl<M: Memory> Moves<M> {
    pub(super) fn new(memory: M) -> Result<Self, OutOfFrames> {
        let frame = alloc_zeroed(&memory, 0)?;
        Ok(Self { memory, frame, head: AtomicU64::new(0) })
    }

    /// Bytes of memory that they take.
    pub(super) const fn table_bytes(&self) -> u64 {
        PAGE_SIZE
    }

    /// How many there were.
    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Relaxed)
    }

    fn at(&self, n: u64) -> PhysAddr {
        self.frame.wrapping_add(n % ROOM * WORD)
    }

    pub(super) fn note(&self, tag: Tag) {
        let head = self.head();
        // SAFETY: a word of the frame, which is ours until `drop` and touched here only.
        unsafe { store(&self.memory, self.at(head), tag.bits()) };
        self.head.store(head + 1, Ordering::Relaxed);
    }

    /// The tags since the head was `mark`; `None` if they are no longer all known.
    pub(super) fn since(&self, mark: u64) -> Option<impl Iterator<Item = Tag> + '_> {
        let head = self.head();
        (head - mark <= ROOM).then(|| {
            (mark..head).filter_map(|n| {
                // SAFETY: as in `note`.
                Tag::from_bits(unsafe { load(&self.memory, self.at(n)) })
            })
        })
    }
}

impl<M: Memory> Drop for Moves<M> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; whoever reads it borrows `self`.
        unsafe { self.memory.free(self.frame, 0) };
    }
}
