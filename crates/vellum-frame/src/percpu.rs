//! [`Shared`]: the caches of all CPUs, and [`Local`]: one CPU's way to its own.
//!
//! ```text
//!             slot 0            slot 1           slot N - 1
//!          +------------+   +------------+     +------------+
//!   CPU 0 -| busy cache |   | busy cache |-CPU 1 ...         |    each on cache lines of its own
//!          +------------+   +------------+     +------------+
//!                 |  busy: an interrupt handler on top of an operation of its own CPU
//!                 v
//!          the shared FrameAllocator
//! ```
//!
//! A slot belongs to one CPU, so its `busy` flag is no lock between CPUs but only tells an interrupt
//! handler, which runs to its end before the interrupted code goes on, that the cache is in the
//! middle of something. The handler then uses the shared allocator. So interrupts may stay on, and
//! the flag costs a plain store before and one after. It is no lock between threads of one CPU
//! either, which take turns in the middle of anything: so preemption is off.
//!
//! # Invariants
//!
//! - A slot's cache is touched only by the CPU of that index, and only by who found `busy` unset
//!   and set it; calls on one CPU are nested, never interleaved.

use crate::access::Atomic;
use crate::allocator::{FrameAllocator, alloc_from, free_to};
use crate::error::FreeError;
use crate::hand::Hand;
use core::cell::UnsafeCell;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering, Ordering::Relaxed, compiler_fence};
use vellum_core::{FrameSource, OutOfFrames, PhysAddr};

/// A [`FrameAllocator`] with a [`Cache`](crate::Cache) for each of `N` CPUs.
///
/// ```
/// # use core::sync::atomic::AtomicU64;
/// # use vellum_frame::{FrameAllocator, Shared, storage_words};
/// # static STORAGE: [AtomicU64; storage_words(4096, 1)] =
/// #     [const { AtomicU64::new(0) }; storage_words(4096, 1)];
/// static FRAMES: FrameAllocator<'static> = FrameAllocator::new();
/// static CPUS: Shared<'static, 'static, 8> = Shared::new(&FRAMES);
/// # // SAFETY: no memory is behind these frames, and `STORAGE` is used here alone.
/// # unsafe { FRAMES.init_in(&STORAGE, [(0, 4096 << 12)], [(0, 0); 0]) }.expect("4096 frames");
/// // SAFETY: this is CPU 3, and no other thread gets it before `local` is done with.
/// let local = unsafe { CPUS.on(3) };
/// let pa = local.alloc(0).expect("frames are free");
/// // SAFETY: allocated above, and nothing reaches it.
/// unsafe { local.free(pa, 0) }.expect("it was allocated");
/// local.flush();
/// assert_eq!(FRAMES.stats().free, 4096);
/// ```
pub struct Shared<'a, 'm, const N: usize> {
    frames: &'a FrameAllocator<'m>,
    slots: [Slot<'m>; N],
}

/// 128 bytes, since CPUs fetch cache lines in pairs.
#[repr(align(128))]
struct Slot<'m> {
    busy: AtomicBool,
    hand: UnsafeCell<Hand<'m>>,
}

// SAFETY: the cache in a slot is reached through a `Local` of that CPU alone, and by nested calls
// only (the contract of `Shared::on`), of which all but one find `busy` set. A `Hand` is plain
// numbers and shared references to atomics.
unsafe impl Sync for Slot<'_> {}

impl<'m> Slot<'m> {
    const fn new() -> Self {
        Self { busy: AtomicBool::new(false), hand: UnsafeCell::new(Hand::EMPTY) }
    }

    /// Calls `f` with the cache, unless this CPU is in the middle of another call.
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Hand<'m>) -> R) -> Option<R> {
        if self.busy.load(Relaxed) {
            return None;
        }
        self.busy.store(true, Relaxed);
        // What a handler on this CPU sees is in program order; the compiler is told so here.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: by the contract of `Shared::on`, another call that meets this one began on the
        // same CPU, and either ended before this one went on, so that `busy` was unset again when
        // it was looked at, or found it set here, and went away until it is unset below. `f` does
        // not call back: it is one of the methods below.
        let result = f(unsafe { &mut *self.hand.get() });
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Relaxed);
        Some(result)
    }
}

impl<'a, 'm, const N: usize> Shared<'a, 'm, N> {
    /// Empty caches over `frames`.
    #[must_use]
    pub const fn new(frames: &'a FrameAllocator<'m>) -> Self {
        Self { frames, slots: [const { Slot::new() }; N] }
    }

