//! Going from lowest node to lowest node through a range, and to a place for one.
//!
//! ```text
//!   root --> +---+     +---+     +---+
//!            | T |---> | T |---> | T |---> lowest node     Next::Node     at the place, whose count
//!            | . |     | L |     | . |                     Next::Leaf     `above` keeps
//!            +---+     +---+     +---+
//!                                  ^ the place of a lowest node
//! ```

use super::node::{self, Link, Node, index};
use super::{Detached, Radix};
use crate::format::{self, Decoded, Format, base_shift};
use vellum_core::{Attr, Cause, Entry, Flush, Gather, Memory, OutOfFrames, PhysAddr, VirtAddr};

/// What comes next in a range, but for holes.
pub(super) enum Next {
    /// A node of the lowest level.
    Node,
    /// A leaf above that, of 2<sup>so many</sup> bytes.
    Leaf(u8),
}

impl Next {
    /// log2 of the bytes that it spans.
    pub(super) const fn page<F: Format, M: Memory>(&self) -> u8 {
        match *self {
            Self::Node => Radix::<F, M>::NODE,
            Self::Leaf(page) => page,
        }
    }
}

/// An entry that links a node of the lowest level, or could.
pub(super) struct Place<'m, F, M> {
    pub(super) link: Link<'m, F, M>,
    /// The node that it is in.
    node: Node<'m, F, M>,
    /// Its index in the node that it is in.
    at: u64,
    /// What links that node, and has its count.
    pub(super) above: Option<Link<'m, F, M>>,
}

impl<F, M> Clone for Place<'_, F, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F, M> Copy for Place<'_, F, M> {}

impl<F: Format, M: Memory> Radix<F, M> {
    /// The level of places.
    pub(super) const PLACES: usize = F::LEVELS.len().saturating_sub(2);

    /// log2 of the bytes that a lowest node spans.
    pub(super) const NODE: u8 = F::LEVELS[Self::PLACES].shift;

    /// Whether the entry of a node at level `depth` links a node that is shared copy-on-write: of the
    /// lowest level.
    #[inline]
    pub(super) fn is_shared(depth: usize, raw: u64) -> bool {
        depth + 2 == F::LEVELS.len() && format::is_shared::<F>(raw, F::LEVELS[depth].shift)
    }

