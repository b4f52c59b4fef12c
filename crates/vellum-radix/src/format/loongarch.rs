//! LoongArch64 with pages of 4 and 16 KiB.
//!
//! ```text
//!  63 62 61 60:59 58:48 47        13 12   11   10 9 8 7 6 5:4 3:2 1 0
//! +--+--+--+-----+-----+------------+---+----+--+-+-+-+-+---+---+-+-+
//! |0 |0 |0 |0    |0    | node           |0   |0 |0|0|0|0|0  |0  |0|0|  table, in a directory
//! +--+--+--+-----+-----+------------+---+----+--+-+-+-+-+---+---+-+-+
//! |0 |NX|NR|soft |0    | frame          |soft|0 |M|W|1|G|MAT|PLV|D|V|  page
//! |0 |NX|NR|soft |0    | frame, 0   |G  |soft|0 |M|W|1|1|MAT|PLV|D|V|  huge, in a directory
//! |0 |1 |0 |soft |0    | frame          |soft|1 |M|A|0|G|MAT|PLV|0|0|  PROT_NONE, of a page
//! |0 |1 |0 |soft |0    | frame, 0   |G  |soft|1 |M|A|0|1|MAT|PLV|0|0|  PROT_NONE, huge
//! +--+--+--+-----+-----+------------+---+----+--+-+-+-+-+---+---+-+-+
//! | value                                    |0 |0|0|0|H|0  |0  |0|0|  soft; H in a directory
//! +------------------------------------------+--+-+-+-+-+---+---+-+-+
//! | 0                                                               |  hole
//! +-----------------------------------------------------------------+
//! ```
//!
//! | page | leaves | levels for 48 bits, root first | directories |
//! |---|---|---|---|
//! | 4 KiB | 4 KiB, 2 MiB, 1 GiB | 9, 9, 9, 9 bits | Dir3, Dir2, Dir1, page table |
//! | 16 KiB | 16 KiB, 32 MiB | 1, 11, 11, 11 | Dir4, Dir3, Dir1, page table |
//!
//! One root serves both halves of the address space: it goes to PGDL and PGDH.
//!
//! **Status.** V is accessed, and W with D is written to: a load without V or a store without D
//! traps, and the handler lets `touch` set them. From LoongArch 1.10 on (3A6000) a hardware walker
//! can set them itself where P and W allow it, so that a leaf is quiet only when neither is left to
//! be set. M says *dirty* of what is not writable, where D would let stores through. The handler
//! must drop the translation that trapped (INVTLB, or TLBSRCH and TLBWR): nothing else evicts it.
//!
//! **Rights.** NX takes execution. NR takes loads, and is decoded but never set: rights without
//! READ are refused. USER is PLV 3, else PLV 0; the kernel may use what the user may (RPLV, bit 63,
//! is 0).
//!
//! **Memory types.** MAT 1 is coherent and cached, write-back; 0 is strongly ordered and uncached;
//! 2 is weakly ordered and uncached, write-combining. There are no others, and no protection keys.
//!
//! **Pairs.** A TLB entry holds two neighbours, one of which may be invalid: absence is cached, and
//! a new leaf owes a flush. The entry is global only if both halves say so: a global page beside
//! one that is not, or beside a hole, is cached under each address-space identifier that used it,
//! so that a flush of global pages reaches all of them (INVTLB operation 0, or one per identifier)
//! unless pairs are whole.
//!
//! **Holes.** LDDIR does not test what it loads: from an entry of 0 it goes on at address 0. Who
//! refills by LDDIR or by the hardware walker keeps the first node's length of memory reserved and
//! 0, so that such a walk ends in an invalid page. No node lies there for that reason.
//!
//! # Invariants
//!
//! - V is set only in an entry with P.
//! - Bits 14:13 of a huge entry are 0: LDDIR puts the level there.
//!
//! Source: LoongArch Reference Manual, volume 1, 5.4 "Page table mapped storage management" (5.4.2
//! "TLB entry format", 5.4.5 "Multi-level page table structure supported by page walking"), 7.5
//! "Control and status registers related to mapped address translation"; LDDIR, LDPTE and INVTLB in
//! 4.2.

