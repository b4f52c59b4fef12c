//! [`FrameAllocator`]: the tree behind a `static`, in addresses instead of numbers.
//!
//! ```text
//!                 init / init_in
//!   EMPTY ----------> BUSY ----------> READY        alloc, alloc_at, free, stats, free_runs
//!     ^                |
//!     +---- error -----+
//! ```
//!
//! Before READY nothing can be had and nothing given back: `alloc` says [`OutOfFrames`], and every
//! address is out of range.
//!
//! # Invariants
//!
//! - The cell is written only in BUSY, by the one caller who made it so from EMPTY, and only read
//!   in READY, which is never left.

use crate::access::{Access, Atomic};
use crate::error::{AllocAtError, FreeError, InitError, NotOurs};
use crate::init::{build, carve};
use crate::range::PhysRange;
use crate::regions::Ownership;
use crate::runs::FreeRuns;
use crate::shape::Shape;
use crate::sync::AtomicU64;
use crate::tree::{One, Tree};
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU8,
    Ordering::{Acquire, Relaxed, Release},
};
use vellum_core::{FrameSource, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr};

/// The largest order: a block of 2<sup>18</sup> frames, 1 GiB.
pub const MAX_ORDER: u8 = 18;

const EMPTY: u8 = 0;
const BUSY: u8 = 1;
const READY: u8 = 2;

/// Deals out physical frames in aligned blocks of 2<sup>0</sup> to 2<sup>18</sup>, through `&self`,
/// from any number of CPUs and interrupt handlers.
///
/// `'m` is how long its metadata lives: `'static` in a kernel.
pub struct FrameAllocator<'m> {
    state: AtomicU8,
    tree: UnsafeCell<MaybeUninit<Tree<'m>>>,
}

// SAFETY: `tree` is written through `&self` only between BUSY and READY, by the one thread whose
// compare-and-swap made the state BUSY, and is shared only after the release store of READY was
// seen by an acquire load. A shared `Tree` is `Sync` by itself: atomics and plain numbers.
unsafe impl Sync for FrameAllocator<'_> {}

impl<'m> FrameAllocator<'m> {
    /// An allocator without memory, for a `static`.
    #[must_use]
    pub const fn new() -> Self {
        Self { state: AtomicU8::new(EMPTY), tree: UnsafeCell::new(MaybeUninit::uninit()) }
    }

    /// How many words of storage [`init_in`](Self::init_in) takes for this map; 0 without a whole
    /// usable frame.
    #[must_use]
    pub fn words_needed<U, R>(usable: U, reserved: R) -> u64
    where
        U: IntoIterator<Item: Into<PhysRange>>,
        R: IntoIterator<Item: Into<PhysRange>>,
    {
        Shape::survey(usable, reserved).map_or(0, |shape| shape.words())
    }

    /// Takes over the frames of a memory map, with the metadata in `storage`.
    ///
    /// The ranges may be any number, in any order, overlapping or touching. A frame is dealt out if
    /// all of its bytes are in `usable` (after each range was rounded inward to whole frames) and
    /// none is in `reserved`. The iterators are gone through several times.
    ///
    /// No memory but `storage` is touched. Costs O(frames / 64 + ranges), where frames in several
    /// ranges count as often. An error leaves the
    /// allocator empty, and `storage` to the caller.
    ///
    /// ```compile_fail,E0133
    /// # use core::sync::atomic::AtomicU64;
    /// static STORAGE: [AtomicU64; 256] = [const { AtomicU64::new(0) }; 256];
    /// let frames = vellum_frame::FrameAllocator::new();
    /// // Not without `unsafe`: a store to `STORAGE` later on would hand out a frame twice.
    /// frames.init_in(&STORAGE, [(0, 0x9000)], [(0, 0x1000)]);
    /// ```
    ///
    /// # Errors
    ///
    /// Every [`InitError`]; `NoRoom` if `storage` is shorter than
    /// [`words_needed`](Self::words_needed).
    ///
    /// # Safety
    ///
    /// - What lies in `usable` and not in `reserved` is memory that nobody else uses or deals out.
    ///   (If `storage` lies in that memory, it is reserved.)
    /// - Nobody else writes to `storage` as long as this allocator lives.
    pub unsafe fn init_in<U, R>(
        &self,
        storage: &'m [AtomicU64],
        usable: U,
        reserved: R,
    ) -> Result<(), InitError>
    where
        U: IntoIterator<Item: Into<PhysRange>> + Clone,
        R: IntoIterator<Item: Into<PhysRange>> + Clone,
    {
        self.set_up(|| {
            let shape = Shape::survey(usable.clone(), reserved.clone());
            let shape = shape.ok_or(InitError::NoFrames)?;
            let words = shape.words();
            let storage = usize::try_from(words).ok().and_then(|len| storage.get(..len));
            let storage = storage.ok_or(InitError::NoRoom { words })?;
            for word in storage {
                word.store(0, Relaxed);
            }
            build(storage, shape, usable, reserved, (0, 0))
        })
    }

