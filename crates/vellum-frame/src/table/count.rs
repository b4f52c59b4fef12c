//! [`Count`]: how many owners a frame has, in 32 bits that never wrap.
//!
//! ```text
//!              take                get, try_get              get
//!     0 free  ------>  1 owner   --------------->  2 ..    ------->  PINNED = 2^32 - 1
//!       ^               |   ^                        |                  |  ^
//!       +---- put ------+   +-------- put -----------+                  +--+ get, put
//!         `Put::Last`               `Put::Shared`                   never comes down
//! ```
//!
//! Who adds an owner to a frame that it owns itself calls `get`. Who only found the frame somewhere
//! (in a table it has no lock on, say) calls `try_get`: it fails when the last owner has gone
//! already. Such a frame may also have been freed and taken for something else in between; so,
//! after a `try_get` that succeeded, look again whether the frame is still where it was found.
//!
//! # Invariants
//!
//! - Of all calls of `put` after one `take`, exactly one returns [`Put::Last`], and after it no
//!   `get` or `try_get` succeeds until the next `take`.
//! - Everything that an owner did with the frame happens before `Put::Last` is returned: `put`
//!   stores with release order, and the last one acquires what all the others released. `take`
//!   releases and `try_get` acquires: who finds a frame sees what its first owner wrote before.
//! - A pinned count stays. A frame that is counted too often leaks; it is never freed while owned.
//!
//! Source: P. E. McKenney, *Is Parallel Programming Hard*, 13.2 "Reference counting"; Linux,
//! Documentation/core-api/refcount-vs-atomic.rst (saturation, and the orders of get and put).

use super::FrameTable;
use crate::sync::{AtomicU32, const_fn, fence};
use core::fmt;
use core::sync::atomic::Ordering::{self, Acquire, Relaxed, Release};
use vellum_core::{FrameSource, PhysAddr};

/// The owners of one frame; of a larger block, kept at its first frame.
#[derive(Default)]
pub struct Count(AtomicU32);

/// What [`Count::put`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Put {
    /// That was the last owner: the frame is the caller's, to free.
    Last,
    /// Others own the frame still, or it is pinned.
    Shared,
    /// Nobody owned it; nothing was changed.
    Unowned,
}

impl Count {
    /// The count that stays: as for the frame of zeros that everybody maps.
    pub const PINNED: u32 = u32::MAX;

    const_fn! {
        /// A frame that nobody owns.
        #[must_use]
        pub fn new() -> Self {
            Self(AtomicU32::new(0))
        }
    }

    const_fn! {
        /// A frame that is never freed.
        #[must_use]
        pub fn pinned() -> Self {
            Self(AtomicU32::new(Self::PINNED))
        }
    }

    /// Makes the caller the only owner, of a frame that has none; false if it has.
    #[must_use]
    pub fn take(&self) -> bool {
        self.0.compare_exchange(0, 1, Release, Relaxed).is_ok()
    }

    /// Adds an owner to a frame that the caller owns; false if nobody does, which is a mistake in
    /// the caller.
    #[must_use]
    pub fn get(&self) -> bool {
        // The caller has seen all that it needs to: it is an owner.
        self.add(Relaxed)
    }

    /// Adds an owner to a frame that the caller has only found; false if it is nobody's any more.
    #[must_use]
    pub fn try_get(&self) -> bool {
        self.add(Acquire)
    }

    /// One more than the largest count below [`PINNED`](Self::PINNED) is that.
    fn add(&self, order: Ordering) -> bool {
        self.change(order, |count| count + 1) != 0
    }

    /// Changes a count that is neither 0 nor pinned, and returns what it was.
    fn change(&self, order: Ordering, to: impl Fn(u32) -> u32) -> u32 {
        let mut count = self.0.load(Relaxed);
        while count != 0 && count != Self::PINNED {
            match self.0.compare_exchange_weak(count, to(count), order, Relaxed) {
                Ok(_) => break,
                Err(now) => count = now,
            }
        }
        count
    }

    /// Takes an owner away.
    pub fn put(&self) -> Put {
        match self.change(Release, |count| count - 1) {
            0 => Put::Unowned,
            1 => {
                fence(Acquire);
                Put::Last
            }
            _ => Put::Shared,
        }
    }

    /// Keeps the frame for good; for an owner of it, or before anybody has seen it.
    pub fn pin(&self) {
        self.0.store(Self::PINNED, Relaxed);
    }

    /// How many owners there are now; [`PINNED`](Self::PINNED) for good.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }

    /// Whether the one owner is alone with the frame, if the caller is an owner: what a
    /// copy-on-write fault asks before it writes in place. What former owners did is done.
    #[must_use]
    pub fn is_sole(&self) -> bool {
        self.0.load(Acquire) == 1
    }

    #[cfg(test)]
    #[cfg(not(loom))]
    pub(super) const fn of(count: u32) -> Self {
        Self(AtomicU32::new(count))
    }
}

impl fmt::Debug for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count() {
            Self::PINNED => f.write_str("Count(pinned)"),
            count => write!(f, "Count({count})"),
        }
    }
}

