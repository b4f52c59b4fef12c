//! `madvise`: what a program says of memory that it will need, or not.
//!
//! ```text
//!   advice                                    what it does
//!   ---------------------------------------   -----------------------------------------------------
//!   NORMAL RANDOM SEQUENTIAL DONTFORK ...     a flag of the region; it is cut and joined for that
//!   DONTNEED DONTNEED_LOCKED                  pages go
//!   FREE                                      pages may go when memory is short
//!   REMOVE                                    pages go, and the file's with them
//!   WILLNEED                                  the file's pages are read
//!   COLD PAGEOUT                              pages count as not used
//!   POPULATE_READ POPULATE_WRITE              pages are faulted in
//!   GUARD_INSTALL GUARD_REMOVE                guard pages
//! ```
//!
//! Holes are passed over, and told of behind all the work; the first region that refuses ends it.
//!
//! Source: Linux, mm/madvise.c; madvise(2).

use super::parts::Parts;
use super::regions::Found;
use super::sync::Holes;
use super::{AddressSpace, is_aligned, page_align};
use crate::abi::madv;
use crate::errno::Errno;
use crate::vma::{VmFlags, Vma, pages};
use core::ops::Range;
use lock_api::RawRwLock;
use vellum_cache::{FileId, Files};
use vellum_core::{Attr, VirtAddr};
use vellum_fault::{Access, Backing, System};

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Takes advice for `[addr, addr + len)`.
    ///
    /// # Errors
    ///
    /// Those of madvise(2): `EINVAL` for unknown advice, or what a region does not allow; `ENOMEM` where
    /// something is not mapped; `EAGAIN` without memory for regions; `EPERM` for sealed ones; `EACCES`,
    /// `EFAULT`.
    pub fn madvise(&self, addr: u64, len: u64, advice: u64) -> Result<(), Errno> {
        if !is_known(advice) || !is_aligned(addr) {
            return Err(Errno::Einval);
        }
        let padded = page_align(len);
        if len != 0 && padded == 0 {
            return Err(Errno::Einval);
        }
        let end = addr.checked_add(padded).ok_or(Errno::Einval)?;
        if end == addr {
            return Ok(());
        }
        if advice == madv::REMOVE {
            return self.remove(addr, end);
        }
        let mut parts = self.parts.write();
        match advice {
            madv::POPULATE_READ => parts.populate_advised(addr, end, Access::Read),
            madv::POPULATE_WRITE => parts.populate_advised(addr, end, Access::Write),
            _ => parts.advise(addr, end, advice),
        }
    }

    /// `MADV_REMOVE`: a region at a time, since the file hears of each hole with the space unlocked. Who
    /// hears of it tells other spaces, in which the same may be under way.
    fn remove(&self, start: u64, end: u64) -> Result<(), Errno> {
        let mut holes = Holes::new(start);
        let mut at = start;
        while at < end {
            let (files, file, pages) = {
                let mut parts = self.parts.write();
                let Some(found) = parts.first_in(at, end) else { break };
                holes.pass(&found);
                let from = found.start.max(at);
                at = found.end.min(end);
                check_seal(&found, madv::REMOVE)?;
                let (file, pages) = parts.remove(&found, from, at)?;
                (parts.files(), file, pages)
            };
            files.punched(file, pages);
        }
        holes.end(end)
    }
}

/// Advice that there is. KSM's is taken and noted, and nothing merges.
const fn is_known(advice: u64) -> bool {
    matches!(advice, 0..=4 | 8..=25 | madv::GUARD_INSTALL | madv::GUARD_REMOVE)
}

/// Advice after which contents are gone.
const fn discards(advice: u64) -> bool {
    matches!(
        advice,
        madv::FREE
            | madv::DONTNEED
            | madv::DONTNEED_LOCKED
            | madv::REMOVE
            | madv::DONTFORK
            | madv::WIPEONFORK
            | madv::GUARD_INSTALL
    )
}

