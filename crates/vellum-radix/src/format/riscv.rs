//! RISC-V with 64-bit entries: Sv39, Sv48 and Sv57. [`Sv32`] is in a file of its own.
//!
//! ```text
//!  63 62 61 60 54 53                          10 9 8 7 6 5 4 3 2 1 0
//! +--+-----+-----+------------------------------+---+-+-+-+-+-+-+-+-+
//! |0 |0    |0    | node's PPN, 44 bits          |0  |0|0|0|0|0|0|0|1|   table
//! +--+-----+-----+------------------------------+---+-+-+-+-+-+-+-+-+
//! |0 |PBMT |0    | frame's PPN, 44 bits         |RSW|D|A|G|U|X|W|R|1|   leaf: R or X; W only with R
//! |1 |PBMT |0    | frame's PPN            1 000 |RSW|D|A|G|U|X|W|R|1|   one of 16 pages of 64 KiB
//! +--+-----+-----+------------------------------+---+-+-+-+-+-+-+-+-+
//! |N |PBMT |0    | as of a leaf                 |RSW|D|A|G|U|0|0|1|0|   PROT_NONE
//! +--+-----+-----+------------------------------+---+-+-+-+-+-+-+-+-+
//! | value, 62 bits                                            |0|0|     soft
//! +-----------------------------------------------------------+-+-+
//! | 0                                                             |     hole
//! +---------------------------------------------------------------+
//! ```
//!
//! An entry with V and neither R, W nor X links a node, so that a leaf without rights cannot be
//! valid: `PROT_NONE` is an entry that hardware passes over, whose R tells it from a soft one. Pages
//! can be executable and not readable. W without R is reserved, and grants nothing.
//!
//! RSW is [`Attr::SOFT`] 0 and 1; there is no third, and no protection key. A table entry has no room
//! for a count, nor for rights: whether user mode gets in is the leaf's to say.
//!
//! **Memory types** (Svpbmt). Write-back is what the platform's own attributes say (PMA); NC, not
//! cached and weakly ordered, is write-combining; IO, strongly ordered, is uncached.
//!
//! **Groups** (Svnapot). 16 neighbours that all have N and page numbers ending in 1000 are one leaf of
//! 64 KiB; the entries are equal, since a walker takes those four bits from the virtual address.
//!
//! **Status.** A and D are set by hardware with Svadu; with Svade it faults instead, and software sets
//! them ([`touch`](vellum_core::Walk::touch)). Both are served: what hardware could write is changed
//! by compare-and-set.
//!
//! **Fences.** A hart may see a store to a table only after SFENCE.VMA, and remember what it saw
//! before: even a mapping where nothing was owes [`Scope::Fresh`], but where Svvptc promises that the
//! store becomes visible by itself.
//!
//! # Invariants
//!
//! - V is set in a leaf with the right to read or to execute, and in a link; nowhere else.
//!
//! Source: RISC-V Privileged Architecture (20240411): "Sv32" (the bits, "Virtual Address Translation
//! Process"), "Sv39", "Sv48", "Sv57"; "Svnapot", "Svpbmt", "Svadu"; "SFENCE.VMA"; Svvptc 1.0.

use super::{Decoded, Format, Level};
use vellum_core::{Attr, Canonical, Cause, Entry, MemoryType, PAGE_SHIFT, PhysAddr, Scope, Soft};

mod sv32;

pub use sv32::Sv32;

/// The extension that gives pages a memory type, of [`RiscV`].
pub const SVPBMT: u8 = 1;
/// The extension that lets 16 pages be one of 64 KiB.
pub const SVNAPOT: u8 = 1 << 1;
/// The extension that saves the fence after a new mapping; a page may then fault once more.
pub const SVVPTC: u8 = 1 << 2;
/// What the profile RVA23 has of these.
pub const RVA23: u8 = SVPBMT | SVNAPOT;

/// RISC-V with `LEVELS` levels: 3 (Sv39), 4 (Sv48) or 5 (Sv57), and extensions. Others do not compile.
///
/// Every level has leaves. What an extension adds is refused, or not used, without it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RiscV<const LEVELS: usize, const EXTENSIONS: u8 = RVA23>;

/// V: hardware uses the entry.
const VALID: u64 = 1;
const READ: u64 = 1 << 1;
const WRITE: u64 = 1 << 2;
const EXEC: u64 = 1 << 3;
const USER: u64 = 1 << 4;
const GLOBAL: u64 = 1 << 5;
const ACCESSED: u64 = 1 << 6;
const DIRTY: u64 = 1 << 7;
/// The lowest bit of the physical page number.
const PPN_SHIFT: u8 = 10;
/// How far an address lies to the left of its page number in an entry.
const PA_SHIFT: u8 = PAGE_SHIFT - PPN_SHIFT;
const PPN: u64 = ((1 << 44) - 1) << PPN_SHIFT;
const PBMT_SHIFT: u32 = 61;
const PBMT: u64 = 0b11 << PBMT_SHIFT;
const RESERVED: u64 = 0x7f << 54;
const NAPOT: u64 = 1 << 63;
/// log2 of the bytes that a group maps, of its entries, and what its page numbers end in.
const NAPOT_PAGE: u8 = PAGE_SHIFT + NAPOT_GROUP;
const NAPOT_GROUP: u8 = 4;
const NAPOT_ENDS: u64 = 0b1000 << PPN_SHIFT;
const NAPOT_MASK: u64 = 0b1111 << PPN_SHIFT;

