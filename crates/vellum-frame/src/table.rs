//! [`FrameTable`]: what a kernel knows of each frame, in one dense array.
//!
//! ```text
//!  frames    0      159    256                     8192           9216
//!            [======)......[=======================)..............[=====)
//!             span 0        span 1                                 span 2
//!            |      |      |                       |              |     |
//!            v      v      v                       v              v     v
//!  slots     [M M M M][M M M M M M M M M M M M M M M M M][M M M M M M M M]
//! ```
//!
//! One `M` for each frame of at most `SPANS` spans; holes between spans cost nothing, and a frame in
//! one has no `M`. A look-up is one comparison a span, one subtraction and one load. The slots are
//! a slice of yours, raw memory that [`FrameTable::write_at`] fills, or frames that
//! [`FrameTable::carve`] takes.
//!
//! `M` is shared by everybody who can name the frame, so what changes in it is atomic or locked.
//! Reference counts are the first user ([`Count`], [`RefCounts`]); a kernel that wants flags or an
//! owner beside the count puts a [`Count`] into a struct of its own and implements
//! `AsRef<Count>` for it.
//!
//! # Invariants
//!
//! - Spans ascend, and there is a gap between two of them.
//! - There are as many slots as frames in all spans.

mod count;
mod spans;

use crate::FrameAllocator;
use core::fmt;
use core::ptr::NonNull;
use vellum_core::{Pfn, PhysAddr};

pub use count::{Count, Put, RefCounts, RefError};
pub use spans::Spans;

/// Why a table could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// There are more frames than slots.
    NoRoom {
        /// How many slots it takes.
        slots: u64,
    },
    /// The frames for the slots are not in the direct map.
    OutOfReach {
        /// The first of them.
        pa: PhysAddr,
    },
    /// The memory for the slots does not begin at a multiple of their alignment.
    Misaligned {
        /// The alignment, in bytes.
        align: usize,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom { slots } => write!(f, "no room for a table of {slots} frames"),
            Self::OutOfReach { pa } => write!(f, "a frame table at {pa} cannot be reached"),
            Self::Misaligned { align } => write!(f, "a frame table must be aligned to {align}"),
        }
    }
}

impl core::error::Error for TableError {}

/// One `M` for each frame of at most `SPANS` spans.
///
/// ```
/// use core::sync::atomic::{AtomicU8, Ordering::Relaxed};
/// use vellum_core::{Pfn, PhysAddr};
/// use vellum_frame::PhysRange;
/// use vellum_frame::table::{FrameTable, Spans};
///
/// // 1 MiB at 1 MiB, and 64 KiB far away.
/// let map = [PhysRange::from((0x10_0000, 0x20_0000)), PhysRange::with_len(0x1_0000_0000, 0x1_0000)];
/// let spans = Spans::<2>::of(map);
/// assert_eq!(spans.count_frames(), 256 + 16);
///
/// let slots = [const { AtomicU8::new(0) }; 256 + 16];
/// let table = FrameTable::new(spans, &slots)?;
/// let owner = table.get(PhysAddr::new(0x1_0000_2abc)).expect("a frame of the second span");
/// owner.store(7, Relaxed);
/// assert_eq!(table.at(Pfn::new(0x10_0002).unwrap()).unwrap().load(Relaxed), 7);
/// assert!(table.get(PhysAddr::new(0x20_0000)).is_none(), "a hole");
/// # Ok::<(), vellum_frame::table::TableError>(())
/// ```
pub struct FrameTable<'m, M, const SPANS: usize = 1> {
    spans: Spans<SPANS>,
    slots: &'m [M],
}

impl<'m, M> FrameTable<'m, M> {
    /// A table of as many frames as there are slots, from `first` on; for a `static`.
    #[must_use]
    pub const fn from_slice(first: Pfn, slots: &'m [M]) -> Self {
        let spans = Spans::one(first, slots.len() as u64);
        Self { spans, slots }
    }
}

impl<'m, M, const SPANS: usize> FrameTable<'m, M, SPANS> {
    /// A table of the frames of `spans`, in `slots`, of which those too many stay unused.
    ///
    /// # Errors
    ///
    /// [`TableError::NoRoom`] if there are fewer slots than frames.
    pub fn new(spans: Spans<SPANS>, slots: &'m [M]) -> Result<Self, TableError> {
        let count = spans.count_frames();
        let used = usize::try_from(count).ok().and_then(|count| slots.get(..count));
        let slots = used.ok_or(TableError::NoRoom { slots: count })?;
        Ok(Self { spans, slots })
    }

