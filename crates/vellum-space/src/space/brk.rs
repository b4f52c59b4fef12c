//! `brk`: the heap, a region that ends where the program says.
//!
//! ```text
//!   Layout::heap                 brk
//!     |---------------------------|..|         up to the page's end
//!     [ heap region                  ]  ....  [ next region
//!                                      ^ a page and the next one's guard gap stay free
//! ```
//!
//! Source: Linux, mm/mmap.c (`brk`, `do_brk_flags`).

use super::parts::Parts;
use super::{AddressSpace, page_align};
use crate::errno::Errno;
use crate::vma::{VmFlags, Vma, pages};
use lock_api::RawRwLock;
use vellum_core::{PAGE_SHIFT, PAGE_SIZE};
use vellum_fault::{Backing, System};

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Where the heap ends after this: at `to`, or, if that cannot be, where it ended before. `brk(0)`
    /// asks.
    pub fn brk(&self, to: u64) -> u64 {
        let mut parts = self.parts.write();
        if parts.set_brk(to).is_ok() {
            parts.brk = to;
        }
        parts.brk
    }

    /// Moves the end of the heap by so many bytes; where it was before.
    ///
    /// # Errors
    ///
    /// `ENOMEM` where that cannot be.
    pub fn sbrk(&self, by: i64) -> Result<u64, Errno> {
        let before = self.brk(0);
        let to = before.checked_add_signed(by).ok_or(Errno::Enomem)?;
        if by == 0 || self.brk(to) == to { Ok(before) } else { Err(Errno::Enomem) }
    }
}

impl<S: System> Parts<'_, S> {
    fn set_brk(&mut self, to: u64) -> Result<(), Errno> {
        if to < self.layout.heap || to > self.layout.end {
            return Err(Errno::Enomem);
        }
        let data = self.layout.data.1.saturating_sub(self.layout.data.0);
        if (to - self.layout.heap).saturating_add(data) > self.limits.data {
            return Err(Errno::Enomem);
        }
        let (old, new) = (page_align(self.brk), page_align(to));
        if new == old {
            return Ok(());
        }
        if new < old {
            self.first_in(new, old).ok_or(Errno::Enomem)?;
            return self.unmap(new, old);
        }
        self.grow_heap(old, new)
    }

    fn grow_heap(&mut self, old: u64, new: u64) -> Result<(), Errno> {
        let flags =
            VmFlags::READ | VmFlags::WRITE | VmFlags::MAY | VmFlags::ACCOUNT | self.flags_to_come;
        if new > self.layout.end || !self.may_lock(flags, new - old) {
            return Err(Errno::Enomem);
        }
        if let Some(next) = self.next(old) {
            let guard = next.vma.guard(self.rules.stack_guard_gap);
            if new.saturating_add(PAGE_SIZE) > next.start.saturating_sub(guard) {
                return Err(Errno::Enomem);
            }
        }
        let count = pages(new - old);
        if !self.may_expand(flags, count) || self.vmas.len() > self.rules.max_map_count {
            return Err(Errno::Enomem);
        }
        self.promise(count)?;
        let vma = Vma {
            flags,
            backing: Backing::Anon,
            descriptor: 0,
            index: old >> PAGE_SHIFT,
            anon: None,
        };
        if let Err(error) = self.insert(old, new, vma) {
            self.rules.release(count);
            return Err(error);
        }
        self.used.count(flags, count, true);
        if flags.contains(VmFlags::LOCKED) {
            self.populate(old, new, false).unwrap_or(());
        }
        Ok(())
    }
}
