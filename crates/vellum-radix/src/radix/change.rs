//! Unmapping and protecting a range, by one descent that both share.
//!
//! ```text
//!   range             |=========================|
//!   entry     |  leaf | leaf  | table   | table  | ...
//!             ^ part: ^ whole:  whole:    part: descend; if its node
//!             | split | change  unmap detaches   is empty afterwards,
//!             | first | it      the subtree      detach it
//! ```
//!
//! # Invariants
//!
//! - When an edit fails at an entry, everything before it was changed and nothing from it on; the
//!   counts are right all the same.

use super::node::{Node, Slot, index};
use super::{Detached, Radix, node};
use crate::format::{Decoded, Format};
use vellum_core::{
    Attr, Cause, Change, Entry, Flush, Gather, Memory, PhysAddr, RangeError, Run, VirtAddr,
};

/// What happens to entries that lie in the range whole.
pub(super) trait Edit {
    /// Whether whole subtrees go.
    const DETACH: bool;

    /// Whether this leaf would be the same afterwards, so that a part of it needs no split.
    fn keeps(&self, attr: Attr) -> bool;

    /// Changes a leaf or a soft entry; `true` if it has become a hole.
    fn edit<F: Format, M: Memory, G: Gather<Detached<F, M>>>(
        &mut self,
        at: &Place<'_, M>,
        raw: u64,
        gather: &mut G,
    ) -> Result<bool, Cause>;
}

/// An entry, and what it translates: 2<sup>`page`</sup> bytes from `va`.
pub(super) struct Place<'m, M> {
    slot: Slot<'m, M>,
    va: VirtAddr,
    page: u8,
}

/// Removes.
pub(super) struct Unmap;

/// Changes attributes.
pub(super) struct Protect(pub(super) Change);

impl Edit for Unmap {
    const DETACH: bool = true;

    fn keeps(&self, _: Attr) -> bool {
        false
    }

    fn edit<F: Format, M: Memory, G: Gather<Detached<F, M>>>(
        &mut self,
        at: &Place<'_, M>,
        raw: u64,
        gather: &mut G,
    ) -> Result<bool, Cause> {
        make_room(gather);
        let last = if G::LIVE && !F::is_quiet(raw) {
            at.slot.swap(0)
        } else {
            at.slot.store(0);
            raw
        };
        match F::decode(last, at.page).entry() {
            Entry::Leaf(pa, attr) => {
                gather.leaf(Run { va: at.va, pa, len: 1 << at.page, attr, page: at.page });
            }
            Entry::Soft(soft) => gather.soft(at.va, soft),
            Entry::Hole => {}
        }
        Ok(true)
    }
}

impl Edit for Protect {
    const DETACH: bool = false;

    fn keeps(&self, attr: Attr) -> bool {
        self.0.apply(attr) == attr
    }

    fn edit<F: Format, M: Memory, G: Gather<Detached<F, M>>>(
        &mut self,
        at: &Place<'_, M>,
        mut raw: u64,
        gather: &mut G,
    ) -> Result<bool, Cause> {
        // Hardware may set accessed or dirty between the load and the store: then once more, from
        // what it is now.
        while let Entry::Leaf(pa, attr) = F::decode(raw, at.page).entry() {
            let new = self.0.apply(attr);
            let changed = F::encode(Entry::Leaf(pa, new), at.page)?;
            let stored = if changed == raw {
                Ok(())
            } else if G::LIVE && !F::is_quiet(raw) {
                at.slot.compare_exchange(raw, changed)
            } else {
                at.slot.store(changed);
                Ok(())
            };
            match stored {
                Ok(()) => {
                    if attr.narrows_to(new) {
                        gather.stale(Flush::new(at.va, 1 << at.page, at.page, attr));
                    }
                    break;
                }
                Err(now) => raw = now,
            }
        }
        Ok(false)
    }
}

/// Sees to it that the gather can take an item. There is no lock here that a drain could meet.
pub(super) fn make_room<D, G: Gather<D>>(gather: &mut G) {
    if gather.room() == 0 {
        gather.drain();
    }
}

/// A part of a range, within one node: the low bits of its first address, and its length.
#[derive(Clone, Copy)]
struct Part {
    low: u64,
    len: u64,
}

