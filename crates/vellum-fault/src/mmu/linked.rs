//! Parts of a table that other tables link, too: after a fork, until somebody changes them.
//!
//! ```text
//!   parent    child                    a store to a page of the part, in the child
//!     \\       /                       fault            refused: Cause::Shared -> Exclusive
//!      v     v                         fault_exclusive  the child's own copy of the part; then as always
//!   [ leaves ]   frames: owners 1, maps 1                 owners 2, maps 2: copy-on-write of the page
//! ```
//!
//! What is done to pages here makes parts this table's own first ([`Mmu::make_own`]), but for a zap of all
//! of one: that drops the link, and the others keep the leaves.
//!
//! # Invariants
//!
//! - A frame's shares and `maps` count leaves, and a leaf in a part that several tables link is one. So
//!   whoever learns from a record that a page is his alone looks whether the part is, too, or lets the table
//!   refuse the exchange that comes of it.
//! - A space's own counters ([`Rss`](super::Rss)) count what it shows: a linked part's pages in every space
//!   that links it.
//! - Only pages of private anonymous regions are in linked parts, so that no change of a file meets one.
//! - `links` is false only if no part of the table is linked.

use super::rss::Tally;
use super::{Mmu, RssKind, each_frame, gather, uncounted};
use crate::engine::Engine;
use crate::soft::Marker;
use crate::system::System;
use core::ops::ControlFlow;
use vellum_core::{
    Entry, Gather, Linked, PAGE_SIZE, PageTable, RangeError, Run, Span, Swap, VirtAddr,
};

/// Bytes of a range that is not worth a large gather.
const FEW: u64 = 4 * PAGE_SIZE;

impl<S: System> Mmu<'_, S> {
    /// How many other spaces have the page at `va` by the same leaf, which its record counts once, and for
    /// how many bytes from there on that is so. What a reader of `maps` has to know, too.
    pub fn co_owners(&self, va: VirtAddr, len: u64) -> (u32, u64) {
        if !self.links {
            return (0, len);
        }
        match self.table.next_linked(va, len) {
            None => (0, len),
            Some(part) if part.va > va => (0, piece_of(&part, va, len).0),
            Some(part) => (part.others, piece_of(&part, va, len).1),
        }
    }

    /// Whether the page at `va` is in a part that cannot be changed before it is this table's own.
    pub(super) fn is_linked(&self, va: VirtAddr) -> bool {
        self.links && self.table.next_linked(va, PAGE_SIZE).is_some()
    }

    /// Makes every part of the table that has a piece in the range this table's own. Costs a copy of what
    /// others link still, and nothing where no fork was.
    ///
    /// # Errors
    ///
    /// Out of memory: no page has changed, and what is before `done` is its own.
    pub fn make_own(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        if !self.links || len == 0 {
            return Ok(());
        }
        let Self { engine, table, cpus, .. } = self;
        // The last that has a link takes its leaves back, also if it has become that just now; the pages
        // are there all the same.
        let mut gather = uncounted::<S, 4>(engine, cpus);
        let done = table.unshare(va, len, &mut gather, &mut |span| copied(engine, span));
        gather.finish();
        done
    }

    /// The same for the parts of which there are pages in the range: what else is in them stays as it is.
    ///
    /// # Errors
    ///
    /// As of [`make_own`](Self::make_own).
    pub fn own_pages(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        let mut done = 0;
        while self.links && done < len {
            let (at, left) = (va.wrapping_add(done), len - done);
            let Some(part) = self.table.next_linked(at, left) else { break };
            let (before, piece) = piece_of(&part, at, left);
            let first = at.wrapping_add(before);
            if !self.is_empty(first, piece) {
                let own = self.make_own(first, piece);
                own.map_err(|e| RangeError { done: done + before, ..e })?;
            }
            done += before + piece;
        }
        Ok(())
    }

    /// The same for the parts that reach out of the range at its ends, with pages there, too.
    ///
    /// # Errors
    ///
    /// As of [`make_own`](Self::make_own).
    pub(super) fn own_ends(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        if !self.links || len == 0 {
            return Ok(());
        }
        for page in [va, va.wrapping_add(len - PAGE_SIZE)] {
            let part = self.table.next_linked(page, PAGE_SIZE);
            if let Some(part) = part.filter(|part| !self.goes_whole(part, va, len)) {
                let (before, piece) = piece_of(&part, va, len);
                self.own_pages(va.wrapping_add(before), piece)?;
            }
        }
        Ok(())
    }

    /// Takes everything out of a range in which parts may be linked.
    #[cold]
    pub(super) fn zap_linked(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        self.check(va, len)?;
        let mut done = 0;
        while done < len {
            let (at, left) = (va.wrapping_add(done), len - done);
            let step = match self.table.next_linked(at, left) {
                None => self.zap_own(at, left).map(|()| left),
                Some(part) if part.va > at => {
                    let (own, _) = piece_of(&part, at, left);
                    self.zap_own(at, own).map(|()| own)
                }
                Some(part) => {
                    let (_, piece) = piece_of(&part, at, left);
                    if self.goes_whole(&part, at, left) {
                        self.drop_link(part).map(|()| piece)
                    } else if self.is_empty(at, piece) {
                        Ok(piece)
                    } else {
                        self.make_own(at, piece).map(|()| 0)
                    }
                }
            };
            done += step.map_err(|e| RangeError { done: done + e.done, ..e })?;
        }
        Ok(())
    }

    /// Whether a part lies in a range whole, or there is nothing in it that does not.
    fn goes_whole(&self, part: &Linked, va: VirtAddr, len: u64) -> bool {
        let apart = |a: VirtAddr, b: VirtAddr| a.as_u64().wrapping_sub(b.as_u64());
        let (before, until) = if va > part.va {
            let before = apart(va, part.va);
            (before, before.saturating_add(len).min(part.len))
        } else {
            (0, len.saturating_sub(apart(part.va, va)).min(part.len))
        };
        let behind = part.va.wrapping_add(until);
        self.is_empty(part.va, before) && self.is_empty(behind, part.len - until)
    }

    /// Whether there is nothing in a range that the table can hold.
    fn is_empty(&self, va: VirtAddr, len: u64) -> bool {
        let mut found = false;
        let looked = self.table.visit(va, len, &mut |_| {
            found = true;
            ControlFlow::Break(())
        });
        len == 0 || looked.is_ok() && !found
    }

    /// Takes out a linked part whole.
    fn drop_link(&mut self, part: Linked) -> Result<(), RangeError> {
        let Linked { va, len, .. } = part;
        let Self { engine, table, cpus, rss, .. } = self;
        let mut there = Tally::default();
        table.visit(va, len, &mut |span| {
            shown(engine, span, &mut there);
            ControlFlow::Continue(())
        })?;
        let mut gather = uncounted::<S, 4>(engine, cpus);
        let done = table.unmap(va, len, &mut gather);
        gather.finish();
        done?;
        there.each(|kind, pages| rss.sub(va, kind, pages));
        Ok(())
    }

    /// Takes everything out of a range in which no part is linked.
    pub(super) fn zap_own(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        // What holds much takes long to make.
        if len <= FEW { self.zap_by::<4>(va, len) } else { self.zap_by::<32>(va, len) }
    }

    fn zap_by<const N: usize>(&mut self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        let Self { engine, table, cpus, rss, .. } = self;
        let mut gather = gather::<S, N>(engine, cpus, rss);
        let done = table.unmap(va, len, &mut gather);
        // Not `finish`, which would move it: nothing is in it after this.
        gather.drain();
        done
    }
}

