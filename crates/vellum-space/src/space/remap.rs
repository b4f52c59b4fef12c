//! `mremap`: other lengths, other places.
//!
//! ```text
//!   what is asked                              what is done
//!   ------------------------------------       --------------------------------------------------
//!   shorter, here                              the rest is unmapped
//!   longer, here, and free behind              the region grows, and joins what lies behind
//!   longer, MAYMOVE                            a new region where there is room, pages move
//!   FIXED                                      what is there goes; a new region; pages move
//!   FIXED, equal lengths, several regions      one after the other, gaps as they were
//!   DONTUNMAP                                  pages move, the old region stays, empty
//!   old length 0, shared                       a second region of the same pages
//! ```
//!
//! Source: Linux, mm/mremap.c (6.18); mremap(2).

use super::parts::Parts;
use super::regions::Found;
use super::{AddressSpace, is_aligned, page_align};
use crate::abi::{map, mremap as m};
use crate::errno::Errno;
use crate::vma::{VmFlags, Vma, pages};
use lock_api::RawRwLock;
use vellum_core::{PAGE_SHIFT, VirtAddr};
use vellum_fault::System;

/// What is asked for; lengths are in whole pages.
#[derive(Clone, Copy, Debug)]
struct Request {
    addr: u64,
    old_len: u64,
    new_len: u64,
    flags: u64,
    to: u64,
}

impl Request {
    const fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Whether it goes elsewhere whatever the lengths are.
    const fn moves(&self) -> bool {
        self.has(m::FIXED | m::DONTUNMAP)
    }

    const fn delta(&self) -> u64 {
        self.new_len.abs_diff(self.old_len)
    }

    const fn shrinks(&self) -> bool {
        self.new_len < self.old_len
    }
}

/// As what `mmap` would have been asked for such a region, as far as its place depends on that.
const fn kind(vma: &Vma) -> u64 {
    if vma.is_anon() { map::ANONYMOUS | map::PRIVATE } else { 0 }
}

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Gives the region from `addr` on, `old_len` bytes of it, `new_len` bytes, and another place if
    /// need be and `flags` say so; where it is then. O(pages that move).
    ///
    /// # Errors
    ///
    /// Those of mremap(2): `EINVAL`, `EFAULT` where nothing is mapped or several regions are in a range
    /// that changes its length, `EPERM` for a sealed one, `EAGAIN` for locked memory over its limit,
    /// `ENOMEM`. What was at the new place is gone if pages could not be moved there for lack of memory, or
    /// if `old_len` reaches beyond user space.
    pub fn mremap(
        &self,
        addr: u64,
        old_len: u64,
        new_len: u64,
        flags: u64,
        to: u64,
    ) -> Result<u64, Errno> {
        let (old_len, new_len) = (page_align(old_len), page_align(new_len));
        let request = Request { addr, old_len, new_len, flags, to };
        let mut parts = self.parts.write();
        parts.check_remap(&request)?;
        if request.has(m::FIXED) && old_len == new_len {
            return parts.move_all(request);
        }
        parts.check_source(&request)?;
        if request.moves() { parts.move_to(request) } else { parts.resize_at(request) }
    }
}

