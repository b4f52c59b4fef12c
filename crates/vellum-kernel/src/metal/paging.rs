//! The kernel's own address space: its tables, its switch to them, and its demand faults.
//!
//! ```text
//!            4 levels              5 levels
//!            ffff_8000_0000_0000   ff00_0000_0000_0000   direct map: RAM, RW, leaves up to 1 GiB
//!                                                        (the image's text and rodata there: R)
//!            ffff_c000_0000_0000   ff80_0000_0000_0000   demand window: filled by page faults
//!            ffff_ffff_8010_a000   the same              the image: text RX, rodata R, the rest RW
//!
//!   #PF in the window, not present: frame from FRAMES, cleared
//!        --> read lock --> replace(Hole -> Leaf), refilling --> retry
//! ```
//!
//! # Invariants
//!
//! - What is writable is not executable: nowhere, not even through the direct map.
//! - Frames in the demand window belong to the window; those of all other mappings do not belong
//!   to this module.
//!
//! # Lock order
//!
//! The lock of the tables is innermost: faults on its writer's CPU would wait for themselves, so
//! nothing under the write lock touches the demand window, and such a fault is nobody's, which ends
//! the machine rather than hanging it. Who waits for the lock serves flushes: its writer may be
//! waiting for this CPU's.

use super::image::{self, Rights};
use super::interrupts::Trap;
use super::memory::{self, KernelMemory};
use super::{descriptors, flush, machine};
use core::fmt;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicUsize, Ordering};
use spin::{Once, RwLock, RwLockReadGuard, RwLockWriteGuard};
use vellum_core::{
    Attr, Batch, Cause, Change, Direct, Entry, FrameSource, Gone, Invalidate, OutOfFrames,
    PAGE_SHIFT, PAGE_SIZE, PageTable, PhysAddr, RangeError, Ref, ReplaceError, Run, Span, VirtAddr,
    Walk,
};
use vellum_kernel::Extent;
use vellum_kernel::ram::without;
use vellum_radix::{Radix, X86_64};
use vellum_x86::{Cr3, ErrorCode, Feature, Pcid};

/// Bytes of the demand window.
pub(crate) const WINDOW_BYTES: u64 = 64 << 30;

/// Items that a gather holds between two flushes.
const GATHER: usize = 32;

type Table<const LEVELS: usize> = Radix<X86_64<LEVELS>, KernelMemory>;

/// The tables, of the depth that the machine was booted with.
enum Tables {
    Four(Table<4>),
    Five(Table<5>),
}

/// Does the same with either depth.
macro_rules! with_table {
    ($tables:expr, $table:ident => $body:expr) => {
        match $tables {
            Tables::Four($table) => $body,
            Tables::Five($table) => $body,
        }
    };
}

/// Changes live tables through a gather whose sink is `$sink`, and settles it.
macro_rules! edit {
    ($space:expr, $sink:expr, |$table:ident, $gather:ident| $body:expr) => {
        {
            let mut tables = $space.write();
            let done = with_table!(&mut *tables, $table => {
                // SAFETY: every CPU that uses the kernel's tables is flushed.
                let mut $gather = unsafe { Batch::<_, _, _, GATHER>::new(flush::everywhere(), $sink) };
                let done = $body;
                $gather.finish();
                done
            });
            WRITER.store(NOBODY, Ordering::Relaxed);
            done
        }
    };
}

/// The kernel's address space.
pub(crate) struct Space {
    tables: RwLock<Tables>,
}

static SPACE: Once<Space> = Once::new();

/// Why the kernel has no tables of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PagingError {
    /// No frame for the root.
    OutOfFrames(OutOfFrames),
    /// A part could not be mapped.
    Map(&'static str, RangeError),
}

impl fmt::Display for PagingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfFrames(e) => e.fmt(f),
            Self::Map(what, e) => write!(f, "cannot map the {what}: {e}"),
        }
    }
}

/// The CPU that has the write lock.
static WRITER: AtomicUsize = AtomicUsize::new(NOBODY);
/// No CPU.
const NOBODY: usize = usize::MAX;

