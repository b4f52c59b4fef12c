//! What a soft entry in a program's table stands for.
//!
//! ```text
//!    ..                              2  1 0
//!   +---------------------------------+----+
//!   | swap entry                      | 01 |   the page is in swap
//!   | 0                               | 10 |   a guard page (MADV_GUARD_INSTALL)
//!   +---------------------------------+----+
//! ```

use vellum_core::Soft;
use vellum_core::SwapEntry;

/// A soft entry, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The page is in swap.
    Swap(SwapEntry),
    /// Whoever touches the page gets SIGSEGV, whatever its region allows.
    Guard,
}

const SWAP: u64 = 1;
const GUARD: u64 = 2;
const KIND: u64 = 3;

impl Marker {
    /// As an entry; `None` for a swap entry of more than 62 bits.
    #[must_use]
    pub const fn soft(self) -> Option<Soft> {
        match self {
            Self::Swap(entry) if entry.0 >> 62 == 0 => Soft::new(entry.0 << 2 | SWAP),
            Self::Swap(_) => None,
            Self::Guard => Soft::new(GUARD),
        }
    }

    /// What an entry stands for; `None` for what the engine never writes.
    #[must_use]
    pub const fn of(soft: Soft) -> Option<Self> {
        match soft.get() & KIND {
            SWAP => Some(Self::Swap(SwapEntry(soft.get() >> 2))),
            GUARD => Some(Self::Guard),
            _ => None,
        }
    }
}
