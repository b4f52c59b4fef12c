//! [`Scrub`]: a memory whose frames do not tell what their last owner kept in them.
//!
//! ```text
//!                        free                                   alloc
//!   owner --> fill the frames --> source    ...    source --> look, or zero --> new owner
//!
//!   Off             -                                            -
//!   ZeroOnAlloc     -                                          zero
//!   ZeroOnFree    zero                                           -
//!   ZeroAndCheck  zero                                   are they zero still?
//!   Poison        0xce                                   are they 0xce still?
//! ```
//!
//! Zeroing when freed keeps secrets for the shortest time, and makes frames ready before somebody
//! waits for them. Zeroing when allocated touches the frame when its owner is about to: it is in
//! the cache then. The last two find who writes to a frame that he gave back: each changed frame is
//! reported as a [`Corruption`], with the address and the bytes.
//!
//! # Cost
//!
//! `Off` costs one comparison a call. The others write, or read, every byte of the block: at order
//! 18 that is 1 GiB in one call. Frames are reached one by one ([`PhysMap::with`] promises no more).
//!
//! # Invariants
//!
//! - A frame is filled before its source has it back, and looked at after its source has given it:
//!   while it belongs to the caller, and the source's own release and acquire order the bytes.
//! - Filling on free is done with volatile stores. Nobody reads those bytes before the frame is
//!   freed, so a compiler that sees the end of the memory may drop plain stores as dead.
//! - Once [`Scrub::prime`] has been called, every free frame holds what the policy fills it with, as
//!   long as all frees go through a `Scrub` of the same policy, and the source keeps nothing in
//!   free frames. ([`FrameAllocator`](crate::FrameAllocator) never touches them.)
//!
//! Source: Linux, Documentation/admin-guide/kernel-parameters.txt (`init_on_alloc`, `init_on_free`,
//! `page_poison`); J. Chow, B. Pfaff, T. Garfinkel, M. Rosenblum, "Shredding Your Garbage", USENIX
//! Security 2005.

mod bytes;

use crate::MAX_ORDER;
use bytes::{differing, fill, zero};
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::AtomicU32;
use vellum_core::{FrameSource, Memory, OutOfFrames, PAGE_SIZE, PhysAddr, PhysMap};

/// What freed frames are filled with by [`Policy::Poison`].
///
/// A pointer made of it is not canonical, an x86-64 page-table entry made of it is not present, and
/// an instruction that begins with it is invalid in 64-bit mode (Intel SDM vol. 2A, "INTO").
pub const POISON: u8 = 0xce;

/// When frames are scrubbed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Never: frames hold what they held.
    #[default]
    Off,
    /// Blocks are all zeros when handed out.
    ZeroOnAlloc,
    /// Frames are zeroed as soon as they are freed, so blocks are all zeros when handed out.
    ZeroOnFree,
    /// As [`ZeroOnFree`](Self::ZeroOnFree), and frames that are not zero when handed out were
    /// written to after they were freed: they are reported, and zeroed again.
    ZeroAndCheck,
    /// Frames are filled with [`POISON`] as soon as they are freed, and reported when they hold
    /// anything else when handed out. Nobody gets zeros: who relies on them by mistake sees that.
    Poison,
}

impl Policy {
    /// [`Poison`](Self::Poison) in debug builds, this policy in others.
    #[must_use]
    pub const fn or_poison_in_debug(self) -> Self {
        if cfg!(debug_assertions) { Self::Poison } else { self }
    }

    /// What a frame is filled with when it is freed.
    const fn on_free(self) -> Option<u8> {
        match self {
            Self::Off | Self::ZeroOnAlloc => None,
            Self::ZeroOnFree | Self::ZeroAndCheck => Some(0),
            Self::Poison => Some(POISON),
        }
    }

    /// Whether blocks are all zeros when handed out.
    #[must_use]
    pub const fn gives_zeros(self) -> bool {
        matches!(self, Self::ZeroOnAlloc | Self::ZeroOnFree | Self::ZeroAndCheck)
    }
}

