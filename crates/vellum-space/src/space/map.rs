//! `mmap`: checks in Linux's order, room, what is in the way, a region, pages if they are wanted now.
//!
//! Source: Linux, mm/mmap.c (`do_mmap`), mm/vma.c (`__mmap_region`); POSIX mmap.

use super::parts::Parts;
use super::regions::Found;
use super::{AddressSpace, FileMap, is_aligned, page_align, pages_of};
use crate::abi::{map, prot as p};
use crate::errno::Errno;
use crate::rules::Overcommit;
use crate::vma::{VmFlags, Vma, pages};
use lock_api::RawRwLock;
use vellum_cache::Files;
use vellum_core::{PAGE_SHIFT, VirtAddr};
use vellum_fault::{Backing, System};

/// What `mmap` asks for.
#[derive(Clone, Copy, Debug)]
struct Request {
    addr: u64,
    len: u64,
    prot: u64,
    flags: u64,
}

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Makes a region of `len` bytes, rounded up to pages, with the rights `prot`, as `flags` say
    /// ([`abi`](crate::abi)), of a file or of zeros; where it is.
    ///
    /// # Errors
    ///
    /// Those of mmap(2); docs/posix.md has them by flag. Nothing has changed then.
    pub fn mmap(
        &self,
        addr: u64,
        len: u64,
        prot: u64,
        flags: u64,
        file: Option<FileMap>,
    ) -> Result<u64, Errno> {
        let mut parts = self.parts.write();
        let mut request = Request { addr, len, prot, flags };
        // Anonymous memory has no use for a descriptor.
        let offset = file.map_or(0, |file| file.offset);
        let file = file.filter(|_| flags & map::ANONYMOUS == 0);
        if flags & map::ANONYMOUS == 0 {
            let file = file.ok_or(Errno::Ebadf)?;
            if !is_aligned(file.offset) || flags & map::HUGETLB != 0 {
                return Err(Errno::Einval);
            }
        }
        if flags & map::HUGETLB != 0 {
            return Err(parts.refuse_hugetlb(request, offset));
        }
        let (start, vma) = parts.plan(&mut request, file.as_ref())?;
        let end = start + request.len;
        // Where it was looked for, or had to be free, nothing is.
        let looked = flags & map::FIXED == 0 || flags & map::FIXED_NOREPLACE != 0;
        parts.make(start, end, vma, looked)?;
        let populate = flags & (map::POPULATE | map::NONBLOCK) == map::POPULATE;
        let comes_locked = parts.flags_to_come.contains(VmFlags::LOCKED);
        if populate || comes_locked || vma.flags.contains(VmFlags::LOCKED) {
            parts.populate(start, end, false).unwrap_or(());
        }
        Ok(start)
    }

    /// Makes a region that nobody changes but the embedder, who gets its faults as
    /// [`FaultError::Hook`](vellum_fault::FaultError::Hook) with `number`: device memory, paging by a
    /// user program, vvar and vDSO. Pages of memory are shown by [`show`](Self::show). A device is shown by a leaf to its registers, which have no record of
    /// a frame ([`Mmu::root_table`](vellum_fault::Mmu::root_table), from [`with_mmu`](Self::with_mmu), and
    /// [`PageTable::replace_refilling`](vellum_core::PageTable::replace_refilling)). `munmap` takes such
    /// leaves away as any others; a child of `fork` has the region without them, and faults again.
    ///
    /// # Errors
    ///
    /// `EINVAL`, `ENOMEM`, `EEXIST` where something is.
    pub fn map_hook(&self, addr: u64, len: u64, prot: u64, number: u64) -> Result<(), Errno> {
        let mut parts = self.parts.write();
        let (start, end) = parts.unmappable(addr, len)?;
        if parts.first_in(start, end).is_some() {
            return Err(Errno::Eexist);
        }
        let flags = VmFlags::of_prot(prot)
            | VmFlags::MAYREAD
            | VmFlags::MAYEXEC
            | VmFlags::DONTEXPAND
            | VmFlags::SPECIAL;
        let vma =
            Vma { flags, backing: Backing::Hook(number), descriptor: 0, index: 0, anon: None };
        parts.make(start, end, vma, true)
    }
}

/// The size that `MAP_HUGETLB` asks for, by the logarithm in the upper bits of the flags.
const fn hugetlb_size(flags: u64) -> Option<u64> {
    match flags >> map::HUGE_SHIFT & map::HUGE_MASK {
        0 | 21 => Some(1 << 21),
        30 => Some(1 << 30),
        _ => None,
    }
}