    /// A table in raw memory: [`Spans::bytes`] bytes at `at`, each slot written once with what
    /// `make` says of its frame.
    ///
    /// The memory may be a `static`, or a stretch that was set aside as reserved before the allocator
    /// was set up. It is never given back by the table, and no `M` is dropped.
    ///
    /// # Errors
    ///
    /// Every [`TableError`]; `NoRoom` only if the table does not fit the address space. Nothing was
    /// written then.
    ///
    /// # Safety
    ///
    /// `at` is valid for reads and writes of [`Spans::bytes`] bytes for `'m`, and nobody else
    /// reaches them in that time.
    pub unsafe fn write_at(
        spans: Spans<SPANS>,
        at: NonNull<u8>,
        mut make: impl FnMut(Pfn) -> M,
    ) -> Result<Self, TableError> {
        let count = spans.count_frames();
        let no_room = TableError::NoRoom { slots: count };
        let at = at.cast::<M>();
        if !at.is_aligned() {
            return Err(TableError::Misaligned { align: align_of::<M>() });
        }
        let len = usize::try_from(count).map_err(|_| no_room)?;
        let bytes = len.checked_mul(size_of::<M>()).ok_or(no_room)?;
        isize::try_from(bytes).map_err(|_| no_room)?;
        for (index, frame) in spans.frames().enumerate() {
            // SAFETY: `frames` yields `len` frames, so this is one of `len` slots in the memory
            // that the caller gave, whose size does not pass isize::MAX; `at` is aligned.
            unsafe { at.add(index).write(make(frame)) };
        }
        // SAFETY: all `len` slots were written just now, and nobody else reaches them for 'm.
        let slots = unsafe { NonNull::slice_from_raw_parts(at, len).as_ref() };
        Ok(Self { spans, slots })
    }

    /// A table in frames that it takes from `frames`, side by side, for good: how metadata is carved
    /// out of the memory that it describes, once the allocator is set up.
    ///
    /// `reach(pa, len)` turns `len` bytes at `pa` into a pointer, as for
    /// [`FrameAllocator::init`], or says `None` where the direct map does not reach.
    ///
    /// # Errors
    ///
    /// Every [`TableError`]; the frames went back then.
    ///
    /// # Safety
    ///
    /// A pointer that `reach(pa, len)` returns is valid for reads and writes of `len` bytes for
    /// `'m`, and nobody reaches these bytes in that time but through the frames at `pa`.
    pub unsafe fn carve(
        frames: &FrameAllocator<'_>,
        spans: Spans<SPANS>,
        reach: impl FnOnce(PhysAddr, u64) -> Option<NonNull<u8>>,
        make: impl FnMut(Pfn) -> M,
    ) -> Result<Self, TableError> {
        let (bytes, count) = (spans.bytes::<M>(), spans.frames_for::<M>());
        if count == 0 {
            // SAFETY: no byte is reached at an address that is aligned.
            return unsafe { Self::write_at(spans, NonNull::<M>::dangling().cast(), make) };
        }
        let no_room = TableError::NoRoom { slots: spans.count_frames() };
        let pa = frames.alloc_contiguous(count).map_err(|_| no_room)?;
        let table = match reach(pa, bytes) {
            // SAFETY: `bytes` bytes at `pa` lie in the frames just taken, which nobody else has;
            // `reach` made the pointer for them, and the caller vouches for that.
            Some(at) => unsafe { Self::write_at(spans, at, make) },
            None => Err(TableError::OutOfReach { pa }),
        };
        if table.is_err() {
            // SAFETY: taken above; after an error no table reaches them. It cannot fail.
            let freed = unsafe { frames.free_contiguous(pa, count) };
            debug_assert_eq!(freed, Ok(()));
        }
        table
    }

    /// What is known of the frame that `pa` lies in; `None` for a hole. O(`SPANS`).
    #[must_use]
    pub fn get(&self, pa: PhysAddr) -> Option<&'m M> {
        self.at(pa.number())
    }

    /// What is known of `frame`; `None` for a hole. O(`SPANS`).
    #[must_use]
    pub fn at(&self, frame: Pfn) -> Option<&'m M> {
        let index = self.spans.index(frame)?;
        // Below the length of a slice, so it fits.
        self.slots.get(index as usize)
    }

    /// The frames that there are slots for.
    #[must_use]
    pub const fn spans(&self) -> &Spans<SPANS> {
        &self.spans
    }

    /// All frames and what is known of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (Pfn, &'m M)> + use<'_, 'm, M, SPANS> {
        self.spans.frames().zip(self.slots)
    }
}

impl<M, const SPANS: usize> Clone for FrameTable<'_, M, SPANS> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M, const SPANS: usize> Copy for FrameTable<'_, M, SPANS> {}

impl<M, const SPANS: usize> fmt::Debug for FrameTable<'_, M, SPANS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameTable").field("spans", &self.spans).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
