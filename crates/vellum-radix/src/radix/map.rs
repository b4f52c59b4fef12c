//! Mapping a run: node by node, each checked before its first store.
//!
//! ```text
//!   run        |-------------------------------------------|
//!   nodes      | pages | 2 MiB leaves ...          | pages |
//!   a step       fill     fill                        graft      fill: an existing node
//!                                                                graft: a new branch, filled
//!                                                                before it is linked
//! ```
//!
//! A step covers at most one node. Either all of its stores happen or none: what could fail (a
//! conflict, an encoding, memory) is found before.

use super::change::make_room;
use super::node::{self, Node, Slot, index};
use super::{Detached, MAX_DEPTH, Radix};
use crate::format::{Decoded, Format, Level};
use arrayvec::ArrayVec;
use core::ops::ControlFlow;
use vellum_core::{
    Cause, Entry, Gather, Memory, OutOfFrames, PAGE_SHIFT, PhysAddr, RangeError, Run, Span,
};

/// Whether a leaf of this level can be the next of the run.
fn fits(run: &Run, level: Level) -> bool {
    level.leaf
        && level.shift <= run.page
        && run.va.is_aligned(level.shift)
        && run.pa.is_aligned(level.shift)
        && run.len >> level.shift > 0
}

/// How many leaves of this level the run fills in the node that its first address is in.
fn leaves_in_node(run: &Run, level: Level) -> u64 {
    ((1 << level.bits) - index(run.va, level)).min(run.len >> level.shift)
}

/// The entry for leaf `i` of the run.
fn leaf<F: Format>(run: &Run, level: Level, i: u64) -> Result<u64, Cause> {
    let pa = run.pa.wrapping_add(i << level.shift);
    F::encode(Entry::Leaf(pa, run.attr), level.shift)
}

impl<F: Format, M: Memory> Radix<F, M> {
    pub(super) fn map_run<G: Gather<Detached<F, M>>>(
        &mut self,
        run: Run,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        Self::check(run.va, run.len)?;
        check_frames::<F>(&run)?;
        let mut done = 0;
        while done < run.len {
            done += self
                .map_step(run.skip(done), gather)
                .map_err(|cause| RangeError { cause, done })?;
        }
        Ok(())
    }

    /// Maps the beginning of the run, at most to the end of a node; how many bytes.
    fn map_step<G: Gather<Detached<F, M>>>(
        &mut self,
        run: Run,
        gather: &mut G,
    ) -> Result<u64, Cause> {
        let mut node = self.node(self.root);
        let mut link = None;
        let mut depth = 0;
        loop {
            let level = F::LEVELS[depth];
            if fits(&run, level) {
                return self.fill(node, depth, link, &run, gather);
            }
            let slot = node.slot_of(run.va, level);
            match F::decode(slot.load(), level.shift) {
                Decoded::Table(pa) => {
                    node = self.node(pa);
                    link = Some(slot);
                    depth += 1;
                }
                Decoded::Entry(Entry::Hole) => return self.graft(slot, depth, link, &run),
                Decoded::Entry(entry) => {
                    let va = run.va.align_down(level.shift);
                    return Err(Cause::Mapped(Span { va, len: 1 << level.shift, entry }));
                }
            }
        }
    }

    /// Fills entries of an existing node with leaves.
    fn fill<G: Gather<Detached<F, M>>>(
        &self,
        node: Node<'_, M>,
        depth: usize,
        link: Option<Slot<'_, M>>,
        run: &Run,
        gather: &mut G,
    ) -> Result<u64, Cause> {
        let level = F::LEVELS[depth];
        let (first, count) = (index(run.va, level), leaves_in_node(run, level));
        let mut holes = 0;
        for i in 0..count {
            leaf::<F>(run, level, i)?;
            let va = run.va.wrapping_add(i << level.shift);
            let raw = node.slot(first + i).load();
            match F::decode(raw, level.shift) {
                Decoded::Entry(Entry::Hole) => holes += 1,
                Decoded::Entry(entry) => {
                    return Err(Cause::Mapped(Span { va, len: 1 << level.shift, entry }));
                }
                Decoded::Table(_) if F::count(raw) == 0 => {}
                // All under the entry is within the run, so anything there is in the way; but it
                // may be nodes that `&self` has emptied.
                Decoded::Table(_) => {
                    let mut found = None;
                    self.visit_runs(va, 1 << level.shift, &mut |span| {
                        found = Some(span);
                        ControlFlow::Break(())
                    });
                    if let Some(span) = found {
                        return Err(Cause::Mapped(span));
                    }
                }
            }
        }
        // Before the stores: a count may be too high, and never too low.
        self.note_more(link, holes);
        for i in 0..count {
            let slot = node.slot(first + i);
            let va = run.va.wrapping_add(i << level.shift);
            let emptied = F::decode(slot.load(), level.shift);
            if let Decoded::Table(pa) = emptied {
                make_room(gather);
                slot.store(leaf::<F>(run, level, i)?);
                self.detach(pa, depth + 1, va, gather);
            } else {
                slot.store(leaf::<F>(run, level, i)?);
            }
        }
        Ok(count << level.shift)
    }

