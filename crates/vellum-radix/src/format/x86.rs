//! x86 with 32-bit addresses: two levels, and PAE in [`pae`].
//!
//! ```text
//!  31          22 21 20      13  12   11  9 8 7 6 5  4   3   2   1  0
//! +--------------+--+----------+----+------+-+-+-+-+---+---+---+---+-+
//! | node, bits 31:12                | 0    |0|0|0|1|0  |0  |U/S|1  |1|   table
//! +--------------+--+----------+----+------+-+-+-+-+---+---+---+---+-+
//! | bits 31:22   |0 |bits 39:32|PAT |soft  |G|1|D|A|PCD|PWT|U/S|R/W|1|   leaf, 4 MiB
//! +--------------+--+----------+----+------+-+-+-+-+---+---+---+---+-+
//! | frame, bits 31:12               |soft  |G|PAT|D|A|PCD|PWT|U/S|R/W|1| leaf, 4 KiB
//! +---------------------------------+------+-+-+-+-+---+---+---+---+-+
//! | as of a leaf of its size                             |U/S| 1 |0|     PROT_NONE
//! +------------------------------------------------------+---+---+-+
//! | value, 30 bits                                           | 0 |0|     soft
//! +----------------------------------------------------------+---+-+
//! | 0                                                              |     hole
//! +----------------------------------------------------------------+
//! ```
//!
//! All but the frame lies where 4-level paging has it ([`vellum_core::pte`]), in the lower half of the
//! word. What is not there: execution cannot be taken away from what can be read, so that
//! [`Attr::READ`] and [`Attr::EXEC`] come together or the mapping is refused; and there are no
//! protection keys. A table entry has no room for a count.
//!
//! **4 MiB pages** want CR4.PSE. With PSE-36 their frames may lie anywhere below 1 TiB (or what the
//! processor has, 64 GiB at first), others below 4 GiB. Such a frame is mapped by
//! [`replace`](vellum_core::PageTable::replace), one leaf at a time, and is removed whole: `map`
//! refuses it, since it might have to use small pages, and there is no splitting it.
//!
//! **Nodes** lie below 4 GiB, which [`check_table`](Format::check_table) sees to.
//!
//! # Invariants
//!
//! - As of [`vellum_core::pte`]; besides, bits 63:32 of an entry are 0.
//!
//! Source: Intel SDM vol. 3A, 5.3 "32-Bit Paging", tables 5-4 to 5-6; 5.9.2 "Paging and Memory Typing".

use super::x86_64::status;
use super::{Decoded, Format, Level};
use vellum_core::{Attr, Canonical, Cause, Entry, PAGE_SHIFT, PhysAddr, pte};

mod pae;

pub use pae::X86Pae;

/// x86 with two levels of 32-bit entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86;

const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// The frame or node of what is aligned to 4 KiB.
const FRAME: u64 = 0xffff_f000;
/// log2 of a large page, and its frame.
const LARGE_PAGE: u8 = 22;
const LARGE_FRAME: u64 = 0xffc0_0000;
/// Where a large leaf has bits 39:32 of its frame.
const HIGH_SHIFT: u32 = 13;
const HIGH: u64 = 0xff << HIGH_SHIFT;
/// From there to where an address has them.
const HIGH_MOVES: u32 = 32 - HIGH_SHIFT;
/// In a large leaf, reserved.
const RESERVED: u64 = 1 << 21;
const SOFT_BITS: u8 = 30;

