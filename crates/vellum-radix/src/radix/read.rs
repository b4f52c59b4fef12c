//! Reading a range: visiting, harvesting accessed and dirty, and counting nodes.
//!
//! ```text
//!   nodes    [ L L L . . S L L ]  [ L L ...        leaves of one size that continue each other are
//!   told      |-----|     . |--------|             one span, also from one node to the next
//! ```
//!
//! A hole is passed over as wide as the level shows it: nothing below an absent node is read.

use super::node::{Node, Slot, index};
use super::{Detached, Radix};
use crate::format::{Decoded, Format, Level};
use core::ops::ControlFlow;
use vellum_core::{Attr, Entry, Flush, Gather, Memory, Span, VirtAddr};

/// An entry that is not a hole, and the part of it that is in the range.
struct Piece<'m, M> {
    slot: Slot<'m, M>,
    level: Level,
    raw: u64,
    span: Span,
}

impl<F: Format, M: Memory> Radix<F, M> {
    /// Visits a range that was checked.
    pub(super) fn visit_runs(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) {
        let mut joined: Option<(Span, Level)> = None;
        let mut tell = |piece: Piece<'_, M>| {
            if let Some((span, level)) = &mut joined {
                if *level == piece.level && continues(span, &piece.span) {
                    span.len += piece.span.len;
                    return ControlFlow::Continue(());
                }
                f(*span)?;
            }
            joined = Some((piece.span, piece.level));
            ControlFlow::Continue(())
        };
        let stopped = self.pieces(va, len, &mut tell).is_break();
        if let Some((span, _)) = joined.filter(|_| !stopped) {
            // The last one; there is nothing left to stop.
            let _ = f(span);
        }
    }

    /// Clears status bits in a range that was checked.
    pub(super) fn harvest_leaves<G: Gather<Detached<F, M>>>(
        &self,
        (va, len): (VirtAddr, u64),
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) {
        let bits = F::status(clear);
        let mut harvest = |piece: Piece<'_, M>| {
            let Piece { slot, level, mut raw, span } = piece;
            // By compare-and-set: another thread may put a soft entry here at any time, and its
            // bits are not ours to clear.
            while let Entry::Leaf(pa, attr) = F::decode(raw, level.shift).entry() {
                if !attr.intersects(clear & Attr::STATUS) {
                    break;
                }
                match slot.compare_exchange(raw, raw & !bits) {
                    Ok(()) => {
                        let (va, page) = (span.va.align_down(level.shift), level.shift);
                        gather.stale(Flush::new(va, 1 << page, page, attr));
                        let within = span.va.as_u64() & ((1 << level.shift) - 1);
                        f(Span { entry: Entry::Leaf(pa.wrapping_add(within), attr), ..span });
                        break;
                    }
                    Err(now) => raw = now,
                }
            }
            ControlFlow::Continue(())
        };
        let _ = self.pieces(va, len, &mut harvest);
    }

    /// Every entry in the range that is neither a hole nor a table, ascending.
    fn pieces(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Piece<'_, M>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        self.pieces_of(self.node(self.root), 0, (va, len), f)
    }

    fn pieces_of(
        &self,
        node: Node<'_, M>,
        depth: usize,
        (mut va, mut left): (VirtAddr, u64),
        f: &mut impl FnMut(Piece<'_, M>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let level = F::LEVELS[depth];
        let size = 1u64 << level.shift;
        while left > 0 {
            let offset = va.as_u64() & (size - 1);
            let len = left.min(size - offset);
            let slot = node.slot(index(va, level));
            let raw = slot.load();
            let span = |entry| Span { va, len, entry };
            // Most entries of a sparse table are holes, and cost no decoding.
            if raw != 0 {
                match F::decode(raw, level.shift) {
                    Decoded::Table(child) => {
                        self.pieces_of(self.node(child), depth + 1, (va, len), f)?;
                    }
                    Decoded::Entry(Entry::Hole) => {}
                    Decoded::Entry(Entry::Leaf(pa, attr)) => {
                        let entry = Entry::Leaf(pa.wrapping_add(offset), attr);
                        f(Piece { slot, level, raw, span: span(entry) })?;
                    }
                    Decoded::Entry(soft) => f(Piece { slot, level, raw, span: span(soft) })?,
                }
            }
            va = va.wrapping_add(len);
            left -= len;
        }
        ControlFlow::Continue(())
    }

    /// Bytes of this node, of level `depth`, and of all below it.
    pub(super) fn bytes_below(&self, pa: vellum_core::PhysAddr, depth: usize) -> u64 {
        let level = F::LEVELS[depth];
        let mut bytes = vellum_core::order_bytes(level.order());
        if depth + 1 < F::LEVELS.len() {
            let node = self.node(pa);
            for i in 0..1u64 << level.bits {
                if let Decoded::Table(child) = F::decode(node.slot(i).load(), level.shift) {
                    bytes += self.bytes_below(child, depth + 1);
                }
            }
        }
        bytes
    }
}

/// Whether `next` begins where `span` ends, with leaves that go on as theirs do.
fn continues(span: &Span, next: &Span) -> bool {
    match (span.entry, next.entry) {
        (Entry::Leaf(a, attr), Entry::Leaf(b, other)) => {
            attr == other
                && span.va.checked_add(span.len) == Some(next.va)
                && a.checked_add(span.len) == Some(b)
        }
        _ => false,
    }
}
