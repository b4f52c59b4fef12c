//! Faults: which region, may it, and who resolves it.
//!
//! ```text
//!   region found   allows it   private, written, nobody's yet   ->   engine
//!       |              |                   |
//!       | no           | no                | the lock for oneself: adopt
//!       v              v
//!   a stack above?   SIGSEGV, ACCERR
//!     yes: grows, with the lock for oneself
//!     no:  SIGSEGV, MAPERR
//! ```
//!
//! Source: Linux, mm/memory.c and mm/vma.c (`expand_downwards`).

use super::AddressSpace;
use super::bounds_of;
use super::parts::Parts;
use super::regions::Found;
use crate::errno::Errno;
use crate::vma::{VmFlags, Vma, pages};
use lock_api::RawRwLock;
use vellum_cache::Page;
use vellum_core::{Entry, PAGE_SHIFT, PAGE_SIZE, Span, VirtAddr, Walk};
use vellum_fault::{Access, Cost, Deny, FaultError, Marker, Sharing, System};

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Resolves a fault: what a program tried at `va`, and could not. Many CPUs may be here at once.
    ///
    /// # Errors
    ///
    /// [`FaultError`]: `Deny` has the signal with its code; after `OutOfFrames` the embedder makes room
    /// or chooses a victim, and the program tries again. Nothing is half done.
    pub fn fault(&self, va: VirtAddr, access: Access) -> Result<Cost, FaultError> {
        let tried = self.parts.read().fault(va, access);
        match tried {
            Err(FaultError::Exclusive) => self.parts.write().fault_exclusive(va, access),
            done => done,
        }
    }

    /// Shows a page in a region whose faults go to the embedder ([`map_hook`](Self::map_hook)), with the
    /// region's rights: what a pager has found, or made, for a fault that was
    /// [`FaultError::Hook`]. Whether it is there now; something else that is there stays.
    ///
    /// # Errors
    ///
    /// As of [`Mmu::show`](vellum_fault::Mmu::show), and `Deny` outside of such regions.
    pub fn show(&self, va: VirtAddr, page: Page<'_, S>) -> Result<bool, FaultError> {
        let parts = self.parts.read();
        let found = parts.find(va.as_u64()).filter(|found| found.vma.is_hook());
        let found = found.ok_or(FaultError::Deny(Deny::Unmapped(va)))?;
        parts.mmu.show(&found.vma.region(found.start, found.end, 1), va, page)
    }
}