// SAFETY: the levels continue each other and end in pages (checked when a table is made). A link has
// P set and PS clear, above the lowest level, and its node in bits 31:12, to which `check_table` holds
// it. Bits other than the frame's are those of vellum_core::pte, whose tests show the round trip; what
// a large frame has above 4 GiB is outside of the mask, and does not change with a step within it.
// Accessed and dirty are bits 5 and 6 of a leaf.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Format for X86 {
    const LEVELS: &'static [Level] =
        &[Level::new(LARGE_PAGE, 10, true), Level::new(PAGE_SHIFT, 10, true)];
    const CANONICAL: Canonical = Canonical::unsigned(32);
    const SOFT_BITS: u8 = SOFT_BITS;
    const ENTRY_SHIFT: u8 = 2;
    const LINK_WRITE: u64 = WRITABLE;

    #[inline]
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        match entry {
            Entry::Leaf(pa, attr) => Ok(encode_frame(pa, page)? | encode_attr(attr, page)?),
            Entry::Soft(soft) if soft.get() >> SOFT_BITS != 0 => {
                Err(Cause::SoftTooWide(soft.get()))
            }
            other => pte::encode(other, page),
        }
    }

    #[inline]
    fn decode(raw: u64, page: u8) -> Decoded {
        let raw = raw & u64::from(u32::MAX);
        if page > PAGE_SHIFT && raw & (pte::PRESENT | pte::LARGE) == pte::PRESENT {
            return Decoded::Table(PhysAddr::new(raw & FRAME));
        }
        Decoded::Entry(match pte::decode(raw, page) {
            Entry::Leaf(..) if page > PAGE_SHIFT => {
                let pa = raw & LARGE_FRAME | (raw & HIGH) << HIGH_MOVES;
                Entry::Leaf(PhysAddr::new(pa), pte::decode_attr(raw, page))
            }
            other => other,
        })
    }

    #[inline]
    fn table_entry(pa: PhysAddr, _: u8, user: bool) -> u64 {
        link(pa.as_u64() & FRAME, user)
    }

    #[inline]
    fn check_table(pa: PhysAddr) -> Result<(), Cause> {
        if pa.as_u64() & !FRAME != 0 { Err(Cause::PhysTooWide(pa)) } else { Ok(()) }
    }

    #[inline]
    fn table_rights(raw: u64, _: u8) -> Attr {
        link_rights(raw)
    }

    fn has_reserved_bits(raw: u64, page: u8) -> bool {
        let large = page > PAGE_SHIFT && raw & pte::LARGE != 0;
        raw & pte::PRESENT != 0 && large && raw & RESERVED != 0
    }

    #[inline]
    fn frame_mask(page: u8) -> u64 {
        FRAME & u64::MAX << page
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

/// A link to the node whose address is in its place; accessed already.
#[inline]
fn link(node: u64, user: bool) -> u64 {
    let user = if user { USER } else { 0 };
    node | pte::PRESENT | WRITABLE | user | pte::ACCESSED
}

/// What a link leaves to what is below it, where nothing keeps it from being executed.
#[inline]
fn link_rights(raw: u64) -> Attr {
    let write = if raw & WRITABLE != 0 { Attr::WRITE } else { Attr::NONE };
    let user = if raw & USER != 0 { Attr::USER } else { Attr::NONE };
    Attr::RX | write | user
}

/// A frame's place in a leaf.
#[inline]
fn encode_frame(pa: PhysAddr, page: u8) -> Result<u64, Cause> {
    if !pa.is_aligned(page) {
        return Err(Cause::Misaligned { value: pa.as_u64(), page });
    }
    let high = pa.as_u64() >> HIGH_MOVES & HIGH;
    let known = if page > PAGE_SHIFT { FRAME | HIGH << HIGH_MOVES } else { FRAME };
    if pa.as_u64() & !known != 0 {
        return Err(Cause::PhysTooWide(pa));
    }
    Ok(pa.as_u64() & FRAME | high)
}

/// A leaf's other bits.
#[inline]
fn encode_attr(attr: Attr, page: u8) -> Result<u64, Cause> {
    if attr.contains(Attr::READ) != attr.contains(Attr::EXEC) || attr.key() != 0 {
        return Err(Cause::Unencodable(attr));
    }
    // XD goes: it is set only in what is not present.
    Ok(pte::encode_attr(attr, page)? & u64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
