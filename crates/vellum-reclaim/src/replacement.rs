//! The seam: what a reclaim loop asks of a policy, and what a policy asks of the machine.
//!
//! ```text
//!   page fault                                   memory is short
//!     |                                            |
//!     v                                            v
//!   arrive(shadow) --> Arrival                   victim(bits) --+--> Victim { frame, shadow }
//!     |    the page's history, and what            |            |            |
//!     |    the policy learns of it                 v            |            v
//!     |                                    bits.take(frame)     |      unmapped, written; the shadow
//!     v                                    accessed? held? <----+      goes to where the page's swap
//!   insert(frame, arrival)                                             entry or cache slot is
//!
//!   tick(bits)   time passes         remove(frame)   freed, or locked into memory (mlock)
//!   touch(frame) a reference that the MMU does not see, such as read(2)
//! ```
//!
//! A policy knows frames by dense numbers and pages not at all. What it remembers of a page that has
//! gone is a *ghost*, one of a bounded number, and a [`Shadow`] is the way back to it: it lies where
//! the page itself is named, so that no look-up by identity is needed.
//!
//! # Invariants
//!
//! - A victim was resident, was not held, and is out of the policy when it is returned.
//! - Nothing panics, and nothing is out of bounds, whatever is called in whatever order: a frame that
//!   the policy does not have is no victim, and one that it has is not inserted twice.
//! - Within one call each frame's bits are asked for a bounded number of times.
//!
//! Source: docs/adr/0019; shadows are Linux's (mm/workingset.c).

use core::fmt;

/// The number of a frame among those that a policy manages, from 0 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct FrameIx(pub u32);

impl FrameIx {
    /// As an index.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What stays of a page that has gone: 64 bits for its swap entry's or cache slot's record.
///
/// A shadow that is older than the ghost it speaks of does no harm: the ghost's time is compared. Times
/// are 32 bits of a count of evictions, so one may be mistaken after 2^32 of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shadow {
    pub(crate) slot: u32,
    pub(crate) time: u32,
}

impl Shadow {
    /// A ghost's place where there is none.
    pub(crate) const NO_SLOT: u32 = u32::MAX;

    /// As a word to keep.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        ((self.time as u64) << 32) | self.slot as u64
    }

    /// From such a word. Any word is a shadow; one that was never given out is a wrong hint.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self { slot: bits as u32, time: (bits >> 32) as u32 }
    }
}

/// A page about to be inserted, as its policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// On which list its ghost was, if there was one.
    pub(crate) ghost: Option<u8>,
    pub(crate) distance: Option<u32>,
}

impl Arrival {
    /// A page that was never here, or of which nothing is known.
    pub const FRESH: Self = Self { ghost: None, distance: None };

    /// Whether the policy remembered it.
    #[must_use]
    pub const fn is_remembered(self) -> bool {
        self.ghost.is_some()
    }

    /// Evictions since its own, if it has been here: with so many more frames it would still be.
    #[must_use]
    pub const fn distance(self) -> Option<u32> {
        self.distance
    }
}

/// A frame to take, and what to keep in its page's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the policy has forgotten the frame"]
pub struct Victim {
    /// The frame.
    pub frame: FrameIx,
    /// For [`Replacement::arrive`], when its page comes back.
    pub shadow: Shadow,
}

/// What the machine says of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Some mapping's accessed bit was set; it is not any more.
    pub is_accessed: bool,
    /// It would have to be written before it can go.
    pub is_dirty: bool,
    /// It cannot go now: somebody works with it, it is being written, or it is locked into memory.
    pub is_held: bool,
}

/// Accessed and dirty bits, by frame; the reverse map's, or a batch that was harvested ([`Harvest`]).
///
/// [`Harvest`]: crate::Harvest
pub trait AccessedBits {
    /// What is known of it, clearing its accessed bits.
    fn take(&mut self, frame: FrameIx) -> Seen;

    /// It has not been used for long, but is dirty: writing it now may make it cheap to take later.
    /// Only [`WsClock`](crate::WsClock) says so.
    fn write_back(&mut self, frame: FrameIx) {
        let _ = frame;
    }
}