impl<S: System> Parts<'_, S> {
    /// Why there is no mapping of huge pages from a pool: the pool is empty, if nothing else is wrong. As
    /// on Linux it is asked last, when what was at a fixed address is gone, and so is whether the offset,
    /// which means nothing here, is one of huge pages.
    fn refuse_hugetlb(&mut self, mut request: Request, offset: u64) -> Errno {
        let Some(size) = hugetlb_size(request.flags) else { return Errno::Einval };
        request.len = request.len.wrapping_add(size - 1) & !(size - 1);
        let is_fixed = request.flags & (map::FIXED | map::FIXED_NOREPLACE) != 0;
        if is_fixed && request.len <= self.layout.end && !request.addr.is_multiple_of(size) {
            return Errno::Einval;
        }
        // Such a mapping is one of a file.
        let file = vellum_cache::FileId(0);
        let file = FileMap { file, descriptor: 0, offset: 0, readable: true, writable: true };
        let emptied = self.plan(&mut request, Some(&file)).and_then(|(start, vma)| {
            let end = start + request.len;
            let is_free = self.first_in(start, end).is_none();
            self.check_room(start, end, vma.flags, is_free)?;
            self.unmap(start, end)
        });
        let refused = if offset.is_multiple_of(size) { Errno::Enomem } else { Errno::Einval };
        emptied.err().unwrap_or(refused)
    }

    /// Checks a request, and says where its region goes and what it is.
    fn plan(&self, request: &mut Request, file: Option<&FileMap>) -> Result<(u64, Vma), Errno> {
        if request.len == 0 {
            return Err(Errno::Einval);
        }
        if request.flags & map::FIXED_NOREPLACE != 0 {
            request.flags |= map::FIXED;
        }
        if request.flags & map::FIXED == 0 {
            request.addr = self.rounded_hint(request.addr);
        }
        request.len = page_align(request.len);
        if request.len == 0 {
            return Err(Errno::Enomem);
        }
        let index = file.map_or(0, |file| file.offset >> PAGE_SHIFT);
        if self.vmas.len() > self.rules.max_map_count {
            return Err(Errno::Enomem);
        }
        let mut flags = VmFlags::of_prot(request.prot) | VmFlags::MAY | self.flags_to_come;
        for (bit, flag) in [
            (map::GROWSDOWN, VmFlags::GROWSDOWN),
            (map::LOCKED, VmFlags::LOCKED),
            // A stack is touched page by page, from one end.
            (map::STACK, VmFlags::NOHUGEPAGE),
            (map::SYNC, VmFlags::SYNC),
        ] {
            if request.flags & bit != 0 {
                flags |= flag;
            }
        }
        let start = self.place(request.addr, request.len, request.flags)?;
        if request.flags & map::FIXED_NOREPLACE != 0
            && self.first_in(start, start + request.len).is_some()
        {
            return Err(Errno::Eexist);
        }
        if request.flags & map::LOCKED != 0 && !self.can_lock() {
            return Err(Errno::Eperm);
        }
        if !self.may_lock(flags, request.len) {
            return Err(Errno::Eagain);
        }
        let mut vma = match file {
            Some(file) => file_region(request, file, flags, index)?,
            None => anonymous_region(request, flags, start)?,
        };
        if request.flags & map::NORESERVE != 0 && self.rules.overcommit != Overcommit::Never {
            vma.flags |= VmFlags::NORESERVE;
        }
        Ok((start, vma))
    }

    /// Puts a region in, in place of what is there; of a range that `is_known_free`, nothing.
    fn make(
        &mut self,
        start: u64,
        end: u64,
        mut vma: Vma,
        is_known_free: bool,
    ) -> Result<(), Errno> {
        let is_free = is_known_free || self.first_in(start, end).is_none();
        self.check_room(start, end, vma.flags, is_free)?;
        let count = pages(end - start);
        let is_shared_memory = vma.is_anon() && vma.flags.contains(VmFlags::SHARED);
        let is_promised = Vma::is_accountable(vma.flags);
        if is_promised {
            self.promise(count).inspect_err(|_| self.cut_around(start, end))?;
            vma.flags |= VmFlags::ACCOUNT;
        }
        let made = self.make_promised((start, end), vma, is_shared_memory, is_free);
        if made.is_err() && is_promised {
            self.rules.release(count);
        }
        made
    }

    /// Whether there may be a region with these flags in place of what is there, if anything is.
    fn check_room(
        &mut self,
        start: u64,
        end: u64,
        flags: VmFlags,
        is_free: bool,
    ) -> Result<(), Errno> {
        let mut added = pages(end - start);
        if !is_free {
            self.check_unmap(start, end)?;
            added -= self.count_in(start, end);
        }
        if !self.may_expand(flags, added) {
            self.cut_around(start, end);
            return Err(Errno::Enomem);
        }
        Ok(())
    }

    /// Cuts what is in the way of a mapping that is refused for a limit: Linux has done so by then.
    fn cut_around(&mut self, start: u64, end: u64) {
        self.cut(start);
        self.cut(end);
    }

    fn make_promised(
        &mut self,
        (start, end): (u64, u64),
        mut vma: Vma,
        is_shared_memory: bool,
        is_free: bool,
    ) -> Result<(), Errno> {
        // One for what is cut out of a region, one for the new one.
        self.vmas.reserve(2)?;
        if is_shared_memory {
            vma.backing = Backing::File(self.files().create_shared(end - start)?);
        }
        let unmapped = if is_free { Ok(()) } else { self.unmap(start, end) };
        if let Err(error) = unmapped.and_then(|()| self.insert(start, end, vma)) {
            if is_shared_memory {
                // The share of who made it; nobody else knows of the file, so it goes.
                self.note_file(&vma, false);
            }
            return Err(error);
        }
        if is_shared_memory {
            // From here on the regions that show it keep it.
            self.note_file(&vma, false);
        }
        let locks = VmFlags::LOCKED | VmFlags::LOCKONFAULT;
        if vma.flags.contains(VmFlags::DROPPABLE) && vma.flags.intersects(locks) {
            // It may be mapped where all that comes is locked, and is not; but joins none that came before.
            vma.flags = vma.flags.without(locks);
            self.vmas.update(VirtAddr::new(start), |it| it.flags = vma.flags)?;
        }
        self.used.count(vma.flags, pages(end - start), true);
        Ok(())
    }

    /// Pages of regions in the range.
    pub(crate) fn count_in(&self, start: u64, end: u64) -> u64 {
        let mut count = 0;
        let _all = self.each_in(start, end, |found| {
            count += pages(found.end.min(end) - found.start.max(start));
            Ok(())
        });
        count
    }

    /// Calls `f` for each region that has a byte in the range, whole, until it fails.
    pub(crate) fn each_in(
        &self,
        start: u64,
        end: u64,
        mut f: impl FnMut(Found) -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        if start >= end {
            return Ok(());
        }
        self.vmas.iter(pages_of(start, end)?).map(Found::new).try_for_each(&mut f)
    }
}

