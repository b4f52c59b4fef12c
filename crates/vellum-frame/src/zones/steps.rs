//! The steps from a request to a block, and back; the same for every way to the zones.
//!
//! ```text
//!   one zone:    free - count >= floor ?  --no-->  next zone
//!                        | yes
//!                source.alloc(order)      --none->  next zone
//!                        |
//!                free -= count, if still >= floor
//!                        | yes            --no-->  source.free, next zone
//!                      block
//!
//!   back:        free += count,  source.try_free,  free -= count if that is an error
//! ```
//!
//! The block is taken before it is charged. The other way round a large request that finds no block
//! would have `count` frames charged for a moment, and make small ones fail that could be served.
//! What a CPU has in its [`Tally`] it has charged before, and nobody else counts on it.
//!
//! # Invariants
//!
//! - Nothing is held while a source or a callback runs but, for a moment, the one block that is not
//!   charged yet; and none while a callback runs.
//! - A request calls `reclaim` at most [`ATTEMPTS`] times, and callbacks are within each other at
//!   most [`Reclaim::AT_ONCE`] deep of each kind: every request ends.

use super::fallback::{Kind, Lists, lists};
use super::level::{Level, Mark, update};
use super::request::CLASSES;
use super::tally::Tally;
use super::{Class, Reclaim, Request, Urgency, ZoneError, ZoneSource};
use crate::{FreeError, MAX_ORDER};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vellum_core::{FrameSource, PhysAddr};

/// How often one request lets others reclaim for it.
const ATTEMPTS: u32 = 16;

/// All but the sources: what several ways to the same zones share.
pub(super) struct Common<const N: usize, const NODES: usize, R> {
    kinds: [Kind; N],
    lists: [Lists<N>; NODES],
    pub(super) levels: [Level; N],
    /// Calls of `wake` that have not returned.
    waking: AtomicU64,
    /// Calls of `reclaim` that have not returned.
    pub(super) reclaiming: AtomicU64,
    pub(super) reclaim: R,
}

impl<const N: usize, const NODES: usize, R> Common<N, NODES, R> {
    pub(super) const fn new(
        kinds: [Kind; N],
        distances: &[[u8; NODES]; NODES],
        reclaim: R,
    ) -> Self {
        Self {
            kinds,
            lists: lists(&kinds, distances),
            levels: [const { Level::new() }; N],
            waking: AtomicU64::new(0),
            reclaiming: AtomicU64::new(0),
            reclaim,
        }
    }

    /// What each zone keeps from requests of each class, from the counts.
    pub(super) fn set_keeps(&self) {
        for (kind, level) in self.kinds.iter().zip(&self.levels) {
            for class in [Class::Dma, Class::Dma32, Class::Normal, Class::Movable] {
                let higher = self.kinds.iter().zip(&self.levels).filter(|(other, _)| {
                    other.node == kind.node && kind.class < other.class && other.class <= class
                });
                let higher = higher.map(|(_, level)| level.total()).fold(0, u64::saturating_add);
                level.set_keep(class, higher.checked_div(u64::from(kind.ratio)).unwrap_or(0));
            }
        }
    }

    /// The zones that a request allows, in its order.
    #[inline]
    fn allowed(
        &self,
        request: Request,
    ) -> impl Iterator<Item = usize> + Clone + use<'_, N, NODES, R> {
        // A node that these zones do not know is as far from one as from the other.
        let node = usize::from(request.node);
        let lists = &self.lists[if node < NODES { node } else { 0 }];
        let list = lists[request.class as usize].zones();
        let zones = list.iter().map(|&zone| usize::from(zone));
        zones.filter(move |&zone| request.nodes.contains(self.kinds[zone].node))
    }

    /// All zones, the highest classes first: there are the most frames, more often than not.
    #[inline]
    pub(super) fn all(&self) -> impl Iterator<Item = usize> + use<'_, N, NODES, R> {
        self.lists[0][CLASSES - 1].zones().iter().map(|&zone| usize::from(zone))
    }
}

impl<const N: usize, const NODES: usize, R: Reclaim> Common<N, NODES, R> {
    #[inline]
    pub(super) fn alloc<'s, T: ZoneSource + 's>(
        &self,
        source: impl Fn(usize) -> &'s T,
        tally: Option<&Tally<N>>,
        request: Request,
    ) -> Result<PhysAddr, ZoneError> {
        match self.pass(&source, tally, request, Mark::Low) {
            Some(pa) => Ok(pa),
            None => self.alloc_low(&source, tally, request),
        }
    }

