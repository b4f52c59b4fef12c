//! `munmap`: pages first, then regions, then those who counted them.

use super::parts::{Parts, Used};
use super::regions::Found;
use super::{AddressSpace, is_aligned, page_align, pages_of};
use crate::errno::Errno;
use crate::rules::Rules;
use crate::vma::{VmFlags, Vma, pages};
use crate::vma_map::PageRange;
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

    /// Whether everything in the range may go. A sealed region behind the first refuses when Linux has cut
    /// the first at the range's start, and so it is here: a fault maps nothing around itself beyond its
    /// region.
    pub(crate) fn check_unmap(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let Some(first) = self.first_in(start, end) else { return Ok(()) };
        if first.start < start && end < first.end {
            self.may_split()?;
        }
        check_seal(&first)?;
        let checked = self.each_in(first.end, end, |found| check_seal(&found));
        if checked.is_err() {
            self.cut(start);
        }
        checked
    }

    /// Cuts a region where a refused call leaves it cut; where that cannot be, it stays whole.
    pub(crate) fn cut(&mut self, at: u64) {
        let is_cut = self.may_split().and_then(|()| self.split(at));
        is_cut.unwrap_or(());
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
        let (range, vma) = self.vmas.remove(VirtAddr::new(start))?;
        count_out(&mut self.used, self.rules, range, &vma);
        self.note_file(&vma, false);
        Ok(())
    }

    /// Takes regions out of the range, whose pages are gone or moved.
    pub(crate) fn forget(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let range = pages_of(start, end)?;
        let (files, rules) = (self.files(), self.rules);
        let used = &mut self.used;
        self.vmas.clear_range(
            range,
            |found, vma, at| {
                vma.note_file(files, true);
                vma.skip(pages(at.as_u64() - found.start().as_u64()))
            },
            |gone, vma| {
                count_out(used, rules, gone, &vma);
                vma.note_file(files, false);
            },
        )?;
        Ok(())
    }
}

/// A region, or a part of one, is no more: what it counted towards gets it back.
fn count_out(used: &mut Used, rules: &Rules, range: PageRange, vma: &Vma) {
    used.count(vma.flags, range.count_pages(), false);
    if vma.flags.contains(VmFlags::ACCOUNT) {
        rules.release(range.count_pages());
    }
}

fn check_seal(found: &Found) -> Result<(), Errno> {
    if found.vma.flags.contains(VmFlags::SEALED) { Err(Errno::Eperm) } else { Ok(()) }
}
