//! Many frames at once, and runs of any length.
//!
//! ```text
//!   alloc_bulk        [.........]     single frames, wherever they lie; words at a time
//!   alloc_contiguous  [#######··]     count = 7: a block of 8, its tail given back
//!                   or  [#######]     pieces of aligned blocks that lie side by side
//! ```

use crate::access::Atomic;
use crate::allocator::{FrameAllocator, MAX_ORDER, addr, alloc_from};
use crate::error::{AllocRunError, FreeError};
use crate::hand::Hand;
use crate::regions::Ownership;
use crate::stats::largest_at;
use crate::tree::Tree;
use vellum_core::PhysAddr;

impl FrameAllocator<'_> {
    /// Takes as many single frames as `frames` has room for, or as many as there are: how many. The
    /// rest of `frames` is left as it is.
    ///
    /// One compare-and-swap for up to 64 frames.
    pub fn alloc_bulk(&self, frames: &mut [PhysAddr]) -> usize {
        let mut hand = Hand::EMPTY;
        let mut count = 0;
        for slot in frames {
            let Ok(pa) = hand.alloc::<Atomic>(self, 0) else { break };
            *slot = pa;
            count += 1;
        }
        hand.flush::<Atomic>(self);
        count
    }

    /// Gives back single frames: one compare-and-swap for neighbours that follow one another and
    /// lie in one stretch of 64.
    ///
    /// # Errors
    ///
    /// The index of the first frame that cannot be freed, and why; those before it were freed, it
    /// and those after it were not.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), for each.
    pub unsafe fn free_bulk(&self, frames: &[PhysAddr]) -> Result<(), (usize, FreeError)> {
        let mut hand = Hand::EMPTY;
        let freed = frames.iter().enumerate().try_for_each(|(index, &pa)| {
            hand.free::<Atomic>(self, pa, 0).map_err(|error| (index, error))
        });
        hand.flush::<Atomic>(self);
        freed
    }

    /// Takes `count` frames that lie side by side, for any count: the first one's address. Up to
    /// 2<sup>18</sup> it is aligned to the next power of two where there is such a block; otherwise
    /// the frames may lie anywhere. What lies in CPUs' caches counts as taken: flush them first.
    ///
    /// Costs as much as [`alloc`](Self::alloc) of that order where there is a block, and O(frames /
    /// 64) where there is none.
    ///
    /// # Errors
    ///
    /// [`AllocRunError`]; nothing was taken. A run that is free throughout the call is found, with
    /// the same reserve about interrupted CPUs as [`alloc`](Self::alloc).
    pub fn alloc_contiguous(&self, count: u64) -> Result<PhysAddr, AllocRunError> {
        if count == 0 {
            return Err(AllocRunError::Empty);
        }
        let Some(tree) = self.tree().filter(|tree| count <= tree.regions.total()) else {
            return Err(AllocRunError::NoRun { count });
        };
        let order = count.next_power_of_two().ilog2() as u8;
        if order <= MAX_ORDER {
            if let Ok(pa) = alloc_from::<Atomic>(Some(tree), order) {
                let first = pa.number().as_u64();
                give_pieces(tree, first + count, (1 << order) - count);
                return Ok(pa);
            }
        }
        let long_enough = || self.free_runs().find(|&(_, length)| length >= count);
        while let Some((start, _)) = tree.moves.settled(long_enough) {
            if take_pieces(tree, start.number().as_u64(), count) {
                return Ok(start);
            }
            // Somebody took a part of it first, and so got on; there may be another.
        }
        Err(AllocRunError::NoRun { count })
    }

    /// Gives back `count` frames that lie side by side, however they were taken.
    ///
    /// # Errors
    ///
    /// [`FreeError::Misaligned`], [`OutOfRange`](FreeError::OutOfRange),
    /// [`Reserved`](FreeError::Reserved) or [`DoubleFree`](FreeError::DoubleFree); nothing was
    /// freed then, unless the double free happens at this very moment. No frames are always freed.
    ///
    /// # Safety
    ///
    /// As [`free`](Self::free), for all of them.
    pub unsafe fn free_contiguous(&self, pa: PhysAddr, count: u64) -> Result<(), FreeError> {
        if count == 0 {
            return Ok(());
        }
        if !pa.is_aligned(vellum_core::PAGE_SHIFT) {
            return Err(FreeError::Misaligned { pa, order: 0 });
        }
        let outside = FreeError::OutOfRange { pa, order: 0 };
        let tree = self.tree().filter(|tree| count <= tree.regions.total()).ok_or(outside)?;
        let first = pa.number().as_u64();
        match tree.regions.ownership(first, count) {
            Ownership::Ours => {}
            Ownership::Reserved(pfn) => return Err(FreeError::Reserved { pa: addr(pfn) }),
            Ownership::OutOfRange => return Err(outside),
        }
        let twice = |pfn| FreeError::DoubleFree { pa: addr(pfn) };
        let free = pieces(first, count).find_map(|(pfn, o)| tree.free_frame::<Atomic>(pfn, o));
        match free {
            Some(pfn) => Err(twice(pfn)),
            None => pieces(first, count)
                .try_for_each(|(pfn, order)| tree.free::<Atomic>(pfn, order).map_err(twice)),
        }
    }
}

/// The aligned blocks that `count` frames from `first` on are made of: first frame and order.
fn pieces(mut first: u64, mut count: u64) -> impl Iterator<Item = (u64, u8)> {
    core::iter::from_fn(move || {
        let order = (count > 0).then(|| largest_at(first, count))?;
        let piece = (first, order);
        first += 1 << order;
        count -= 1 << order;
        Some(piece)
    })
}

/// Gives back frames that this call took.
fn give_pieces(tree: &Tree<'_>, first: u64, count: u64) {
    for (pfn, order) in pieces(first, count) {
        let freed = tree.free::<Atomic>(pfn, order);
        debug_assert!(freed.is_ok(), "frame {freed:?} was freed by somebody else");
    }
}

/// Takes all of `count` frames from `first` on, or none; they lie in one region.
fn take_pieces(tree: &Tree<'_>, first: u64, count: u64) -> bool {
    let missing = pieces(first, count).find(|&(pfn, order)| !tree.alloc_at::<Atomic>(pfn, order));
    match missing {
        Some((pfn, _)) => {
            give_pieces(tree, first, pfn - first);
            false
        }
        None => true,
    }
}
