//! Making a large leaf of small ones.
//!
//! ```text
//!   before   | T | --> | L | L | ... | L |     same attributes, frames that follow each other
//!   after    | L 2 MiB |                        accessed and dirty if any of them was
//! ```
//!
//! Live, the node is unlinked and flushed first: only then is the status of its leaves final, and
//! no processor has a small and the large translation of one address at a time. The pages fault
//! meanwhile.

use super::change::{check_any_status, make_room};
use super::node::{self, Node, index};
use super::{Detached, Radix};
use crate::format::{Decoded, Format, Level};
use vellum_core::{Attr, Cause, Entry, Flush, Gather, Memory, PAGE_SHIFT, PhysAddr, VirtAddr};

impl<F: Format, M: Memory> Radix<F, M> {
    /// Makes one leaf of 2<sup>`page`</sup> bytes of what maps them at `va`, level by level.
    /// A leaf of that size or larger stays as it is.
    ///
    /// # Errors
    ///
    /// [`Cause::Uneven`] where the pages do not make one leaf; [`Cause::Misaligned`] for an address
    /// that is not a multiple of the size; [`Cause::NoLeaf`] for a size that no single entry has;
    /// [`Cause::NonCanonical`], [`Cause::Shared`]. Smaller ones may have been collapsed by then;
    /// what is mapped is the same.
    pub fn collapse<G: Gather<Detached<F, M>>>(
        &mut self,
        va: VirtAddr,
        page: u8,
        gather: &mut G,
    ) -> Result<(), Cause> {
        let is_target = |level: &Level| level.leaf && level.shift == page;
        let target = F::LEVELS.iter().position(is_target).ok_or(Cause::NoLeaf { page })?;
        F::CANONICAL.check(va, 0, page)?;
        self.half.check::<F>(va, 1 << page)?;
        if self.half.leaf_room(target, index(va, F::LEVELS[target])) == 0 {
            return Err(Cause::Shared(va));
        }
        let mut node = self.node(self.root);
        for level in &F::LEVELS[..target] {
            match F::decode(node.slot(index(va, *level)).load(), level.shift) {
                Decoded::Table(pa) => node = self.node(pa),
                Decoded::Entry(Entry::Leaf(..)) => return Ok(()),
                Decoded::Entry(_) => return Err(Cause::Uneven(va)),
            }
        }
        self.collapse_entry(node, target, va, gather)
    }

    /// Collapses what is under the entry for `va` of a node at `depth`.
    fn collapse_entry<G: Gather<Detached<F, M>>>(
        &self,
        node: Node<'_, F, M>,
        depth: usize,
        va: VirtAddr,
        gather: &mut G,
    ) -> Result<(), Cause> {
        let level = F::LEVELS[depth];
        let link = node.link(level, index(va, level));
        let child = match F::decode(link.slot.load(), level.shift) {
            Decoded::Entry(Entry::Leaf(..)) => return Ok(()),
            Decoded::Entry(_) => return Err(Cause::Uneven(va)),
            Decoded::Table(_) if Self::is_shared(depth, link.slot.load()) => {
                return Err(Cause::Shared(va));
            }
            Decoded::Table(pa) => pa,
        };
        let (below, small) = (self.node(child), F::LEVELS[depth + 1]);
        for i in 0..1u64 << small.bits {
            let at = va.wrapping_add(i << small.shift);
            let raw = below.slot(i).load();
            if let Decoded::Table(_) = F::decode(raw, small.shift) {
                self.collapse_entry(below, depth + 1, at, gather)?;
            }
        }
        // All must fit before anything changes; status is read again when it is final.
        let (pa, attr) = even(below, small, level, va)?;
        check_any_status::<F>(pa, |status| attr | status, level.shift)?;
        if G::LIVE {
            link.clear();
            gather.stale(Flush::tables(va, 1 << level.shift, self.may_be_global()));
            gather.drain();
        }
        let (pa, attr) = even(below, small, level, va)?;
        let raw = F::encode(Entry::Leaf(pa, attr), level.shift)?;
        link.set(raw, 0);
        make_room(gather);
        // Its leaves live on in the large one: what is given away is a node without any. This flush is
        // wider than what a fresh leaf may need.
        self.detach_first((child, false), (depth + 1, 0), va, gather);
        Ok(())
    }

    /// Gives back the nodes of a branch, the first of level `depth`, that nothing links.
    pub(super) fn free_branch(&self, branch: &[PhysAddr], depth: usize) {
        for (i, &pa) in branch.iter().enumerate() {
            // SAFETY: the caller took it for this level, and did not link it.
            unsafe { node::free::<F, M>(&self.mem, pa, depth + i) };
        }
    }
}

/// The one leaf of `level` that the leaves of a node make, with the status of all of them.
fn even<F: Format, M: Memory>(
    node: Node<'_, F, M>,
    small: Level,
    level: Level,
    va: VirtAddr,
) -> Result<(PhysAddr, Attr), Cause> {
    let mut whole: Option<(PhysAddr, Attr)> = None;
    for i in 0..1u64 << small.bits {
        let at = va.wrapping_add(i << small.shift);
        let raw = node.slot(i).load();
        let mut entry = F::decode(raw, small.shift).entry();
        if small.group > 0 && F::is_grouped(raw, small.shift) {
            let within = (i & ((1 << small.group) - 1)) << small.shift;
            if let Entry::Leaf(pa, attr) = F::decode(raw, small.group_shift()).entry() {
                entry = Entry::Leaf(pa.wrapping_add(within), attr);
            }
        }
        let Entry::Leaf(pa, attr) = entry else { return Err(Cause::Uneven(at)) };
        whole = Some(match whole {
            None if pa.is_aligned(level.shift) => (pa, attr),
            Some((first, all))
                if first.wrapping_add(i << small.shift) == pa
                    && all - Attr::STATUS == attr - Attr::STATUS =>
            {
                (first, all | (attr & Attr::STATUS))
            }
            _ => return Err(Cause::Uneven(at)),
        });
    }
    whole.ok_or(Cause::Uneven(va.align_down(PAGE_SHIFT)))
}
