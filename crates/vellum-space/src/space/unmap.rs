//! `munmap`: pages first, then regions, then those who counted them.

use super::parts::Parts;
use super::regions::Found;
use super::{AddressSpace, is_aligned, page_align, pages_of};
use crate::errno::Errno;
use crate::vma::{VmFlags, pages};
use lock_api::RawRwLock;
use vellum_core::VirtAddr;
use vellum_fault::System;

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Takes every region out of `[addr, addr + len)`, or the part of it that lies there. O(pages that
    /// are there + log regions).
    ///
    /// # Errors
    ///
    /// `EINVAL` for a start that is no multiple of 4 KiB, a length of 0, or a range that leaves user
    /// space; `ENOMEM` where cutting a region in two would make too many; `EPERM` where one is sealed.
    /// Nothing was unmapped then.
    pub fn munmap(&self, addr: u64, len: u64) -> Result<(), Errno> {
        let mut parts = self.parts.write();
        let (start, end) = parts.unmappable(addr, len)?;
        parts.unmap(start, end)
    }
}

impl<S: System> Parts<'_, S> {
    /// `munmap`'s range, checked.
    pub(crate) fn unmappable(&self, addr: u64, len: u64) -> Result<(u64, u64), Errno> {
        let room = self.layout.end.checked_sub(addr).ok_or(Errno::Einval)?;
        if !is_aligned(addr) || len > room || page_align(len) == 0 {
            return Err(Errno::Einval);
        }
        Ok((addr, addr + page_align(len)))
    }

    /// Whether everything in the range may go.
    pub(crate) fn check_unmap(&self, start: u64, end: u64) -> Result<(), Errno> {
        let Some(first) = self.first_in(start, end) else { return Ok(()) };
        if first.start < start && end < first.end {
            self.may_split()?;
        }
        self.each_in(start, end, |found| check_seal(&found))
    }

    /// Takes everything out of the range, pages and regions.
    pub(crate) fn unmap(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let Some(first) = self.first_in(start, end) else { return Ok(()) };
        let is_one = first.start == start && first.end == end;
        if is_one {
            check_seal(&first)?;
        } else {
            self.check_unmap(start, end)?;
            self.vmas.reserve(1)?;
        }
        // From the first region on: what lies before it has no pages.
        let from = first.start.max(start);
        self.split_leaves(from, end)?;
        self.note_peak();
        self.mmu.zap(VirtAddr::new(from), end - from).map_err(|e| Errno::from(e.cause))?;
        if !is_one {
            return self.forget(start, end);
        }
        self.vmas.remove(VirtAddr::new(start))?;
        self.used.count(first.vma.flags, first.count_pages(), false);
        if first.vma.flags.contains(VmFlags::ACCOUNT) {
            self.rules.release(first.count_pages());
        }
        self.note_file(&first.vma, false);
        Ok(())
    }

    /// Takes regions out of the range, whose pages are gone or moved.
    pub(crate) fn forget(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let range = pages_of(start, end)?;
        let (used, rules, files) = (&mut self.used, self.rules, self.mmu.engine().system().files());
        let note = |vma: &crate::Vma, more: bool| {
            if let vellum_fault::Backing::File(file) = vma.backing {
                use vellum_cache::Files;
                if more { files.mapped(file) } else { files.unmapped(file) }
            }
        };
        self.vmas.clear_range(
            range,
            |found, vma, at| {
                note(vma, true);
                vma.skip(pages(at.as_u64() - found.start().as_u64()))
            },
            |gone, vma| {
                used.count(vma.flags, gone.count_pages(), false);
                if vma.flags.contains(VmFlags::ACCOUNT) {
                    rules.release(gone.count_pages());
                }
                note(&vma, false);
            },
        )?;
        Ok(())
    }
}

fn check_seal(found: &Found) -> Result<(), Errno> {
    if found.vma.flags.contains(VmFlags::SEALED) { Err(Errno::Eperm) } else { Ok(()) }
}