impl<S: System> Parts<'_, S> {
    fn advise(&mut self, start: u64, end: u64, advice: u64) -> Result<(), Errno> {
        let mut holes = Holes::new(start);
        let mut at = start;
        while at < end {
            let Some(found) = self.first_in(at, end) else { break };
            holes.pass(&found);
            let (from, until) = (found.start.max(at), found.end.min(end));
            self.advise_one(&found, from, until, advice)?;
            at = until;
        }
        holes.end(end)
    }

    /// The part `[start, end)` of one region.
    fn advise_one(
        &mut self,
        found: &Found,
        start: u64,
        end: u64,
        advice: u64,
    ) -> Result<(), Errno> {
        let flags = found.vma.flags;
        check_seal(found, advice)?;
        let refuse_if = |refused: bool| if refused { Err(Errno::Einval) } else { Ok(()) };
        let (va, len) = (VirtAddr::new(start), end - start);
        match advice {
            madv::DONTNEED | madv::DONTNEED_LOCKED => {
                let locked = advice == madv::DONTNEED && flags.contains(VmFlags::LOCKED);
                refuse_if(locked || flags.contains(VmFlags::SPECIAL))?;
                self.split_leaves(start, end)?;
                self.note_peak();
                self.mmu.zap_pages(va, len).map_err(|e| Errno::from(e.cause))
            }
            madv::FREE => {
                refuse_if(flags.intersects(VmFlags::LOCKED | VmFlags::SPECIAL))?;
                refuse_if(!found.vma.is_anon())?;
                Ok(self.mmu.give_up(va, len)?)
            }
            madv::COLD | madv::PAGEOUT => {
                refuse_if(flags.intersects(VmFlags::LOCKED | VmFlags::SPECIAL))?;
                self.mmu.harvest(va, len, Attr::ACCESSED, &mut |_| {})?;
                if advice == madv::PAGEOUT { self.page_out(found, start, end) } else { Ok(()) }
            }
            madv::WILLNEED => {
                self.will_need(found, start, end);
                Ok(())
            }
            madv::GUARD_INSTALL => {
                refuse_if(flags.intersects(VmFlags::LOCKED | VmFlags::SPECIAL))?;
                // So that a fork copies them.
                let noted = |vma: &mut Vma| vma.flags |= VmFlags::MAYBE_GUARD;
                self.vmas.update(VirtAddr::new(found.start), noted)?;
                if found.vma.is_anon() {
                    self.adopt(self.find(start).unwrap_or(*found))?;
                }
                self.note_peak();
                self.mmu.guard(va, len).map_err(|e| Errno::from(e.cause))
            }
            madv::GUARD_REMOVE => {
                refuse_if(flags.contains(VmFlags::SPECIAL))?;
                Ok(self.mmu.unguard(va, len)?)
            }
            // There is nothing to make a large leaf of where they are off.
            madv::COLLAPSE => Err(Errno::Einval),
            _ => {
                let new = advised_flags(&found.vma, advice)?;
                if new == flags {
                    return Ok(());
                }
                self.modify_found(found, (start, end), |vma| vma.flags = new)
                    .map_err(|error| if error == Errno::Enomem { Errno::Eagain } else { error })
            }
        }
    }

    /// Reads the file's pages in, as far as there is memory.
    fn will_need(&self, found: &Found, start: u64, end: u64) {
        // Of a file in memory there is nothing to read.
        let Backing::File(file) = found.vma.backing else { return };
        if !self.files().is_memory(file) {
            let first = found.vma.index + pages(start - found.start);
            let engine = self.mmu.engine();
            engine.cache().read_ahead(self.files(), file, first, pages(end - start));
        }
    }

    /// Lets go of pages that nobody else maps and whose contents are elsewhere: the page cache's, which
    /// leaves it as well if it was never written; those that `MADV_FREE` gave up; droppable ones.
    fn page_out(&mut self, found: &Found, start: u64, end: u64) -> Result<(), Errno> {
        self.note_peak();
        let droppable = found.vma.flags.contains(VmFlags::DROPPABLE);
        let cache = self.mmu.engine().cache();
        self.mmu.let_go(VirtAddr::new(start), end - start, droppable, &mut |va| {
            if let Backing::File(file) = found.vma.backing {
                let index = found.vma.index + pages(va.as_u64() - found.start);
                cache.drop_unwritten(file, index..index + 1);
            }
        })?;
        Ok(())
    }

    /// Takes pages out of the page cache, and out of this space; which ones of which file.
    fn remove(
        &mut self,
        found: &Found,
        start: u64,
        end: u64,
    ) -> Result<(FileId, Range<u64>), Errno> {
        if found.vma.flags.contains(VmFlags::LOCKED) {
            return Err(Errno::Einval);
        }
        let Backing::File(file) = found.vma.backing else { return Err(Errno::Einval) };
        if !found.vma.flags.contains(VmFlags::SHARED | VmFlags::MAYWRITE) {
            return Err(Errno::Eacces);
        }
        let first = found.vma.index + pages(start - found.start);
        let shown = first..first + pages(end - start);
        self.mmu.engine().cache().punch(file, shown.clone());
        self.zap_file(file, shown.clone())?;
        Ok((file, shown))
    }

    fn populate_advised(&mut self, start: u64, end: u64, access: Access) -> Result<(), Errno> {
        let mut at = start;
        while at < end {
            let found = self.find(at).ok_or(Errno::Enomem)?;
            let needed = if access == Access::Write { VmFlags::WRITE } else { VmFlags::READ };
            let special = found.vma.flags.contains(VmFlags::SPECIAL);
            if special || !found.vma.flags.intersects(needed) {
                return Err(Errno::Einval);
            }
            let until = found.end.min(end);
            self.populate_one(at, until, access)?;
            at = until;
        }
        Ok(())
    }
}

