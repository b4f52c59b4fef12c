//! [`ZoneSource`]: what a zone asks of the allocator behind it.
//!
//! ```text
//!   Zones --> FrameAllocator            one CPU's caches in front:   Zones::through([Local; N])
//!         --> Zones                     a zone may be a set of zones
//!         --> &T, &dyn ZoneSource       different kinds in one set
//! ```

use super::{Reclaim, Through, Zones};
use crate::{CheckedSource, FrameAllocator, FreeError, Local};
use vellum_core::PhysAddr;

/// A source that knows its own frames.
///
/// # Safety
///
/// A block that begins at a frame which `owns` claims, and which a `FrameSource` has handed out, may
/// be given back to this source by the contract of
/// [`FrameSource::free`](vellum_core::FrameSource::free). So of two sources that
/// deal in different frames none claims a frame of the other; two that are ways to the same
/// allocator (two CPUs' caches) both claim all of its frames.
pub unsafe trait ZoneSource: CheckedSource {
    /// Whether the frame of `pa` is one that this source deals in, free or not.
    fn owns(&self, pa: PhysAddr) -> bool;
}

/// A source that can count its frames, for [`Zones::recount`].
pub trait CountFrames {
    /// How many frames it deals in, free or not.
    fn count_frames(&self) -> u64;

    /// How many of them are free now; may be slow.
    fn count_free(&self) -> u64;
}

// SAFETY: it claims the frames of its regions, which nobody else deals out (the contract of
// `init`); `free` takes any block of them that was handed out, in whatever size.
unsafe impl ZoneSource for FrameAllocator<'_> {
    fn owns(&self, pa: PhysAddr) -> bool {
        self.owns(pa)
    }
}

impl CountFrames for FrameAllocator<'_> {
    fn count_frames(&self) -> u64 {
        self.stats().total
    }

    fn count_free(&self) -> u64 {
        self.stats().free
    }
}

// SAFETY: as the allocator beneath, whose frames it claims, and which takes back what any of its
// caches handed out.
unsafe impl ZoneSource for Local<'_, '_> {
    fn owns(&self, pa: PhysAddr) -> bool {
        self.owns(pa)
    }
}

// SAFETY: claims what its zones claim, and gives a block to the zone that claims it.
unsafe impl<S: ZoneSource, R: Reclaim, const N: usize, const NODES: usize> ZoneSource
    for Zones<S, N, NODES, R>
{
    fn owns(&self, pa: PhysAddr) -> bool {
        self.zone_of(pa).is_some()
    }
}

impl<S: ZoneSource, R: Reclaim, const N: usize, const NODES: usize> CheckedSource
    for Zones<S, N, NODES, R>
{
    unsafe fn try_free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe { self.free(pa, order) }
    }
}

// SAFETY: as the zones, by ways that claim the same frames.
unsafe impl<T: ZoneSource, R: Reclaim, const N: usize, const NODES: usize> ZoneSource
    for Through<'_, T, N, NODES, R>
{
    fn owns(&self, pa: PhysAddr) -> bool {
        self.zone_of(pa).is_some()
    }
}

impl<T: ZoneSource, R: Reclaim, const N: usize, const NODES: usize> CheckedSource
    for Through<'_, T, N, NODES, R>
{
    unsafe fn try_free(&self, pa: PhysAddr, order: u8) -> Result<(), FreeError> {
        // SAFETY: the caller's promise.
        unsafe { self.free(pa, order) }
    }
}

impl<S, R, const N: usize, const NODES: usize> CountFrames for Zones<S, N, NODES, R> {
    fn count_frames(&self) -> u64 {
        (0..N).filter_map(|zone| self.level(zone)).map(|level| level.total).sum()
    }

    fn count_free(&self) -> u64 {
        (0..N).filter_map(|zone| self.level(zone)).map(|level| level.free).sum()
    }
}

// SAFETY: forwards to `T`, which keeps the contract.
unsafe impl<T: ZoneSource + ?Sized> ZoneSource for &T {
    fn owns(&self, pa: PhysAddr) -> bool {
        T::owns(self, pa)
    }
}

impl<T: CountFrames + ?Sized> CountFrames for &T {
    fn count_frames(&self) -> u64 {
        T::count_frames(self)
    }

    fn count_free(&self) -> u64 {
        T::count_free(self)
    }
}
