//! One leaf entry in 64 bits, as x86-64 has it, for every table whose entries are that wide.
//!
//! ```text
//!  63 62..59 58..52 51        M M-1..12     11..9  8   7    6 5 4   3   2   1   0
//! +--+------+------+---------+--------------+-----+---+----+-+-+---+---+---+---+---+
//! |XD| pkey | 0    | 0       | frame        |soft | G |PS/ |D|A|PCD|PWT|U/S|R/W| 1 |  leaf
//! |  |      |      |         |              |     |   |PAT | | |   |   |   |   |   |
//! +--+------+------+---------+--------------+-----+---+----+-+-+---+---+---+---+---+
//! |1 | pkey | 0    | 0       | frame        |soft | G |PS/ |D|A|PCD|PWT|U/S| 1 | 0 |  PROT_NONE
//! |  |      |      |         |              |     |   |PAT | | |   |   |   |   |   |
//! +--+------+------+---------+--------------+-----+---+----+-+-+---+---+---+---+---+
//! | value                                                                  | 0 | 0 |  soft
//! +------------------------------------------------------------------------+---+---+
//! | 0                                                                              |  hole
//! +--------------------------------------------------------------------------------+
//! ```
//!
//! It lives in the lowest crate because the radix formats, the hashed and the inverted table all
//! store it: a refill of the MMU's own tree from any of them is a copy.
//!
//! Bit 7 is why every function takes the page size: in a 4 KiB leaf it is PAT, above that it says
//! "leaf", and the PAT bit has moved to bit 12. With P = 0 hardware ignores the other bits, and
//! R/W, which a mapping without read has no use for, tells `PROT_NONE` from a soft entry.
//!
//! A leaf that is dirty and not writable is, with supervisor shadow stacks on (CR4.CET), a shadow
//! stack. A kernel that turns those on has to keep dirty elsewhere when it takes the right to write.
//!
//! Memory types go by the PAT that [`PAT`] describes: its entries 0 to 3 are those of reset, so
//! that only write-combining and write-protect need it loaded.
//!
//! # Invariants
//!
//! - `decode(encode(e, page), page) == e` for every entry that `encode` accepts.
//! - Bits 58:52 of a leaf are 0: a table may keep its own there, and mask them off.
//!
//! Source: Intel SDM vol. 3A, 5.5 "4-level paging and 5-level paging" (tables 5-17 to 5-20), 5.9.2
//! "Paging and Memory Typing", 13.12 "Page Attribute Table".

use crate::{Attr, Cause, Entry, MemoryType, PAGE_SHIFT, PhysAddr, Soft};

/// P: hardware uses the entry.
pub const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// A: a walker has used the entry.
pub const ACCESSED: u64 = 1 << 5;
/// D: a store has gone through the leaf.
pub const DIRTY: u64 = 1 << 6;
/// PS: above the lowest level, the entry is a leaf.
pub const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 51:12.
pub const FRAME: u64 = 0x000f_ffff_ffff_f000;
const KEY_SHIFT: u32 = 59;
const SOFT_SHIFT: u32 = 2;

/// How many bits of a soft value an entry holds.
pub const SOFT_BITS: u8 = 62;

/// The value for `IA32_PAT` (MSR 277H) that the memory types here assume: WB, WT, UC-, UC as at
/// reset, then WC, WP, UC-, UC.
pub const PAT: u64 = 0x00_07_05_01_00_07_04_06;

/// Software bit `i` of [`Attr::SOFT`] is bit `9 + i`.
const SOFT: [(Attr, u64); 3] =
    [(Attr::SOFT[0], 1 << 9), (Attr::SOFT[1], 1 << 10), (Attr::SOFT[2], 1 << 11)];

const PLAIN: [(Attr, u64); 5] = [
    (Attr::WRITE, WRITABLE),
    (Attr::USER, USER),
    (Attr::GLOBAL, GLOBAL),
    (Attr::ACCESSED, ACCESSED),
    (Attr::DIRTY, DIRTY),
];

/// PAT, PCD and PWT as an index, and the memory type at that index of [`PAT`].
const TYPES: [MemoryType; 8] = [
    MemoryType::WriteBack,
    MemoryType::WriteThrough,
    MemoryType::UncachedMinus,
    MemoryType::Uncached,
    MemoryType::WriteCombining,
    MemoryType::WriteProtect,
    MemoryType::UncachedMinus,
    MemoryType::Uncached,
];

/// The bit of PAT in a leaf of 2<sup>`page`</sup> bytes.
const fn pat_bit(page: u8) -> u64 {
    if page == PAGE_SHIFT { 1 << 7 } else { 1 << 12 }
}