/// A frame that was written to while it was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Corruption {
    /// The frame.
    pub frame: PhysAddr,
    /// Where in the frame the first changed byte is, 0 to 4095.
    pub offset: u16,
    /// How many bytes there are from the first to the last changed one, 1 to 4096.
    pub len: u16,
    /// What the first changed byte is.
    pub found: u8,
    /// What it was when the frame was freed.
    pub expected: u8,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frame, offset, len, found, expected } = self;
        write!(f, "the frame at {frame} was written to after it was freed: ")?;
        write!(f, "{found:#04x} for {expected:#04x} at byte {offset:#x}, {len} bytes in all")
    }
}

impl core::error::Error for Corruption {}

/// A [`Memory`] whose frames are scrubbed by a [`Policy`].
///
/// ```
/// use vellum_core::{FrameSource, PhysMap};
/// use vellum_frame::scrub::{Policy, Scrub};
/// use vellum_testkit::Arena;
///
/// let arena = Arena::new(64);
/// let memory = Scrub::new(&arena, Policy::ZeroOnAlloc);
/// let block = memory.alloc(3)?;
/// // SAFETY: within the block, which is ours.
/// let last = memory.with(block.wrapping_add(0x7fff), |p| unsafe { p.read() });
/// assert_eq!(last, 0);
/// // SAFETY: allocated above, and nothing reaches it any more.
/// unsafe { memory.free(block, 3) };
/// # Ok::<(), vellum_core::OutOfFrames>(())
/// ```
#[derive(Clone, Copy)]
pub struct Scrub<M> {
    memory: M,
    policy: Policy,
    report: fn(Corruption),
}

impl<M> Scrub<M> {
    /// `memory`, scrubbed. A frame found to be corrupt is a panic in debug builds, and passed over
    /// in others; [`reporting_to`](Self::reporting_to) changes that.
    #[must_use]
    pub const fn new(memory: M, policy: Policy) -> Self {
        Self { memory, policy, report: panic_in_debug_builds }
    }

    /// The same, with another function that is told of each corrupt frame. It is called by `alloc`,
    /// with no lock held, while the frame belongs to the caller of that; the frame is then filled
    /// anew, and handed out.
    #[must_use]
    pub const fn reporting_to(mut self, report: fn(Corruption)) -> Self {
        self.report = report;
        self
    }

    /// The policy.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// The memory behind it. Frames that are freed there are not scrubbed.
    #[must_use]
    pub const fn memory(&self) -> &M {
        &self.memory
    }
}

/// # Panics
///
/// In debug builds.
fn panic_in_debug_builds(found: Corruption) {
    debug_assert!(false, "{found}");
}

impl<M: Memory> Scrub<M> {
    /// Fills every free frame with what the policy promises of free frames, and says how many there
    /// were; does nothing for policies without such a promise.
    ///
    /// For once at boot, before others allocate: what the boot loader left is gone then, and
    /// [`Policy::Poison`] and [`Policy::ZeroAndCheck`] do not take it for corruption. Takes all
    /// blocks there are, so that others would find none meanwhile, and gives them back. Writes all
    /// of free memory.
    pub fn prime(&self) -> u64 {
        if self.policy.on_free().is_none() {
            return 0;
        }
        // The blocks taken, each holding the address of the one before it, and that one's order.
        let mut last: Option<(PhysAddr, u8)> = None;
        let mut count = 0;
        for order in (0..=MAX_ORDER).rev() {
            while let Ok(pa) = self.memory.alloc(order) {
                self.memory.with(pa, |to| {
                    let to = to.cast::<Option<(PhysAddr, u8)>>();
                    // SAFETY: the pointer is good for the 4 KiB of the block's first frame, and
                    // aligned to them; the block is ours until it is freed below.
                    unsafe { to.write(last) };
                });
                last = Some((pa, order));
                count += 1 << order;
            }
        }
        while let Some((pa, order)) = last {
            last = self.memory.with(pa, |from| {
                // SAFETY: as above; it was written there.
                unsafe { from.cast::<Option<(PhysAddr, u8)>>().read() }
            });
            // SAFETY: allocated above, and out of the list from here on.
            unsafe { self.free(pa, order) };
        }
        count
    }

