//! What an area lies on: pages of 4 KiB that can be read and written by number.
//!
//! ```text
//!   page   0        1        2                    pages() - 1
//!        +--------+--------+--------+-- ... --+--------+
//!        | header |        |        |         |        |
//!        +--------+--------+--------+-- ... --+--------+
//! ```
//!
//! A device need not be honest: it may lose a write that it has acknowledged, tear it, or give back other
//! bytes than were written. An area finds that out by its tags, and says [`DeviceError::Io`] of it.

use core::fmt;
use vellum_core::FrameBytes;

/// A device did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceError {
    /// It failed: the medium, the bus, or what they had to say was not true.
    Io,
    /// It has no page of that number.
    OutOfRange(u64),
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io => f.write_str("the device failed"),
            Self::OutOfRange(page) => write!(f, "the device has no page {page}"),
        }
    }
}

impl core::error::Error for DeviceError {}

/// A device of pages. Calls wait until the device has done it; many CPUs may call at once.
pub trait BlockDevice {
    /// How many pages it has; does not change.
    fn pages(&self) -> u64;

    /// Fills `to` with a page.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; what `to` holds then is undefined, but nothing secret.
    fn read(&self, page: u64, to: FrameBytes<'_>) -> Result<(), DeviceError>;

    /// Stores a page.
    ///
    /// # Errors
    ///
    /// [`DeviceError`]; what is stored then is undefined.
    fn write(&self, page: u64, from: FrameBytes<'_>) -> Result<(), DeviceError>;

    /// What these pages hold is not needed any more. A device that gains nothing by that does nothing.
    fn discard(&self, first: u64, pages: u64) {
        let _ = (first, pages);
    }
}

impl<D: BlockDevice + ?Sized> BlockDevice for &D {
    fn pages(&self) -> u64 {
        (**self).pages()
    }

    fn read(&self, page: u64, to: FrameBytes<'_>) -> Result<(), DeviceError> {
        (**self).read(page, to)
    }

    fn write(&self, page: u64, from: FrameBytes<'_>) -> Result<(), DeviceError> {
        (**self).write(page, from)
    }

    fn discard(&self, first: u64, pages: u64) {
        (**self).discard(first, pages);
    }
}
