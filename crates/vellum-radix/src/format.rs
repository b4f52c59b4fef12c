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
//! One walker serves them all. A node is a power of two of entries of 32 or 64 bits, at least a
//! frame and aligned to itself, so that a node's frames are one block of the memory's.
//!
//! **Groups.** Some formats let 2<sup>n</sup> aligned neighbours say that they are one leaf (Arm's
//! contiguous hint, RISC-V's Svnapot): the walker treats them as a leaf of `shift + n`.
//!
//! **Counts.** How many entries of a node are not holes is noted in ten bits of the entry that links
//! it, or, where a format has no ten bits to spare, in an array behind the node that links it:
//!
//! ```text
//!   in the entry      [..count..pa..]                     behind the entries, 32 bits each
//!                                      [e0][e1] ... [en-1] | [c0][c1] ... [cn-1]
//! ```
//!
//! # Invariants, of every format
//!
//! - Levels run from the root down, each continuing where the one above ends: `shift` of one is
//!   `shift + bits` of the next; the lowest is a leaf level.
//! - `decode(encode(e, page), page) == e` for every entry that `encode` accepts, and a table entry
//!   decodes to its table at every level but the lowest.
//! - An entry of 0 is a hole.

use vellum_core::{Attr, Canonical, Cause, Entry, PAGE_SHIFT, PhysAddr, Scope};

mod aarch64;
mod flat;
mod flattened;
#[cfg(test)]
mod laws;
mod loongarch;
mod riscv;
mod x86;
mod x86_64;

pub use aarch64::AArch64;
pub use flat::Flat;
pub use flattened::Flattened;
pub use loongarch::LoongArch64;
pub use riscv::{RVA23, RiscV, SVNAPOT, SVPBMT, SVVPTC, Sv32};
pub use x86::{X86, X86Pae};
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
    /// log2 of the entries that may form one larger leaf together; 0 where none do.
    pub group: u8,
}

impl Level {
    /// A level of 2<sup>`bits`</sup> entries that span 2<sup>`shift`</sup> bytes each, leaves or not.
    #[must_use]
    pub const fn new(shift: u8, bits: u8, leaf: bool) -> Self {
        Self { shift, bits, leaf, group: 0 }
    }

    /// The same, where 2<sup>`group`</sup> aligned neighbours may form one leaf.
    #[must_use]
    pub const fn with_groups_of(self, group: u8) -> Self {
        Self { group, ..self }
    }

    /// log2 of the bytes that a whole node spans.
    #[must_use]
    pub const fn span(self) -> u8 {
        self.shift + self.bits
    }

    /// log2 of the bytes of a leaf that a whole group forms.
    #[must_use]
    pub const fn group_shift(self) -> u8 {
        self.shift + self.group
    }
}

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
    #[inline]
    pub const fn entry(self) -> Entry {
        match self {
            Self::Entry(entry) => entry,
            Self::Table(_) => Entry::Hole,
        }
    }
}