    /// The first thing in the range that is no hole, and how far from `va` it is, or the part of it that
    /// is in the range. Not of a table of one level.
    pub(super) fn next(&self, va: VirtAddr, len: u64) -> Option<(u64, Next)> {
        let mut offset = 0;
        'descent: while offset < len {
            let va = va.wrapping_add(offset);
            let mut node = self.node(self.root);
            for (depth, level) in F::LEVELS[..=Self::PLACES].iter().enumerate() {
                let at = index(va, *level);
                let raw = node.slot(at).load();
                match F::decode(raw, level.shift) {
                    Decoded::Table(_) if depth == Self::PLACES => {
                        return Some((offset, Next::Node));
                    }
                    Decoded::Table(pa) => node = self.node(pa),
                    Decoded::Entry(Entry::Hole) => {
                        let holes = node.count_zeros(at, (1 << level.bits) - at).max(1);
                        let within = va.as_u64() & ((1 << level.shift) - 1);
                        offset = offset.saturating_add((holes << level.shift) - within);
                        continue 'descent;
                    }
                    Decoded::Entry(_) => {
                        let grouped = level.group > 0 && F::is_grouped(raw, level.shift);
                        let page = if grouped { level.group_shift() } else { level.shift };
                        return Some((offset, Next::Leaf(page)));
                    }
                }
            }
        }
        None
    }

    /// The place of the lowest node for `va`, and the node; `None` if there is none.
    pub(super) fn lowest(&self, va: VirtAddr) -> Option<(Place<'_, F, M>, PhysAddr)> {
        let mut node = self.node(self.root);
        let mut above = None;
        for (depth, level) in F::LEVELS[..=Self::PLACES].iter().enumerate() {
            let at = index(va, *level);
            let link = node.link(*level, at);
            let Decoded::Table(pa) = F::decode(link.slot.load(), level.shift) else { return None };
            if depth == Self::PLACES {
                return Some((Place { link, node, at, above }, pa));
            }
            (node, above) = (self.node(pa), Some(link));
        }
        None
    }

    /// The same place, with the nodes on the way to it, which are linked where they are missing. In a
    /// table of which the caller has `&mut`.
    ///
    /// # Errors
    ///
    /// [`Cause::Mapped`] where a leaf is in the way, [`Cause::OutOfFrames`]; nodes may be left empty.
    pub(super) fn place<G: Gather<Detached<F, M>>>(
        &self,
        va: VirtAddr,
        gather: &mut G,
    ) -> Result<Place<'_, F, M>, Cause> {
        let mut node = self.node(self.root);
        let mut above = None;
        for (depth, level) in F::LEVELS[..Self::PLACES].iter().enumerate() {
            let at = index(va, *level);
            let place = Place { link: node.link(*level, at), node, at, above };
            let child = match F::decode(place.link.slot.load(), level.shift) {
                Decoded::Table(pa) => pa,
                Decoded::Entry(Entry::Hole) => self.link_empty(&place, depth, va, gather)?,
                Decoded::Entry(_) => return Err(Cause::Mapped(self.span_at(va))),
            };
            (node, above) = (self.node(child), Some(place.link));
        }
        let level = F::LEVELS[Self::PLACES];
        let at = index(va, level);
        Ok(Place { link: node.link(level, at), node, at, above })
    }

    /// The same for who goes through a range: from the place that was the last, if they are in one node.
    pub(super) fn place_behind<'m, G: Gather<Detached<F, M>>>(
        &'m self,
        last: &mut Option<(VirtAddr, Place<'m, F, M>)>,
        va: VirtAddr,
        gather: &mut G,
    ) -> Result<Place<'m, F, M>, Cause> {
        let level = F::LEVELS[Self::PLACES];
        let place = match last.take() {
            Some((at, place)) if at.align_down(level.span()) == va.align_down(level.span()) => {
                let at = index(va, level);
                Place { link: place.node.link(level, at), at, ..place }
            }
            _ => self.place(va, gather)?,
        };
        *last = Some((va, place));
        Ok(place)
    }

    /// The lowest node at its place; an empty one is linked where there is none.
    ///
    /// # Errors
    ///
    /// As of [`place`](Self::place), and [`Cause::Shared`] for one that others link.
    pub(super) fn lowest_at<G: Gather<Detached<F, M>>>(
        &self,
        place: &Place<'_, F, M>,
        va: VirtAddr,
        gather: &mut G,
    ) -> Result<PhysAddr, Cause> {
        let raw = place.link.slot.load();
        match F::decode(raw, Self::NODE) {
            Decoded::Table(_) if Self::is_shared(Self::PLACES, raw) => Err(Cause::Shared(va)),
            Decoded::Table(pa) => Ok(pa),
            Decoded::Entry(Entry::Hole) => Ok(self.link_empty(place, Self::PLACES, va, gather)?),
            Decoded::Entry(_) => Err(Cause::Mapped(self.span_at(va))),
        }
    }

    /// Links an empty node into a hole at level `depth`; where it lies.
    fn link_empty<G: Gather<Detached<F, M>>>(
        &self,
        place: &Place<'_, F, M>,
        depth: usize,
        va: VirtAddr,
        gather: &mut G,
    ) -> Result<PhysAddr, OutOfFrames> {
        let child = node::alloc_empty::<F, M>(&self.mem, depth + 1)?;
        let raw = F::table_entry(child, F::LEVELS[depth].shift, !self.is_kernel(va));
        self.fill_place(place, depth, (raw, 0));
        self.owe_fresh_link(depth, va, gather);
        Ok(child)
    }

    /// Writes an entry that links a node of `count` entries into a hole at level `depth`.
    fn fill_place(&self, place: &Place<'_, F, M>, depth: usize, (raw, count): (u64, u64)) {
        // Before the store: a count may be too high, and never too low.
        if let Some(above) = place.above {
            above.add(1);
        }
        place.link.set(raw, count);
        self.mirror(depth, place.at);
    }

    /// Links a node into its place, which is a hole.
    pub(super) fn occupy<G: Gather<Detached<F, M>>>(
        &self,
        place: &Place<'_, F, M>,
        va: VirtAddr,
        (raw, count): (u64, u64),
        gather: &mut G,
    ) {
        self.fill_place(place, Self::PLACES, (raw, count));
        self.owe_fresh_link(Self::PLACES, va, gather);
    }

    /// Writes another entry into a place, which is no hole and stays none, with the count that it has,
    /// or with `count`.
    pub(super) fn rewrite(&self, place: &Place<'_, F, M>, raw: u64, count: Option<u64>) {
        match count {
            Some(count) => place.link.set(raw, count),
            None => place.link.slot.store(raw),
        }
        self.mirror(Self::PLACES, place.at);
    }

    /// Owes what the format asks for when a hole at level `depth` has become a link.
    pub(super) fn owe_fresh_link<G: Gather<Detached<F, M>>>(
        &self,
        depth: usize,
        va: VirtAddr,
        gather: &mut G,
    ) {
        let page = F::LEVELS[depth].shift;
        if let (true, Some(scope)) = (G::LIVE, F::fresh(page)) {
            let base = const { base_shift::<F>() };
            let fresh = Flush::new(va.align_down(page), 1 << page, base, Attr::NONE);
            gather.stale(fresh.with_scope(scope));
        }
    }
}
