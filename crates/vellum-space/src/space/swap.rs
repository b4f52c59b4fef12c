//! Taking pages out to swap, for who decides that memory is short.
//!
//! ```text
//!   page of a region    locked, or the embedder's     stays
//!                       not anonymous, or shared      stays
//!                       else                          bytes to `store`, its place into the table
//! ```
//!
//! Which page goes is the embedder's choice. They come back by faults, through [`vellum_fault::Swap`].
//!
//! Source: Linux, mm/rmap.c (`try_to_unmap`).

use super::AddressSpace;
use crate::vma::{VmFlags, Vma};
use lock_api::RawRwLock;
use vellum_core::{Cause, FrameBytes, VirtAddr};
use vellum_fault::{SwapEntry, System};

impl<S: System, L: RawRwLock> AddressSpace<'_, S, L> {
    /// Takes the anonymous page at `va` out: `store` gets its bytes, and says where they are from then
    /// on, with one share for this space. Whether it went: not if it is locked, or of a hook's region, if others
    /// have it too, if it is no anonymous page of 4 KiB, or if `store` says `None`.
    ///
    /// The space is locked meanwhile, so `store` must not touch it.
    ///
    /// # Errors
    ///
    /// As [`vellum_fault::Mmu::page_out`]; the page is where it was.
    pub fn page_out(
        &self,
        va: VirtAddr,
        store: impl FnOnce(FrameBytes<'_>) -> Option<SwapEntry>,
    ) -> Result<bool, Cause> {
        let mut parts = self.parts.write();
        let found = parts.find(va.as_u64());
        // What the embedder shows would not come back by a fault.
        let stays = |vma: &Vma| vma.flags.contains(VmFlags::LOCKED) || vma.is_hook();
        if found.is_none_or(|found| stays(&found.vma)) {
            return Ok(false);
        }
        parts.note_peak();
        parts.mmu.page_out(va, store)
    }
}
