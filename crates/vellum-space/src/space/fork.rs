//! `fork`: a child with the same regions, and pages that are copied when one of the two writes.
//!
//! ```text
//!   region                      the child's region          its pages
//!   shared, or nobody's yet     the same                    a fault finds them again
//!   with guard pages, or once   the same                    the same
//!   private, with pages         the same family             shared read-only, until written
//!   MADV_WIPEONFORK             the same, nobody's          none
//!   MADV_DONTFORK               none
//!   locked                      not locked
//! ```
//!
//! Source: Linux, mm/mmap.c (`dup_mmap`), mm/memory.c (`vma_needs_copy`).

use super::parts::Parts;
use super::regions::Found;
use super::{AddressSpace, pages_of};
use crate::errno::Errno;
use crate::vma::{Anon, VmFlags, Vma};
use lock_api::{RawRwLock, RwLock};
use vellum_fault::{Mmu, System};

impl<'e, S: System, L: RawRwLock> AddressSpace<'e, S, L> {
    /// A child of this space, with the translations `mmu`, which are new. O(regions + pages that are
    /// there and private).
    ///
    /// Whoever lets a fork run beside truncations and holes of files tells the child of those that came
    /// between ([`truncate_file`](Self::truncate_file), [`punch_file`](Self::punch_file)) before it runs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or `EINVAL` for translations of another engine; there is no child then, and this space
    /// is as it was.
    pub fn fork(&self, mmu: Mmu<'e, S>) -> Result<Self, Errno> {
        let mut parent = self.parts.write();
        if !core::ptr::eq(parent.mmu.engine(), mmu.engine()) {
            return Err(Errno::Einval);
        }
        let mut child = Parts::new(mmu, parent.rules, parent.layout, parent.limits);
        child.brk = parent.brk;
        let mut from = 0;
        while let Some(found) = parent.next(from) {
            parent.copy_region(&mut child, &found)?;
            from = found.end;
        }
        Ok(Self { parts: RwLock::new(child) })
    }
}

impl<S: System> Parts<'_, S> {
    fn copy_region(&mut self, child: &mut Self, found: &Found) -> Result<(), Errno> {
        let flags = found.vma.flags;
        if flags.contains(VmFlags::DONTCOPY) {
            return Ok(());
        }
        let wiped = flags.contains(VmFlags::WIPEONFORK);
        let anon = found.vma.anon.filter(|_| !wiped);
        let vma = Vma {
            flags: flags.without(VmFlags::LOCKED | VmFlags::LOCKONFAULT),
            // A number of its own: what parent and child touch from now on is not one family's.
            anon: anon.map(|anon| Anon { id: self.rules.number(), is_inherited: true, ..anon }),
            ..found.vma
        };
        if flags.contains(VmFlags::ACCOUNT) {
            child.promise(found.count_pages())?;
        }
        let range = pages_of(found.start, found.end)?;
        if let Err(error) = child.vmas.insert(range, vma) {
            if flags.contains(VmFlags::ACCOUNT) {
                child.rules.release(found.count_pages());
            }
            return Err(error.into());
        }
        // From here on the child's drop takes everything back.
        child.note_file(&vma, true);
        child.used.count(vma.flags, found.count_pages(), true);
        // Guard pages are nothing that a fault would find again.
        if anon.is_none() && (wiped || !vma.has_had_guards()) {
            return Ok(());
        }
        let region = vma.region(found.start, found.end, 0);
        self.mmu.copy_to(&mut child.mmu, &region).map_err(|e| Errno::from(e.cause))
    }
}
