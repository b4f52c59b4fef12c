//! x86-64 with 4 or 5 levels.
//!
//! ```text
//!  63 62 61        52 51        M M-1..12     11..8  7    6 5 4   3   2   1   0
//! +--+--+------------+-----------+------------+------+----+-+-+---+---+---+---+---+
//! |0 |0 | occupancy  | 0         | next node  | 0    | 0  |0|1|0  |0  |U/S|R/W| 1 |   table
//! +--+--+------------+-----------+------------+------+----+-+-+---+---+---+---+---+
//!   leaf, PROT_NONE, soft, hole: see vellum_core::pte
//! ```
//!
//! Bits 62:52 of an entry that links a table are ignored by hardware; ten of them count the entries
//! of the table that are not holes, 0 to 512. R/W and U/S are set and XD is clear: rights are those
//! of the leaf.
//!
//! Protection keys take bits 62:59 of a leaf, so that they never meet the count.
//!
//! Source: Intel SDM vol. 3A, 5.5.4 "Linear-Address Translation with 4-Level Paging and 5-Level
//! Paging", tables 5-15 to 5-20.

use super::{Decoded, Format, Level};
use vellum_core::{Attr, Canonical, Cause, Entry, PAGE_SHIFT, PhysAddr, pte};

/// x86-64 with `LEVELS` levels: 4 (48-bit addresses) or 5 (57-bit). Others do not compile.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86_64<const LEVELS: usize>;

const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const COUNT_SHIFT: u32 = 52;
const COUNT_MASK: u64 = 0x3ff << COUNT_SHIFT;

const fn level(shift: u8, leaf: bool) -> Level {
    Level { shift, bits: 9, leaf }
}

/// PML5, PML4, page-directory-pointer table, page directory, page table.
const ALL: &[Level; 5] =
    &[level(48, false), level(39, false), level(30, true), level(21, true), level(12, true)];

// SAFETY: the levels continue each other and end in pages (checked when a table is made); the
// codec is vellum_core::pte, whose property tests show the round trip; a table entry has P set and
// PS clear, and its address is bits 51:12, which the count in 61:52 does not touch.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<const LEVELS: usize> Format for X86_64<LEVELS> {
    const LEVELS: &'static [Level] = {
        assert!(LEVELS == 4 || LEVELS == 5, "x86-64 has 4 or 5 levels");
        ALL.split_at(5 - LEVELS).1
    };
    const CANONICAL: Canonical = Canonical::signed(if LEVELS == 5 { 57 } else { 48 });
    const SOFT_BITS: u8 = pte::SOFT_BITS;

    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        pte::encode(entry, page)
    }

    fn decode(raw: u64, page: u8) -> Decoded {
        if page > PAGE_SHIFT && raw & (pte::PRESENT | pte::LARGE) == pte::PRESENT {
            return Decoded::Table(PhysAddr::new(raw & pte::FRAME));
        }
        Decoded::Entry(pte::decode(raw, page))
    }

    fn table_entry(pa: PhysAddr, count: u16) -> u64 {
        let flags = pte::PRESENT | WRITABLE | USER | pte::ACCESSED;
        pa.as_u64() & pte::FRAME | flags | u64::from(count) << COUNT_SHIFT
    }

    fn count(table_entry: u64) -> u16 {
        u16::try_from((table_entry & COUNT_MASK) >> COUNT_SHIFT).unwrap_or(0)
    }

    const ONE_MORE: u64 = 1 << COUNT_SHIFT;

    fn status(attr: Attr) -> u64 {
        let accessed = if attr.contains(Attr::ACCESSED) { pte::ACCESSED } else { 0 };
        let dirty = if attr.contains(Attr::DIRTY) { pte::DIRTY } else { 0 };
        accessed | dirty
    }

    fn is_quiet(raw: u64) -> bool {
        pte::is_quiet(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::leaves;
    use proptest::prelude::*;

    #[test]
    fn four_and_five_levels_share_their_lower_ones() {
        assert_eq!(<X86_64<4> as Format>::LEVELS, &<X86_64<5> as Format>::LEVELS[1..]);
        assert_eq!(leaves::<X86_64<5>>(), 1 << 30 | 1 << 21 | 1 << 12);
    }

    #[test]
    fn a_table_entry_as_the_manual_draws_it() {
        // SDM vol. 3A, table 5-19: P, R/W, U/S, A; address 0x1234_5000; 512 in bits 61:52.
        let raw = <X86_64<4>>::table_entry(PhysAddr::new(0x1234_5000), 512);
        assert_eq!(raw, 0x2000_0000_1234_5027);
    }

    proptest! {
        #![proptest_config(vellum_testkit::suite::config(256))]

        #[test]
        fn counts_and_addresses_do_not_touch(frame in 0u64..1 << 40, count in 0u16..=512) {
            let pa = PhysAddr::new(frame << 12);
            let raw = <X86_64<4>>::table_entry(pa, count);
            prop_assert_eq!(<X86_64<4>>::count(raw), count);
            for page in [21, 30, 39] {
                prop_assert_eq!(<X86_64<4>>::decode(raw, page), Decoded::Table(pa));
            }
            let more = <X86_64<4>>::table_entry(pa, 0) + <X86_64<4>>::ONE_MORE * u64::from(count);
            prop_assert_eq!(more, raw);
        }
    }
}
