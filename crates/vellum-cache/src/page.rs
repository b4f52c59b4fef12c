//! What is known of each frame that holds a page, and a page that somebody owns.
//!
//! ```text
//!   PageInfo, 40 bytes a frame
//!  +--------+--------+--------------+---------+----------------+-------------+---------+
//!  | count  | maps   | state        | sharers | link           | owner       | index   |
//!  | owners | leaves | READY DIRTY  | of a    | next in its    | file, or    | page in |
//!  |        |        | CACHED ANON  | table   | chain, or left | family      | either  |
//!  +--------+--------+--------------+---------+----------------+-------------+---------+
//!     ^          ^
//!     |          `- what a reverse map and PSS count: leaves only
//!     `- leaves, the cache, and whoever works with the page now: at 0 the frame is free
//! ```
//!
//! An anonymous page belongs to a *family* (all spaces that stem from one by forks, and the region
//! it was first touched in) and has an index there, which does not change when it moves; a file's
//! page has its file and index. That is what a reverse map starts from.
//!
//! A block of several frames (for a large leaf) has a record for each, as if they were single; the
//! first one's link says how many of them are still owned, and the block goes back as a whole.
//!
//! A leaf counts once, also in a part of a table that several spaces link (docs/adr/0018): `sharers` has
//! how many they are, in the record of the frame where the part lies.
//!
//! # Invariants
//!
//! - A frame with a count above 0 has been taken from the memory and was not given back.
//! - `owner` and `index` are written by who took the frame, before anybody else can find it.
//!
//! Source: Linux, `struct page` and Documentation/mm/physical_memory.rst.

mod state;

pub use state::State;

use crate::sync::{AtomicU32, AtomicU64, fence};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{
    AtomicU32 as Sharers,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use vellum_core::{
    FrameBytes, FrameSource, Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr, PhysMap,
};
use vellum_frame::table::{Count, Put};

/// What is known of one frame; see the [module](self).
#[derive(Default)]
pub struct PageInfo {
    count: Count,
    maps: AtomicU32,
    state: AtomicU32,
    /// Of the first frame of a table's node; a page's frame has no use for it.
    sharers: Sharers,
    pub(crate) link: AtomicU64,
    owner: AtomicU64,
    index: AtomicU64,
}

/// Where in a record's state the order of the block is that the frame is part of. No [`State`] has
/// these bits, so nobody but [`Page::block`] writes them.
const ORDER_SHIFT: u32 = 8;

impl PageInfo {
    /// A frame that nobody owns.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self {
            count: Count::new(),
            maps: AtomicU32::new(0),
            state: AtomicU32::new(0),
            sharers: Sharers::new(0),
            link: AtomicU64::new(0),
            owner: AtomicU64::new(0),
            index: AtomicU64::new(0),
        }
    }

    /// As where loom is not.
    #[cfg(loom)]
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many owners the frame has: leaves, the cache, and who works with it now.
    #[must_use]
    pub fn owners(&self) -> u32 {
        self.count.count()
    }

    /// How many leaves map it.
    #[must_use]
    pub fn maps(&self) -> u32 {
        self.maps.load(Relaxed)
    }

    /// Whether a leaf that maps it is its only owner; what former owners did is done.
    #[must_use]
    pub fn is_sole(&self) -> bool {
        self.count.is_sole()
    }

    /// What [`Memory::sharers`] is to give for a block that begins with this frame.
    ///
    /// # Safety
    ///
    /// As of that function; and whoever implements it with this is the only one to call it.
    #[must_use]
    pub const unsafe fn sharers(&self) -> &Sharers {
        &self.sharers
    }

    /// What holds of it.
    #[must_use]
    pub fn state(&self) -> State {
        State(self.state.load(Acquire) & State::MASK)
    }

    /// Makes the caller the one owner of a frame that was just taken; false if it has one already.
    fn begin(&self, order: u8, link: u64) -> bool {
        if self.count.count() != 0 {
            return false;
        }
        // Before the count: who finds the frame from then on (`Page::found`) sees nothing of what it was.
        self.state.store(u32::from(order) << ORDER_SHIFT, Relaxed);
        self.link.store(link, Relaxed);
        self.count.take()
    }

    /// log2 of the frames of the block that it is part of.
    fn order(&self) -> u8 {
        self.state.load(Relaxed).to_le_bytes()[1]
    }

    /// Adds facts; what held before.
    pub fn set(&self, state: State) -> State {
        State(self.state.fetch_or(state.0, AcqRel) & State::MASK)
    }

    /// Takes facts away; what held before.
    pub fn clear(&self, state: State) -> State {
        State(self.state.fetch_and(!state.0, AcqRel) & State::MASK)
    }

    /// Takes facts away in one step, unless one of `others` holds; whether it did. Nobody sees them gone
    /// who would have to know that they come back.
    pub(crate) fn clear_unless(&self, state: State, others: State) -> bool {
        let mut now = self.state.load(Relaxed);
        while now & others.0 == 0 {
            match self.state.compare_exchange_weak(now, now & !state.0, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(changed) => now = changed,
            }
        }
        false
    }

    /// Its file's number, or its family's.
    #[must_use]
    pub fn owner(&self) -> u64 {
        self.owner.load(Relaxed)
    }

    /// Its page number in that.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index.load(Relaxed)
    }

    /// Says whose page it is: for who took the frame, while nobody else can find it.
    pub fn belongs_to(&self, owner: u64, index: u64) {
        self.owner.store(owner, Relaxed);
        self.index.store(index, Relaxed);
    }

    /// One leaf more maps it.
    pub fn mapped(&self) {
        self.maps.fetch_add(1, Relaxed);
    }

    /// One leaf more maps it, with a share of its own: for who has a leaf that keeps the frame owned.
    pub fn mapped_again(&self) {
        let owned = self.count.get();
        debug_assert!(owned, "a leaf maps the frame, so it has an owner");
        self.mapped();
    }

    /// One leaf fewer maps it; how many are left.
    pub fn unmapped(&self) -> u32 {
        let before = self.maps.fetch_sub(1, Relaxed);
        debug_assert!(before > 0, "a page was unmapped more often than it was mapped");
        before.wrapping_sub(1)
    }
}

