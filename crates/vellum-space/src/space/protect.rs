//! `mprotect`: rights of regions and of their pages.
//!
//! Source: Linux, mm/mprotect.c.

use super::parts::Parts;
use super::regions::Found;
use super::{AddressSpace, is_aligned, page_align};
use crate::abi::prot as p;
use crate::errno::Errno;
use crate::vma::{VmFlags, Vma, pages};
use lock_api::RawRwLock;
use vellum_core::VirtAddr;
use vellum_fault::System;

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Gives all pages of `[addr, addr + len)` the rights `prot`. O(pages that are there + regions).
    ///
    /// # Errors
    ///
    /// `EINVAL` for a start that is no multiple of 4 KiB or unknown bits of `prot`; `ENOMEM` where
    /// something is not mapped, or memory or a limit is short; `EACCES` where a file does not allow it;
    /// `EPERM` where a region is sealed. What lies before the first region that fails has been changed.
    pub fn mprotect(&self, addr: u64, len: u64, prot: u64) -> Result<(), Errno> {
        let grows = prot & (p::GROWSDOWN | p::GROWSUP);
        let prot = prot & !(p::GROWSDOWN | p::GROWSUP);
        if grows == p::GROWSDOWN | p::GROWSUP || !is_aligned(addr) {
            return Err(Errno::Einval);
        }
        if len == 0 {
            return Ok(());
        }
        let len = page_align(len);
        let end = addr.checked_add(len).filter(|&end| end > addr).ok_or(Errno::Enomem)?;
        if prot & !(p::READ | p::WRITE | p::EXEC | p::SEM) != 0 {
            return Err(Errno::Einval);
        }
        self.parts.write().protect(addr, end, VmFlags::of_prot(prot), grows)
    }
}

impl<S: System> Parts<'_, S> {
    fn protect(
        &mut self,
        mut start: u64,
        end: u64,
        rights: VmFlags,
        grows: u64,
    ) -> Result<(), Errno> {
        let first = self.first_in(start, end).ok_or(Errno::Enomem)?;
        if grows == p::GROWSDOWN {
            start = first.start;
            if !first.vma.flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::Einval);
            }
        } else if first.start > start {
            return Err(Errno::Enomem);
        } else if grows == p::GROWSUP {
            // Nothing grows up here.
            return Err(Errno::Einval);
        }
        let (mut found, mut at) = (first, start);
        loop {
            let until = found.end.min(end);
            self.protect_one(&found, at, until, rights)?;
            if until == end {
                return Ok(());
            }
            at = until;
            found = self.find(at).ok_or(Errno::Enomem)?;
        }
    }

    /// The part `[start, end)` of one region.
    fn protect_one(
        &mut self,
        found: &Found,
        start: u64,
        end: u64,
        rights: VmFlags,
    ) -> Result<(), Errno> {
        let old = found.vma.flags;
        let mut new = old.without(VmFlags::ACCESS) | rights;
        if new.intersects(VmFlags::ACCESS.without(new.may()) & new) {
            return Err(Errno::Eacces);
        }
        if old.contains(VmFlags::SEALED) {
            return Err(Errno::Eperm);
        }
        if new == old {
            return Ok(());
        }
        self.split_leaves(start, end)?;
        let (va, len) = (VirtAddr::new(start), end - start);
        self.mmu.own_pages(va, len).map_err(|e| Errno::from(e.cause))?;
        let count = pages(end - start);
        let mut promised = false;
        if new.contains(VmFlags::WRITE) {
            if !self.may_expand(new, count) && self.may_expand(old, count) {
                return Err(Errno::Enomem);
            }
            let spared = VmFlags::ACCOUNT | VmFlags::WRITE | VmFlags::SHARED | VmFlags::NORESERVE;
            if !old.intersects(spared) {
                self.promise(count)?;
                promised = true;
                new |= VmFlags::ACCOUNT;
            }
        } else if old.contains(VmFlags::ACCOUNT) && found.vma.is_anon() && found.vma.anon.is_none()
        {
            new = new.without(VmFlags::ACCOUNT);
        }
        let changed = self.modify_found(found, (start, end), |vma| vma.flags = new);
        if changed.is_err() && promised {
            self.rules.release(count);
        }
        changed?;
        if old.contains(VmFlags::ACCOUNT) && !new.contains(VmFlags::ACCOUNT) {
            self.rules.release(count);
        }
        self.used.count_kind(old, count, false);
        self.used.count_kind(new, count, true);
        let sharing = Vma::sharing_of(new);
        self.mmu.protect(va, len, new.rights(), sharing).map_err(|e| Errno::from(e.cause))?;
        let kinds = VmFlags::WRITE | VmFlags::SHARED | VmFlags::LOCKED;
        if old & kinds == VmFlags::LOCKED && new.contains(VmFlags::WRITE) {
            // Its private copies are made now, so that no store has to wait for memory.
            self.populate(start, end, true).unwrap_or(());
        }
        Ok(())
    }
}
