//! What can be wrong with somebody else's table.
//!
//! ```text
//!   +---+        +---+         +---+
//!   | T |------->| T |-------->| L |     at, raw, level: the entry at fault
//!   +---+   va   +---+  va     +---+     va: the first address that depends on it
//! ```
//!
//! Nothing here is a fault of hardware's: these are tables that cannot mean what they say. An entry
//! that merely denies access is none of them.

use core::error::Error;
use core::fmt;
use vellum_core::{PhysAddr, VirtAddr};

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// It links a node that is, in part or whole, not memory.
    NotMemory,
    /// It links a node that is not aligned to its own size.
    Misaligned,
    /// It links a node that is being visited already: itself, or one above. Recursive mappings do
    /// that on purpose.
    Loop,
    /// Bits are set that the manual reserves: hardware would fault.
    Reserved,
    /// It is a leaf at a level that has none.
    Misplaced,
    /// It is a leaf of memory beyond the physical addresses that there are.
    TooWide,
    /// It leads to more entries than a visit may read: the visit ends here.
    TooLong,
}

impl Flaw {
    /// The end of a sentence that begins with the entry.
    const fn words(self) -> &'static str {
        match self {
            Self::NotMemory => "links what is not memory",
            Self::Misaligned => "links a node that is not aligned",
            Self::Loop => "links a node above itself",
            Self::Reserved => "has reserved bits set",
            Self::Misplaced => "is a leaf at a level without leaves",
            Self::TooWide => "is a leaf beyond physical memory",
            Self::TooLong => "leads to more entries than may be read",
        }
    }
}

/// A corrupt place in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt {
    /// The first address, within the range that was asked for, that depends on the entry.
    pub va: VirtAddr,
    /// The level of the entry: 0 for the root's.
    pub level: u8,
    /// Where the entry lies; where the root is wrong itself, the root.
    pub at: PhysAddr,
    /// The entry; where the root is wrong itself, its address.
    pub raw: u64,
    /// What is wrong with it.
    pub flaw: Flaw,
}

impl fmt::Display for Corrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { va, level, at, raw, flaw } = self;
        write!(f, "at {va}: entry {raw:#018x} of level {level}, at {at}, {}", flaw.words())
    }
}

impl Error for Corrupt {}

/// Why one address could not be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalkError {
    /// The format does not translate this address.
    NonCanonical(VirtAddr),
    /// The walk met this.
    Corrupt(Corrupt),
}

impl From<Corrupt> for WalkError {
    fn from(corrupt: Corrupt) -> Self {
        Self::Corrupt(corrupt)
    }
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonCanonical(va) => write!(f, "the format does not translate {va}"),
            Self::Corrupt(corrupt) => corrupt.fmt(f),
        }
    }
}

impl Error for WalkError {}