/// Builds the kernel's tables and switches to them: the identity map is gone afterwards.
pub(crate) fn init() -> Result<&'static Space, PagingError> {
    let tables = if machine::levels() == 5 {
        let table = Table::<5>::new(KernelMemory).map_err(PagingError::OutOfFrames)?;
        Tables::Five(built(table)?)
    } else {
        let table = Table::<4>::new(KernelMemory).map_err(PagingError::OutOfFrames)?;
        Tables::Four(built(table)?)
    };
    let space = SPACE.call_once(|| Space { tables: RwLock::new(tables) });
    // SAFETY: this is CPU 0, and alone.
    unsafe { flush::online() };
    load();
    machine::protect();
    Ok(space)
}

/// The kernel's address space, once there is one.
pub(crate) fn space() -> Option<&'static Space> {
    SPACE.get()
}

/// Switches this CPU to the kernel's tables; false if there are none.
pub(crate) fn load() -> bool {
    let Some(cr3) = SPACE.get().and_then(|space| Cr3::new(space.root(), Pcid::ZERO)) else {
        return false;
    };
    // SAFETY: the tables map the image, the stacks and the direct map at the addresses that they
    // have under the boot tables, with the rights that the image needs; they are in a static and
    // never freed. Frames come from RAM, which the CPU can reach.
    unsafe { machine::cpu().load(cr3) };
    true
}

/// Fills a fresh table with the image and the direct map.
fn built<T: PageTable>(mut table: T) -> Result<T, PagingError> {
    // SAFETY: the table is not loaded yet.
    let mut gather = unsafe { Direct::new(|_| {}) };
    let mut map =
        |what, run: Run| table.map(run, &mut gather).map_err(|e| PagingError::Map(what, e));
    for part in image::parts() {
        let run = Run::new(part.start, part.physical(), part.len_bytes, attributes(part.rights));
        map(part.name, run)?;
    }
    let fixed = read_only_image();
    let mut writable = memory::ram();
    for part in fixed.iter().flatten() {
        writable = without(&writable, *part);
    }
    let largest = if machine::features().has(Feature::GIB_LEAVES) { 30 } else { 21 };
    let pieces = writable.iter().map(|extent| (extent, Attr::RW));
    let pieces = pieces.chain(fixed.iter().flatten().map(|extent| (extent, Attr::READ)));
    for (extent, attr) in pieces {
        let pa = PhysAddr::new(extent.start());
        let run = Run::new(memory::direct(pa), pa, extent.len_bytes(), attr | Attr::GLOBAL);
        map("direct map", run.with_leaves_up_to(largest))?;
    }
    Ok(table)
}

/// The parts of the image that nobody may write, in memory.
fn read_only_image() -> [Option<Extent>; 8] {
    image::parts().map(|part| match part.rights {
        Rights::Read | Rights::Execute => Extent::new(part.physical().as_u64(), part.len_bytes),
        Rights::Write => None,
    })
}

/// What the tables say for a part with these rights.
pub(crate) fn attributes(rights: Rights) -> Attr {
    Attr::GLOBAL
        | match rights {
            Rights::Read => Attr::READ,
            Rights::Execute => Attr::RX,
            Rights::Write => Attr::RW,
        }
}

/// The first address of the demand window.
pub(crate) fn window() -> VirtAddr {
    VirtAddr::new(if machine::levels() == 5 { 0xff80 << 48 } else { 0xffff_c000 << 32 })
}

/// Why a page fault is not a demand fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// Rights were missing, or it came from ring 3, or it was a fetch.
    NotDemand,
    /// It lies outside of the window.
    Elsewhere,
    /// The tables are being changed on this very CPU.
    Busy,
    /// There is no frame for the page.
    OutOfFrames(OutOfFrames),
    /// The table refused.
    Table(ReplaceError),
}

