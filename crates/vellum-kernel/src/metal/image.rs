//! The parts of the image, as linker.ld lays them out.
//!
//! ```text
//!   physical  image_physical_start ...................................... image_physical_end
//!             | .boot |  .text  | .rodata | .data .bss |g| stack |g| stack |g| ...
//!   virtual   (none)     R X       R         R W          R W       R W
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
    static entry_stack_guard: u8;
    static entry_stack_start: u8;
    static entry_stack_end: u8;
    static fault_stack_guard: u8;
    static fault_stack_start: u8;
    static fault_stack_end: u8;
    static second_stack_guard: u8;
    static second_stack_start: u8;
    static second_stack_end: u8;
    static second_fault_stack_guard: u8;
    static second_fault_stack_start: u8;
    static second_fault_stack_end: u8;
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

/// The part between two of the linker's symbols.
macro_rules! part {
    ($name:literal, $start:ident, $end:ident, $rights:ident) => {
        Part::new($name, &raw const $start..&raw const $end, Rights::$rights)
    };
}

/// Every part that the kernel's own tables map.
pub(crate) fn parts() -> [Part; 8] {
    [
        part!("text", text_start, text_end, Execute),
        part!("rodata", rodata_start, rodata_end, Read),
        part!("data", data_start, data_end, Write),
        part!("boot stack", boot_stack_start, boot_stack_end, Write),
        part!("entry stack", entry_stack_start, entry_stack_end, Write),
        part!("fault stack", fault_stack_start, fault_stack_end, Write),
        part!("second stack", second_stack_start, second_stack_end, Write),
        part!("second fault stack", second_fault_stack_start, second_fault_stack_end, Write),
    ]
}

/// The page below each stack, that of the boot stack first: an overflow meets it.
pub(crate) fn guards() -> [VirtAddr; 5] {
    [
        &raw const boot_stack_guard,
        &raw const entry_stack_guard,
        &raw const fault_stack_guard,
        &raw const second_stack_guard,
        &raw const second_fault_stack_guard,
    ]
    .map(|guard| VirtAddr::new(guard.addr() as u64))
}

/// Where the stack of double faults of CPU `number` begins, growing down.
pub(crate) fn fault_stack_top(number: usize) -> VirtAddr {
    let end = match number {
        0 => &raw const fault_stack_end,
        _ => &raw const second_fault_stack_end,
    };
    VirtAddr::new(end.addr() as u64)
}

/// Where the stack of traps from ring 3 begins, growing down. The first CPU alone goes there.
pub(crate) fn entry_stack_top() -> VirtAddr {
    VirtAddr::new((&raw const entry_stack_end).addr() as u64)
}

/// Where the second CPU's stack lies.
pub(crate) fn second_stack() -> Range<u64> {
    let range = [&raw const second_stack_start, &raw const second_stack_end];
    let [start, end] = range.map(|end| end.addr() as u64);
    start..end
}

/// The image's bytes in memory, the boot stub included: first byte, and length.
pub(crate) fn physical_extent() -> (PhysAddr, u64) {
    let start = (&raw const image_physical_start).addr() as u64;
    let end = (&raw const image_physical_end).addr() as u64;
    (PhysAddr::new(start), end - start)
}
