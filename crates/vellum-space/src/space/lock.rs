//! `mlock` and its family: pages that stay.
//!
//! Source: Linux, mm/mlock.c.

use super::parts::Parts;
use super::regions::Found;
use super::{AddressSpace, page_align};
use crate::abi::mlock as m;
use crate::errno::Errno;
use crate::rules::INFINITY;
use crate::vma::{VmFlags, pages};
use lock_api::RawRwLock;
use vellum_core::PAGE_SIZE;
use vellum_fault::System;

const LOCKS: VmFlags = VmFlags::LOCKED.and(VmFlags::LOCKONFAULT);

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Locks the pages that `[addr, addr + len)` touches, and faults them in.
    ///
    /// # Errors
    ///
    /// `EPERM` for who may lock nothing; `ENOMEM` over the limit, where something is not mapped, or a
    /// page cannot be had; `EAGAIN` without memory. Regions before a hole are locked then.
    pub fn mlock(&self, addr: u64, len: u64) -> Result<(), Errno> {
        self.parts.write().lock(addr, len, VmFlags::LOCKED)
    }

    /// The same; with `MLOCK_ONFAULT` pages are locked as they come.
    ///
    /// # Errors
    ///
    /// As [`mlock`](Self::mlock), and `EINVAL` for unknown flags.
    pub fn mlock2(&self, addr: u64, len: u64, flags: u64) -> Result<(), Errno> {
        if flags & !m::ONFAULT != 0 {
            return Err(Errno::Einval);
        }
        let locks = if flags & m::ONFAULT != 0 { LOCKS } else { VmFlags::LOCKED };
        self.parts.write().lock(addr, len, locks)
    }

    /// Unlocks the pages that the range touches.
    ///
    /// # Errors
    ///
    /// `ENOMEM` where something is not mapped, `EINVAL` for a range that wraps.
    pub fn munlock(&self, addr: u64, len: u64) -> Result<(), Errno> {
        let (start, len) = whole_pages(addr, len);
        self.parts.write().apply(start, len, VmFlags::NONE)
    }

    /// Locks what there is, what is to come, or both.
    ///
    /// # Errors
    ///
    /// `EINVAL` for flags that ask for nothing, or unknown ones; `EPERM`; `ENOMEM` over the limit.
    pub fn mlockall(&self, flags: u64) -> Result<(), Errno> {
        let all = m::CURRENT | m::FUTURE | m::MCL_ONFAULT;
        if flags == 0 || flags & !all != 0 || flags == m::MCL_ONFAULT {
            return Err(Errno::Einval);
        }
        self.parts.write().lock_all(flags)
    }

    /// Unlocks everything, and what is to come.
    ///
    /// # Errors
    ///
    /// `ENOMEM` without memory for regions.
    pub fn munlockall(&self) -> Result<(), Errno> {
        let mut parts = self.parts.write();
        parts.flags_to_come = VmFlags::NONE;
        parts.relock_all(VmFlags::NONE)
    }
}

/// The pages that a range touches; the length wraps as it does in Linux.
const fn whole_pages(addr: u64, len: u64) -> (u64, u64) {
    let offset = addr & (PAGE_SIZE - 1);
    (addr - offset, page_align(len.wrapping_add(offset)))
}

impl<S: System> Parts<'_, S> {
    fn lock(&mut self, addr: u64, len: u64, locks: VmFlags) -> Result<(), Errno> {
        if !self.can_lock() {
            return Err(Errno::Eperm);
        }
        let (start, len) = whole_pages(addr, len);
        if !self.limits.may_lock_all && self.limits.locked != INFINITY {
            let limit = pages(self.limits.locked);
            let mut locked = pages(len).saturating_add(self.used.locked);
            if locked > limit {
                locked -= self.count_locked(start, start.saturating_add(len));
            }
            if locked > limit {
                return Err(Errno::Enomem);
            }
        }
        self.apply(start, len, locks)?;
        self.populate_locked(start, start + len).map_err(|error| match error {
            Errno::Efault => Errno::Enomem,
            Errno::Enomem => Errno::Eagain,
            other => other,
        })
    }

    fn count_locked(&self, start: u64, end: u64) -> u64 {
        let mut count = 0;
        let end = end.min(self.layout.end);
        let _all = self.each_in(start, end, |found| {
            if found.vma.flags.contains(VmFlags::LOCKED) {
                count += pages(found.end.min(end) - found.start.max(start));
            }
            Ok(())
        });
        count
    }

    /// Gives every region of the range these locks and no others, up to a hole.
    fn apply(&mut self, start: u64, len: u64, locks: VmFlags) -> Result<(), Errno> {
        let end = start.checked_add(len).ok_or(Errno::Einval)?;
        let mut at = start;
        while at < end {
            let found = self.find(at).ok_or(Errno::Enomem)?;
            let until = found.end.min(end);
            self.relock(&found, at, until, locks)?;
            at = until;
        }
        Ok(())
    }

    fn relock(&mut self, found: &Found, start: u64, end: u64, locks: VmFlags) -> Result<(), Errno> {
        let old = found.vma.flags;
        let new = old.without(LOCKS) | locks;
        if new == old || old.intersects(VmFlags::DROPPABLE | VmFlags::SPECIAL) {
            return Ok(());
        }
        self.modify_found(found, (start, end), |vma| vma.flags = new)?;
        let count = pages(end - start);
        match (old.contains(VmFlags::LOCKED), new.contains(VmFlags::LOCKED)) {
            (false, true) => self.used.locked += count,
            (true, false) => self.used.locked = self.used.locked.saturating_sub(count),
            _ => {}
        }
        Ok(())
    }

    /// Faults in what is locked, but for what is to be locked as it comes.
    fn populate_locked(&mut self, start: u64, end: u64) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let found = self.find(at).ok_or(Errno::Enomem)?;
            let until = found.end.min(end);
            // The embedder's is not memory to fault in.
            if !found.vma.flags.intersects(VmFlags::LOCKONFAULT | VmFlags::SPECIAL) {
                self.populate(at, until, false)?;
            }
            at = until;
        }
        Ok(())
    }

    fn lock_all(&mut self, flags: u64) -> Result<(), Errno> {
        if !self.can_lock() {
            return Err(Errno::Eperm);
        }
        let is_within = self.limits.may_lock_all
            || self.limits.locked == INFINITY
            || self.used.total <= pages(self.limits.locked);
        if flags & m::CURRENT != 0 && !is_within {
            return Err(Errno::Enomem);
        }
        let locks = if flags & m::MCL_ONFAULT != 0 { LOCKS } else { VmFlags::LOCKED };
        self.flags_to_come = if flags & m::FUTURE != 0 { locks } else { VmFlags::NONE };
        if flags & m::CURRENT == 0 {
            return Ok(());
        }
        // Regions that cannot be changed stay as they are; pages that cannot be had are not.
        self.relock_all(locks)?;
        let mut at = 0;
        while let Some(found) = self.next(at) {
            self.populate_locked(found.start, found.end).unwrap_or(());
            at = found.end;
        }
        Ok(())
    }

    fn relock_all(&mut self, locks: VmFlags) -> Result<(), Errno> {
        let mut at = 0;
        while let Some(found) = self.next(at) {
            self.relock(&found, found.start, found.end, locks)?;
            at = found.end;
        }
        Ok(())
    }
}