use super::{Decoded, Format, Level};
use vellum_core::{Attr, Canonical, Cause, Entry, MemoryType, PhysAddr, Scope, Soft};

/// LoongArch64 with pages of 2<sup>`PAGE`</sup> bytes, 12 or 14, and 48-bit addresses. Others do
/// not compile.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoongArch64<const PAGE: u8>;

/// V.
const ACCESSED: u64 = 1;
/// D: stores go through.
const WRITTEN: u64 = 1 << 1;
const PLV: u64 = 0b11 << 2;
const MAT_SHIFT: u32 = 4;
/// H: an entry of a directory is a leaf.
const HUGE: u64 = 1 << 6;
/// G of a page.
const GLOBAL: u64 = 1 << 6;
/// P.
const PRESENT: u64 = 1 << 7;
/// W.
const WRITABLE: u64 = 1 << 8;
/// Accessed, of a `PROT_NONE` leaf, where V would let loads through.
const NONE_ACCESSED: u64 = 1 << 8;
/// M: dirty, of what is not writable.
const DIRTY: u64 = 1 << 9;
const NONE: u64 = 1 << 10;
/// The bits of [`Attr::SOFT`]: 11, 59 and 60.
const SOFT: [u64; 3] = [1 << 11, 1 << 59, 1 << 60];
/// G of a huge page.
const HUGE_GLOBAL: u64 = 1 << 12;
const NO_READ: u64 = 1 << 61;
const NO_EXECUTE: u64 = 1 << 62;
/// Bits 47:12.
const FRAME: u64 = 0xffff_ffff_f000;
const SOFT_VALUE_SHIFT: u32 = 11;

/// Dir3, Dir2, Dir1, page table.
const LEVELS_4K: &[Level] = &[
    Level::new(39, 9, false),
    Level::new(30, 9, true),
    Level::new(21, 9, true),
    Level::new(12, 9, true),
];
/// Dir4, Dir3, Dir1, page table: Dir2 would begin at bit 36, and PWCL counts to 31.
const LEVELS_16K: &[Level] = &[
    Level::new(47, 1, false),
    Level::new(36, 11, false),
    Level::new(25, 11, true),
    Level::new(14, 11, true),
];

impl<const PAGE: u8> LoongArch64<PAGE> {
    /// The value of CSR.PWCL: where the indices into the page table, Dir1 and Dir2 begin, and how
    /// many bits they have.
    pub const PWCL: u32 = if PAGE == 12 {
        12 | 9 << 5 | 21 << 10 | 9 << 15 | 30 << 20 | 9 << 25
    } else {
        14 | 11 << 5 | 25 << 10 | 11 << 15
    };

    /// The same for CSR.PWCH, with Dir3 and Dir4. Bit 24 would turn the hardware walker on.
    pub const PWCH: u32 = if PAGE == 12 { 39 | 9 << 6 } else { 36 | 11 << 6 | 47 << 12 | 1 << 18 };
}

