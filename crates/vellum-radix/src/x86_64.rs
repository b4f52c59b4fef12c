//! [`X86Mapper`]: the mapper traits of the `x86_64` crate, on a table of ours.
//!
//! ```text
//!   a kernel's code       Mapper<4K | 2M | 1G>   Translate   CleanUp        unchanged
//!                                   |
//!   X86Mapper      flags -> Attr    |    every operation's gather is finished before it returns
//!                                   v
//!   Radix<X86_64<L>, M>  ------------------>  M = &X86Memory { allocator, mapping }
//!        |  flushes                                 the kernel's own two, which OffsetPageTable
//!        v                                          was given as well
//!   Invalidate: OneCpu, or the kernel's shootdown
//! ```
//!
//! | file | what |
//! |---|---|
//! | `mapper` | the traits |
//! | `flags` | [`attr_of`], [`flags_of`]: flags and attributes, both ways, nothing dropped |
//! | `memory` | [`X86Memory`]: a [`Memory`] of the kernel's `FrameAllocator` and mapping |
//! | `flush` | [`OneCpu`]: an [`Invalidate`] of the crate's two functions |
//! | `copy` | [`copy_from`]: a table of ours that maps what a loaded one does |
//!
//! # Where this parts from `OffsetPageTable`
//!
//! - **The allocator argument is not used**, nor is the deallocator of `CleanUp`: a table has its
//!   memory, takes nodes from it and gives them back to it. Anything will do as an argument, and
//!   `&X86Memory` fits; a lock held on the table's own allocator does not.
//! - Nodes that become empty are given back, after the flush, and never block a large page.
//! - `update_flags` keeps accessed and dirty, which hardware sets: it adds those that are given.
//! - The frame in `PageAlreadyMapped` is the one that is mapped; where several smaller pages are in
//!   the way, or a soft entry, the one that was asked for.
//! - A call that is refused has changed nothing; there, a small page that is refused inside a large one
//!   has given that one its own rights, and other flags for a page that is a table make it a page.
//! - A page without `PRESENT` is a mapping without rights: it translates, and unmapping returns it.
//! - Parent tables grant everything but in the kernel's part ([`Policy::kernel_from`]), and but for the
//!   right to write where a node is shared ([`Radix::share_nodes`]): the leaf
//!   decides. `set_flags_p4_entry` and its like succeed where they ask for just that, and
//!   `map_to_with_table_flags` where the parents need not be narrower than the leaf.
//! - What the crate's error types have no word for is `ParentEntryHugePage`, "the tables cannot hold
//!   that here"; [`X86Mapper::refusal`] says what it was.
//! - Tables that a boot loader made are not taken over, for nobody knows whose their nodes are:
//!   [`copy_from`] makes a table that maps the same.
//!
//! # Invariants
//!
//! - When an operation returns, every flush that it owed was made: the `MapperFlush` that it returns
//!   repeats, on this CPU, what was done on all.
//!
//! Source: Intel SDM vol. 3A, 5.5 "4-level paging and 5-level paging", 5.10.4.

mod copy;
mod flags;
mod flush;
mod mapper;
mod memory;

use crate::{Format, Policy, Radix, X86_64, X86Any};
use ::x86_64::structures::paging::page::PageRangeInclusive;
use ::x86_64::structures::paging::{Page, PageSize, PageTableFlags, PhysFrame};
use core::fmt;
use core::ops::ControlFlow;
use vellum_core::{
    Attr, Batch, Cause, Change, Entry, Gone, Invalidate, Memory, PageTable, PhysAddr, RangeError,
    Run, VirtAddr,
};

pub use copy::{CopyError, copy_from};
pub use flags::{HUGE_PAT, attr_of, flags_of};
pub use flush::OneCpu;
pub use memory::{Lend, NeverFreed, X86Memory, X86Offset};

/// How many items a gather holds: a leaf and all the nodes above it, so that one page that goes
/// costs one flush.
const HELD: usize = 8;

