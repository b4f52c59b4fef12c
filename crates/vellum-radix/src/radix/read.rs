//! Reading a range: visiting, harvesting accessed and dirty, and counting nodes.
//!
//! ```text
//!   nodes    [ L L L . . S L L ]  [ L L ...        leaves of one size that continue each other are
//!   told      |-----|     . |--------|             one span, also from one node to the next
//! ```
//!
//! A hole is passed over as wide as the level shows it: nothing below an absent node is read.

use super::node::{Node, Pattern, index};
use super::{Detached, Radix, group, without};
use crate::format::{Decoded, Format, Level};
use core::ops::ControlFlow;
use vellum_core::{Attr, Entry, Flush, Gather, Memory, PhysAddr, Span, VirtAddr};

/// Entries of one node that are neither holes nor tables, and the part of them in the range.
struct Piece<'m, F, M> {
    node: Node<'m, F, M>,
    level: Level,
    /// The first of them; `span` says how far they go.
    index: u64,
    /// log2 of a leaf's bytes, which may be a group.
    page: u8,
    /// Of leaves, without the rights that are lost to what links the node.
    span: Span,
    lost: Attr,
}

/// A part of a range within one node: its first address, and its length.
type Part = (VirtAddr, u64);

impl<F: Format, M: Memory> Radix<F, M> {
    /// Visits a range that was checked.
    pub(super) fn visit_runs(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) {
        let mut joined: Option<(Span, u8)> = None;
        let mut tell = |piece: Piece<'_, F, M>| {
            if let Some((span, page)) = &mut joined {
                if *page == piece.page && continues(span, &piece.span) {
                    span.len += piece.span.len;
                    return ControlFlow::Continue(());
                }
                f(*span)?;
            }
            joined = Some((piece.span, piece.page));
            ControlFlow::Continue(())
        };
        let stopped = self.pieces(va, len, true, &mut tell).is_break();
        if let Some((span, _)) = joined.filter(|_| !stopped) {
            // The last one; there is nothing left to stop.
            let _ = f(span);
        }
    }

    /// Clears status bits in a range that was checked.
    pub(super) fn harvest_leaves<G: Gather<Detached<F, M>>>(
        &self,
        (va, len): Part,
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) {
        let clear = clear & Attr::STATUS;
        let mut harvest = |piece: Piece<'_, F, M>| {
            let entries = 1 << (piece.page - piece.level.shift);
            let first = piece.index & !(entries - 1);
            let mut had: Option<Entry> = None;
            for i in first..first + entries {
                let cleared = clear_one(&piece, i, clear).map(|entry| without(entry, piece.lost));
                had = match (had, cleared) {
                    (Some(Entry::Leaf(pa, attr)), Some(Entry::Leaf(_, more))) => {
                        Some(Entry::Leaf(pa, attr | (more & Attr::STATUS)))
                    }
                    (had, cleared) => had.or(cleared),
                };
            }
            // The frame is that of the entry that was cleared: another CPU may have replaced the one
            // that was seen first.
            if let Some(Entry::Leaf(pa, attr)) = had {
                let page = piece.page;
                let pa = pa.wrapping_add(piece.span.va.as_u64() & ((1 << page) - 1));
                let start = piece.span.va.align_down(page);
                gather.stale(Flush::new(start, 1 << page, piece.level.shift, attr));
                f(Span { entry: Entry::Leaf(pa, attr), ..piece.span });
            }
            ControlFlow::Continue(())
        };
        let _ = self.pieces(va, len, false, &mut harvest);
    }

    /// Every entry in the range that is neither a hole nor a table, ascending; with `runs`, leaves
    /// of one node that continue each other are told together.
    fn pieces(
        &self,
        va: VirtAddr,
        len: u64,
        runs: bool,
        f: &mut impl FnMut(Piece<'_, F, M>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.pieces_of((self.node(self.root), 0, Attr::NONE), (va, len), runs, f)
    }

    fn pieces_of(
        &self,
        (node, depth, lost): (Node<'_, F, M>, usize, Attr),
        (mut va, mut left): Part,
        runs: bool,
        f: &mut impl FnMut(Piece<'_, F, M>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let level = F::LEVELS[depth];
        let size = 1u64 << level.shift;
        while left > 0 {
            let offset = va.as_u64() & (size - 1);
            let mut len = left.min(size - offset);
            let at = index(va, level);
            // How many entries the rest of the range has in this node.
            let rest = ((offset + left).div_ceil(size)).min((1 << level.bits) - at);
            let raw = node.slot(at).load();
            let mut page = level.shift;
            let mut entry = match F::decode(raw, level.shift) {
                Decoded::Table(child) => {
                    let shared = Self::is_shared(depth, raw);
                    let lost = if shared { Attr::WRITE } else { Attr::NONE };
                    self.pieces_of((self.node(child), depth + 1, lost), (va, len), runs, f)?;
                    Entry::Hole
                }
                Decoded::Entry(Entry::Hole) => {
                    let holes = node.count_zeros(at, rest).max(1);
                    len = left.min((holes << level.shift) - offset);
                    Entry::Hole
                }
                Decoded::Entry(entry) => entry,
            };
            if level.group > 0 && entry != Entry::Hole && F::is_grouped(raw, level.shift) {
                page = level.group_shift();
                entry = group::leaf(node, level, at);
                len = left.min((1 << page) - (va.as_u64() & ((1 << page) - 1)));
            } else if let (Entry::Leaf(..), true) = (entry, runs) {
                let pattern = Pattern { raw, step: F::step(page) };
                let most = pattern.longest::<F>(page).min(rest);
                // Itself, whatever it has become meanwhile.
                let n = node.count_matching(at, most, pattern).max(1);
                len = left.min((n << page) - offset);
            }
            if let Entry::Leaf(pa, attr) = entry {
                entry = Entry::Leaf(pa.wrapping_add(va.as_u64() & ((1 << page) - 1)), attr - lost);
            }
            if entry != Entry::Hole {
                let span = Span { va, len, entry };
                f(Piece { node, level, index: at, page, span, lost })?;
            }
            va = va.wrapping_add(len);
            left -= len;
        }
        ControlFlow::Continue(())
    }

    /// Bytes of this node, of level `depth`, and of all below its first `entries` entries.
    pub(super) fn bytes_below(&self, pa: PhysAddr, depth: usize, entries: u64) -> u64 {
        let level = F::LEVELS[depth];
        let mut bytes = Self::node_bytes(depth);
        if depth + 1 < F::LEVELS.len() {
            let node = self.node(pa);
            let all = 1 << F::LEVELS[depth + 1].bits;
            for i in 0..entries {
                if let Decoded::Table(child) = F::decode(node.slot(i).load(), level.shift) {
                    bytes += self.bytes_below(child, depth + 1, all);
                }
            }
        }
        bytes
    }

    /// Bytes of a node of level `depth`.
    pub(super) const fn node_bytes(depth: usize) -> u64 {
        vellum_core::order_bytes(crate::format::node_order::<F>(depth))
    }
}

/// Clears status in one entry; what it was if it had any.
fn clear_one<F: Format, M: Memory>(piece: &Piece<'_, F, M>, i: u64, clear: Attr) -> Option<Entry> {
    let slot = piece.node.slot(i);
    let mut raw = slot.load();
    // By compare-and-set: another thread may put a soft entry here at any time, and its bits are
    // not ours to clear.
    loop {
        let entry = F::decode(raw, piece.page).entry();
        match entry {
            Entry::Leaf(_, attr) if attr.intersects(clear) => {}
            _ => return None,
        }
        match slot.compare_exchange(raw, F::clear_status(raw, clear)) {
            Ok(()) => return Some(entry),
            Err(now) => raw = now,
        }
    }
}

/// Whether `next` begins where `span` ends, with leaves that go on as theirs do.
pub(super) fn continues(span: &Span, next: &Span) -> bool {
    match (span.entry, next.entry) {
        (Entry::Leaf(a, attr), Entry::Leaf(b, other)) => {
            attr == other
                && span.va.checked_add(span.len) == Some(next.va)
                && a.checked_add(span.len) == Some(b)
        }
        _ => false,
    }
}
