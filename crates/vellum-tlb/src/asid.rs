//! Address-space identifiers, as TLB entries carry them.
//!
//! ```text
//!   0 ................ 65534   65535
//!   address spaces             an entry of every address space (the tag of global pages here)
//! ```
//!
//! Source: Intel SDM vol. 3A, 5.10.1 "Process-Context Identifiers (PCIDs)".

use core::fmt;

/// An address-space identifier as a TLB entry carries it (x86: PCID, which has 12 bits; Arm and
/// RISC-V: up to 16).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asid(u16);

impl Asid {
    /// Identifier `n`, unless it is 65535, which marks entries of every address space here.
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
