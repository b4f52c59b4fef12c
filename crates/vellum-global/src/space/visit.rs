//! Going through a range in ascending order.
//!
//! ```text
//!   cursor of 4 KiB    a  b           d  e
//!   cursor of 2 MiB          [   c   ]                   the lowest of their heads is next;
//!   cursor of 1 GiB                         [   f ...    neighbours of one size are joined
//! ```
//!
//! With t entries in the table, n of them in the range and g gaps of more than t pages between them,
//! it costs at most about t(n/64 + 1) steps, and n + gt where pages are dense (see cursor.rs); the
//! same again for each size that the space has entries of. A range of a VMA's size costs one look-up
//! a block.

use super::Space;
use super::cursor::Cursor;
use super::range::cut;
use crate::{Key, Keys, Size, Store};
use core::ops::ControlFlow;
use vellum_core::{Entry, Span};

impl<S: Store> Space<'_, S> {
    pub(super) fn visit_keys(&self, keys: Keys, f: &mut impl FnMut(Span) -> ControlFlow<()>) {
        let mut spans = Spans { pending: None, f };
        let told = if self.has_large() {
            self.visit_sizes(keys, &mut spans)
        } else {
            self.visit_pages(keys, &mut spans)
        };
        if told.is_continue() {
            // Nothing follows, so what the callback says of the last one does not matter.
            let _ = spans.end();
        }
    }

    fn visit_pages<F: FnMut(Span) -> ControlFlow<()>>(
        &self,
        keys: Keys,
        spans: &mut Spans<'_, F>,
    ) -> ControlFlow<()> {
        let mut cursor = Cursor::new(self, keys);
        while let Some((key, raw)) = cursor.next() {
            spans.add(Size::Base, cut(key, raw, keys))?;
        }
        ControlFlow::Continue(())
    }

    /// Takes the lowest of what the cursors of all sizes have next. Kept apart: it needs the room of
    /// three.
    #[inline(never)]
    fn visit_sizes<F: FnMut(Span) -> ControlFlow<()>>(
        &self,
        keys: Keys,
        spans: &mut Spans<'_, F>,
    ) -> ControlFlow<()> {
        let mut cursors = Size::ALL.map(|size| Cursor::new(self, keys.touching(size)));
        let mut heads = cursors.each_mut().map(Cursor::next);
        let mut rest = Some(keys);
        while let Some(keys) = rest {
            let at = |&(key, _): &(Key, u64)| key.va();
            let nonempty = heads.iter_mut().zip(&mut cursors).filter(|(head, _)| head.is_some());
            let Some((head, cursor)) = nonempty.min_by_key(|(head, _)| head.as_ref().map(at))
            else {
                break;
            };
            let Some((key, raw)) = core::mem::replace(head, cursor.next()) else { break };
            if key.last_page() < keys.first() {
                // Put in while this went on, where another leaf was told of already.
                continue;
            }
            spans.add(key.size(), cut(key, raw, keys))?;
            rest = if key.last_page() < keys.last() { keys.after(key.last_page()) } else { None };
        }
        ControlFlow::Continue(())
    }
}

/// Joins neighbours of one size into spans on their way to the callback.
struct Spans<'f, F> {
    pending: Option<(Size, Span)>,
    f: &'f mut F,
}

impl<F: FnMut(Span) -> ControlFlow<()>> Spans<'_, F> {
    fn add(&mut self, size: Size, next: Span) -> ControlFlow<()> {
        match &mut self.pending {
            Some((of, span)) if *of == size && continues(*span, next) => {
                span.len += next.len;
                return ControlFlow::Continue(());
            }
            _ => {}
        }
        match self.pending.replace((size, next)) {
            Some((_, span)) => (self.f)(span),
            None => ControlFlow::Continue(()),
        }
    }

    fn end(&mut self) -> ControlFlow<()> {
        self.pending.take().map_or(ControlFlow::Continue(()), |(_, span)| (self.f)(span))
    }
}

fn continues(span: Span, next: Span) -> bool {
    match (span.entry, next.entry) {
        (Entry::Leaf(pa, attr), Entry::Leaf(after, same)) => {
            attr == same
                && span.va.checked_add(span.len) == Some(next.va)
                && pa.checked_add(span.len) == Some(after)
        }
        _ => false,
    }
}
