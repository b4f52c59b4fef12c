//! [`Cache`]: what one CPU keeps at hand, so that most calls touch nothing shared.
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
//! bit operation. Frees go into `own` if they lie there, else into `freed`, which collects frees of
//! one word until one of another word comes. So a CPU that allocates and frees in batches does one
//! compare-and-swap for 64 frames. Orders above 5, except 9, go to the tree directly.
//!
//! A cache keeps at most 64 frames in `own`, 64 in `freed` and one block of 2 MiB; all of them go
//! back on [`flush`](Cache::flush), on drop, and before an allocation fails.
//!
//! # Invariants
//!
//! - The frames in `own`, `freed` and `huge` are on no level of the tree and in no other cache, as
//!   if they were allocated; no two of the three have a frame in common.
//! - A frame in a word's `known` is the allocator's to give.

use crate::access::{Access, Atomic};
use crate::allocator::{FrameAllocator, addr, alloc_from, locate};
use crate::bits::{WORD_BITS, WORD_ORDER, pick, run_mask};
use crate::error::FreeError;
use crate::tree::Tree;
use core::fmt;
use vellum_core::{OutOfFrames, PAGE_SHIFT, PhysAddr};

/// The order of the block that is kept at hand: 2 MiB.
const HUGE: u8 = 9;

/// No word has this number, and no block begins there.
const NONE: u64 = u64::MAX;

/// Free frames of one word of level 0.
#[derive(Clone, Copy, Debug)]
struct Word {
    /// The number of the word, counted from frame 0.
    number: u64,
    /// The frames at hand.
    bits: u64,
    /// The frames that are known to be the allocator's, not reserved.
    known: u64,
}

impl Word {
    const EMPTY: Self = Self { number: NONE, bits: 0, known: 0 };

    /// Takes the run of `order` at `bit`.
    #[inline]
    fn take(&mut self, bit: u32, order: u8) -> PhysAddr {
        self.bits &= !run_mask(bit, order);
        addr(self.number << WORD_ORDER | u64::from(bit))
    }

    /// A frame at hand that `mask` has, too.
    #[cold]
    fn twice(&self, mask: u64) -> FreeError {
        let bit = (self.bits & mask).trailing_zeros();
        FreeError::DoubleFree { pa: addr(self.number << WORD_ORDER | u64::from(bit)) }
    }
}

/// What a cache holds, without the allocator it belongs to; whoever keeps it passes the same one to
/// every call.
#[derive(Debug)]
pub(crate) struct Hand {
    own: Word,
    freed: Word,
    /// The first frame of a block of order [`HUGE`].
    huge: u64,
}

impl Hand {
    pub(crate) const EMPTY: Self = Self { own: Word::EMPTY, freed: Word::EMPTY, huge: NONE };

    #[inline]
    pub(crate) fn alloc<A: Access>(
        &mut self,
        frames: &FrameAllocator<'_>,
        order: u8,
    ) -> Result<PhysAddr, OutOfFrames> {
        if order == 0 && self.own.bits != 0 {
            return Ok(self.own.take(self.own.bits.trailing_zeros(), 0));
        }
        if order == HUGE && self.huge != NONE {
            let pfn = core::mem::replace(&mut self.huge, NONE);
            return Ok(addr(pfn));
        }
        self.alloc_slow::<A>(frames, order)
    }

    #[inline(never)]
    fn alloc_slow<A: Access>(
        &mut self,
        frames: &FrameAllocator<'_>,
        order: u8,
    ) -> Result<PhysAddr, OutOfFrames> {
        let Some(tree) = frames.tree() else { return Err(OutOfFrames { order }) };
        if order == 0 {
            if self.freed.bits != 0 {
                self.own = core::mem::replace(&mut self.freed, Word::EMPTY);
            } else if let Some((number, bits)) = tree.take_word::<A>() {
                self.own = Word { number, bits, known: bits };
            }
            if self.own.bits != 0 {
                return Ok(self.own.take(self.own.bits.trailing_zeros(), 0));
            }
        } else if order < WORD_ORDER {
            for word in [&mut self.own, &mut self.freed] {
                if let Some((bit, _)) = pick(word.bits, order) {
                    return Ok(word.take(bit, order));
                }
            }
        }
        let found = alloc_from::<A>(Some(tree), order);
        if found.is_ok() || self.is_empty() {
            return found;
        }
        // Perhaps what lies here is what it lacks.
        self.flush::<A>(frames);
        alloc_from::<A>(Some(tree), order)
    }