impl<S: System> Parts<'_, S> {
    /// With the lock shared.
    pub(super) fn fault(&self, va: VirtAddr, access: Access) -> Result<Cost, FaultError> {
        let around = self.rules.fault_around;
        let region = self.vmas.with_next(va, |range, vma| {
            let (start, end) = bounds_of(range);
            if start > va.as_u64() {
                let grows = vma.flags.contains(VmFlags::GROWSDOWN);
                Err(if grows { FaultError::Exclusive } else { unmapped(va) })
            } else if Self::needs_family(vma, access) {
                Err(FaultError::Exclusive)
            } else {
                Ok(vma.region(start, end, around))
            }
        });
        match region {
            Some(Ok(region)) => self.mmu.fault(&region, va, access),
            Some(Err(error)) => Err(error),
            None => Err(unmapped(va)),
        }
    }

    /// Whether it makes the first page that is the region's own.
    fn needs_family(vma: &Vma, access: Access) -> bool {
        access == Access::Write
            && vma.anon.is_none()
            && vma.sharing() == Sharing::Private
            && vma.flags.contains(VmFlags::WRITE)
    }

    /// Whether no page will come of a fault, since a guard is there.
    fn is_guarded(&self, va: VirtAddr) -> bool {
        let found = self.mmu.table().walk(va.align_down(PAGE_SHIFT), &mut ());
        let Ok(Span { entry: Entry::Soft(soft), .. }) = found else { return false };
        Marker::of(soft) == Some(Marker::Guard)
    }

    /// With the lock for oneself.
    pub(super) fn fault_exclusive(
        &mut self,
        va: VirtAddr,
        access: Access,
    ) -> Result<Cost, FaultError> {
        let unmapped = unmapped(va);
        let mut found = self.next(va.as_u64()).ok_or(unmapped)?;
        if found.start > va.as_u64() {
            found = self.grow_down(found, va.align_down(PAGE_SHIFT).as_u64()).ok_or(unmapped)?;
        }
        if Self::needs_family(&found.vma, access) && !self.is_guarded(va) {
            found = self.adopt(found).map_err(|_| FaultError::OutOfFrames(NO_FRAME))?;
        }
        let region = found.vma.region(found.start, found.end, self.rules.fault_around);
        self.mmu.fault_exclusive(&region, va, access)
    }

    /// Lets a stack grow down to `to`, if it may.
    pub(super) fn grow_down(&mut self, found: Found, to: u64) -> Option<Found> {
        if !found.vma.flags.contains(VmFlags::GROWSDOWN) || to < self.rules.mmap_min_addr {
            return None;
        }
        let grown = pages(found.start.checked_sub(to)?);
        // Who may touch what lies before it could mistake the one for the other.
        let is_mistakable = |prev: Found| {
            !prev.vma.flags.contains(VmFlags::GROWSDOWN)
                && prev.vma.flags.intersects(VmFlags::ACCESS)
                && to - prev.end < self.rules.stack_guard_gap
        };
        if self.prev(to).is_some_and(is_mistakable) {
            return None;
        }
        let index = found.vma.index.checked_sub(grown)?;
        if found.end - to > self.limits.stack
            || !self.may_expand(found.vma.flags, grown)
            || !self.may_lock(found.vma.flags, grown << PAGE_SHIFT)
        {
            return None;
        }
        let found = self.adopt(found).ok()?;
        let accounts = found.vma.flags.contains(VmFlags::ACCOUNT);
        if accounts && !self.rules.promise(grown) {
            return None;
        }
        match self.extend_down(found, to, index) {
            Ok(grown_to) => {
                // What is locked and grows is filled as it is touched.
                self.used.count(found.vma.flags, grown, true);
                Some(grown_to)
            }
            Err(_) => {
                if accounts {
                    self.rules.release(grown);
                }
                None
            }
        }
    }

    fn extend_down(&mut self, found: Found, to: u64, index: u64) -> Result<Found, Errno> {
        let range = super::pages_of(to, found.end)?;
        self.vmas.resize(VirtAddr::new(found.start), range)?;
        self.vmas.update(range.start(), |vma| vma.index = index)?;
        Ok(Found { start: to, vma: Vma { index, ..found.vma }, ..found })
    }

    /// Faults in every page of the range, by region; for writing where a private one may be written, or
    /// `for_write` demands it.
    ///
    /// `ENOMEM` where something is not mapped or there is no memory, `EFAULT` for what no access is
    /// allowed to, or no page is behind.
    pub(crate) fn populate(&mut self, start: u64, end: u64, for_write: bool) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let found = self.find(at).ok_or(Errno::Enomem)?;
            let until = found.end.min(end);
            let flags = found.vma.flags;
            if flags.contains(VmFlags::LOCKONFAULT) {
                // Such pages come when they are touched, whoever would have them now.
                at = until;
                continue;
            }
            let writes = for_write || flags & (VmFlags::WRITE | VmFlags::SHARED) == VmFlags::WRITE;
            let access = if writes {
                Access::Write
            } else if flags.contains(VmFlags::EXEC) && !flags.contains(VmFlags::READ) {
                Access::Execute
            } else {
                Access::Read
            };
            self.populate_one(at, until, access)?;
            at = until;
        }
        Ok(())
    }

    /// Faults in pages of one region.
    pub(crate) fn populate_one(
        &mut self,
        start: u64,
        end: u64,
        access: Access,
    ) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let found = self.find(at).ok_or(Errno::Enomem)?;
            let mut refused = Ok(());
            if !Self::needs_family(&found.vma, access) {
                let region = found.vma.region(found.start, found.end, self.rules.fault_around);
                refused = self.mmu.populate(&region, VirtAddr::new(at), end - at, access);
                if refused.is_ok() {
                    return Ok(());
                }
            }
            let va = refused.err().map_or(VirtAddr::new(at), |(va, _)| va);
            match refused {
                Err((_, error)) if error != FaultError::Exclusive => return Err(errno_of(error)),
                _ => {}
            }
            self.fault_exclusive(va, access).map_err(errno_of)?;
            at = va.as_u64() + PAGE_SIZE;
        }
        Ok(())
    }
}

const fn unmapped(va: VirtAddr) -> FaultError {
    FaultError::Deny(Deny::Unmapped(va))
}

/// What a call says where a page could not be had.
pub(super) fn errno_of(error: FaultError) -> Errno {
    match error {
        FaultError::Deny(_) | FaultError::Hook(_) => Errno::Efault,
        FaultError::Retry => Errno::Eagain,
        _ => Errno::Enomem,
    }
}

const NO_FRAME: vellum_core::OutOfFrames = vellum_core::OutOfFrames { order: 0 };
