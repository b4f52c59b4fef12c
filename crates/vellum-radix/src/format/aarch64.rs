//! AArch64: VMSAv8-64, stage 1 of the EL1&0 regime, with granules of 4, 16 and 64 KiB.
//!
//! ```text
//!  63 62:61 60  59 58  57:55 54  53  52  51  50:48 47     12  11 10 9:8 7:6 5 4:2  1 0
//! +--+-----+---+--+---+-----+---+---+---+---+-----+----------+--+--+---+---+-+----+----+
//! |0 |s u  |u  |0 |0  |0    |0  |0  |0  |0  |0    | node     | count (4 KiB), or 0|1 1 |  table
//! +--+-----+---+--+---+-----+---+---+---+---+-----+----------+--+--+---+---+-+----+----+
//! |0 |0    |0  |0 |D  |soft |UXN|PXN|C  |DBM|0    | frame    |nG|AF|SH |AP |0|type|1 1 |  page
//! |0 |0    |0  |0 |D  |soft |UXN|PXN|C  |DBM|0    | frame, 0 |nG|AF|SH |AP |0|type|0 1 |  block
//! |0 |0    |0  |0 |D  |soft |1  |1  |C  |0  |0    | frame    |nG|AF|SH |1 U|0|type|1 0 |  no access
//! |0 |0    |0  |0 |D  |soft |UXN|PXN|C  |DBM|0 0 1| frame    |nG|AF|SH |AP |0|type|1 0 |  broken
//! +--+-----+---+--+---+-----+---+---+---+---+-----+----------+--+--+---+---+-+----+----+
//! | value                                                                         |0 0 |  soft
//! +-------------------------------------------------------------------------------+----+
//! | 0                                                                                  |  hole
//! +------------------------------------------------------------------------------------+
//! ```
//!
//! C is the contiguous bit, *no access* is `PROT_NONE`, u what a table says that has nothing for
//! user mode: APTable[0] and UXNTable; s, APTable[1], is set where tables share a lowest node. With the 64 KiB granule bits 15:12 hold bits 51:48 of an
//! address (`FEAT_LPA`); with the others an address has 48 bits (no `FEAT_LPA2`).
//!
//! | granule | leaves (contiguous) | levels for 48 bits, root first |
//! |---|---|---|
//! | 4 KiB | 4 KiB (64 KiB), 2 MiB (32 MiB), 1 GiB (16 GiB) | 9, 9, 9, 9 bits |
//! | 16 KiB | 16 KiB (2 MiB), 32 MiB (1 GiB) | 1, 11, 11, 11 |
//! | 64 KiB | 64 KiB (2 MiB), 512 MiB (16 GiB) | 6, 13, 13 |
//!
//! **Rights.** AP[1] is USER. AP[2] is read-only, and with DBM set it means *writable and clean*:
//! the processor clears it at the first store (`FEAT_HAFDBS`), or faults, and `touch` clears it. So
//! WRITE is DBM, dirty is AP[2] clear; what is dirty and not writable says so in D, a bit of
//! software's. EXEC is the right of the mapping's own mode: UXN clear and PXN set for USER, else
//! the reverse. No mode executes what is the other's, whatever PAN says. Rights without READ are
//! refused.
//!
//! **Memory types** are indices into [`AArch64::MAIR`]. Arm has nothing that equals
//! [`UncachedMinus`](MemoryType::UncachedMinus) or [`WriteProtect`](MemoryType::WriteProtect), and
//! no protection keys without `FEAT_S1POE`: these are refused. SH is inner shareable everywhere;
//! Device and non-cacheable memory are outer shareable whatever it says.
//!
//! **Break-before-make.** A valid descriptor becomes one with another address, size, memory type,
//! shareability, contiguous bit or nG only by way of an invalid one, flushed; rights, status and
//! software's bits change in place. *Broken* is that invalid one.
//!
//! **Rights of tables** (u, s) hold only while the processor looks at them: who loads a root leaves
//! `TCR_EL1.HPD0` and `HPD1` 0, and does not switch on permission indirection (`FEAT_S1PIE`), which
//! ignores them.
//!
//! **Counts.** Bits 11:2 of a table descriptor are ignored. That ends with `TCR2_EL1.HAFT` (bit 10)
//! and with `TCR_EL1.DS` (bits 9:8): who loads a root of the 4 KiB granule leaves both 0.
//!
//! # Invariants
//!
//! - Bits 1:0 of a leaf are never 00, those of a soft entry always.
//! - Bit 48 is set in broken entries only.
//!
//! Source: Arm Architecture Reference Manual for A-profile, DDI 0487, D8.3 "Translation table
//! descriptor formats", D8.4 "Memory access control", D8.5 "Hardware updates to the translation
//! tables", D8.6 "Memory region attributes", D8.7 "Other descriptor fields" (the Contiguous bit),
//! D8.16 "Using break-before-make when updating translation table entries" (section numbers of
//! recent issues).