    /// The allocator beneath.
    #[must_use]
    pub const fn frames(&self) -> &'a FrameAllocator<'m> {
        self.frames
    }

    /// The way of CPU `cpu`. One whose number is `N` or more has no cache, and goes to the shared
    /// allocator directly.
    ///
    /// # Safety
    ///
    /// While a call through the result is under way, whoever else makes a call through a `Local` of
    /// the same number does so on the same CPU, and to its end before the first call goes on.
    ///
    /// Interrupt handlers on that CPU do. Threads do not, even those pinned to it: so preemption is
    /// off during each call, or only one thread of that CPU ever uses its `Local`. What belongs to a
    /// CPU that is offline may be used by one other.
    #[inline]
    #[must_use]
    pub unsafe fn on(&self, cpu: usize) -> Local<'_, 'm> {
        Local { frames: self.frames, slot: self.slots.get(cpu), _here: PhantomData }
    }

    /// Gives back what lies in all the caches. (In a `static`, where there is no `&mut`, each CPU
    /// calls [`Local::flush`].)
    pub fn flush(&mut self) {
        for slot in &mut self.slots {
            slot.hand.get_mut().flush::<Atomic>(self.frames);
        }
    }
}

impl<const N: usize> Drop for Shared<'_, '_, N> {
    fn drop(&mut self) {
        self.flush();
    }
}

impl<const N: usize> fmt::Debug for Shared<'_, '_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("cpus", &N).field("frames", self.frames).finish()
    }
}

/// One CPU's allocator: its cache, and behind it the shared tree. Made by [`Shared::on`].
///
/// Stays on its CPU:
///
/// ```compile_fail,E0277
/// fn sent<T: Send>() {}
/// sent::<vellum_frame::Local<'_, '_>>();
/// ```
#[derive(Clone, Copy)]
pub struct Local<'a, 'm> {
    frames: &'a FrameAllocator<'m>,
    slot: Option<&'a Slot<'m>>,
    /// Neither `Send` nor `Sync`.
    _here: PhantomData<*const ()>,
}

impl<'m> Local<'_, 'm> {
    #[inline]
    fn with<R>(&self, f: impl FnOnce(&mut Hand<'m>) -> R) -> Option<R> {
        self.slot?.with(f)
    }

    /// As [`FrameAllocator::alloc`].
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] if there is no block of that order in this CPU's cache or in the allocator;
    /// other CPUs' caches may hold up to 128 frames and a block of 2 MiB each, and so may this
    /// CPU's when this is an interrupt handler on top of one of its operations.
    #[inline]
    pub fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let frames = self.frames;
        match self.with(|hand| hand.alloc::<Atomic>(frames, order)) {
            Some(found) => found,
            None => alloc_from::<Atomic>(frames.tree(), order),
        }
    }

    /// As [`FrameAllocator::free`].
    ///
    /// # Errors
    ///
    /// Every [`FreeError`]; nothing was changed then. A double free is seen if the frame is free in
    /// the allocator or in this CPU's cache; not if it lies in another one's.
    ///
    /// # Safety
    ///
    /// As [`FrameAllocator::free`].
    #[inline]
    pub unsafe fn free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        let frames = self.frames;
        match self.with(|hand| hand.free::<Atomic>(frames, pa, order)) {
            Some(freed) => freed,
            None => free_to::<Atomic>(frames.tree(), pa, order),
        }
    }

    /// Gives back what lies in this CPU's cache, unless this is an interrupt handler on top of one
    /// of its operations.
    pub fn flush(&self) {
        let frames = self.frames;
        self.with(|hand| hand.flush::<Atomic>(frames));
    }

    /// How many free frames lie in this CPU's cache; 0 on top of one of its operations.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.with(|hand| hand.count()).unwrap_or(0)
    }

    /// Whether the frame of `pa` is the allocator's to give, free or not.
    #[must_use]
    pub fn owns(&self, pa: PhysAddr) -> bool {
        self.frames.owns(pa)
    }
}

impl fmt::Debug for Local<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("held", &self.held()).finish_non_exhaustive()
    }
}

// SAFETY: blocks come from the tree of one `FrameAllocator`, whose implementation says why they are
// aligned and disjoint, or from this CPU's cache, which took them from there, owns them as if they
// were allocated, and hands out each but once.
unsafe impl FrameSource for Local<'_, '_> {
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
