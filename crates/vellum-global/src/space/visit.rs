//! Going through a range in ascending order, in a table that has none.
//!
//! ```text
//!   range at most as long as the table      look up every page
//!   longer                                  pass over all stripes: the 64 lowest keys, report them,
//!                                           and again above those
//!      ... and those 64 lay close           look up a stretch as long as the table instead, for as
//!                                           long as each brings 64 entries or more
//! ```
//!
//! With t entries in the table, n of them in the range and g gaps of more than t pages between them,
//! it costs at most about t(n/64 + 1) steps, and n + gt where pages are dense. A range of a VMA's
//! size costs one look-up a page.

use super::{Space, decode};
use crate::pass::Pass;
use crate::{Key, Keys, Lowest, Store};
use core::num::NonZeroU64;
use core::ops::ControlFlow;
use vellum_core::{Entry, PAGE_SIZE, Span, VirtAddr};

impl<S: Store> Space<'_, S> {
    pub(super) fn visit_keys(&self, keys: Keys, f: &mut impl FnMut(Span) -> ControlFlow<()>) {
        let mut spans = Spans { pending: None, f };
        if self.visit_pages(keys, &mut spans).is_continue() {
            // Nothing follows, so what the callback says of the last one does not matter.
            let _ = spans.end();
        }
    }

    fn visit_pages<F: FnMut(Span) -> ControlFlow<()>>(
        &self,
        keys: Keys,
        spans: &mut Spans<'_, F>,
    ) -> ControlFlow<()> {
        let mut rest = Some(keys);
        let mut dense = false;
        while let Some(keys) = rest {
            if self.count_entries() == 0 {
                break;
            }
            let pages = NonZeroU64::MIN.saturating_add(self.table.count_entries());
            if dense || keys.count_pages() <= pages.get() {
                let (near, far) = keys.split_at(pages);
                dense = self.look_up_each(near, spans)? >= Lowest::ROOM;
                rest = far;
            } else {
                let found = self.lowest(keys);
                for &(key, raw) in found.held() {
                    spans.add(key.va(), decode(raw))?;
                }
                dense = is_dense(found.held(), pages.get());
                rest = found.rest();
            }
        }
        ControlFlow::Continue(())
    }

    /// Looks up every page of the range; how many had an entry.
    fn look_up_each<F: FnMut(Span) -> ControlFlow<()>>(
        &self,
        keys: Keys,
        spans: &mut Spans<'_, F>,
    ) -> ControlFlow<(), usize> {
        let mut count = 0;
        for key in keys.iter() {
            let raw = self.table.walk(key, &mut ());
            if raw != 0 {
                count += 1;
                spans.add(key.va(), decode(raw))?;
            }
        }
        ControlFlow::Continue(count)
    }

    /// The lowest entries of the range, by one pass over the table.
    fn lowest(&self, keys: Keys) -> Lowest {
        let mut found = Lowest::new(keys);
        let mut pass = Pass::new(self.table);
        while let Some(part) = pass.next(self.table) {
            if !part.offer(self.table, &mut found) {
                pass.restart();
            }
        }
        found
    }
}

fn is_dense(held: &[(Key, u64)], pages: u64) -> bool {
    match held {
        [(first, _), .., (last, _)] => last.tag() - first.tag() <= pages,
        _ => false,
    }
}

/// Joins neighbours into spans on their way to the callback.
struct Spans<'f, F> {
    pending: Option<Span>,
    f: &'f mut F,
}

impl<F: FnMut(Span) -> ControlFlow<()>> Spans<'_, F> {
    fn add(&mut self, va: VirtAddr, entry: Entry) -> ControlFlow<()> {
        match &mut self.pending {
            Some(span) if continues(*span, va, entry) => {
                span.len += PAGE_SIZE;
                return ControlFlow::Continue(());
            }
            _ => {}
        }
        match self.pending.replace(Span { va, len: PAGE_SIZE, entry }) {
            Some(span) => (self.f)(span),
            None => ControlFlow::Continue(()),
        }
    }

    fn end(&mut self) -> ControlFlow<()> {
        self.pending.take().map_or(ControlFlow::Continue(()), &mut self.f)
    }
}

fn continues(span: Span, va: VirtAddr, entry: Entry) -> bool {
    match (span.entry, entry) {
        (Entry::Leaf(pa, attr), Entry::Leaf(next, same)) => {
            attr == same
                && span.va.checked_add(span.len) == Some(va)
                && pa.checked_add(span.len) == Some(next)
        }
        _ => false,
    }
}