/// Gives the page of a demand fault a cleared frame.
pub(crate) fn resolve(trap: &Trap) -> Result<(), Unresolved> {
    let code = trap.page_fault().ok_or(Unresolved::NotDemand)?;
    if code.intersects(ErrorCode::PRESENT | ErrorCode::USER | ErrorCode::FETCH) {
        return Err(Unresolved::NotDemand);
    }
    let page = trap.address.align_down(PAGE_SHIFT);
    if page.checked_sub(window()).is_none_or(|offset| offset >= WINDOW_BYTES) {
        return Err(Unresolved::Elsewhere);
    }
    let space = SPACE.get().ok_or(Unresolved::Elsewhere)?;
    let own = descriptors::number();
    let tables = loop {
        if let Some(tables) = space.tables.try_read() {
            break tables;
        }
        if WRITER.load(Ordering::Relaxed) == own {
            return Err(Unresolved::Busy);
        }
        flush::serve();
        core::hint::spin_loop();
    };
    let frame = KernelMemory.alloc(0).map_err(Unresolved::OutOfFrames)?;
    // SAFETY: just allocated, and nobody else knows of it.
    unsafe { KernelMemory.clear(frame) };
    let installed = with_table!(&*tables, table => install(table, page, frame));
    if installed.is_ok() {
        return Ok(());
    }
    // SAFETY: allocated above, and the table did not take it.
    unsafe { KernelMemory.free(frame, 0) };
    match installed {
        // Another CPU was quicker: its frame does as well.
        Err(ReplaceError::Changed(Entry::Leaf(_, attr))) if attr.contains(Attr::RW) => Ok(()),
        other => other.map_err(Unresolved::Table),
    }
}

fn install<T: PageTable>(table: &T, page: VirtAddr, frame: PhysAddr) -> Result<(), ReplaceError> {
    let leaf = Entry::Leaf(frame, Attr::RW | Attr::GLOBAL);
    let mut stock = table.stock();
    // A hole that becomes a leaf lets nothing go.
    // SAFETY: every CPU that uses the kernel's tables is flushed.
    let mut gather = unsafe { Batch::<_, _, _, 1>::new(flush::everywhere(), |_| {}) };
    let done = table.replace_refilling(page, PAGE_SIZE, Entry::Hole, leaf, &mut stock, &mut gather);
    gather.finish();
    done
}

/// A table of which some lowest nodes are the kernel's too, and which no CPU loads.
pub(crate) struct Fork(Tables);

impl Fork {
    /// What translates `va`.
    pub(crate) fn translate(&self, va: VirtAddr) -> Result<Span, Cause> {
        with_table!(&self.0, table => table.walk(va, &mut ()))
    }

    /// Gives it up; how many bytes it was the last to map.
    pub(crate) fn retire(self) -> u64 {
        let mut bytes = 0;
        // SAFETY: no CPU has ever loaded it.
        let mut gather = unsafe {
            Direct::new(|gone| {
                if let Gone::Run(run) = gone {
                    bytes += run.len;
                }
            })
        };
        with_table!(self.0, table => table.retire(&mut gather));
        bytes
    }
}

/// A child that has the parent's lowest nodes of the range.
fn forked<const LEVELS: usize>(
    parent: &mut Table<LEVELS>,
    (va, len): (VirtAddr, u64),
    flush: impl Invalidate,
) -> Result<Table<LEVELS>, RangeError> {
    let mut child = Table::<LEVELS>::new(KernelMemory).map_err(Cause::OutOfFrames)?;
    // SAFETY: no CPU has loaded the child.
    let mut own = unsafe { Direct::new(|_| {}) };
    // SAFETY: every CPU that uses the kernel's tables is flushed.
    let mut gather = unsafe { Batch::<_, _, _, GATHER>::new(flush, |_| {}) };
    let shared = parent.share_nodes(va, len, &mut gather, (&mut child, &mut own), &mut |_| {});
    gather.finish();
    match shared {
        Ok(()) => Ok(child),
        Err(e) => {
            child.retire(&mut own);
            Err(e)
        }
    }
}

impl Space {
    /// A table that shares the lowest nodes that lie in the range whole.
    pub(crate) fn fork(&self, range: (VirtAddr, u64)) -> Result<Fork, RangeError> {
        let mut tables = self.write();
        let child = match &mut *tables {
            Tables::Four(parent) => forked(parent, range, flush::everywhere()).map(Tables::Four),
            Tables::Five(parent) => forked(parent, range, flush::everywhere()).map(Tables::Five),
        };
        WRITER.store(NOBODY, Ordering::Relaxed);
        child.map(Fork)
    }