/// A hierarchical page-table format.
///
/// `page`, wherever it is an argument, is log2 of the bytes that the entry spans: the `shift` of
/// its level, or the [`group_shift`](Level::group_shift) for an entry of a group.
///
/// # Safety
///
/// The walker follows what it decodes, and changes entries by arithmetic. So, besides the
/// invariants of the [module](self):
///
/// - `table_entry(pa, page, user)` decodes to `Table(pa)` for every `pa` below 2<sup>52</sup> (or
///   what [`check_table`](Self::check_table) accepts) that is aligned to its node, at every level
///   but the lowest, where nothing decodes to a table. It has nothing that hardware would still
///   write. It is never 0.
/// - `child` agrees with `decode` on all entries that this trait makes, and on holes, with any count.
/// - With [`COUNT_SHIFT`](Self::COUNT_SHIFT), the ten bits from there on are 0 in `table_entry`'s
///   result, and whatever they are changes neither the table it decodes to nor whether it is one.
/// - Entries that `encode` makes of leaves with the same attributes, `page` and frames
///   2<sup>`page`</sup> apart differ by [`step`](Self::step), where that stays within
///   [`frame_mask`](Self::frame_mask); and all of a leaf's entry outside of that mask depends on
///   its attributes, `page` and the bits of its frame that have no place in the mask alone.
/// - A table entry with the bits of [`LINK_WRITE`](Self::LINK_WRITE) flipped decodes to the same table,
///   and they are none of the count's.
/// - `set_status`, `clear_status` of a leaf's entry change nothing of what it decodes to but those
///   attributes.
#[allow(unsafe_code, reason = "declares the contract of an unsafe trait")]
pub unsafe trait Format: 'static {
    /// The levels, root first; at most [`MAX_DEPTH`](crate::MAX_DEPTH).
    const LEVELS: &'static [Level];

    /// Which virtual addresses the levels translate.
    const CANONICAL: Canonical;

    /// How many bits of a soft value a leaf entry holds.
    const SOFT_BITS: u8;

    /// log2 of an entry's bytes: 2 or 3.
    const ENTRY_SHIFT: u8 = 3;

    /// Where a table entry has ten bits for the count of its node; `None`: nowhere.
    const COUNT_SHIFT: Option<u32> = None;

    /// The bits of a table entry that, flipped, take the right to write from everything below; 0 where
    /// no entry can. Nodes can be shared copy-on-write where there are such.
    const LINK_WRITE: u64 = 0;

    /// Whether a live leaf may have to be made invalid, and flushed, before it gets another frame,
    /// size or memory type: Arm's break-before-make. [`needs_break`](Self::needs_break) says when.
    const BREAKS: bool = false;

    /// The entry for a leaf, a soft entry or a hole. Of a group, the first entry; the others follow
    /// by [`step`](Self::step) of the group's `page`.
    ///
    /// # Errors
    ///
    /// [`Cause::Unencodable`], [`Cause::PhysTooWide`], [`Cause::Misaligned`] or
    /// [`Cause::SoftTooWide`].
    fn encode(entry: Entry, page: u8) -> Result<u64, Cause>;

    /// What an entry says. Any value decodes. Given a group's `page`, any entry of the group
    /// decodes to the whole leaf.
    fn decode(raw: u64, page: u8) -> Decoded;

    /// The node that an entry above the lowest level links. Asked only of the walker's own entries:
    /// holes, leaves and links, of which a format may know a shorter way than `decode` has to go.
    #[must_use]
    #[inline(always)]
    fn child(raw: u64, page: u8) -> Option<PhysAddr> {
        match Self::decode(raw, page) {
            Decoded::Table(pa) => Some(pa),
            Decoded::Entry(_) => None,
        }
    }

    /// Whether an entry of the level of `page` is part of a group.
    #[must_use]
    #[inline]
    fn is_grouped(raw: u64, page: u8) -> bool {
        let _ = (raw, page);
        false
    }

    /// The entry that links a node, from the level of `page`. Rights are those of the leaves, but
    /// that with `user` false nothing below is for user mode, where the format can say so.
    fn table_entry(pa: PhysAddr, page: u8, user: bool) -> u64;

    /// Refuses a node at an address that a table entry cannot hold.
    ///
    /// # Errors
    ///
    /// [`Cause::PhysTooWide`].
    #[inline]
    fn check_table(pa: PhysAddr) -> Result<(), Cause> {
        if pa.as_u64() >> 52 == 0 { Ok(()) } else { Err(Cause::PhysTooWide(pa)) }
    }

    /// The rights that a table entry, perhaps somebody else's, leaves to what is below it:
    /// of [`Attr::RWX`] and [`Attr::USER`].
    #[must_use]
    #[inline]
    fn table_rights(raw: u64, page: u8) -> Attr {
        let _ = (raw, page);
        Attr::RWX | Attr::USER
    }

    /// Whether bits are set that the manual reserves, so that hardware would fault on the entry.
    #[must_use]
    #[inline]
    fn has_reserved_bits(raw: u64, page: u8) -> bool {
        let _ = (raw, page);
        false
    }

    /// The bits of a leaf that hold its frame.
    fn frame_mask(page: u8) -> u64;

    /// What to add to the entry of a leaf for the next leaf's frame; given a group's `page`, for
    /// the next entry of the group.
    fn step(page: u8) -> u64;

    /// The leaf with the status bits set that `attr` names (of [`Attr::STATUS`]).
    fn set_status(raw: u64, attr: Attr) -> u64;

    /// The leaf with the status bits cleared that `attr` names.
    fn clear_status(raw: u64, attr: Attr) -> u64;

    /// Whether hardware will write nothing more to this leaf.
    fn is_quiet(raw: u64) -> bool;

    /// What is owed when an entry of the level of `page` has come from a hole: on most processors
    /// nothing.
    #[must_use]
    #[inline]
    fn fresh(page: u8) -> Option<Scope> {
        let _ = page;
        None
    }

    /// Whether a live entry must not change from one to the other in one step. Asked only with
    /// [`BREAKS`](Self::BREAKS), and only of two valid entries.
    #[must_use]
    #[inline]
    fn needs_break(old: u64, new: u64, page: u8) -> bool {
        let _ = (old, new, page);
        false
    }

    /// A leaf made invalid for the time between break and make: it decodes as before, is quiet, and
    /// [`is_broken`](Self::is_broken). Asked only with [`BREAKS`](Self::BREAKS).
    #[must_use]
    #[inline]
    fn broken(raw: u64) -> u64 {
        raw
    }

    /// Whether [`broken`](Self::broken) made this entry.
    #[must_use]
    #[inline]
    fn is_broken(raw: u64) -> bool {
        let _ = raw;
        false
    }
}