use super::{Decoded, Format, Level};
use vellum_core::{Attr, Canonical, Cause, Entry, MemoryType, PhysAddr, Scope, Soft};

/// AArch64 stage 1: pages of 2<sup>`GRANULE`</sup> bytes (12, 14 or 16) and addresses of `BITS`
/// bits (25 to 48), of one half of the address space or of both.
///
/// `HALVES` of 1 is a table for TTBR0: addresses whose upper bits are 0. `HALVES` of 2 is a table
/// for both: its root is twice as large, the lower half of it goes to TTBR0 and the
/// [upper](Self::upper_root) to TTBR1. A kernel whose own table is TTBR1's takes that, and leaves
/// the lower half empty or switched off (`TCR_EL1.EPD0`). Other parameters do not compile.
///
/// ```
/// use vellum_core::{Canonical, PhysAddr};
/// use vellum_radix::{AArch64, Format};
///
/// type Process = AArch64<12, 39>; // three levels, as small kernels have them
/// type Kernel = AArch64<12, 48, 2>;
/// assert_eq!(Process::LEVELS.len(), 3);
/// assert_eq!(Process::CANONICAL, Canonical::unsigned(39));
/// assert_eq!(Process::TNSZ, 25); // TCR_EL1.T0SZ
/// let root = PhysAddr::new(0x8000_0000); // of a Radix<Kernel, _>: TTBR0_EL1
/// assert_eq!(Kernel::upper_root(root), PhysAddr::new(0x8000_1000)); // TTBR1_EL1
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct AArch64<const GRANULE: u8, const BITS: u8, const HALVES: u8 = 1>;

const VALID: u64 = 1;
/// Table or page; without [`VALID`], an invalid leaf.
const TYPE: u64 = 1 << 1;
const KIND: u64 = VALID | TYPE;
const INDEX_SHIFT: u32 = 2;
/// AP[1].
const USER: u64 = 1 << 6;
/// AP[2].
const READ_ONLY: u64 = 1 << 7;
const INNER_SHAREABLE: u64 = 0b11 << 8;
/// AF.
const ACCESSED: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
const BROKEN: u64 = 1 << 48;
/// DBM.
const WRITABLE: u64 = 1 << 51;
const CONTIGUOUS: u64 = 1 << 52;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const SOFT_SHIFT: u32 = 55;
/// Where [`Attr::SOFT`] begins.
const ATTR_SOFT_SHIFT: u32 = 9;
/// Dirty, of what is not writable.
const DIRTY: u64 = 1 << 58;

/// Of a table descriptor: PXNTable, UXNTable, and APTable's two bits.
const PXN_TABLE: u64 = 1 << 59;
const UXN_TABLE: u64 = 1 << 60;
const NO_USER_TABLE: u64 = 1 << 61;
const READ_ONLY_TABLE: u64 = 1 << 62;

