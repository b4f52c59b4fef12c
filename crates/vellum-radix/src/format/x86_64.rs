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
//! of the leaf. But R/W is clear where tables share a lowest node, and U/S in the kernel's part, if
//! there is one.
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
const NO_EXECUTE: u64 = 1 << 63;

/// PML5, PML4, page-directory-pointer table, page directory, page table.
const ALL: &[Level; 5] = &[
    Level::new(48, 9, false),
    Level::new(39, 9, false),
    Level::new(30, 9, true),
    Level::new(21, 9, true),
    Level::new(12, 9, true),
];

// SAFETY: the levels continue each other and end in pages (checked when a table is made); the
// codec is vellum_core::pte, whose property tests show the round trip, and a leaf's frame is the
// part of bits 51:12 from `page` up; a table entry has P set and PS clear, which above the lowest
// level no leaf has (it has PS), and its address is bits 51:12, which the count in 61:52 does not
// touch; accessed and dirty are bits 5 and 6 of a leaf.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<const LEVELS: usize> Format for X86_64<LEVELS> {
    const LEVELS: &'static [Level] = {
        assert!(LEVELS == 4 || LEVELS == 5, "x86-64 has 4 or 5 levels");
        ALL.split_at(5 - LEVELS).1
    };
    const CANONICAL: Canonical = Canonical::signed(if LEVELS == 5 { 57 } else { 48 });
    const SOFT_BITS: u8 = pte::SOFT_BITS;
    const COUNT_SHIFT: Option<u32> = Some(52);
    const LINK_WRITE: u64 = WRITABLE;

    #[inline(always)]
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        pte::encode(entry, page)
    }

    #[inline(always)]
    fn decode(raw: u64, page: u8) -> Decoded {
        if page > PAGE_SHIFT && raw & (pte::PRESENT | pte::LARGE) == pte::PRESENT {
            return Decoded::Table(PhysAddr::new(raw & pte::FRAME));
        }
        Decoded::Entry(pte::decode(raw, page))
    }

    /// Of the low byte, a hole has nothing, a leaf PS, its sign, and a link P and not PS.
    #[inline(always)]
    fn child(raw: u64, _: u8) -> Option<PhysAddr> {
        let [low, ..] = raw.to_le_bytes();
        (low.cast_signed() > 0).then(|| PhysAddr::new(raw & pte::FRAME))
    }

    #[inline(always)]
    fn table_entry(pa: PhysAddr, _: u8, user: bool) -> u64 {
        let user = if user { USER } else { 0 };
        pa.as_u64() & pte::FRAME | pte::PRESENT | WRITABLE | user | pte::ACCESSED
    }

    #[inline]
    fn table_rights(raw: u64, _: u8) -> Attr {
        let mut rights = Attr::READ;
        if raw & WRITABLE != 0 {
            rights |= Attr::WRITE;
        }
        if raw & NO_EXECUTE == 0 {
            rights |= Attr::EXEC;
        }
        if raw & USER != 0 {
            rights |= Attr::USER;
        }
        rights
    }

    fn has_reserved_bits(raw: u64, page: u8) -> bool {
        let large = raw & pte::LARGE != 0;
        raw & pte::PRESENT != 0
            && match page {
                PAGE_SHIFT => false,
                21 | 30 => large && raw & low_frame_bits(page) != 0,
                _ => large,
            }
    }

    #[inline]
    fn frame_mask(page: u8) -> u64 {
        pte::FRAME & u64::MAX << page
    }

    #[inline]
    fn step(page: u8) -> u64 {
        1 << page
    }

    #[inline]
    fn set_status(raw: u64, attr: Attr) -> u64 {
        raw | status(attr)
    }

    #[inline]
    fn clear_status(raw: u64, attr: Attr) -> u64 {
        raw & !status(attr)
    }

    #[inline]
    fn is_quiet(raw: u64) -> bool {
        pte::is_quiet(raw)
    }
}

/// In a large leaf, bits between PAT (12) and the frame: they must be 0 (tables 5-17 and 5-18).
const fn low_frame_bits(page: u8) -> u64 {
    ((1 << page) - 1) & !0x1fff
}

/// The status bits that `attr` names, as bits of a leaf.
pub(super) fn status(attr: Attr) -> u64 {
    // They lie where a 4 KiB entry has them, and other pages' have them there too.
    u64::from((attr & Attr::STATUS).bits())
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
        // SDM vol. 3A, table 5-19: P, R/W, U/S, A; address 0x1234_5000.
        let raw = <X86_64<4>>::table_entry(PhysAddr::new(0x1234_5000), 21, true);
        assert_eq!(raw, 0x1234_5027);
        assert_eq!(<X86_64<4>>::table_entry(PhysAddr::new(0x1234_5000), 21, false), 0x1234_5023);
    }

    #[test]
    fn status_bits_are_where_the_manual_has_them() {
        assert_eq!(status(Attr::ACCESSED), pte::ACCESSED);
        assert_eq!(status(Attr::DIRTY | Attr::RWX), pte::DIRTY);
    }

    proptest! {
        #![proptest_config(vellum_testkit::suite::config(256))]

        #[test]
        fn counts_and_addresses_do_not_touch(frame in 0u64..1 << 40, count in 0u64..1024) {
            let pa = PhysAddr::new(frame << 12);
            for page in [21, 30, 39] {
                let raw = <X86_64<4>>::table_entry(pa, page, true) + (count << 52);
                prop_assert_eq!(<X86_64<4>>::decode(raw, page), Decoded::Table(pa));
            }
        }
    }
}
