//! Taking some pages out of a range, and leaving others: a file's, or those that can go.

use super::{Mmu, each_frame};
use crate::system::System;
use core::ops::ControlFlow;
use vellum_cache::page::{PageInfo, State};
use vellum_core::{Attr, Cause, Entry, PAGE_SIZE, ReplaceError, Run, VirtAddr};

/// Pages that are looked up at a time, since a visit may not change the table.
const PAGES: usize = 32;

impl<S: System> Mmu<'_, S> {
    /// Takes every page of the page cache out of the range; a private copy stays.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold.
    pub fn zap_cached(&mut self, va: VirtAddr, len: u64) -> Result<(), Cause> {
        self.zap_those(va, len, &|info, _| !info.state().contains(State::ANON), &mut |_| {})
    }

    /// Takes every page out of the range that is mapped here alone and whose contents are not lost by
    /// that: the page cache's, and those that were [given up](Self::give_up) and not written since, or
    /// are `droppable`. `f` is told of each.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold.
    pub fn let_go(
        &mut self,
        va: VirtAddr,
        len: u64,
        droppable: bool,
        f: &mut impl FnMut(VirtAddr),
    ) -> Result<(), Cause> {
        let which = |info: &PageInfo, attr: Attr| {
            let state = info.state();
            let given_up = state.contains(State::LAZY) && !attr.contains(Attr::DIRTY);
            let is_lazy = droppable || given_up;
            info.maps() == 1 && (!state.contains(State::ANON) || is_lazy)
        };
        let mut done = 0;
        while done < len {
            let at = va.wrapping_add(done);
            let (others, step) = self.co_owners(at, len - done);
            if others == 0 {
                // Takes no memory.
                self.make_own(at, step).map_err(|e| e.cause)?;
                self.zap_those(at, step, &which, f)?;
            }
            done += step;
        }
        Ok(())
    }

    /// Notes that the contents of the range's private pages may go (`MADV_FREE`), until they are
    /// written again.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold, or out of memory for a part of the table that others link.
    pub fn give_up(&mut self, va: VirtAddr, len: u64) -> Result<(), Cause> {
        // Others would lose the status by which they know that a page is in use.
        self.own_pages(va, len).map_err(|e| e.cause)?;
        self.harvest(va, len, Attr::STATUS, &mut |_| {})?;
        self.visit(va, len, &mut |span| {
            if let Entry::Leaf(pa, attr) = span.entry {
                each_frame(self.engine, Run::new(span.va, pa, span.len, attr), |info| {
                    if info.state().contains(State::ANON) {
                        info.set(State::LAZY);
                    }
                });
            }
            ControlFlow::Continue(())
        })
    }

    fn zap_those(
        &mut self,
        va: VirtAddr,
        len: u64,
        which: &impl Fn(&PageInfo, Attr) -> bool,
        f: &mut impl FnMut(VirtAddr),
    ) -> Result<(), Cause> {
        let end = va.wrapping_add(len);
        let mut from = va;
        while from != end {
            let mut found: [Option<(VirtAddr, Entry)>; PAGES] = [None; PAGES];
            let rest = end.as_u64().wrapping_sub(from.as_u64());
            let more = self.those_pages(from, rest, which, &mut found)?;
            let mut last = None;
            for (page, entry) in found.into_iter().flatten() {
                match self.replace(page, PAGE_SIZE, entry, Entry::Hole) {
                    Err(ReplaceError::Invalid(cause)) => return Err(cause),
                    // Nobody else has this space, so nothing can have changed.
                    Ok(()) | Err(_) => last = Some(page),
                }
                f(page);
            }
            match last {
                Some(page) if more => from = page.wrapping_add(PAGE_SIZE),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// The first pages of the range that are wanted; whether there are more.
    fn those_pages(
        &self,
        va: VirtAddr,
        len: u64,
        which: &impl Fn(&PageInfo, Attr) -> bool,
        found: &mut [Option<(VirtAddr, Entry)>],
    ) -> Result<bool, Cause> {
        let mut slots = found.iter_mut();
        let mut more = false;
        self.visit(va, len, &mut |span| {
            let Entry::Leaf(pa, attr) = span.entry else { return ControlFlow::Continue(()) };
            for offset in (0..span.len).step_by(PAGE_SIZE as usize) {
                let at = pa.wrapping_add(offset);
                let info = self.engine.system().info(at).filter(|_| at != self.engine.zeros());
                if !info.is_some_and(|info| which(info, attr)) {
                    continue;
                }
                let Some(slot) = slots.next() else {
                    more = true;
                    return ControlFlow::Break(());
                };
                *slot = Some((span.va.wrapping_add(offset), Entry::Leaf(at, attr)));
            }
            ControlFlow::Continue(())
        })?;
        Ok(more)
    }
}