/// The entry in 64 bits; `page` is log2 of a leaf's bytes.
///
/// # Errors
///
/// [`Cause::Misaligned`] or [`Cause::PhysTooWide`] for the frame, [`Cause::Unencodable`] for
/// attributes that x86-64 cannot express (write or execute without read),
/// [`Cause::SoftTooWide`].
pub fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
    let (pa, attr) = match entry {
        Entry::Hole => return Ok(0),
        Entry::Soft(soft) if soft.get() >> SOFT_BITS == 0 => return Ok(soft.get() << SOFT_SHIFT),
        Entry::Soft(soft) => return Err(Cause::SoftTooWide(soft.get())),
        Entry::Leaf(pa, attr) => (pa, attr),
    };
    if !pa.is_aligned(page) {
        return Err(Cause::Misaligned { value: pa.as_u64(), page });
    }
    if pa.as_u64() & !FRAME != 0 {
        return Err(Cause::PhysTooWide(pa));
    }
    Ok(pa.as_u64() | encode_attr(attr, page)?)
}

/// The bits of a leaf of 2<sup>`page`</sup> bytes but for its frame.
///
/// # Errors
///
/// [`Cause::Unencodable`].
pub fn encode_attr(attr: Attr, page: u8) -> Result<u64, Cause> {
    let readable = attr.contains(Attr::READ);
    if !readable && attr.intersects(Attr::WRITE | Attr::EXEC) {
        return Err(Cause::Unencodable(attr));
    }
    let index = match attr.memory() {
        Some(MemoryType::WriteBack) => 0,
        Some(MemoryType::WriteThrough) => 1,
        Some(MemoryType::UncachedMinus) => 2,
        Some(MemoryType::Uncached) => 3,
        Some(MemoryType::WriteCombining) => 4,
        Some(MemoryType::WriteProtect) => 5,
        None => return Err(Cause::Unencodable(attr)),
    };
    let mut raw = (index & 0b11) << 3;
    if index & 0b100 != 0 {
        raw |= pat_bit(page);
    }
    for (bit, hard) in PLAIN.into_iter().chain(SOFT) {
        if attr.contains(bit) {
            raw |= hard;
        }
    }
    raw |= u64::from(attr.key()) << KEY_SHIFT;
    raw |= if readable { PRESENT } else { WRITABLE };
    if !attr.contains(Attr::EXEC) {
        raw |= NO_EXECUTE;
    }
    if page > PAGE_SHIFT {
        raw |= LARGE;
    }
    Ok(raw)
}

/// The entry that 64 bits hold at a place where leaves have 2<sup>`page`</sup> bytes.
///
/// Bits that have no meaning in a leaf are passed over, a large leaf's frame is cut to its size:
/// every value decodes.
#[must_use]
pub fn decode(raw: u64, page: u8) -> Entry {
    if raw & (PRESENT | WRITABLE) == 0 {
        return Soft::new(raw >> SOFT_SHIFT).map_or(Entry::Hole, Entry::Soft);
    }
    Entry::Leaf(PhysAddr::new(raw & FRAME).align_down(page), decode_attr(raw, page))
}

/// The attributes of a leaf of 2<sup>`page`</sup> bytes (present or `PROT_NONE`).
#[must_use]
pub fn decode_attr(raw: u64, page: u8) -> Attr {
    let mut attr = Attr::NONE;
    for (bit, hard) in PLAIN.into_iter().chain(SOFT) {
        if raw & hard != 0 {
            attr |= bit;
        }
    }
    if raw & PRESENT == 0 {
        attr = attr - Attr::WRITE;
    } else {
        attr |= Attr::READ;
        if raw & NO_EXECUTE == 0 {
            attr |= Attr::EXEC;
        }
    }
    let high = if raw & pat_bit(page) != 0 { 4 } else { 0 };
    let index = usize::try_from((raw >> 3 & 0b11) | high).unwrap_or(0);
    let memory = TYPES.get(index).copied().unwrap_or_default();
    let key = u8::try_from(raw >> KEY_SHIFT & 0xf).unwrap_or(0);
    attr.with_memory(memory).with_key(key)
}

/// Whether hardware will write nothing more to this leaf that could matter: it is not present, or
/// accessed is set and dirty too, where a store could set it. Such an entry may change by a plain
/// store, even live.
///
/// A processor that still holds a writable translation of an entry that has since lost R/W may,
/// before a flush, write a D into it whose store then faults (those with CET do not). A plain store
/// loses that D, and with it nothing: there was no write.
#[must_use]
pub const fn is_quiet(raw: u64) -> bool {
    raw & PRESENT == 0 || raw & ACCESSED != 0 && (raw & DIRTY != 0 || raw & WRITABLE == 0)
}

#[cfg(test)]
mod tests;
