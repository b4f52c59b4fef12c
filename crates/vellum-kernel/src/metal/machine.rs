//! The few instructions that no crate gives us, each in one function.
//!
//! ```text
//!   exit(code)        QEMU's isa-debug-exit: process status = (code << 1) | 1
//!   time_stamp()      RDTSC
//!   levels()          CR4.LA57: 5, else 4
//!   ...               CPUID, CR4.PGE, the 8259s
//!   flush_page(va)    INVLPG
//!   flush_all()       CR3 reload; for global entries too by CR4.PGE off and on
//! ```
//!
//! Sources: QEMU `hw/misc/debugexit.c`; Intel SDM vol. 3A, 5.10.4.1 "Operations that invalidate
//! TLBs and paging-structure caches".

use core::arch::asm;
use core::arch::x86_64::__cpuid;
use x86_64::instructions::{hlt, port::Port, tlb};
use x86_64::registers::control::{Cr4, Cr4Flags};

/// What the image tells the machine at its end; the process status of QEMU is `code << 1 | 1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum ExitCode {
    /// Everything passed: status 33.
    Success = 0x10,
    /// A test failed: status 35.
    TestsFailed = 0x11,
    /// A panic or a trap that nothing expected: status 37. The boot stub leaves with 0x7f, 255.
    Panic = 0x12,
}

/// Ends the machine; where that device is missing, halts for good.
pub(crate) fn exit(code: ExitCode) -> ! {
    // SAFETY: port 0xf4 belongs to isa-debug-exit, which xtask configures; on a machine without
    // it, nothing decodes this port.
    unsafe { Port::new(0xf4).write(code as u32) };
    loop {
        hlt();
    }
}

/// The time-stamp counter.
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: every CPU with long mode has RDTSC, and CR4.TSD is clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// How many levels the MMU walks, as booted.
pub(crate) fn levels() -> u8 {
    if Cr4::read().contains(Cr4Flags::L5_PAGING) { 5 } else { 4 }
}

/// Whether the CPU has leaves of 1 GiB, and how many bits its physical addresses have.
pub(crate) fn gigabyte_leaves_and_width() -> (bool, u8) {
    let highest = __cpuid(0x8000_0000).eax;
    let gigabyte = __cpuid(0x8000_0001).edx & 1 << 26 != 0;
    let width = if highest >= 0x8000_0008 { __cpuid(0x8000_0008).eax as u8 } else { 36 };
    (gigabyte, width.clamp(32, 52))
}

/// Lets global entries outlive a change of tables, and nothing else.
pub(crate) fn enable_global_entries() {
    // SAFETY: no entry in use has the global bit yet, so no translation changes.
    unsafe { Cr4::update(|flags| flags.insert(Cr4Flags::PAGE_GLOBAL)) };
}

/// Forgets the translation of the page of `va`, and all walk caches of this space.
pub(crate) fn flush_page(va: u64) {
    // Not by x86_64's `tlb::flush`: its addresses have 48 bits, and ours may have 57.
    // SAFETY: forgetting a translation never makes an access wrong; the compiler is told that
    // memory may change, for what the translation led to may.
    unsafe { asm!("invlpg [{}]", in(reg) va, options(nostack, preserves_flags)) };
}

/// Forgets every translation, global ones included.
pub(crate) fn flush_all() {
    let flags = Cr4::read();
    if flags.contains(Cr4Flags::PAGE_GLOBAL) {
        // SAFETY: only PGE changes, off and on again: that changes no translation, it drops the
        // cached ones (SDM vol. 3A, 5.10.4.1).
        unsafe {
            Cr4::write(flags - Cr4Flags::PAGE_GLOBAL);
            Cr4::write(flags);
        }
    } else {
        tlb::flush_all();
    }
}

/// Masks both 8259 interrupt controllers: the BIOS leaves IRQ 0 open, and it arrives as vector 8,
/// which is the double fault's.
pub(crate) fn mask_legacy_interrupts() {
    for port in [0x21, 0xa1] {
        // SAFETY: these are the mask registers of the two controllers; masking is always allowed.
        unsafe { Port::new(port).write(0xff_u8) };
    }
}
