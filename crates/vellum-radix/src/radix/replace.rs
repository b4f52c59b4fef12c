//! The compare-and-set of one leaf, by any number of threads beside hardware.
//!
//! ```text
//!   down     table -> follow      hole -> link a node of the stock by compare-and-set, follow;
//!                                         if somebody was faster, follow theirs
//!   at the   entry is expected?   no  -> Changed(what it is)
//!   leaf                          yes -> compare-and-set; if it moved under us, look again
//! ```
//!
//! A node's count goes up before its entry is filled and down after one was emptied, so that it
//! is never too low: below zero it would borrow from the bits above it.

use super::change::make_room;
use super::node::Slot;
use super::{Detached, Radix, Stock};
use crate::format::{Decoded, Format, Level};
use vellum_core::{Attr, Cause, Entry, Flush, Gather, Memory, Need, ReplaceError, Run, VirtAddr};

/// A leaf's place, and the link to the node that it is in.
struct Target<'m, M> {
    slot: Slot<'m, M>,
    link: Option<Slot<'m, M>>,
}

impl<F: Format, M: Memory> Radix<F, M> {
    pub(super) fn replace_one<G: Gather<Detached<F, M>>>(
        &self,
        (va, len): (VirtAddr, u64),
        expect: Entry,
        new: Entry,
        stock: &mut Stock<F, M>,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        let depth = leaf_depth::<F>(len)?;
        let level = F::LEVELS[depth];
        F::CANONICAL.check(va, len, level.shift)?;
        if matches!(new, Entry::Soft(_)) && depth + 1 < F::LEVELS.len() {
            return Err(Cause::NoLeaf { page: level.shift }.into());
        }
        let raw = F::encode(new, level.shift)?;
        match self.descend(va, depth, expect, new, stock)? {
            Some(target) => exchange::<F, M, G>(&target, (va, level), expect, (new, raw), gather),
            None => Ok(()),
        }
    }

    /// The entry of level `target` for `va`, with every node on the way to it; `None` where a hole
    /// is to stay one.
    fn descend(
        &self,
        va: VirtAddr,
        target: usize,
        expect: Entry,
        new: Entry,
        stock: &mut Stock<F, M>,
    ) -> Result<Option<Target<'_, M>>, ReplaceError> {
        let mut node = self.node(self.root);
        let mut link = None;
        let mut depth = 0;
        loop {
            let level = F::LEVELS[depth];
            let slot = node.slot_of(va, level);
            if depth == target {
                return Ok(Some(Target { slot, link }));
            }
            match F::decode(slot.load(), level.shift) {
                Decoded::Table(pa) => {
                    node = self.node(pa);
                    link = Some(slot);
                    depth += 1;
                }
                Decoded::Entry(Entry::Hole) if expect != Entry::Hole => {
                    return Err(ReplaceError::Changed(Entry::Hole));
                }
                Decoded::Entry(Entry::Hole) if new == Entry::Hole => return Ok(None),
                Decoded::Entry(Entry::Hole) => self.link_node(slot, link, target - depth, stock)?,
                Decoded::Entry(_) => return Err(ReplaceError::Structure),
            }
        }
    }

    /// Links an empty node of the stock into a hole, unless somebody has just linked another.
    /// `missing` nodes are needed to get down to the leaf; without them nothing is begun. What
    /// another memory's table put into the stock does not count.
    fn link_node(
        &self,
        slot: Slot<'_, M>,
        link: Option<Slot<'_, M>>,
        missing: usize,
        stock: &mut Stock<F, M>,
    ) -> Result<(), ReplaceError> {
        if stock.nodes.len() < missing || stock.mem != self.mem {
            return Err(ReplaceError::Need(Need::new(u32::try_from(missing).unwrap_or(u32::MAX))));
        }
        let Some(&pa) = stock.nodes.last() else { return Ok(()) };
        if let Some(link) = link {
            link.fetch_add(F::ONE_MORE);
        }
        if slot.compare_exchange(0, F::table_entry(pa, 0)).is_ok() {
            stock.nodes.pop();
        } else if let Some(link) = link {
            link.fetch_sub(F::ONE_MORE);
        }
        Ok(())
    }
}

/// The level whose leaves have `len` bytes, counted from the root.
fn leaf_depth<F: Format>(len: u64) -> Result<usize, Cause> {
    let page = len.checked_ilog2().and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    let is_leaf = |level: &Level| level.leaf && 1 << level.shift == len;
    F::LEVELS.iter().position(is_leaf).ok_or(Cause::NoLeaf { page })
}

fn exchange<F: Format, M: Memory, G: Gather<Detached<F, M>>>(
    target: &Target<'_, M>,
    (va, level): (VirtAddr, Level),
    expect: Entry,
    (new, new_raw): (Entry, u64),
    gather: &mut G,
) -> Result<(), ReplaceError> {
    let Target { slot, link } = *target;
    loop {
        let raw = slot.load();
        let Decoded::Entry(old) = F::decode(raw, level.shift) else {
            return Err(ReplaceError::Structure);
        };
        if !old.same_but_status(expect) {
            return Err(ReplaceError::Changed(old));
        }
        let same_frame = match (old, new) {
            (Entry::Leaf(old, _), Entry::Leaf(new, _)) => old == new,
            _ => false,
        };
        let stored = if same_frame { new_raw | raw & F::status(Attr::STATUS) } else { new_raw };
        if stored == raw {
            return Ok(());
        }
        make_room(gather);
        let fills = old == Entry::Hole;
        if let Some(link) = link.filter(|_| fills) {
            link.fetch_add(F::ONE_MORE);
        }
        let swapped = slot.compare_exchange(raw, stored);
        let emptied = swapped.is_ok() && new == Entry::Hole;
        if let Some(link) = link.filter(|_| emptied || fills && swapped.is_err()) {
            link.fetch_sub(F::ONE_MORE);
        }
        if swapped.is_err() {
            continue;
        }
        let len = 1 << level.shift;
        match old {
            Entry::Leaf(_, attr) if same_frame => {
                let narrowed = match new {
                    Entry::Leaf(_, new) => attr.narrows_to(new | (attr & Attr::STATUS)),
                    _ => false,
                };
                if narrowed {
                    gather.stale(Flush::new(va, len, level.shift, attr));
                }
            }
            Entry::Leaf(pa, attr) => gather.leaf(Run { va, pa, len, attr, page: level.shift }),
            Entry::Soft(soft) => gather.soft(va, soft),
            Entry::Hole => {}
        }
        return Ok(());
    }
}
