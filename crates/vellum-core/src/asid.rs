//! Which address space a translation belongs to, where one structure holds those of many.
//!
//! ```text
//!   0 ................ 65534   65535
//!   address spaces             no space: left for a tag that means all of them
//! ```
//!
//! Hardware has fewer: x86-64's PCID 12 bits, Arm 8 or 16, RISC-V up to 16. How many a given TLB or
//! table tells apart is its own to say.
//!
//! Source: Intel SDM vol. 3A, 5.10.1 "Process-Context Identifiers (PCIDs)".

use core::fmt;

/// An address-space identifier (x86: PCID).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Asid(u16);

impl Asid {
    /// The lowest identifier, and the only one of a machine that has none.
    pub const ZERO: Self = Self(0);

    /// Identifier `n`, unless it is 65535.
    #[must_use]
    pub const fn new(n: u16) -> Option<Self> {
        if n == u16::MAX { None } else { Some(Self(n)) }
    }

    /// The number itself.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Asid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
