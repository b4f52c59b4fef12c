//! Mapping frames that do not follow each other, one page each.
//!
//! ```text
//!   va:      | 0 | 1 | 2 | 3 | ...          a node is found once, then filled as long as its
//!   frames     7   90  12  4   ...          entries are holes and frames come
//! ```
//!
//! A frame is taken from the iterator only when there is a place for it.

use super::change::settle_breaks;
use super::map::Missing;
use super::node::index;
use super::{Detached, Radix};
use crate::format::{Decoded, Format, base_shift};
use vellum_core::{Attr, Cause, Entry, Gather, Memory, PhysAddr, RangeError, Run, VirtAddr};

impl<F: Format, M: Memory> Radix<F, M> {
    /// Maps the pages of a range to the frames of an iterator, in order, with the smallest leaves;
    /// until the range or the iterator ends. Returns how many bytes were mapped.
    ///
    /// # Errors
    ///
    /// As [`map`](vellum_core::PageTable::map). For each page before `done` one frame was taken,
    /// and none after it, but one that was itself refused: [`Cause::Misaligned`] and
    /// [`Cause::PhysTooWide`] name it.
    pub fn map_frames<G: Gather<Detached<F, M>>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        attr: Attr,
        frames: &mut impl Iterator<Item = PhysAddr>,
        gather: &mut G,
    ) -> Result<u64, RangeError> {
        self.check_own(va, len)?;
        F::encode(Entry::Leaf(PhysAddr::new(0), attr), const { base_shift::<F>() })?;
        self.admit((va, len), attr)?;
        settle_breaks::<F, M, G>(gather);
        let mut done = 0;
        while done < len {
            let rest = (va.wrapping_add(done), len - done);
            let (mapped, result) = self.map_frames_step(rest, attr, frames, gather);
            done += mapped;
            if !result.map_err(|cause| RangeError { cause, done })? {
                break;
            }
        }
        Ok(done)
    }

    /// Maps pages up to the end of a node; how many bytes, and whether there may be more frames.
    fn map_frames_step<G: Gather<Detached<F, M>>>(
        &self,
        (va, len): (VirtAddr, u64),
        attr: Attr,
        frames: &mut impl Iterator<Item = PhysAddr>,
        gather: &mut G,
    ) -> (u64, Result<bool, Cause>) {
        let mut node = self.node(self.root);
        let mut link = None;
        let mut missing = None;
        let mut depth = 0;
        while depth + 1 < F::LEVELS.len() {
            let level = F::LEVELS[depth];
            let at = index(va, level);
            let next = node.link(level, at);
            let raw = next.slot.load();
            match F::decode(raw, level.shift) {
                Decoded::Table(_) if Self::is_shared(depth, raw) => {
                    return (0, Err(Cause::Shared(va)));
                }
                Decoded::Table(pa) => {
                    node = self.node(pa);
                    link = Some(next);
                    depth += 1;
                }
                Decoded::Entry(Entry::Hole) => {
                    missing = Some(Missing { above: next, depth, at, link });
                    break;
                }
                Decoded::Entry(_) => return (0, Err(Cause::Mapped(self.span_at(va)))),
            }
        }
        let page = const { base_shift::<F>() };
        let level = F::LEVELS[F::LEVELS.len() - 1];
        let first = index(va, level);
        let count = ((1 << level.bits) - first).min(len >> page);
        if let Some(missing) = missing {
            return self.graft_frame(&missing, va, attr, frames, gather);
        }
        let (mut i, mut result) = (0, Ok(true));
        while i < count {
            let slot = node.slot(first + i);
            let va = va.wrapping_add(i << page);
            if slot.load() != 0 {
                result = Err(Cause::Mapped(self.span_at(va)));
                break;
            }
            let Some(pa) = frames.next() else {
                result = Ok(false);
                break;
            };
            match F::encode(Entry::Leaf(pa, attr), page) {
                Ok(raw) => {
                    if let Some(link) = link {
                        link.add(1);
                    }
                    slot.store(raw);
                }
                Err(cause) => {
                    result = Err(cause);
                    break;
                }
            }
            i += 1;
        }
        if i > 0 {
            self.owe_fresh(
                &Run::new(va, PhysAddr::new(0), i << page, attr),
                page,
                i << page,
                gather,
            );
        }
        (i << page, result)
    }

    /// Links a new branch with one page in it.
    fn graft_frame<G: Gather<Detached<F, M>>>(
        &self,
        missing: &Missing<'_, F, M>,
        va: VirtAddr,
        attr: Attr,
        frames: &mut impl Iterator<Item = PhysAddr>,
        gather: &mut G,
    ) -> (u64, Result<bool, Cause>) {
        let page = const { base_shift::<F>() };
        let last = F::LEVELS.len() - 1;
        let branch = match self.alloc_branch(missing.depth + 1, last) {
            Ok(branch) => branch,
            Err(e) => return (0, Err(e.into())),
        };
        let Some(pa) = frames.next() else {
            self.free_branch(&branch, missing.depth + 1);
            return (0, Ok(false));
        };
        let run = Run { va, pa, len: 1 << page, attr, page };
        match self.graft_branch(missing, &branch, &run, last, gather) {
            Ok(len) => (len, Ok(true)),
            Err(cause) => {
                self.free_branch(&branch, missing.depth + 1);
                (0, Err(cause))
            }
        }
    }
}