impl<F: FnMut(FrameIx) -> Seen> AccessedBits for F {
    fn take(&mut self, frame: FrameIx) -> Seen {
        self(frame)
    }
}

/// No bits at all: for policies that hear of every reference.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBits;

impl AccessedBits for NoBits {
    fn take(&mut self, _: FrameIx) -> Seen {
        Seen::default()
    }
}

/// A policy at work. `&mut self` throughout: whoever shares it has a lock around it, and calls it for
/// batches.
///
/// Costs, where a policy does not say otherwise: everything is O(1), and `victim` O(1) for each frame
/// that it passes by.
pub trait Replacement {
    /// A page is about to come, with what was kept of it, if anything was. The policy adapts, and its
    /// ghost is gone. Comes before `victim` makes room, as in the papers; if the page does not come
    /// after all, nothing needs to be said.
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival;

    /// The page is in this frame now. No effect if the policy has the frame, or if its number is too
    /// large.
    fn insert(&mut self, frame: FrameIx, arrival: Arrival);

    /// The frame was referenced, and no accessed bit says so. No effect if the policy does not have it.
    fn touch(&mut self, frame: FrameIx);

    /// Chooses a frame to take, and forgets it. `None` if there is none, or if all are held.
    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim>;

    /// The frame is free, or must not go; it leaves no ghost. No effect if the policy does not have it.
    fn remove(&mut self, frame: FrameIx);

    /// Time has passed: for policies that harvest by the clock ([`Policy::TICKS`]).
    fn tick(&mut self, bits: &mut impl AccessedBits) {
        let _ = bits;
    }

    /// Whether the policy has the frame.
    fn contains(&self, frame: FrameIx) -> bool;

    /// Frames that it has.
    fn len(&self) -> u32;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pages that it remembers.
    fn ghosts(&self) -> u32 {
        0
    }
}

/// A policy as a kind: its name, and how one is made. Implemented by `Lru<'_>` and its like for all
/// lifetimes at once, so that generic code names `Lru<'static>` and makes what it needs.
pub trait Policy {
    /// What it is asked for by, and what reports call it.
    const NAME: &'static str;
    /// What it is.
    const SUMMARY: &'static str;
    /// Whether it is nothing without [`Replacement::tick`].
    const TICKS: bool = false;
    /// What it keeps, and lends.
    type Cell: Copy + Default + fmt::Debug;
    /// It, over borrowed cells.
    type Over<'m>: Replacement + fmt::Debug;

    /// How many cells it needs for so many frames.
    fn cells(frames: u32) -> usize;

    /// A policy for up to `frames` frames, of which it has none yet. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`] if there are no frames, too many, or not exactly as many cells as
    /// [`cells`](Self::cells) says.
    fn over(frames: u32, cells: &mut [Self::Cell]) -> Result<Self::Over<'_>, SizeError>;
}

/// The most frames that a policy can have: numbers of ghosts and of lists' ends come after theirs.
pub const MOST_FRAMES: u32 = 1 << 30;

/// Why a policy cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeError {
    /// There must be at least one frame, and at most [`MOST_FRAMES`].
    Frames {
        /// So many were asked for.
        frames: u32,
    },
    /// Too few cells, or too many.
    Cells {
        /// So many are needed.
        needed: usize,
        /// So many were lent.
        lent: usize,
    },
}

impl SizeError {
    /// Finds what is wrong with the sizes, if anything.
    pub(crate) const fn check(frames: u32, needed: usize, lent: usize) -> Result<(), Self> {
        if frames == 0 || frames > MOST_FRAMES {
            return Err(Self::Frames { frames });
        }
        if needed == lent { Ok(()) } else { Err(Self::Cells { needed, lent }) }
    }
}

impl fmt::Display for SizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Frames { frames } => {
                write!(f, "{frames} frames; a policy is for 1 to {MOST_FRAMES}")
            }
            Self::Cells { needed, lent } => {
                write!(f, "{lent} cells were lent; the policy needs exactly {needed}")
            }
        }
    }
}

impl core::error::Error for SizeError {}