/// Bits 47:0, of which an address takes the upper ones.
const LOW_48: u64 = (1 << 48) - 1;
/// With the 64 KiB granule: bits 51:48 of an address.
const HIGH_FRAME: u64 = 0xf << 12;
/// From there to where they belong.
const HIGH_MOVES: u32 = 36;

/// What may change while the descriptor is valid.
const CHANGES_IN_PLACE: u64 =
    USER | READ_ONLY | ACCESSED | WRITABLE | PXN | UXN | 0b111 << SOFT_SHIFT | DIRTY;

const SOFT_VALUE_SHIFT: u32 = 2;

impl<const GRANULE: u8, const BITS: u8, const HALVES: u8> AArch64<GRANULE, BITS, HALVES> {
    /// The value of `MAIR_EL1` that the entries assume, by attribute index:
    ///
    /// | index | byte | on Arm | memory type |
    /// |---|---|---|---|
    /// | 0 | ff | Normal, write-back, non-transient, allocating | write-back |
    /// | 1 | bb | Normal, write-through, non-transient, allocating | write-through |
    /// | 3 | 00 | Device-nGnRnE | uncached |
    /// | 4 | 44 | Normal, non-cacheable | write-combining |
    ///
    /// The others are Device-nGnRnE, the strictest, and decode as uncached.
    pub const MAIR: u64 = 0x44_0000_bbff;

    /// `TCR_EL1.T0SZ`, and T1SZ where there are two halves.
    pub const TNSZ: u8 = 64 - BITS;

    /// Where the root's upper half lies: `TTBR1_EL1`. Compiles for `HALVES` of 2 only.
    #[must_use]
    pub const fn upper_root(root: PhysAddr) -> PhysAddr {
        const { assert!(HALVES == 2, "this table has no upper half") };
        root.wrapping_add(8 << (Self::ROOT.bits - 1))
    }

    /// log2 of the entries of a node that fills a granule.
    const INDEX: u8 = GRANULE - 3;
    /// log2 of a block at the next level up, and at the one above that.
    const SECOND: u8 = GRANULE + Self::INDEX;
    const THIRD: u8 = GRANULE + 2 * Self::INDEX;
    /// log2 of the largest block. (Larger ones, of 16 KiB and 64 KiB granules, take features.)
    const LARGEST: u8 = if GRANULE == 12 { Self::THIRD } else { Self::SECOND };
    /// The part of an entry, if it is a page's, that holds an address.
    const FRAME: u64 = LOW_48 & u64::MAX << GRANULE | Self::HIGH;
    const HIGH: u64 = if GRANULE == 16 { HIGH_FRAME } else { 0 };
    /// The bits that an address may have.
    const ADDRESS: u64 = if GRANULE == 16 { LOW_48 | 0xf << 48 } else { LOW_48 };

    const ROOT: Level = Self::LEVELS[0];
    const ALL: ([Level; 4], usize) = {
        assert!(GRANULE == 12 || GRANULE == 14 || GRANULE == 16, "a granule is 4, 16 or 64 KiB");
        assert!(BITS >= 25 && BITS <= 48, "an address has 25 to 48 bits");
        assert!(HALVES == 1 || HALVES == 2, "there are two halves");
        let mut levels = [Level::new(0, 0, false); 4];
        let mut first = levels.len();
        let mut shift = GRANULE;
        while shift < BITS {
            first -= 1;
            let is_root = BITS - shift <= Self::INDEX;
            let half = if is_root { BITS - shift } else { Self::INDEX };
            let bits = if is_root { half + HALVES - 1 } else { half };
            let group = Self::group(shift);
            // A group lies within the node of its half.
            let group = if group < half { group } else { 0 };
            levels[first] = Level::new(shift, bits, shift <= Self::LARGEST).with_groups_of(group);
            shift += Self::INDEX;
        }
        // A translation table is aligned to its size, and to 64 bytes.
        assert!(HALVES == 1 || levels[first].bits > 3, "halves this small cannot be neighbours");
        (levels, first)
    };

