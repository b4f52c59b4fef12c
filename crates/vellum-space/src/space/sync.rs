//! `msync`, `mincore`, `mseal`: what a range is worth to its file, to memory, and to an attacker.
//!
//! Source: Linux, mm/msync.c, mm/mincore.c, mm/mseal.c.

use super::parts::Parts;
use super::regions::Found;
use super::{AddressSpace, is_aligned, page_align};
use crate::abi::msync as ms;
use crate::errno::Errno;
use crate::vma::{VmFlags, Vma, pages};
use core::ops::ControlFlow;
use lock_api::RawRwLock;
use vellum_cache::Files;
use vellum_core::{Entry, PAGE_SHIFT, PAGE_SIZE, VirtAddr};
use vellum_fault::{Backing, Marker, System};

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Stores what was written to shared mappings of files in the range; with `MS_ASYNC`, that is left
    /// to whoever writes back.
    ///
    /// # Errors
    ///
    /// `EINVAL`; `ENOMEM` where something is not mapped, behind all the work; `EBUSY` where `MS_INVALIDATE`
    /// meets locked memory; `EIO`.
    pub fn msync(&self, addr: u64, len: u64, flags: u64) -> Result<(), Errno> {
        let both = ms::ASYNC | ms::SYNC;
        if flags & !(both | ms::INVALIDATE) != 0 || !is_aligned(addr) || flags & both == both {
            return Err(Errno::Einval);
        }
        let end = addr.checked_add(page_align(len)).ok_or(Errno::Enomem)?;
        let parts = self.parts.write();
        let mut holes = Holes::new(addr);
        parts.each_in(addr, end.min(parts.layout.end), |found| {
            holes.pass(&found);
            let region = found.vma.flags;
            if flags & ms::INVALIDATE != 0 && region.contains(VmFlags::LOCKED) {
                return Err(Errno::Ebusy);
            }
            if flags & ms::SYNC != 0 && region.contains(VmFlags::SHARED) {
                parts.store(&found, found.start.max(addr), found.end.min(end))?;
            }
            Ok(())
        })?;
        holes.end(end)
    }

    /// Says of each page of the range whether it is in memory: 1 or 0, a byte a page of `to`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a start that is no multiple of 4 KiB, `ENOMEM` where something is not mapped, `EFAULT`
    /// where `to` is too short. What lies before a hole was said.
    pub fn mincore(&self, addr: u64, len: u64, to: &mut [u8]) -> Result<(), Errno> {
        if !is_aligned(addr) {
            return Err(Errno::Einval);
        }
        let parts = self.parts.read();
        if len > parts.layout.end || addr > parts.layout.end - len {
            return Err(Errno::Enomem);
        }
        let count = len.div_ceil(PAGE_SIZE);
        let to = usize::try_from(count).ok().and_then(|count| to.get_mut(..count));
        let to = to.ok_or(Errno::Efault)?;
        to.fill(0);
        let end = addr + count * PAGE_SIZE;
        let mut holes = Holes::new(addr);
        parts.each_in(addr, end, |found| {
            holes.pass(&found);
            if holes.any {
                return Err(Errno::Enomem);
            }
            parts.residency(&found, addr, end, to);
            Ok(())
        })?;
        holes.end(end)
    }

    /// Seals the regions of the range: nobody unmaps, moves, resizes or reprotects them any more.
    ///
    /// # Errors
    ///
    /// `EINVAL`; `ENOMEM` where something is not mapped, or there is no memory to cut regions: nothing
    /// was sealed, or what lies before.
    pub fn mseal(&self, addr: u64, len: u64, flags: u64) -> Result<(), Errno> {
        let padded = page_align(len);
        if flags != 0 || !is_aligned(addr) || (len != 0 && padded == 0) {
            return Err(Errno::Einval);
        }
        let end = addr.checked_add(padded).ok_or(Errno::Einval)?;
        let mut parts = self.parts.write();
        let mut holes = Holes::new(addr);
        parts.each_in(addr, end.min(parts.layout.end), |found| {
            holes.pass(&found);
            Ok(())
        })?;
        holes.end(end)?;
        let mut at = addr;
        while at < end {
            let found = parts.find(at).ok_or(Errno::Enomem)?;
            let until = found.end.min(end);
            if !found.vma.flags.contains(VmFlags::SEALED) {
                parts.modify(at, until, |vma: &mut Vma| vma.flags |= VmFlags::SEALED)?;
            }
            at = until;
        }
        Ok(())
    }
}

/// Sees whether regions leave something out.
pub(super) struct Holes {
    at: u64,
    pub(super) any: bool,
}

impl Holes {
    pub(super) const fn new(start: u64) -> Self {
        Self { at: start, any: false }
    }

    /// The next region of the range.
    pub(super) fn pass(&mut self, found: &Found) {
        self.any |= found.start > self.at;
        self.at = found.end;
    }

    /// There is no further one.
    pub(super) fn end(&self, end: u64) -> Result<(), Errno> {
        if self.any || self.at < end { Err(Errno::Enomem) } else { Ok(()) }
    }
}

impl<S: System> Parts<'_, S> {
    /// Writes a part of a shared region back to its file.
    fn store(&self, found: &Found, start: u64, end: u64) -> Result<(), Errno> {
        let Backing::File(file) = found.vma.backing else { return Ok(()) };
        // A file in memory is where its pages are.
        if self.files().is_memory(file) {
            return Ok(());
        }
        self.mmu.clean(VirtAddr::new(start), end - start)?;
        let first = found.vma.index + pages(start - found.start);
        let cache = self.mmu.engine().cache();
        cache
            .write_back(self.files(), file, first..first + pages(end - start))
            .map(|_| ())
            .map_err(|_| Errno::Eio)
    }

    /// Which pages of one region, as far as it lies in the range, are in memory.
    fn residency(&self, found: &Found, addr: u64, end: u64, to: &mut [u8]) {
        let (start, until) = (found.start.max(addr), found.end.min(end));
        let mut mark = |va: u64, is_there: bool| {
            if let Some(byte) = to.get_mut(pages(va - addr) as usize) {
                *byte = u8::from(is_there);
            }
        };
        if let Backing::File(file) = found.vma.backing {
            let cache = self.mmu.engine().cache();
            for va in (start..until).step_by(PAGE_SIZE as usize) {
                let index = found.vma.index + pages(va - found.start);
                mark(va, cache.is_resident(file, index));
            }
        }
        let _all = self.mmu.visit(VirtAddr::new(start), until - start, &mut |span| {
            let from = span.va.as_u64();
            for va in (from..from + span.len).step_by(1 << PAGE_SHIFT) {
                match span.entry {
                    Entry::Leaf(..) => mark(va, true),
                    // Of a guard as of a hole: whether the cache has the page.
                    Entry::Soft(soft) if Marker::of(soft) == Some(Marker::Guard) => {}
                    _ => mark(va, false),
                }
            }
            ControlFlow::Continue(())
        });
    }
}
