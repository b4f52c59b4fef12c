//! Other ways to a set of zones: [`Through`] other sources, and [`Asking`] always the same.
//!
//! ```text
//!   Through   [Local, Local]  --+
//!                               +-->  levels, lists, callback  <--  Zones  [&FrameAllocator; 2]
//!   Through   [Local, Local]  --+       one for all
//!   (CPU 1)
//! ```

use super::steps::Common;
use super::tally::Tally;
use super::{Reclaim, Request, ZoneError, ZoneSource, Zones};
use crate::{CheckedSource, FreeError};
use core::fmt;
use vellum_core::{FrameSource, OutOfFrames, PhysAddr};

/// A set of zones by other ways to the same memory. Made by [`Zones::through`].
pub struct Through<'a, T, const N: usize, const NODES: usize = 1, R = ()> {
    shared: &'a Common<N, NODES, R>,
    sources: [T; N],
    tally: Option<&'a Tally<N>>,
}

impl<'a, T, const N: usize, const NODES: usize, R> Through<'a, T, N, NODES, R> {
    pub(super) const fn new(shared: &'a Common<N, NODES, R>, sources: [T; N]) -> Self {
        Self { shared, sources, tally: None }
    }

    /// The same, counting in `tally` first: for the caches of one CPU, whose speed would be lost if
    /// every frame were counted where all CPUs count. The tally belongs to that CPU as its caches
    /// do, and lives as long.
    #[must_use]
    pub const fn with_tally(mut self, tally: &'a Tally<N>) -> Self {
        self.tally = Some(tally);
        self
    }

    /// Counts what this CPU has charged ahead as free, for all to see: before it goes offline, or
    /// before zones are looked at closely.
    pub fn flush_tally(&self) {
        if let Some(tally) = self.tally {
            tally.flush(&self.shared.levels);
        }
    }

    /// As [`Zones::asking`].
    pub const fn asking(&self, request: Request) -> Asking<'_, Self> {
        Asking::new(self, request)
    }
}

impl<T: ZoneSource, const N: usize, const NODES: usize, R: Reclaim> Through<'_, T, N, NODES, R> {
    /// As [`Zones::alloc`].
    ///
    /// # Errors
    ///
    /// Every [`ZoneError`].
    #[inline]
    pub fn alloc(&self, request: Request) -> Result<PhysAddr, ZoneError> {
        self.shared.alloc(|zone| &self.sources[zone], self.tally, request)
    }

    /// As [`Zones::free`].
    ///
    /// # Errors
    ///
    /// As [`Zones::free`].
    ///
    /// # Safety
    ///
    /// As [`Zones::free`].
    #[inline]
    pub unsafe fn free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe { self.shared.free(|zone| &self.sources[zone], self.tally, pa, order) }
    }

    /// The number of the zone that the frame of `pa` belongs to.
    #[must_use]
    pub fn zone_of(&self, pa: PhysAddr) -> Option<usize> {
        self.sources.iter().position(|source| source.owns(pa))
    }
}

impl<T: fmt::Debug, const N: usize, const NODES: usize, R> fmt::Debug
    for Through<'_, T, N, NODES, R>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.sources.iter().zip(&self.shared.levels)).finish()
    }
}

// SAFETY: as for `Zones`; the sources keep the contract here, too.
unsafe impl<T: ZoneSource, const N: usize, const NODES: usize, R: Reclaim> FrameSource
    for Through<'_, T, N, NODES, R>
{
    /// As [`Request::new`] asks.
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        Ok(self.alloc(Request::new(order))?)
    }

    /// # Panics
    ///
    /// As for [`Zones`].
    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the contract of the trait is that of the checked function.
        let freed = unsafe { self.free(pa, order) };
        debug_assert!(freed.is_ok(), "free of {pa}, order {order}: {freed:?}");
    }
}

mod sealed {
    /// [`Asking`](super::Asking) trusts its zones.
    pub trait Sealed {}
}

impl<S, const N: usize, const NODES: usize, R> sealed::Sealed for Zones<S, N, NODES, R> {}

impl<T, const N: usize, const NODES: usize, R> sealed::Sealed for Through<'_, T, N, NODES, R> {}

/// What takes a [`Request`]: [`Zones`] and [`Through`].
pub trait Ask: CheckedSource + sealed::Sealed {
    /// Takes a block.
    ///
    /// # Errors
    ///
    /// Every [`ZoneError`].
    fn ask(&self, request: Request) -> Result<PhysAddr, ZoneError>;
}

impl<S: ZoneSource, const N: usize, const NODES: usize, R: Reclaim> Ask for Zones<S, N, NODES, R> {
    fn ask(&self, request: Request) -> Result<PhysAddr, ZoneError> {
        self.alloc(request)
    }
}

impl<T: ZoneSource, const N: usize, const NODES: usize, R: Reclaim> Ask
    for Through<'_, T, N, NODES, R>
{
    fn ask(&self, request: Request) -> Result<PhysAddr, ZoneError> {
        self.alloc(request)
    }
}

/// Zones of which everything is asked in the same way, for those who know orders only. Made by
/// [`Zones::asking`].
#[derive(Debug)]
pub struct Asking<'a, Z> {
    zones: &'a Z,
    request: Request,
}

impl<'a, Z> Asking<'a, Z> {
    pub(super) const fn new(zones: &'a Z, request: Request) -> Self {
        Self { zones, request }
    }
}

impl<Z> Clone for Asking<'_, Z> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Z> Copy for Asking<'_, Z> {}

// SAFETY: blocks come from the zones, which keep the contract, and go back there.
unsafe impl<Z: Ask> FrameSource for Asking<'_, Z> {
    fn alloc(&self, order: u8) -> Result<PhysAddr, OutOfFrames> {
        Ok(self.zones.ask(self.request.order(order))?)
    }

    unsafe fn free(&self, pa: PhysAddr, order: u8) {
        // SAFETY: the caller keeps the contract of this same function of the zones.
        unsafe { FrameSource::free(self.zones, pa, order) }
    }
}

impl<Z: Ask> CheckedSource for Asking<'_, Z> {
    unsafe fn try_free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: the caller keeps the contract of this same function of the zones.
        unsafe { self.zones.try_free(pa, order) }
    }
}