    #[inline]
    pub(crate) fn free<A: Access>(
        &mut self,
        frames: &FrameAllocator<'_>,
        pa: PhysAddr,
        order: u8,
    ) -> Result<(), FreeError> {
        if order < WORD_ORDER && pa.is_aligned(PAGE_SHIFT + order) {
            let (number, mask) = place(pa.number().as_u64(), order);
            let own = number == self.own.number;
            let word = if own { &mut self.own } else { &mut self.freed };
            if word.number == number && mask & !word.known == 0 {
                if word.bits & mask != 0 {
                    return Err(word.twice(mask));
                }
                word.bits |= mask;
                return Ok(());
            }
        }
        self.free_slow::<A>(frames, pa, order)
    }

    #[inline(never)]
    fn free_slow<A: Access>(
        &mut self,
        frames: &FrameAllocator<'_>,
        pa: PhysAddr,
        order: u8,
    ) -> Result<(), FreeError> {
        let (tree, pfn) =
            locate(frames.tree(), pa, order).map_err(|cause| cause.on_free(pa, order))?;
        let twice = |pfn| FreeError::DoubleFree { pa: addr(pfn) };
        if order < WORD_ORDER {
            if self.huge_has(pfn) {
                return Err(twice(pfn));
            }
            let (number, mask) = place(pfn, order);
            let word = if number == self.own.number { &mut self.own } else { &mut self.freed };
            if word.number == number && word.bits & mask != 0 {
                return Err(word.twice(mask));
            }
            if word.number != number && !A::SHARED {
                // Collecting saves compare-and-swaps; without them, it saves nothing.
                return tree.free::<A>(pfn, order).map_err(twice);
            }
            if let Some(free) = tree.free_frame::<A>(pfn, order) {
                return Err(twice(free));
            }
            if word.number == number {
                word.known |= mask;
                word.bits |= mask;
            } else {
                let new = Word { number, bits: mask, known: mask };
                give::<A>(tree, core::mem::replace(word, new));
            }
            return Ok(());
        }
        if let Some(free) = self.has(pfn, order) {
            return Err(twice(free));
        }
        if order == HUGE && self.huge == NONE {
            if let Some(free) = tree.free_frame::<A>(pfn, order) {
                return Err(twice(free));
            }
            self.huge = pfn;
            return Ok(());
        }
        tree.free::<A>(pfn, order).map_err(twice)
    }

    /// Whether the block of 2 MiB at hand has frame `pfn`.
    fn huge_has(&self, pfn: u64) -> bool {
        pfn >> HUGE << HUGE == self.huge
    }

    /// A frame at hand that is part of the block at `pfn`, whose order is above that of a word.
    fn has(&self, pfn: u64, order: u8) -> Option<u64> {
        let words = pfn >> WORD_ORDER..(pfn + (1 << order)) >> WORD_ORDER;
        let found = [&self.own, &self.freed]
            .into_iter()
            .find(|word| word.bits != 0 && words.contains(&word.number));
        if let Some(word) = found {
            return Some(word.number << WORD_ORDER | u64::from(word.bits.trailing_zeros()));
        }
        if order > HUGE {
            return (self.huge >> order << order == pfn).then_some(self.huge);
        }
        self.huge_has(pfn).then_some(pfn)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.own.bits == 0 && self.freed.bits == 0 && self.huge == NONE
    }

    /// How many frames are at hand.
    pub(crate) const fn count(&self) -> u64 {
        let huge = if self.huge == NONE { 0 } else { 1 << HUGE };
        (self.own.bits.count_ones() + self.freed.bits.count_ones()) as u64 + huge
    }