    /// log2 of how many entries of this level the contiguous bit joins.
    const fn group(shift: u8) -> u8 {
        match GRANULE {
            _ if shift > Self::LARGEST => 0,
            12 => 4,
            14 if shift == 14 => 7,
            _ => 5,
        }
    }

    /// log2 of what one entry spans that is part, or all, of a leaf of 2<sup>`page`</sup> bytes.
    #[inline]
    const fn entry_shift(page: u8) -> u8 {
        if page < Self::SECOND {
            GRANULE
        } else if page < Self::THIRD {
            Self::SECOND
        } else if page < Self::THIRD + Self::INDEX {
            Self::THIRD
        } else {
            page
        }
    }

    /// What stands in bits 1:0 of a valid leaf; `None` at levels that have none.
    #[inline]
    const fn leaf_kind(page: u8) -> Option<u64> {
        let shift = Self::entry_shift(page);
        if shift == GRANULE {
            Some(VALID | TYPE)
        } else if shift <= Self::LARGEST {
            Some(VALID)
        } else {
            None
        }
    }

    #[inline]
    const fn place(pa: PhysAddr) -> u64 {
        let pa = pa.as_u64();
        pa & LOW_48 | pa >> HIGH_MOVES & Self::HIGH
    }

    #[inline]
    const fn address(raw: u64) -> PhysAddr {
        PhysAddr::new(raw & Self::FRAME & !Self::HIGH | (raw & Self::HIGH) << HIGH_MOVES)
    }
}

/// The bits of a leaf but for its frame and kind.
fn encode_attr(attr: Attr) -> Result<u64, Cause> {
    let unreadable = !attr.contains(Attr::READ);
    if unreadable && attr.intersects(Attr::RWX) || attr.key() != 0 {
        return Err(Cause::Unencodable(attr));
    }
    let index = match attr.memory() {
        Some(MemoryType::WriteBack) => 0,
        Some(MemoryType::WriteThrough) => 1,
        Some(MemoryType::Uncached) => 3,
        Some(MemoryType::WriteCombining) => 4,
        _ => return Err(Cause::Unencodable(attr)),
    };
    let bit = |of: Attr, bit: u64| if attr.contains(of) { bit } else { 0 };
    let (user, dirty) = (attr.contains(Attr::USER), attr.contains(Attr::DIRTY));
    let rights = match (attr.contains(Attr::WRITE), dirty) {
        (true, true) => WRITABLE,
        (true, false) => WRITABLE | READ_ONLY,
        (false, true) => READ_ONLY | DIRTY,
        (false, false) => READ_ONLY,
    };
    let never = match (attr.contains(Attr::EXEC), user) {
        (true, true) => PXN,
        (true, false) => UXN,
        (false, _) => PXN | UXN,
    };
    let soft = u64::from(attr.bits()) >> ATTR_SOFT_SHIFT & 0b111;
    Ok(index << INDEX_SHIFT
        | INNER_SHAREABLE
        | bit(Attr::USER, USER)
        | bit(Attr::ACCESSED, ACCESSED)
        | NOT_GLOBAL ^ bit(Attr::GLOBAL, NOT_GLOBAL)
        | rights
        | never
        | soft << SOFT_SHIFT)
}