/// The bits of a leaf but for its frame.
fn encode_attr(attr: Attr, is_huge: bool) -> Result<u64, Cause> {
    let readable = attr.contains(Attr::READ);
    if !readable && attr.intersects(Attr::RWX) || attr.key() != 0 {
        return Err(Cause::Unencodable(attr));
    }
    let mat = match attr.memory() {
        Some(MemoryType::Uncached) => 0,
        Some(MemoryType::WriteBack) => 1,
        Some(MemoryType::WriteCombining) => 2,
        _ => return Err(Cause::Unencodable(attr)),
    };
    let bit = |of: Attr, bit: u64| if attr.contains(of) { bit } else { 0 };
    let dirty = match (attr.contains(Attr::DIRTY), attr.contains(Attr::WRITE)) {
        (true, true) => WRITTEN,
        (true, false) => DIRTY,
        (false, _) => 0,
    };
    let access = if readable {
        PRESENT | bit(Attr::ACCESSED, ACCESSED) | bit(Attr::WRITE, WRITABLE)
    } else {
        NONE | bit(Attr::ACCESSED, NONE_ACCESSED)
    };
    let size =
        if is_huge { HUGE | bit(Attr::GLOBAL, HUGE_GLOBAL) } else { bit(Attr::GLOBAL, GLOBAL) };
    let [soft0, soft1, soft2] = Attr::SOFT;
    let soft = bit(soft0, SOFT[0]) | bit(soft1, SOFT[1]) | bit(soft2, SOFT[2]);
    let never = NO_EXECUTE ^ bit(Attr::EXEC, NO_EXECUTE);
    Ok(mat << MAT_SHIFT | bit(Attr::USER, PLV) | access | dirty | size | soft | never)
}

/// Whether the entry, of which bit 6 says that it is a leaf if it is a directory's, maps something.
const fn is_mapped(raw: u64) -> bool {
    // V alone is what a TLB looks at: in somebody else's table P need not be set.
    raw & (PRESENT | ACCESSED) != 0
}

/// The attributes of a leaf, mapped or `PROT_NONE`.
fn decode_attr(raw: u64, is_huge: bool) -> Attr {
    let given = |is: bool, of: Attr| if is { of } else { Attr::NONE };
    let has = |mask: u64, of: Attr| given(raw & mask != 0, of);
    let memory = match raw >> MAT_SHIFT & 0b11 {
        1 => MemoryType::WriteBack,
        2 => MemoryType::WriteCombining,
        _ => MemoryType::Uncached,
    };
    let global = if is_huge { HUGE_GLOBAL } else { GLOBAL };
    let mut attr = Attr::NONE.with_memory(memory)
        | given(raw & PLV == PLV, Attr::USER)
        | has(global, Attr::GLOBAL)
        | has(DIRTY | WRITTEN, Attr::DIRTY);
    for (bit, of) in SOFT.into_iter().zip(Attr::SOFT) {
        attr |= has(bit, of);
    }
    if is_mapped(raw) {
        attr | has(ACCESSED, Attr::ACCESSED)
            | has(WRITABLE | WRITTEN, Attr::WRITE)
            | given(raw & NO_READ == 0, Attr::READ)
            | given(raw & NO_EXECUTE == 0, Attr::EXEC)
    } else {
        attr | has(NONE_ACCESSED, Attr::ACCESSED)
    }
}

