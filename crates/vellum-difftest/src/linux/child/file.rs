//! The file of a sequence, made by the process that runs it.
//!
//! ```text
//!   200   read and write    memfd, moved to this number
//!   201   read only         /proc/self/fd/200, opened again
//!   202   write only        the same
//! ```

use super::{FILES, NO_FILE, leave};
use crate::abi::PAGE;
use crate::op::{FILE_BYTES, WRITTEN_PAGES, file_byte};

/// Makes the file, with a page of memory to work in.
pub(super) fn make(page: *mut u8) {
    let [both, read, write] = FILES;
    // SAFETY: the strings end in a zero; the numbers are above those that a program opens by
    // itself, and nobody else in this process uses descriptors any more.
    let made = unsafe {
        let fd = libc::memfd_create(c"vellum".as_ptr(), libc::MFD_CLOEXEC);
        libc::dup2(fd, both) == both && libc::close(fd) == 0
    };
    // SAFETY: the descriptor was just made.
    if !made || unsafe { libc::ftruncate(both, FILE_BYTES.cast_signed()) } != 0 {
        leave(NO_FILE);
    }
    for (number, mode) in [(read, libc::O_RDONLY), (write, libc::O_WRONLY)] {
        // SAFETY: as above.
        let opened = unsafe {
            let fd = libc::open(c"/proc/self/fd/200".as_ptr(), mode);
            libc::dup2(fd, number) == number && libc::close(fd) == 0
        };
        if !opened {
            leave(NO_FILE);
        }
    }
    for index in 0..WRITTEN_PAGES {
        let at = index * PAGE;
        // SAFETY: the caller's memory has a page, and every value is a byte.
        unsafe { page.write_bytes(file_byte(at), PAGE as usize) };
        // SAFETY: that page was just written.
        let written = unsafe { libc::pwrite(both, page.cast(), PAGE as usize, at.cast_signed()) };
        if written.cast_unsigned() as u64 != PAGE {
            leave(NO_FILE);
        }
    }
}
