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
//! On the lowest level an edit gets all the range's entries of a node at once.
//!
//! # Invariants
//!
//! - When an edit fails at an entry, everything before it was changed and nothing from it on; the
//!   counts are right all the same.

use super::group::Group;
use super::node::{Link, Node, index};
use super::{Detached, Radix};
use crate::format::{Decoded, Format, Level};
use vellum_core::{
    Attr, Cause, Entry, Flush, Gather, Memory, PhysAddr, RangeError, Scope, VirtAddr,
};

/// Neighbouring entries of one node, none of which links a node or is part of a group.
pub(super) struct Stretch<'m, F, M> {
    pub(super) node: Node<'m, F, M>,
    pub(super) level: Level,
    /// The first of them, and how many.
    pub(super) first: u64,
    pub(super) count: u64,
    /// What the first of them translates.
    pub(super) va: VirtAddr,
}

impl<F, M> Stretch<'_, F, M> {
    /// What entry `i` of the stretch translates.
    #[inline]
    pub(super) const fn va_of(&self, i: u64) -> VirtAddr {
        self.va.wrapping_add(i << self.level.shift)
    }
}

/// How an edit of a stretch went: how many entries became holes, and at which it failed.
pub(super) type Edited = (u64, Result<(), (Cause, u64)>);

/// What happens to entries that lie in the range whole.
pub(super) trait Edit<F: Format, M: Memory> {
    /// Whether whole subtrees go.
    const DETACH: bool;

    /// Whether this leaf would be the same afterwards, so that a part of it needs no split.
    fn keeps(&self, attr: Attr) -> bool;

    /// Changes leaves and soft entries.
    fn stretch<G: Gather<Detached<F, M>>>(
        &mut self,
        stretch: &Stretch<'_, F, M>,
        gather: &mut G,
    ) -> Edited;

    /// Changes a leaf of several entries; whether they became holes.
    ///
    /// # Errors
    ///
    /// When it cannot; then nothing has changed.
    fn group<G: Gather<Detached<F, M>>>(
        &mut self,
        group: &Group<'_, F, M>,
        gather: &mut G,
    ) -> Result<bool, Cause>;
}

/// Sees to it that the gather can take an item. There is no lock here that a drain could meet.
#[inline]
pub(super) fn make_room<D, G: Gather<D>>(gather: &mut G) {
    if gather.room() == 0 {
        gather.drain();
    }
}

/// Refuses a leaf that has no encoding with some status, which hardware may add until the leaf is
/// out of its reach; `attr` gives the attributes with that status.
pub(super) fn check_any_status<F: Format>(
    pa: PhysAddr,
    attr: impl Fn(Attr) -> Attr,
    page: u8,
) -> Result<(), Cause> {
    for status in [Attr::NONE, Attr::ACCESSED, Attr::DIRTY, Attr::STATUS] {
        F::encode(Entry::Leaf(pa, attr(status)), page)?;
    }
    Ok(())
}

/// Flushes what the gather owes before entries become valid, where no page may be made while its
/// old translation is still about.
#[inline]
pub(super) fn settle_breaks<F: Format, M: Memory, G: Gather<Detached<F, M>>>(gather: &mut G) {
    if F::BREAKS && G::LIVE && gather.owed().is_some_and(|scope| scope > Scope::Fresh) {
        gather.drain();
    }
}

/// A part of a range, within one node: the low bits of its first address, and its length.
#[derive(Clone, Copy)]
struct Part {
    low: u64,
    len: u64,
}

/// How many entries of a node have become holes, and at which address an edit failed.
type Changed = (u64, Result<(), (Cause, u64)>);

impl<F: Format, M: Memory> Radix<F, M> {
    /// Applies an edit to everything in a range that was checked. The caller has `&mut self`.
    pub(super) fn change<E: Edit<F, M>, G: Gather<Detached<F, M>>>(
        &self,
        va: VirtAddr,
        len: u64,
        edit: &mut E,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        if len == 0 {
            return Ok(());
        }
        let part = Part { low: va.as_u64(), len };
        let result = match self.change_within(part, edit, gather) {
            Some(result) => result,
            None => self.change_node(self.node(self.root), 0, part, edit, gather).1,
        };
        result.map_err(|(cause, at)| RangeError { cause, done: at.wrapping_sub(va.as_u64()) })
    }

