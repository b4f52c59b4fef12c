//! [`Hand`]: what one CPU keeps at hand, so that most calls touch nothing shared.
//!
//! ```text
//!    alloc                            free
//!      |                                |
//!      v                                v
//!   +---------+   same word?       +---------+    64 frames of level 0 each:
//!   | own     |<-------------------| freed   |    a number, and a mask of free frames
//!   +---------+                    +---------+
//!      ^  |      own is empty:          |
//!      |  |  <--- take over freed ---   |   another word comes: give this one back
//!      |  v                             v
//!   +-----------------------------------------+
//!   |            the tree, shared             |    one compare-and-swap for up to 64 frames
//!   +-----------------------------------------+
//!      ^                                |
//!      |   order 9    +---------+       |
//!      +--------------|  huge   |<------+        one block of 2 MiB
//!                     +---------+
//! ```
//!
//! `own` is a word whose free frames this CPU took from the tree in one go: allocating from it is a
//! bit operation. Frees go into `own` if they lie there; else the first of a word goes to the tree,
//! and those of the same word that follow are collected in `freed`, until another word comes. So a
//! CPU that allocates and frees in batches does one compare-and-swap for 64 frames.
//!
//! Other orders go to the tree, but not blindly: of each the hand remembers where it freed blocks
//! last, and tries these first, if they are still blocks of that very order (`Recent`). They stay
//! free in the tree all the while: nothing is kept from other CPUs, and a double free is seen.
//!
//! A hand holds at most 64 frames in `own`, 64 in `freed` and one block of 2 MiB; all of them go
//! back on `flush`, and before an allocation fails.
//!
//! # Invariants
//!
//! - No two of `own`, `freed` and `huge` have a frame in common.

use crate::access::Access;
use crate::allocator::{FrameAllocator, MAX_ORDER, addr, alloc_from, locate, noted};
use crate::bits::{WORD_BITS, WORD_ORDER, run_mask};
use crate::error::FreeError;
use crate::tree::{One, Tree};
use crate::word::{HUGE, Huge, NONE, Recent, WORD_SHIFT, Word};
use core::mem::replace;
use vellum_core::{OutOfFrames, PAGE_SHIFT, PhysAddr};

/// What a cache holds, without the allocator it belongs to; whoever keeps it passes the same one to
/// every call.
#[derive(Debug)]
pub(crate) struct Hand<'m> {
    own: Word<'m>,
    freed: Word<'m>,
    huge: Huge<'m>,
    /// For each order from 1 to [`HUGE`].
    recent: [Recent; HUGE as usize],
}

impl<'m> Hand<'m> {
    pub(crate) const EMPTY: Self = Self {
        own: Word::EMPTY,
        freed: Word::EMPTY,
        huge: Huge::EMPTY,
        recent: [Recent::EMPTY; HUGE as usize],
    };

    #[inline]
    pub(crate) fn alloc<A: Access>(
        &mut self,
        frames: &FrameAllocator<'m>,
        order: u8,
    ) -> Result<PhysAddr, OutOfFrames> {
        if order == 0 && self.own.bits != 0 {
            return Ok(self.own.take_one());
        }
        if order == HUGE && self.huge.held {
            self.huge.held = false;
            return Ok(PhysAddr::new(self.huge.base));
        }
        self.alloc_slow::<A>(frames, order)
    }

