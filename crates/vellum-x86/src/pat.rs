//! The page-attribute table: which memory type each of the eight indices in an entry stands for.
//!
//! ```text
//!   IA32_PAT (277H)   63..56 55..48 47..40 39..32 31..24 23..16 15..8  7..0
//!                     PA7    PA6    PA5    PA4    PA3    PA2    PA1    PA0
//!   at reset          UC     UC-    WT     WB     UC     UC-    WT     WB
//!   ours              UC     UC-    WP     WC     UC     UC-    WT     WB
//!                                                                       index = PAT:PCD:PWT
//! ```
//!
//! The codec of entries (`vellum_core::pte`) counts on `vellum_core::pte::PAT`, which differs from
//! the value at reset in PA4 and PA5 only: write-combining and write-protect.
//!
//! # Invariants
//!
//! - All processors have the same value while they share tables.
//!
//! Source: Intel SDM vol. 3A, 13.12 "Page Attribute Table (PAT)", 13.11.8 "MTRR Considerations in MP
//! Systems" (the sequence, which 13.12.4 refers to).

use vellum_core::MemoryType;

/// The value at reset.
pub const RESET: u64 = 0x00_07_04_06_00_07_04_06;

/// A value for the register that the processor accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pat(u64);

impl Pat {
    /// What `vellum_core`'s entries mean.
    pub const VELLUM: Self = Self(vellum_core::pte::PAT);

    /// The value with these bits, unless an entry of it is reserved (writing it would fault).
    ///
    /// ```
    /// use vellum_core::MemoryType;
    /// use vellum_x86::Pat;
    ///
    /// let pat = Pat::new(Pat::VELLUM.bits()).unwrap();
    /// assert_eq!(pat.entry(4), Some(MemoryType::WriteCombining));
    /// assert_eq!(Pat::new(2), None);
    /// ```
    #[must_use]
    pub fn new(bits: u64) -> Option<Self> {
        bits.to_le_bytes().iter().all(|&entry| memory_type(entry).is_some()).then_some(Self(bits))
    }

    /// The bits of the register.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// What index `index` stands for; `None` above 7.
    #[must_use]
    pub fn entry(self, index: u8) -> Option<MemoryType> {
        memory_type(*self.0.to_le_bytes().get(usize::from(index))?)
    }

    /// The indices, from bit 0, whose type is not the same in both.
    #[must_use]
    pub fn differs_from(self, other: Self) -> u8 {
        let bytes = self.0.to_le_bytes().into_iter().zip(other.0.to_le_bytes());
        bytes.rev().fold(0, |mask, (a, b)| mask << 1 | u8::from(a != b))
    }
}

/// The memory type of one entry, by table 13-10.
fn memory_type(entry: u8) -> Option<MemoryType> {
    Some(match entry {
        0 => MemoryType::Uncached,
        1 => MemoryType::WriteCombining,
        4 => MemoryType::WriteThrough,
        5 => MemoryType::WriteProtect,
        6 => MemoryType::WriteBack,
        7 => MemoryType::UncachedMinus,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vellum_core::{Attr, Entry, PhysAddr, pte};

    #[test]
    fn ours_differs_from_reset_where_reset_repeats_itself() {
        let reset = Pat::new(RESET).unwrap();
        assert_eq!(Pat::VELLUM.differs_from(reset), 0b0011_0000);
        assert_eq!(reset.differs_from(reset), 0);
    }

    #[test]
    fn reserved_types_are_refused() {
        for entry in 0..=255_u8 {
            let valid = matches!(entry, 0 | 1 | 4..=7);
            assert_eq!(Pat::new(u64::from(entry) << 40).is_some(), valid, "{entry}");
        }
        assert_eq!(Pat::VELLUM.entry(8), None);
    }

    #[test]
    fn the_register_says_what_the_codec_writes() {
        let types = [
            MemoryType::WriteBack,
            MemoryType::WriteThrough,
            MemoryType::UncachedMinus,
            MemoryType::Uncached,
            MemoryType::WriteCombining,
            MemoryType::WriteProtect,
        ];
        for memory in types {
            for (page, pat_bit) in [(12, 7), (21, 12), (30, 12)] {
                let leaf = Entry::Leaf(PhysAddr::new(0), Attr::RW.with_memory(memory));
                let raw = pte::encode(leaf, page).unwrap();
                let index = u8::try_from((raw >> pat_bit & 1) << 2 | raw >> 3 & 0b11).unwrap();
                assert_eq!(Pat::VELLUM.entry(index), Some(memory), "{memory:?} at 2^{page}");
            }
        }
    }
}
