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
//!
//! Where the format demands break-before-make, the entry is first made invalid in a way that still
//! tells what it was ([`Format::broken`]), flushed, and then made. Who meets it meanwhile is told
//! `Changed`: in effect, to come again.

use super::change::{make_room, settle_breaks};
use super::node::{Link, Slot, index};
use super::{Detached, Radix, Stock};
use crate::format::{Decoded, Format, Level};
use vellum_core::{Attr, Cause, Entry, Flush, Gather, Memory, Need, ReplaceError, Run, VirtAddr};

/// A leaf's place, and the link to the node that it is in.
struct Target<'m, F, M> {
    slot: Slot<'m, F, M>,
    link: Option<Link<'m, F, M>>,
}

/// What is asked for: at `va`, in an entry of `level`, `new`, which is `raw` there.
#[derive(Clone, Copy)]
struct Request {
    va: VirtAddr,
    level: Level,
    expect: Entry,
    new: Entry,
    raw: u64,
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
        let lowest = const { F::LEVELS.len() - 1 };
        if len == const { 1 << F::LEVELS[F::LEVELS.len() - 1].shift } {
            // Nearly all faults: the levels on the way are constants.
            return self.replace_at(lowest, (va, len), (expect, new), stock, gather);
        }
        self.replace_large((va, len), (expect, new), stock, gather)
    }

    #[inline(never)]
    fn replace_large<G: Gather<Detached<F, M>>>(
        &self,
        (va, len): (VirtAddr, u64),
        change: (Entry, Entry),
        stock: &mut Stock<F, M>,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        self.replace_at(leaf_depth::<F>(len)?, (va, len), change, stock, gather)
    }

    #[inline(always)]
    fn replace_at<G: Gather<Detached<F, M>>>(
        &self,
        depth: usize,
        (va, len): (VirtAddr, u64),
        (expect, new): (Entry, Entry),
        stock: &mut Stock<F, M>,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        let level = F::LEVELS[depth];
        F::CANONICAL.check(va, len, level.shift)?;
        self.half.check::<F>(va, len)?;
        if self.half.leaf_room(depth, index(va, level)) == 0 {
            return Err(ReplaceError::Structure);
        }
        if matches!(new, Entry::Soft(_)) && depth + 1 < F::LEVELS.len() {
            return Err(Cause::NoLeaf { page: level.shift }.into());
        }
        let raw = F::encode(new, level.shift)?;
        if let Entry::Leaf(_, attr) = new {
            self.check_policy((va, len), attr)?;
        }
        settle_breaks::<F, M, G>(gather);
        let request = Request { va, level, expect, new, raw };
        let target = match self.present(depth, va) {
            Some(target) => target,
            None => match self.descend(&request, depth, stock, gather)? {
                Some(target) => target,
                None => return Ok(()),
            },
        };
        if let Entry::Leaf(_, attr) = new {
            self.note(va, attr);
        }
        self.exchange(&target, &request, gather)
    }

    /// The entry at level `target` for `va`, where every node on the way to it is there and this
    /// table's alone, as nearly all faults find it; otherwise `descend` says what is to be done.
    #[inline(always)]
    fn present(&self, target: usize, va: VirtAddr) -> Option<Target<'_, F, M>> {
        if self.half.has_user_root() {
            return None;
        }
        let mut node = self.node(self.root);
        let mut link = None;
        for (depth, level) in F::LEVELS[..target].iter().enumerate() {
            let at = index(va, *level);
            let raw = node.load(*level, at);
            let child = F::child(raw, level.shift)?;
            if Self::is_shared(depth, raw) {
                return None;
            }
            link = Some(node.link(*level, at));
            node = self.node(child);
        }
        Some(Target { slot: node.slot(index(va, F::LEVELS[target])), link })
    }

    /// The entry at level `target` for the request, with every node on the way to it; `None` where
    /// a hole is to stay one.
    #[inline(never)]
    fn descend<G: Gather<Detached<F, M>>>(
        &self,
        request: &Request,
        target: usize,
        stock: &mut Stock<F, M>,
        gather: &mut G,
    ) -> Result<Option<Target<'_, F, M>>, ReplaceError> {
        let Request { va, expect, new, .. } = *request;
        let mut node = self.node(self.root);
        let mut link = None;
        let mut depth = 0;
        loop {
            let level = F::LEVELS[depth];
            let at = index(va, level);
            let next = node.link(level, at);
            if depth == target {
                return Ok(Some(Target { slot: next.slot, link }));
            }
            let raw = next.slot.load();
            match F::decode(raw, level.shift) {
                Decoded::Table(_) if Self::is_shared(depth, raw) => {
                    return Err(Cause::Shared(va).into());
                }
                Decoded::Table(pa) => {
                    // Whoever linked it may not have got to the other root yet.
                    self.mirror(depth, at);
                    node = self.node(pa);
                    link = Some(next);
                    depth += 1;
                }
                Decoded::Entry(Entry::Hole) if expect != Entry::Hole => {
                    return Err(ReplaceError::Changed(Entry::Hole));
                }
                Decoded::Entry(Entry::Hole) if new == Entry::Hole => return Ok(None),
                Decoded::Entry(Entry::Hole) => {
                    self.link_node(next, link, (va, depth, target), stock)?;
                    // Whoever linked it: the one who could not use it yet is this processor.
                    self.owe_fresh_link(depth, va, gather);
                }
                Decoded::Entry(_) => return Err(ReplaceError::Structure),
            }
        }
    }

    /// Links an empty node of the stock into a hole at level `depth`, unless somebody has just
    /// linked another. A node is needed for each level down to `target`; without them nothing is
    /// begun. What another memory's table put into the stock does not count.
    #[cold]
    fn link_node(
        &self,
        next: Link<'_, F, M>,
        link: Option<Link<'_, F, M>>,
        (va, depth, target): (VirtAddr, usize, usize),
        stock: &mut Stock<F, M>,
    ) -> Result<(), ReplaceError> {
        let needed = need(depth + 1, target);
        if stock.mem != self.mem || !stock.has(depth + 1..=target) {
            return Err(ReplaceError::Need(needed));
        }
        let Some(pa) = stock.node(depth + 1) else { return Err(ReplaceError::Need(needed)) };
        if link.is_some_and(|link| !link.fetch_add()) {
            return Err(ReplaceError::Changed(Entry::Hole));
        }
        let entry = F::table_entry(pa, F::LEVELS[depth].shift, !self.is_kernel(va));
        // Its count is 0 already, wherever it is kept.
        if next.slot.compare_exchange(0, entry).is_ok() {
            stock.spend(depth + 1);
        } else if let Some(link) = link {
            link.fetch_sub();
        }
        Ok(())
    }

    #[inline(always)]
    fn exchange<G: Gather<Detached<F, M>>>(
        &self,
        target: &Target<'_, F, M>,
        request: &Request,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        let Target { slot, link } = *target;
        let Request { va, level, expect, new, .. } = *request;
        loop {
            let raw = slot.load();
            if raw == 0 && expect == Entry::Hole && request.raw != 0 {
                // What most faults find. A hole is 0 in every format.
                if link.is_some_and(|link| !link.fetch_add()) {
                    return Err(ReplaceError::Changed(Entry::Hole));
                }
                if slot.compare_exchange(0, request.raw).is_ok() {
                    settle::<F, _, G>((va, level), Entry::Hole, new, gather);
                    return Ok(());
                }
                if let Some(link) = link {
                    link.fetch_sub();
                }
                continue;
            }
            let Decoded::Entry(old) = F::decode(raw, level.shift) else {
                return Err(ReplaceError::Structure);
            };
            if level.group > 0 && F::is_grouped(raw, level.shift) {
                return Err(ReplaceError::Structure);
            }
            if !old.same_but_status(expect) || F::BREAKS && F::is_broken(raw) {
                return Err(ReplaceError::Changed(old));
            }
            let stored = made::<F>(request, old);
            if stored == raw {
                return Ok(());
            }
            make_room(gather);
            let link = link.filter(|_| old == Entry::Hole || new == Entry::Hole);
            if link.is_some_and(|link| old == Entry::Hole && !link.fetch_add()) {
                return Err(ReplaceError::Changed(old));
            }
            let must_break = F::BREAKS && G::LIVE && F::needs_break(raw, stored, level.shift);
            let swapped = if must_break {
                break_and_make::<F, M, G>(slot, request, (raw, old), gather)
            } else {
                slot.compare_exchange(raw, stored)
            };
            if let Some(link) = link.filter(|_| swapped.is_ok() == (new == Entry::Hole)) {
                link.fetch_sub();
            }
            if swapped.is_ok() {
                settle::<F, _, G>((va, level), old, new, gather);
                return Ok(());
            }
        }
    }
}