impl<S: System> Parts<'_, S> {
    /// What needs no look at regions.
    fn check_remap(&self, request: &Request) -> Result<(), Errno> {
        let end = self.layout.end;
        if request.flags & !(m::MAYMOVE | m::FIXED | m::DONTUNMAP) != 0
            || !is_aligned(request.addr)
            || request.new_len == 0
            || request.new_len > end
        {
            return Err(Errno::Einval);
        }
        if !request.moves() {
            return Ok(());
        }
        // As Linux adds: what wraps around overlaps nothing, and is refused when the target is empty.
        let source_end = request.addr.wrapping_add(request.old_len);
        if request.to > end - request.new_len
            || !is_aligned(request.to)
            || !request.has(m::MAYMOVE)
            || (request.has(m::DONTUNMAP) && request.old_len != request.new_len)
            || (request.to < source_end && request.addr < request.to + request.new_len)
        {
            return Err(Errno::Einval);
        }
        if self.vmas.len() + 2 >= self.rules.max_map_count.saturating_sub(3) {
            return Err(Errno::Enomem);
        }
        Ok(())
    }

    /// Whether the region at the old place can be had for this; it.
    fn check_source(&self, request: &Request) -> Result<Found, Errno> {
        let found = self.find(request.addr).ok_or(Errno::Efault)?;
        let flags = found.vma.flags;
        if flags.contains(VmFlags::SEALED) {
            return Err(Errno::Eperm);
        }
        if !request.moves() && request.new_len <= request.old_len {
            return Ok(found);
        }
        let is_shared = flags.intersects(VmFlags::SHARED | VmFlags::MAYSHARE);
        if (request.old_len == 0 && !is_shared)
            || (request.has(m::DONTUNMAP) && flags.contains(VmFlags::DONTEXPAND))
        {
            return Err(Errno::Einval);
        }
        // What is cut off before a move may be anything; what moves is of one region.
        if request.old_len.min(request.new_len) > found.end - request.addr {
            return Err(Errno::Efault);
        }
        if request.new_len <= request.old_len {
            return Ok(found);
        }
        let index = found.vma.index.wrapping_add(pages(request.addr - found.start));
        if index.checked_add(pages(request.new_len)).is_none() {
            return Err(Errno::Einval);
        }
        if flags.contains(VmFlags::DONTEXPAND) {
            return Err(Errno::Efault);
        }
        if !self.may_lock(flags, request.delta()) {
            return Err(Errno::Eagain);
        }
        if !self.may_expand(flags, pages(request.delta())) {
            return Err(Errno::Enomem);
        }
        Ok(found)
    }

    /// Every region of the range to the same distances from the new place.
    fn move_all(&mut self, request: Request) -> Result<u64, Errno> {
        let end = request.addr.saturating_add(request.old_len);
        let mut at = request.addr;
        let mut is_first = true;
        while let Some(found) = self.first_in(at, end) {
            if is_first && found.start > request.addr {
                return Err(Errno::Efault);
            }
            let (start, until) = (found.start.max(at), found.end.min(end));
            let len = until - start;
            let to = request.to + (start - request.addr);
            let part = Request { addr: start, old_len: len, new_len: len, to, ..request };
            self.check_source(&part)?;
            self.move_to(part)?;
            (at, is_first) = (until, false);
            if at == end {
                break;
            }
        }
        if is_first { Err(Errno::Efault) } else { Ok(request.to) }
    }

    /// To the place that the flags say.
    fn move_to(&mut self, mut request: Request) -> Result<u64, Errno> {
        if request.has(m::FIXED) {
            self.unmap(request.to, request.to + request.new_len)?;
            // With a length that wraps around the target may have been the source.
            self.find(request.addr).ok_or(Errno::Efault)?;
        }
        if request.shrinks() {
            self.drop_tail(&request)?;
            request.old_len = request.new_len;
        }
        let found = self.find(request.addr).ok_or(Errno::Efault)?;
        if request.has(m::DONTUNMAP) && !self.may_expand(found.vma.flags, pages(request.old_len)) {
            return Err(Errno::Enomem);
        }
        let fixed = if request.has(m::FIXED) { map::FIXED } else { 0 };
        let to = self.place(request.to, request.new_len, fixed | kind(&found.vma))?;
        self.transfer(found, Request { to, ..request })
    }

    /// Unmaps what is too much.
    fn drop_tail(&mut self, request: &Request) -> Result<(), Errno> {
        let tail = request.addr.saturating_add(request.new_len);
        let (start, end) = self.unmappable(tail, request.delta())?;
        self.unmap(start, end)
    }

    /// Another length at the same place, or wherever there is room.
    fn resize_at(&mut self, request: Request) -> Result<u64, Errno> {
        let Request { addr, old_len, new_len, .. } = request;
        if request.shrinks() {
            self.drop_tail(&request)?;
            return Ok(addr);
        }
        if new_len == old_len {
            return Ok(addr);
        }
        let found = self.find(addr).ok_or(Errno::Efault)?;
        let end = found.end + request.delta();
        let is_free = old_len == found.end - addr
            && end <= self.layout.end
            && self.first_in(found.end, end).is_none();
        if is_free {
            self.extend(&found, end)?;
            return Ok(addr);
        }
        if !request.has(m::MAYMOVE) {
            return Err(Errno::Enomem);
        }
        let to = self.place(0, new_len, kind(&found.vma))?;
        self.transfer(found, Request { to, ..request })
    }

    /// Lets a region grow up to `end`, where nothing is.
    fn extend(&mut self, found: &Found, end: u64) -> Result<(), Errno> {
        let count = pages(end - found.end);
        let flags = found.vma.flags;
        if flags.contains(VmFlags::ACCOUNT) {
            self.promise(count)?;
        }
        let behind = found.vma.skip(found.count_pages());
        // As a region of its own it joins the one before, since it has the same family.
        if let Err(error) = self.insert_behind(found, end, behind) {
            if flags.contains(VmFlags::ACCOUNT) {
                self.rules.release(count);
            }
            return Err(error);
        }
        self.used.count(flags, count, true);
        if flags.contains(VmFlags::LOCKED) {
            self.populate(found.end, end, false).unwrap_or(());
        }
        Ok(())
    }

    /// A region at the new place with the pages of the old one.
    fn transfer(&mut self, found: Found, request: Request) -> Result<u64, Errno> {
        let Request { addr, old_len, new_len, to, .. } = request;
        if self.vmas.len() >= self.rules.max_map_count.saturating_sub(3) {
            return Err(Errno::Enomem);
        }
        let stays = request.has(m::DONTUNMAP) || old_len == 0;
        let flags = found.vma.flags;
        let charged = if stays { new_len } else { new_len - old_len };
        let charged = if flags.contains(VmFlags::ACCOUNT) { pages(charged) } else { 0 };
        self.promise(charged)?;
        let moved = self.transfer_promised(&found, &request);
        if moved.is_err() {
            self.rules.release(charged);
        }
        moved?;
        self.used.count(flags, pages(new_len), true);
        if stays {
            self.leave_empty(&found, &request)?;
        } else {
            // What was promised for the old pages is the new region's now.
            if flags.contains(VmFlags::ACCOUNT) {
                self.promise_moved(pages(old_len));
            }
            self.forget(addr, addr + old_len)?;
        }
        if flags.contains(VmFlags::LOCKED) && new_len > old_len {
            self.populate(to + old_len, to + new_len, false).unwrap_or(());
        }
        Ok(to)
    }

    /// The new region and the pages; nothing has changed if it fails.
    fn transfer_promised(&mut self, found: &Found, request: &Request) -> Result<(), Errno> {
        let Request { addr, old_len, new_len, to, .. } = *request;
        let mut vma = found.vma.skip(pages(addr - found.start));
        if vma.is_anon() && vma.anon.is_none() {
            // Nobody has seen its pages yet, so it begins anew.
            vma.index = to >> PAGE_SHIFT;
        }
        self.vmas.reserve(4)?;
        if old_len > 0 {
            self.mmu.relocate(VirtAddr::new(addr), VirtAddr::new(to), old_len)?;
        }
        self.insert(to, to + new_len, vma)
    }

    /// The old region of `DONTUNMAP`: not locked any more, and nobody's if it moved whole.
    fn leave_empty(&mut self, found: &Found, request: &Request) -> Result<(), Errno> {
        let end = request.addr + request.old_len;
        if request.old_len == 0 {
            return Ok(());
        }
        let locked = VmFlags::LOCKED | VmFlags::LOCKONFAULT;
        // The new region may lie beside it, and have become one with it.
        let now = self.find(request.addr).unwrap_or(*found);
        let is_same = (now.start, now.end) == (found.start, found.end);
        let is_whole = is_same && request.addr == found.start && end == found.end;
        if found.vma.flags.contains(VmFlags::LOCKED) {
            self.used.locked = self.used.locked.saturating_sub(now.count_pages());
        }
        // Of a part, the whole region loses its lock: it is one.
        self.vmas.update(VirtAddr::new(now.start), |vma: &mut Vma| {
            vma.flags = vma.flags.without(locked);
            if is_whole {
                vma.anon = None;
            }
        })?;
        Ok(())
    }
}
