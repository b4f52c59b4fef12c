//! [`Zones`]: several allocators as one, tried in order, with something kept back in each.
//!
//! ```text
//!                        request: order, class, node, urgency
//!                                        |
//!           1. every zone in turn, down to its low mark   ------------> block
//!                                        |
//!           2. wake reclaimers
//!              every zone in turn, down to what the urgency allows ---> block
//!                                        |
//!           3. reclaim here and now, and 2. again, as long as that frees anything
//!                                        |
//!                                    ZoneError
//!
//!   zone      Dma             Dma32               Normal            Normal
//!   node       0                0                    0                 1
//!           [source|level]  [source|level]     [source|level]    [source|level]
//! ```
//!
//! A zone is any allocator that knows its own frames ([`ZoneSource`]), with a [`Class`] (who can
//! use its frames), a node, and a level: how many frames are free, and the [`Marks`] that stop
//! requests while some are. A block goes back to the zone that it came from, found by its address.
//!
//! Zones of low classes are the last resort of requests for higher ones, and even then they keep a
//! part for those that can use nothing else: one frame for so many ([`Zone::keep_ratio`]) of the
//! higher zones of the same node that the request could have had.
//!
//! # Invariants
//!
//! - No lock is held while a source or a callback is called: there is none.
//! - Levels decide who gets memory, never whether memory is safe: a wrong count refuses or admits
//!   requests, and every block still comes from one source and goes back to it.
//! - What a request charged leaves its floor (as `level.rs` says); two CPUs at a watermark do not pass it
//!   together.
//!
//! Source: M. Gorman, *Understanding the Linux Virtual Memory Manager*, chapters 2 and 6; Linux,
//! mm/page_alloc.c, `get_page_from_freelist` and `__alloc_pages_slowpath` (the steps).

mod error;
mod fallback;
mod level;
mod reclaim;
mod request;
mod source;
mod steps;
mod tally;
mod through;

use crate::FreeError;
use core::fmt;
use fallback::{Kind, even};
use level::Level;
use steps::Common;
use vellum_core::{FrameSource, OutOfFrames, PhysAddr};

pub use error::ZoneError;
pub use level::Marks;
pub use reclaim::Reclaim;
pub use request::{Class, NodeSet, Request, Urgency};
pub use source::{CountFrames, ZoneSource};
pub use tally::Tally;
pub use through::{Ask, Asking, Through};

/// One allocator in a set, and what it is for.
#[derive(Clone, Copy, Debug)]
pub struct Zone<S> {
    source: S,
    kind: Kind,
}

impl<S> Zone<S> {
    /// The frames of `source`, which are of `class`, on node 0. What the zone keeps for its class
    /// is, as in Linux, one frame for 256 higher ones if it is `Dma` or `Dma32`, and one for 32 if
    /// it is `Normal`.
    #[must_use]
    pub const fn new(source: S, class: Class) -> Self {
        let ratio = match class {
            Class::Dma | Class::Dma32 => 256,
            Class::Normal => 32,
            Class::Movable => 0,
        };
        Self { source, kind: Kind { class, node: 0, ratio } }
    }

    /// The same on another node, 0 to 63; a larger number counts as 63.
    #[must_use]
    pub const fn on_node(mut self, node: u8) -> Self {
        self.kind.node = if node < 64 { node } else { 63 };
        self
    }

    /// Keeps one frame for each `ratio` of the higher frames of the node; none for 0.
    #[must_use]
    pub const fn keep_ratio(mut self, ratio: u32) -> Self {
        self.kind.ratio = ratio;
        self
    }
}

/// What is known of a zone; a near guess while others allocate and free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ZoneLevel {
    /// Frames, free or not.
    pub total: u64,
    /// Free frames.
    pub free: u64,
    /// Its watermarks.
    pub marks: Marks,
}

