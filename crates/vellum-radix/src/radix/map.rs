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
//! conflict, an encoding, memory) is found before. The entries of a step follow each other by one
//! addition, which is checked on the last of them.

use super::change::{make_room, settle_breaks};
use super::near::level_of_links;
use super::node::{self, Link, Node, Pattern, index};
use super::{Detached, Radix};
use crate::MAX_DEPTH;
use crate::format::{Decoded, Format, Level, base_shift, is_shared};
use arrayvec::ArrayVec;
use core::ops::ControlFlow;
use vellum_core::{
    Attr, Cause, Entry, Flush, Gather, Memory, OutOfFrames, PAGE_SHIFT, PhysAddr, RangeError, Reap,
    Run, Span, VirtAddr,
};

/// Whether a leaf of this level can be the next of the run.
#[inline]
fn fits(run: &Run, level: Level) -> bool {
    level.leaf
        && level.shift <= run.page
        && (run.va.as_u64() | run.pa.as_u64()) & ((1 << level.shift) - 1) == 0
        && run.len >> level.shift > 0
}

/// A hole on the way to a leaf.
pub(super) struct Missing<'m, F, M> {
    /// The entry that is the hole, at index `at` of a node at level `depth`.
    pub(super) above: Link<'m, F, M>,
    pub(super) depth: usize,
    pub(super) at: u64,
    /// What links that node.
    pub(super) link: Option<Link<'m, F, M>>,
}

/// The next entries of a run in one node.
struct Piece {
    level: Level,
    first: u64,
    count: u64,
    pattern: Pattern,
}

impl Piece {
    /// As many entries as the run fills in the node that its first address is in: single leaves, or
    /// one group.
    #[inline]
    fn of<F: Format>(run: &Run, level: Level) -> Result<Self, Cause> {
        // Most are pages: with their level known, most of it is constant.
        let pages = const { F::LEVELS[F::LEVELS.len() - 1] };
        if level == pages { Self::at::<F>(run, pages) } else { Self::at::<F>(run, level) }
    }

    #[inline(always)]
    fn at<F: Format>(run: &Run, level: Level) -> Result<Self, Cause> {
        let first = index(run.va, level);
        let mut count = ((1 << level.bits) - first).min(run.len >> level.shift);
        let mut page = level.shift;
        if level.group > 0 {
            let groups = Level { shift: level.group_shift(), ..level };
            if fits(run, groups) {
                (count, page) = (1 << level.group, groups.shift);
            } else if groups.shift <= run.page {
                let size = 1 << level.group;
                count = count.min(size - (first & (size - 1)));
            }
        }
        let raw = F::encode(Entry::Leaf(run.pa, run.attr), page)?;
        let pattern = Pattern { raw, step: F::step(page) };
        if page == level.shift && !pattern.has::<F>(count, page) {
            // The frame's bits are not in one piece, and the run crosses from one to the next.
            count = 1;
        }
        Ok(Self { level, first, count, pattern })
    }

    const fn len(&self) -> u64 {
        self.count << self.level.shift
    }
}

impl<F: Format, M: Memory> Radix<F, M> {
    #[inline]
    pub(super) fn map_run<G: Gather<Detached<F, M>>>(
        &mut self,
        run: Run,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        let page = const { base_shift::<F>() };
        if run.page == page && run.len == 1 << page && self.map_page(run.va, run.pa, run.attr) {
            return Ok(());
        }
        self.map_pieces(run, gather)
    }

    /// Maps a run of any length.
    #[inline(never)]
    fn map_pieces<G: Gather<Detached<F, M>>>(
        &mut self,
        run: Run,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        self.check_own(run.va, run.len)?;
        if run.page < PAGE_SHIFT {
            return Err(Cause::NoLeaf { page: run.page }.into());
        }
        let run = Run { page: run.page.max(const { base_shift::<F>() }), ..run };
        check_frames::<F>(&run)?;
        self.admit((run.va, run.len), run.attr)?;
        settle_breaks::<F, M, G>(gather);
        let mut done = 0;
        while done < run.len {
            done += self
                .map_step(run.skip(done), gather)
                .map_err(|cause| RangeError { cause, done })?;
        }
        Ok(())
    }