impl fmt::Debug for PageInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageInfo")
            .field("count", &self.count)
            .field("maps", &self.maps())
            .field("state", &self.state())
            .field("owner", &self.owner())
            .field("index", &self.index())
            .finish()
    }
}

/// One physical memory, with a record for each frame: a `vellum_frame::table::FrameTable`, as a rule.
///
/// # Safety
///
/// - `info` has a record for every frame that `memory` hands out, and for one frame always the same,
///   which is no other frame's.
/// - Nobody else changes the records.
pub unsafe trait Pages {
    /// The memory that the frames are from.
    type Memory: Memory;

    /// The memory itself.
    fn memory(&self) -> &Self::Memory;

    /// What is known of the frame at `pa`; `None` outside of the memory (a device's registers).
    fn info(&self, pa: PhysAddr) -> Option<&PageInfo>;

    /// Calls `f` with the record of every frame, in any order.
    fn each_info(&self, f: &mut impl FnMut(&PageInfo));

    /// Fills a frame with zeros, that is the caller's alone.
    ///
    /// # Safety
    ///
    /// The frame at `pa` was taken from this memory, and nobody else reaches its bytes.
    unsafe fn clear(&self, pa: PhysAddr) {
        self.memory().with(pa, |p| {
            // SAFETY: a pointer to a whole frame, which the caller has for himself.
            unsafe { p.write_bytes(0, PAGE_SIZE as usize) }
        });
    }

    /// Fills the frame `to`, that is the caller's alone, with the bytes of `from`, which programs may be
    /// writing to meanwhile. A kernel that has one instruction for it uses that.
    ///
    /// # Safety
    ///
    /// Both frames were taken from this memory, and the caller has a share in each; nobody else reaches
    /// the bytes of `to`.
    unsafe fn copy(&self, to: PhysAddr, from: PhysAddr) {
        self.memory().with(to, |to| {
            self.memory().with(from, |from| {
                // SAFETY: pointers to whole frames, of which the caller has shares; whoever else touches
                // the bytes of `from` does it through `FrameBytes`, or is a program in user mode.
                unsafe { copy_frame(to, from) }
            });
        });
    }
}

