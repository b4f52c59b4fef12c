//! [`Space`]: what the protocol keeps of one address space.

use super::CpuSet;
use super::cpus::CpuMask;
use crate::asid::SpaceId;
use crate::sync::{AtomicU64, const_fn};
use core::num::NonZeroU64;
use core::sync::atomic::Ordering;

/// An address space: which changes its table has seen, and which CPUs have it loaded.
///
/// The table's owner keeps it beside the root. It comes from
/// [`Shootdown::new_space`](super::Shootdown::new_space), and goes with nothing to do: no CPU's state
/// points to it. (That no CPU has the *table* loaded is for
/// [`Shootdown::retire`](super::Shootdown::retire).)
#[derive(Debug)]
pub struct Space<const WORDS: usize = 1> {
    pub(super) id: SpaceId,
    /// Goes up by one for each flush. A CPU that has seen `n` has forgotten what flushes 1 to `n`
    /// were about.
    pub(super) generation: AtomicU64,
    /// CPUs that have the root loaded, or are about to, or were until a moment ago.
    pub(super) cpus: CpuMask<WORDS>,
}

impl<const WORDS: usize> Space<WORDS> {
    const_fn! {
        pub(super) fn new(id: NonZeroU64) -> Self {
            Self { id: SpaceId(id), generation: AtomicU64::new(0), cpus: CpuMask::new() }
        }
    }

    /// Its number, which no other space has or will have.
    #[must_use]
    pub const fn id(&self) -> SpaceId {
        self.id
    }

    /// How many flushes it has had.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// The CPUs that have it loaded, lazily too, as of a moment ago.
    #[must_use]
    pub fn cpus(&self) -> CpuSet<WORDS> {
        self.cpus.load(Ordering::Relaxed)
    }
}