/// `N` allocators on `NODES` nodes as one, with a callback for when they run short.
///
/// ```
/// use core::sync::atomic::AtomicU64;
/// use vellum_frame::zones::{Class, Request, Zone, Zones};
/// use vellum_frame::{FrameAllocator, storage_words};
///
/// static LOW: FrameAllocator<'static> = FrameAllocator::new();
/// static HIGH: FrameAllocator<'static> = FrameAllocator::new();
/// static ZONES: Zones<&FrameAllocator<'static>, 2> =
///     Zones::new([Zone::new(&LOW, Class::Dma32), Zone::new(&HIGH, Class::Normal)]);
///
/// # static A: [AtomicU64; storage_words(1 << 14, 1)] = [const { AtomicU64::new(0) }; storage_words(1 << 14, 1)];
/// # static B: [AtomicU64; storage_words(1 << 16, 1)] = [const { AtomicU64::new(0) }; storage_words(1 << 16, 1)];
/// # // SAFETY: no memory is behind these frames, and nobody else writes to the storage.
/// # unsafe {
/// #     LOW.init_in(&A, [(0x0800_0000, 0x0c00_0000)], [(0, 0); 0])?;
/// #     HIGH.init_in(&B, [(0x1_0000_0000, 0x1_1000_0000)], [(0, 0); 0])?;
/// # }
/// // Once LOW and HIGH have been initialised, with the memory below and above 4 GiB:
/// ZONES.recount();
/// ZONES.set_usual_marks();
///
/// let page = ZONES.alloc(Request::new(0))?; // anything: from the highest zone
/// let ring = ZONES.alloc(Request::new(2).class(Class::Dma32))?;
/// assert!(page.as_u64() >= 1 << 32 && ring.as_u64() < 1 << 32);
/// // SAFETY: allocated above, and nothing reaches them.
/// unsafe { ZONES.free(page, 0).and(ZONES.free(ring, 2)) }?; // each to its own zone
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
pub struct Zones<S, const N: usize, const NODES: usize = 1, R = ()> {
    zones: [Zone<S>; N],
    shared: Common<N, NODES, R>,
}

impl<S, const N: usize> Zones<S, N> {
    /// Zones of one node, without a callback; for a `static`. Empty until
    /// [`recount`](Self::recount).
    #[must_use]
    pub const fn new(zones: [Zone<S>; N]) -> Self {
        Self::with_nodes(zones, &even(), ())
    }
}

impl<S, const N: usize, R> Zones<S, N, 1, R> {
    /// Zones of one node, with a callback.
    #[must_use]
    pub const fn with_reclaim(zones: [Zone<S>; N], reclaim: R) -> Self {
        Self::with_nodes(zones, &even(), reclaim)
    }
}

impl<S, const N: usize, const NODES: usize, R> Zones<S, N, NODES, R> {
    /// Zones of several nodes: `distances[from][to]` as the firmware's table has them, less is
    /// nearer. Empty until [`recount`](Self::recount).
    #[must_use]
    pub const fn with_nodes(
        zones: [Zone<S>; N],
        distances: &[[u8; NODES]; NODES],
        reclaim: R,
    ) -> Self {
        const { assert!(N <= 256 && NODES > 0 && NODES <= 64, "at most 256 zones on 64 nodes") };
        let mut kinds = [Kind { class: Class::Normal, node: 0, ratio: 0 }; N];
        let mut zone = 0;
        while zone < N {
            kinds[zone] = zones[zone].kind;
            zone += 1;
        }
        Self { zones, shared: Common::new(kinds, distances, reclaim) }
    }

    /// The source of a zone.
    #[must_use]
    pub fn source(&self, zone: usize) -> Option<&S> {
        self.zones.get(zone).map(|zone| &zone.source)
    }

    /// The callback.
    #[must_use]
    pub const fn reclaim(&self) -> &R {
        &self.shared.reclaim
    }

    /// How full a zone is.
    #[must_use]
    pub fn level(&self, zone: usize) -> Option<ZoneLevel> {
        let level = self.shared.levels.get(zone)?;
        Some(ZoneLevel { total: level.total(), free: level.free(), marks: level.marks() })
    }

    /// How many frames a zone lacks to its high mark: what a reclaimer that was woken for it still
    /// has to free.
    #[must_use]
    pub fn shortage(&self, zone: usize) -> u64 {
        self.level(zone).map_or(0, |level| level.marks.high().saturating_sub(level.free))
    }

    /// How many frames of a zone are kept from requests of `class`, beyond its marks.
    #[must_use]
    pub fn kept_from(&self, zone: usize, class: Class) -> u64 {
        self.shared.levels.get(zone).map_or(0, |level| level.keep(class))
    }

    /// Sets the watermarks of a zone; nothing if there is no such zone. At any time.
    pub fn set_marks(&self, zone: usize, marks: Marks) {
        if let Some(level) = self.shared.levels.get(zone) {
            level.set_marks(marks);
        }
    }

    /// Sets [`Marks::usual`] for every zone, from its count.
    pub fn set_usual_marks(&self) {
        let all = self.shared.levels.iter().map(Level::total).fold(0, u64::saturating_add);
        for level in &self.shared.levels {
            level.set_marks(Marks::usual(level.total(), all));
        }
    }

