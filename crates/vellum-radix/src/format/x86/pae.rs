//! x86 with physical address extension: 32-bit addresses, 64-bit entries.
//!
//! ```text
//!  63 62   52 51     M M-1..12          11..9  8   7    6 5 4   3   2   1   0
//! +--+-------+--------+----------------+-----+---+----+-+-+---+---+---+---+---+
//! |0 | 0     | 0      | page directory | 0   | 0 | 0  |0|0|0  |0  | 0 | 0 | 1 |  table, in the root
//! +--+-------+--------+----------------+-----+---+----+-+-+---+---+---+---+---+
//! |0 | 0     | 0      | page table     | 0   | 0 | 0  |0|1|0  |0  |U/S| 1 | 1 |  table, elsewhere
//! +--+-------+--------+----------------+-----+---+----+-+-+---+---+---+---+---+
//! |XD| 0     | 0      | frame          |soft | G |PS/ |D|A|PCD|PWT|U/S|R/W| 1 |  leaf, 2 MiB or 4 KiB
//! |  |       |        |                |     |   |PAT | | |   |   |   |   |   |
//! +--+-------+--------+----------------+-----+---+----+-+-+---+---+---+---+---+
//!   PROT_NONE, soft, hole: see vellum_core::pte
//! ```
//!
//! Leaves are those of 4-level paging without protection keys, whose bits are reserved here, as are
//! those where it would count: counts are beside the nodes. XD wants EFER.NXE.
//!
//! **The root** has four entries, without rights. The processor reads them only when CR3 is loaded, and
//! keeps them in registers: so a new link in the root owes [`Scope::Tables`], as a link that goes does,
//! and for this format an [`Invalidate`](vellum_core::Invalidate) carries that out by loading CR3, on
//! every CPU that has it. INVLPG is not enough. CR3 has 32 bits: **the root has to lie below 4 GiB**, in
//! memory that the table's [`Memory`](vellum_core::Memory) hands out when the table is made. Who loads
//! it has to look at [`root`](crate::Radix::root). Other nodes may lie anywhere.
//!
//! # Invariants
//!
//! - As of [`vellum_core::pte`]; besides, bits 62:52 of what is present are 0, and in the root 8:1.
//!
//! Source: Intel SDM vol. 3A, 5.4 "PAE Paging" (5.4.1 "PDPTE Registers"), tables 5-7 to 5-11.

use super::{WRITABLE, link, link_rights};
use crate::format::x86_64::status;
use crate::format::{Decoded, Format, Level};
use vellum_core::{Attr, Canonical, Cause, Entry, PAGE_SHIFT, PhysAddr, Scope, pte};

/// x86 with PAE: a root of four entries, and two levels of 512.
#[derive(Clone, Copy, Debug, Default)]
pub struct X86Pae;

/// log2 of what an entry of the root spans, and of a large page.
const ROOT_SHIFT: u8 = 30;
const LARGE_PAGE: u8 = 21;
const NO_EXECUTE: u64 = 1 << 63;
/// Where 4-level paging has the key, and more: reserved.
const RESERVED: u64 = 0x7ff << 52;
/// In an entry of the root: where others have R/W and U/S, and A to G.
const ROOT_RESERVED: u64 = RESERVED | NO_EXECUTE | 0b1_1110_0110;
/// In a large leaf, between PAT and the frame.
const LARGE_RESERVED: u64 = 0xff << 13;

// SAFETY: the levels continue each other and end in pages (checked when a table is made). A link has
// P set, and PS clear where there are leaves, and its node in bits 51:12. A leaf's codec is
// vellum_core::pte, whose tests show the round trip, without a key; its frame is the part of bits
// 51:12 from `page` up. Accessed and dirty are bits 5 and 6 of a leaf; a root's entry has neither.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Format for X86Pae {
    const LEVELS: &'static [Level] = &[
        Level::new(ROOT_SHIFT, 2, false),
        Level::new(LARGE_PAGE, 9, true),
        Level::new(PAGE_SHIFT, 9, true),
    ];
    const CANONICAL: Canonical = Canonical::unsigned(32);
    const SOFT_BITS: u8 = pte::SOFT_BITS;
    const LINK_WRITE: u64 = WRITABLE;

    #[inline]
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        match entry {
            Entry::Leaf(_, attr) if attr.key() != 0 => Err(Cause::Unencodable(attr)),
            entry => pte::encode(entry, page),
        }
    }

    #[inline]
    fn decode(raw: u64, page: u8) -> Decoded {
        let is_link = match page {
            PAGE_SHIFT => false,
            ROOT_SHIFT => raw & pte::PRESENT != 0,
            _ => raw & (pte::PRESENT | pte::LARGE) == pte::PRESENT,
        };
        if is_link {
            return Decoded::Table(PhysAddr::new(raw & pte::FRAME));
        }
        Decoded::Entry(match pte::decode(raw, page) {
            Entry::Leaf(pa, attr) => Entry::Leaf(pa, attr.with_key(0)),
            other => other,
        })
    }

    #[inline]
    fn table_entry(pa: PhysAddr, page: u8, user: bool) -> u64 {
        let node = pa.as_u64() & pte::FRAME;
        if page == ROOT_SHIFT { node | pte::PRESENT } else { link(node, user) }
    }

    #[inline]
    fn table_rights(raw: u64, page: u8) -> Attr {
        match page {
            ROOT_SHIFT => Attr::RWX | Attr::USER,
            _ if raw & NO_EXECUTE != 0 => link_rights(raw) - Attr::EXEC,
            _ => link_rights(raw),
        }
    }

    fn has_reserved_bits(raw: u64, page: u8) -> bool {
        let reserved = match page {
            ROOT_SHIFT => ROOT_RESERVED,
            LARGE_PAGE if raw & pte::LARGE != 0 => RESERVED | LARGE_RESERVED,
            _ => RESERVED,
        };
        raw & pte::PRESENT != 0 && raw & reserved != 0
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

    /// The processor has the root's entries in registers.
    #[inline]
    fn fresh(page: u8) -> Option<Scope> {
        if page == ROOT_SHIFT { Some(Scope::Tables) } else { None }
    }
}