    #[inline(never)]
    fn alloc_slow<A: Access>(
        &mut self,
        frames: &FrameAllocator<'m>,
        order: u8,
    ) -> Result<PhysAddr, OutOfFrames> {
        let Some(tree) = frames.tree() else { return Err(OutOfFrames { order }) };
        if order == 0 {
            if self.freed.bits != 0 {
                core::mem::swap(&mut self.own, &mut self.freed);
            } else if let Some((first, bits)) = tree.take_word::<A>() {
                self.own.become_word(tree, first << PAGE_SHIFT, bits);
            }
            if self.own.bits != 0 {
                return Ok(self.own.take_one());
            }
        } else if let Some(recent) = self.recent.get_mut(usize::from(order) - 1) {
            loop {
                while let Some(pfn) = recent.pop() {
                    if tree.take_block::<A>(pfn, order) {
                        return Ok(addr(pfn));
                    }
                }
                if !tree.find_blocks::<A>(order, |pfn| recent.push(pfn)) {
                    break;
                }
            }
            if order < WORD_ORDER {
                if let Some(pa) = self.own.take(order) {
                    return Ok(pa);
                }
                if let Some(pfn) = tree.alloc_in_words::<A>(order) {
                    return Ok(addr(pfn));
                }
                // A word has to be split: what that leaves is of more use here than in the tree.
                if self.own.bits == 0 {
                    if let Some(pfn) = tree.alloc::<A>(WORD_ORDER) {
                        self.own.become_word(tree, pfn << PAGE_SHIFT, u64::MAX);
                    }
                }
                if let Some(pa) = self.own.take(order) {
                    return Ok(pa);
                }
            }
        }
        let found = alloc_from::<A>(Some(tree), order);
        if found.is_ok() || order > MAX_ORDER || self.count() == 0 {
            return found;
        }
        // Perhaps what lies here is what it lacks.
        self.flush::<A>(frames);
        alloc_from::<A>(Some(tree), order)
    }

    #[inline]
    pub(crate) fn free<A: Access>(
        &mut self,
        frames: &FrameAllocator<'m>,
        pa: PhysAddr,
        order: u8,
    ) -> Result<(), FreeError> {
        if order == 0 && pa.is_aligned(PAGE_SHIFT) {
            let (base, mask) = place(pa, 0);
            if base == self.own.base {
                if self.own.give::<A>(mask) {
                    return Ok(());
                }
            } else if A::SHARED && base == self.freed.base {
                if self.freed.give::<A>(mask) {
                    return Ok(());
                }
            } else if (!A::SHARED || self.freed.bits == 0) && !self.huge_has(pa) {
                // Collecting begins with the second frame of a word; this may be the first.
                if A::SHARED {
                    self.freed.become_empty(base);
                }
                if let Some(tree) = frames.tree() {
                    match tree.free_one::<A>(pa.number().as_u64()) {
                        One::Freed => return Ok(()),
                        One::Unnoted(index) => return noted::<A>(tree, index),
                        One::Refused => {}
                    }
                }
            }
        } else if order < WORD_ORDER && pa.is_aligned(PAGE_SHIFT + order) {
            let (base, mask) = place(pa, order);
            if base == self.own.base && self.own.give::<A>(mask) {
                return Ok(());
            }
        } else if order == HUGE {
            return self.free_huge::<A>(frames, pa);
        }
        self.free_slow::<A>(frames, pa, order)
    }

    #[inline(never)]
    fn free_huge<A: Access>(
        &mut self,
        frames: &FrameAllocator<'m>,
        pa: PhysAddr,
    ) -> Result<(), FreeError> {
        if self.words_beside(pa) && self.huge.give::<A>(pa) {
            return Ok(());
        }
        self.free_slow::<A>(frames, pa, HUGE)
    }

    /// All of it, errors included.
    #[inline(never)]
    fn free_slow<A: Access>(
        &mut self,
        frames: &FrameAllocator<'m>,
        pa: PhysAddr,
        order: u8,
    ) -> Result<(), FreeError> {
        let (tree, pfn) =
            locate(frames.tree(), pa, order).map_err(|cause| cause.on_free(pa, order))?;
        let twice = |pfn| FreeError::DoubleFree { pa: addr(pfn) };
        if order > HUGE || self.is_near(pa) {
            if let Some(pa) = self.has(pa, order) {
                return Err(FreeError::DoubleFree { pa });
            }
        }
        if order == HUGE && !self.huge.held {
            if let Some(free) = tree.free_frame::<A>(pfn, order) {
                return Err(twice(free));
            }
            self.huge = Huge { base: pa.as_u64(), held: true, cells: tree.huge_cells(pfn) };
            return Ok(());
        }
        if order < WORD_ORDER {
            let (base, mask) = place(pa, order);
            // Collecting saves compare-and-swaps; without them, it would save nothing.
            let collect = A::SHARED && order == 0;
            if base == self.own.base || (collect && base == self.freed.base) {
                if let Some(free) = tree.free_frame::<A>(pfn, order) {
                    return Err(twice(free));
                }
                let word = if base == self.own.base { &mut self.own } else { &mut self.freed };
                word.become_word(tree, base, word.bits | mask);
                return Ok(());
            }
            if collect {
                give::<A>(tree, &self.freed);
                self.freed.become_empty(base);
            }
        }
        tree.free::<A>(pfn, order).map_err(twice)?;
        if let Some(recent) = self.recent.get_mut(usize::from(order).wrapping_sub(1)) {
            recent.push(pfn);
        }
        Ok(())
    }

