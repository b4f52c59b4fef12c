//! The machine that these examples run on: a buffer that plays physical memory from address 0 on.
//!
//! Not to be copied: a kernel has a direct map instead of [`direct`], and a console of its own.

use core::cell::UnsafeCell;

/// How much memory there is: 8 MiB.
pub(crate) const BYTES: u64 = 8 << 20;

#[repr(C, align(0x20_0000))]
struct Ram(UnsafeCell<[u8; BYTES as usize]>);

// SAFETY: nobody makes a reference to the bytes; who may touch which of them is the business of
// those who have the frames.
unsafe impl Sync for Ram {}

static RAM: Ram = Ram(UnsafeCell::new([0; BYTES as usize]));

/// Where physical address `pa` is mapped.
pub(crate) fn direct(pa: u64) -> *mut u8 {
    assert!(pa < BYTES, "no memory at {pa:#x}");
    RAM.0.get().cast::<u8>().wrapping_add(pa as usize)
}

/// One line about what an example did. A reader who has left is no error.
pub(crate) fn say(line: core::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}