/// log2 of the format's smallest page.
#[must_use]
pub const fn base_shift<F: Format>() -> u8 {
    F::LEVELS[F::LEVELS.len() - 1].shift
}

/// The leaf sizes of a format: bit `n` for 2<sup>n</sup> bytes.
#[must_use]
pub const fn leaves<F: Format>() -> u64 {
    let mut leaves = 0;
    let mut i = 0;
    while i < F::LEVELS.len() {
        if F::LEVELS[i].leaf {
            leaves |= 1 << F::LEVELS[i].shift | 1 << F::LEVELS[i].group_shift();
        }
        i += 1;
    }
    leaves
}

/// The leaf sizes of a format that are one entry each.
#[must_use]
pub const fn single_entry_leaves<F: Format>() -> u64 {
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

/// Whether a table entry of the level of `page` takes the right to write from what is below it:
/// which is how a node that is shared copy-on-write is linked.
#[inline(always)]
pub(crate) fn is_shared<F: Format>(raw: u64, page: u8) -> bool {
    (raw ^ F::table_entry(PhysAddr::new(0), page, true)) & F::LINK_WRITE != 0
}

/// The order of the block of frames that holds a node of level `depth`, with its counts if they are
/// beside it.
#[must_use]
pub const fn node_order<F: Format>(depth: usize) -> u8 {
    let entries = 1u64 << F::LEVELS[depth].bits;
    let mut bytes = entries << F::ENTRY_SHIFT;
    if F::COUNT_SHIFT.is_none() && depth + 1 < F::LEVELS.len() {
        bytes += entries << COUNT_BYTES_SHIFT;
    }
    let mut order = 0;
    while bytes > 1 << (PAGE_SHIFT + order) {
        order += 1;
    }
    order
}

/// log2 of the bytes of a count beside a node.
pub(crate) const COUNT_BYTES_SHIFT: u8 = 2;

/// Refuses, at compile time, levels that do not fit together.
pub(crate) const fn check_levels<F: Format>() {
    let levels = F::LEVELS;
    assert!(!levels.is_empty(), "a table has at least one level");
    assert!(levels.len() <= crate::MAX_DEPTH, "more levels than any format has");
    assert!(F::ENTRY_SHIFT == 2 || F::ENTRY_SHIFT == 3, "an entry has 32 or 64 bits");
    let mut i = 0;
    while i + 1 < levels.len() {
        assert!(levels[i].shift == levels[i + 1].span(), "levels do not continue each other");
        // Ten bits of the entry that links a node count up to 512, and a few more for CPUs on
        // their way.
        assert!(F::COUNT_SHIFT.is_none() || levels[i + 1].bits <= 9, "more than 512 are counted");
        assert!(!levels[i].leaf || levels[i + 1].leaf, "a leaf splits into leaves");
        assert!(levels[i].group < levels[i].bits, "a group is part of a node");
        i += 1;
    }
    assert!(levels[i].leaf && levels[i].shift >= PAGE_SHIFT, "the lowest level maps pages");
}