    /// Maps one smallest page where there is a hole: what most single calls do. `false`: it is
    /// something else, or there is no memory, and nothing was done.
    #[inline]
    fn map_page(&self, va: VirtAddr, pa: PhysAddr, attr: Attr) -> bool {
        let level = const { F::LEVELS[F::LEVELS.len() - 1] };
        // What asks for more than stores takes the long way.
        let plain = F::LEVELS.len() > 1 && level.group == 0 && F::fresh(level.shift).is_none();
        if !plain || !va.is_aligned(level.shift) || self.has_policy || attr.contains(Attr::GLOBAL) {
            return false;
        }
        let Ok(raw) = F::encode(Entry::Leaf(pa, attr), level.shift) else { return false };
        self.map_near(va, raw) || self.map_far(va, raw)
    }

    /// Maps a page, as the entry `raw`, beside the last one: `false` if it is not, or if there is no
    /// hole in a node that exists.
    #[inline]
    fn map_near(&self, va: VirtAddr, raw: u64) -> bool {
        let Some(above) = self.near.node::<F>(va).map(|pa| self.node(pa)) else { return false };
        let level = const { level_of_links::<F>() };
        let at = index(va, level);
        let link = above.load(level, at);
        F::child(link, level.shift)
            .is_some_and(|pa| self.fill_page(above.link(level, at), link, pa, va, raw))
    }

    /// The same from the root on; a node that is missing is made.
    #[inline(never)]
    fn map_far(&self, va: VirtAddr, raw: u64) -> bool {
        let own = index(va, F::LEVELS[0]) < self.own_entries;
        if !own || !F::CANONICAL.contains(va) {
            return false;
        }
        let (mut above, mut link) = (self.node(self.root), None);
        let last = const { F::LEVELS.len() - 1 };
        for (depth, level) in F::LEVELS[..last].iter().enumerate() {
            let at = index(va, *level);
            let next = above.link(*level, at);
            let entry = above.load(*level, at);
            let Some(child) = F::child(entry, level.shift) else {
                let missing = Missing { above: next, depth, at, link };
                return entry == 0 && self.graft_page(&missing, va, raw);
            };
            if depth + 1 == last {
                self.near.note::<F>(va, above.pa());
                return self.fill_page(next, entry, child, va, raw);
            }
            (above, link) = (self.node(child), Some(next));
        }
        false
    }

    /// Maps a page in the node `pa` of the lowest level, which `link` links, now as the entry `entry`;
    /// `false` if something is there, or others link that node.
    #[inline]
    fn fill_page(
        &self,
        link: Link<'_, F, M>,
        entry: u64,
        pa: PhysAddr,
        va: VirtAddr,
        raw: u64,
    ) -> bool {
        let level = const { F::LEVELS[F::LEVELS.len() - 1] };
        let (node, at) = (self.node(pa), index(va, level));
        let shared = is_shared::<F>(entry, const { level_of_links::<F>().shift });
        let hole = !shared && node.load(level, at) == 0;
        if hole {
            link.add_to(entry, 1);
            node.store(level, at, raw);
        }
        hole
    }

    /// Links a new branch with one page in it, the entry `raw`; `false` if there is no memory.
    #[inline(never)]
    fn graft_page(&self, missing: &Missing<'_, F, M>, va: VirtAddr, raw: u64) -> bool {
        let first = missing.depth + 1;
        if F::fresh(F::LEVELS[missing.depth].shift).is_some() {
            return false;
        }
        let Ok(top) = node::alloc_empty::<F, M>(&self.mem, first) else { return false };
        let user = !self.is_kernel(va);
        let mut node = self.node(top);
        // Each is linked in the one above, which nobody sees before the last store.
        for depth in first + 1..F::LEVELS.len() {
            let level = F::LEVELS[depth - 1];
            let Ok(child) = node::alloc_empty::<F, M>(&self.mem, depth) else {
                Detached::<F, M>::new(self.mem.clone(), top, first, 0).discard();
                return false;
            };
            node.link(level, index(va, level)).set(F::table_entry(child, level.shift, user), 1);
            node = self.node(child);
        }
        node.slot(index(va, F::LEVELS[F::LEVELS.len() - 1])).store(raw);
        let above = F::LEVELS[missing.depth];
        missing.above.set(F::table_entry(top, above.shift, user), 1);
        self.mirror(missing.depth, missing.at);
        if let Some(link) = missing.link {
            link.add(1);
        }
        true
    }