    /// Takes over the frames of a memory map, and puts the metadata into the map itself: where
    /// there is room for it between the reservations and `reach` can reach. Those frames count as
    /// reserved.
    ///
    /// `reach(pa, len)` turns `len` bytes at `pa` into a pointer, or says `None` where the caller's
    /// direct map does not reach. The usable ranges are tried in the order given, and each of them
    /// at the first frame with room, then further on in steps of the metadata's own size: so a
    /// stretch twice as large as the metadata that is usable, not reserved, and within reach is
    /// always found, a smaller one perhaps. The ranges are read as by [`init_in`](Self::init_in).
    /// Metadata takes 1.04 bits for each frame from the first usable frame to the last, holes
    /// included.
    ///
    /// Costs as much as [`init_in`](Self::init_in), and for each place tried O(ranges), or
    /// O(ranges) for each of the touching ranges that make up the place: nothing is sorted, since
    /// there is no memory yet to sort it in. One place is usually enough. A map of thousands of
    /// touching ranges, none with room by itself, costs up to O(ranges<sup>3</sup>).
    ///
    /// # Errors
    ///
    /// Every [`InitError`].
    ///
    /// # Safety
    ///
    /// - What lies in `usable` and not in `reserved` is memory that nobody else uses or deals out.
    /// - A pointer that `reach(pa, len)` returns is valid for reads and writes of `len` bytes for
    ///   `'m`, and nobody else reaches these bytes in that time.
    pub unsafe fn init<U, R>(
        &self,
        usable: U,
        reserved: R,
        mut reach: impl FnMut(PhysAddr, u64) -> Option<NonNull<u8>>,
    ) -> Result<(), InitError>
    where
        U: IntoIterator<Item: Into<PhysRange>> + Clone,
        R: IntoIterator<Item: Into<PhysRange>> + Clone,
    {
        self.set_up(|| {
            let shape = Shape::survey(usable.clone(), reserved.clone());
            let shape = shape.ok_or(InitError::NoFrames)?;
            let words = shape.words();
            let bytes = words.saturating_mul(size_of::<AtomicU64>() as u64);
            let frames = bytes.div_ceil(PAGE_SIZE);
            let (at, pointer) = carve(&usable, &reserved, frames, |pfn| {
                let pointer = reach(addr(pfn), bytes)?.cast::<AtomicU64>();
                pointer.is_aligned().then_some(pointer)
            })
            .ok_or(InitError::NoRoom { words })?;
            let len = usize::try_from(words).map_err(|_| InitError::NoRoom { words })?;
            // SAFETY: `reach` returned the pointer for `words` words, and its contract is that they
            // can be read and written for 'm by nobody else; it was just seen to be aligned. They
            // are initialised here, before the slice is made.
            let storage: &'m [AtomicU64] = unsafe {
                pointer.write_bytes(0, len);
                NonNull::slice_from_raw_parts(pointer, len).as_ref()
            };
            build(storage, shape, usable, reserved, (at, at + frames))
        })
    }

    /// Goes from EMPTY to READY with what `make` returns, or back to EMPTY with its error.
    fn set_up(&self, make: impl FnOnce() -> Result<Tree<'m>, InitError>) -> Result<(), InitError> {
        /// Puts the state where it belongs, even if an iterator of the caller's panics.
        struct Ending<'a>(&'a AtomicU8, u8);
        impl Drop for Ending<'_> {
            fn drop(&mut self) {
                self.0.store(self.1, Release);
            }
        }
        if self.state.compare_exchange(EMPTY, BUSY, Acquire, Relaxed).is_err() {
            return Err(InitError::AlreadyInitialised);
        }
        let mut ending = Ending(&self.state, EMPTY);
        let tree = make()?;
        // SAFETY: this thread made the state BUSY, so no other is here, and none reads the cell
        // before it sees READY, which `ending` stores after this.
        unsafe { (*self.tree.get()).write(tree) };
        ending.1 = READY;
        Ok(())
    }

    #[inline]
    pub(crate) fn tree(&self) -> Option<&Tree<'m>> {
        if self.state.load(Acquire) != READY {
            return None;
        }
        // SAFETY: READY was stored after the tree was written, and there is no write after it.
        Some(unsafe { (*self.tree.get()).assume_init_ref() })
    }

    /// Takes a block of 2<sup>`order`</sup> frames, aligned to its own size; what its bytes hold is
    /// left from earlier.
    ///
    /// Usually a few loads and one compare-and-swap. Reads all metadata before it fails, and again
    /// if other CPUs split or merge blocks meanwhile, up to 64 times.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if no block of that order is free, or if `order` is above [`MAX_ORDER`].
    /// Blocks that other CPUs take or free meanwhile may or may not count. A block that is free
    /// throughout the call is found, unless it is just being split or put together each time it is
    /// looked for, or by a CPU that stays interrupted in the middle of that for as long as this
    /// call waits for it (4096 looks in a row that see no CPU get on with a split or merge).
    #[inline]
    pub fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        alloc_from::<Atomic>(self.tree(), order)
    }

    /// Takes a block of 2<sup>`order`</sup> frames whose every byte lies below `limit`: for devices
    /// that reach no further.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if there is no such block, with the same reserve as [`alloc`](Self::alloc).
    /// Reads the metadata of all memory below `limit` first.
    pub fn alloc_below(&self, order: u8, limit: PhysAddr) -> Result<PhysAddr, OutOfFrames> {
        let found = match self.tree() {
            Some(tree) if order <= MAX_ORDER => {
                let last = limit.number().as_u64().checked_sub(1 << order);
                last.and_then(|last| tree.alloc_up_to::<Atomic>(order, last))
            }
            _ => None,
        };
        found.map(addr).ok_or(OutOfFrames { order })
    }

    /// Takes the block of 2<sup>`order`</sup> frames at `pa`.
    ///
    /// # Errors
    ///
    /// Every [`AllocAtError`]; `Taken` with the same reserve about interrupted CPUs as
    /// [`alloc`](Self::alloc).
    pub fn alloc_at(&self, pa: PhysAddr, order: u8) -> Result<(), AllocAtError> {
        let (tree, pfn) =
            locate(self.tree(), pa, order).map_err(|cause| cause.on_alloc_at(pa, order))?;
        if tree.alloc_at::<Atomic>(pfn, order) {
            Ok(())
        } else {
            Err(AllocAtError::Taken { pa, order })
        }
    }

    /// Gives a block back, or says why it cannot be this allocator's to take.
    ///
    /// A block may be given back in parts, and neighbouring blocks together as the larger block
    /// that they make up.
    ///
    /// # Errors
    ///
    /// Every [`FreeError`]; nothing was changed then. A double free is seen, unless at the very
    /// moment another CPU splits or merges the same frames, or frees them as part of a block of
    /// another level of the tree (orders 0 to 5, 6 to 11, 12 to 17, 18).
    ///
    /// # Safety
    ///
    /// All frames of the block are allocated and the caller's, and nothing reaches their bytes any
    /// more: no table, no TLB, no device. (That a block belongs to somebody else is what one bit a
    /// frame cannot tell; what lies in a CPU's cache belongs to that cache.)
    ///
    /// A block with frames that are free may be named, to be refused, as long as no other call on
    /// this allocator is under way: another CPU's, or one that this interrupt handler interrupted.
    #[inline]
    pub unsafe fn free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        free_to::<Atomic>(self.tree(), pa, order)
    }

    /// Whether the frame of `pa` is this allocator's to give, free or not.
    #[must_use]
    pub fn owns(&self, pa: PhysAddr) -> bool {
        self.tree().is_some_and(|tree| tree.regions.are_ours(pa.number().as_u64(), 1))
    }

    /// The free memory as runs, ascending: first address and count of frames. Two runs never touch
    /// unless others allocate and free meanwhile.
    #[must_use]
    pub fn free_runs(&self) -> FreeRuns<'_> {
        FreeRuns::new(self.tree())
    }
}

