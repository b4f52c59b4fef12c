//! What the engine stands on: one trait that names the parts, and the seam to swap.
//!
//! ```text
//!          +------------------ System ------------------+
//!          | Pages     memory, a record for each frame  |
//!          | Files     what is mapped from where        |     a kernel has one of these,
//!          | Swap      pages that are out               |     a test another
//!          | Table     the design of every space's table|
//!          | Cpus      who has to forget a translation  |
//!          +--------------------------------------------+
//! ```

use core::fmt;
use vellum_cache::{Files, Pages};
use vellum_core::{FrameBytes, Invalidate, PageTable};

/// The parts of one virtual-memory system.
pub trait System: Pages {
    /// The page table of an address space.
    type Table: PageTable;
    /// What makes the CPUs forget translations of one address space.
    type Cpus: Invalidate;
    /// The files that can be mapped.
    type Files: Files;
    /// Where pages go that are out.
    type Swap: Swap;

    /// The files.
    fn files(&self) -> &Self::Files;

    /// The swap.
    fn swap(&self) -> &Self::Swap;
}

/// The place of a page that is out, as a table's entry names it: at most 62 bits, and not more than the
/// table's [`SOFT_BITS`](PageTable::SOFT_BITS) less 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SwapEntry(pub u64);

/// A page that is out could not be had back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SwapError {
    /// The device failed, or what it gave is not what was stored.
    Io,
    /// Somebody else is reading or writing it.
    Busy,
}

impl fmt::Display for SwapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "the page could not be read back from swap",
            Self::Busy => "the page is on its way",
        })
    }
}

impl core::error::Error for SwapError {}

/// Pages that are out. Each entry of a table that names one has a share in it.
pub trait Swap {
    /// Fills `to` with the page.
    ///
    /// # Errors
    ///
    /// [`SwapError`].
    fn read(&self, entry: SwapEntry, to: FrameBytes<'_>) -> Result<(), SwapError>;

    /// One share more in it: another table's entry names it, or somebody reads it. False, and nothing
    /// changed, if it has no share any more.
    fn share(&self, entry: SwapEntry) -> bool;

    /// One share fewer. With the last one the place is free, to be named again for another page.
    fn release(&self, entry: SwapEntry);
}

/// Nothing is ever out.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoSwap;

impl Swap for NoSwap {
    fn read(&self, _: SwapEntry, _: FrameBytes<'_>) -> Result<(), SwapError> {
        Err(SwapError::Io)
    }

    fn share(&self, _: SwapEntry) -> bool {
        true
    }

    fn release(&self, _: SwapEntry) {}
}
