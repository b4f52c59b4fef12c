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
//! The copy is mapped in two steps: were it writable at once, one thread could store to it while another
//! still reads the old frame through a translation that is not flushed yet, and misses the store.
//!
//! # Invariants
//!
//! - A writable leaf of a private region maps an anonymous frame with one owner, or had that right
//!   before somebody else looked at the frame for a moment.
//! - Where others have the page by the same leaf, in a part of the table that they link (mmu/linked.rs), the
//!   table refuses either exchange, whatever the record says.
//! - A frame is copied only while it cannot be written: every leaf of it is read-only, or it is a
//!   file's page, of which a copy at any moment is right.

use super::Mmu;
use super::fault::{Fault, Step};
use crate::outcome::FaultError;
use crate::sync::fence;
use crate::system::System;
use core::sync::atomic::Ordering::Acquire;
use vellum_cache::page::{Page, PageInfo, State};
use vellum_core::{Attr, Entry, PAGE_SIZE, PhysAddr, Span, Walk};

impl<S: System> Mmu<'_, S> {
    /// A store to a leaf of a private region that is not writable.
    #[inline(never)]
    pub(super) fn break_cow(&self, fault: &Fault<'_>, span: Span) -> Step {
        let Entry::Leaf(pa, attr) = span.entry else { return Ok(None) };
        let system = self.engine.system();
        if pa == self.engine.zeros() {
            return self.own(fault, span, Page::zeroed(system)?);
        }
        if system.info(pa).is_none() {
            // No page of the engine's: nothing that it could copy.
            return Err(fault.deny_page());
        }
        if let Some(_share) = self.alone(pa, span.len) {
            return self.grant(fault, span, fault.attr(true) | attr);
        }
        if span.len > PAGE_SIZE {
            return Err(FaultError::Exclusive);
        }
        // A share, so that the frame stays what it is while it is copied; if it is what it was.
        let Some(old) = Page::found(system, pa) else { return Ok(None) };
        let now = self.table.walk(fault.page(), &mut ())?.entry;
        if !now.same_but_status(span.entry) {
            return Ok(None);
        }
        self.own(fault, span, old.duplicate()?)
    }

    /// Puts `new`, which has the contents of what `span` maps, in its place: first without the right to
    /// write, and when the old translation is gone everywhere, with it.
    fn own(&self, fault: &Fault<'_>, span: Span, new: Page<'_, S>) -> Step {
        let (page, pa) = (fault.page(), new.pa());
        self.adopt(fault, new.info());
        let read_only = fault.attr(false) - Attr::DIRTY;
        let step = self.install(page, span.entry, new, read_only)?;
        if step.is_none() {
            return Ok(None);
        }
        let entry = Entry::Leaf(pa, read_only);
        self.grant(fault, Span { va: page, len: PAGE_SIZE, entry }, fault.attr(true))
    }

    /// A share in the first frame from `pa` on, if all of `len` bytes are anonymous and have one owner
    /// besides: the leaf that was found, if it is there still when the share is dropped.
    ///
    /// With the share no frame of the block can become another page, so an entry that is replaced by
    /// comparison meanwhile was the same leaf all along.
    pub(super) fn alone(&self, pa: PhysAddr, len: u64) -> Option<Page<'_, S>> {
        let system = self.engine.system();
        let first = Page::found(system, pa)?;
        let is_ours = |info: &PageInfo| info.state().contains(State::ANON);
        let is_alone = is_ours(first.info()) && first.info().owners() == 2;
        let rest = (1..len / PAGE_SIZE).all(|i| {
            let info = system.info(pa.wrapping_add(i * PAGE_SIZE));
            info.is_some_and(|info| is_ours(info) && info.is_sole())
        });
        // What those did who had the page besides is done: a copy that was made does not see what is
        // stored from now on.
        fence(Acquire);
        (is_alone && rest).then_some(first)
    }
}