/// How far from the first byte of a range a part begins in it, and how many bytes of it are there.
fn piece_of(part: &Linked, va: VirtAddr, len: u64) -> (u64, u64) {
    let before = part.va.as_u64().saturating_sub(va.as_u64());
    let behind = va.as_u64().saturating_sub(part.va.as_u64());
    (before, part.len.saturating_sub(behind).min(len.saturating_sub(before)))
}

/// A copy of a part names this, too.
fn copied<S: System>(engine: &Engine<S>, span: Span) {
    match span.entry {
        Entry::Hole => {}
        Entry::Leaf(pa, attr) => {
            let run = Run::new(span.va, pa, span.len, attr);
            each_frame(engine, run, vellum_cache::PageInfo::mapped_again);
        }
        Entry::Soft(soft) => {
            if let Some(Marker::Swap(entry)) = Marker::of(soft) {
                let shared = engine.system().swap().share(entry);
                debug_assert!(shared, "the entry that was copied has a share");
            }
        }
    }
}

/// Counts what a span of a linked part shows: pages of private anonymous regions, and what is out.
pub(super) fn shown<S: System>(engine: &Engine<S>, span: Span, tally: &mut Tally) {
    match span.entry {
        Entry::Hole => {}
        Entry::Leaf(pa, _) => {
            let behind = engine.zeros().as_u64().wrapping_sub(pa.as_u64());
            tally.note_all(RssKind::Anon, span.len / PAGE_SIZE - u64::from(behind < span.len));
        }
        Entry::Soft(soft) => {
            if matches!(Marker::of(soft), Some(Marker::Swap(_))) {
                tally.note(RssKind::Swap);
            }
        }
    }
}