    pub(crate) fn flush<A: Access>(&mut self, frames: &FrameAllocator<'_>) {
        let held = core::mem::replace(self, Self::EMPTY);
        // Without a tree nothing was ever held.
        let Some(tree) = frames.tree() else { return };
        give::<A>(tree, held.own);
        give::<A>(tree, held.freed);
        if held.huge != NONE {
            let freed = tree.free::<A>(held.huge, HUGE);
            debug_assert!(freed.is_ok(), "frame {freed:?} of a cached block was freed elsewhere");
        }
    }
}

/// The number of the word that a block of `order` lies in, and which bits it is there.
#[inline]
fn place(pfn: u64, order: u8) -> (u64, u64) {
    (pfn >> WORD_ORDER, run_mask((pfn & (WORD_BITS - 1)) as u32, order))
}

/// Gives a word back to the tree.
fn give<A: Access>(tree: &Tree<'_>, word: Word) {
    if word.bits != 0 {
        let twice = tree.give_word::<A>(word.number, word.bits);
        debug_assert!(twice == 0, "frames {twice:#x} of word {} were freed elsewhere", word.number);
    }
}

/// What one CPU keeps at hand of a shared [`FrameAllocator`]: up to 128 frames and a block of 2
/// MiB. Most allocations of order 0 and 9, and most frees up to order 5 and of order 9, take no
/// locked instruction.
///
/// `&mut self` means that whoever holds it is alone: keep interrupts off, or let interrupt handlers
/// use the shared allocator directly, which is always allowed. A block may be freed through another
/// cache or the allocator itself.
///
/// ```
/// # use core::sync::atomic::AtomicU64;
/// # use vellum_frame::{Cache, FrameAllocator, storage_words};
/// # static STORAGE: [AtomicU64; storage_words(4096, 1)] =
/// #     [const { AtomicU64::new(0) }; storage_words(4096, 1)];
/// static FRAMES: FrameAllocator<'static> = FrameAllocator::new();
/// # // SAFETY: no memory is behind these frames, and `STORAGE` is used here alone.
/// # unsafe { FRAMES.init_in(&STORAGE, [(0, 4096 << 12)], [(0, 0); 0]) }.expect("4096 frames");
/// let mut cache = Cache::new(&FRAMES);
/// let pa = cache.alloc(0).expect("frames are free");
/// assert_eq!(cache.held(), 63); // the rest of a word came along
/// // SAFETY: allocated above, and nothing reaches it.
/// unsafe { cache.free(pa, 0) }.expect("it was allocated");
/// cache.flush();
/// assert_eq!(FRAMES.stats().free, 4096);
/// ```
pub struct Cache<'a, 'm> {
    frames: &'a FrameAllocator<'m>,
    hand: Hand,
}

impl<'a, 'm> Cache<'a, 'm> {
    /// An empty cache.
    #[must_use]
    pub const fn new(frames: &'a FrameAllocator<'m>) -> Self {
        Self { frames, hand: Hand::EMPTY }
    }

    /// As [`FrameAllocator::alloc`].
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if there is no block of that order here or in the allocator, also after what
    /// lay here was given back to it.
    #[inline]
    pub fn alloc(&mut self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        self.hand.alloc::<Atomic>(self.frames, order)
    }

    /// As [`FrameAllocator::free`].
    ///
    /// # Errors
    ///
    /// Every [`FreeError`]; nothing was changed then. A double free is seen if the frame is free in
    /// the allocator or lies here; not if it lies in another CPU's cache.
    ///
    /// # Safety
    ///
    /// As [`FrameAllocator::free`].
    #[inline]
    pub unsafe fn free(&mut self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        self.hand.free::<Atomic>(self.frames, pa, order)
    }

    /// Gives everything back to the allocator.
    pub fn flush(&mut self) {
        self.hand.flush::<Atomic>(self.frames);
    }

    /// How many free frames lie here.
    #[must_use]
    pub const fn held(&self) -> u64 {
        self.hand.count()
    }
}

impl Drop for Cache<'_, '_> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for Cache<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("hand", &self.hand).finish_non_exhaustive()
    }
}