/// The address of frame `pfn`.
#[inline]
pub(crate) const fn addr(pfn: u64) -> PhysAddr {
    PhysAddr::new(pfn << PAGE_SHIFT)
}

/// A block of `order`, out of a tree that may not be there yet.
#[inline]
pub(crate) fn alloc_from<A: Access>(
    tree: Option<&Tree<'_>>,
    order: u8,
) -> Result<PhysAddr, OutOfFrames> {
    let found = match tree {
        Some(tree) if order <= MAX_ORDER => tree.alloc::<A>(order),
        _ => None,
    };
    found.map(addr).ok_or(OutOfFrames { order })
}

/// Gives a block back to a tree.
#[inline]
pub(crate) fn free_to<A: Access>(
    tree: Option<&Tree<'_>>,
    pa: PhysAddr,
    order: u8,
) -> Result<(), FreeError> {
    if order == 0 && pa.is_aligned(PAGE_SHIFT) {
        if let Some(tree) = tree {
            match tree.free_one::<A>(pa.number().as_u64()) {
                One::Freed => return Ok(()),
                One::Unnoted(index) => return noted::<A>(tree, index),
                One::Refused => {}
            }
        }
    }
    free_checked::<A>(tree, pa, order)
}

/// Ends a free by telling the hints.
#[inline(never)]
pub(crate) fn noted<A: Access>(tree: &Tree<'_>, index: usize) -> Result<(), FreeError> {
    tree.levels[0].note_one::<A>(index);
    Ok(())
}