/// The mapper traits of the `x86_64` crate on a table, with ranges besides.
///
/// Every operation finishes its flushes through `I` before it returns. [`OneCpu`] is one for
/// kernels that ran `MapperFlush::flush`; with several CPUs it is the kernel's shootdown.
///
/// ```
/// use core::cell::RefCell;
/// use vellum_core::PhysAddr;
/// use vellum_radix::x86_64::{OneCpu, X86Mapper, X86Memory, X86Offset, copy_from};
/// use vellum_radix::{Radix, Walker, X86_64};
/// use x86_64::VirtAddr;
/// use x86_64::structures::paging::mapper::{Mapper, Translate};
/// use x86_64::structures::paging::{FrameAllocator, Page, PageTableFlags, Size4KiB};
/// # use vellum_core::{Direct, FrameSource, PageTable, PhysMap};
/// # use x86_64::structures::paging::{FrameDeallocator, PhysFrame};
/// # // Miri with strict provenance has no pointers made of numbers, and offset maps make them.
/// # if cfg!(miri) { return Ok(()) }
/// # let ram = vellum_testkit::Arena::new(64);
/// # let origin = ram.first().addr();
/// # let base = ram.with(origin, |p| p.expose_provenance().get()) as u64;
/// # let offset = VirtAddr::new_truncate(base.wrapping_sub(origin.as_u64()));
/// # struct KernelFrames<'a>(&'a vellum_testkit::Arena);
/// # // SAFETY: the arena hands each frame out once.
/// # unsafe impl FrameAllocator<Size4KiB> for KernelFrames<'_> {
/// #     fn allocate_frame(&mut self) -> Option<PhysFrame> {
/// #         let pa = self.0.alloc(0).ok()?;
/// #         Some(PhysFrame::containing_address(x86_64::PhysAddr::new(pa.as_u64())))
/// #     }
/// # }
/// # impl FrameDeallocator<Size4KiB> for KernelFrames<'_> {
/// #     unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
/// #         // SAFETY: the caller's promise.
/// #         unsafe { self.0.free(PhysAddr::new(frame.start_address().as_u64()), 0) }
/// #     }
/// # }
/// # mod tlb {
/// #     pub fn flush(_: x86_64::VirtAddr) {}
/// #     pub fn flush_all() {}
/// # }
/// # let loaded = Radix::<X86_64<4>, _>::new(&ram)?;
/// # let cr3 = loaded.root();
/// # let kernel_frames = KernelFrames(&ram);
/// # let is_ram = |pa: PhysAddr| ram.is_in_use(pa);
/// // As before: `kernel_frames`, a FrameAllocator and FrameDeallocator, and `offset`, where all of
/// // physical memory is mapped. The memory takes both; `&memory` is the allocator from now on.
/// // SAFETY: the allocator's frames are mapped at `offset`.
/// let memory = unsafe { X86Memory::new(RefCell::new(kernel_frames), X86Offset::new(offset)) };
/// let mut frames = &memory;
///
/// // A table that maps what the boot loader's does (and is to be loaded in its place).
/// // SAFETY: RAM is mapped at `offset`, and nobody else changes the boot loader's tables.
/// let walker = unsafe { Walker::new(cr3, &memory, is_ram) };
///
/// // In place of `OffsetPageTable::new(level_4_table, offset)`, two lines:
/// let mut table: Radix<X86_64<4>, _> = copy_from(&walker, &memory)?;
/// // SAFETY: no other CPU uses this table; the two functions flush this one.
/// let mut mapper = unsafe { X86Mapper::new(&mut table, OneCpu::new(tlb::flush, tlb::flush_all)) };
///
/// // What the kernel does with its mapper stays as it is:
/// let page = Page::<Size4KiB>::containing_address(VirtAddr::new(0x4444_4444_0000));
/// let frame = frames.allocate_frame().expect("there is memory");
/// let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
/// // SAFETY: the frame is mapped nowhere else.
/// let flush = unsafe { mapper.map_to(page, frame, flags, &mut frames) };
/// flush.expect("nothing is there").ignore(); // or .flush()
/// assert_eq!(mapper.translate_addr(page.start_address()), Some(frame.start_address()));
///
/// // And it has ranges: a megabyte of these in one call, and back.
/// let pages = Page::range_inclusive(page + 1, page + 256);
/// mapper.map_range(pages, frame + 1, flags)?;
/// let mut bytes = 0;
/// mapper.unmap_range(pages, |gone| if let vellum_core::Gone::Run(run) = gone { bytes += run.len })?;
/// assert_eq!(bytes, 1 << 20);
/// # // SAFETY: no CPU has either table.
/// # let mut direct = unsafe { Direct::new(|_| {}) };
/// # loaded.retire(&mut direct);
/// # // SAFETY: as above.
/// # let mut direct = unsafe { Direct::new(|_| {}) };
/// # table.retire(&mut direct);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct X86Mapper<'t, T, I> {
    table: &'t mut T,
    invalidate: I,
    refusal: Option<Cause>,
}