impl AsRef<Self> for Count {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Why a reference could not be counted; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefError {
    /// The table has no such frame.
    NoFrame {
        /// The address that was given.
        pa: PhysAddr,
    },
    /// Nobody owns the frame.
    Unowned {
        /// The address that was given.
        pa: PhysAddr,
    },
    /// The frame has owners already.
    Owned {
        /// The address that was given.
        pa: PhysAddr,
    },
}

impl fmt::Display for RefError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFrame { pa } => write!(f, "{pa} is in no frame of the table"),
            Self::Unowned { pa } => write!(f, "the frame at {pa} has no owner"),
            Self::Owned { pa } => write!(f, "the frame at {pa} has owners already"),
        }
    }
}

impl core::error::Error for RefError {}

/// Reference counts, four bytes a frame.
///
/// A frame with two owners is freed once, by whoever lets go of it last:
///
/// ```
/// use core::sync::atomic::AtomicU64;
/// use vellum_core::Pfn;
/// use vellum_frame::table::{Count, RefCounts};
/// use vellum_frame::{FrameAllocator, storage_words};
///
/// let storage = [const { AtomicU64::new(0) }; storage_words(64, 1)];
/// let frames = FrameAllocator::new();
/// // SAFETY: no memory is behind these frames, and nobody else writes to `storage`.
/// unsafe { frames.init_in(&storage, [(0x10_0000, 0x14_0000)], [(0, 0); 0])? };
/// let slots = [const { Count::new() }; 64];
/// let owners = RefCounts::from_slice(Pfn::new(0x100).unwrap(), &slots);
///
/// let page = frames.alloc(0)?;
/// owners.take_ref(page)?; // the parent maps it
/// owners.get_ref(page)?; // and the child, after a fork
/// for last in [false, true] {
///     // SAFETY: allocated above as one frame; each of the two owners lets go of it once.
///     let freed = unsafe { owners.put_or_free(page, 0, &frames)? };
///     assert_eq!(freed, last);
/// }
/// assert_eq!(frames.stats().free, 64);
/// assert!(!owners.try_get_ref(page)?, "who comes now is too late");
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub type RefCounts<'m, const SPANS: usize = 1> = FrameTable<'m, Count, SPANS>;

/// Counting, for tables whose slots have a [`Count`].
impl<M: AsRef<Count>, const SPANS: usize> FrameTable<'_, M, SPANS> {
    fn count_of(&self, pa: PhysAddr) -> Result<&Count, RefError> {
        self.get(pa).map(AsRef::as_ref).ok_or(RefError::NoFrame { pa })
    }

    /// Makes the caller the only owner of a frame that has none, such as one just allocated.
    ///
    /// # Errors
    ///
    /// [`RefError::NoFrame`] and [`RefError::Owned`].
    pub fn take_ref(&self, pa: PhysAddr) -> Result<(), RefError> {
        if self.count_of(pa)?.take() { Ok(()) } else { Err(RefError::Owned { pa }) }
    }

    /// Adds an owner to a frame that the caller owns.
    ///
    /// # Errors
    ///
    /// [`RefError::NoFrame`] and [`RefError::Unowned`].
    pub fn get_ref(&self, pa: PhysAddr) -> Result<(), RefError> {
        if self.count_of(pa)?.get() { Ok(()) } else { Err(RefError::Unowned { pa }) }
    }

    /// Adds an owner to a frame that the caller has only found; false if it is nobody's any more.
    /// See the note on [`Count::try_get`] about frames that were freed and taken again.
    ///
    /// # Errors
    ///
    /// [`RefError::NoFrame`].
    pub fn try_get_ref(&self, pa: PhysAddr) -> Result<bool, RefError> {
        Ok(self.count_of(pa)?.try_get())
    }

    /// Takes an owner away; true if that was the last, and the frame is the caller's to free.
    ///
    /// # Errors
    ///
    /// [`RefError::NoFrame`] and [`RefError::Unowned`].
    pub fn put_ref(&self, pa: PhysAddr) -> Result<bool, RefError> {
        match self.count_of(pa)?.put() {
            Put::Last => Ok(true),
            Put::Shared => Ok(false),
            Put::Unowned => Err(RefError::Unowned { pa }),
        }
    }

    /// Takes an owner away, and gives the block back to `source` if that was the last; true then.
    ///
    /// # Errors
    ///
    /// [`RefError::NoFrame`] and [`RefError::Unowned`].
    ///
    /// # Safety
    ///
    /// - `pa` and `order` are those of a block that `source` handed out, and that nobody frees but
    ///   through its count. The caller is one of its owners, and reaches it no more: neither do its
    ///   tables, TLBs and devices.
    /// - The [`Count`] that `as_ref` gives for a slot is the same at every call.
    pub unsafe fn put_or_free(
        &self,
        pa: PhysAddr,
        order: u8,
        source: &impl FrameSource,
    ) -> Result<bool, RefError> {
        let last = self.put_ref(pa)?;
        if last {
            // SAFETY: the block is `source`'s, as the caller says. All owners are gone: each kept
            // this contract, and what it did happens before this (the invariants of the module),
            // so nothing reaches the block. No other `put` of it returned true.
            unsafe { source.free(pa, order) };
        }
        Ok(last)
    }
}
