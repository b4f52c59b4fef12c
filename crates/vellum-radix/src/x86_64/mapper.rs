//! The crate's traits: one implementation for all page sizes.
//!
//! ```text
//!   what is there            map_to              unmap, update_flags, translate_page
//!   nothing                  maps                PageNotMapped
//!   a leaf of this size      PageAlreadyMapped   does it
//!   a larger leaf            ParentEntryHugePage ParentEntryHugePage
//!   smaller ones             PageAlreadyMapped   ParentEntryHugePage (the crate's own word for
//!                                                "this is another size")
//! ```

use super::{Found, X86Mapper, X86Table, all_but_status, flags, frame_at, pa_of, shift_of, va_of};
use ::x86_64::VirtAddr as X86VirtAddr;
use ::x86_64::structures::paging::mapper::{
    CleanUp, FlagUpdateError, MapToError, MappedFrame, Mapper, MapperFlush, MapperFlushAll,
    Translate, TranslateError, TranslateResult, UnmapError,
};
use ::x86_64::structures::paging::page::PageRangeInclusive;
use ::x86_64::structures::paging::{
    FrameAllocator, FrameDeallocator, Page, PageSize, PageTableFlags, PhysFrame, Size1GiB,
    Size2MiB, Size4KiB,
};
use core::ops::ControlFlow;
use vellum_core::{Attr, Cause, Entry, Gone, Invalidate, Ref, Run, Span, VirtAddr};

type Flags = PageTableFlags;

/// What a parent's entry has here, but for the user's right in the kernel's part.
const PARENT: Flags = Flags::PRESENT.union(Flags::WRITABLE).union(Flags::USER_ACCESSIBLE);

impl<T: X86Table, I: Invalidate, S: PageSize> Mapper<S> for X86Mapper<'_, T, I> {
    /// Takes nodes from the table's memory; the allocator that is passed is not used.
    unsafe fn map_to_with_table_flags<A>(
        &mut self,
        page: Page<S>,
        frame: PhysFrame<S>,
        flags: Flags,
        parents: Flags,
        _: &mut A,
    ) -> Result<MapperFlush<S>, MapToError<S>>
    where
        A: FrameAllocator<Size4KiB> + ?Sized,
    {
        let Ok(attr) = self.attr::<S>(flags) else { return Err(MapToError::ParentEntryHugePage) };
        let narrower = attr.contains(Attr::USER) && !parents.contains(Flags::USER_ACCESSIBLE);
        if narrower || !(PARENT | Flags::ACCESSED).contains(parents) {
            self.refused(Cause::Unencodable(attr));
            return Err(MapToError::ParentEntryHugePage);
        }
        let run = Run::new(va_of(page), pa_of(frame), S::SIZE, attr);
        let run = run.with_leaves_up_to(shift_of::<S>());
        match self.finished(|_| {}, |table, gather| table.map(run, gather)) {
            Ok(()) => Ok(MapperFlush::new(page)),
            Err(e) => Err(map_error(self.refused(e.cause), frame)),
        }
    }

    /// The flush has been made when this returns, and nodes that it emptied were given back.
    fn unmap(&mut self, page: Page<S>) -> Result<(PhysFrame<S>, MapperFlush<S>), UnmapError> {
        let pa = match self.find(page) {
            Found::Nothing => return Err(UnmapError::PageNotMapped),
            Found::Larger | Found::Smaller => return Err(UnmapError::ParentEntryHugePage),
            Found::Leaf(pa) => pa,
        };
        let mut gone = None;
        let sink = |item| {
            if let Gone::Run(run) = item {
                gone = Some(run.pa);
            }
        };
        let unmapped =
            self.finished(sink, |table, gather| table.unmap(va_of(page), S::SIZE, gather));
        match unmapped {
            Ok(()) => Ok((frame_at(gone.unwrap_or(pa)), MapperFlush::new(page))),
            Err(e) => {
                self.refused(e.cause);
                Err(UnmapError::ParentEntryHugePage)
            }
        }
    }

    /// Keeps accessed and dirty, and sets those that `flags` has.
    unsafe fn update_flags(
        &mut self,
        page: Page<S>,
        flags: Flags,
    ) -> Result<MapperFlush<S>, FlagUpdateError> {
        match self.find(page) {
            Found::Nothing => return Err(FlagUpdateError::PageNotMapped),
            Found::Larger | Found::Smaller => return Err(FlagUpdateError::ParentEntryHugePage),
            Found::Leaf(..) => {}
        }
        let attr = self.attr::<S>(flags).map_err(|_| FlagUpdateError::ParentEntryHugePage)?;
        let (va, change) = (va_of(page), all_but_status(attr));
        match self.finished(|_| {}, |table, gather| table.protect(va, S::SIZE, change, gather)) {
            Ok(()) => Ok(MapperFlush::new(page)),
            Err(e) => {
                self.refused(e.cause);
                Err(FlagUpdateError::ParentEntryHugePage)
            }
        }
    }

    unsafe fn set_flags_p4_entry(
        &mut self,
        page: Page<S>,
        flags: Flags,
    ) -> Result<MapperFlushAll, FlagUpdateError> {
        self.parent(page, flags, 39)
    }

    unsafe fn set_flags_p3_entry(
        &mut self,
        page: Page<S>,
        flags: Flags,
    ) -> Result<MapperFlushAll, FlagUpdateError> {
        self.parent(page, flags, 30)
    }

    unsafe fn set_flags_p2_entry(
        &mut self,
        page: Page<S>,
        flags: Flags,
    ) -> Result<MapperFlushAll, FlagUpdateError> {
        self.parent(page, flags, 21)
    }

    fn translate_page(&self, page: Page<S>) -> Result<PhysFrame<S>, TranslateError> {
        match self.find(page) {
            Found::Nothing => Err(TranslateError::PageNotMapped),
            Found::Larger | Found::Smaller => Err(TranslateError::ParentEntryHugePage),
            Found::Leaf(pa) => Ok(frame_at(pa)),
        }
    }
}

