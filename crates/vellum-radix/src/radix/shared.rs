//! Lowest nodes that several tables link, copied when one of them wants to change them: a fork that
//! costs by the node, not by the page.
//!
//! ```text
//!    parent      child                              parent      child
//!    +---+       +---+                              +---+       +---+
//!    | T |--r/o--| T |      unshare in the child    | T |--r/o  | T |--r/w-----+
//!    +---+   |   +---+      ------------------->    +---+   |   +---+          v
//!            v                                              v            +-----------+
//!      +-----------+                                  +-----------+      | L  L  L   |  copy: r/o
//!      | L  L  L   |  leaves as they were             | L  L  L   |      +-----------+  leaves
//!      +-----------+                                  +-----------+  its leaves are r/o too now
//!       sharers: 1                                     sharers: 0 (after the flush)
//! ```
//!
//! The right to write is taken once, in the entries that link the node
//! ([`Format::LINK_WRITE`]), and that is also how a table knows that others may link it. While they
//! do, nobody changes the node but for status, which a harvest through any of them clears for all: every operation on a part of it is refused with
//! [`Cause::Shared`], until [`unshare`](PageTable::unshare). What reads the table shows its leaves without
//! the right to write. Dropping the node whole, by `unmap` or `retire`, gives up one link.
//!
//! Reference counts of frames count nodes, not tables: they go up when a node is copied.
//!
//! # Invariants
//!
//! - The sharers of a node ([`Memory::sharers`]) are at least the tables that link it, less one; each
//!   of these links says read-only. A link that is given up is counted down after the flush, so that who
//!   finds no sharer left is the only one who reaches the node.
//! - Before a node stops being shared by a copy, no leaf of it has the right to write any more.
//!
//! Source: the idea of sharing tables on fork is that of K. Zhao, S. Gong, P. Fonseca, "On-Demand-Fork: A
//! Microsecond Fork for Memory-Intensive and Latency-Sensitive Applications", EuroSys 2021.

use super::change::{make_room, settle_breaks};
use super::node::{self, Node, Pattern, index};
use super::way::{Next, Place};
use super::{Detached, Radix, without};
use crate::format::{Decoded, Format};
use core::ops::ControlFlow;
use core::sync::atomic::Ordering;
use vellum_core::{
    Attr, Cause, Change, Entry, Flush, Gather, Given, Linked, Memory, PageTable, PhysAddr,
    RangeError, Span, VirtAddr,
};

/// So many entries are sooner copied now than with their node by whoever writes next.
const FEW: u64 = 64;

