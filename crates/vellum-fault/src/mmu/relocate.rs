//! Moving pages to another place of the same space.
//!
//! ```text
//!   old   [f1][f2][ ][swap 7][f3]           0. large leaves at the ends are split
//!                                           1. what is there is mapped at the new place too
//!          |   |        |     |             2. the old entries go, and nobody gets their frames
//!   new   [f1][f2][ ][swap 7][f3]
//! ```
//!
//! Between the two a page is reached by both addresses, which is one page all the while. If memory for
//! the table runs out in step 1, the new entries go again and nothing has happened.
//!
//! # Invariants
//!
//! - The two ranges do not overlap.
//! - A share goes with its leaf; no count changes.

use super::{Mmu, mover};
use crate::system::System;
use core::ops::ControlFlow;
use vellum_core::{
    Cause, Entry, PAGE_SIZE, PageTable, RangeError, ReplaceError, Run, Span, VirtAddr, Walk,
};

/// Spans that are read at a time, since a visit may not change the table.
const SPANS: usize = 16;

impl<S: System> Mmu<'_, S> {
    /// Moves everything in `[from, from + len)` to `to`, where nothing is.
    ///
    /// # Errors
    ///
    /// Out of memory; then nothing was moved.
    pub fn relocate(&mut self, from: VirtAddr, to: VirtAddr, len: u64) -> Result<(), Cause> {
        if len == 0 {
            return Ok(());
        }
        self.split_ends(from, len).map_err(|e| e.cause)?;
        self.make_own(from, len).map_err(|e| e.cause)?;
        self.make_own(to, len).map_err(|e| e.cause)?;
        if let Err(error) = self.alias(from, to, len) {
            self.drop_aliases(to, error.done)?;
            return Err(error.cause);
        }
        // No leaf reaches out of the range, so none has to be split, and no memory is needed.
        self.forget(from, len).map_err(|e| e.cause)
    }

    /// Splits the large leaves that reach out of the range, and makes the linked parts that do its own, so
    /// that what is done to the range after this takes no memory for its ends.
    ///
    /// # Errors
    ///
    /// Out of memory; one of the two may have been split.
    pub fn split_ends(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        self.own_ends(va, len)?;
        if len == 0 || S::Table::LEAVES == PAGE_SIZE {
            return Ok(());
        }
        let last = va.wrapping_add(len - PAGE_SIZE);
        self.split_outside(va, (va, last))?;
        self.split_outside(last, (va, last))
    }

    /// Splits the leaf at `page`, if it reaches out of the range of these first and last pages.
    fn split_outside(
        &mut self,
        page: VirtAddr,
        (first, last): (VirtAddr, VirtAddr),
    ) -> Result<(), RangeError> {
        let span = self.table.walk(page, &mut ())?;
        let end = span.va.wrapping_add(span.len.saturating_sub(PAGE_SIZE));
        if span.va < first || end > last { self.split(page) } else { Ok(()) }
    }

    /// Maps at `to` what is at `from`, too.
    fn alias(&mut self, from: VirtAddr, to: VirtAddr, len: u64) -> Result<(), RangeError> {
        let mut done = 0;
        loop {
            let mut spans: [Option<Span>; SPANS] = [None; SPANS];
            let mut slots = spans.iter_mut();
            let at = from.wrapping_add(done);
            let mut more = false;
            self.table
                .visit(at, len - done, &mut |span| match slots.next() {
                    Some(slot) => {
                        *slot = Some(span);
                        ControlFlow::Continue(())
                    }
                    None => {
                        more = true;
                        ControlFlow::Break(())
                    }
                })
                .map_err(|cause| RangeError { cause, done })?;
            for span in spans.into_iter().flatten() {
                let start = span.va.as_u64().wrapping_sub(from.as_u64());
                self.alias_span(span, to.wrapping_add(start))
                    .map_err(|e| RangeError { cause: e.cause, done: start + e.done })?;
                done = start + span.len;
            }
            if !more {
                return Ok(());
            }
        }
    }

    fn alias_span(&mut self, span: Span, to: VirtAddr) -> Result<(), RangeError> {
        match span.entry {
            Entry::Hole => Ok(()),
            Entry::Soft(_) => {
                let mut stock = self.table.stock();
                let mut gather = mover::<S, 2>(self.engine, &self.cpus);
                let made = self.table.replace_refilling(
                    to,
                    PAGE_SIZE,
                    Entry::Hole,
                    span.entry,
                    &mut stock,
                    &mut gather,
                );
                gather.finish();
                made.map_err(|e| match e {
                    ReplaceError::Invalid(cause) => cause.into(),
                    _ => Cause::Mapped(Span { va: to, ..span }).into(),
                })
            }
            Entry::Leaf(pa, attr) => {
                let leaf = self.table.walk(span.va, &mut ())?.len;
                let page = leaf.checked_ilog2().and_then(|n| u8::try_from(n).ok()).unwrap_or(0);
                let run = Run::new(to, pa, span.len, attr).with_leaves_up_to(page);
                let mut gather = mover::<S, 4>(self.engine, &self.cpus);
                let made = self.table.map(run, &mut gather);
                gather.finish();
                made
            }
        }
    }

    /// Takes the first `len` bytes of aliases away again.
    fn drop_aliases(&mut self, to: VirtAddr, len: u64) -> Result<(), Cause> {
        if len == 0 {
            return Ok(());
        }
        self.forget(to, len).map_err(|e| e.cause)
    }

    /// Removes entries whose frames others have.
    fn forget(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        let mut gather = mover::<S, 32>(self.engine, &self.cpus);
        let done = self.table.unmap(va, len, &mut gather);
        gather.finish();
        done
    }
}
