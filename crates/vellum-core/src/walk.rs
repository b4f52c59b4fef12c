//! What a hardware walker of a design would touch to translate one address.
//!
//! ```text
//!   radix, 4 levels                          hashed, chained
//!
//!   PML4E --> PDPTE --> PDE --> PTE          bucket --> node --> node
//!   span 39   span 30   span 21 span 12      span 12    span 12  span 12
//! ```
//!
//! A walk reports the physical address of every entry that it reads to a [`Sink`]. A laboratory
//! charges its caches from the real addresses, so that no design's cost is a number that somebody
//! wrote down; with the unit sink a walk is a plain look-up, and reporting compiles to nothing.
//!
//! The `span` of a reference is what makes walk caches possible: every address in the same aligned
//! 2<sup>span</sup>-byte block starts its walk with the same references up to this one, so a cache
//! that has seen them may skip them all. A hashed walk shares nothing, and says so by the span of
//! its leaf.
//!
//! Source: Intel SDM vol. 3A, 5.10.3 "Paging-Structure Caches".

use crate::{Attr, Cause, Entry, PhysAddr, Span, VirtAddr};

/// One entry that a walker reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ref {
    /// Where the entry lies.
    pub pa: PhysAddr,
    /// How many bytes of it the walker needs.
    pub bytes: u8,
    /// The aligned 2<sup>`span`</sup>-byte block of virtual addresses shares this and all earlier
    /// references.
    pub span: u8,
    /// May be fetched together with the reference before it, whose contents it does not need.
    pub parallel: bool,
}

/// Receives the references of a walk, in order. It must not call the table.
pub trait Sink {
    /// Whether anybody listens. If not, a walk need not remember what it read.
    const HEARS: bool = true;

    /// The walker reads this entry.
    fn reference(&mut self, r: Ref);
}

/// Hears nothing: a plain look-up.
impl Sink for () {
    const HEARS: bool = false;

    fn reference(&mut self, _: Ref) {}
}

impl<F: FnMut(Ref)> Sink for F {
    fn reference(&mut self, r: Ref) {
        self(r);
    }
}

/// A table that can be walked; every [`PageTable`](crate::PageTable) is one.
pub trait Walk {
    /// Finds what translates the byte at `va`, reporting every entry read.
    ///
    /// The span contains `va`: it is the whole leaf, the one page of a soft entry, or as much of a
    /// hole as the walk itself shows.
    ///
    /// # Errors
    ///
    /// [`Cause::NonCanonical`], before anything is read.
    fn walk<S: Sink>(&self, va: VirtAddr, sink: &mut S) -> Result<Span, Cause>;

    /// Where the byte at `va` lies in physical memory, whatever access its mapping grants; `None`
    /// where no leaf is.
    #[inline]
    fn translate(&self, va: VirtAddr) -> Option<PhysAddr> {
        let span = self.walk(va, &mut ()).ok()?;
        match span.entry {
            Entry::Leaf(pa, _) => pa.checked_add(va.checked_sub(span.va)?),
            _ => None,
        }
    }

    /// What a walker does at the end of a translation: sets `bits` (of [`Attr::STATUS`]) in the
    /// leaf at `va`, if that leaf grants all of `need`. Atomic, and safe beside hardware.
    ///
    /// Returns the entry as it was before; a hole for an address that cannot be translated.
    fn touch(&self, va: VirtAddr, need: Attr, bits: Attr) -> Entry;
}
