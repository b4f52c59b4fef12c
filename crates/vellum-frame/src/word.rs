//! The three things a CPU keeps at hand: frames of a word, a block of 2 MiB, and memories of where
//! blocks were freed.
//!
//! ```text
//!   Word     base | bits . . 1 1 . 1 ...    taken out of the tree: this CPU's
//!            barred                         reserved, or not looked up yet
//!            cell  -> the tree's own word   what else is free there: a double free, if given twice
//!   Huge     base | held                    taken out of the tree: this CPU's
//!            cells -> eight words below it, and its bits above
//!   Recent   [ pfn pfn pfn ... ]            free in the tree: anybody's, if it is still there
//! ```
//!
//! # Invariants
//!
//! - The frames in a word's `bits`, and a block that is `held`, are free on no level of the tree and
//!   in no other cache, as if they were allocated.
//! - A frame that is not `barred` is the allocator's to give.

use crate::access::Access;
use crate::bits::{WORD_BITS, WORD_ORDER, pick, run_mask};
use crate::sync::AtomicU64;
use crate::tree::Tree;
use vellum_core::{PAGE_SHIFT, PhysAddr};

/// The order of the block that is kept at hand: 2 MiB.
pub(crate) const HUGE: u8 = 9;

/// The words of level 0 below such a block.
const HUGE_WORDS: usize = 1 << (HUGE - WORD_ORDER);

/// No word and no block begins there.
pub(crate) const NONE: u64 = u64::MAX;

/// log2 of the bytes of the frames of a word.
pub(crate) const WORD_SHIFT: u8 = PAGE_SHIFT + WORD_ORDER;

/// Free frames of one word of level 0.
#[derive(Debug)]
pub(crate) struct Word<'m> {
    /// The address of its first frame.
    pub(crate) base: u64,
    /// The frames at hand.
    pub(crate) bits: u64,
    /// The frames that are reserved, or not known not to be.
    pub(crate) barred: u64,
    /// The word itself, with the frames that are free in the tree.
    pub(crate) cell: Option<&'m AtomicU64>,
}

impl<'m> Word<'m> {
    pub(crate) const EMPTY: Self = Self { base: NONE, bits: 0, barred: u64::MAX, cell: None };

    /// Becomes the frames `bits` of the word at `base`, where the tree has frames.
    // Field by field: a whole `Word` would go through the stack, and be read back in larger pieces
    // than it was written in, which waits for the stores.
    #[inline]
    pub(crate) fn become_word(&mut self, tree: &Tree<'m>, base: u64, bits: u64) {
        let first = base >> PAGE_SHIFT;
        self.base = base;
        self.bits = bits;
        self.barred = !tree.regions.mask(first);
        self.cell = Some(tree.cell(first));
    }

    /// Becomes the word at `base` without a frame, and without knowledge of any.
    #[inline]
    pub(crate) fn become_empty(&mut self, base: u64) {
        self.base = base;
        self.bits = 0;
        self.barred = u64::MAX;
    }

    /// Takes the lowest frame; there is one.
    #[inline]
    pub(crate) fn take_one(&mut self) -> PhysAddr {
        let bit = u64::from(self.bits.trailing_zeros());
        self.bits &= self.bits - 1;
        PhysAddr::new(self.base | bit << PAGE_SHIFT)
    }

    /// Takes a run of `order`.
    pub(crate) fn take(&mut self, order: u8) -> Option<PhysAddr> {
        let (bit, _) = pick(self.bits, order)?;
        self.bits &= !run_mask(bit, order);
        Some(PhysAddr::new(self.base | u64::from(bit) << PAGE_SHIFT))
    }

    /// Adds the frames `mask`, if they are the allocator's, and a free frame beside them shows that
    /// they are not part of a larger free block; whether it did. Otherwise, who knows.
    #[inline]
    pub(crate) fn give<A: Access>(&mut self, mask: u64) -> bool {
        let free = self.bits | self.cell.map_or(0, A::load);
        let admitted = free != 0 && mask & (self.barred | free) == 0;
        if admitted {
            self.bits |= mask;
        }
        admitted
    }

    /// The address of the lowest of the frames `mask` that is at hand.
    pub(crate) fn lowest_of(&self, mask: u64) -> Option<PhysAddr> {
        let bits = self.bits & mask;
        let bit = u64::from(bits.trailing_zeros());
        (bits != 0).then(|| PhysAddr::new(self.base | bit << PAGE_SHIFT))
    }
}

/// A block of order [`HUGE`].
#[derive(Debug)]
pub(crate) struct Huge<'m> {
    /// Its address; still known after it was handed out.
    pub(crate) base: u64,
    /// Whether it is at hand.
    pub(crate) held: bool,
    /// The words of level 0 below it, and the one on level 1 that has it.
    pub(crate) cells: Option<(&'m [AtomicU64; HUGE_WORDS], &'m AtomicU64)>,
}

impl Huge<'_> {
    pub(crate) const EMPTY: Self = Self { base: NONE, held: false, cells: None };

    /// Takes the block back, if it is this one and nothing says that it is free; looking no higher
    /// than the word of level 1, which is decisive unless it is zero.
    #[inline]
    pub(crate) fn give<A: Access>(&mut self, pa: PhysAddr) -> bool {
        let Some((below, cell)) = self.cells else { return false };
        let word = A::load(cell);
        let mask = 0xff << ((self.base >> WORD_SHIFT) & (WORD_BITS - 1));
        let admitted = pa.as_u64() == self.base
            && !self.held
            && word != 0
            && word & mask == 0
            && below.iter().fold(0, |any, cell| any | A::load(cell)) == 0;
        self.held |= admitted;
        admitted
    }
}

/// How many blocks of each order are remembered.
const RECENT: usize = 16;

/// Where blocks of one order were freed last: a stack that forgets its bottom. They are free in the
/// tree like any other, so nothing is kept from anybody, and each may be gone by now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recent {
    first_frames: [u64; RECENT],
    next: usize,
    len: usize,
}

impl Recent {
    pub(crate) const EMPTY: Self = Self { first_frames: [0; RECENT], next: 0, len: 0 };

    #[inline]
    pub(crate) fn push(&mut self, pfn: u64) {
        self.first_frames[self.next % RECENT] = pfn;
        self.next = self.next.wrapping_add(1);
        self.len = RECENT.min(self.len + 1);
    }

    #[inline]
    pub(crate) fn pop(&mut self) -> Option<u64> {
        self.len = self.len.checked_sub(1)?;
        self.next = self.next.wrapping_sub(1);
        Some(self.first_frames[self.next % RECENT])
    }
}
