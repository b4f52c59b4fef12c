//! Why a map of regions refuses.

use super::PageRange;
use core::error::Error;
use core::fmt;
use vellum_core::{OutOfFrames, VirtAddr};

/// Why an operation on a map was refused; it has changed no region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmaMapError {
    /// This region is in the way.
    Taken(PageRange),
    /// This range is not within the bounds.
    Outside(PageRange),
    /// No region starts at this address, or none can be split there.
    Missing(VirtAddr),
    /// There is no memory for the map itself.
    OutOfFrames(OutOfFrames),
}

impl From<OutOfFrames> for VmaMapError {
    fn from(out: OutOfFrames) -> Self {
        Self::OutOfFrames(out)
    }
}

impl fmt::Display for VmaMapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(range) => write!(f, "{range} is in the way"),
            Self::Outside(range) => write!(f, "{range} is outside of the bounds"),
            Self::Missing(va) => write!(f, "no region for this at {va}"),
            Self::OutOfFrames(out) => out.fmt(f),
        }
    }
}

impl Error for VmaMapError {}
