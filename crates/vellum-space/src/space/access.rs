//! Loads and stores on behalf of a program: what a system call does with a pointer, and what a host
//! without an MMU does for a program.
//!
//! Each page is walked as the processor would, with accessed and dirty bits, and faulted in where it has
//! to be.

use super::AddressSpace;
use core::fmt;
use lock_api::RawRwLock;
use vellum_cache::Page;
use vellum_core::{Attr, Entry, PAGE_SHIFT, PAGE_SIZE, VirtAddr, Walk};
use vellum_fault::{Access, Backing, Deny, FaultError, System};

/// An access stopped: exactly the first `done` bytes were copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessError {
    /// Bytes before the page that could not be had.
    pub done: usize,
    /// Why it could not.
    pub error: FaultError,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, after {} bytes", self.error, self.done)
    }
}

impl core::error::Error for AccessError {}

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Copies bytes from `va` on into `to`, as loads of the program.
    ///
    /// # Errors
    ///
    /// [`AccessError`] at the first page that cannot be read; `Hook` also where the embedder has mapped
    /// what is no memory with a record, as a device's registers.
    pub fn read(&self, va: VirtAddr, to: &mut [u8]) -> Result<(), AccessError> {
        let mut done = 0;
        while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = va.wrapping_add(done as u64);
            let (offset, len) = within_page(at, rest.len());
            let part = rest.get_mut(..len).unwrap_or_default();
            self.with_page(at, Access::Read, |page| page.with_bytes(|b| b.read(offset, part)))
                .map_err(|error| AccessError { done, error })?;
            done += len;
        }
        Ok(())
    }

    /// Copies `from` to `va` and on, as stores of the program.
    ///
    /// # Errors
    ///
    /// [`AccessError`] at the first page that cannot be written; `Hook` as in [`read`](Self::read).
    pub fn write(&self, va: VirtAddr, from: &[u8]) -> Result<(), AccessError> {
        let mut done = 0;
        while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
            let at = va.wrapping_add(done as u64);
            let (offset, len) = within_page(at, rest.len());
            let part = rest.get(..len).unwrap_or_default();
            self.with_page(at, Access::Write, |page| page.with_bytes(|b| b.write(offset, part)))
                .map_err(|error| AccessError { done, error })?;
            done += len;
        }
        Ok(())
    }

    /// Calls `f` with the page at `va`, which stays mapped there meanwhile.
    fn with_page<R>(
        &self,
        va: VirtAddr,
        access: Access,
        f: impl FnOnce(&Page<'_, S>) -> R,
    ) -> Result<R, FaultError> {
        let status = if access == Access::Write { Attr::STATUS } else { Attr::ACCESSED };
        let need = access.attr() | Attr::USER;
        loop {
            {
                let parts = self.parts.read();
                let entry = parts.mmu.table().touch(va.align_down(PAGE_SHIFT), need, status);
                let is_granted = matches!(entry, Entry::Leaf(_, attr) if attr.contains(need));
                let pa = parts.mmu.table().translate(va).filter(|_| is_granted);
                if let Some(pa) = pa {
                    let system = parts.mmu.engine().system();
                    if system.info(pa).is_none() {
                        // A device's registers: not memory to copy from.
                        return Err(match parts.find(va.as_u64()).map(|found| found.vma.backing) {
                            Some(Backing::Hook(number)) => FaultError::Hook(number),
                            _ => FaultError::Deny(Deny::NoPage(va)),
                        });
                    }
                    // With a share, and looked at again: another CPU may have copied the page meanwhile, and
                    // its frame be somebody else's by now.
                    let page = Page::found(system, pa);
                    match page.filter(|_| parts.mmu.table().translate(va) == Some(pa)) {
                        Some(page) => return Ok(f(&page)),
                        None => continue,
                    }
                }
            }
            self.fault(va, access)?;
        }
    }
}

/// Where in its page an address is, and how many of `len` bytes lie in that page.
fn within_page(va: VirtAddr, len: usize) -> (usize, usize) {
    let offset = (va.as_u64() % PAGE_SIZE) as usize;
    (offset, len.min(PAGE_SIZE as usize - offset))
}