const SOFT_SHIFT: u32 = 2;
const SOFT_BITS: u8 = 62;

/// From the root of Sv57 down, without and with groups.
const PLAIN: &[Level; 5] = &[
    Level::new(48, 9, true),
    Level::new(39, 9, true),
    Level::new(30, 9, true),
    Level::new(21, 9, true),
    Level::new(12, 9, true),
];
const GROUPED: &[Level; 5] =
    &[PLAIN[0], PLAIN[1], PLAIN[2], PLAIN[3], PLAIN[4].with_groups_of(NAPOT_GROUP)];

// SAFETY: the levels continue each other and end in pages (checked when a table is made). A link has
// V and no right, which no leaf has: without rights a leaf is not valid. The page numbers of both
// are bits 53:10, and nothing else of a leaf is there but the end of a group's, which its frame mask
// leaves out; the entries of a group are equal. Accessed and dirty are bits of their own.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<const LEVELS: usize, const EXTENSIONS: u8> Format for RiscV<LEVELS, EXTENSIONS> {
    const LEVELS: &'static [Level] = {
        assert!(LEVELS >= 3 && LEVELS <= 5, "RISC-V has 3, 4 or 5 levels");
        assert!(EXTENSIONS < 8, "there are three extensions");
        let all = if EXTENSIONS & SVNAPOT != 0 { GROUPED } else { PLAIN };
        all.split_at(5 - LEVELS).1
    };
    const CANONICAL: Canonical = Canonical::signed(match LEVELS {
        3 => 39,
        4 => 48,
        _ => 57,
    });
    const SOFT_BITS: u8 = SOFT_BITS;

    #[inline]
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        let (pa, attr) = match entry {
            Entry::Hole => return Ok(0),
            Entry::Soft(soft) => return encode_soft(soft, SOFT_BITS),
            Entry::Leaf(pa, attr) => (pa, attr),
        };
        let raw = encode_frame(pa, page, PPN)? | encode_low(attr)?;
        let memory = match attr.memory() {
            Some(MemoryType::WriteBack) => 0,
            Some(MemoryType::WriteCombining) if EXTENSIONS & SVPBMT != 0 => 1,
            Some(MemoryType::Uncached) if EXTENSIONS & SVPBMT != 0 => 2,
            _ => return Err(Cause::Unencodable(attr)),
        };
        let group = if page == NAPOT_PAGE { NAPOT | NAPOT_ENDS } else { 0 };
        Ok(raw | memory << PBMT_SHIFT | group)
    }

    #[inline]
    fn decode(raw: u64, page: u8) -> Decoded {
        if page > PAGE_SHIFT && page != NAPOT_PAGE && is_link(raw) {
            return Decoded::Table(PhysAddr::new((raw & PPN) << PA_SHIFT));
        }
        if is_free(raw) {
            return Decoded::Entry(decode_soft(raw));
        }
        let memory = match (raw & PBMT) >> PBMT_SHIFT {
            _ if EXTENSIONS & SVPBMT == 0 => MemoryType::WriteBack,
            0 => MemoryType::WriteBack,
            1 => MemoryType::WriteCombining,
            _ => MemoryType::Uncached,
        };
        let size = if Self::is_grouped(raw, page) { NAPOT_PAGE } else { page };
        let pa = PhysAddr::new((raw & PPN) << PA_SHIFT).align_down(size);
        Decoded::Entry(Entry::Leaf(pa, decode_low(raw).with_memory(memory)))
    }

    #[inline]
    fn is_grouped(raw: u64, page: u8) -> bool {
        EXTENSIONS & SVNAPOT != 0
            && page == PAGE_SHIFT
            && !is_free(raw)
            && raw & (NAPOT | NAPOT_MASK) == NAPOT | NAPOT_ENDS
    }

    /// Nothing is said of user mode: U is reserved here.
    #[inline]
    fn table_entry(pa: PhysAddr, _: u8, _: bool) -> u64 {
        pa.as_u64() >> PA_SHIFT & PPN | VALID
    }

    fn check_table(pa: PhysAddr) -> Result<(), Cause> {
        encode_frame(pa, PAGE_SHIFT, PPN).map(drop)
    }

    fn has_reserved_bits(raw: u64, page: u8) -> bool {
        let groups = EXTENSIONS & SVNAPOT != 0 && page == PAGE_SHIFT;
        let types = EXTENSIONS & SVPBMT != 0 && !is_link(raw);
        let bad_group = raw & NAPOT != 0 && !(groups && Self::is_grouped(raw, page));
        let bad_type = raw & PBMT != 0 && (!types || raw & PBMT == PBMT);
        raw & VALID != 0
            && (raw & RESERVED != 0 || bad_group || bad_type || is_malformed(raw, page))
    }

    #[inline]
    fn frame_mask(page: u8) -> u64 {
        PPN & u64::MAX << (page - PA_SHIFT)
    }

    /// 0 for a group, whose entries are equal.
    #[inline]
    fn step(page: u8) -> u64 {
        if page == NAPOT_PAGE { 0 } else { 1 << (page - PA_SHIFT) }
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
        if EXTENSIONS & SVVPTC == 0 { Some(Scope::Fresh) } else { None }
    }
}

