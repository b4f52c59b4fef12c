//! [`Tally`]: frames that one CPU has charged ahead, so that it rarely touches what all CPUs count.
//!
//! ```text
//!   free of the zone (shared)       12 034                12 002                      12 034
//!                                     |  charge 32          |                           ^
//!                                     v                     v                           | credit 32
//!   tally of this CPU                 0 --alloc--> 32 -1 = 31 --alloc--> 30 .. free..  64
//! ```
//!
//! A tally hides from other CPUs at most 64 frames of each zone that are free. So nobody passes a
//! watermark because of it; near one, requests of others may stop that much earlier.
//!
//! # Invariants
//!
//! - `free` of a zone and the frames in all tallies for it are, together, never less than the free
//!   frames of the source.
//! - `frames` are changed only by who set `busy`: not by an interrupt handler on top of such a
//!   change, which does without. A tally used on two CPUs at once counts wrong, and no more.

use super::level::Level;
use core::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{self, Relaxed},
    compiler_fence,
};

/// So many frames are charged, or credited, at a time.
const BATCH: u64 = 32;

/// What one CPU has charged ahead, for each of `N` zones. Used by
/// [`Through::with_tally`](super::Through::with_tally).
#[derive(Debug)]
pub struct Tally<const N: usize> {
    busy: AtomicBool,
    frames: [AtomicU64; N],
}

impl<const N: usize> Tally<N> {
    /// Nothing charged ahead.
    #[must_use]
    pub const fn new() -> Self {
        Self { busy: AtomicBool::new(false), frames: [const { AtomicU64::new(0) }; N] }
    }

    /// Calls `change` with what is charged ahead for a zone, unless this CPU is in the middle of
    /// another change. It returns what is charged ahead then.
    #[inline]
    fn change<R>(&self, zone: usize, change: impl FnOnce(u64) -> (u64, R)) -> Option<R> {
        if self.busy.load(Relaxed) {
            return None;
        }
        self.busy.store(true, Relaxed);
        // What a handler on this CPU sees is in program order; the compiler is told so here.
        compiler_fence(Ordering::SeqCst);
        let frames = &self.frames[zone];
        let (ahead, result) = change(frames.load(Relaxed));
        frames.store(ahead, Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.busy.store(false, Relaxed);
        Some(result)
    }

    /// Takes `count` frames from those charged ahead, or charges more; false if `level` has not so
    /// many above `floor`, or if they are too many for a tally.
    #[inline]
    pub(super) fn take(&self, zone: usize, level: &Level, count: u64, floor: u64) -> bool {
        let taken = self.change(zone, |ahead| {
            if ahead >= count {
                // They were charged for somebody, who may have been let further down.
                let allowed = level.allows(0, floor);
                (if allowed { ahead - count } else { ahead }, allowed)
            } else if count <= BATCH && level.charge(BATCH, floor) {
                (ahead + BATCH - count, true)
            } else {
                (ahead, false)
            }
        });
        taken.unwrap_or(false)
    }

    /// Keeps `count` frames that are free again, and credits what is too much.
    #[inline]
    pub(super) fn give(&self, zone: usize, level: &Level, count: u64) {
        let given = self.change(zone, |ahead| {
            let all = ahead + count;
            if all > 2 * BATCH {
                level.credit(all - BATCH);
                (BATCH, ())
            } else {
                (all, ())
            }
        });
        if given.is_none() {
            level.credit(count);
        }
    }

    /// Takes back what [`give`](Self::give) kept, for frames that were not free after all.
    pub(super) fn retract(&self, zone: usize, level: &Level, count: u64) {
        let here = self.change(zone, |ahead| (ahead.saturating_sub(count), ahead.min(count)));
        level.debit(count - here.unwrap_or(0));
    }

    /// Credits everything.
    pub(super) fn flush(&self, levels: &[Level; N]) {
        for (zone, level) in levels.iter().enumerate() {
            let ahead = self.change(zone, |ahead| (0, ahead)).unwrap_or(0);
            if ahead > 0 {
                level.credit(ahead);
            }
        }
    }

    /// How many frames of a zone are charged ahead.
    #[must_use]
    pub fn ahead(&self, zone: usize) -> u64 {
        self.frames.get(zone).map_or(0, |frames| frames.load(Relaxed))
    }

    #[cfg(test)]
    #[cfg(not(loom))]
    pub(super) fn interrupted<R>(&self, handler: impl FnOnce() -> R) -> R {
        self.busy.store(true, Relaxed);
        let result = handler();
        self.busy.store(false, Relaxed);
        result
    }
}

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self::new()
    }
}
