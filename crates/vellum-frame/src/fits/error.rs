//! What can go wrong with a table of partitions.
//!
//! ```text
//!   new          TableError        nothing was kept
//!   alloc        FitError          nothing was taken     free >= wanted > largest:  fragmentation
//!   free, get    PartitionError    nothing was changed
//!   translate    LimitFault        a program left its partition
//! ```

use core::fmt;
use vellum_core::{PhysAddr, VirtAddr};

/// Why a table could not be set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// There is no record, and the first hole needs one.
    NoRecords,
    /// The granule is not a power of two.
    Granule {
        /// The granule that was given.
        granule_bytes: u64,
    },
    /// The memory goes beyond the last 64-bit address.
    Range {
        /// The memory's first byte.
        base: PhysAddr,
        /// Its length.
        len_bytes: u64,
    },
}

impl fmt::Display for TableError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRecords => f.write_str("a table of partitions without a record"),
            Self::Granule { granule_bytes } => {
                write!(f, "a granule of {granule_bytes} bytes is no power of two")
            }
            Self::Range { base, len_bytes } => {
                write!(f, "{len_bytes} bytes from {base} on go beyond the last address")
            }
        }
    }
}

impl core::error::Error for TableError {}

/// Why no partition was made; the table is what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FitError {
    /// A partition of no bytes.
    ZeroSize,
    /// No hole is large enough.
    NoHole {
        /// The bytes that were asked for.
        wanted: u64,
        /// The bytes that are free, in all holes together.
        free: u64,
        /// The bytes of the largest hole.
        largest: u64,
    },
    /// The hole that was chosen is larger than the partition, so that both need a record, and all
    /// are in use.
    NoRecord {
        /// How many records the table has.
        records: usize,
    },
}

impl FitError {
    /// Whether the memory would have sufficed in one piece: external fragmentation, which
    /// compaction cures.
    #[must_use]
    pub const fn is_fragmentation(self) -> bool {
        matches!(self, Self::NoHole { wanted, free, .. } if wanted <= free)
    }
}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroSize => f.write_str("a partition of no bytes"),
            Self::NoHole { wanted, free, largest } => write!(
                f,
                "no hole of {wanted} bytes: {free} are free, the largest hole has {largest}"
            ),
            Self::NoRecord { records } => write!(f, "all {records} records are in use"),
        }
    }
}

impl core::error::Error for FitError {}

/// Why a handle names no partition; nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartitionError {
    /// It did, and was freed.
    Freed,
    /// It never did: the handle is another table's.
    Unknown,
}

impl fmt::Display for PartitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Freed => "the partition was freed already",
            Self::Unknown => "the partition is not of this table",
        })
    }
}

impl core::error::Error for PartitionError {}

/// A program's address is at or beyond its limit: what the hardware trapped on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitFault {
    /// The program's address.
    pub va: VirtAddr,
    /// The first address that it does not have.
    pub limit: u64,
}

impl fmt::Display for LimitFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is beyond the limit of {} bytes", self.va, self.limit)
    }
}

impl core::error::Error for LimitFault {}
