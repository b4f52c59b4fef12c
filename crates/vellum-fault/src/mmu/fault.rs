//! A fault, by what the table has now, what the region is, and what was tried.
//!
//! ```text
//!   entry        region           tried    what is done                                 cost
//!   ----------   --------------   ------   -----------------------------------------    -----
//!   any          does not allow            Deny(Forbidden)
//!   hole         anonymous        load     the page of zeros, read-only                 minor
//!                                 store    a frame of zeros; 2 MiB where wanted         minor
//!                private file     load     the cache's page, read-only, and around      either
//!                                 store    a copy of the cache's page                   either
//!                shared file      any      the cache's page, with the region's rights   either
//!                past its end     any      Deny(NoPage)
//!   swap         any              any      read back, alone with it                     major
//!   guard        any              any      Deny(Unmapped)
//!   leaf         grants it        any      nothing: somebody was faster, or a stale
//!                                          translation faulted                          minor
//!   leaf, not    private, zeros   store    a frame of zeros                             minor
//!   writable     private, alone   store    made writable                                minor
//!                private          store    a copy                                       minor
//!                shared           store    made writable                                minor
//!   large leaf   private          store    as above if alone with all of it; or else    minor
//!                                          Exclusive, and split
//!   any that     private          store    Exclusive, and made its own (mmu/linked.rs)
//!   others link
//! ```
//!
//! Every row ends in one compare-and-set of an entry ([`PageTable::replace`]), but a copy in two (see
//! mmu/cow.rs). Whoever loses it gives back what he made and looks again, so that two CPUs at one page
//! do the work of one. What was read of an entry is acted upon with a share in its frame, or in its
//! swap entry, taken before the entry is read once more: so a frame that was freed and taken again
//! meanwhile is never mistaken for what it was.
//!
//! # Lock order
//!
//! None: no lock is held while a file is read, a frame is taken, or a CPU is flushed.

use super::{Mmu, RssKind};
use crate::outcome::{Cost, Deny, FaultError};
use crate::region::{Access, Backing, Region};
use crate::soft::Marker;
use crate::system::System;
use core::sync::atomic::Ordering::Relaxed;
use vellum_cache::page::{Page, PageInfo, State};
use vellum_core::{
    Attr, Entry, PAGE_SHIFT, PAGE_SIZE, PageTable, ReplaceError, Span, VirtAddr, Walk,
};

/// log2 of a large leaf's bytes.
const LARGE: u8 = 21;

/// How often a fault looks at an entry that others keep changing, before it lets them run. (Under loom a look
/// may be at what is long gone, again and again.)
const TRIES: u32 = if cfg!(loom) { 3 } else { 64 };

/// Whether a fault is resolved; with `None` the entry changed meanwhile, and is to be looked at again.
pub(crate) type Step = Result<Option<Cost>, FaultError>;

/// Who asks for what.
#[derive(Clone, Copy)]
pub(super) struct Fault<'r> {
    pub(super) region: &'r Region,
    /// The byte that was touched.
    pub(super) va: VirtAddr,
    pub(super) access: Access,
}

impl Fault<'_> {
    pub(super) const fn page(&self) -> VirtAddr {
        self.va.align_down(PAGE_SHIFT)
    }

    pub(super) fn writes(&self) -> bool {
        self.access == Access::Write
    }

    /// The attributes of a leaf that this fault makes, whose frame may be written or not.
    pub(super) fn attr(&self, writable: bool) -> Attr {
        let mut attr = self.region.rights.attr() | Attr::ACCESSED;
        if !writable {
            attr = attr - Attr::WRITE;
        }
        if self.writes() { attr | Attr::DIRTY } else { attr }
    }

    pub(super) const fn deny_page(&self) -> FaultError {
        FaultError::Deny(Deny::NoPage(self.va))
    }
}