/// A region of a file, if that may be.
fn file_region(
    request: &Request,
    file: &FileMap,
    mut flags: VmFlags,
    index: u64,
) -> Result<Vma, Errno> {
    if index.checked_add(pages(request.len)).is_none_or(|end| end > i64::MAX as u64 >> PAGE_SHIFT) {
        return Err(Errno::Eoverflow);
    }
    let kind = request.flags & map::TYPE;
    if kind == map::SHARED_VALIDATE && request.flags & !(map::LEGACY | map::TYPE) != 0 {
        return Err(Errno::Eopnotsupp);
    }
    match kind {
        map::SHARED | map::SHARED_VALIDATE => {
            if request.prot & p::WRITE != 0 && !file.writable {
                return Err(Errno::Eacces);
            }
            flags |= VmFlags::SHARED | VmFlags::MAYSHARE;
            if !file.writable {
                flags = flags.without(VmFlags::MAYWRITE | VmFlags::SHARED);
            }
        }
        map::PRIVATE => {}
        _ => return Err(Errno::Einval),
    }
    if !file.readable {
        return Err(Errno::Eacces);
    }
    if flags.contains(VmFlags::GROWSDOWN) {
        return Err(Errno::Einval);
    }
    let descriptor = file.descriptor;
    Ok(Vma { flags, backing: Backing::File(file.file), descriptor, index, anon: None })
}

/// A region of zeros, if that may be.
fn anonymous_region(request: &Request, mut flags: VmFlags, start: u64) -> Result<Vma, Errno> {
    let mut index = start >> PAGE_SHIFT;
    match request.flags & map::TYPE {
        map::SHARED => {
            if flags.contains(VmFlags::GROWSDOWN) {
                return Err(Errno::Einval);
            }
            index = 0;
            flags |= VmFlags::SHARED | VmFlags::MAYSHARE;
        }
        map::DROPPABLE => {
            if request.flags & (map::LOCKED | map::HUGETLB) != 0
                || flags.contains(VmFlags::GROWSDOWN)
            {
                return Err(Errno::Einval);
            }
            flags |=
                VmFlags::DROPPABLE | VmFlags::NORESERVE | VmFlags::WIPEONFORK | VmFlags::DONTDUMP;
        }
        map::PRIVATE => {}
        _ => return Err(Errno::Einval),
    }
    Ok(Vma { flags, backing: Backing::Anon, descriptor: 0, index, anon: None })
}