// SAFETY: the levels continue each other and end in pages (checked when a table is made). Above the
// lowest, bit 6 tells leaves and soft entries from tables, which are addresses that are not 0 and
// aligned to 4 KiB at least; at the lowest nothing decodes to a table. A leaf's address is the part
// of bits 47:12 from `page` up, which its alignment leaves; all else comes from its attributes and
// from whether it is huge, which `page` says. Status is V, D and M, or with P clear W and M, which
// decode to nothing else while W says what D would. Nothing writes to a directory's table entries.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl<const PAGE: u8> Format for LoongArch64<PAGE> {
    const LEVELS: &'static [Level] = {
        assert!(PAGE == 12 || PAGE == 14, "pages are of 4 or of 16 KiB");
        if PAGE == 12 { LEVELS_4K } else { LEVELS_16K }
    };
    const CANONICAL: Canonical = Canonical::signed(48);
    const SOFT_BITS: u8 = 53;

    #[inline]
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause> {
        let is_huge = page > PAGE;
        let (pa, attr) = match entry {
            Entry::Hole => return Ok(0),
            Entry::Soft(soft) if soft.get() >> Self::SOFT_BITS == 0 => {
                return Ok(soft.get() << SOFT_VALUE_SHIFT | if is_huge { HUGE } else { 0 });
            }
            Entry::Soft(soft) => return Err(Cause::SoftTooWide(soft.get())),
            Entry::Leaf(pa, attr) => (pa, attr),
        };
        if !pa.is_aligned(page) {
            return Err(Cause::Misaligned { value: pa.as_u64(), page });
        }
        if pa.as_u64() & !FRAME != 0 {
            return Err(Cause::PhysTooWide(pa));
        }
        Ok(pa.as_u64() | encode_attr(attr, is_huge)?)
    }

    #[inline]
    fn decode(raw: u64, page: u8) -> Decoded {
        let is_huge = page > PAGE;
        if is_huge && raw & HUGE == 0 {
            return match raw & FRAME {
                0 => Decoded::Entry(Entry::Hole),
                pa => Decoded::Table(PhysAddr::new(pa)),
            };
        }
        Decoded::Entry(if is_mapped(raw) || raw & NONE != 0 {
            let pa = PhysAddr::new(raw & FRAME).align_down(page);
            Entry::Leaf(pa, decode_attr(raw, is_huge))
        } else {
            Soft::new(raw >> SOFT_VALUE_SHIFT).map_or(Entry::Hole, Entry::Soft)
        })
    }

    /// An address and nothing else: there is no bit for `user`.
    #[inline]
    fn table_entry(pa: PhysAddr, _: u8, _: bool) -> u64 {
        pa.as_u64() & FRAME
    }

    /// No node lies at address 0, where walks of holes go.
    #[inline]
    fn check_table(pa: PhysAddr) -> Result<(), Cause> {
        let fits = pa.as_u64() & !FRAME == 0 && pa.as_u64() != 0;
        if fits { Ok(()) } else { Err(Cause::PhysTooWide(pa)) }
    }

    /// Bits that would lead LDDIR to another address, and those of a huge leaf below its frame, one
    /// of which it takes for the level.
    fn has_reserved_bits(raw: u64, page: u8) -> bool {
        let below_frame = ((1 << page) - 1) & FRAME & !HUGE_GLOBAL;
        let is_leaf = is_mapped(raw) || raw & NONE != 0;
        page > PAGE
            && match raw & HUGE {
                0 => raw & !FRAME != 0,
                _ => is_leaf && raw & below_frame != 0,
            }
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
        let mapped = is_mapped(raw);
        let mut set = 0;
        if attr.contains(Attr::ACCESSED) {
            set |= if mapped { ACCESSED } else { NONE_ACCESSED };
        }
        if attr.contains(Attr::DIRTY) {
            let writable = mapped && raw & (WRITABLE | WRITTEN) != 0;
            set |= if writable { WRITTEN } else { DIRTY };
        }
        raw | set
    }

    #[inline]
    fn clear_status(raw: u64, attr: Attr) -> u64 {
        let mapped = is_mapped(raw);
        let (mut raw, mut clear) = (raw, 0);
        if attr.contains(Attr::ACCESSED) {
            clear |= if mapped { ACCESSED } else { NONE_ACCESSED };
        }
        if attr.contains(Attr::DIRTY) {
            clear |= WRITTEN | DIRTY;
        }
        if mapped {
            // What only V or D says, in somebody else's entry, P and W say from now on.
            raw |= PRESENT;
            raw |= if raw & WRITTEN != 0 { WRITABLE } else { 0 };
        }
        raw & !clear
    }

    #[inline]
    fn is_quiet(raw: u64) -> bool {
        let is_clean = raw & (WRITABLE | WRITTEN) == WRITABLE;
        !is_mapped(raw) || raw & ACCESSED != 0 && !is_clean
    }

    /// The TLB holds the absent half of a pair.
    #[inline]
    fn fresh(_: u8) -> Option<Scope> {
        Some(Scope::Fresh)
    }
}

#[cfg(test)]
mod tests;
