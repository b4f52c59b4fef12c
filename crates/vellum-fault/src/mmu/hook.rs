//! Pages that the embedder shows where faults go to it.
//!
//! ```text
//!   fault -> Hook(number) -> the embedder asks its pager -> show(region, va, page)
//!
//!   there            after it
//!   hole             a leaf, with the region's rights and the page's share     true
//!   the same page    the region's rights                                       true
//!   anything else    as it was                                                 false
//! ```
//!
//! Source: Linux, userfaultfd(2) (`UFFDIO_COPY`, `UFFDIO_CONTINUE`).

use super::Mmu;
use super::fault::Fault;
use crate::outcome::{Deny, FaultError};
use crate::region::{Access, Region};
use crate::system::System;
use vellum_cache::page::Page;
use vellum_core::{Attr, Entry, PAGE_SIZE, VirtAddr, Walk};

impl<S: System> Mmu<'_, S> {
    /// Shows `page` at `va`, in a region whose faults go to the embedder. Whether it is there now; something
    /// else stays, and may be what somebody faster has shown.
    ///
    /// A page that nobody else has becomes an anonymous one of the region's. One that others have may be
    /// shown in many places, which all see stores to it.
    ///
    /// It may be called from several CPUs at once.
    ///
    /// # Errors
    ///
    /// [`FaultError`]: `Deny` for an address outside of the region or a page of another system, and what the
    /// table refuses. Nothing has changed, and the page's share was given back.
    pub fn show(
        &self,
        region: &Region,
        va: VirtAddr,
        page: Page<'_, S>,
    ) -> Result<bool, FaultError> {
        let fault = Fault { region, va, access: Access::Read };
        let at = fault.page();
        if !region.covers(at, PAGE_SIZE) || !page.is_of(self.engine.system()) {
            return Err(FaultError::Deny(Deny::Unmapped(va)));
        }
        let attr = region.rights.attr() | Attr::ACCESSED;
        let span = self.table.walk(at, &mut ())?;
        let step = match span.entry {
            Entry::Hole => {
                if page.info().is_sole() {
                    self.adopt(&fault, page.info());
                }
                self.install(at, Entry::Hole, page, attr)
            }
            Entry::Leaf(pa, old) if pa == page.pa() && span.len == PAGE_SIZE => {
                self.exchange(at, PAGE_SIZE, span.entry, Entry::Leaf(pa, old | attr))
            }
            _ => return Ok(false),
        };
        Ok(step?.is_some())
    }
}
