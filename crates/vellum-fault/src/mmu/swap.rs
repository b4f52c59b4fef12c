//! Pages that go out to swap, and come back.
//!
//! ```text
//!   out    leaf RW -> leaf RO, flushed -> bytes stored -> swap entry      for who has the space
//!   in     share of the entry -> look again -> bytes read -> leaf RW      by any fault
//! ```
//!
//! # Invariants
//!
//! - A swap entry in the table has a share of its place.
//! - A page goes out only if one leaf is all that has it: so its contents are in one place.

use super::fault::{Fault, Step};
use super::{Mmu, RssKind, gather};
use crate::outcome::{Cost, FaultError};
use crate::soft::Marker;
use crate::system::System;
use vellum_cache::page::Page;
use vellum_core::{
    Attr, Cause, Change, Entry, FrameBytes, PAGE_SHIFT, PAGE_SIZE, PageTable, ReplaceError, Span,
    Swap, SwapEntry, SwapError, VirtAddr, Walk,
};

impl<S: System> Mmu<'_, S> {
    /// Takes the anonymous page at `va` out: `store` gets its bytes, which nobody writes to meanwhile,
    /// and says where they are now, with one share for this table. Whether it went: not if it is no
    /// anonymous page of 4 KiB, if others have it too, or if `store` says `None`.
    ///
    /// Who touches the page meanwhile faults, and waits for who has this space.
    ///
    /// # Errors
    ///
    /// An address that the table cannot hold; the page is where it was. If the place cannot be written
    /// into the table ([`Cause::SoftTooWide`]), its share was given back.
    pub fn page_out(
        &mut self,
        va: VirtAddr,
        store: impl FnOnce(FrameBytes<'_>) -> Option<SwapEntry>,
    ) -> Result<bool, Cause> {
        let page = va.align_down(PAGE_SHIFT);
        let system = self.engine.system();
        if self.co_owners(page, PAGE_SIZE).0 > 0 {
            return Ok(false);
        }
        // Nobody else links it, so this takes no memory.
        self.make_own(page, PAGE_SIZE).map_err(|e| e.cause)?;
        let span = self.table.walk(page, &mut ())?;
        let Entry::Leaf(pa, attr) = span.entry else { return Ok(false) };
        if span.len != PAGE_SIZE || self.alone(pa, PAGE_SIZE).is_none() {
            return Ok(false);
        }
        let read_only = Change::clearing(Attr::WRITE);
        let Self { engine, table, cpus, rss, .. } = self;
        let mut gather = gather::<S, 2>(engine, cpus, rss);
        let protected = table.protect(page, PAGE_SIZE, read_only, &mut gather);
        gather.finish();
        protected.map_err(|e| e.cause)?;
        let Some(kept) = Page::found(system, pa) else { return Ok(false) };
        let Some(place) = kept.with_bytes(store) else { return Ok(false) };
        let Some(soft) = Marker::Swap(place).soft() else {
            system.swap().release(place);
            return Err(Cause::SoftTooWide(place.0));
        };
        self.rss.add(page, RssKind::Swap, 1);
        let old = Entry::Leaf(pa, read_only.apply(attr));
        self.replace(page, PAGE_SIZE, old, Entry::Soft(soft)).map(|()| true).or_else(|error| {
            self.rss.sub(page, RssKind::Swap, 1);
            system.swap().release(place);
            match error {
                ReplaceError::Invalid(cause) => Err(cause),
                _ => Ok(false),
            }
        })
    }

    /// The page is in swap: reads it, and is alone with it from then on.
    #[inline(never)]
    pub(super) fn swap_in(&self, fault: &Fault<'_>, span: Span, entry: SwapEntry) -> Step {
        let system = self.engine.system();
        if self.is_linked(fault.page()) {
            // Before the device is asked.
            return Err(FaultError::Exclusive);
        }
        // A share while it is read, so that its place is not another page's by the time of the exchange.
        if !system.swap().share(entry) {
            return Ok(None);
        }
        let step = self.read_back(fault, span, entry);
        system.swap().release(entry);
        step
    }

    /// What has a share in the swap entry, if the page has not come back meanwhile.
    fn read_back(&self, fault: &Fault<'_>, span: Span, entry: SwapEntry) -> Step {
        let system = self.engine.system();
        if self.table.walk(fault.page(), &mut ())?.entry != span.entry {
            return Ok(None);
        }
        let page = Page::take(system)?;
        match page.with_bytes(|bytes| system.swap().read(entry, bytes)) {
            Ok(()) => {}
            Err(SwapError::Busy) => return Err(FaultError::Retry),
            Err(_) => return Err(fault.deny_page()),
        }
        self.adopt(fault, page.info());
        // Nothing else has its contents any more.
        let attr = fault.attr(fault.region.is_private()) | Attr::DIRTY;
        let step = self.install(fault.page(), span.entry, page, attr)?;
        Ok(step.map(|_| Cost::Major))
    }
}
