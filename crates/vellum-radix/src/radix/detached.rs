//! A subtree that was unlinked whole, read and freed after the flush.
//!
//! ```text
//!   parent entry := 0  ->  gather.detach(subtree)  ->  flush  ->  reap: report leaves, free nodes
//! ```
//!
//! Until the flush hardware may still walk the subtree through an interior entry that it has
//! cached, and set accessed and dirty in it. What is reported here is therefore final, and read
//! plainly.

use super::node::{self, Node, Pattern};
use super::shared::is_last;
use super::{Radix, group};
use crate::format::{Decoded, Format, Level};
use core::fmt;
use core::marker::PhantomData;
use vellum_core::{Entry, Gone, Memory, Nobody, PhysAddr, Reap, Receive, Run, VirtAddr};

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
    /// The node was linked as one that other tables may link as well.
    shared: bool,
    format: PhantomData<fn() -> F>,
}

impl<F: Format, M: Memory> Detached<F, M> {
    /// The node at `pa` of level `depth`, which nothing links any more, and which is the caller's
    /// to give away.
    pub(super) fn new(mem: M, pa: PhysAddr, depth: usize, base: u64) -> Self {
        let entries = 1 << F::LEVELS[depth].bits;
        Self { mem, pa, depth, base, entries, shared: false, format: PhantomData }
    }

    /// The same, of which only the first so many entries are looked at.
    pub(super) fn with_entries(self, entries: u64) -> Self {
        Self { entries, ..self }
    }

    /// The same, of a lowest node that other tables may link.
    pub(super) fn with_sharers(self, shared: bool) -> Self {
        Self { shared, ..self }
    }

    /// Reports all of it, and gives it back; of a node that others still link, nothing.
    fn give_back<S: Receive>(self, sink: &mut S) {
        if self.stays_with_others(self.shared, self.pa) {
            return;
        }
        let at = At { pa: self.pa, depth: self.depth, base: self.base };
        self.reap_node(at, self.entries, sink);
    }

    /// Gives up the link to a node, if it was `shared`; whether others link it still.
    fn stays_with_others(&self, shared: bool, node: PhysAddr) -> bool {
        // SAFETY: the link said that others may link the node. It went with the subtree, which is
        // reaped once, after the flush.
        shared && !unsafe { is_last(&self.mem, node) }
    }

    /// Reports a node of the subtree and all below it, and gives it back.
    fn reap_node<S: Receive>(&self, at: At, entries: u64, sink: &mut S) {
        let last = const { F::LEVELS.len() - 1 };
        // Most entries are the lowest level's. There all but the entry is constant; and where nobody
        // listens none is looked at, since none links anything.
        if at.depth < last {
            self.reap_entries(at, F::LEVELS[at.depth], entries, sink);
        } else if S::LISTENS {
            self.reap_entries(at, F::LEVELS[last], entries, sink);
        }
        // SAFETY: taken for this level; the subtree is linked from nowhere, and a gather reaps it
        // only after the flush, so that nobody has an interior entry that leads to it.
        unsafe { node::free::<F, M>(&self.mem, at.pa, at.depth) };
    }

    #[inline(always)]
    fn reap_entries<S: Receive>(&self, at: At, level: Level, entries: u64, sink: &mut S) {
        // SAFETY: the root of the subtree, or linked from a node of it: not given back before its
        // entries have been looked at.
        let node = unsafe { Node::<F, M>::new(&self.mem, at.pa) };
        let mut i = 0;
        while i < entries {
            let raw = node.load(level, i);
            if raw == 0 {
                i += node.count_zeros(i, entries - i).max(1);
                continue;
            }
            let low = at.base + (i << level.shift);
            let va = F::CANONICAL.extend(low);
            let mut page = level.shift;
            let (entry, n) = match F::decode(raw, page) {
                Decoded::Table(pa)
                    if self.stays_with_others(Radix::<F, M>::is_shared(at.depth, raw), pa) =>
                {
                    (Entry::Hole, 1)
                }
                Decoded::Table(pa) => {
                    let all = 1 << F::LEVELS[at.depth + 1].bits;
                    self.reap_node(At { pa, depth: at.depth + 1, base: low }, all, sink);
                    (Entry::Hole, 1)
                }
                Decoded::Entry(Entry::Leaf(..)) if level.group > 0 && F::is_grouped(raw, page) => {
                    page = level.group_shift();
                    joined_groups(node, level, i, entries)
                }
                Decoded::Entry(leaf @ Entry::Leaf(..)) => {
                    let pattern = Pattern { raw, step: F::step(page) };
                    (leaf, Self::count_run(node, level, i, entries, pattern))
                }
                Decoded::Entry(entry) => (entry, 1),
            };
            match entry {
                Entry::Leaf(pa, attr) => {
                    let len = n << level.shift;
                    sink.receive(Gone::Run(Run { va, pa, len, attr, page }));
                }
                Entry::Soft(soft) => sink.receive(Gone::Soft(va, soft)),
                Entry::Hole => {}
            }
            i += n;
        }
    }

    /// How many leaves continue the one at entry `i`, itself included. Most runs are short or whole:
    /// one look at the next entry spares the short ones a loop.
    #[inline(always)]
    fn count_run(
        node: Node<'_, F, M>,
        level: Level,
        i: u64,
        entries: u64,
        pattern: Pattern,
    ) -> u64 {
        if i + 1 == entries || node.load(level, i + 1) != pattern.at(1) {
            return 1;
        }
        let most = pattern.longest::<F>(level.shift).min(entries - i);
        // SAFETY: nothing links the subtree, and a gather reaps it only after the flush.
        unsafe { node.count_matching_alone(i, most, pattern) }.max(1)
    }
}

/// The leaf that the group from entry `i` on is, and how many entries are of it or of groups that
/// continue it.
fn joined_groups<F: Format, M: Memory>(
    node: Node<'_, F, M>,
    level: Level,
    i: u64,
    entries: u64,
) -> (Entry, u64) {
    let first = group::leaf(node, level, i);
    let mut n = 1 << level.group;
    let Entry::Leaf(pa, attr) = first else { return (first, n) };
    while i + n < entries && F::is_grouped(node.load(level, i + n), level.shift) {
        let next = Entry::Leaf(pa.wrapping_add(n << level.shift), attr);
        if group::leaf(node, level, i + n) != next {
            break;
        }
        n += 1 << level.group;
    }
    (first, n)
}

/// A node of the subtree: where it lies, its level, and the low bits of its first address.
#[derive(Clone, Copy)]
struct At {
    pa: PhysAddr,
    depth: usize,
    base: u64,
}

impl<F: Format, M: Memory> Reap for Detached<F, M> {
    fn reap(self, sink: &mut impl FnMut(Gone)) {
        self.give_back(sink);
    }

    fn discard(self) {
        self.give_back(&mut Nobody);
    }
}

impl<F: Format, M> fmt::Debug for Detached<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let va: VirtAddr = F::CANONICAL.extend(self.base);
        write!(f, "Detached(level {} at {}, from {va})", self.depth, self.pa)
    }
}
