//! A subtree that was unlinked whole, read and freed after the flush.
//!
//! ```text
//!   parent entry := 0  ->  gather.detach(subtree)  ->  flush  ->  reap: report leaves, free nodes
//! ```
//!
//! Until the flush hardware may still walk the subtree through an interior entry that it has
//! cached, and set accessed and dirty in it. What is reported here is therefore final, and read
//! plainly.

use super::group;
use super::node::{self, Node, Pattern};
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
    /// How many of its entries are its own; the others are another table's.
    entries: u64,
    format: PhantomData<fn() -> F>,
}

impl<F: Format, M: Memory> Detached<F, M> {
    /// The node at `pa` of level `depth`, which nothing links any more, and which is the caller's
    /// to give away.
    pub(super) fn new(mem: M, pa: PhysAddr, depth: usize, base: u64) -> Self {
        let entries = 1 << F::LEVELS[depth].bits;
        Self { mem, pa, depth, base, entries, format: PhantomData }
    }

    /// The same, of which only the first so many entries are looked at.
    pub(super) fn with_entries(self, entries: u64) -> Self {
        Self { entries, ..self }
    }

    fn reap_node(&self, at: At, entries: u64, sink: &mut impl FnMut(Gone)) {
        let At { pa, depth, base } = at;
        let level = F::LEVELS[depth];
        // SAFETY: the root of the subtree, or linked from a node of it: not given back before the
        // end of this function.
        let node = unsafe { Node::<F, M>::new(&self.mem, pa) };
        let mut runs = Runs { sink, run: None };
        let mut i = 0;
        while i < entries {
            let raw = node.slot(i).load();
            if raw == 0 {
                i += node.count_zeros(i, entries - i).max(1);
                continue;
            }
            let low = base + (i << level.shift);
            let va = F::CANONICAL.extend(low);
            let mut n = 1;
            match F::decode(raw, level.shift) {
                Decoded::Table(pa) => {
                    runs.end();
                    let all = 1 << F::LEVELS[depth + 1].bits;
                    self.reap_node(At { pa, depth: depth + 1, base: low }, all, runs.sink);
                }
                Decoded::Entry(Entry::Leaf(..))
                    if level.group > 0 && F::is_grouped(raw, level.shift) =>
                {
                    if let Entry::Leaf(pa, attr) = group::leaf(node, level, i) {
                        let page = level.group_shift();
                        runs.add(Run { va, pa, len: 1 << page, attr, page });
                    }
                    n = 1 << level.group;
                }
                Decoded::Entry(Entry::Leaf(pa, attr)) => {
                    let page = level.shift;
                    let pattern = Pattern { raw, step: F::step(page) };
                    let most = pattern.longest::<F>(page).min(entries - i);
                    // SAFETY: nothing links the subtree, and a gather reaps it only after the flush.
                    n = unsafe { node.count_matching_alone(i, most, pattern) }.max(1);
                    runs.add(Run { va, pa, len: n << page, attr, page });
                }
                Decoded::Entry(Entry::Soft(soft)) => {
                    runs.end();
                    (runs.sink)(Gone::Soft(va, soft));
                }
                Decoded::Entry(Entry::Hole) => {}
            }
            i += n;
        }
        runs.end();
        // SAFETY: taken for this level; the subtree is linked from nowhere, and a gather reaps it
        // only after the flush, so that nobody has an interior entry that leads to it.
        unsafe { node::free::<F, M>(&self.mem, pa, depth) };
    }
}

/// A node of the subtree: where it lies, its level, and the low bits of its first address.
#[derive(Clone, Copy)]
struct At {
    pa: PhysAddr,
    depth: usize,
    base: u64,
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
        let at = At { pa: self.pa, depth: self.depth, base: self.base };
        self.reap_node(at, self.entries, sink);
    }
}

impl<F: Format, M> fmt::Debug for Detached<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let va: VirtAddr = F::CANONICAL.extend(self.base);
        write!(f, "Detached(level {} at {}, from {va})", self.depth, self.pa)
    }
}
