//! Moving pages to another place of the same space.
//!
//! ```text
//!   old   [f1][f2]|parts parts parts|[ ][swap 7]      0. large leaves at the ends are split
//!                                                     1. the ends are mapped at the new place too
//!          |   |        |               |             2. whole parts of the table move there
//!          v   v        v               v             3. the old entries go, and nobody gets their frames
//!   new   [f1][f2]|parts parts parts|[ ][swap 7]
//! ```
//!
//! Parts are moved where both places are equally aligned and the table can; otherwise all is mapped
//! twice. Between 1 and 3 a page is reached by both addresses, which is one page all the while. If memory
//! for the table runs out in 1, or before anything has moved in 2, the new entries go again and nothing
//! has happened.
//!
//! # Invariants
//!
//! - The two ranges do not overlap.
//! - A share goes with its leaf; no count changes.

use super::{Mmu, mover};
use crate::system::System;
use core::ops::Range;
use vellum_core::{
    Cause, Entry, PAGE_SIZE, PageTable, RangeError, ReplaceError, Run, Span, VirtAddr, Walk,
};

/// Which bytes of the range are parts of the table that can move whole; all of them where that is not so, to
/// be refused.
fn whole_parts<S: System>(from: VirtAddr, to: VirtAddr, len: u64) -> Range<u64> {
    let part = S::Table::PART;
    if !part.is_power_of_two() || (from.as_u64() ^ to.as_u64()) & (part - 1) != 0 {
        return 0..len;
    }
    let start = from.as_u64().wrapping_neg() & (part - 1);
    match len.checked_sub(start) {
        Some(rest) if rest >= part => start..start + (rest & !(part - 1)),
        _ => 0..len,
    }
}

impl<S: System> Mmu<'_, S> {
    /// Moves everything in `[from, from + len)` to `to`, where nothing is.
    ///
    /// # Errors
    ///
    /// Out of memory, ranges that the table cannot hold, or that overlap; then nothing was moved.
    pub fn relocate(&mut self, from: VirtAddr, to: VirtAddr, len: u64) -> Result<(), Cause> {
        self.check(from, len)?;
        self.check(to, len)?;
        if len == 0 {
            return Ok(());
        }
        if from.as_u64().abs_diff(to.as_u64()) < len {
            return Err(Cause::Mapped(self.table.walk(to, &mut ())?));
        }
        self.split_ends(from, len).map_err(|e| e.cause)?;
        let whole = whole_parts::<S>(from, to, len);
        let ends = [(0, whole.start), (whole.end, len - whole.end)];
        let mut aliased = [(0, 0); 3];
        let moved = self.move_all((from, to), ends, whole, &mut aliased);
        if let Err(cause) = moved {
            for (offset, len) in aliased {
                self.drop_aliases(to.wrapping_add(offset), len)?;
            }
            return Err(cause);
        }
        // No leaf reaches out of the range, so none has to be split, and no memory is needed.
        self.forget(from, len).map_err(|e| e.cause)
    }

    /// Maps the ends at the new place too, and moves what is between them or maps it there too; `aliased` is
    /// what was mapped twice, by offset and length.
    fn move_all(
        &mut self,
        (from, to): (VirtAddr, VirtAddr),
        ends: [(u64, u64); 2],
        whole: Range<u64>,
        aliased: &mut [(u64, u64); 3],
    ) -> Result<(), Cause> {
        let [first, last, middle] = aliased;
        for ((offset, len), done) in ends.into_iter().zip([first, last]) {
            self.alias_part((from, to), (offset, len), done)?;
        }
        let (start, len) = (whole.start, whole.end - whole.start);
        let (here, there) = (from.wrapping_add(start), to.wrapping_add(start));
        if len == 0 {
            return Ok(());
        }
        let mut gather = mover::<S, 4>(self.engine, &self.cpus);
        let moved = self.table.move_parts(here, there, len, &mut gather);
        gather.finish();
        if moved? {
            return Ok(());
        }
        self.alias_part((from, to), (start, len), middle)
    }

    /// Maps a part of a range at its new place too, after making it this table's own at both.
    fn alias_part(
        &mut self,
        (from, to): (VirtAddr, VirtAddr),
        (offset, len): (u64, u64),
        done: &mut (u64, u64),
    ) -> Result<(), Cause> {
        let (here, there) = (from.wrapping_add(offset), to.wrapping_add(offset));
        self.make_own(here, len).map_err(|e| e.cause)?;
        self.make_own(there, len).map_err(|e| e.cause)?;
        let result = if len == 0 { Ok(()) } else { self.alias(here, there, len) };
        *done = (offset, result.map_or_else(|e| e.done, |()| len));
        result.map_err(|e| e.cause)
    }

    /// Splits the large leaves that reach out of the range, and makes the linked parts that do its own, so
    /// that what is done to the range after this takes no memory for its ends.
    ///
    /// # Errors
    ///
    /// Out of memory, and one of the two may have been split; or a range that the table cannot hold.
    pub fn split_ends(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        self.check(va, len)?;
        self.own_ends(va, len)?;
        if len == 0 || S::Table::LEAVES == PAGE_SIZE || !self.may_have_large() {
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
            let spans = self.some_spans(from.wrapping_add(done), len - done);
            let (spans, more) = spans.map_err(|cause| RangeError { cause, done })?;
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