impl<F: Format, M: Memory> Radix<F, M> {
    /// As [`PageTable::fork`]; `f` is told of what the child has entries of its own for.
    ///
    /// These are at ends of the range that lie in nodes with other entries, or with few, large leaves, and where nodes cannot be shared (a format
    /// without read-only links, a memory without [`sharers`](Memory::sharers), groups, tables of different
    /// policies, a node that the child has already). Of a node that is linked, nothing is told: no
    /// frame is mapped by more entries than before.
    ///
    /// As with `share`, the child must not run before the parent's gather has been drained; nor before the
    /// gather of an earlier fork of the same range, since what is read-only already owes no flush again.
    ///
    /// # Errors
    ///
    /// As of [`PageTable::fork`]; and [`Cause::Shared`] where a part of either table is another's.
    pub fn share_nodes<G: Gather<Detached<F, M>>, H: Gather<Detached<F, M>>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
        child: (&mut Self, &mut H),
        f: &mut impl FnMut(Span),
    ) -> Result<(), RangeError> {
        self.fork_nodes((va, len), gather, child, &mut |given| {
            if let Given::Own(span) = given {
                f(span);
            }
        })
    }

    /// [`PageTable::fork`]: two walks a node, and a look at each of its entries, to tell of them.
    pub(super) fn fork_nodes<G: Gather<Detached<F, M>>, H: Gather<Detached<F, M>>>(
        &mut self,
        (va, len): (VirtAddr, u64),
        gather: &mut G,
        (child, child_gather): (&mut Self, &mut H),
        f: &mut impl FnMut(Given),
    ) -> Result<(), RangeError> {
        self.check_own(va, len)?;
        child.check_own(va, len)?;
        settle_breaks::<F, M, H>(child_gather);
        let shares =
            F::LINK_WRITE != 0 && self.mem == child.mem && self.policy.is_as(&child.policy);
        // Everything before `done` was given; what lies between the two is to be, entry by entry.
        let (mut done, mut at) = (0, 0);
        while shares && at < len {
            let rest = va.wrapping_add(at);
            let Some((offset, next)) = self.next(rest, len - at) else { break };
            at += offset;
            let here = va.wrapping_add(at);
            let size = 1u64 << next.page::<F, M>();
            let left = (len - at).min(size - (here.as_u64() & (size - 1)));
            if matches!(next, Next::Node) && (left == size || self.is_worth_linking(here, left)) {
                let between = (va.wrapping_add(done), at - done);
                self.share_some(between, gather, (child, child_gather), f)
                    .map_err(|e| RangeError { done: done + e.done, ..e })?;
                done = at;
                let node = here.align_down(Self::NODE);
                let linked = self.link_shared(node, gather, (child, child_gather), f);
                if linked.map_err(|cause| RangeError { cause, done })? {
                    done += left;
                }
            }
            at += left;
        }
        self.share_some((va.wrapping_add(done), len - done), gather, (child, child_gather), f)
            .map_err(|e| RangeError { done: done + e.done, ..e })
    }

    /// Whether all entries of a lowest node, and more than a few, are in this piece of what it translates.
    fn is_worth_linking(&self, va: VirtAddr, len: u64) -> bool {
        let Some((place, pa)) = self.lowest(va) else { return false };
        let level = F::LEVELS[F::LEVELS.len() - 1];
        let (node, first) = (self.node(pa), index(va, level));
        let behind = first + (len >> level.shift);
        let rest = (1 << level.bits) - behind;
        place.link.count() >= FEW
            && node.count_zeros(0, first) == first
            && node.count_zeros(behind, rest) == rest
    }

    fn share_some<G: Gather<Detached<F, M>>, H: Gather<Detached<F, M>>>(
        &mut self,
        (va, len): (VirtAddr, u64),
        gather: &mut G,
        (child, child_gather): (&mut Self, &mut H),
        f: &mut impl FnMut(Given),
    ) -> Result<(), RangeError> {
        if len == 0 {
            // What ends the address space has no address behind it.
            return Ok(());
        }
        let change = Change::clearing(Attr::WRITE);
        let mut own = |span| f(Given::Own(span));
        self.share(va, len, change, gather, (child, child_gather), &mut own)
    }

    /// Links the lowest node at `va` in the child as well; `false` if that is not possible, and nothing
    /// was done.
    fn link_shared<G: Gather<Detached<F, M>>, H: Gather<Detached<F, M>>>(
        &self,
        va: VirtAddr,
        gather: &mut G,
        (child, child_gather): (&mut Self, &mut H),
        f: &mut impl FnMut(Given),
    ) -> Result<bool, Cause> {
        let Some((mine, pa)) = self.lowest(va) else { return Ok(false) };
        // SAFETY: this table links the node, and the count goes up for the link that is made below.
        let Some(sharers) = (unsafe { self.mem.sharers(pa) }) else { return Ok(false) };
        let count = mine.link.count();
        let root_entry = index(va, F::LEVELS[0]);
        let pinned = self.half.is_pinned(0, root_entry) || child.half.is_pinned(0, root_entry);
        if pinned || has_groups(self.node(pa)) {
            return Ok(false);
        }
        let theirs = child.place(va, child_gather)?;
        let more = |n: u32| n.checked_add(1);
        if theirs.link.slot.load() != 0
            || sharers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err()
        {
            return Ok(false);
        }
        // Before the link: a panic of who is told leaves a node that is never given back, and no more.
        self.visit_runs(va, 1 << Self::NODE, &mut |span| {
            let entry = without(span.entry, Attr::WRITE);
            f(Given::Linked(Span { entry, ..span }));
            ControlFlow::Continue(())
        });
        let user = !child.is_kernel(va);
        let link = F::table_entry(pa, Self::NODE, user) ^ F::LINK_WRITE;
        child.occupy(&theirs, va, (link, count), child_gather);
        if self.may_be_global() {
            child.has_global.store(true, Ordering::Relaxed);
        }
        let raw = mine.link.slot.load();
        if !crate::format::is_shared::<F>(raw, Self::NODE) {
            self.rewrite(&mine, raw ^ F::LINK_WRITE, None);
            // Interior entries hold the right as well.
            gather.stale(Flush::tables(va, 1 << Self::NODE, self.may_be_global()));
        }
        Ok(true)
    }

    /// [`PageTable::unshare`], node by node.
    pub(super) fn unshare_nodes<G: Gather<Detached<F, M>>>(
        &mut self,
        (va, len): (VirtAddr, u64),
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), RangeError> {
        self.check_own(va, len)?;
        let (mut at, mut copied, mut result) = (0, false, Ok(()));
        while F::LINK_WRITE != 0 && at < len {
            let Some((offset, next)) = self.next(va.wrapping_add(at), len - at) else { break };
            at += offset;
            let here = va.wrapping_add(at);
            let page = next.page::<F, M>();
            let start = here.align_down(page);
            match self.unshare_node(start, gather, f) {
                Ok(was_copied) => copied |= was_copied,
                Err(cause) => {
                    result = Err(RangeError { cause, done: at });
                    break;
                }
            }
            at = at.saturating_add((1 << page) - (here.as_u64() - start.as_u64()));
        }
        if copied && G::LIVE {
            // Walkers may reach the old nodes until then, and no other flush has to know of that.
            gather.drain();
        }
        result
    }

    /// The first node that is linked as shared, of a range; see [`PageTable::next_linked`].
    pub(super) fn next_shared(&self, va: VirtAddr, len: u64) -> Option<Linked> {
        let mut at = 0;
        while F::LINK_WRITE != 0 && at < len {
            let (offset, next) = self.next(va.wrapping_add(at), len - at)?;
            at += offset;
            let here = va.wrapping_add(at);
            let start = here.align_down(next.page::<F, M>());
            let size = 1u64 << next.page::<F, M>();
            if let (Next::Node, Some((place, node))) = (next, self.lowest(start)) {
                if Self::is_shared(Self::PLACES, place.link.slot.load()) {
                    // SAFETY: this table links the node, and changes nothing.
                    let sharers = unsafe { self.mem.sharers(node) };
                    let others = sharers.map_or(0, |count| count.load(Ordering::Acquire));
                    return Some(Linked { va: start, len: size, others });
                }
            }
            at = at.saturating_add(size - (here.as_u64() - start.as_u64()));
        }
        None
    }

    /// Makes the lowest node at `va`, the first that it translates, this table's own; whether that took
    /// a copy.
    fn unshare_node<G: Gather<Detached<F, M>>>(
        &self,
        va: VirtAddr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<bool, Cause> {
        let Some((place, old)) = self.lowest(va) else { return Ok(false) };
        let raw = place.link.slot.load();
        if !crate::format::is_shared::<F>(raw, Self::NODE) {
            return Ok(false);
        }
        // Acquire: what the last sharer did to the leaves comes with its going.
        // SAFETY: this table links the node, and changes nothing.
        let sharers =
            unsafe { self.mem.sharers(old) }.map_or(0, |count| count.load(Ordering::Acquire));
        if sharers == 0 {
            self.rewrite(&place, raw ^ F::LINK_WRITE, None);
            if F::BREAKS && G::LIVE {
                gather.stale(Flush::tables(va, 1 << Self::NODE, self.may_be_global()));
            }
            return Ok(false);
        }
        let last = F::LEVELS.len() - 1;
        let copy = node::alloc::<F, M>(&self.mem, last)?;
        let count = copy_read_only(self.node(old), self.node(copy));
        self.visit_runs(va, 1 << Self::NODE, &mut |span| {
            f(span);
            ControlFlow::Continue(())
        });
        self.replace_node(&place, va, (copy, count), gather);
        make_room(gather);
        self.detach((old, true), last, va, gather);
        Ok(true)
    }

    /// Links the copy of a node, of `count` entries, in its place.
    fn replace_node<G: Gather<Detached<F, M>>>(
        &self,
        place: &Place<'_, F, M>,
        va: VirtAddr,
        (copy, count): (PhysAddr, u64),
        gather: &mut G,
    ) {
        let raw = F::table_entry(copy, Self::NODE, !self.is_kernel(va));
        if F::BREAKS && G::LIVE {
            self.rewrite(place, 0, Some(0));
            gather.stale(Flush::tables(va, 1 << Self::NODE, self.may_be_global()));
            gather.drain();
        }
        self.rewrite(place, raw, Some(count));
        self.owe_fresh_link(F::LEVELS.len() - 2, va, gather);
    }
}

