//! Making small leaves of a large one.
//!
//! ```text
//!   before   | L 2 MiB |          after   | T | --> | L | L | L | ... | L |   512, count 512
//! ```
//!
//! The new node is filled before it is linked, so that a walker finds the same mapping at every
//! moment; but where the format demands break-before-make, the large leaf goes first, is flushed,
//! and the pages fault until the node is there.

use super::change::make_room;
use super::group::Group;
use super::node::{self, Link, Pattern, index};
use super::{Detached, Radix};
use crate::format::{Decoded, Format};
use vellum_core::{Attr, Cause, Entry, Flush, Gather, Memory, PAGE_SHIFT, PhysAddr, VirtAddr};

impl<F: Format, M: Memory> Radix<F, M> {
    /// Splits the leaf at `va`, if it is larger than 2<sup>`page`</sup> bytes, until none there is;
    /// other places keep the largest leaves that they can have. A hole stays one.
    ///
    /// # Errors
    ///
    /// [`Cause::NonCanonical`], [`Cause::Shared`], [`Cause::NoLeaf`] for a size that the format
    /// does not have or [`Cause::OutOfFrames`]; what was split by then stays split.
    pub fn split<G: Gather<Detached<F, M>>>(
        &mut self,
        va: VirtAddr,
        page: u8,
        gather: &mut G,
    ) -> Result<(), Cause> {
        if page > 63 || crate::format::leaves::<F>() >> page & 1 == 0 {
            return Err(Cause::NoLeaf { page });
        }
        self.check_own(va.align_down(PAGE_SHIFT.max(crate::format::base_shift::<F>())), 0)?;
        let mut node = self.node(self.root);
        for depth in 0..F::LEVELS.len() {
            let level = F::LEVELS[depth];
            let at = index(va, level);
            if let Some(group) = Self::group_at(node, level, at, va) {
                if page < level.group_shift() {
                    ungroup(&group, gather)?;
                }
            }
            if level.shift <= page {
                break;
            }
            let link = node.link(level, at);
            let raw = link.slot.load();
            let child = match F::decode(raw, level.shift) {
                Decoded::Table(pa) => pa,
                Decoded::Entry(Entry::Leaf(..)) => {
                    let va = va.align_down(level.shift);
                    self.split_leaf(link, depth, raw, va, gather)?
                }
                Decoded::Entry(_) => break,
            };
            node = self.node(child);
        }
        Ok(())
    }

    /// Turns the large leaf `raw` in a node at `depth` into a node of smaller ones
    /// that map the same, and links that; the node.
    pub(super) fn split_leaf<G: Gather<Detached<F, M>>>(
        &self,
        link: Link<'_, F, M>,
        depth: usize,
        mut raw: u64,
        va: VirtAddr,
        gather: &mut G,
    ) -> Result<PhysAddr, Cause> {
        let (level, below) = (F::LEVELS[depth], F::LEVELS[depth + 1]);
        let child = node::alloc::<F, M>(&self.mem, depth + 1)?;
        let entry = F::table_entry(child, level.shift, !self.is_kernel(va));
        let count = 1 << below.bits;
        let old = match F::decode(raw, level.shift).entry() {
            Entry::Leaf(_, attr) => attr,
            _ => Attr::NONE,
        };
        let must_break = F::BREAKS && G::LIVE && F::needs_break(raw, entry, level.shift);
        if let Err(cause) = self.fill_split(child, depth + 1, raw) {
            // SAFETY: taken above for this level, and not linked.
            unsafe { node::free::<F, M>(&self.mem, child, depth + 1) };
            return Err(cause);
        }
        if must_break {
            let last = link.slot.swap(0);
            gather.stale(Flush::new(va, 1 << level.shift, level.shift, old));
            gather.drain();
            if last != raw {
                // The same leaf with more status: it encoded before, and does again.
                let _ = self.fill_split(child, depth + 1, last);
            }
            link.set(entry, count);
            if let Some(scope) = F::fresh(level.shift) {
                gather.stale(Flush::new(va, 1 << level.shift, below.shift, old).with_scope(scope));
            }
        } else {
            // A bit that hardware sets in the large leaf meanwhile must reach the small ones.
            while let Err(now) = link.exchange(raw, entry, count) {
                raw = now;
                let _ = self.fill_split(child, depth + 1, raw);
            }
            // In pages: what an invalidation of one address of a leaf reaches goes by the size
            // that the table says now (SDM vol. 3A, 5.10.4.1).
            gather.stale(Flush::new(va, 1 << level.shift, crate::format::base_shift::<F>(), old));
        }
        Ok(child)
    }

    /// Fills a node of level `depth`, which is not linked, with leaves that map what the large leaf
    /// `raw` of the level above does.
    fn fill_split(&self, child: PhysAddr, depth: usize, raw: u64) -> Result<(), Cause> {
        let (above, level) = (F::LEVELS[depth - 1], F::LEVELS[depth]);
        let raw = F::encode(F::decode(raw, above.shift).entry(), level.shift)?;
        let step = if raw == 0 { 0 } else { F::step(level.shift) };
        // SAFETY: taken for this level by the caller, and not linked yet.
        unsafe { self.node(child).init(depth, 0, 1 << level.bits, Pattern { raw, step }) };
        Ok(())
    }
}

fn ungroup<F: Format, M: Memory, G: Gather<Detached<F, M>>>(
    group: &Group<'_, F, M>,
    gather: &mut G,
) -> Result<(), Cause> {
    make_room(gather);
    group.remake(|attr| attr, false, gather)
}