    /// Maps the beginning of the run, at most to the end of a node; how many bytes.
    #[inline]
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
            let at = index(run.va, level);
            let room = self.half.leaf_room(depth, at);
            if room > 0 && fits(&run, level) {
                // Not over the border of what is pinned, by no group either.
                let most = room.min(1 << level.bits) << level.shift;
                let run = Run { len: run.len.min(most), ..run };
                let piece = Piece::of::<F>(&run, level)?;
                return self.fill(node, depth, link, &run, &piece, gather);
            }
            let next = node.link(level, at);
            let raw = next.slot.load();
            match F::decode(raw, level.shift) {
                Decoded::Table(_) if Self::is_shared(depth, raw) => {
                    return Err(Cause::Shared(run.va));
                }
                Decoded::Table(pa) => {
                    node = self.node(pa);
                    link = Some(next);
                    depth += 1;
                }
                Decoded::Entry(Entry::Hole) => {
                    return self.graft(&Missing { above: next, depth, at, link }, &run, gather);
                }
                Decoded::Entry(_) => return Err(Cause::Mapped(self.span_at(run.va))),
            }
        }
    }

    /// Fills entries of an existing node with leaves.
    #[inline]
    fn fill<G: Gather<Detached<F, M>>>(
        &self,
        node: Node<'_, F, M>,
        depth: usize,
        link: Option<Link<'_, F, M>>,
        run: &Run,
        piece: &Piece,
        gather: &mut G,
    ) -> Result<u64, Cause> {
        let Piece { level, first, count, pattern } = *piece;
        let holes = node.count_zeros(first, count);
        if holes < count {
            return self.fill_over(node, depth, link, run, piece, gather);
        }
        // Before the stores: a count may be too high, and never too low.
        if let Some(link) = link {
            link.add(count);
        }
        node.store_run(first, count, pattern);
        self.owe_fresh(run, level.shift, piece.len(), gather);
        Ok(piece.len())
    }

    /// Fills entries of which some link nodes; those may be in the way, or empty.
    #[cold]
    fn fill_over<G: Gather<Detached<F, M>>>(
        &self,
        node: Node<'_, F, M>,
        depth: usize,
        link: Option<Link<'_, F, M>>,
        run: &Run,
        piece: &Piece,
        gather: &mut G,
    ) -> Result<u64, Cause> {
        let Piece { level, first, count, pattern } = *piece;
        let mut holes = 0;
        for i in 0..count {
            let va = run.va.wrapping_add(i << level.shift);
            match F::decode(node.slot(first + i).load(), level.shift) {
                Decoded::Entry(Entry::Hole) => holes += 1,
                Decoded::Entry(_) => return Err(Cause::Mapped(self.span_at(va))),
                Decoded::Table(_) if node.link(level, first + i).count() == 0 => {}
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
        if let Some(link) = link {
            link.add(holes);
        }
        for i in 0..count {
            let (va, entry) = (run.va.wrapping_add(i << level.shift), node.link(level, first + i));
            let raw = entry.slot.load();
            if let Decoded::Table(pa) = F::decode(raw, level.shift) {
                let child = (pa, Self::is_shared(depth, raw));
                make_room(gather);
                if F::BREAKS && G::LIVE {
                    // Even an empty table may be cached, and must be gone before the leaf is there.
                    entry.clear();
                    self.detach(child, depth + 1, va, gather);
                    gather.drain();
                    entry.set(pattern.at(i), 0);
                } else {
                    entry.set(pattern.at(i), 0);
                    self.detach(child, depth + 1, va, gather);
                }
            } else {
                entry.slot.store(pattern.at(i));
            }
        }
        self.owe_fresh(run, level.shift, piece.len(), gather);
        Ok(piece.len())
    }

    /// Builds the branch that is missing, with leaves of the run in its lowest node, and links it.
    fn graft<G: Gather<Detached<F, M>>>(
        &self,
        missing: &Missing<'_, F, M>,
        run: &Run,
        gather: &mut G,
    ) -> Result<u64, Cause> {
        let first = missing.depth + 1;
        let below = &F::LEVELS[first..];
        let target = below.iter().position(|&level| fits(run, level)).unwrap_or(below.len() - 1);
        let branch = self.alloc_branch(first, first + target)?;
        let grafted = self.graft_branch(missing, &branch, run, first + target, gather);
        if grafted.is_err() {
            self.free_branch(&branch, first);
        }
        grafted
    }

    /// Fills a branch of nodes down to level `target` with the beginning of the run, and links it;
    /// how many bytes. When it fails, the branch is the caller's still.
    pub(super) fn graft_branch<G: Gather<Detached<F, M>>>(
        &self,
        missing: &Missing<'_, F, M>,
        branch: &[PhysAddr],
        run: &Run,
        target: usize,
        gather: &mut G,
    ) -> Result<u64, Cause> {
        let Missing { above, depth, at, link } = *missing;
        let piece = Piece::of::<F>(run, F::LEVELS[target])?;
        self.link_branch(branch, depth + 1, run, &piece, above);
        self.mirror(depth, at);
        if let Some(link) = link {
            link.add(1);
        }
        self.owe_fresh(run, F::LEVELS[depth].shift, piece.len(), gather);
        Ok(piece.len())
    }

    /// Fills the nodes of a branch, whose first is at level `depth`, in the order in which they were
    /// taken, since memory likes to be written in order, and links it; nobody can see them before
    /// the last store.
    fn link_branch(
        &self,
        branch: &[PhysAddr],
        depth: usize,
        run: &Run,
        piece: &Piece,
        above: Link<'_, F, M>,
    ) {
        let user = !self.is_kernel(run.va);
        let entries = |i: usize| if i + 1 == branch.len() { piece.count } else { 1 };
        let link =
            |i: usize, pa: PhysAddr| F::table_entry(pa, F::LEVELS[depth + i - 1].shift, user);
        for (i, &pa) in branch.iter().enumerate() {
            let node = self.node(pa);
            let Some(&child) = branch.get(i + 1) else {
                // SAFETY: taken for this level by `alloc_branch`, and not linked yet.
                unsafe { node.init(depth + i, piece.first, piece.count, piece.pattern) };
                continue;
            };
            let level = F::LEVELS[depth + i];
            // SAFETY: as above.
            unsafe { node.init(depth + i, 0, 0, Pattern { raw: 0, step: 0 }) };
            node.link(level, index(run.va, level)).set(link(i + 1, child), entries(i + 1));
        }
        if let Some(&top) = branch.first() {
            above.set(link(0, top), entries(0));
        }
    }

    /// One node for each level from `first` to `last`, or none at all.
    pub(super) fn alloc_branch(
        &self,
        first: usize,
        last: usize,
    ) -> Result<ArrayVec<PhysAddr, MAX_DEPTH>, OutOfFrames> {
        let mut branch = ArrayVec::new();
        for depth in first..=last {
            match node::alloc::<F, M>(&self.mem, depth) {
                Ok(pa) => branch.push(pa),
                Err(e) => {
                    self.free_branch(&branch, first);
                    return Err(e);
                }
            }
        }
        Ok(branch)
    }

    /// Owes what the format asks for when holes have been filled.
    #[inline]
    pub(super) fn owe_fresh<G: Gather<Detached<F, M>>>(
        &self,
        run: &Run,
        page: u8,
        len: u64,
        gather: &mut G,
    ) {
        if let (true, Some(scope)) = (G::LIVE, F::fresh(page)) {
            gather.stale(Flush::new(run.va, len, base_shift::<F>(), run.attr).with_scope(scope));
        }
    }

    /// What is at `va`, which was found not to be a hole.
    #[cold]
    pub(super) fn span_at(&self, va: VirtAddr) -> Span {
        use vellum_core::Walk;
        self.walk(va, &mut ()).unwrap_or(Span { va, len: 0, entry: Entry::Hole })
    }
}

/// Refuses frames and attributes that no leaf of the run could hold.
#[inline]
fn check_frames<F: Format>(run: &Run) -> Result<(), Cause> {
    let base = const { base_shift::<F>() };
    if run.len == 0 {
        return Ok(());
    }
    let encode = |pa| F::encode(Entry::Leaf(pa, run.attr), base);
    encode(run.pa)?;
    if run.len >> base == 1 {
        return Ok(());
    }
    let last = ((run.len - 1) >> base) << base;
    let last = run.pa.checked_add(last).ok_or(Cause::PhysTooWide(run.pa))?;
    encode(last).map(drop)
}
