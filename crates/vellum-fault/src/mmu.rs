//! One space's translations: its table, the CPUs that use it, and how many pages it maps.
//!
//! Only the engine changes the table, so that each leaf has a share in its frame, and each counter
//! says what is there.
//!
//! # Invariants
//!
//! - Every leaf of a frame that has a record owns one share in it and is one of its `maps`, but for the
//!   page of zeros. A leaf in a part of the table that others link, too, is one leaf (`linked`).
//! - Where `has_large` is false, every leaf has 4 KiB; where `has_guards` is, no entry is a marker. Who
//!   has the space for himself sees what faults have set, by whatever keeps them out.
//! - The counters are the leaves and swap entries of the table, by kind, once nobody is changing it.

use crate::engine::Engine;
use crate::soft::Marker;
use crate::system::System;
use core::fmt;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use vellum_cache::page::{Page, PageInfo, State};
use vellum_core::{
    Attr, Batch, Canonical, Cause, Entry, Gather, Gone, PAGE_SHIFT, PAGE_SIZE, PageTable,
    ReplaceError, Run, Swap, VirtAddr, Walk,
};

mod cow;
pub mod fault;
mod file;
mod fork;
mod hook;
mod linked;
mod punch;
mod ranges;
mod relocate;
mod rss;
mod swap;

use rss::Tally;

pub use rss::{Rss, RssKind};

/// One space's translations. Through `&self` faults are resolved, by many CPUs at once; everything
/// else takes `&mut self`.
///
/// Dropping it gives everything back that it maps, and the table's own memory; no CPU runs in the space
/// by then, or it is flushed.
pub struct Mmu<'e, S: System> {
    engine: &'e Engine<S>,
    /// Taken by `drop` alone.
    table: ManuallyDrop<S::Table>,
    cpus: S::Cpus,
    rss: Rss,
    /// Other tables may link parts of this one, or have at some time.
    links: bool,
    /// A leaf of more than 4 KiB was made here, or came from a parent, at some time.
    has_large: AtomicBool,
    /// A guard marker was.
    has_guards: bool,
}

type Detached<S> = <<S as System>::Table as PageTable>::Detached;

impl<'e, S: System> Mmu<'e, S> {
    /// See [`Engine::mmu`], whose contract this has.
    pub(crate) fn new(engine: &'e Engine<S>, table: S::Table, cpus: S::Cpus) -> Self {
        let (table, has_large) = (ManuallyDrop::new(table), AtomicBool::new(false));
        let rss = Rss::default();
        Self { engine, table, cpus, rss, links: false, has_large, has_guards: false }
    }

    /// The engine.
    pub const fn engine(&self) -> &'e Engine<S> {
        self.engine
    }

    /// What is mapped, to be read: as a walker sees it, that may set accessed and dirty besides.
    pub fn table(&self) -> &(impl Walk + use<'e, S>) {
        &*self.table
    }

    /// The table itself, to load its root, or to show a device.
    ///
    /// # Safety
    ///
    /// No entry is changed through it that maps a frame with a record, or could come to: each such leaf has a
    /// share in its frame, and is counted. In regions of [`Backing::Hook`](crate::Backing::Hook) holes may
    /// become leaves to what has no record, as a device's registers, and these holes.
    pub unsafe fn root_table(&self) -> &S::Table {
        &self.table
    }

    /// Which addresses its table translates.
    pub fn canonical(&self) -> Canonical {
        self.table.canonical()
    }

    /// Bytes that its table takes: see [`PageTable::table_bytes`].
    pub fn table_bytes(&self) -> u64 {
        self.table.table_bytes()
    }

    /// What flushes it.
    pub const fn cpus(&self) -> &S::Cpus {
        &self.cpus
    }

    /// What it maps.
    pub const fn rss(&self) -> &Rss {
        &self.rss
    }

    /// Whether there may be a leaf of more than 4 KiB.
    fn may_have_large(&self) -> bool {
        self.has_large.load(Relaxed)
    }

    /// Whether the table can hold these pages.
    fn check(&self, va: VirtAddr, len: u64) -> Result<(), Cause> {
        self.table.canonical().check(va, len, PAGE_SHIFT)
    }

    /// [`PageTable::replace`], with memory for the table as it needs it, and a flush of its own.
    #[inline]
    fn replace(&self, va: VirtAddr, len: u64, old: Entry, new: Entry) -> Result<(), ReplaceError> {
        let mut stock = self.table.stock();
        let mut gather = gather::<S, 1>(self.engine, &self.cpus, &self.rss);
        let done = self.table.replace_refilling(va, len, old, new, &mut stock, &mut gather);
        // Not `finish`, which would move it: nothing is in it after this.
        gather.drain();
        done
    }
}