impl<S: System> Mmu<'_, S> {
    /// Resolves a fault at `va`, in `region`, which covers it. See its [module](crate::mmu::fault) for all cases.
    ///
    /// It may be called from several CPUs at once.
    ///
    /// # Errors
    ///
    /// [`FaultError`]; nothing is half done.
    pub fn fault(&self, region: &Region, va: VirtAddr, access: Access) -> Result<Cost, FaultError> {
        if !access.is_allowed_by(region.rights) {
            return Err(FaultError::Deny(Deny::Forbidden(va)));
        }
        if let Backing::Hook(number) = region.backing {
            return Err(FaultError::Hook(number));
        }
        let fault = Fault { region, va, access };
        match self.step(&fault)? {
            Some(cost) => Ok(cost),
            None => self.try_again(&fault),
        }
    }

    /// Somebody else was at the entry, and may be again.
    #[cold]
    fn try_again(&self, fault: &Fault<'_>) -> Result<Cost, FaultError> {
        for _ in 1..TRIES {
            if let Some(cost) = self.step(fault)? {
                return Ok(cost);
            }
        }
        Err(FaultError::Retry)
    }

    /// Does what the entry that is there now asks for. Each row is a function that is not inlined, so that
    /// none pays for what another computes beforehand.
    fn step(&self, fault: &Fault<'_>) -> Step {
        if fault.access == Access::Read && fault.region.backing == Backing::Anon {
            // Nearly always there is a hole, which the exchange finds out as well as a look-up would.
            let zeros = Entry::Leaf(self.engine.zeros(), fault.attr(false));
            if let Ok(Some(cost)) = self.exchange(fault.page(), PAGE_SIZE, Entry::Hole, zeros) {
                return Ok(Some(cost));
            }
        }
        self.look_and_step(fault)
    }

    /// The same, after a look at what is there.
    #[inline(never)]
    fn look_and_step(&self, fault: &Fault<'_>) -> Step {
        let span = self.table.walk(fault.page(), &mut ())?;
        match span.entry {
            Entry::Hole => match fault.region.backing {
                Backing::File(file) => self.fill_from_file(fault, file),
                _ => self.fill(fault, span),
            },
            Entry::Soft(soft) => match Marker::of(soft) {
                Some(Marker::Swap(entry)) => self.swap_in(fault, span, entry),
                Some(Marker::Guard) => Err(FaultError::Deny(Deny::Unmapped(fault.va))),
                None => Err(fault.deny_page()),
            },
            Entry::Leaf(_, attr) if attr.contains(fault.access.attr()) => Ok(Some(Cost::Minor)),
            Entry::Leaf(..) if fault.writes() && fault.region.is_private() => {
                self.break_cow(fault, span)
            }
            Entry::Leaf(_, attr) => self.grant(fault, span, fault.attr(fault.writes()) | attr),
        }
    }

    /// The same for who has the space to himself, after [`FaultError::Exclusive`]: a large leaf that is
    /// in the way is split, and a part of the table that other spaces link becomes its own. It never
    /// returns that error.
    ///
    /// # Errors
    ///
    /// [`FaultError`]; the leaf may have been split, the part copied.
    pub fn fault_exclusive(
        &mut self,
        region: &Region,
        va: VirtAddr,
        access: Access,
    ) -> Result<Cost, FaultError> {
        match self.fault(region, va, access) {
            Err(FaultError::Exclusive) => {}
            done => return done,
        }
        let page = va.align_down(PAGE_SHIFT);
        self.make_own(page, PAGE_SIZE).map_err(|e| e.cause)?;
        self.split(page).map_err(|e| e.cause)?;
        self.fault(region, va, access)
    }

    /// Nothing is there yet, and nothing is behind it but zeros.
    #[inline(never)]
    fn fill(&self, fault: &Fault<'_>, span: Span) -> Step {
        if !fault.writes() {
            let zeros = Entry::Leaf(self.engine.zeros(), fault.attr(false));
            return self.exchange(fault.page(), PAGE_SIZE, Entry::Hole, zeros);
        }
        if fault.region.huge {
            if let Some(step) = self.fill_large(fault, span)? {
                return Ok(step);
            }
        }
        let page = Page::zeroed(self.engine.system())?;
        self.adopt(fault, page.info());
        self.install(fault.page(), Entry::Hole, page, fault.attr(true))
    }

    /// 2 MiB of zeros in one leaf, if nothing is there and memory has such a block.
    #[cold]
    fn fill_large(
        &self,
        fault: &Fault<'_>,
        span: Span,
    ) -> Result<Option<Option<Cost>>, FaultError> {
        if S::Table::REPLACEABLE & 1 << LARGE == 0 {
            return Ok(None);
        }
        let bytes = 1 << LARGE;
        let Some(block) = fault.region.block(fault.va, LARGE) else { return Ok(None) };
        // Before 2 MiB are taken and cleared: would such a leaf fit? Only a hole that is known to be as
        // large need not be asked for.
        let is_open = span.va <= block && span.len >= bytes;
        if !is_open && self.replace(block, bytes, Entry::Hole, Entry::Hole).is_err() {
            return Ok(None);
        }
        // Before the leaf: it stays so, also where there is none in the end.
        self.has_large.store(true, Relaxed);
        let system = self.engine.system();
        let first = fault.region.index_of(block);
        let made = Page::block(system, LARGE - PAGE_SHIFT, |i, info| {
            info.belongs_to(fault.region.family, first.wrapping_add(i));
            info.set(State::READY.and(State::ANON));
            info.mapped();
        });
        let Ok(pa) = made else { return Ok(None) };
        let pages = bytes / PAGE_SIZE;
        self.rss.add(block, RssKind::Anon, pages);
        let leaf = Entry::Leaf(pa, fault.attr(true));
        match self.replace(block, bytes, Entry::Hole, leaf) {
            Ok(()) => Ok(Some(Some(Cost::Minor))),
            // Something is there, or the table has no such leaf at this place: by pages, then.
            Err(_) => {
                self.rss.sub(block, RssKind::Anon, pages);
                for i in 0..pages {
                    // SAFETY: `block` gave one share in each of its frames, and no leaf has them.
                    let page = unsafe { Page::from_pa(system, pa.wrapping_add(i * PAGE_SIZE)) };
                    if let Some(page) = page {
                        page.info().unmapped();
                    }
                }
                Ok(None)
            }
        }
    }

    /// Makes a frame with contents a page of the region's family.
    pub(super) fn adopt(&self, fault: &Fault<'_>, info: &PageInfo) {
        info.belongs_to(fault.region.family, fault.region.index_of(fault.page()));
        info.set(State::READY.and(State::ANON));
    }

    /// Gives a leaf more rights. Nobody has to be flushed for that.
    #[inline(never)]
    pub(super) fn grant(&self, fault: &Fault<'_>, span: Span, attr: Attr) -> Step {
        let Entry::Leaf(pa, _) = span.entry else { return Ok(None) };
        if !fault.region.covers(span.va, span.len) {
            // A large leaf that two regions share, of which only this one grants it.
            return Err(FaultError::Exclusive);
        }
        self.exchange(span.va, span.len, span.entry, Entry::Leaf(pa, attr))
    }

    /// Installs a page whose share the leaf gets, if the entry is `old` still.
    pub(super) fn install(&self, va: VirtAddr, old: Entry, page: Page<'_, S>, attr: Attr) -> Step {
        let info = page.info();
        let kind = RssKind::of(info.state());
        info.mapped();
        self.rss.add(va, kind, 1);
        let step = self.exchange(va, PAGE_SIZE, old, Entry::Leaf(page.pa(), attr));
        if let Ok(Some(_)) = step {
            let _the_leaf_has_it = page.into_pa();
        } else {
            self.rss.sub(va, kind, 1);
            info.unmapped();
        }
        step
    }

    /// Replaces an entry, if it is `old` still.
    pub(crate) fn exchange(&self, va: VirtAddr, len: u64, old: Entry, new: Entry) -> Step {
        match self.replace(va, len, old, new) {
            Ok(()) => Ok(Some(Cost::Minor)),
            Err(ReplaceError::Invalid(cause)) => Err(cause.into()),
            Err(_) => Ok(None),
        }
    }
}
