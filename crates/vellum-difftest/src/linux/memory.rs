//! Memory that parent and child share: the child's records, and a place for it to work in.
//!
//! ```text
//!   0        8                64 KiB                                       64 MiB
//!   | length | scratch         | records ...  -->                           |
//! ```
//!
//! # Invariants
//!
//! - One process writes at a time: a parent waits for its child before it goes on or reads.
//! - The length is in the memory itself, so that a parent goes on behind what its child wrote.

use crate::subject::SubjectError;
use core::ptr::NonNull;

const BYTES: usize = 64 << 20;
const SCRATCH: usize = 8;
const RECORDS: usize = 64 << 10;

/// The status of a child whose records did not fit.
pub(super) const FULL: i32 = 90;

/// A shared mapping, unmapped when it is dropped.
#[derive(Debug)]
pub(super) struct Shared(NonNull<u8>);

impl Shared {
    pub(super) fn new() -> Result<Self, SubjectError> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping where the kernel likes replaces none.
        let at = unsafe { libc::mmap(core::ptr::null_mut(), BYTES, prot, flags, -1, 0) };
        match NonNull::new(at.cast::<u8>()) {
            Some(memory) if at != libc::MAP_FAILED => Ok(Self(memory)),
            _ => Err(SubjectError::last("mmap for records")),
        }
    }

    /// Forgets all records.
    pub(super) fn clear(&mut self) {
        self.records().set_len(0);
    }

    pub(super) fn records(&self) -> Records {
        Records(self.0)
    }

    /// What was recorded. No other process may have this memory now.
    pub(super) fn written(&mut self) -> Result<&[u8], SubjectError> {
        let len = self.records().len();
        if len > BYTES - RECORDS {
            return Err(SubjectError::Record(format!("{len} bytes do not fit")));
        }
        // SAFETY: the bytes are within the mapping; children have ended, and `self` is borrowed,
        // so that nobody writes as long as the slice lives.
        Ok(unsafe { core::slice::from_raw_parts(self.0.as_ptr().add(RECORDS), len) })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: it is the whole mapping made in `new`, and nobody borrows from it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), BYTES) };
    }
}

/// Where a child writes. Of all copies only one process uses one at a time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Records(NonNull<u8>);

impl Records {
    fn len(self) -> usize {
        // SAFETY: the mapping begins with the length, aligned as a page is.
        unsafe { self.0.cast::<usize>().read() }
    }

    fn set_len(self, len: usize) {
        // SAFETY: as above; no reference to it exists.
        unsafe { self.0.cast::<usize>().write(len) };
    }

    /// Memory to work in, of [`SCRATCH_BYTES`]; its content does not matter to anybody.
    pub(super) fn scratch(self) -> *mut u8 {
        // SAFETY: within the mapping.
        unsafe { self.0.as_ptr().add(SCRATCH) }
    }

    /// Where `bytes` may be written before they are kept. Ends the process if there is no room.
    pub(super) fn room(self, bytes: usize) -> *mut u8 {
        let at = RECORDS + self.len();
        if bytes > BYTES - at {
            // SAFETY: the process ends; nothing follows.
            unsafe { libc::_exit(FULL) };
        }
        // SAFETY: at + bytes is at most the mapping's length.
        unsafe { self.0.as_ptr().add(at) }
    }

    /// Keeps the next `bytes`, which were written to [`room`](Self::room).
    pub(super) fn keep(self, bytes: usize) {
        self.set_len(self.len() + bytes);
    }

    pub(super) fn byte(self, value: u8) {
        // SAFETY: there is room for one byte, and no reference to it.
        unsafe { self.room(1).write(value) };
        self.keep(1);
    }

    pub(super) fn word(self, value: u64) {
        // SAFETY: there is room for eight bytes, perhaps unaligned, and no reference to them.
        unsafe { self.room(8).cast::<u64>().write_unaligned(value) };
        self.keep(8);
    }
}

/// Bytes of [`Records::scratch`].
pub(super) const SCRATCH_BYTES: usize = RECORDS - SCRATCH;