    /// The same for a part of one lowest node that keeps an entry, or of nothing: no node goes, so that
    /// nothing has to be known of those on the way. `None` for any other.
    #[inline]
    fn change_within<E: Edit<F, M>, G: Gather<Detached<F, M>>>(
        &self,
        part: Part,
        edit: &mut E,
        gather: &mut G,
    ) -> Option<Result<(), (Cause, u64)>> {
        let lowest = const { F::LEVELS.len() - 1 };
        let (va, last) =
            (VirtAddr::new(part.low), VirtAddr::new(part.low).wrapping_add(part.len - 1));
        let mut node = self.node(self.root);
        let mut link = None;
        for (depth, level) in F::LEVELS[..lowest].iter().enumerate() {
            let at = index(va, *level);
            if at != index(last, *level) {
                return None;
            }
            let raw = node.load(*level, at);
            if raw == 0 {
                return Some(Ok(()));
            }
            let child = F::child(raw, level.shift).filter(|_| !Self::is_shared(depth, raw))?;
            link = Some(node.link(*level, at));
            node = self.node(child);
        }
        let (link, level) = (link?, F::LEVELS[lowest]);
        let count = link.count();
        if count == 0 || E::DETACH && count <= part.len >> level.shift {
            return None;
        }
        let (holes, result) = Self::change_pages(node, level, part, edit, gather);
        link.sub(holes);
        Some(result)
    }

    fn change_node<E: Edit<F, M>, G: Gather<Detached<F, M>>>(
        &self,
        node: Node<'_, F, M>,
        depth: usize,
        part: Part,
        edit: &mut E,
        gather: &mut G,
    ) -> Changed {
        let level = F::LEVELS[depth];
        if depth + 1 == F::LEVELS.len() {
            return Self::change_pages(node, level, part, edit, gather);
        }
        let size = 1u64 << level.shift;
        let (mut low, mut left, mut holes) = (part.low, part.len, 0);
        while left > 0 {
            let mut len = left.min(size - (low & (size - 1)));
            let at = index(VirtAddr::new(low), level);
            if node.slot(at).load() == 0 {
                // Of a range that is a whole space, most of the root.
                let most = ((1 << level.bits) - at).min(left.div_ceil(size) + 1);
                let wide = node.count_zeros(at, most).max(1) << level.shift;
                len = left.min(wide - (low & (size - 1)));
                low = low.wrapping_add(len);
                left -= len;
                continue;
            }
            let changed = match Self::group_at(node, level, at, VirtAddr::new(low)) {
                Some(group) => {
                    len = left.min(group_rest(&group, low));
                    Self::change_group(&group, Part { low, len }, edit, gather)
                }
                None => {
                    self.change_entry(node, depth, at, Part { low, len }, edit, gather).map(Some)
                }
            };
            match changed {
                Ok(Some(n)) => holes += n,
                Ok(None) => continue,
                Err(e) => return (holes, Err(e)),
            }
            low = low.wrapping_add(len);
            left -= len;
        }
        (holes, Ok(()))
    }

    /// Edits the lowest level's entries.
    fn change_pages<E: Edit<F, M>, G: Gather<Detached<F, M>>>(
        node: Node<'_, F, M>,
        level: Level,
        part: Part,
        edit: &mut E,
        gather: &mut G,
    ) -> Changed {
        let (mut low, mut left, mut holes) = (part.low, part.len, 0);
        while left > 0 {
            let va = VirtAddr::new(low);
            let first = index(va, level);
            if let Some(group) = Self::group_at(node, level, first, va) {
                let len = left.min(group_rest(&group, low));
                match Self::change_group(&group, Part { low, len }, edit, gather) {
                    Ok(Some(n)) => holes += n,
                    Ok(None) => continue,
                    Err(e) => return (holes, Err(e)),
                }
                low = low.wrapping_add(len);
                left -= len;
                continue;
            }
            let count = ungrouped_from::<F, M>(node, level, first, left >> level.shift);
            let stretch = Stretch { node, level, first, count, va };
            let (n, result) = edit.stretch(&stretch, gather);
            holes += n;
            if let Err((cause, i)) = result {
                return (holes, Err((cause, stretch.va_of(i).as_u64())));
            }
            low = low.wrapping_add(count << level.shift);
            left -= count << level.shift;
        }
        (holes, Ok(()))
    }

    /// Edits a group that lies in the range whole, or whose part needs no change; how many holes
    /// that made. `None`: it was taken apart, and is to be looked at again.
    fn change_group<E: Edit<F, M>, G: Gather<Detached<F, M>>>(
        group: &Group<'_, F, M>,
        part: Part,
        edit: &mut E,
        gather: &mut G,
    ) -> Result<Option<u64>, (Cause, u64)> {
        let level = group.level;
        let fails = |cause| (cause, part.low);
        if part.len == 1 << level.group_shift() {
            make_room(gather);
            let gone = edit.group(group, gather).map_err(fails)?;
            return Ok(Some(if gone { 1 << level.group } else { 0 }));
        }
        if matches!(group.leaf(), Entry::Leaf(_, attr) if edit.keeps(attr)) {
            return Ok(Some(0));
        }
        group.remake(|attr| attr, false, gather).map_err(fails)?;
        Ok(None)
    }

