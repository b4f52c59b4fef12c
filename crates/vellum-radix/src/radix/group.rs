//! Aligned neighbours that are one leaf together: Arm's contiguous hint, RISC-V's Svnapot.
//!
//! ```text
//!    entries    0 .. 15  | 16 .. 31       | 32 ..
//!               pages    | one 64 KiB leaf| ...
//!                          ^ each says so; hardware may set accessed and dirty in any of them
//! ```
//!
//! What the group's status is, is what any of its entries has. A group changes as a whole, or is
//! taken apart first; either way by break, flush and make, since no two of its entries may
//! disagree while a walker can see them. That takes `&mut self`: [`replace`] answers `Structure`.
//!
//! [`replace`]: vellum_core::PageTable::replace
//!
//! Source: Arm ARM DDI 0487, "The Contiguous bit"; RISC-V Privileged Architecture, "Svnapot".

use super::Radix;
use super::change::check_any_status;
use super::node::{Node, Pattern};
use crate::format::{Format, Level};
use vellum_core::{Attr, Cause, Entry, Flush, Gather, Memory, PhysAddr, Run, VirtAddr};

/// The entries of one group: `first` is the index of the first of them.
#[derive(Clone, Copy)]
pub(super) struct Group<'m, F, M> {
    pub(super) node: Node<'m, F, M>,
    pub(super) level: Level,
    pub(super) first: u64,
    /// The first address that it translates.
    pub(super) va: VirtAddr,
}

/// The whole leaf that entry `index` is part of, with the status of all of them.
pub(super) fn leaf<F: Format, M: Memory>(node: Node<'_, F, M>, level: Level, index: u64) -> Entry {
    let first = index & !((1 << level.group) - 1);
    let mut whole = Entry::Hole;
    for i in first..first + (1 << level.group) {
        let entry = F::decode(node.slot(i).load(), level.group_shift()).entry();
        whole = match (whole, entry) {
            (Entry::Leaf(pa, attr), Entry::Leaf(_, other)) => {
                Entry::Leaf(pa, attr | (other & Attr::STATUS))
            }
            (Entry::Hole, first) => first,
            (whole, _) => whole,
        };
    }
    whole
}

impl<F: Format, M: Memory> Group<'_, F, M> {
    const fn len(&self) -> u64 {
        1 << self.level.group_shift()
    }

    fn count(&self) -> u64 {
        1 << self.level.group
    }

    /// The leaf as it is now.
    pub(super) fn leaf(&self) -> Entry {
        leaf(self.node, self.level, self.first)
    }

    /// Clears all entries; the leaf that they were, with its status up to the moment.
    fn clear(&self, live: bool) -> Option<(PhysAddr, Attr)> {
        let page = self.level.group_shift();
        let mut whole = None;
        for i in self.first..self.first + self.count() {
            let slot = self.node.slot(i);
            let raw = if live { slot.swap(0) } else { slot.load() };
            slot.store(0);
            if let Entry::Leaf(pa, attr) = F::decode(raw, page).entry() {
                let (pa, all) = whole.unwrap_or((pa, attr));
                whole = Some((pa, all | (attr & Attr::STATUS)));
            }
        }
        whole
    }

    /// Removes the leaf, into the gather, which has room.
    pub(super) fn unmap<D, G: Gather<D>>(&self, gather: &mut G) {
        if let Some((pa, attr)) = self.clear(G::LIVE) {
            let page = self.level.group_shift();
            gather.leaf(Run { va: self.va, pa, len: self.len(), attr, page });
            // A hint: a TLB may hold the entries one by one.
            gather.stale(Flush::new(self.va, self.len(), self.level.shift, attr));
        }
    }

    /// Makes of the leaf entries of their own, or a group again, with `change` made to its
    /// attributes; between break and make the pages fault.
    ///
    /// # Errors
    ///
    /// What the format says of the new attributes; nothing has changed then.
    pub(super) fn remake<D, G: Gather<D>>(
        &self,
        change: impl Fn(Attr) -> Attr,
        grouped: bool,
        gather: &mut G,
    ) -> Result<(), Cause> {
        let page = if grouped { self.level.group_shift() } else { self.level.shift };
        if let Entry::Leaf(pa, attr) = self.leaf() {
            check_any_status::<F>(pa, |status| change(attr | status), page)?;
        }
        let Some((pa, attr)) = self.clear(G::LIVE) else { return Ok(()) };
        gather.stale(Flush::new(self.va, self.len(), self.level.shift, attr));
        gather.drain();
        let raw = F::encode(Entry::Leaf(pa, change(attr)), page)?;
        self.node.store_run(self.first, self.count(), Pattern { raw, step: F::step(page) });
        if let (true, Some(scope)) = (G::LIVE, F::fresh(self.level.shift)) {
            let fresh = Flush::new(self.va, self.len(), self.level.shift, attr);
            gather.stale(fresh.with_scope(scope));
        }
        Ok(())
    }
}

impl<F: Format, M: Memory> Radix<F, M> {
    /// The group that entry `index` of a node is part of, if it is of one.
    #[inline]
    pub(super) fn group_at<'m>(
        node: Node<'m, F, M>,
        level: Level,
        index: u64,
        va: VirtAddr,
    ) -> Option<Group<'m, F, M>> {
        if level.group == 0 || !F::is_grouped(node.slot(index).load(), level.shift) {
            return None;
        }
        let first = index & !((1 << level.group) - 1);
        Some(Group { node, level, first, va: va.align_down(level.group_shift()) })
    }
}
