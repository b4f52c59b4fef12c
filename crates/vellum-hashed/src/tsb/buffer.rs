//! The entries of a TSB, and who may write them when.
//!
//! ```text
//!   entry, 16 bytes                                            2^order frames of them
//!  +-----------------------------------------+---+----------------------------------+
//!  | address of the page                     | 1 | raw leaf (vellum_core::pte)      |
//!  +-----------------------------------------+---+----------------------------------+
//!    0 for none
//! ```
//!
//! UltraSPARC loads both words at once. Here the version of a stripe stands for that: an entry is
//! written under its stripe, and read between two looks at its version.
//!
//! # Why nothing stale stays
//!
//! A look-up that finds nothing here remembers the version, asks the table behind, and writes what
//! that says only if the version is still the same. Whoever changes the table forgets the page
//! *afterwards*, which moves the version. So either the look-up began before that, and does not write,
//! or writes before and is forgotten; or it began after that, and what it learns is the change.
//!
//! # Lock order
//!
//! A stripe is innermost: it is taken under the locks of the table behind, and nothing under it.

use core::ops::RangeInclusive;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Memory, OutOfFrames, PhysAddr, Ref, VirtAddr, order_bytes};
use vellum_global::Stripes;
use vellum_global::stripes::Version;
use vellum_global::word::{alloc_zeroed, load, store};

const ENTRY_BYTES: u8 = 16;
const WORD: u64 = 8;
/// In the first word: there is an entry. Addresses of pages leave it 0.
const THERE: u64 = 1;

/// The memory of a [`Tsb`](super::Tsb): its frames, and one more for the versions.
pub struct TsbBuffer<M: Memory> {
    memory: M,
    stripes: Stripes<M>,
    at: PhysAddr,
    order: u8,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl<M: Memory> TsbBuffer<M> {
    /// A buffer of 2<sup>`order`</sup> frames: 256 entries each, all empty.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub fn new(memory: M, order: u8) -> Result<Self, OutOfFrames> {
        let stripes = Stripes::new(memory.clone())?;
        let at = alloc_zeroed(&memory, order)?;
        let (hits, misses) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Self { memory, stripes, at, order, hits, misses })
    }

    /// How many entries there is room for.
    #[must_use]
    pub const fn count(&self) -> u64 {
        order_bytes(self.order) / ENTRY_BYTES as u64
    }

    /// Bytes of memory that it takes.
    pub const fn table_bytes(&self) -> u64 {
        order_bytes(self.order) + self.stripes.table_bytes()
    }

    /// Look-ups that were answered from here.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Look-ups that had to ask the table behind.
    pub fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }

    /// Where the page of this number has its entry.
    const fn place(&self, number: u64) -> u64 {
        number & (self.count() - 1)
    }

    fn address(&self, place: u64) -> PhysAddr {
        // The mask keeps it within the block, whatever the place.
        self.at.wrapping_add(self.place(place) * ENTRY_BYTES as u64)
    }

    fn load(&self, place: u64) -> (u64, u64) {
        let at = self.address(place);
        // SAFETY: words of the block, which is ours until `drop` and touched here only.
        unsafe { (load(&self.memory, at), load(&self.memory, at.wrapping_add(WORD))) }
    }

    fn store(&self, place: u64, (tag, raw): (u64, u64)) {
        let at = self.address(place);
        // SAFETY: as in `load`.
        unsafe {
            store(&self.memory, at, tag);
            store(&self.memory, at.wrapping_add(WORD), raw);
        }
    }

    /// What a walker reads of it for the page at `va`, of 2<sup>`page`</sup> bytes.
    pub(super) fn reference(&self, va: VirtAddr, page: u8, span: u8) -> Ref {
        let pa = self.address(va.as_u64() >> page);
        Ref { pa, bytes: ENTRY_BYTES, span, parallel: false }
    }

    /// The raw leaf of the page at `va`, of 2<sup>`page`</sup> bytes; or the version that
    /// [`fill`](Self::fill) wants.
    pub(super) fn look_up(&self, va: VirtAddr, page: u8) -> Result<u64, Version<'_, M>> {
        let place = self.place(va.as_u64() >> page);
        loop {
            let version = self.stripes.begin(self.stripes.of(place));
            let (tag, raw) = self.load(place);
            if tag != va.as_u64() | THERE {
                self.misses.fetch_add(1, Ordering::Relaxed);
                return Err(version);
            }
            if version.is_current() {
                self.hits.fetch_add(1, Ordering::Relaxed);
                return Ok(raw);
            }
        }
    }

    /// Writes down what the table behind had for the page, unless it may have changed since.
    pub(super) fn fill(&self, version: Version<'_, M>, va: VirtAddr, page: u8, raw: u64) {
        if let Some(_held) = version.hold_if_current() {
            self.store(va.as_u64() >> page, (va.as_u64() | THERE, raw));
        }
    }

    /// Forgets the pages of a range, after they were changed: at most every entry is looked at.
    ///
    /// `alone` says that nobody looks anything up meanwhile, so that no version need move.
    pub(super) fn forget(&self, range: RangeInclusive<VirtAddr>, page: u8, alone: bool) {
        let (first, last) = (range.start().as_u64() >> page, range.end().as_u64() >> page);
        let pages = last.saturating_sub(first).saturating_add(1);
        for n in 0..pages.min(self.count()) {
            let place = self.place(first.wrapping_add(n));
            let _held = (!alone).then(|| self.stripes.hold(self.stripes.of(place)));
            let (tag, _) = self.load(place);
            if tag != 0 && range.contains(&VirtAddr::new(tag & !THERE)) {
                self.store(place, (0, 0));
            }
        }
    }
}

impl<M: Memory> Drop for TsbBuffer<M> {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this order; whoever reads it borrows `self`.
        unsafe { self.memory.free(self.at, self.order) };
    }
}

impl<M: Memory> core::fmt::Debug for TsbBuffer<M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TsbBuffer")
            .field("count", &self.count())
            .field("hits", &self.hits())
            .field("misses", &self.misses())
            .finish()
    }
}