impl<S: System> Drop for Mmu<'_, S> {
    fn drop(&mut self) {
        // SAFETY: nobody uses the field after this.
        let table = unsafe { ManuallyDrop::take(&mut self.table) };
        let mut gather = gather::<S, 32>(self.engine, &self.cpus, &self.rss);
        table.retire(&mut gather);
        gather.finish();
    }
}

/// What takes the shares back that leaves had, after the flush.
#[inline(always)]
fn gather<'a, S: System, const N: usize>(
    engine: &'a Engine<S>,
    cpus: &'a S::Cpus,
    rss: &'a Rss,
) -> Batch<&'a S::Cpus, impl FnMut(Gone) + use<'a, S, N>, Detached<S>, N> {
    // SAFETY: `cpus` and the table that this is used with are of one `Mmu`, so by the contract of
    // `Engine::mmu` the flush reaches whoever has cached anything of it.
    unsafe { Batch::new(cpus, move |gone| release(engine, Some(rss), gone)) }
}

/// The same for who has counted what goes already, or counts it on.
fn uncounted<'a, S: System, const N: usize>(
    engine: &'a Engine<S>,
    cpus: &'a S::Cpus,
) -> Batch<&'a S::Cpus, impl FnMut(Gone) + use<'a, S, N>, Detached<S>, N> {
    // SAFETY: as in `gather`.
    unsafe { Batch::new(cpus, move |gone| release(engine, None, gone)) }
}

/// What only moves entries: nobody gets the frames, the leaves that were made before have them.
fn mover<'a, S: System, const N: usize>(
    engine: &'a Engine<S>,
    cpus: &'a S::Cpus,
) -> Batch<&'a S::Cpus, impl FnMut(Gone) + use<'a, S, N>, Detached<S>, N> {
    // SAFETY: as in `gather`.
    unsafe {
        Batch::new(cpus, move |gone| match gone {
            Gone::Run(run) if run.attr.contains(Attr::DIRTY) => {
                each_frame(engine, run, note_dirty);
            }
            _ => {}
        })
    }
}

/// Takes back what one entry had, and what it counted for.
fn release<S: System>(engine: &Engine<S>, rss: Option<&Rss>, gone: Gone) {
    match gone {
        Gone::Run(run) => release_run(engine, rss, run),
        Gone::Soft(va, soft) => {
            if let Some(Marker::Swap(entry)) = Marker::of(soft) {
                if let Some(rss) = rss {
                    rss.sub(va, RssKind::Swap, 1);
                }
                engine.system().swap().release(entry);
            }
        }
    }
}

/// Takes back the shares that leaves had.
fn release_run<S: System>(engine: &Engine<S>, rss: Option<&Rss>, run: Run) {
    let dirty = run.attr.contains(Attr::DIRTY);
    let mut left = Tally::default();
    let mut pa = run.pa;
    for _ in 0..run.len / PAGE_SIZE {
        if pa != engine.zeros() {
            // SAFETY: a leaf of this table mapped the frame and is flushed, so its share is here.
            if let Some(page) = unsafe { Page::from_pa(engine.system(), pa) } {
                let info = page.info();
                let kind = RssKind::of(info.state());
                if dirty && kind != RssKind::Anon {
                    info.set(State::DIRTY);
                }
                left.note(kind);
                info.unmapped();
            }
        }
        pa = pa.wrapping_add(PAGE_SIZE);
    }
    if let Some(rss) = rss {
        left.each(|kind, pages| rss.sub(run.va, kind, pages));
    }
}

/// Takes over what hardware noted: the page differs from its file. An anonymous page always does; if
/// its contents were given up, they are wanted again.
fn note_dirty(info: &PageInfo) {
    if info.state().contains(State::ANON) {
        info.clear(State::LAZY);
    } else {
        info.set(State::DIRTY);
    }
}

/// Calls `f` with the record of each frame of a run that has one, but for the page of zeros.
fn each_frame<S: System>(engine: &Engine<S>, run: Run, mut f: impl FnMut(&PageInfo)) {
    let mut pa = run.pa;
    for _ in 0..run.len / PAGE_SIZE {
        if pa != engine.zeros() {
            engine.system().info(pa).map(&mut f);
        }
        pa = pa.wrapping_add(PAGE_SIZE);
    }
}

impl<S: System> fmt::Debug for Mmu<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mmu").field("rss", &self.rss).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_takes_back_that_contents_were_given_up() {
        let info = PageInfo::new();
        info.set(State::ANON.and(State::LAZY));
        note_dirty(&info);
        assert_eq!(info.state(), State::ANON, "nor is an anonymous page ever dirty");
    }
}
