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
//! bit operation. Frees go into `own` if they lie there; else the first of a word goes to the tree,
//! and those of the same word that follow are collected in `freed`, until another word comes. So a
//! CPU that allocates and frees in batches does one
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
use crate::allocator::{FrameAllocator, addr, alloc_from, locate, noted};
use crate::bits::{WORD_BITS, WORD_ORDER, pick, run_mask};
use crate::error::FreeError;
use crate::sync::AtomicU64;
use crate::tree::{One, Tree};
use core::fmt;
use core::mem::replace;
use vellum_core::{OutOfFrames, PAGE_SHIFT, PhysAddr};

/// The order of the block that is kept at hand: 2 MiB.
const HUGE: u8 = 9;

/// The words of level 0 below such a block.
const HUGE_WORDS: usize = 1 << (HUGE - WORD_ORDER);

/// No word and no block begins there.
const NONE: u64 = u64::MAX;

/// log2 of the bytes of the frames of a word.
const WORD_SHIFT: u8 = PAGE_SHIFT + WORD_ORDER;

/// Free frames of one word of level 0.
#[derive(Debug)]
struct Word<'m> {
    /// The address of its first frame.
    base: u64,
    /// The frames at hand.
    bits: u64,
    /// The frames that are reserved, or not known not to be.
    barred: u64,
    /// The word itself, with the frames that are free in the tree.
    cell: Option<&'m AtomicU64>,
}

impl<'m> Word<'m> {
    const EMPTY: Self = Self { base: NONE, bits: 0, barred: u64::MAX, cell: None };

    /// Becomes the frames `bits` of the word at `base`, where the tree has frames.
    // Field by field: a whole `Word` would go through the stack, and be read back in larger pieces
    // than it was written in, which waits for the stores.
    #[inline]
    fn become_word(&mut self, tree: &Tree<'m>, base: u64, bits: u64) {
        let first = base >> PAGE_SHIFT;
        self.base = base;
        self.bits = bits;
        self.barred = !tree.regions.mask(first);
        self.cell = Some(tree.cell(first));
    }

    /// Becomes the word at `base` without a frame, and without knowledge of any.
    #[inline]
    fn become_empty(&mut self, base: u64) {
        self.base = base;
        self.bits = 0;
        self.barred = u64::MAX;
    }

    /// Takes the lowest frame; there is one.
    #[inline]
    fn take_one(&mut self) -> PhysAddr {
        let bit = u64::from(self.bits.trailing_zeros());
        self.bits &= self.bits - 1;
        PhysAddr::new(self.base | bit << PAGE_SHIFT)
    }

    /// Takes a run of `order`.
    fn take(&mut self, order: u8) -> Option<PhysAddr> {
        let (bit, _) = pick(self.bits, order)?;
        self.bits &= !run_mask(bit, order);
        Some(PhysAddr::new(self.base | u64::from(bit) << PAGE_SHIFT))
    }

    /// Adds the frames `mask`, if they are the allocator's and not free.
    #[inline]
    fn give<A: Access>(&mut self, mask: u64) -> bool {
        let free = self.cell.map_or(0, A::load);
        let admitted = mask & (self.barred | self.bits | free) == 0;
        if admitted {
            self.bits |= mask;
        }
        admitted
    }

    /// The address of the lowest of the frames `mask` that is at hand.
    fn lowest_of(&self, mask: u64) -> Option<PhysAddr> {
        let bits = self.bits & mask;
        let bit = u64::from(bits.trailing_zeros());
        (bits != 0).then(|| PhysAddr::new(self.base | bit << PAGE_SHIFT))
    }
}

/// A block of order [`HUGE`].
#[derive(Debug)]
struct Huge<'m> {
    /// Its address; still known after it was handed out.
    base: u64,
    /// Whether it is at hand.
    held: bool,
    /// The words of level 0 below it, and the one on level 1 that has it.
    cells: Option<(&'m [AtomicU64; HUGE_WORDS], &'m AtomicU64)>,
}

impl Huge<'_> {
    const EMPTY: Self = Self { base: NONE, held: false, cells: None };

    /// Takes the block back, if it is this one and nothing says that it is free; looking no higher
    /// than the word of level 1, which is decisive unless it is zero.
    #[inline]
    fn give<A: Access>(&mut self, pa: PhysAddr) -> bool {
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
struct Recent {
    first_frames: [u64; RECENT],
    next: usize,
    len: usize,
}

impl Recent {
    const EMPTY: Self = Self { first_frames: [0; RECENT], next: 0, len: 0 };

    #[inline]
    fn push(&mut self, pfn: u64) {
        self.first_frames[self.next % RECENT] = pfn;
        self.next = self.next.wrapping_add(1);
        self.len = RECENT.min(self.len + 1);
    }

    #[inline]
    fn pop(&mut self) -> Option<u64> {
        self.len = self.len.checked_sub(1)?;
        self.next = self.next.wrapping_sub(1);
        Some(self.first_frames[self.next % RECENT])
    }
}

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
            }
        }
        let found = alloc_from::<A>(Some(tree), order);
        if found.is_ok() || self.count() == 0 {
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
            if base == self.own.base {
                if self.own.give::<A>(mask) {
                    return Ok(());
                }
            } else if A::SHARED && order == 0 {
                // Collecting saves compare-and-swaps; without them, it would save nothing.
                if base == self.freed.base {
                    self.freed.become_word(tree, base, self.freed.bits);
                    if self.freed.give::<A>(mask) {
                        return Ok(());
                    }
                } else {
                    give::<A>(tree, &self.freed);
                    self.freed.become_empty(base);
                }
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
        at == self.own.base >> shift || at == self.freed.base >> shift || self.huge.held
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
    hand: Hand<'m>,
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