#[inline(never)]
fn free_checked<A: Access>(
    tree: Option<&Tree<'_>>,
    pa: PhysAddr,
    order: u8,
) -> Result<(), FreeError> {
    let (tree, pfn) = locate(tree, pa, order).map_err(|cause| cause.on_free(pa, order))?;
    tree.free::<A>(pfn, order).map_err(|pfn| FreeError::DoubleFree { pa: addr(pfn) })
}

/// The first frame of a block that is the tree's throughout.
#[inline]
pub(crate) fn locate<'t, 'm>(
    tree: Option<&'t Tree<'m>>,
    pa: PhysAddr,
    order: u8,
) -> Result<(&'t Tree<'m>, u64), NotOurs> {
    let pfn = pa.number().as_u64();
    if let Some(tree) = tree {
        if order <= MAX_ORDER
            && pa.is_aligned(PAGE_SHIFT + order)
            && tree.regions.are_ours(pfn, 1 << order)
        {
            return Ok((tree, pfn));
        }
    }
    Err(not_ours(tree, pa, order))
}

/// Why a block is not the tree's.
#[cold]
fn not_ours(tree: Option<&Tree<'_>>, pa: PhysAddr, order: u8) -> NotOurs {
    if order > MAX_ORDER {
        return NotOurs::Order;
    }
    if !pa.is_aligned(PAGE_SHIFT + order) {
        return NotOurs::Misaligned;
    }
    match tree.map(|tree| tree.regions.ownership(pa.number().as_u64(), 1 << order)) {
        Some(Ownership::Reserved(pfn)) => NotOurs::Reserved(addr(pfn)),
        _ => NotOurs::OutOfRange,
    }
}

impl Default for FrameAllocator<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FrameAllocator<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameAllocator").field("stats", &self.stats()).finish()
    }
}

/// An allocator equals itself alone, so that a handle which stores `&FrameAllocator` can derive
/// what [`vellum_core::Memory`] asks for.
impl PartialEq for FrameAllocator<'_> {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl Eq for FrameAllocator<'_> {}

// SAFETY: the tree takes a block by clearing all its bits in one compare-and-swap on one word, and
// a free frame has its bit on exactly one level (the invariants of `tree`), so two blocks handed
// out and not freed share no frame. Nobody else changes the words, and nobody else uses the frames
// or deals them out: `init` and `init_in`, without which there are none, demand it of their caller;
// the tree itself touches its metadata only, which is reserved. Runs are aligned within words, and
// words to their span: a block is aligned to its own size.
unsafe impl FrameSource for FrameAllocator<'_> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        self.alloc(order)
    }

    /// # Panics
    ///
    /// In debug builds, when the block cannot have come from `alloc`; in release builds such a call
    /// changes nothing.
    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the contract of the trait is that of the checked function.
        let freed = unsafe { self.free(pa, order) };
        debug_assert!(freed.is_ok(), "free of {pa}, order {order}: {freed:?}");
    }
}
