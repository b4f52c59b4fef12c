//! What the lock protects, and what is counted in it.

use crate::errno::Errno;
use crate::rules::{INFINITY, Layout, Limits, Rules};
use crate::vma::{VmFlags, Vma, pages};
use crate::vma_map::{PageRange, VmaMap};
use vellum_core::VirtAddr;
use vellum_fault::{Backing, Mmu, System};

/// Pages of regions, by what they count towards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// All of them.
    pub(crate) total: u64,
    /// Private and writable.
    pub(crate) data: u64,
    /// Private, executable, not writable.
    pub(crate) exec: u64,
    /// Those that grow down.
    pub(crate) stack: u64,
    /// Locked.
    pub(crate) locked: u64,
}

impl Used {
    /// Counts `pages` pages of a region with these flags in, or out.
    pub(crate) fn count(&mut self, flags: VmFlags, pages: u64, into: bool) {
        let change = |cell: &mut u64| {
            *cell = if into { cell.saturating_add(pages) } else { cell.saturating_sub(pages) };
        };
        change(&mut self.total);
        self.count_kind(flags, pages, into);
        if flags.contains(VmFlags::LOCKED) {
            change(&mut self.locked);
        }
    }

    /// Of that, what depends on rights.
    pub(crate) fn count_kind(&mut self, flags: VmFlags, pages: u64, into: bool) {
        let cell = if flags.contains(VmFlags::GROWSDOWN) {
            &mut self.stack
        } else if Vma::is_data(flags) {
            &mut self.data
        } else if flags.contains(VmFlags::EXEC)
            && !flags.intersects(VmFlags::WRITE | VmFlags::SHARED)
        {
            &mut self.exec
        } else {
            return;
        };
        *cell = if into { cell.saturating_add(pages) } else { cell.saturating_sub(pages) };
    }
}

/// The most that a space ever had, in pages: seen when regions or pages go.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Peak {
    /// Of regions.
    pub(crate) size: u64,
    /// Of resident pages.
    pub(crate) rss: u64,
}

pub(crate) struct Parts<'e, S: System> {
    pub(crate) vmas: VmaMap<Vma, S::Memory>,
    pub(crate) mmu: Mmu<'e, S>,
    pub(crate) rules: &'e Rules,
    pub(crate) layout: Layout,
    pub(crate) limits: Limits,
    pub(crate) used: Used,
    pub(crate) peak: Peak,
    /// Where the heap ends, in bytes.
    pub(crate) brk: u64,
    /// What every new region is besides (`mlockall` with `MCL_FUTURE`).
    pub(crate) flags_to_come: VmFlags,
}

impl<'e, S: System> Parts<'e, S> {
    pub(crate) fn new(mmu: Mmu<'e, S>, rules: &'e Rules, layout: Layout, limits: Limits) -> Self {
        let memory = mmu.engine().system().memory().clone();
        let canonical = mmu.canonical();
        let [(_, half), _] = canonical.halves();
        let layout =
            layout.within(if canonical.is_signed() { half } else { half.saturating_mul(2) });
        let bounds = PageRange::new(VirtAddr::new(0), layout.end);
        Self {
            vmas: VmaMap::new(memory, bounds.unwrap_or(PageRange::ALL)),
            mmu,
            rules,
            layout,
            limits,
            used: Used::default(),
            peak: Peak::default(),
            brk: layout.heap,
            flags_to_come: VmFlags::NONE,
        }
    }

    /// Notes what there is before some of it goes.
    pub(crate) fn note_peak(&mut self) {
        self.peak.size = self.peak.size.max(self.used.total);
        self.peak.rss = self.peak.rss.max(self.mmu.rss().resident());
    }

    /// Splits the large leaves at both ends of a range, before anything in it changes: without memory for
    /// that nothing has changed.
    pub(crate) fn split_leaves(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let split = self.mmu.split_ends(VirtAddr::new(start), end - start);
        split.map_err(|e| Errno::from(e.cause))
    }

    pub(crate) fn files(&self) -> &'e S::Files {
        self.mmu.engine().system().files()
    }

    /// A region more or fewer shows its file.
    pub(crate) fn note_file(&self, vma: &Vma, more: bool) {
        vma.note_file(self.files(), more);
    }

    /// Whether `count` pages more of a region with these flags are within `RLIMIT_AS` and
    /// `RLIMIT_DATA`.
    pub(crate) fn may_expand(&self, flags: VmFlags, count: u64) -> bool {
        let fits = |used: u64, limit: u64| used.saturating_add(count) <= pages(limit);
        fits(self.used.total, self.limits.address_space)
            && (!Vma::is_data(flags) || fits(self.used.data, self.limits.data))
    }

    /// Whether `bytes` more may be locked, if a region with these flags is.
    pub(crate) fn may_lock(&self, flags: VmFlags, bytes: u64) -> bool {
        !flags.contains(VmFlags::LOCKED)
            || self.limits.may_lock_all
            || self.limits.locked == INFINITY
            || self.used.locked.saturating_add(pages(bytes)) <= pages(self.limits.locked)
    }

    /// Whether the process may lock anything at all.
    pub(crate) const fn can_lock(&self) -> bool {
        self.limits.may_lock_all || self.limits.locked > 0
    }

    /// Promises once more what is promised already, for a moment in which two regions count it.
    pub(crate) fn promise_moved(&self, count: u64) {
        self.rules.promise_again(count);
    }

    /// Promises pages.
    pub(crate) fn promise(&self, count: u64) -> Result<(), Errno> {
        if self.rules.promise(count) { Ok(()) } else { Err(Errno::Enomem) }
    }
}

impl<S: System> Drop for Parts<'_, S> {
    /// The pages go with the `Mmu`; what was promised and which files were shown, here.
    fn drop(&mut self) {
        for (range, vma) in self.vmas.iter(PageRange::ALL) {
            if vma.flags.contains(VmFlags::ACCOUNT) {
                self.rules.release(range.count_pages());
            }
        }
        // Files hear of it when nothing of them is mapped any more; all else goes with the `Mmu`, which
        // does not look for it.
        let mut is_gone = true;
        for (range, vma) in self.vmas.iter(PageRange::ALL) {
            if let (Backing::File(_), Some(len)) = (vma.backing, range.len_bytes()) {
                is_gone &= self.mmu.zap(range.start(), len).is_ok();
            }
        }
        let bounds = self.vmas.bounds();
        if let (false, Some(len)) = (is_gone, bounds.len_bytes()) {
            // It takes memory only where something reaches out of a range, and nothing reaches beyond
            // all regions.
            let _zapped = self.mmu.zap(bounds.start(), len);
        }
        for (_, vma) in self.vmas.iter(PageRange::ALL) {
            self.note_file(&vma, false);
        }
    }
}
