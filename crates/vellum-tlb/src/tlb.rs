//! The model of a two-level TLB.
//!
//! ```text
//!  fetch  ---> [ L1I ] --miss--+
//!                              +--> [ L2, unified ] --miss--> walk
//!  data   ---> [ L1D ] --miss--+         |                     |
//!               ^   ^                    |                     |
//!               |   +-------- fill ------+                     |
//!               +------------ fill, both levels ---------------+
//! ```
//!
//! It holds which pages are cached, not what they translate to: a laboratory asks the table for
//! that, and counts. The rules:
//!
//! - The second level is looked up, and its recency touched, only on a first-level miss.
//! - A second-level hit fills the first level; a [`fill`](Tlb::fill) after a walk fills both.
//! - Nothing is invalidated backwards: a page may leave the second level and stay in a first.
//! - Every array holds all page sizes; the set is the page number, in units of the page's own
//!   size, modulo the number of sets. A look-up probes each size that the array has held since it
//!   was last empty.
//! - A leaf of a size between two is cached as pieces of the smaller: 64 KiB as 4 KiB pages.
//!
//! # Invariants
//!
//! - An array's `kinds` has the bit of every size and ownership that one of its tags has.
//! - A look-up of an address space returns only its own entries and global ones.
//!
//! Source: the rules of many published models, such as Intel SDM vol. 3A, 5.10.2 "Translation
//! Lookaside Buffers (TLBs)" leaves them open; sizes in [`Preset`].

use crate::tag::{Owner, Size, Tag, has_tag};
use crate::{Asid, Geometry, LruSets, Preset};
use vellum_core::VirtAddr;

/// Which first-level array an access goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Instruction fetches.
    Fetch,
    /// Loads and stores.
    Data,
}

/// Where a look-up found the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// In the first level of its port.
    First,
    /// In the second level; the first has it now, too.
    Second,
    /// Nowhere: a walk is due, and then a [`fill`](Tlb::fill).
    Miss,
}

/// The leaf that a walk found, as far as a TLB cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// log2 of its bytes.
    pub shift: u8,
    /// Whether every address space may use the entry.
    pub global: bool,
}

impl Leaf {
    /// A leaf of 4 KiB that belongs to one address space.
    pub const PAGE_4K: Self = Self { shift: 12, global: false };
}

/// What has happened since the counts were last taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TlbCounts {
    /// Data look-ups that the first level did not have.
    pub l1d_misses: u64,
    /// Instruction look-ups that the first level did not have.
    pub l1i_misses: u64,
    /// Look-ups that no level had.
    pub l2_misses: u64,
}

/// A split first level and a unified second level.
///
/// ```
/// use vellum_core::VirtAddr;
/// use vellum_tlb::{Asid, Leaf, Lookup, Port, Preset, Tlb};
///
/// let mut tlb = Tlb::new(Preset::by_name("skylake")?);
/// let (va, asid) = (VirtAddr::new(0x7000), Asid::default());
/// assert_eq!(tlb.lookup(va, asid, Port::Data), Lookup::Miss);
/// tlb.fill(va, asid, Port::Data, Leaf::PAGE_4K);
/// assert_eq!(tlb.lookup(va, asid, Port::Data), Lookup::First);
/// assert_eq!(tlb.lookup(va, asid, Port::Fetch), Lookup::Second);
/// assert_eq!(tlb.counts().l2_misses, 1);
/// # Ok::<(), vellum_tlb::UnknownPreset>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tlb {
    data: Array,
    fetch: Array,
    second: Array,
    counts: TlbCounts,
    /// What the last look-up found in neither of its levels, by the tag of a page of 4 KiB; until
    /// something is entered.
    missed: Option<(Port, Tag)>,
}

impl Tlb {
    /// An empty TLB of this shape.
    #[must_use]
    pub fn new(preset: &Preset) -> Self {
        Self {
            data: Array::new(preset.l1d),
            fetch: Array::new(preset.l1i),
            second: Array::new(preset.l2),
            counts: TlbCounts::default(),
            missed: None,
        }
    }

    /// Looks for the page around `va`, and fills the first level if only the second has it.
    ///
    /// An address that 58 sign-extended bits cannot express is in no TLB.
    #[inline]
    pub fn lookup(&mut self, va: VirtAddr, asid: Asid, port: Port) -> Lookup {
        let first = match port {
            Port::Fetch => &mut self.fetch,
            Port::Data => &mut self.data,
        };
        if has_tag(va) && first.find(va, asid).is_some() {
            return Lookup::First;
        }
        self.lookup_second(va, asid, port)
    }

    fn lookup_second(&mut self, va: VirtAddr, asid: Asid, port: Port) -> Lookup {
        let (first, misses) = match port {
            Port::Fetch => (&mut self.fetch, &mut self.counts.l1i_misses),
            Port::Data => (&mut self.data, &mut self.counts.l1d_misses),
        };
        *misses += 1;
        if has_tag(va) {
            if let Some(tag) = self.second.find(va, asid) {
                first.insert(tag);
                self.missed = None;
                return Lookup::Second;
            }
            self.missed = Some((port, Tag::of_page(va, Size::Page4K, Owner::One(asid))));
        }
        self.counts.l2_misses += 1;
        Lookup::Miss
    }