/// Copies 4 KiB, word by word, as `FrameBytes::copy_from` does, in one instruction.
///
/// # Safety
///
/// As of `FrameBytes::new`, of both frames.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_frame(to: NonNull<u8>, from: NonNull<u8>) {
    // SAFETY: 512 words of two frames, at multiples of 8, by the caller; each is loaded and stored whole.
    // The direction flag is clear, as the ABI has it, and no other flag changes.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            inout("rcx") PAGE_SIZE / 8 => _,
            inout("rsi") from.as_ptr() => _,
            inout("rdi") to.as_ptr() => _,
            options(nostack, preserves_flags),
        );
    }
}

/// Copies 4 KiB, word by word.
///
/// # Safety
///
/// As of `FrameBytes::new`, of both frames.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
unsafe fn copy_frame(to: NonNull<u8>, from: NonNull<u8>) {
    // SAFETY: the caller's.
    unsafe { FrameBytes::new(to).copy_from(FrameBytes::new(from)) }
}

// SAFETY: forwards to `P`, which keeps the contract.
unsafe impl<P: Pages + ?Sized> Pages for &P {
    type Memory = P::Memory;

    fn memory(&self) -> &Self::Memory {
        P::memory(self)
    }

    fn info(&self, pa: PhysAddr) -> Option<&PageInfo> {
        P::info(self, pa)
    }

    fn each_info(&self, f: &mut impl FnMut(&PageInfo)) {
        P::each_info(self, f);
    }

    unsafe fn clear(&self, pa: PhysAddr) {
        // SAFETY: the caller's.
        unsafe { P::clear(self, pa) }
    }

    unsafe fn copy(&self, to: PhysAddr, from: PhysAddr) {
        // SAFETY: the caller's.
        unsafe { P::copy(self, to, from) }
    }
}

/// One share in a frame. Dropping it gives the share back; the last one frees the frame.
pub struct Page<'a, P: Pages> {
    pages: &'a P,
    info: &'a PageInfo,
    pa: PhysAddr,
}

