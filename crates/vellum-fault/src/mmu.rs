//! One space's translations: its table, the CPUs that use it, and how many pages it maps.
//!
//! Only the engine changes the table, so that each leaf has a share in its frame, and each counter
//! says what is there.
//!
//! # Invariants
//!
//! - Every leaf of a frame that has a record owns one share in it and is one of its `maps`, but for the
//!   page of zeros.
//! - The counters are the leaves and swap entries of the table, by kind, once nobody is changing it.

use crate::engine::Engine;
use crate::soft::Marker;
use crate::system::{Swap, System};
use core::fmt;
use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vellum_cache::page::{Page, PageInfo, State};
use vellum_core::{Attr, Batch, Entry, Gone, PAGE_SIZE, PageTable, ReplaceError, Run, VirtAddr};

mod cow;
pub mod fault;
mod file;
mod fork;
mod punch;
mod ranges;
mod relocate;
mod swap;

/// What a resident page counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RssKind {
    /// Anonymous: private, written to.
    Anon,
    /// Of a file.
    File,
    /// Of a file that is in memory only: shared anonymous memory.
    Shmem,
    /// Out in swap.
    Swap,
}

impl RssKind {
    pub(crate) fn of(state: State) -> Self {
        if state.contains(State::ANON) {
            Self::Anon
        } else if state.contains(State::MEMORY) {
            Self::Shmem
        } else {
            Self::File
        }
    }
}

/// How many pages a space maps, by kind.
#[derive(Default)]
pub struct Rss([AtomicU64; 4]);

impl Rss {
    /// Pages of this kind.
    #[must_use]
    pub fn pages(&self, kind: RssKind) -> u64 {
        self.cell(kind).load(Relaxed)
    }

    /// Resident pages: all kinds but swap.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.pages(RssKind::Anon) + self.pages(RssKind::File) + self.pages(RssKind::Shmem)
    }

    pub(crate) fn add(&self, kind: RssKind, pages: u64) {
        self.cell(kind).fetch_add(pages, Relaxed);
    }

    pub(crate) fn sub(&self, kind: RssKind, pages: u64) {
        let before = self.cell(kind).fetch_sub(pages, Relaxed);
        debug_assert!(before >= pages, "more pages of {kind:?} left than came");
    }

    const fn cell(&self, kind: RssKind) -> &AtomicU64 {
        let [anon, file, shmem, swap] = &self.0;
        match kind {
            RssKind::Anon => anon,
            RssKind::File => file,
            RssKind::Shmem => shmem,
            RssKind::Swap => swap,
        }
    }
}

impl fmt::Debug for Rss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rss")
            .field("anon", &self.pages(RssKind::Anon))
            .field("file", &self.pages(RssKind::File))
            .field("shmem", &self.pages(RssKind::Shmem))
            .field("swap", &self.pages(RssKind::Swap))
            .finish()
    }
}

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
}

type Detached<S> = <<S as System>::Table as PageTable>::Detached;

impl<'e, S: System> Mmu<'e, S> {
    /// See [`Engine::mmu`], whose contract this has.
    pub(crate) fn new(engine: &'e Engine<S>, table: S::Table, cpus: S::Cpus) -> Self {
        Self { engine, table: ManuallyDrop::new(table), cpus, rss: Rss::default() }
    }

    /// The engine.
    pub const fn engine(&self) -> &'e Engine<S> {
        self.engine
    }

    /// The table, to read it or to load its root.
    pub fn table(&self) -> &S::Table {
        &self.table
    }

    /// What flushes it.
    pub const fn cpus(&self) -> &S::Cpus {
        &self.cpus
    }

    /// What it maps.
    pub const fn rss(&self) -> &Rss {
        &self.rss
    }

    /// [`PageTable::replace`], with memory for the table as it needs it, and a flush of its own.
    fn replace(&self, va: VirtAddr, len: u64, old: Entry, new: Entry) -> Result<(), ReplaceError> {
        let mut stock = self.table.stock();
        let mut gather = gather::<S, 2>(self.engine, &self.cpus, &self.rss);
        let done = self.table.replace_refilling(va, len, old, new, &mut stock, &mut gather);
        gather.finish();
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
fn gather<'a, S: System, const N: usize>(
    engine: &'a Engine<S>,
    cpus: &'a S::Cpus,
    rss: &'a Rss,
) -> Batch<&'a S::Cpus, impl FnMut(Gone) + use<'a, S, N>, Detached<S>, N> {
    // SAFETY: `cpus` and the table that this is used with are of one `Mmu`, so by the contract of
    // `Engine::mmu` the flush reaches whoever has cached anything of it.
    unsafe { Batch::new(cpus, move |gone| release(engine, rss, gone)) }
}

/// What only moves entries: nobody gets the frames, the leaves that were made before have them.
fn mover<'a, S: System, const N: usize>(
    engine: &'a Engine<S>,
    cpus: &'a S::Cpus,
) -> Batch<&'a S::Cpus, impl FnMut(Gone) + use<'a, S, N>, Detached<S>, N> {
    // SAFETY: as in `gather`.
    unsafe {
        Batch::new(cpus, move |gone| {
            if let Gone::Run(run) = gone
                && run.attr.contains(Attr::DIRTY)
            {
                each_frame(engine, run, note_dirty);
            }
        })
    }
}

/// Takes back what one entry had.
fn release<S: System>(engine: &Engine<S>, rss: &Rss, gone: Gone) {
    match gone {
        Gone::Run(run) => {
            let dirty = run.attr.contains(Attr::DIRTY);
            let mut pa = run.pa;
            for _ in 0..run.len / PAGE_SIZE {
                if pa != engine.zeros() {
                    // SAFETY: a leaf of this table mapped the frame and is flushed, so its share is here.
                    if let Some(page) = unsafe { Page::from_pa(engine.system(), pa) } {
                        let info = page.info();
                        if dirty {
                            note_dirty(info);
                        }
                        rss.sub(RssKind::of(info.state()), 1);
                        info.unmapped();
                    }
                }
                pa = pa.wrapping_add(PAGE_SIZE);
            }
        }
        Gone::Soft(_, soft) => {
            if let Some(Marker::Swap(entry)) = Marker::of(soft) {
                rss.sub(RssKind::Swap, 1);
                engine.system().swap().release(entry);
            }
        }
    }
}

/// Takes over what hardware noted: the page differs from its file. An anonymous page always does.
fn note_dirty(info: &PageInfo) {
    if !info.state().contains(State::ANON) {
        info.set(State::DIRTY);
    }
}

/// Calls `f` with the record of each frame of a run that has one, but for the page of zeros.
fn each_frame<S: System>(engine: &Engine<S>, run: Run, mut f: impl FnMut(&PageInfo)) {
    let mut pa = run.pa;
    for _ in 0..run.len / PAGE_SIZE {
        if pa != engine.zeros()
            && let Some(info) = engine.system().info(pa)
        {
            f(info);
        }
        pa = pa.wrapping_add(PAGE_SIZE);
    }
}

impl<S: System> fmt::Debug for Mmu<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mmu").field("rss", &self.rss).finish_non_exhaustive()
    }
}