/// The tables of x86-64, of 4 levels, of 5, or of either: what flags are made for.
pub trait X86Table: PageTable + sealed::Sealed {
    /// log2 of what an entry of the root spans.
    fn root_shift(&self) -> u8;

    /// What the table refuses.
    fn policy(&self) -> Policy;
}

impl<const LEVELS: usize, M: Memory> X86Table for Radix<X86_64<LEVELS>, M> {
    fn root_shift(&self) -> u8 {
        const { X86_64::<LEVELS>::LEVELS[0].shift }
    }

    fn policy(&self) -> Policy {
        Self::policy(self)
    }
}

impl<M: Memory> X86Table for X86Any<M> {
    fn root_shift(&self) -> u8 {
        match self {
            Self::Left(table) => table.root_shift(),
            Self::Right(table) => table.root_shift(),
        }
    }

    fn policy(&self) -> Policy {
        match self {
            Self::Left(table) => table.policy(),
            Self::Right(table) => table.policy(),
        }
    }
}

/// Flags are refused by what these tables can hold, which is not known of others.
mod sealed {
    use crate::{Radix, X86_64, X86Any};
    use vellum_core::Memory;

    pub trait Sealed {}

    impl<const LEVELS: usize, M: Memory> Sealed for Radix<X86_64<LEVELS>, M> {}
    impl<M: Memory> Sealed for X86Any<M> {}
}

/// What is at the place of a page of some size.
enum Found {
    Nothing,
    /// A leaf of this size.
    Leaf(PhysAddr),
    /// The page is part of a larger leaf.
    Larger,
    /// There are smaller pages, or soft entries.
    Smaller,
}

impl<'t, T: X86Table, I: Invalidate> X86Mapper<'t, T, I> {
    /// A mapper of this table.
    ///
    /// # Safety
    ///
    /// As of [`Batch::new`]: `invalidate` reaches every CPU that may use the table while the mapper
    /// exists.
    #[allow(unsafe_code, reason = "frames come back on the word of `invalidate`")]
    pub const unsafe fn new(table: &'t mut T, invalidate: I) -> Self {
        Self { table, invalidate, refusal: None }
    }

    /// The table, for all that it can do by `&self`. Without the mapper, it is its owner's again.
    #[must_use]
    pub const fn table(&self) -> &T {
        self.table
    }

    /// What the table refused last; of a conflict, with the frame and the attributes that are there.
    #[must_use]
    pub const fn refusal(&self) -> Option<Cause> {
        self.refusal
    }

    /// Maps pages to frames that follow each other, with leaves of their size.
    ///
    /// # Errors
    ///
    /// [`RangeError`], which says how much of the range was mapped; [`Cause::Unencodable`] for flags
    /// that [`attr_of`] refuses.
    pub fn map_range<S: PageSize>(
        &mut self,
        pages: PageRangeInclusive<S>,
        first: PhysFrame<S>,
        flags: PageTableFlags,
    ) -> Result<(), RangeError> {
        let (va, len) = self.range(pages)?;
        let attr = self.attr::<S>(flags)?;
        let run = Run::new(va, pa_of(first), len, attr).with_leaves_up_to(shift_of::<S>());
        self.finished(|_| {}, |table, gather| table.map(run, gather)).map_err(|e| self.note(e))
    }

    /// Removes everything in a range, of whatever size; a larger page that reaches out of it is
    /// split. `sink` gets the frames after the flush, and may free them.
    ///
    /// # Errors
    ///
    /// [`RangeError`]; what went until then is in the sink.
    pub fn unmap_range<S: PageSize>(
        &mut self,
        pages: PageRangeInclusive<S>,
        sink: impl FnMut(Gone),
    ) -> Result<(), RangeError> {
        let (va, len) = self.range(pages)?;
        self.finished(sink, |table, gather| table.unmap(va, len, gather)).map_err(|e| self.note(e))
    }