/// The entry to be stored where `old` is: with its status, if the frame stays.
#[inline]
fn made<F: Format>(request: &Request, old: Entry) -> u64 {
    match (old, request.new) {
        (Entry::Leaf(from, attr), Entry::Leaf(to, _)) if from == to => {
            F::set_status(request.raw, attr & Attr::STATUS)
        }
        _ => request.raw,
    }
}

/// Makes the entry invalid, flushes it, and stores the new one, if it is `raw` now.
fn break_and_make<F: Format, M: Memory, G: Gather<Detached<F, M>>>(
    slot: Slot<'_, F, M>,
    request: &Request,
    (raw, old): (u64, Entry),
    gather: &mut G,
) -> Result<(), u64> {
    let (va, page) = (request.va, request.level.shift);
    slot.compare_exchange(raw, F::broken(raw))?;
    let Entry::Leaf(_, attr) = old else { return Ok(()) };
    gather.stale(Flush::new(va, 1 << page, page, attr));
    gather.drain();
    // Nobody else changes a broken entry but for its status, which the new one keeps.
    let mut broken = F::broken(raw);
    loop {
        let stored = made::<F>(request, F::decode(broken, page).entry());
        match slot.compare_exchange(broken, stored) {
            Ok(()) => return Ok(()),
            Err(now) => broken = now,
        }
    }
}

