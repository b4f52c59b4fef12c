//! What a table holds, in the words that every design shares: entries, spans and runs.
//!
//! ```text
//!  va:   0     1     2     3     4     5     6     7     8   (pages)
//!        +-----+-----+-----+-----+-----+-----+-----+-----+
//!        | hole      | leaf r  -> 70,71,72 | soft| hole ...
//!        +-----------+---------------------+-----+--------
//!  Span:  len 2 pages  len 3 pages           len 1   len: a lower bound
//! ```
//!
//! Nobody above a table speaks of levels, buckets or chains (docs/adr/0001). A [`Run`] is a
//! stretch of leaves whose virtual and physical addresses both ascend; a [`Span`] is the same or a
//! hole or a soft entry, as a table reports it.

use crate::{Attr, Change, PAGE_SHIFT, PhysAddr, VirtAddr};
use core::num::NonZeroU64;

/// What software left in the place of a leaf: a swap entry, a marker. Never 0; how many bits a
/// table can hold is its [`SOFT_BITS`](crate::PageTable::SOFT_BITS).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Soft(NonZeroU64);

impl Soft {
    /// The soft entry of this value; `None` for 0, which is a hole.
    #[must_use]
    pub const fn new(value: u64) -> Option<Self> {
        match NonZeroU64::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// Its value.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing is mapped.
    Hole,
    /// Nothing is mapped, and software has left a note. One smallest page each.
    Soft(Soft),
    /// A mapping. Without [`Attr::READ`] it is `PROT_NONE`, and still holds its frame.
    Leaf(PhysAddr, Attr),
}

impl Entry {
    /// The entry with `change` made to its attributes, if it is a leaf.
    #[must_use]
    pub fn changed(self, change: Change) -> Self {
        match self {
            Self::Leaf(pa, attr) => Self::Leaf(pa, change.apply(attr)),
            other => other,
        }
    }

    /// Whether two entries are the same but for accessed and dirty, which hardware may change at
    /// any time: the comparison of [`PageTable::replace`](crate::PageTable::replace).
    #[must_use]
    pub fn same_but_status(self, other: Self) -> bool {
        match (self, other) {
            (Self::Leaf(pa, a), Self::Leaf(pb, b)) => {
                pa == pb && a - Attr::STATUS == b - Attr::STATUS
            }
            _ => self == other,
        }
    }
}

/// A uniform stretch of a table, as a look-up or a visit reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its first address.
    pub va: VirtAddr,
    /// Its length in bytes. Of a hole this is a lower bound: what follows may be a hole as well.
    pub len: u64,
    /// What is there; of a leaf, the physical address is that of `va`.
    pub entry: Entry,
}

/// A stretch of leaves with equal attributes whose frames follow each other as its pages do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its first virtual address.
    pub va: VirtAddr,
    /// Where that is in physical memory.
    pub pa: PhysAddr,
    /// Its length in bytes.
    pub len: u64,
    /// The attributes of every page of it.
    pub attr: Attr,
    /// log2 of a leaf's bytes: given to `map`, the largest leaf allowed; given by a gather, the
    /// leaf that was found.
    pub page: u8,
}

impl Run {
    /// A run to be mapped by leaves of the smallest size, 4 KiB.
    ///
    /// ```
    /// use vellum_core::{Attr, PhysAddr, Run, VirtAddr};
    ///
    /// let direct_map = Run::new(VirtAddr::new(0xffff_8000 << 32), PhysAddr::new(0), 8 << 30, Attr::RW)
    ///     .with_leaves_up_to(30);
    /// assert_eq!(direct_map.page, 30);
    /// ```
    #[must_use]
    pub const fn new(va: VirtAddr, pa: PhysAddr, len: u64, attr: Attr) -> Self {
        Self { va, pa, len, attr, page: PAGE_SHIFT }
    }

    /// The same, with leaves of up to 2<sup>`page`</sup> bytes where alignment and the design allow.
    #[must_use]
    pub const fn with_leaves_up_to(self, page: u8) -> Self {
        Self { page, ..self }
    }

    /// What is left after the first `bytes`, which are at most `len`.
    #[must_use]
    pub const fn skip(self, bytes: u64) -> Self {
        Self {
            va: self.va.wrapping_add(bytes),
            pa: self.pa.wrapping_add(bytes),
            len: self.len.saturating_sub(bytes),
            ..self
        }
    }

    /// Whether `next` continues this run: same leaves, same attributes, both addresses adjacent.
    #[must_use]
    pub fn continues_with(&self, next: &Self) -> bool {
        self.attr == next.attr
            && self.page == next.page
            && self.va.checked_add(self.len) == Some(next.va)
            && self.pa.checked_add(self.len) == Some(next.pa)
    }
}

/// What has left a table for good: no TLB reaches it any more, and nothing will be written to its
/// status bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Leaves, with their final accessed and dirty. Their frames are the receiver's.
    Run(Run),
    /// A soft entry of the page at this address.
    Soft(VirtAddr, Soft),
}