    /// Steps 2 and 3, with everything on the table that this CPU has charged ahead.
    #[cold]
    fn alloc_low<'s, T: ZoneSource + 's>(
        &self,
        source: &impl Fn(usize) -> &'s T,
        tally: Option<&Tally<N>>,
        request: Request,
    ) -> Result<PhysAddr, ZoneError> {
        if request.order > MAX_ORDER {
            // Nothing that anybody frees would help.
            return Err(self.error(request));
        }
        let flush = || tally.into_iter().for_each(|tally| tally.flush(&self.levels));
        flush();
        if request.urgency != Urgency::Emergency {
            for zone in self.allowed(request) {
                if self.levels[zone].free() < self.levels[zone].marks().low() {
                    self.bounded(&self.waking, || self.reclaim.wake(zone));
                }
            }
        }
        let mark = Mark::Of(request.urgency);
        if let Some(pa) = self.pass(source, None, request, mark) {
            return Ok(pa);
        }
        if request.urgency == Urgency::Normal
            && self.allowed(request).any(|z| self.levels[z].total() > 0)
        {
            for attempt in 0..ATTEMPTS {
                let reclaim = || self.reclaim.reclaim(&request, attempt);
                let freed = self.bounded(&self.reclaiming, reclaim);
                flush();
                if let Some(pa) = self.pass(source, None, request, mark) {
                    return Ok(pa);
                }
                if freed.is_none_or(|freed| freed == 0) {
                    break;
                }
            }
        }
        Err(self.error(request))
    }

    /// Tries each zone in turn.
    #[inline(always)]
    fn pass<'s, T: ZoneSource + 's>(
        &self,
        source: &impl Fn(usize) -> &'s T,
        tally: Option<&Tally<N>>,
        request: Request,
        mark: Mark,
    ) -> Option<PhysAddr> {
        let count = request.count()?;
        for zone in self.allowed(request) {
            let level = &self.levels[zone];
            let floor = level.floor(request.class, mark);
            if let Some(tally) = tally.filter(|tally| tally.take(zone, level, count, floor)) {
                match source(zone).alloc(request.order) {
                    Ok(pa) => return Some(pa),
                    Err(_) => tally.give(zone, level, count),
                }
                continue;
            }
            if !level.allows(count, floor) {
                continue;
            }
            let Ok(pa) = source(zone).alloc(request.order) else { continue };
            if level.charge(count, floor) {
                return Some(pa);
            }
            // Others were faster.
            // SAFETY: this block was just allocated from this source, and nobody else knows of it.
            unsafe { FrameSource::free(source(zone), pa, request.order) };
        }
        None
    }

    /// Calls back, unless too many are at it already.
    fn bounded<T>(&self, running: &AtomicU64, call: impl FnOnce() -> T) -> Option<T> {
        /// Counts the call as over, even if it panics.
        struct Over<'a>(&'a AtomicU64);
        impl Drop for Over<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        let one_more = |calls| if calls < u64::from(R::AT_ONCE) { Some(calls + 1) } else { None };
        if !update(running, one_more) {
            return None;
        }
        let _over = Over(running);
        Some(call())
    }

    #[cold]
    fn error(&self, request: Request) -> ZoneError {
        let mut zones = self.allowed(request).map(|zone| &self.levels[zone]);
        if zones.clone().all(|level| level.total() == 0) {
            return ZoneError::NoZone { request };
        }
        let mark = Mark::Of(request.urgency);
        let kept = zones.any(|level| {
            let floor = level.floor(request.class, mark);
            request.count().is_some_and(|n| level.allows(n, 0) && !level.allows(n, floor))
        });
        if kept { ZoneError::KeptBack { request } } else { ZoneError::NoBlock { request } }
    }

    /// # Safety
    ///
    /// As [`Zones::free`].
    #[inline]
    pub(super) unsafe fn free<'s, T: ZoneSource + 's>(
        &self,
        source: impl Fn(usize) -> &'s T,
        tally: Option<&Tally<N>>,
        pa: PhysAddr,
        order: u8,
    ) -> Result<(), FreeError> {
        if order > MAX_ORDER {
            return Err(FreeError::BadOrder { order });
        }
        let nobody = FreeError::OutOfRange { pa, order };
        let zone = self.all().find(|&zone| source(zone).owns(pa)).ok_or(nobody)?;
        let (level, count) = (&self.levels[zone], 1 << order);
        // Credited first, so that who finds the block in the source finds it counted.
        match tally {
            Some(tally) => tally.give(zone, level, count),
            None => level.credit(count),
        }
        // SAFETY: the caller's promise, and this source claims the block's first frame: it takes
        // back what was handed out there.
        let freed = unsafe { source(zone).try_free(pa, order) };
        if freed.is_err() {
            match tally {
                Some(tally) => tally.retract(zone, level, count),
                None => level.debit(count),
            }
        }
        freed
    }
}
