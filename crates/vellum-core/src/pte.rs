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

use crate::{Attr, Cause, Entry, PAGE_SHIFT, PhysAddr, Soft};

/// P: hardware uses the entry.
pub const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
/// A: a walker has used the entry.
pub const ACCESSED: u64 = 1 << 5;
/// D: a store has gone through the leaf.
pub const DIRTY: u64 = 1 << 6;
/// PS: above the lowest level, the entry is a leaf.
pub const LARGE: u64 = 1 << 7;
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

/// The low bits that mean the same, in the same place, in [`Attr`] and in a 4 KiB leaf: PAT, PCD and
/// PWT too, which index [`PAT`] by the number of the memory type.
const SAME: u64 = 0xfff;
const PAT_BIT: u64 = 1 << 7;
/// Where PAT is in a large leaf.
const LARGE_PAT: u64 = 1 << 12;
/// From [`PAT_BIT`] to [`LARGE_PAT`].
const PAT_MOVES: u32 = 5;

/// The entry in 64 bits; `page` is log2 of a leaf's bytes.
///
/// # Errors
///
/// [`Cause::Misaligned`] or [`Cause::PhysTooWide`] for the frame, [`Cause::Unencodable`] for
/// attributes that x86-64 cannot express (write or execute without read),
/// [`Cause::SoftTooWide`].
#[inline]
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
#[inline]
pub fn encode_attr(attr: Attr, page: u8) -> Result<u64, Cause> {
    let readable = attr.contains(Attr::READ);
    let misses_read = !readable && attr.intersects(Attr::WRITE | Attr::EXEC);
    if misses_read || attr.memory().is_none() {
        return Err(Cause::Unencodable(attr));
    }
    let mut raw = u64::from(attr.bits()) & SAME;
    if page > PAGE_SHIFT {
        raw = raw & !PAT_BIT | (raw & PAT_BIT) << PAT_MOVES | LARGE;
    }
    if !readable {
        raw |= WRITABLE;
    }
    if !attr.contains(Attr::EXEC) {
        raw |= NO_EXECUTE;
    }
    Ok(raw | u64::from(attr.key()) << KEY_SHIFT)
}

/// The entry that 64 bits hold at a place where leaves have 2<sup>`page`</sup> bytes.
///
/// Bits that have no meaning in a leaf are passed over, a large leaf's frame is cut to its size:
/// every value decodes.
#[must_use]
#[inline]
pub fn decode(raw: u64, page: u8) -> Entry {
    if raw & (PRESENT | WRITABLE) == 0 {
        return Soft::new(raw >> SOFT_SHIFT).map_or(Entry::Hole, Entry::Soft);
    }
    Entry::Leaf(PhysAddr::new(raw & FRAME).align_down(page), decode_attr(raw, page))
}

/// The attributes of a leaf of 2<sup>`page`</sup> bytes (present or `PROT_NONE`).
#[must_use]
#[inline]
pub fn decode_attr(raw: u64, page: u8) -> Attr {
    let mut low = raw & SAME;
    if page > PAGE_SHIFT {
        low = low & !PAT_BIT | (raw & LARGE_PAT) >> PAT_MOVES;
    }
    // Entries 6 and 7 of `PAT` are the types of 2 and 3.
    let doubled = low >> 4 & low >> 7 & 1;
    low &= !(doubled << 7);
    // What is not present is not writable: there the bit means `PROT_NONE`.
    let present = low & PRESENT;
    low &= !WRITABLE | present << 1;
    let executable = !(raw >> 63) & present;
    let bits = low | executable << 12 | (raw >> KEY_SHIFT & 0xf) << 13;
    // All of it is below bit 17.
    Attr::from_bits(u32::try_from(bits).unwrap_or(0))
}

/// Whether hardware will write nothing more to this leaf that could matter: it is not present, or
/// accessed is set and dirty too, where a store could set it. Such an entry may change by a plain
/// store, even live.
///
/// A processor that still holds a writable translation of an entry that has since lost R/W may,
/// before a flush, write a D into it whose store then faults (those with CET do not). A plain store
/// loses that D, and with it nothing: there was no write.
#[must_use]
#[inline]
pub const fn is_quiet(raw: u64) -> bool {
    raw & PRESENT == 0 || raw & ACCESSED != 0 && (raw & DIRTY != 0 || raw & WRITABLE == 0)
}

#[cfg(test)]
mod tests;