    /// Enters the page around `va`, which a look-up through this port has just missed and a walk
    /// has found, into both levels.
    pub fn fill(&mut self, va: VirtAddr, asid: Asid, port: Port, leaf: Leaf) {
        if !has_tag(va) {
            return;
        }
        let owner = if leaf.global { Owner::All } else { Owner::One(asid) };
        let tag = Tag::of_page(va, Size::within(leaf.shift), owner);
        let first = match port {
            Port::Fetch => &mut self.fetch,
            Port::Data => &mut self.data,
        };
        if self.missed.take() == Some((port, tag)) {
            self.second.insert_absent(tag);
            first.insert_absent(tag);
        } else {
            self.second.insert(tag);
            first.insert(tag);
        }
    }

    /// Drops everything, global entries included (x86: toggling CR4.PGE).
    pub fn flush_all(&mut self) {
        self.each(Array::clear);
    }

    /// Drops everything but global entries (x86: loading CR3 without PCIDs).
    pub fn flush_non_global(&mut self) {
        self.each(|array| array.retain(Tag::is_global));
    }

    /// Drops one address space's entries, not global ones.
    pub fn flush_asid(&mut self, asid: Asid) {
        self.each(|array| array.retain(|tag| !tag.belongs_to(asid)));
    }

    /// Drops every entry, of whatever size, that `asid` could use for `va`; global ones too (x86:
    /// INVLPG).
    pub fn flush_page(&mut self, va: VirtAddr, asid: Asid) {
        if has_tag(va) {
            self.each(|array| array.remove(va, asid));
        }
    }

    /// What has been counted since the last [`reset_counts`](Self::reset_counts).
    #[must_use]
    pub const fn counts(&self) -> TlbCounts {
        self.counts
    }

    /// Counts from 0 again; what is cached stays.
    pub fn reset_counts(&mut self) {
        self.counts = TlbCounts::default();
    }

    fn each(&mut self, mut f: impl FnMut(&mut Array)) {
        f(&mut self.data);
        f(&mut self.fetch);
        f(&mut self.second);
    }
}

/// One set-associative array, and which kinds of entry it may hold.
#[derive(Clone, Debug)]
struct Array {
    sets: LruSets,
    /// Bit 2(size - 1), plus 1 for global: such an entry was inserted since the last clear.
    kinds: u8,
}

/// The one kind that most programs ever see.
const ONLY_PRIVATE_4K: u8 = 1;

const fn kind(size: Size, global: bool) -> u8 {
    1 << (2 * (size as u8 - 1) + global as u8)
}

impl Array {
    fn new(geometry: Geometry) -> Self {
        Self { sets: LruSets::new(geometry), kinds: 0 }
    }

    /// The entry that translates `va` for `asid`, made the most recent of its set.
    #[inline]
    fn find(&mut self, va: VirtAddr, asid: Asid) -> Option<Tag> {
        let tag = Tag::of_page(va, Size::Page4K, Owner::One(asid));
        if self.sets.touch(tag.number(), tag.raw()) {
            return Some(tag);
        }
        if self.kinds & !ONLY_PRIVATE_4K == 0 { None } else { self.find_other(va, asid) }
    }

    fn find_other(&mut self, va: VirtAddr, asid: Asid) -> Option<Tag> {
        let kinds = self.kinds & !ONLY_PRIVATE_4K;
        candidates(va, asid).find(|tag| {
            kinds & kind(tag.size(), tag.is_global()) != 0
                && self.sets.touch(tag.number(), tag.raw())
        })
    }

    /// Puts in an entry whose look-up has just missed. Where the array holds the tag all the same
    /// (a leaf grew or shrank without the flush that it needs) it becomes the most recent.
    fn insert(&mut self, tag: Tag) {
        self.kinds |= kind(tag.size(), tag.is_global());
        self.sets.touch_or_insert(tag.number(), tag.raw());
    }

    /// Puts in an entry that is known not to be there.
    #[inline]
    fn insert_absent(&mut self, tag: Tag) {
        self.kinds |= kind(tag.size(), tag.is_global());
        self.sets.insert(tag.number(), tag.raw());
    }

    fn remove(&mut self, va: VirtAddr, asid: Asid) {
        for tag in candidates(va, asid) {
            self.sets.retain_set(tag.number(), |raw| raw != tag.raw());
        }
    }

    fn retain(&mut self, keep: impl Fn(Tag) -> bool) {
        let mut kinds = 0;
        self.sets.retain(|raw| {
            let tag = Tag::from_raw(raw);
            let stays = keep(tag);
            if stays {
                kinds |= kind(tag.size(), tag.is_global());
            }
            stays
        });
        self.kinds = kinds;
    }

    fn clear(&mut self) {
        self.sets.clear();
        self.kinds = 0;
    }
}

/// Every tag under which an entry for `va` may be filed that `asid` can use.
fn candidates(va: VirtAddr, asid: Asid) -> impl Iterator<Item = Tag> {
    let owners = [Owner::One(asid), Owner::All];
    Size::ALL
        .into_iter()
        .flat_map(move |size| owners.into_iter().map(move |owner| Tag::of_page(va, size, owner)))
}

#[cfg(test)]
mod tests;