    /// Whether anything at hand may lie in the same 2 MiB as `pa`.
    #[inline]
    fn is_near(&self, pa: PhysAddr) -> bool {
        let shift = PAGE_SHIFT + HUGE;
        let at = pa.as_u64() >> shift;
        // All three each time: whether a block is held just now is hard to guess.
        (at == self.own.base >> shift)
            | (at == self.freed.base >> shift)
            | ((at == self.huge.base >> shift) & self.huge.held)
    }

    /// Whether no word at hand lies in the block of 2 MiB at `pa`.
    #[inline]
    fn words_beside(&self, pa: PhysAddr) -> bool {
        let shift = PAGE_SHIFT + HUGE;
        let inside = |word: &Word<'_>| word.bits != 0 && word.base >> shift == pa.as_u64() >> shift;
        !inside(&self.own) && !inside(&self.freed)
    }

    /// Whether the block of 2 MiB at hand has the frame at `pa`.
    #[inline]
    fn huge_has(&self, pa: PhysAddr) -> bool {
        self.huge.held && pa.align_down(PAGE_SHIFT + HUGE).as_u64() == self.huge.base
    }

    /// The address of a frame at hand that is part of the block of `order` at `pa`.
    #[inline]
    fn has(&self, pa: PhysAddr, order: u8) -> Option<PhysAddr> {
        let (base, mask) =
            if order < WORD_ORDER { place(pa, order) } else { (pa.as_u64(), u64::MAX) };
        let size = 1 << (PAGE_SHIFT + order.max(WORD_ORDER));
        let inside = |at: u64| at.wrapping_sub(base) < size;
        for word in [&self.own, &self.freed] {
            if inside(word.base) {
                if let Some(pa) = word.lowest_of(mask) {
                    return Some(pa);
                }
            }
        }
        if order > HUGE && self.huge.held && inside(self.huge.base) {
            return Some(PhysAddr::new(self.huge.base));
        }
        self.huge_has(pa).then_some(pa)
    }

    /// How many frames are at hand.
    pub(crate) const fn count(&self) -> u64 {
        let huge = if self.huge.held { 1 << HUGE } else { 0 };
        (self.own.bits.count_ones() + self.freed.bits.count_ones()) as u64 + huge
    }

    pub(crate) fn flush<A: Access>(&mut self, frames: &FrameAllocator<'m>) {
        // Without a tree nothing was ever held.
        let Some(tree) = frames.tree() else { return };
        for word in [&mut self.own, &mut self.freed] {
            give::<A>(tree, word);
            word.become_empty(NONE);
        }
        let huge = replace(&mut self.huge, Huge::EMPTY);
        if huge.held {
            let freed = tree.free::<A>(huge.base >> PAGE_SHIFT, HUGE);
            debug_assert!(freed.is_ok(), "frame {freed:?} of a cached block was freed elsewhere");
        }
    }
}

/// The address of the first frame of the word that a block of `order` lies in, and which bits it
/// is there.
#[inline]
fn place(pa: PhysAddr, order: u8) -> (u64, u64) {
    let bit = pa.number().as_u64() & (WORD_BITS - 1);
    (pa.align_down(WORD_SHIFT).as_u64(), run_mask(bit as u32, order))
}

/// Gives a word back to the tree.
#[inline]
fn give<A: Access>(tree: &Tree<'_>, word: &Word<'_>) {
    if word.bits != 0 {
        let twice = tree.give_word::<A>(word.base >> PAGE_SHIFT, word.bits);
        debug_assert!(twice == 0, "frames {twice:#x} from {:#x} on were freed twice", word.base);
    }
}