/// Whether leaves of the node are groups, of which single entries cannot lose a right.
fn has_groups<F: Format, M: Memory>(node: Node<'_, F, M>) -> bool {
    let level = F::LEVELS[F::LEVELS.len() - 1];
    let mut heads = (0..1u64 << level.bits).step_by(1 << level.group);
    level.group > 0 && heads.any(|i| F::is_grouped(node.slot(i).load(), level.shift))
}

/// Fills a lowest node that nothing links with the entries of one that is shared, without the right to
/// write, which goes from there as well; how many there are.
fn copy_read_only<F: Format, M: Memory>(from: Node<'_, F, M>, to: Node<'_, F, M>) -> u64 {
    let last = F::LEVELS.len() - 1;
    let level = F::LEVELS[last];
    // SAFETY: taken for this level by the caller, and not linked yet.
    unsafe { to.init(last, 0, 0, Pattern { raw: 0, step: 0 }) };
    let mut count = 0;
    for i in 0..1 << level.bits {
        let slot = from.slot(i);
        let mut raw = slot.load();
        if raw == 0 {
            continue;
        }
        // By compare-and-set: hardware sets accessed, and another sharer may be copying as well.
        loop {
            let narrowed = read_only::<F>(raw, level.shift);
            match slot.compare_exchange(raw, narrowed) {
                Ok(()) => {
                    raw = narrowed;
                    break;
                }
                Err(now) => raw = now,
            }
        }
        to.slot(i).store(raw);
        count += 1;
    }
    count
}

/// An entry of the lowest level without the right to write, which every format can say of a leaf that it
/// can hold.
fn read_only<F: Format>(raw: u64, page: u8) -> u64 {
    match F::decode(raw, page) {
        Decoded::Entry(Entry::Leaf(pa, attr)) if attr.contains(Attr::WRITE) => {
            F::encode(Entry::Leaf(pa, attr - Attr::WRITE), page).unwrap_or(0)
        }
        _ => raw,
    }
}

/// Gives up one link to a shared node, which no walker reaches through it any more; whether it was the
/// last, and the node is the caller's.
///
/// # Safety
///
/// The link was one that the count speaks of, and is gone; each is given up once.
pub(super) unsafe fn is_last<M: Memory>(mem: &M, node: PhysAddr) -> bool {
    let less = |n: u32| n.checked_sub(1);
    // SAFETY: a table that linked the node, by the caller.
    let sharers = unsafe { mem.sharers(node) };
    // Acquire and release: what each of the others did to the node happened before it is given back.
    sharers.is_none_or(|n| n.fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_err())
}
