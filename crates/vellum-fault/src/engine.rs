//! What all spaces of a system share: its parts, the page cache, and the page of zeros.

use crate::mmu::Mmu;
use crate::system::System;
use core::fmt;
use vellum_cache::page::State;
use vellum_cache::{Cache, Page};
use vellum_core::{OutOfFrames, PhysAddr};

/// The paging engine of one system. Spaces borrow it ([`Mmu`]), so that what they map cannot go before
/// they do.
pub struct Engine<S: System> {
    cache: Cache<S>,
    /// A page that is never written, for everybody who has only read so far. The engine has a share.
    zeros: PhysAddr,
}

impl<S: System> Engine<S> {
    /// The engine of `system`, with 2<sup>`order`</sup> frames of chains for its page cache (see
    /// [`Cache::new`]).
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`].
    pub fn new(system: S, order: u8) -> Result<Self, OutOfFrames> {
        let cache = Cache::new(system, order)?;
        let zeros = Page::zeroed(cache.pages())?;
        zeros.info().set(State::READY);
        let zeros = zeros.into_pa();
        Ok(Self { cache, zeros })
    }

    /// The parts.
    pub const fn system(&self) -> &S {
        self.cache.pages()
    }

    /// The page cache.
    pub const fn cache(&self) -> &Cache<S> {
        &self.cache
    }

    /// Where the page of zeros is.
    pub const fn zeros(&self) -> PhysAddr {
        self.zeros
    }

    /// The translations of a new space.
    ///
    /// # Safety
    ///
    /// - `cpus` flushes exactly what CPUs may have cached of `table`, for as long as either exists.
    /// - `table` maps nothing where regions will be, and nobody else changes what it maps there.
    /// - `table` was made for this system's memory.
    pub unsafe fn mmu(&self, table: S::Table, cpus: S::Cpus) -> Mmu<'_, S> {
        Mmu::new(self, table, cpus)
    }
}

impl<S: System> Drop for Engine<S> {
    fn drop(&mut self) {
        // SAFETY: the share that `new` let go of; no space is left that could map the page, since each
        // borrows the engine.
        drop(unsafe { Page::from_pa(self.cache.pages(), self.zeros) });
    }
}

impl<S: System> fmt::Debug for Engine<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("cache", &self.cache).finish_non_exhaustive()
    }
}
