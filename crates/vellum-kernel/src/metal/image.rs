//! The parts of the image, as linker.ld lays them out.
//!
//! ```text
//!   physical  image_physical_start ..................................... image_physical_end
//!             | .boot |  .text  | .rodata | .data .bss |g| boot stack |g| fault stack |
//!   virtual   (none)     R X       R         R W           R W           R W
//!                                                      g = guard page, never mapped
//! ```
//!
//! # Invariants
//!
//! - Every part starts and ends on a page; `virtual - physical` is [`BASE`] for all of them.

use core::ops::Range;
use vellum_core::{PhysAddr, VirtAddr};

/// Upper-half address of physical address 0, as linked.
pub(crate) const BASE: u64 = 0xffff_ffff_8000_0000;

unsafe extern "C" {
    static image_physical_start: u8;
    static image_physical_end: u8;
    static text_start: u8;
    static text_end: u8;
    static rodata_start: u8;
    static rodata_end: u8;
    static data_start: u8;
    static data_end: u8;
    static boot_stack_guard: u8;
    static boot_stack_start: u8;
    static boot_stack_end: u8;
    static fault_stack_guard: u8;
    static fault_stack_start: u8;
    static fault_stack_end: u8;
}

/// What a part may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// Read.
    Read,
    /// Read and execute.
    Execute,
    /// Read and write.
    Write,
}

/// One part of the image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// Its name, for the log.
    pub(crate) name: &'static str,
    /// Its first byte.
    pub(crate) start: VirtAddr,
    /// Its length in bytes, whole pages.
    pub(crate) len_bytes: u64,
    /// What the kernel's own tables allow there.
    pub(crate) rights: Rights,
}

impl Part {
    fn new(name: &'static str, range: Range<*const u8>, rights: Rights) -> Self {
        let start = range.start.addr() as u64;
        let len_bytes = range.end.addr() as u64 - start;
        Self { name, start: VirtAddr::new(start), len_bytes, rights }
    }

    /// Where it lies in memory.
    pub(crate) fn physical(&self) -> PhysAddr {
        PhysAddr::new(self.start.as_u64() - BASE)
    }
}

/// Every part that the kernel's own tables map.
pub(crate) fn parts() -> [Part; 5] {
    [
        Part::new("text", &raw const text_start..&raw const text_end, Rights::Execute),
        Part::new("rodata", &raw const rodata_start..&raw const rodata_end, Rights::Read),
        Part::new("data", &raw const data_start..&raw const data_end, Rights::Write),
        Part::new(
            "boot stack",
            &raw const boot_stack_start..&raw const boot_stack_end,
            Rights::Write,
        ),
        Part::new(
            "fault stack",
            &raw const fault_stack_start..&raw const fault_stack_end,
            Rights::Write,
        ),
    ]
}

/// The pages below the two stacks: an overflow meets them first.
pub(crate) fn guards() -> [VirtAddr; 2] {
    [&raw const boot_stack_guard, &raw const fault_stack_guard]
        .map(|guard| VirtAddr::new(guard.addr() as u64))
}

/// The end of the stack that double faults run on.
pub(crate) fn fault_stack_top() -> VirtAddr {
    VirtAddr::new((&raw const fault_stack_end).addr() as u64)
}

/// The image's bytes in memory, the boot stub included: first byte, and length.
pub(crate) fn physical_extent() -> (PhysAddr, u64) {
    let start = (&raw const image_physical_start).addr() as u64;
    let end = (&raw const image_physical_end).addr() as u64;
    (PhysAddr::new(start), end - start)
}