impl<T: X86Table, I: Invalidate> X86Mapper<'_, T, I> {
    /// Makes the entry above `page` that spans 2<sup>`shift`</sup> bytes have these flags, which it
    /// does only if they are those that it has.
    fn parent<S: PageSize>(
        &mut self,
        page: Page<S>,
        flags: Flags,
        shift: u8,
    ) -> Result<MapperFlushAll, FlagUpdateError> {
        let va = va_of(page);
        let mut lowest = u8::MAX;
        let span = self.table.walk(va, &mut |r: Ref| lowest = lowest.min(r.span));
        if shift_of::<S>() >= shift {
            return Err(FlagUpdateError::ParentEntryHugePage);
        }
        // A walk that read no entry below this one found no node there.
        if lowest >= shift {
            return Err(match span.map(|span| span.entry) {
                Ok(Entry::Leaf(..)) => FlagUpdateError::ParentEntryHugePage,
                _ => FlagUpdateError::PageNotMapped,
            });
        }
        let mut has = PARENT;
        if self.is_kernel(va) {
            has -= Flags::USER_ACCESSIBLE;
        }
        if flags - Flags::ACCESSED == has {
            return Ok(MapperFlushAll::new());
        }
        self.refused(Cause::Unencodable(flags::nearest::<Size4KiB>(flags)));
        Err(FlagUpdateError::ParentEntryHugePage)
    }

    /// Whether parents keep user mode out here.
    fn is_kernel(&self, va: VirtAddr) -> bool {
        let shift = self.table.root_shift();
        let index = |va: VirtAddr| va.as_u64() >> shift & 511;
        self.table.policy().kernel_from.is_some_and(|from| index(va) >= index(from))
    }

    /// Gives back the nodes in a range that hold nothing: whatever lies between two things that are
    /// there is unmapped, which takes nothing but empty nodes away.
    fn prune(&mut self, mut va: VirtAddr, mut left: u64) {
        while left > 0 {
            let mut next: Option<Span> = None;
            let visited = self.table.visit(va, left, &mut |span| {
                next = Some(span);
                ControlFlow::Break(())
            });
            if visited.is_err() {
                return;
            }
            let start = next.and_then(|span| span.va.checked_sub(va));
            let gap = start.unwrap_or(left).min(left);
            // Refused only where another table owns the nodes, and theirs they stay.
            let _ = self.finished(|_| {}, |table, gather| table.unmap(va, gap, gather));
            let step = gap.saturating_add(next.map_or(0, |span| span.len)).min(left);
            va = va.wrapping_add(step);
            left -= step;
        }
    }
}

