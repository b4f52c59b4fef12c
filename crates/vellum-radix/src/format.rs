//! What makes one hierarchical page table differ from another, as data.
//!
//! ```text
//!        x86-64, 4 levels                            flat, 32 bits
//!
//!  va:  47..39  38..30  29..21  20..12  11..0        31..........12  11..0
//!       +-----+ +-----+ +-----+ +-----+              +-------------+
//!       | 9   | | 9   | | 9   | | 9   |              | 20          |
//!       +-----+ +-----+ +-----+ +-----+              +-------------+
//!  LEVELS: shift 39, 30,     21,     12              shift 12
//!          bits   9,  9,      9,      9              bits  20
//!          leaf   -,  1 GiB,  2 MiB,  4 KiB          leaf  4 KiB
//! ```
//!
//! One walker serves them all. A node is a power of two of 64-bit entries, at least a frame and
//! aligned to itself, so that a node's frames are one block of the memory's.
//!
//! # Invariants, of every format
//!
//! - Levels run from the root down, each continuing where the one above ends: `shift` of one is
//!   `shift + bits` of the next; the lowest is a leaf level of 4 KiB pages.
//! - `decode(encode(e, page), page) == e` for every entry that `encode` accepts, and a table entry
//!   decodes to its table at every level but the lowest.
//! - An entry of 0 is a hole.

use vellum_core::{Canonical, Cause, Entry, PAGE_SHIFT, PhysAddr};

mod flat;
mod x86_64;

pub use flat::Flat;
pub use x86_64::X86_64;

/// One level of a format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// log2 of the bytes that one entry spans.
    pub shift: u8,
    /// log2 of the entries of a node.
    pub bits: u8,
    /// Whether an entry may be a leaf.
    pub leaf: bool,
}

impl Level {
    /// log2 of the bytes that a whole node spans.
    #[must_use]
    pub const fn span(self) -> u8 {
        self.shift + self.bits
    }

    /// The order of the block of frames that holds a node.
    #[must_use]
    pub const fn order(self) -> u8 {
        self.bits.saturating_sub(PAGE_SHIFT - ENTRY_SHIFT)
    }
}

/// log2 of an entry's bytes.
pub const ENTRY_SHIFT: u8 = 3;

/// An entry as a format decodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Nothing, a note of software's, or a mapping.
    Entry(Entry),
    /// The node of the next level, at this address.
    Table(PhysAddr),
}

impl Decoded {
    /// The entry; a hole for a table, under which there is no leaf at this place itself.
    #[must_use]
    pub const fn entry(self) -> Entry {
        match self {
            Self::Entry(entry) => entry,
            Self::Table(_) => Entry::Hole,
        }
    }
}

/// A hierarchical page-table format.
///
/// # Safety
///
/// The invariants of the [module](self) hold, and `table_entry(pa, n)` decodes to `Table(pa)` for
/// every frame-aligned `pa` below 2<sup>52</sup> and every `n` up to the entries of a node, at every
/// level but the lowest, where nothing does. Adding [`ONE_MORE`](Self::ONE_MORE) to a table entry as
/// often as its node has entries, and a few times more (once for each CPU), changes neither the
/// table that it decodes to nor whether it is one; `count` tells how often. Setting or clearing
/// [`status`](Self::status) in a leaf changes nothing of it but those attributes. The walker does
/// all that, and follows what it decodes.
#[allow(unsafe_code, reason = "declares the contract of an unsafe trait")]
pub unsafe trait Format: 'static {
    /// The levels, root first.
    const LEVELS: &'static [Level];

    /// Which virtual addresses the levels translate.
    const CANONICAL: Canonical;

    /// How many bits of a soft value a leaf entry holds.
    const SOFT_BITS: u8;

    /// The entry for a leaf, a soft entry or a hole, at the level whose entries span
    /// 2<sup>`page`</sup> bytes.
    ///
    /// # Errors
    ///
    /// [`Cause::Unencodable`], [`Cause::PhysTooWide`], [`Cause::Misaligned`] or
    /// [`Cause::SoftTooWide`].
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause>;

    /// What an entry of that level says.
    fn decode(raw: u64, page: u8) -> Decoded;

    /// The entry that links a node of which `count` entries are not holes. Accessed is preset, so
    /// that hardware has nothing to write to it.
    fn table_entry(pa: PhysAddr, count: u16) -> u64;

    /// How many entries of the linked node are not holes, as last noted in a table entry.
    fn count(table_entry: u64) -> u16;

    /// What to add to a table entry to note one more.
    const ONE_MORE: u64;

    /// The status bits of a leaf that `attr` names, as bits of the entry.
    fn status(attr: vellum_core::Attr) -> u64;

    /// Whether hardware will write nothing more to this leaf.
    fn is_quiet(raw: u64) -> bool;
}

/// The leaf sizes of a format: bit `n` for 2<sup>n</sup> bytes.
#[must_use]
pub const fn leaves<F: Format>() -> u64 {
    let mut leaves = 0;
    let mut i = 0;
    while i < F::LEVELS.len() {
        if F::LEVELS[i].leaf {
            leaves |= 1 << F::LEVELS[i].shift;
        }
        i += 1;
    }
    leaves
}

/// Refuses, at compile time, levels that do not fit together.
pub(crate) const fn check_levels(levels: &[Level]) {
    assert!(!levels.is_empty(), "a table has at least one level");
    let mut i = 0;
    while i + 1 < levels.len() {
        assert!(levels[i].shift == levels[i + 1].span(), "levels do not continue each other");
        // Occupancy is noted in ten bits of the entry that links a node.
        assert!(levels[i + 1].bits <= 9, "a linked node has at most 512 entries");
        assert!(levels[i + 1].bits == PAGE_SHIFT - ENTRY_SHIFT, "a linked node is one frame");
        assert!(!levels[i].leaf || levels[i + 1].leaf, "a leaf splits into leaves");
        i += 1;
    }
    assert!(levels[i].leaf && levels[i].shift == PAGE_SHIFT, "the lowest level maps pages");
}
