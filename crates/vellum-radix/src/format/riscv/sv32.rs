//! RISC-V with two levels of 32-bit entries: Sv32.
//!
//! ```text
//!  31                        10 9 8 7 6 5 4 3 2 1 0        va:  31 .. 22  21 .. 12  11 .. 0
//! +----------------------------+---+-+-+-+-+-+-+-+-+           +---------+---------+--------+
//! | node's PPN, 22 bits        |0  |0|0|0|0|0|0|0|1|  table    | 10 bits | 10 bits | offset |
//! +----------------------------+---+-+-+-+-+-+-+-+-+           +---------+---------+--------+
//! | frame's PPN, 22 bits       |RSW|D|A|G|U|X|W|R|1|  leaf     leaves: 4 MiB     4 KiB
//! +----------------------------+---+-+-+-+-+-+-+-+-+
//! | frame's PPN, 22 bits       |RSW|D|A|G|U|0|0|1|0|  PROT_NONE
//! +----------------------------+---+-+-+-+-+-+-+-+-+
//! | value, 30 bits                             |0|0|  soft
//! +--------------------------------------------+-+-+
//! | 0                                              |  hole
//! +------------------------------------------------+
//! ```
//!
//! A physical address has 34 bits: 16 GiB, four times the virtual space. The bits mean what they do in
//! the [wide](super) entries, but there are no memory types and no groups.
//!
//! Source: RISC-V Privileged Architecture (20240411), "Sv32: Page-Based 32-bit Virtual-Memory Systems".

use super::{
    PA_SHIFT, VALID, decode_low, decode_soft, encode_frame, encode_low, encode_soft, is_free,
    is_link, is_malformed, is_quiet, status,
};
use crate::format::{Decoded, Format, Level};
use vellum_core::{Attr, Canonical, Cause, Entry, PAGE_SHIFT, PhysAddr, Scope};

/// RISC-V with 32-bit addresses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sv32;

const PPN: u64 = 0xffff_fc00;
const SOFT_BITS: u8 = 30;

// SAFETY: the levels continue each other and end in pages (checked when a table is made). A link has
// V and no right, which no leaf has: without rights a leaf is not valid. The page numbers of both are
// bits 31:10, and nothing else of a leaf is there. Accessed and dirty are bits of their own.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Format for Sv32 {
    const LEVELS: &'static [Level] = &[Level::new(22, 10, true), Level::new(12, 10, true)];
    const CANONICAL: Canonical = Canonical::unsigned(32);
    const SOFT_BITS: u8 = SOFT_BITS;
    const ENTRY_SHIFT: u8 = 2;

    #[inline]
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        match entry {
            Entry::Hole => Ok(0),
            Entry::Soft(soft) => encode_soft(soft, SOFT_BITS),
            Entry::Leaf(_, attr) if attr.intersects(Attr::MEMORY_MASK) => {
                Err(Cause::Unencodable(attr))
            }
            Entry::Leaf(pa, attr) => Ok(encode_frame(pa, page, PPN)? | encode_low(attr)?),
        }
    }

    #[inline]
    fn decode(raw: u64, page: u8) -> Decoded {
        let pa = PhysAddr::new((raw & PPN) << PA_SHIFT);
        if page > PAGE_SHIFT && is_link(raw) {
            return Decoded::Table(pa);
        }
        Decoded::Entry(if is_free(raw) {
            decode_soft(raw & u64::from(u32::MAX))
        } else {
            Entry::Leaf(pa.align_down(page), decode_low(raw))
        })
    }

    #[inline]
    fn table_entry(pa: PhysAddr, _: u8, _: bool) -> u64 {
        pa.as_u64() >> PA_SHIFT & PPN | VALID
    }

    #[inline]
    fn check_table(pa: PhysAddr) -> Result<(), Cause> {
        encode_frame(pa, PAGE_SHIFT, PPN).map(drop)
    }

    fn has_reserved_bits(raw: u64, page: u8) -> bool {
        raw & VALID != 0 && is_malformed(raw, page)
    }

    #[inline]
    fn frame_mask(page: u8) -> u64 {
        PPN & u64::MAX << (page - PA_SHIFT)
    }

    #[inline]
    fn step(page: u8) -> u64 {
        1 << (page - PA_SHIFT)
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
        is_quiet(raw)
    }

    #[inline]
    fn fresh(_: u8) -> Option<Scope> {
        Some(Scope::Fresh)
    }
}
