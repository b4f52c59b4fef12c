//! A stretch of code in which the kernel may reach the user's pages, though SMAP is on.
//!
//! ```text
//!   let _open = cpu.user_access();   STAC: EFLAGS.AC = 1   loads and stores to U/S pages pass
//!   copy ...
//!   drop(_open)                      CLAC, unless an outer stretch goes on
//! ```
//!
//! An interrupt does not clear AC, and IRET brings it back: entry stubs execute CLAC, or the handler
//! inherits the right (SDM vol. 3A, 7.12.1). SYSCALL clears it when IA32_FMASK says so.
//!
//! # Invariants
//!
//! - The guard stays where it was made: the flag is this processor's, and its thread's.
//!
//! Source: Intel SDM vol. 3A, 5.6.1 "Determination of Access Rights"; vol. 2, "STAC", "CLAC".

use crate::instructions::{self, FLAGS_AC};
use core::marker::PhantomData;

/// While it lives, the kernel may reach user pages.
///
/// Entry stubs execute CLAC: an interrupt leaves the right to its handler otherwise.
#[derive(Debug)]
#[must_use = "the stretch ends when this is dropped"]
pub struct UserAccess {
    close: bool,
    _here: PhantomData<*const ()>,
}

impl UserAccess {
    /// # Safety
    ///
    /// In ring 0, and `smap` only where the processor has SMAP.
    pub(crate) unsafe fn open(smap: bool) -> Self {
        let close = smap && instructions::flags() & FLAGS_AC == 0;
        if close {
            // SAFETY: by the caller's promise.
            unsafe { instructions::allow_user() };
        }
        Self { close, _here: PhantomData }
    }
}

impl Drop for UserAccess {
    fn drop(&mut self) {
        if self.close {
            // SAFETY: `open` executed STAC here: the same processor mode, on a processor with SMAP.
            unsafe { instructions::deny_user() };
        }
    }
}