    /// Gives these flags to every page in a range that is mapped; holes are passed over. Accessed
    /// and dirty stay, and are set where the flags have them.
    ///
    /// # Errors
    ///
    /// [`RangeError`]; [`Cause::Unencodable`] for flags that [`attr_of`] refuses.
    pub fn update_range<S: PageSize>(
        &mut self,
        pages: PageRangeInclusive<S>,
        flags: PageTableFlags,
    ) -> Result<(), RangeError> {
        let (va, len) = self.range(pages)?;
        let change = all_but_status(self.attr::<S>(flags)?);
        self.finished(|_| {}, |table, gather| table.protect(va, len, change, gather))
            .map_err(|e| self.note(e))
    }

    /// Runs an operation with a gather, and makes the flushes that it owes.
    fn finished<S: FnMut(Gone), R>(
        &mut self,
        sink: S,
        op: impl FnOnce(&mut T, &mut Gather<'_, T, I, S>) -> R,
    ) -> R {
        // SAFETY: the gather is used with this table alone (`op` is this module's), whose
        // translations `invalidate` flushes by the contract of `new`.
        #[allow(unsafe_code, reason = "makes a gather")]
        let mut gather = unsafe { Batch::new(&self.invalidate, sink) };
        let result = op(self.table, &mut gather);
        gather.finish();
        result
    }

    /// The attributes that flags ask for.
    fn attr<S: PageSize>(&mut self, flags: PageTableFlags) -> Result<Attr, Cause> {
        let attr = attr_of::<S>(flags);
        attr.map_err(|_| self.refused(Cause::Unencodable(flags::nearest::<S>(flags))))
    }

    /// Notes a refusal.
    fn refused(&mut self, cause: Cause) -> Cause {
        self.refusal = Some(cause);
        cause
    }

    /// Notes why an operation stopped.
    fn note(&mut self, e: RangeError) -> RangeError {
        self.refusal = Some(e.cause);
        e
    }

    /// A range of pages as a start and a length in bytes.
    fn range<S: PageSize>(
        &mut self,
        pages: PageRangeInclusive<S>,
    ) -> Result<(VirtAddr, u64), Cause> {
        let (va, last) = (va_of(pages.start), va_of(pages.end));
        if pages.is_empty() {
            return Ok((va, 0));
        }
        match last.checked_sub(va).and_then(|len| len.checked_add(S::SIZE)) {
            Some(len) => Ok((va, len)),
            None => Err(self.refused(Cause::Wraps { va, len: u64::MAX })),
        }
    }

    /// What is at the place of a page.
    fn find<S: PageSize>(&self, page: Page<S>) -> Found {
        let va = va_of(page);
        let Ok(span) = self.table.walk(va, &mut ()) else { return Found::Nothing };
        match span.entry {
            Entry::Leaf(..) if span.len > S::SIZE => Found::Larger,
            Entry::Leaf(pa, _) if span.len == S::SIZE => Found::Leaf(pa),
            _ if span.len >= S::SIZE => Found::Nothing,
            _ => {
                let mut found = Found::Nothing;
                // A range of one page of an address that was walked: it is in order.
                let _ = self.table.visit(va, S::SIZE, &mut |_| {
                    found = Found::Smaller;
                    ControlFlow::Break(())
                });
                found
            }
        }
    }
}

/// The gather of one operation.
type Gather<'i, T, I, S> = Batch<&'i I, S, <T as PageTable>::Detached, HELD>;

/// The change to these attributes that keeps what hardware has noted.
fn all_but_status(attr: Attr) -> Change {
    Change { set: attr, clear: !Attr::STATUS }
}

/// log2 of a page's bytes.
const fn shift_of<S: PageSize>() -> u8 {
    match S::SIZE {
        0x20_0000 => 21,
        0x4000_0000 => 30,
        _ => 12,
    }
}

fn va_of<S: PageSize>(page: Page<S>) -> VirtAddr {
    VirtAddr::new(page.start_address().as_u64())
}

fn pa_of<S: PageSize>(frame: PhysFrame<S>) -> PhysAddr {
    PhysAddr::new(frame.start_address().as_u64())
}

/// The frame of this size that the byte is in. What a table holds is below 2<sup>52</sup>.
fn frame_at<S: PageSize>(pa: PhysAddr) -> PhysFrame<S> {
    PhysFrame::containing_address(::x86_64::PhysAddr::new_truncate(pa.as_u64()))
}

impl<T: fmt::Debug, I> fmt::Debug for X86Mapper<'_, T, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("X86Mapper");
        f.field("table", &self.table).field("refusal", &self.refusal).finish_non_exhaustive()
    }
}
