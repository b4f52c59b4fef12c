//! A gather that has the buffer forget whatever goes through it.
//!
//! ```text
//!   table behind --leaf, stale, detach--> Forgetting --the same--> the caller's gather
//!                                             |
//!                                             v
//!                                     buffer: forget the range
//! ```
//!
//! What is unlinked is forgotten before the caller's gather has it, hence before it is delivered,
//! also where that gather is drained in the middle of an operation, or delivers at once.

use super::buffer::TsbBuffer;
use core::ops::RangeInclusive;
use vellum_core::{Flush, Gather, Memory, Run, Scope, Soft, VirtAddr};

pub(super) struct Forgetting<'g, M: Memory, G> {
    pub(super) buffer: &'g TsbBuffer<M>,
    pub(super) gather: &'g mut G,
    /// log2 of the smallest leaf.
    pub(super) page: u8,
    /// The table is changed by `&mut self`.
    pub(super) alone: bool,
}

impl<M: Memory, G> Forgetting<'_, M, G> {
    fn forget(&self, range: RangeInclusive<VirtAddr>) {
        self.buffer.forget(range, self.page, self.alone);
    }
}

// SAFETY: `gather` keeps the contract, and every item and flush goes to it; its mode is the mode.
unsafe impl<D, M: Memory, G: Gather<D>> Gather<D> for Forgetting<'_, M, G> {
    const LIVE: bool = G::LIVE;

    fn room(&self) -> usize {
        self.gather.room()
    }

    fn drain(&mut self) {
        self.gather.drain();
    }

    fn owed(&self) -> Option<Scope> {
        self.gather.owed()
    }

    fn leaf(&mut self, run: Run) {
        self.forget(run.va..=run.va.wrapping_add(run.len.saturating_sub(1)));
        self.gather.leaf(run);
    }

    fn soft(&mut self, va: VirtAddr, soft: Soft) {
        // The buffer has leaves only.
        self.gather.soft(va, soft);
    }

    fn stale(&mut self, flush: Flush) {
        self.forget(flush.first..=flush.last);
        self.gather.stale(flush);
    }

    fn detach(&mut self, flush: Flush, part: D) {
        self.forget(flush.first..=flush.last);
        self.gather.detach(flush, part);
    }
}