/// The attributes of a leaf: valid, `PROT_NONE` or broken.
#[inline]
fn decode_attr(raw: u64) -> Attr {
    let given = |is: bool, of: Attr| if is { of } else { Attr::NONE };
    let memory = match raw >> INDEX_SHIFT & 0b111 {
        0 => MemoryType::WriteBack,
        1 => MemoryType::WriteThrough,
        4 => MemoryType::WriteCombining,
        _ => MemoryType::Uncached,
    };
    // AP[2] clear: written to, or never watched.
    let is_open = raw & READ_ONLY == 0;
    // Three bits, below 2^32 wherever they are.
    let soft = u32::try_from(raw >> SOFT_SHIFT & 0b111).unwrap_or(0) << ATTR_SOFT_SHIFT;
    let mut attr = Attr::from_bits(soft).with_memory(memory)
        | given(raw & USER != 0, Attr::USER)
        | given(raw & ACCESSED != 0, Attr::ACCESSED)
        | given(raw & NOT_GLOBAL == 0, Attr::GLOBAL)
        | given(is_open || raw & DIRTY != 0, Attr::DIRTY);
    if raw & (VALID | BROKEN) != 0 {
        let never = if raw & USER != 0 { UXN } else { PXN };
        attr |= Attr::READ
            | given(is_open || raw & WRITABLE != 0, Attr::WRITE)
            | given(raw & never == 0, Attr::EXEC);
    }
    attr
}

