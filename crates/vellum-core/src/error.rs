//! Why a table refuses, and how far it came.
//!
//! ```text
//!   map, unmap, protect      RangeError { cause, done }     [va, va + done) changed, the rest did not
//!   replace                  ReplaceError                   nothing visible changed
//!   walk                     Cause                          only NonCanonical
//! ```
//!
//! Optimistic allocation (docs/adr/0005): `replace` takes no memory. When it lacks some it says
//! what as a [`Need`], the caller refills its stock outside all locks, and tries again.

use crate::{Attr, Entry, OutOfFrames, PhysAddr, Span, VirtAddr};
use core::error::Error;
use core::fmt;

/// What is wrong with a request, or in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// The table cannot translate this address.
    NonCanonical(VirtAddr),
    /// An address or a length is not a multiple of the page that was asked for.
    Misaligned {
        /// The address or length at fault.
        value: u64,
        /// log2 of the page size that it should be a multiple of.
        page: u8,
    },
    /// The range runs past the last address.
    Wraps {
        /// Its start.
        va: VirtAddr,
        /// Its length in bytes.
        len: u64,
    },
    /// Something is there already.
    Mapped(Span),
    /// No memory for the table itself.
    OutOfFrames(OutOfFrames),
    /// The format has no encoding for these attributes.
    Unencodable(Attr),
    /// The format has no room for this physical address, or for the end of a run from it.
    PhysTooWide(PhysAddr),
    /// The table has no leaf of 2<sup>`page`</sup> bytes, nor a smaller one that would do.
    NoLeaf {
        /// log2 of the leaf's bytes.
        page: u8,
    },
    /// The soft entry's value has more bits than the table can hold.
    SoftTooWide(u64),
    /// Both writable and executable, which the table's policy refuses.
    WriteAndExecute(Attr),
    /// This address is in a part of the table that another one has too: it belongs to that one, or
    /// is shared after a fork until it is unshared.
    Shared(VirtAddr),
    /// The pages around this address do not make one larger leaf: a hole, a soft entry, another
    /// attribute, or a frame that does not follow.
    Uneven(VirtAddr),
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NonCanonical(va) => {
                write!(f, "address {va} is outside of what the table translates")
            }
            Self::Misaligned { value, page } => {
                write!(f, "{value:#x} is not a multiple of 2^{page} bytes")
            }
            Self::Wraps { va, len } => write!(f, "{len:#x} bytes from {va} pass the last address"),
            Self::Mapped(span) => write!(f, "{} is taken: {:?}", span.va, span.entry),
            Self::OutOfFrames(e) => e.fmt(f),
            Self::Unencodable(attr) => write!(f, "the format cannot express {attr:?}"),
            Self::PhysTooWide(pa) => write!(f, "the format cannot hold physical address {pa}"),
            Self::NoLeaf { page } => write!(f, "the table has no leaf of 2^{page} bytes"),
            Self::SoftTooWide(value) => write!(f, "the table cannot hold soft value {value:#x}"),
            Self::WriteAndExecute(attr) => {
                write!(f, "{attr:?} is writable and executable, against the table's policy")
            }
            Self::Shared(va) => write!(f, "{va} is in a part that another table has too"),
            Self::Uneven(va) => write!(f, "the pages around {va} do not make one leaf"),
        }
    }
}

impl Error for Cause {}

impl From<OutOfFrames> for Cause {
    fn from(e: OutOfFrames) -> Self {
        Self::OutOfFrames(e)
    }
}

/// A range operation stopped: exactly `[va, va + done)` changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeError {
    /// Why.
    pub cause: Cause,
    /// Bytes from the start of the range that were changed; a multiple of the page size.
    pub done: u64,
}

impl From<Cause> for RangeError {
    /// Refused before anything changed.
    fn from(cause: Cause) -> Self {
        Self { cause, done: 0 }
    }
}

impl fmt::Display for RangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after {:#x} bytes", self.cause, self.done)
    }
}

impl Error for RangeError {}

/// What a table wants to find in its stock at the next try. Opaque to everyone but the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need(u32);

impl Need {
    /// For tables: a need, by a number of their own.
    #[must_use]
    pub const fn new(n: u32) -> Self {
        Self(n)
    }

    /// For tables: the number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// One entry was not replaced, and nothing visible changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplaceError {
    /// Another entry is there than was expected: this one.
    Changed(Entry),
    /// The stock lacks this much: [`refill`](crate::PageTable::refill) and try again.
    Need(Need),
    /// At this place the table has another leaf size than the request; changing that takes
    /// `&mut self` (`map`, `unmap`).
    Structure,
    /// The request itself is wrong; or, with [`Cause::Shared`], others have this part of the table too.
    Invalid(Cause),
}

impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(entry) => write!(f, "the entry is now {entry:?}"),
            Self::Need(_) => f.write_str("the stock has to be refilled"),
            Self::Structure => f.write_str("the table has another leaf size here"),
            Self::Invalid(cause) => cause.fmt(f),
        }
    }
}

impl Error for ReplaceError {}

impl From<Cause> for ReplaceError {
    fn from(cause: Cause) -> Self {
        Self::Invalid(cause)
    }
}