/// Whether the entry is a hole or a soft one.
#[inline]
const fn is_free(raw: u64) -> bool {
    raw & (VALID | READ) == 0
}

/// Whether hardware takes the entry for a link, above the lowest level.
#[inline]
const fn is_link(raw: u64) -> bool {
    raw & (VALID | READ | WRITE | EXEC) == VALID
}

/// Whether a valid entry is one on which every walk faults: a link with bits of a leaf or on the
/// lowest level, a leaf with W and no R, or one whose frame is not a multiple of its size.
fn is_malformed(raw: u64, page: u8) -> bool {
    if is_link(raw) {
        return page == PAGE_SHIFT || raw & (USER | ACCESSED | DIRTY) != 0;
    }
    let low_frame = (1 << (page - PA_SHIFT)) - (1 << PPN_SHIFT);
    raw & (READ | WRITE) == WRITE || raw & low_frame != 0
}

/// A frame's place in an entry whose page number is in `ppn`.
#[inline]
fn encode_frame(pa: PhysAddr, page: u8, ppn: u64) -> Result<u64, Cause> {
    if !pa.is_aligned(page) {
        return Err(Cause::Misaligned { value: pa.as_u64(), page });
    }
    let raw = pa.as_u64() >> PA_SHIFT;
    if raw & !ppn != 0 { Err(Cause::PhysTooWide(pa)) } else { Ok(raw) }
}

#[inline]
fn encode_soft(soft: Soft, bits: u8) -> Result<u64, Cause> {
    let value = soft.get();
    if value >> bits != 0 { Err(Cause::SoftTooWide(value)) } else { Ok(value << SOFT_SHIFT) }
}

#[inline]
fn decode_soft(raw: u64) -> Entry {
    Soft::new(raw >> SOFT_SHIFT).map_or(Entry::Hole, Entry::Soft)
}

/// The lowest ten bits of a leaf, which are the same in every format.
#[inline]
fn encode_low(attr: Attr) -> Result<u64, Cause> {
    let writes_only = attr.contains(Attr::WRITE) && !attr.contains(Attr::READ);
    if writes_only || attr.intersects(Attr::SOFT[2] | Attr::KEY_MASK) {
        return Err(Cause::Unencodable(attr));
    }
    let bits = u64::from(attr.bits());
    // R and W, X, U, G, then A and D, then two software bits: see the drawing in vellum_core::attr.
    let raw = (bits & 0b11) << 1
        | (bits >> 12 & 1) << 3
        | (bits >> 2 & 1) << 4
        | (bits >> 8 & 1) << 5
        | (bits >> 5 & 0b11) << 6
        | (bits >> 9 & 0b11) << 8;
    Ok(if raw & (READ | EXEC) != 0 { raw | VALID } else { raw | READ })
}

/// What the lowest ten bits of a leaf say. What hardware faults on grants nothing.
#[inline]
fn decode_low(raw: u64) -> Attr {
    let granted = raw & VALID != 0 && raw & (READ | WRITE) != WRITE;
    let rights = if granted { raw & (READ | WRITE | EXEC) } else { 0 };
    let bits = rights >> 1 & 0b11
        | (rights >> 3 & 1) << 12
        | (raw & USER) >> 4 << 2
        | (raw & GLOBAL) >> 5 << 8
        | (raw >> 6 & 0b11) << 5
        | (raw >> 8 & 0b11) << 9;
    // All of it is below bit 17.
    Attr::from_bits(u32::try_from(bits).unwrap_or(0))
}

/// The status bits that `attr` names, as bits of a leaf.
#[inline]
fn status(attr: Attr) -> u64 {
    u64::from((attr & Attr::STATUS).bits()) << 1
}

/// Not for hardware to use, or with nothing left to set.
#[inline]
const fn is_quiet(raw: u64) -> bool {
    raw & VALID == 0
        || raw & (READ | EXEC) == 0
        || raw & ACCESSED != 0 && (raw & DIRTY != 0 || raw & WRITE == 0)
}

#[cfg(test)]
mod tests;
