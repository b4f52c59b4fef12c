//! Pages that are out: what an address space asks of the place where they are.
//!
//! ```text
//!   table        soft entry ----- a share ---->  place of a page   <---- a share ----  soft entry of a child
//!                                                 |
//!                  fault: share, read, release <--'
//! ```
//!
//! Each entry of a table that names a place has a share in it, so a fork only adds shares, and the last space
//! that has the page back, or has gone, frees the place.

use crate::bytes::FrameBytes;
use core::fmt;

/// The place of a page that is out, as a table's entry names it: at most 62 bits, and not more than the
/// table's [`SOFT_BITS`](crate::PageTable::SOFT_BITS) less 2.
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