    /// Edits the part of one entry above the lowest level that is in the range; how many holes that
    /// made.
    fn change_entry<E: Edit<F, M>, G: Gather<Detached<F, M>>>(
        &self,
        node: Node<'_, F, M>,
        depth: usize,
        at: u64,
        part: Part,
        edit: &mut E,
        gather: &mut G,
    ) -> Result<u64, (Cause, u64)> {
        let level = F::LEVELS[depth];
        let link = node.link(level, at);
        let va = VirtAddr::new(part.low).align_down(level.shift);
        let raw = link.slot.load();
        let whole = part.len == 1 << level.shift;
        let pinned = self.half.is_pinned(depth, at);
        let shared = Self::is_shared(depth, raw);
        let child = match F::decode(raw, level.shift) {
            Decoded::Entry(Entry::Hole) => return Ok(0),
            Decoded::Table(pa) if whole && E::DETACH && !pinned => {
                self.unlink(link, (depth, at), (pa, shared), va, gather);
                return Ok(1);
            }
            Decoded::Table(pa) if shared => {
                return self.check_holes(pa, part).map_err(|cause| (cause, part.low));
            }
            Decoded::Table(pa) => pa,
            Decoded::Entry(Entry::Leaf(_, attr)) if !whole && edit.keeps(attr) => return Ok(0),
            Decoded::Entry(Entry::Leaf(..)) if !whole => {
                self.split_leaf(link, depth, raw, va, gather).map_err(|cause| (cause, part.low))?
            }
            Decoded::Entry(_) => {
                let stretch = Stretch { node, level, first: at, count: 1, va };
                let (holes, result) = edit.stretch(&stretch, gather);
                return result.map(|()| holes).map_err(|(cause, _)| (cause, part.low));
            }
        };
        let (holes, result) = self.change_node(self.node(child), depth + 1, part, edit, gather);
        link.sub(holes);
        // After a failure an emptied node stays: the next change of the range will find it.
        if result.is_ok() && !pinned && link.count() == 0 {
            self.unlink(link, (depth, at), (child, false), va, gather);
            return Ok(1);
        }
        result.map(|()| 0)
    }

    /// Refuses a part of a lowest node that other tables link, unless there is nothing in it; how many
    /// holes that made.
    #[cold]
    fn check_holes(&self, pa: PhysAddr, part: Part) -> Result<u64, Cause> {
        let level = F::LEVELS[F::LEVELS.len() - 1];
        let va = VirtAddr::new(part.low);
        let (first, count) = (index(va, level), part.len >> level.shift);
        let is_empty = self.node(pa).count_zeros(first, count) == count;
        if is_empty { Ok(0) } else { Err(Cause::Shared(F::CANONICAL.extend(part.low))) }
    }

    /// Unlinks a node at level `depth + 1`, in entry `at` of one at `depth`, and gives it and all
    /// below it to the gather; it may be shared.
    pub(super) fn unlink<G: Gather<Detached<F, M>>>(
        &self,
        link: Link<'_, F, M>,
        (depth, at): (usize, u64),
        child: (PhysAddr, bool),
        va: VirtAddr,
        gather: &mut G,
    ) {
        make_room(gather);
        let entries = if link.count() == 0 { 0 } else { 1 << F::LEVELS[depth + 1].bits };
        link.clear();
        self.mirror(depth, at);
        self.detach_first(child, (depth + 1, entries), va, gather);
    }

    /// Gives a node that was just unlinked, and all below it, to the gather, which has room; of a node
    /// that is shared, one link.
    pub(super) fn detach<G: Gather<Detached<F, M>>>(
        &self,
        child: (PhysAddr, bool),
        depth: usize,
        va: VirtAddr,
        gather: &mut G,
    ) {
        self.detach_first(child, (depth, 1 << F::LEVELS[depth].bits), va, gather);
    }

    /// The same, of a node of which only the first so many entries are in use.
    pub(super) fn detach_first<G: Gather<Detached<F, M>>>(
        &self,
        (pa, shared): (PhysAddr, bool),
        (depth, entries): (usize, u64),
        va: VirtAddr,
        gather: &mut G,
    ) {
        self.near.forget();
        let len = 1 << F::LEVELS[depth].span();
        let low = va.as_u64() & (u64::MAX >> (64 - F::CANONICAL.bits()));
        let part = Detached::new(self.mem.clone(), pa, depth, low);
        let part = part.with_entries(entries).with_sharers(shared);
        gather.detach(Flush::tables(va, len, self.may_be_global()), part);
    }
}

/// How many bytes there are from address `low` to the end of the group.
fn group_rest<F, M>(group: &Group<'_, F, M>, low: u64) -> u64 {
    let size = 1u64 << group.level.group_shift();
    size - (low & (size - 1))
}

/// How many of `count` entries from `first` on, which is not grouped, come before a group.
#[inline]
fn ungrouped_from<F: Format, M: Memory>(
    node: Node<'_, F, M>,
    level: Level,
    first: u64,
    count: u64,
) -> u64 {
    let end = ((1 << level.bits) - first).min(count);
    if level.group == 0 {
        return end;
    }
    let size = 1 << level.group;
    let mut next = size - (first & (size - 1));
    while next < end && !F::is_grouped(node.slot(first + next).load(), level.shift) {
        next += size;
    }
    next.min(end)
}
