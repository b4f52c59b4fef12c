//! Taking a file's pages out of a range, and leaving what was copied of them.

use super::Mmu;
use crate::system::System;
use core::ops::ControlFlow;
use vellum_cache::page::State;
use vellum_core::{Cause, Entry, PAGE_SIZE, PhysAddr, ReplaceError, VirtAddr};

/// Pages that are looked up at a time, since a visit may not change the table.
const PAGES: usize = 32;

impl<S: System> Mmu<'_, S> {
    /// Takes every page of the page cache out of the range; a private copy stays.
    ///
    /// # Errors
    ///
    /// A range that the table cannot hold.
    pub fn zap_cached(&mut self, va: VirtAddr, len: u64) -> Result<(), Cause> {
        let end = va.wrapping_add(len);
        let mut from = va;
        while from != end {
            let mut found: [Option<(VirtAddr, Entry)>; PAGES] = [None; PAGES];
            let rest = end.as_u64().wrapping_sub(from.as_u64());
            let more = self.cached_pages(from, rest, &mut found)?;
            let mut last = None;
            for (page, entry) in found.into_iter().flatten() {
                match self.replace(page, PAGE_SIZE, entry, Entry::Hole) {
                    Err(ReplaceError::Invalid(cause)) => return Err(cause),
                    // Nobody else has this space, so nothing can have changed.
                    Ok(()) | Err(_) => last = Some(page),
                }
            }
            match last {
                Some(page) if more => from = page.wrapping_add(PAGE_SIZE),
                _ => return Ok(()),
            }
        }
        Ok(())
    }

    /// The first pages of the range that are the cache's; whether there are more.
    fn cached_pages(
        &self,
        va: VirtAddr,
        len: u64,
        found: &mut [Option<(VirtAddr, Entry)>],
    ) -> Result<bool, Cause> {
        let mut slots = found.iter_mut();
        let mut more = false;
        self.visit(va, len, &mut |span| {
            let Entry::Leaf(pa, attr) = span.entry else { return ControlFlow::Continue(()) };
            for offset in (0..span.len).step_by(PAGE_SIZE as usize) {
                let at = pa.wrapping_add(offset);
                if !self.is_of_file(at) {
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

    fn is_of_file(&self, pa: PhysAddr) -> bool {
        let info = self.engine.system().info(pa);
        pa != self.engine.zeros() && info.is_some_and(|info| !info.state().contains(State::ANON))
    }
}