    /// Takes the counts from the sources: once they have memory, and whenever some of it came or
    /// went behind the zones' back.
    ///
    /// Others may allocate and free meanwhile; the counts are then off by what they did, for good.
    pub fn recount(&self)
    where
        S: CountFrames,
    {
        for (zone, level) in self.zones.iter().zip(&self.shared.levels) {
            level.set_counts(zone.source.count_frames(), zone.source.count_free());
        }
        self.shared.set_keeps();
    }

    /// The zones by other ways to their memory: through the caches of one CPU, above all.
    ///
    /// ```
    /// # use vellum_frame::zones::{Class, Request, Tally, Zone, Zones};
    /// # use vellum_frame::{FrameAllocator, Shared};
    /// static LOW: FrameAllocator<'static> = FrameAllocator::new();
    /// static HIGH: FrameAllocator<'static> = FrameAllocator::new();
    /// static ZONES: Zones<&FrameAllocator<'static>, 2> =
    ///     Zones::new([Zone::new(&LOW, Class::Dma32), Zone::new(&HIGH, Class::Normal)]);
    /// static CACHES: [Shared<'static, 'static, 8>; 2] = [Shared::new(&LOW), Shared::new(&HIGH)];
    /// static TALLIES: [Tally<2>; 8] = [const { Tally::new() }; 8];
    ///
    /// # let cpu = 0;
    /// // SAFETY: preemption is off, and this is CPU `cpu`.
    /// let caches = unsafe { [CACHES[0].on(cpu), CACHES[1].on(cpu)] };
    /// let here = ZONES.through(caches).with_tally(&TALLIES[cpu]);
    /// let page = here.alloc(Request::new(0));
    /// # assert!(page.is_err(), "there is no memory yet");
    /// ```
    ///
    /// The sources are to be in the order of the zones. If they are not, levels are wrong, and
    /// nothing else: blocks still go back where they came from.
    pub const fn through<T>(&self, sources: [T; N]) -> Through<'_, T, N, NODES, R> {
        Through::new(&self.shared, sources)
    }

    /// A source of frames that asks for all blocks as `request` does, whose order does not matter:
    /// on one node, say, or [`Urgency::Emergency`].
    pub const fn asking(&self, request: Request) -> Asking<'_, Self> {
        Asking::new(self, request)
    }
}

impl<S: ZoneSource, const N: usize, const NODES: usize, R: Reclaim> Zones<S, N, NODES, R> {
    /// Takes a block, as the opening comment of the module tells.
    ///
    /// A few loads and one compare-and-swap beside what the source does, if the first zone has
    /// enough. Blocks that other CPUs hold for a moment, to find that they may not keep them, may
    /// count as taken.
    ///
    /// # Errors
    ///
    /// Every [`ZoneError`].
    #[inline]
    pub fn alloc(&self, request: Request) -> Result<PhysAddr, ZoneError> {
        self.shared.alloc(|zone| &self.zones[zone].source, None, request)
    }

    /// Gives a block back to the zone that has its first frame.
    ///
    /// # Errors
    ///
    /// Every [`FreeError`] of that zone's source, and [`FreeError::OutOfRange`] if no zone has the
    /// frame; nothing was changed then.
    ///
    /// # Safety
    ///
    /// As [`FrameAllocator::free`](crate::FrameAllocator::free).
    #[inline]
    pub unsafe fn free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe { self.shared.free(|zone| &self.zones[zone].source, None, pa, order) }
    }

    /// The number of the zone that the frame of `pa` belongs to.
    #[must_use]
    pub fn zone_of(&self, pa: PhysAddr) -> Option<usize> {
        self.zones.iter().position(|zone| zone.source.owns(pa))
    }
}

impl<S: fmt::Debug, const N: usize, const NODES: usize, R> fmt::Debug for Zones<S, N, NODES, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.zones.iter().zip(&self.shared.levels)).finish()
    }
}

// SAFETY: a block comes from one source, and is handed out as it came; sources keep the contract,
// so the blocks of two of them share no frame, and no block is handed out twice before it is freed.
// Who is refused at the watermark gives his block back unused.
unsafe impl<S: ZoneSource, const N: usize, const NODES: usize, R: Reclaim> FrameSource
    for Zones<S, N, NODES, R>
{
    /// As [`Request::new`] asks.
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        Ok(self.alloc(Request::new(order))?)
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

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
