//! The first store to a page that others may see: copy-on-write.
//!
//! ```text
//!   parent --RO--> frame <--RO-- child          owners 2
//!
//!   child stores:   child --RW--> copy          owners 1 each
//!                   parent --RO--> frame
//!   parent stores:  parent --RW--> frame        it is alone with it: no copy
//! ```
//!
//! # Invariants
//!
//! - A writable leaf of a private region maps an anonymous frame with one owner, or had that right
//!   before somebody else looked at the frame for a moment.
//! - A frame is copied only while it cannot be written: every leaf of it is read-only, or it is a
//!   file's page, of which a copy at any moment is right.

use super::Mmu;
use super::fault::{Fault, Step};
use crate::outcome::FaultError;
use crate::system::System;
use vellum_cache::page::{Page, State};
use vellum_core::{Entry, PAGE_SIZE, PhysAddr, Span};

impl<S: System> Mmu<'_, S> {
    /// A store to a leaf of a private region that is not writable.
    pub(super) fn break_cow(&self, fault: &Fault<'_>, span: Span) -> Step {
        let Entry::Leaf(pa, attr) = span.entry else { return Ok(None) };
        let system = self.engine.system();
        if pa == self.engine.zeros() {
            let page = Page::zeroed(system)?;
            self.adopt(fault, page.info());
            return self.install(fault.page(), span.entry, page, fault.attr(true));
        }
        if self.is_alone(pa, span.len) {
            return self.grant(span, fault.attr(true) | attr);
        }
        if span.len > PAGE_SIZE {
            return Err(FaultError::Exclusive);
        }
        // A share, so that the frame stays what it is while it is copied.
        let Some(old) = Page::found(system, pa) else { return Ok(None) };
        let new = self.copy_of(&old)?;
        self.adopt(fault, new.info());
        self.install(fault.page(), span.entry, new, fault.attr(true))
    }

    /// A frame of our own with the contents of `old`.
    pub(super) fn copy_of(&self, old: &Page<'_, S>) -> Result<Page<'_, S>, FaultError> {
        let new = Page::take(self.engine.system())?;
        new.with_bytes(|to| old.with_bytes(|from| to.copy_from(from)));
        Ok(new)
    }

    /// Whether all frames from `pa` on are anonymous, and the leaf that was found is their one owner.
    fn is_alone(&self, pa: PhysAddr, len: u64) -> bool {
        (0..len / PAGE_SIZE).all(|i| {
            let info = self.engine.system().info(pa.wrapping_add(i * PAGE_SIZE));
            info.is_some_and(|info| info.state().contains(State::ANON) && info.is_sole())
        })
    }
}
