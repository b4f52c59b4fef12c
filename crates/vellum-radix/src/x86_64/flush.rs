//! [`OneCpu`]: flushing with the two functions of the `x86_64` crate.
//!
//! ```text
//!   flush        pages up to CEILING         more
//!   Fresh        -                           -           nothing to forget on x86
//!   Leaves       page(va) each               all()
//!   Tables       page(va) each               all()       either drops interior entries too
//! ```
//!
//! Source: Intel SDM vol. 3A, 5.10.4.1 "Operations that Invalidate TLBs and Paging-Structure
//! Caches".

use ::x86_64::VirtAddr as X86VirtAddr;
use vellum_core::{Flush, Invalidate, Scope};

/// From how many pages on everything is flushed: what Linux has on x86.
const CEILING: u64 = 33;

/// Flushes the TLB of the one CPU that uses a table.
///
/// ```
/// use vellum_radix::x86_64::OneCpu;
/// # mod tlb {
/// #     pub fn flush(_: x86_64::VirtAddr) {}
/// #     pub fn flush_all() {}
/// # }
/// // use x86_64::instructions::tlb;
/// // SAFETY: there is one CPU, and nothing is mapped as global.
/// let invalidate = unsafe { OneCpu::new(tlb::flush, tlb::flush_all) };
/// # let _ = invalidate;
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OneCpu {
    page: fn(X86VirtAddr),
    all: fn(),
}

impl OneCpu {
    /// Flushes with `x86_64::instructions::tlb::{flush, flush_all}`, or what does as much.
    ///
    /// # Safety
    ///
    /// Whatever this is used for, no CPU but the one that runs it uses; `page` makes that CPU forget
    /// the page of an address, and all interior entries of the space that is loaded, as INVLPG does;
    /// `all` makes it forget everything of that space.
    ///
    /// `flush_all` reloads CR3, which keeps global translations. Where something is mapped with
    /// `GLOBAL`, `all` has to be more than that: clear CR4.PGE, and set it again.
    #[allow(unsafe_code, reason = "frames come back on the word of these functions")]
    #[must_use]
    pub const unsafe fn new(page: fn(X86VirtAddr), all: fn()) -> Self {
        Self { page, all }
    }
}

// SAFETY: there is one CPU to reach (`new`), and x86 caches no absence, so that `Fresh` asks for
// nothing. INVLPG of one address of every leaf, in steps of the smallest, drops all translations of
// the range, global ones too, and the interior entries of the space (SDM 5.10.4.1); `all` drops
// everything by the contract of `new`. A store before either is visible to that CPU.
#[allow(unsafe_code, reason = "implements an unsafe trait")]
unsafe impl Invalidate for OneCpu {
    fn flush(&self, flushes: &[Flush]) {
        let needed = || flushes.iter().filter(|flush| flush.scope > Scope::Fresh);
        let pages = needed().map(|flush| flush.steps()).fold(0, u64::saturating_add);
        if pages >= CEILING {
            (self.all)();
            return;
        }
        for flush in needed() {
            let first = flush.first.align_down(flush.page);
            for i in 0..flush.steps() {
                let va = first.wrapping_add(i << flush.page);
                (self.page)(X86VirtAddr::new_truncate(va.as_u64()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use std::thread_local;
    use std::vec::Vec;
    use vellum_core::{Attr, VirtAddr};

    thread_local! {
        /// The pages that were flushed; `None`: everything.
        static SEEN: RefCell<Vec<Option<u64>>> = const { RefCell::new(Vec::new()) };
    }

    fn flushed_by(flushes: &[Flush]) -> Vec<Option<u64>> {
        let page = |va: X86VirtAddr| SEEN.with_borrow_mut(|seen| seen.push(Some(va.as_u64())));
        let all = || SEEN.with_borrow_mut(|seen| seen.push(None));
        // SAFETY: no CPU uses any table here.
        unsafe { OneCpu::new(page, all) }.flush(flushes);
        SEEN.take()
    }

    fn flush(va: u64, len: u64, page: u8) -> Flush {
        Flush::new(VirtAddr::new(va), len, page, Attr::NONE)
    }

    #[test]
    fn each_leaf_is_flushed_once_and_many_at_once() {
        let huge = flush(4 << 20, 6 << 20, 21);
        let page = flush(u64::MAX - 0xfff, 0x1000, 12);
        let expected: Vec<_> = [4 << 20, 6 << 20, 8 << 20, u64::MAX - 0xfff].map(Some).into();
        assert_eq!(flushed_by(&[huge, page]), expected);
        assert_eq!(flushed_by(&[flush(0, 32 << 12, 12)]).len(), 32);
        assert_eq!(flushed_by(&[flush(0, 32 << 12, 12), page]), [None]);
    }

    #[test]
    fn what_was_a_hole_is_not_flushed_and_interior_entries_are() {
        let fresh = flush(0x1000, 0x1000, 12).with_scope(Scope::Fresh);
        assert_eq!(flushed_by(&[fresh]), []);
        let tables = Flush::tables(VirtAddr::new(0x1000), 0x1000, false);
        assert_eq!(flushed_by(&[fresh, tables]), [Some(0x1000)]);
        assert_eq!(flushed_by(&[Flush::tables(VirtAddr::new(0), 2 << 20, true)]), [None]);
    }
}