/// The crate's word for why a page of size `S` was not mapped to `frame`.
fn map_error<S: PageSize>(cause: Cause, frame: PhysFrame<S>) -> MapToError<S> {
    match cause {
        Cause::OutOfFrames(_) => MapToError::FrameAllocationFailed,
        Cause::Mapped(span) if span.len > S::SIZE => MapToError::ParentEntryHugePage,
        Cause::Mapped(Span { len, entry: Entry::Leaf(pa, _), .. }) if len == S::SIZE => {
            MapToError::PageAlreadyMapped(frame_at(pa))
        }
        Cause::Mapped(_) => MapToError::PageAlreadyMapped(frame),
        _ => MapToError::ParentEntryHugePage,
    }
}

impl<T: X86Table, I: Invalidate> Translate for X86Mapper<'_, T, I> {
    fn translate(&self, addr: X86VirtAddr) -> TranslateResult {
        let va = VirtAddr::new(addr.as_u64());
        let Ok(Span { va: start, len, entry: Entry::Leaf(pa, attr) }) =
            self.table.walk(va, &mut ())
        else {
            return TranslateResult::NotMapped;
        };
        let (frame, flags) = match len {
            Size1GiB::SIZE => {
                (MappedFrame::Size1GiB(frame_at(pa)), flags::flags_of::<Size1GiB>(attr))
            }
            Size2MiB::SIZE => {
                (MappedFrame::Size2MiB(frame_at(pa)), flags::flags_of::<Size2MiB>(attr))
            }
            _ => (MappedFrame::Size4KiB(frame_at(pa)), flags::flags_of::<Size4KiB>(attr)),
        };
        // What a table holds has an encoding.
        let flags = flags.unwrap_or(Flags::empty());
        TranslateResult::Mapped { frame, offset: va.checked_sub(start).unwrap_or(0), flags }
    }
}

/// Nodes go back to the table's memory, whose they are; the deallocator that is passed gets none.
///
/// There is little to do: what `unmap` empties is given back then. It is what faults emptied through
/// `&Radix` that is left.
impl<T: X86Table, I: Invalidate> CleanUp for X86Mapper<'_, T, I> {
    unsafe fn clean_up<D>(&mut self, deallocator: &mut D)
    where
        D: FrameDeallocator<Size4KiB>,
    {
        let all = self.table.canonical().halves();
        let _ = deallocator;
        for (va, len) in all {
            self.clean_half(va, len);
        }
    }

    unsafe fn clean_up_addr_range<D>(&mut self, range: PageRangeInclusive, deallocator: &mut D)
    where
        D: FrameDeallocator<Size4KiB>,
    {
        let _ = deallocator;
        if range.is_empty() {
            return;
        }
        let (first, last) = (va_of(range.start), va_of(range.end));
        for (half, len) in self.table.canonical().halves() {
            let (start, end) = (first.max(half), last.min(half.wrapping_add(len - Size4KiB::SIZE)));
            if let Some(bytes) = end.checked_sub(start) {
                self.clean_half(start, bytes + Size4KiB::SIZE);
            }
        }
    }
}

impl<T: X86Table, I: Invalidate> X86Mapper<'_, T, I> {
    /// Cleans a range within one half, an entry of the root at a time: one of them may be another
    /// table's.
    fn clean_half(&mut self, mut va: VirtAddr, mut left: u64) {
        let size = 1u64 << self.table.root_shift();
        while left > 0 {
            let len = left.min(size - (va.as_u64() & (size - 1)));
            self.prune(va, len);
            va = va.wrapping_add(len);
            left -= len;
        }
    }
}
