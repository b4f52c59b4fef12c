//! What can go wrong, one enum for each family of calls.
//!
//! ```text
//!   init, init_in    InitError       nothing was kept; it may be called again
//!   alloc            OutOfFrames     vellum-core's; nothing was taken
//!   alloc_at         AllocAtError    nothing was taken
//!   alloc_contiguous AllocRunError   nothing was taken
//!   free             FreeError       nothing was freed
//! ```

use core::fmt;
use vellum_core::PhysAddr;

/// Why an allocator could not be set up; it is left as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InitError {
    /// It has been, or is being, initialised already.
    AlreadyInitialised,
    /// No whole frame is usable; or all are reserved, and the metadata has room elsewhere.
    NoFrames,
    /// The metadata does not fit the storage given; or, for `init`, no place that was tried had
    /// room and was within reach ([`init`](crate::FrameAllocator::init) says which are tried).
    NoRoom {
        /// How many 64-bit words the metadata of this map takes.
        words: u64,
    },
    /// An iterator gave other ranges when it was gone through again.
    Unstable,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyInitialised => f.write_str("the frame allocator is initialised already"),
            Self::NoFrames => f.write_str("the memory map has no whole usable frame"),
            Self::NoRoom { words } => write!(f, "no room for {words} words of metadata"),
            Self::Unstable => f.write_str("the memory map changed while it was read"),
        }
    }
}

impl core::error::Error for InitError {}

/// Why a block was not freed; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FreeError {
    /// The order is above [`MAX_ORDER`](crate::MAX_ORDER).
    BadOrder {
        /// The order that was given.
        order: u8,
    },
    /// The address is not a multiple of the block's size.
    Misaligned {
        /// The address that was given.
        pa: PhysAddr,
        /// The order that was given.
        order: u8,
    },
    /// The block does not lie between the first and the last frame of this allocator.
    OutOfRange {
        /// The address that was given.
        pa: PhysAddr,
        /// The order that was given.
        order: u8,
    },
    /// Part of the block was never this allocator's to give: reserved, a hole, or its metadata.
    Reserved {
        /// The first such frame.
        pa: PhysAddr,
    },
    /// Part of the block is free already.
    DoubleFree {
        /// A free frame in the block.
        pa: PhysAddr,
    },
}

impl fmt::Display for FreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadOrder { order } => write!(f, "order {order} does not exist"),
            Self::Misaligned { pa, order } => write!(f, "{pa} is not aligned to order {order}"),
            Self::OutOfRange { pa, order } => {
                write!(f, "{pa}, order {order}, is outside this allocator")
            }
            Self::Reserved { pa } => write!(f, "the frame at {pa} is reserved"),
            Self::DoubleFree { pa } => write!(f, "the frame at {pa} is free already"),
        }
    }
}

impl core::error::Error for FreeError {}

/// Why a given block could not be had; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocAtError {
    /// The order is above [`MAX_ORDER`](crate::MAX_ORDER).
    BadOrder {
        /// The order that was given.
        order: u8,
    },
    /// The address is not a multiple of the block's size.
    Misaligned {
        /// The address that was given.
        pa: PhysAddr,
        /// The order that was given.
        order: u8,
    },
    /// The block does not lie between the first and the last frame of this allocator.
    OutOfRange {
        /// The address that was given.
        pa: PhysAddr,
        /// The order that was given.
        order: u8,
    },
    /// Part of the block is not this allocator's to give: reserved, a hole, or its metadata.
    Reserved {
        /// The first such frame.
        pa: PhysAddr,
    },
    /// Part of the block is allocated.
    Taken {
        /// The address that was given.
        pa: PhysAddr,
        /// The order that was given.
        order: u8,
    },
}

impl fmt::Display for AllocAtError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadOrder { order } => write!(f, "order {order} does not exist"),
            Self::Misaligned { pa, order } => write!(f, "{pa} is not aligned to order {order}"),
            Self::OutOfRange { pa, order } => {
                write!(f, "{pa}, order {order}, is outside this allocator")
            }
            Self::Reserved { pa } => write!(f, "the frame at {pa} is reserved"),
            Self::Taken { pa, order } => {
                write!(f, "part of the block at {pa}, order {order}, is taken")
            }
        }
    }
}

impl core::error::Error for AllocAtError {}

/// Why a run of frames could not be had; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AllocRunError {
    /// No frames were asked for.
    Empty,
    /// No run of so many free frames exists.
    NoRun {
        /// The number of frames.
        count: u64,
    },
}

impl fmt::Display for AllocRunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a run of no frames was asked for"),
            Self::NoRun { count } => write!(f, "no {count} free frames lie side by side"),
        }
    }
}

impl core::error::Error for AllocRunError {}

/// A block that is not this allocator's: the causes that `free` and `alloc_at` share.
pub(crate) enum NotOurs {
    Order,
    Misaligned,
    OutOfRange,
    Reserved(PhysAddr),
}

impl NotOurs {
    pub(crate) const fn on_free(self, pa: PhysAddr, order: u8) -> FreeError {
        match self {
            Self::Order => FreeError::BadOrder { order },
            Self::Misaligned => FreeError::Misaligned { pa, order },
            Self::OutOfRange => FreeError::OutOfRange { pa, order },
            Self::Reserved(pa) => FreeError::Reserved { pa },
        }
    }

    pub(crate) const fn on_alloc_at(self, pa: PhysAddr, order: u8) -> AllocAtError {
        match self {
            Self::Order => AllocAtError::BadOrder { order },
            Self::Misaligned => AllocAtError::Misaligned { pa, order },
            Self::OutOfRange => AllocAtError::OutOfRange { pa, order },
            Self::Reserved(pa) => AllocAtError::Reserved { pa },
        }
    }
}