impl<'a, P: Pages> Page<'a, P> {
    /// Takes a frame, whose bytes are not initialised, and of which nothing is known yet.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn take(pages: &'a P) -> Result<Self, OutOfFrames> {
        let pa = pages.memory().alloc(0)?;
        match pages.info(pa) {
            Some(info) if info.begin(0, 0) => Ok(Self { pages, info, pa }),
            // Not by the contract of `Pages`; the frame is lost rather than shared.
            _ => Err(OutOfFrames { order: 0 }),
        }
    }

    /// Takes a frame filled with zeros.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn zeroed(pages: &'a P) -> Result<Self, OutOfFrames> {
        let page = Self::take(pages)?;
        // SAFETY: taken just now, and nobody else knows of it.
        unsafe { pages.clear(page.pa) };
        Ok(page)
    }

    /// Takes a frame with the contents of this one, which programs may be writing to meanwhile.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn duplicate(&self) -> Result<Self, OutOfFrames> {
        let new = Self::take(self.pages)?;
        // SAFETY: a share in each; the new frame was taken just now, and nobody else knows of it.
        unsafe { self.pages.copy(new.pa, self.pa) };
        Ok(new)
    }

    /// Takes a block of 2<sup>`order`</sup> frames filled with zeros, one share in each, and calls
    /// `f` for each before anybody else knows of it; the first one's address.
    ///
    /// The shares are given back with [`Page::from_pa`], one by one and in any order.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn block(
        pages: &'a P,
        order: u8,
        mut f: impl FnMut(u64, &PageInfo),
    ) -> Result<PhysAddr, OutOfFrames> {
        let block = pages.memory().alloc(order)?;
        let frames = 1u64 << order;
        for i in 0..frames {
            let pa = block.wrapping_add(i * PAGE_SIZE);
            let left = if i == 0 { frames } else { 0 };
            let info = pages.info(pa).filter(|info| info.begin(order, left));
            // Not by the contract of `Pages`; the block is lost rather than shared.
            let info = info.ok_or(OutOfFrames { order })?;
            // SAFETY: part of the block that was taken just now.
            unsafe { pages.clear(pa) };
            f(i, info);
        }
        Ok(block)
    }

    /// The share that somebody let go of with [`into_pa`](Self::into_pa), or that a leaf had which was
    /// unlinked and flushed; `None` for what is not memory.
    ///
    /// # Safety
    ///
    /// There is a share in the frame at `pa` that nobody else has, and that becomes this one.
    #[must_use]
    pub unsafe fn from_pa(pages: &'a P, pa: PhysAddr) -> Option<Self> {
        let pa = pa.align_down(PAGE_SHIFT);
        Some(Self { pages, info: pages.info(pa)?, pa })
    }

    /// One more share in a frame that was only found: `None` if it is nobody's any more. Whoever
    /// calls looks again whether the frame is still what it was found as.
    #[must_use]
    pub fn found(pages: &'a P, pa: PhysAddr) -> Option<Self> {
        let pa = pa.align_down(PAGE_SHIFT);
        let info = pages.info(pa)?;
        // Not `then_some`: a share that was not taken would be made, and given back.
        info.count.try_get().then(|| Self { pages, info, pa })
    }

    /// Whether it is a page of these.
    #[must_use]
    pub fn is_of(&self, pages: &P) -> bool {
        core::ptr::eq(self.pages, pages)
    }

    /// One more share.
    #[must_use]
    pub fn share(&self) -> Self {
        let owned = self.info.count.get();
        debug_assert!(owned, "this one is a share");
        Self { ..*self }
    }

    /// Where the frame is; the share is now the caller's to give back.
    #[must_use]
    pub fn into_pa(self) -> PhysAddr {
        let pa = self.pa;
        core::mem::forget(self);
        pa
    }

    /// Where the frame is.
    #[must_use]
    pub const fn pa(&self) -> PhysAddr {
        self.pa
    }

    /// What is known of it.
    #[must_use]
    pub const fn info(&self) -> &'a PageInfo {
        self.info
    }

    /// Calls `f` with its bytes.
    pub fn with_bytes<R>(&self, f: impl FnOnce(FrameBytes<'_>) -> R) -> R {
        self.pages.memory().with(self.pa, |p| {
            // SAFETY: `PhysMap` gives a pointer to the frame, of which this is a share, so it is not given
            // back meanwhile; whoever else has one goes through here too, or is a program in user mode
            // (`clear` is for those who have the frame for themselves).
            f(unsafe { FrameBytes::new(p) })
        })
    }
}

impl<P: Pages> Drop for Page<'_, P> {
    fn drop(&mut self) {
        // The state is read before the last share is gone: behind it the record is another's.
        let order = self.info.order();
        match self.info.count.put() {
            Put::Last if order == 0 => {
                // SAFETY: taken from this memory as one frame; this was the last share in it, and
                // leaves give theirs back after the flush.
                unsafe { self.pages.memory().free(self.pa, 0) }
            }
            Put::Last => free_part(self.pages, self.pa, order),
            Put::Shared => {}
            Put::Unowned => debug_assert!(false, "a share was given back that nobody had"),
        }
    }
}

/// Gives back one frame of a block, and with the last one the block.
fn free_part<P: Pages>(pages: &P, pa: PhysAddr, order: u8) {
    let block = pa.align_down(PAGE_SHIFT + order);
    let Some(head) = pages.info(block) else { return };
    if head.link.fetch_sub(1, Release) == 1 {
        fence(Acquire);
        // SAFETY: taken as a block of this order by `Page::block`, which is the only one to write an
        // order; its last owned frame was just given back.
        unsafe { pages.memory().free(block, order) }
    }
}

impl<P: Pages> fmt::Debug for Page<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("pa", &self.pa).field("info", self.info).finish()
    }
}