impl<F: Format, M: Memory> Radix<F, M> {
    /// Applies an edit to everything in a range that was checked.
    pub(super) fn change<E: Edit, G: Gather<Detached<F, M>>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        edit: &mut E,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        if len == 0 {
            return Ok(());
        }
        let root = self.node(self.root);
        let part = Part { low: va.as_u64(), len };
        let (_, result) = self.change_node(root, 0, part, edit, gather);
        result.map_err(|(cause, at)| RangeError { cause, done: at.wrapping_sub(va.as_u64()) })
    }

    /// How many entries of the node have become holes, and at which address an edit failed.
    fn change_node<E: Edit, G: Gather<Detached<F, M>>>(
        &self,
        node: Node<'_, M>,
        depth: usize,
        part: Part,
        edit: &mut E,
        gather: &mut G,
    ) -> (u64, Result<(), (Cause, u64)>) {
        let level = F::LEVELS[depth];
        let size = 1u64 << level.shift;
        let (mut low, mut left, mut holes) = (part.low, part.len, 0);
        while left > 0 {
            let offset = low & (size - 1);
            let len = left.min(size - offset);
            let va = VirtAddr::new(low);
            let slot = node.slot(index(va, level));
            let at = Place { slot, va: va.align_down(level.shift), page: level.shift };
            match self.change_entry(&at, depth, Part { low, len }, edit, gather) {
                Ok(became_hole) => holes += u64::from(became_hole),
                Err(e) => return (holes, Err(e)),
            }
            low = low.wrapping_add(len);
            left -= len;
        }
        (holes, Ok(()))
    }

    /// Edits the part of one entry that is in the range; `true` if it has become a hole.
    fn change_entry<E: Edit, G: Gather<Detached<F, M>>>(
        &self,
        at: &Place<'_, M>,
        depth: usize,
        part: Part,
        edit: &mut E,
        gather: &mut G,
    ) -> Result<bool, (Cause, u64)> {
        let raw = at.slot.load();
        let whole = part.len == 1 << at.page;
        let child = match F::decode(raw, at.page) {
            Decoded::Entry(Entry::Hole) => return Ok(false),
            Decoded::Table(pa) if whole && E::DETACH => {
                make_room(gather);
                at.slot.store(0);
                self.detach(pa, depth + 1, at.va, gather);
                return Ok(true);
            }
            Decoded::Table(pa) => pa,
            Decoded::Entry(Entry::Leaf(_, attr)) if !whole && edit.keeps(attr) => {
                return Ok(false);
            }
            Decoded::Entry(Entry::Leaf(..)) if !whole => {
                self.split(at, depth, raw, gather).map_err(|cause| (cause, part.low))?
            }
            Decoded::Entry(_) => {
                return edit.edit::<F, M, G>(at, raw, gather).map_err(|cause| (cause, part.low));
            }
        };
        let (holes, result) = self.change_node(self.node(child), depth + 1, part, edit, gather);
        self.note_fewer(at.slot, holes);
        // After a failure an emptied node stays: the next change of the range will find it.
        if result.is_ok() && holes > 0 && F::count(at.slot.load()) == 0 {
            make_room(gather);
            at.slot.store(0);
            self.detach(child, depth + 1, at.va, gather);
            return Ok(true);
        }
        result.map(|()| false)
    }

    /// Turns a large leaf into a node of smaller ones that map the same, and links that; the node.
    fn split<G: Gather<Detached<F, M>>>(
        &self,
        at: &Place<'_, M>,
        depth: usize,
        mut raw: u64,
        gather: &mut G,
    ) -> Result<PhysAddr, Cause> {
        let below = F::LEVELS[depth + 1];
        let child = node::alloc(&self.mem, below)?;
        let node = self.node(child);
        let count = 1u16 << below.bits;
        let entry = F::table_entry(child, count);
        // It stays a leaf: only hardware writes here beside `&mut self`, and only status bits.
        while let Entry::Leaf(pa, attr) = F::decode(raw, at.page).entry() {
            for i in 0..u64::from(count) {
                let pa = pa.wrapping_add(i << below.shift);
                match F::encode(Entry::Leaf(pa, attr), below.shift) {
                    Ok(small) => node.slot(i).store(small),
                    Err(cause) => {
                        // SAFETY: taken above for this level, and not linked.
                        unsafe { node::free(&self.mem, child, below) };
                        return Err(cause);
                    }
                }
            }
            // A bit that hardware sets in the large leaf meanwhile must reach the small ones.
            match at.slot.compare_exchange(raw, entry) {
                Ok(()) => break,
                Err(now) => raw = now,
            }
        }
        gather.stale(Flush::tables(at.va, 1 << at.page, true));
        Ok(child)
    }

    /// Gives a node that was just unlinked, and all below it, to the gather, which has room.
    pub(super) fn detach<G: Gather<Detached<F, M>>>(
        &self,
        pa: PhysAddr,
        depth: usize,
        va: VirtAddr,
        gather: &mut G,
    ) {
        let len = 1 << F::LEVELS[depth].span();
        let low = va.as_u64() & (u64::MAX >> (64 - F::CANONICAL.bits()));
        let part = Detached::new(self.mem.clone(), pa, depth, low);
        gather.detach(Flush::tables(va, len, true), part);
    }

    /// Notes that the node which `link` links has `n` fewer entries that are not holes.
    fn note_fewer(&self, link: Slot<'_, M>, n: u64) {
        if n > 0 {
            link.store(link.load().wrapping_sub(F::ONE_MORE.wrapping_mul(n)));
        }
    }
}