/// Tells the gather what left the table or lost something.
#[inline(always)]
pub(super) fn settle<F: Format, D, G: Gather<D>>(
    (va, level): (VirtAddr, Level),
    old: Entry,
    new: Entry,
    gather: &mut G,
) {
    let (len, page) = (1 << level.shift, level.shift);
    match (old, new) {
        (Entry::Leaf(from, attr), Entry::Leaf(to, new)) if from == to => {
            if attr.narrows_to(new | (attr & Attr::STATUS)) {
                gather.stale(Flush::new(va, len, page, attr));
            }
        }
        (Entry::Leaf(pa, attr), _) => gather.leaf(Run { va, pa, len, attr, page }),
        (Entry::Soft(soft), _) => gather.soft(va, soft),
        (Entry::Hole, _) => {}
    }
    if let (true, Entry::Leaf(_, attr), Some(scope)) = (G::LIVE, new, F::fresh(page)) {
        gather.stale(Flush::new(va, len, page, attr).with_scope(scope));
    }
}

/// A node for each level from `first` to `last`, as a number.
fn need(first: usize, last: usize) -> Need {
    let byte = |n: usize| u8::try_from(n).unwrap_or(u8::MAX);
    Need::new(u32::from_le_bytes([byte(first), byte(last), 0, 0]))
}

/// The level whose leaves have `len` bytes, counted from the root.
#[inline]
fn leaf_depth<F: Format>(len: u64) -> Result<usize, Cause> {
    let page = len.checked_ilog2().and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
    let is_leaf = |level: &Level| level.leaf && 1 << level.shift == len;
    F::LEVELS.iter().position(is_leaf).ok_or(Cause::NoLeaf { page })
}