// SAFETY: the levels continue each other and end in pages (checked when a table is made). Leaf,
// soft entry and table differ in bits 1:0 and, at the lowest level, where 11 is a page, by the
// level alone. An address has all bits of `FRAME` that its alignment leaves, which `check_table`
// and `encode` see to; with 4 KiB the count in 11:2 lies below them, and is not looked at in a
// table. All of a leaf outside of `frame_mask` comes from `encode_attr`, `page` and the contiguous
// bit, which goes by `page`. Status is AF, AP[2] of what has DBM, and bit 58, which decode to
// nothing else; a table has no AF without `TCR2_EL1.HAFT`, so that nothing writes to it.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<const GRANULE: u8, const BITS: u8, const HALVES: u8> Format
    for AArch64<GRANULE, BITS, HALVES>
{
    const LEVELS: &'static [Level] = Self::ALL.0.split_at(Self::ALL.1).1;
    const CANONICAL: Canonical =
        if HALVES == 2 { Canonical::signed(BITS + 1) } else { Canonical::unsigned(BITS) };
    const SOFT_BITS: u8 = 62;
    const COUNT_SHIFT: Option<u32> = if GRANULE == 12 { Some(2) } else { None };
    const LINK_WRITE: u64 = READ_ONLY_TABLE;
    const BREAKS: bool = true;

    #[inline]
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        let (pa, attr) = match entry {
            Entry::Hole => return Ok(0),
            Entry::Soft(soft) if soft.get() >> Self::SOFT_BITS == 0 => {
                return Ok(soft.get() << SOFT_VALUE_SHIFT);
            }
            Entry::Soft(soft) => return Err(Cause::SoftTooWide(soft.get())),
            Entry::Leaf(pa, attr) => (pa, attr),
        };
        if !pa.is_aligned(page) {
            return Err(Cause::Misaligned { value: pa.as_u64(), page });
        }
        Self::check_table(pa)?;
        let Some(valid) = Self::leaf_kind(page) else { return Err(Cause::NoLeaf { page }) };
        let kind = if attr.contains(Attr::READ) { valid } else { TYPE };
        let joined = if page == Self::entry_shift(page) { 0 } else { CONTIGUOUS };
        Ok(Self::place(pa) | encode_attr(attr)? | kind | joined)
    }

    #[inline]
    fn decode(raw: u64, page: u8) -> Decoded {
        let leaf = Self::leaf_kind(page);
        match raw & KIND {
            0 => {
                Decoded::Entry(Soft::new(raw >> SOFT_VALUE_SHIFT).map_or(Entry::Hole, Entry::Soft))
            }
            KIND if leaf != Some(KIND) => Decoded::Table(Self::address(raw)),
            // Reserved: hardware treats it as invalid.
            VALID if leaf != Some(VALID) => Decoded::Entry(Entry::Hole),
            _ => {
                let pa = Self::address(raw & Self::frame_mask(page)).align_down(page);
                Decoded::Entry(Entry::Leaf(pa, decode_attr(raw)))
            }
        }
    }

    #[inline]
    fn is_grouped(raw: u64, page: u8) -> bool {
        let kind = raw & KIND;
        let is_leaf = kind == TYPE || kind != 0 && Some(kind) == Self::leaf_kind(page);
        let is_small_root = Self::ROOT.group == 0 && Self::entry_shift(page) == Self::ROOT.shift;
        raw & CONTIGUOUS != 0 && is_leaf && !is_small_root
    }

    #[inline]
    fn table_entry(pa: PhysAddr, _: u8, user: bool) -> u64 {
        let rights = if user { 0 } else { NO_USER_TABLE | UXN_TABLE };
        Self::place(pa) | KIND | rights
    }

    #[inline]
    fn check_table(pa: PhysAddr) -> Result<(), Cause> {
        if pa.as_u64() & !Self::ADDRESS == 0 { Ok(()) } else { Err(Cause::PhysTooWide(pa)) }
    }

    /// EXEC is gone where neither mode may execute. Where one may, the leaf's mode decides, which
    /// is not known here: systems set UXNTable above what is the kernel's and PXNTable above what
    /// is the user's, and those leaves execute.
    #[inline]
    fn table_rights(raw: u64, _: u8) -> Attr {
        let mut rights = Attr::READ;
        if raw & READ_ONLY_TABLE == 0 {
            rights |= Attr::WRITE;
        }
        if raw & NO_USER_TABLE == 0 {
            rights |= Attr::USER;
        }
        if raw & UXN_TABLE == 0 || raw & PXN_TABLE == 0 {
            rights |= Attr::EXEC;
        }
        rights
    }

    #[inline]
    fn has_reserved_bits(raw: u64, page: u8) -> bool {
        raw & KIND == VALID && Self::leaf_kind(page) != Some(VALID)
    }

    #[inline]
    fn frame_mask(page: u8) -> u64 {
        Self::FRAME & u64::MAX << Self::entry_shift(page) | Self::HIGH
    }

    #[inline]
    fn step(page: u8) -> u64 {
        1 << Self::entry_shift(page)
    }

    #[inline]
    fn set_status(raw: u64, attr: Attr) -> u64 {
        let mut raw = raw;
        if attr.contains(Attr::ACCESSED) {
            raw |= ACCESSED;
        }
        if attr.contains(Attr::DIRTY) {
            raw = if raw & WRITABLE != 0 { raw & !READ_ONLY } else { raw | DIRTY };
        }
        raw
    }

    #[inline]
    fn clear_status(raw: u64, attr: Attr) -> u64 {
        let mut raw = raw;
        if attr.contains(Attr::ACCESSED) {
            raw &= !ACCESSED;
        }
        if attr.contains(Attr::DIRTY) {
            if raw & READ_ONLY == 0 {
                // Writable, by DBM or, in somebody else's table, by this bit alone.
                raw |= WRITABLE | READ_ONLY;
            }
            raw &= !DIRTY;
        }
        raw
    }

    #[inline]
    fn is_quiet(raw: u64) -> bool {
        let is_clean = raw & (WRITABLE | READ_ONLY) == WRITABLE | READ_ONLY;
        raw & VALID == 0 || raw & ACCESSED != 0 && !is_clean
    }

    /// DSB ISHST and ISB: a walk may miss the store until then.
    #[inline]
    fn fresh(_: u8) -> Option<Scope> {
        Some(Scope::Fresh)
    }

    #[inline]
    fn needs_break(old: u64, new: u64, _: u8) -> bool {
        old & new & VALID != 0 && (old ^ new) & !CHANGES_IN_PLACE != 0
    }

    /// Of a valid leaf; an invalid one needs no break.
    #[inline]
    fn broken(raw: u64) -> u64 {
        if raw & VALID == 0 { raw } else { raw & !VALID | TYPE | BROKEN }
    }

    #[inline]
    fn is_broken(raw: u64) -> bool {
        raw & (KIND | BROKEN) == TYPE | BROKEN
    }
}

#[cfg(test)]
mod tests;