    /// Takes a block of zeros, whatever the policy; under those that give zeros anyway, at no
    /// further cost. (Under the two that zero on free this rests on [`prime`](Self::prime).)
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`], as the memory says.
    pub fn alloc_zeroed(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let pa = self.alloc(order)?;
        if !self.policy.gives_zeros() {
            self.each_frame(pa, order, |_, frame| {
                // SAFETY: `each_frame` lends a whole frame of the block, which is the caller's.
                unsafe { zero(frame) }
            });
        }
        Ok(pa)
    }

    /// Calls `f` for each frame of a block, with its address and a pointer to its first byte: good
    /// for reading and writing 4 KiB, and aligned to them, as [`PhysMap::with`] promises.
    fn each_frame(&self, pa: PhysAddr, order: u8, mut f: impl FnMut(PhysAddr, NonNull<u8>)) {
        // An order of 64 or more is none that a source gave.
        let count = 1u64.checked_shl(u32::from(order)).unwrap_or(0);
        for index in 0..count {
            let frame = pa.wrapping_add(index * PAGE_SIZE);
            self.memory.with(frame, |first| f(frame, first));
        }
    }

    /// Makes a block that was just allocated ready for its owner.
    fn on_alloc(&self, pa: PhysAddr, order: u8) {
        match self.policy {
            Policy::Off | Policy::ZeroOnFree => {}
            // SAFETY: `each_frame` lends a whole frame of the block, which nobody else has yet.
            Policy::ZeroOnAlloc => self.each_frame(pa, order, |_, frame| unsafe { zero(frame) }),
            Policy::ZeroAndCheck => self.check(pa, order, 0),
            Policy::Poison => self.check(pa, order, POISON),
        }
    }

    /// Looks for bytes other than `expected`.
    fn check(&self, pa: PhysAddr, order: u8, expected: u8) {
        self.each_frame(pa, order, |frame, first| {
            // SAFETY: `each_frame` lends a whole frame of the block, which nobody else has yet.
            if let Some((offset, len, found)) = unsafe { differing(first, expected) } {
                (self.report)(Corruption { frame, offset, len, found, expected });
                // SAFETY: as above.
                unsafe { fill(first, expected) };
            }
        });
    }

    /// Fills a block that is about to be freed.
    ///
    /// # Safety
    ///
    /// The block is the caller's, and nothing else reaches its bytes.
    unsafe fn on_free(&self, pa: PhysAddr, order: u8) {
        if let Some(byte) = self.policy.on_free() {
            // SAFETY: `each_frame` lends a whole frame of the block, which is the caller's.
            self.each_frame(pa, order, |_, frame| unsafe { fill(frame, byte) });
        }
    }
}

/// Two are equal if their memories are: they speak of the same frames.
impl<M: PartialEq> PartialEq for Scrub<M> {
    fn eq(&self, other: &Self) -> bool {
        self.memory == other.memory
    }
}

impl<M: fmt::Debug> fmt::Debug for Scrub<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrub")
            .field("memory", &self.memory)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

// SAFETY: forwards to a memory that keeps the contract.
unsafe impl<M: PhysMap> PhysMap for Scrub<M> {
    fn with<R>(&self, pa: PhysAddr, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        self.memory.with(pa, f)
    }
}

// SAFETY: blocks come from a memory that keeps the contract and go back to it unchanged; between,
// only their bytes are written, before the caller of `alloc` has the block or while the caller of
// `free` gives it up.
unsafe impl<M: Memory> FrameSource for Scrub<M> {
    /// # Panics
    ///
    /// In debug builds, when the policy looks for corruption and finds some, unless
    /// [`Scrub::reporting_to`] was told otherwise.
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        let pa = self.memory.alloc(order)?;
        self.on_alloc(pa, order);
        Ok(pa)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the block was handed out and not freed since, and nothing reaches its bytes any
        // more, as the caller says.
        unsafe { self.on_free(pa, order) };
        // SAFETY: the block came from this memory, through `alloc`; the rest as above.
        unsafe { self.memory.free(pa, order) };
    }
}

// SAFETY: `M` is a `Memory`, and frames, bytes, clones and equality are all `M`'s.
unsafe impl<M: Memory> Memory for Scrub<M> {
    unsafe fn sharers(&self, block: PhysAddr) -> Option<&AtomicU32> {
        // SAFETY: the caller keeps the contract of this same function of `M`.
        unsafe { self.memory.sharers(block) }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
