//! A subtree that was unlinked whole, read and freed after the flush.
//!
//! ```text
//!   parent entry := 0  ->  gather.detach(subtree)  ->  flush  ->  reap: report leaves, free nodes
//! ```
//!
//! Until the flush hardware may still walk the subtree through an interior entry that it has
//! cached, and set accessed and dirty in it. What is reported here is therefore final.

use super::node::{self, Node};
use crate::format::{Decoded, Format};
use core::fmt;
use core::marker::PhantomData;
use vellum_core::{Entry, Gone, Memory, PhysAddr, Reap, Run, VirtAddr};

/// A node and everything below it, linked from nowhere. Dropping it leaks its memory.
pub struct Detached<F, M> {
    mem: M,
    pa: PhysAddr,
    /// Its level, counted from the root.
    depth: usize,
    /// The low bits of the first address that it translates.
    base: u64,
    format: PhantomData<fn() -> F>,
}

impl<F: Format, M: Memory> Detached<F, M> {
    /// The node at `pa` of level `depth`, which nothing links any more, and which is the caller's
    /// to give away.
    pub(super) fn new(mem: M, pa: PhysAddr, depth: usize, base: u64) -> Self {
        Self { mem, pa, depth, base, format: PhantomData }
    }

    fn reap_node(&self, pa: PhysAddr, depth: usize, base: u64, sink: &mut impl FnMut(Gone)) {
        let level = F::LEVELS[depth];
        // SAFETY: the root of the subtree, or linked from a node of it: not given back before the
        // end of this function.
        let node = unsafe { Node::new(&self.mem, pa) };
        let mut runs = Runs { sink, run: None };
        for index in 0..1u64 << level.bits {
            let raw = node.slot(index).load();
            if raw == 0 {
                continue;
            }
            let low = base + (index << level.shift);
            let va = F::CANONICAL.extend(low);
            match F::decode(raw, level.shift) {
                Decoded::Table(child) => {
                    runs.end();
                    self.reap_node(child, depth + 1, low, runs.sink);
                }
                Decoded::Entry(Entry::Leaf(pa, attr)) => {
                    runs.add(Run { va, pa, len: 1 << level.shift, attr, page: level.shift });
                }
                Decoded::Entry(Entry::Soft(soft)) => {
                    runs.end();
                    (runs.sink)(Gone::Soft(va, soft));
                }
                Decoded::Entry(Entry::Hole) => {}
            }
        }
        runs.end();
        // SAFETY: taken for this level; the subtree is linked from nowhere, and a gather reaps it
        // only after the flush, so that nobody has an interior entry that leads to it.
        unsafe { node::free(&self.mem, pa, level) };
    }
}

/// Joins leaves that continue each other.
struct Runs<'s, S> {
    sink: &'s mut S,
    run: Option<Run>,
}

impl<S: FnMut(Gone)> Runs<'_, S> {
    fn add(&mut self, next: Run) {
        match &mut self.run {
            Some(run) if run.continues_with(&next) => run.len += next.len,
            _ => {
                self.end();
                self.run = Some(next);
            }
        }
    }

    fn end(&mut self) {
        if let Some(run) = self.run.take() {
            (self.sink)(Gone::Run(run));
        }
    }
}

impl<F: Format, M: Memory> Reap for Detached<F, M> {
    fn reap(self, sink: &mut impl FnMut(Gone)) {
        self.reap_node(self.pa, self.depth, self.base, sink);
    }
}

impl<F: Format, M> fmt::Debug for Detached<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let va: VirtAddr = F::CANONICAL.extend(self.base);
        write!(f, "Detached(level {} at {}, from {va})", self.depth, self.pa)
    }
}
