//! Address space with nothing in it: zero until written, and taking no memory until then.
//!
//! ```text
//!   Reserve   | metadata, written by its allocator | frames that nobody ever touches |
//!             ^ pointer, a multiple of a page
//! ```
//!
//! Every allocator's metadata lies in one, ours too, so that nobody has better pages than others.
//! For buddy-slab-allocator the frames lie behind it as well: it deals in pointers.

use core::ptr::NonNull;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// A private mapping, unmapped on drop.
#[derive(Debug)]
pub struct Reserve {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: it is the only owner of its mapping, which any thread may use and unmap; its methods
// hand out a pointer and nothing else, and whoever follows that pointer has to see to exclusion.
unsafe impl Send for Reserve {}
// SAFETY: as above.
unsafe impl Sync for Reserve {}

impl Reserve {
    /// So many bytes of zeros.
    ///
    /// # Panics
    ///
    /// When the system refuses: a bench without memory has nothing to measure.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choosing touches no other.
        let mapped = unsafe {
            mmap_anonymous(core::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags)
        };
        match mapped.map(|start| NonNull::new(start.cast::<u8>())) {
            Ok(Some(start)) => Self { start, len },
            other => panic!("cannot reserve {len} bytes of address space: {other:?}"),
        }
    }

    /// Where it begins, aligned to a page; valid for reads and writes of its length while it lives.
    #[must_use]
    pub const fn start(&self) -> NonNull<u8> {
        self.start
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        // SAFETY: `start` and `len` are those of the mapping, and its owner goes.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