    /// Builds the branch that is missing under `slot`, with leaves of the run in its lowest node,
    /// and links it.
    fn graft(
        &self,
        slot: Slot<'_, M>,
        depth: usize,
        link: Option<Slot<'_, M>>,
        run: &Run,
    ) -> Result<u64, Cause> {
        let below = &F::LEVELS[depth + 1..];
        let target = below.iter().position(|&level| fits(run, level)).unwrap_or(below.len() - 1);
        let branch = self.alloc_branch(&below[..=target])?;
        let level = below[target];
        let (first, count) = (index(run.va, level), leaves_in_node(run, level));
        // From the lowest node upwards; nobody can see them before the last store.
        let mut entries = count;
        let mut child = None;
        for (&pa, &level) in branch.iter().zip(below).rev() {
            let node = self.node(pa);
            match child {
                None => {
                    for i in 0..count {
                        match leaf::<F>(run, level, i) {
                            Ok(raw) => node.slot(first + i).store(raw),
                            Err(cause) => {
                                self.free_branch(&branch, below);
                                return Err(cause);
                            }
                        }
                    }
                }
                Some(child) => {
                    node.slot_of(run.va, level).store(table_entry::<F>(child, entries));
                    entries = 1;
                }
            }
            child = Some(pa);
        }
        if let Some(top) = child {
            slot.store(table_entry::<F>(top, entries));
            self.note_more(link, 1);
        }
        Ok(count << level.shift)
    }

    /// One node a level, or none at all.
    fn alloc_branch(&self, levels: &[Level]) -> Result<ArrayVec<PhysAddr, MAX_DEPTH>, OutOfFrames> {
        let mut branch = ArrayVec::new();
        for &level in levels {
            match node::alloc(&self.mem, level) {
                Ok(pa) => branch.push(pa),
                Err(e) => {
                    self.free_branch(&branch, levels);
                    return Err(e);
                }
            }
        }
        Ok(branch)
    }

    fn free_branch(&self, branch: &[PhysAddr], levels: &[Level]) {
        for (&pa, &level) in branch.iter().zip(levels) {
            // SAFETY: taken for this level by `alloc_branch`, and not linked yet.
            unsafe { node::free(&self.mem, pa, level) };
        }
    }

    /// Notes that the node which `link` links has `n` more entries that are not holes.
    pub(super) fn note_more(&self, link: Option<Slot<'_, M>>, n: u64) {
        if let Some(link) = link {
            link.store(link.load().wrapping_add(F::ONE_MORE.wrapping_mul(n)));
        }
    }
}

/// The entry that links a node of so many entries.
fn table_entry<F: Format>(pa: PhysAddr, entries: u64) -> u64 {
    F::table_entry(pa, u16::try_from(entries).unwrap_or(u16::MAX))
}

/// Refuses frames and attributes that no leaf of the run could hold.
fn check_frames<F: Format>(run: &Run) -> Result<(), Cause> {
    if run.page < PAGE_SHIFT {
        return Err(Cause::NoLeaf { page: run.page });
    }
    let Some(pages) = run.len.checked_sub(1).map(|last| last >> PAGE_SHIFT) else {
        return Ok(());
    };
    let encode = |pa| F::encode(Entry::Leaf(pa, run.attr), PAGE_SHIFT);
    encode(run.pa)?;
    let last = run.pa.checked_add(pages << PAGE_SHIFT).ok_or(Cause::PhysTooWide(run.pa))?;
    encode(last).map(drop)
}