/// Whether the region's seal allows the advice.
fn check_seal(found: &Found, advice: u64) -> Result<(), Errno> {
    let flags = found.vma.flags;
    // Of a file's pages there is a copy.
    let is_read_only = found.vma.is_anon() && !flags.contains(VmFlags::WRITE);
    if discards(advice) && flags.contains(VmFlags::SEALED) && is_read_only {
        return Err(Errno::Eperm);
    }
    Ok(())
}

/// A region's flags after advice that is only a flag.
fn advised_flags(vma: &Vma, advice: u64) -> Result<VmFlags, Errno> {
    let order = VmFlags::SEQ_READ | VmFlags::RAND_READ;
    let huge = VmFlags::HUGEPAGE | VmFlags::NOHUGEPAGE;
    let flags = vma.flags;
    // What others see, or may be dropped, is not merged with what is equal.
    let never_merged = VmFlags::SHARED | VmFlags::MAYSHARE | VmFlags::SPECIAL | VmFlags::DROPPABLE;
    let refused = match advice {
        madv::DOFORK => flags.contains(VmFlags::SPECIAL),
        madv::WIPEONFORK => !vma.is_anon() || flags.contains(VmFlags::SHARED),
        madv::KEEPONFORK => flags.contains(VmFlags::DROPPABLE),
        madv::DODUMP => flags.intersects(VmFlags::SPECIAL | VmFlags::DROPPABLE),
        _ => false,
    };
    if refused {
        return Err(Errno::Einval);
    }
    Ok(match advice {
        madv::NORMAL => flags.without(order),
        madv::SEQUENTIAL => flags.without(order) | VmFlags::SEQ_READ,
        madv::RANDOM => flags.without(order) | VmFlags::RAND_READ,
        madv::DONTFORK => flags | VmFlags::DONTCOPY,
        madv::DOFORK => flags.without(VmFlags::DONTCOPY),
        madv::WIPEONFORK => flags | VmFlags::WIPEONFORK,
        madv::KEEPONFORK => flags.without(VmFlags::WIPEONFORK),
        madv::DONTDUMP => flags | VmFlags::DONTDUMP,
        madv::DODUMP => flags.without(VmFlags::DONTDUMP),
        madv::MERGEABLE if flags.intersects(never_merged) => flags,
        madv::MERGEABLE => flags | VmFlags::MERGEABLE,
        madv::UNMERGEABLE => flags.without(VmFlags::MERGEABLE),
        madv::HUGEPAGE => flags.without(huge) | VmFlags::HUGEPAGE,
        madv::NOHUGEPAGE => flags.without(huge) | VmFlags::NOHUGEPAGE,
        _ => return Err(Errno::Einval),
    })
}