    /// Makes what is shared of a range the kernel's own; how many bytes were copied for that.
    pub(crate) fn unshare(&self, va: VirtAddr, len: u64) -> Result<u64, RangeError> {
        let mut copied = 0;
        let mut note = |span: Span| copied += span.len;
        edit!(self, |_| {}, |table, gather| table.unshare(va, len, &mut gather, &mut note))?;
        Ok(copied)
    }

    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        loop {
            if let Some(tables) = self.tables.try_read() {
                return tables;
            }
            flush::serve();
            core::hint::spin_loop();
        }
    }

    /// Whoever takes this has to say at the end that it is nobody's.
    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        loop {
            if let Some(tables) = self.tables.try_write() {
                WRITER.store(descriptors::number(), Ordering::Relaxed);
                return tables;
            }
            flush::serve();
            core::hint::spin_loop();
        }
    }

    /// What translates `va`.
    pub(crate) fn translate(&self, va: VirtAddr) -> Result<Span, Cause> {
        with_table!(&*self.read(), table => table.walk(va, &mut ()))
    }

    /// How many entries a walker reads to translate `va`.
    pub(crate) fn walk_depth(&self, va: VirtAddr) -> Result<u8, Cause> {
        let mut entries = 0;
        with_table!(&*self.read(), table => table.walk(va, &mut |_| entries += 1))?;
        Ok(entries)
    }

    /// Where the entry lies at which a walk for `va` ends.
    pub(crate) fn last_entry(&self, va: VirtAddr) -> Result<Option<PhysAddr>, Cause> {
        let mut last = None;
        let mut note = |entry: Ref| last = Some(entry.pa);
        with_table!(&*self.read(), table => table.walk(va, &mut note))?;
        Ok(last)
    }

    /// Where the root lies.
    pub(crate) fn root(&self) -> PhysAddr {
        with_table!(&*self.read(), table => table.root())
    }

    /// Bytes that the tables take.
    pub(crate) fn table_bytes(&self) -> u64 {
        with_table!(&*self.read(), table => table.table_bytes())
    }

    /// Reports everything that is mapped in the upper half.
    pub(crate) fn visit_all(&self, f: &mut impl FnMut(Span)) -> Result<(), Cause> {
        let start = memory::direct_map();
        let len = start.as_u64().wrapping_neg();
        with_table!(&*self.read(), table => table.visit(start, len, &mut |span| {
            f(span);
            ControlFlow::Continue(())
        }))
    }

    /// Maps a run; its frames stay the caller's.
    pub(crate) fn map(&self, run: Run) -> Result<(), RangeError> {
        edit!(self, |_| {}, |table, gather| table.map(run, &mut gather))
    }

    /// Changes rights in a range.
    pub(crate) fn protect(&self, va: VirtAddr, len: u64, to: Change) -> Result<(), RangeError> {
        edit!(self, |_| {}, |table, gather| table.protect(va, len, to, &mut gather))
    }

    /// Unmaps a range; `sink` gets what was there, after the flush.
    pub(crate) fn unmap(
        &self,
        va: VirtAddr,
        len: u64,
        sink: impl FnMut(Gone),
    ) -> Result<(), RangeError> {
        edit!(self, sink, |table, gather| table.unmap(va, len, &mut gather))
    }

    /// Has the page at `va` lead to `to` instead of `from`, both with `attr`, flushing by `invalidate`; `sink` gets
    /// what was there, after that flush.
    ///
    /// # Safety
    ///
    /// `invalidate` flushes all CPUs, or what they go on reaching is still theirs.
    pub(crate) unsafe fn remap(
        &self,
        va: VirtAddr,
        [from, to]: [PhysAddr; 2],
        attr: Attr,
        invalidate: impl Invalidate,
        sink: impl FnMut(Gone),
    ) -> Result<(), ReplaceError> {
        let [from, to] = [from, to].map(|pa| Entry::Leaf(pa, attr));
        with_table!(&*self.read(), table => {
            let mut stock = table.stock();
            // SAFETY: the caller's promise.
            let mut gather = unsafe { Batch::<_, _, _, 1>::new(invalidate, sink) };
            let done = table.replace(va, PAGE_SIZE, from, to, &mut stock, &mut gather);
            gather.finish();
            done
        })
    }

    /// Empties a range of the demand window and gives its frames back.
    pub(crate) fn discard(&self, va: VirtAddr, len: u64) -> Result<(), RangeError> {
        self.unmap(va, len, |gone| {
            let Gone::Run(run) = gone else { return };
            for offset in (0..run.len).step_by(PAGE_SIZE as usize) {
                // SAFETY: frames in the window come one by one from `FRAMES`, and this one's leaf
                // is gone and flushed.
                unsafe { KernelMemory.free(run.pa.wrapping_add(offset), 0) };
            }
        })
    }
}
