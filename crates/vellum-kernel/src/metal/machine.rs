//! The machine's small things: its end, its clock, and the CPU that this runs on.
//!
//! ```text
//!   exit(code)        QEMU's isa-debug-exit: process status = (code << 1) | 1
//!   time_stamp()      RDTSC
//!   cpu()             vellum-x86's door to this CPU, with the features found at the start
//!   levels()          CR4.LA57: 5, else 4
//!   microseconds(n)   a wait, by writes to port 80H
//!   ...               the 8259s, ending together
//! ```
//!
//! # Invariants
//!
//! - Both CPUs have the same features: a second one that has others is left halted.
//!
//! Sources: QEMU `hw/misc/debugexit.c`; Intel SDM vol. 3A, 10.4.4 (the waits of a start).

use super::interrupts;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Once;
use vellum_x86::{Cpu, Feature, Features, Pat, controls};
use x86_64::instructions::{hlt, port::Port};
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
    halt()
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

/// What the CPUs have.
pub(crate) fn features() -> &'static Features {
    static FEATURES: Once<Features> = Once::new();
    FEATURES.call_once(Features::read)
}

/// The CPU that this runs on. Not to be kept over a wait.
pub(crate) fn cpu() -> Cpu {
    // SAFETY: the image runs in ring 0 and 64-bit mode, no code of it migrates, and handlers write
    // none of the control registers; both CPUs have the same features. Without the microcode's
    // revision, those with the erratum do without PCIDs.
    unsafe { Cpu::known(*features(), None) }
}

/// Turns on all that protects, on this CPU, with our memory types; returns what is on.
pub(crate) fn protect() -> Feature {
    let cpu = cpu();
    // SAFETY: the kernel's tables are loaded: the kernel writes nothing that is read-only there, its
    // code, stacks and data are on pages of its own, and there is one set of global mappings.
    let on = unsafe { cpu.enable(controls::SWITCHABLE) };
    if on.contains(Feature::SMAP) {
        interrupts::close_user_pages();
    }
    // SAFETY: each CPU does this as it comes to the kernel's tables, and what is mapped until the
    // last has done so is write-back or uncached, which stay what they are.
    unsafe { cpu.set_pat(Pat::VELLUM) };
    on
}

/// Waits for about that many microseconds: a write to port 80H takes one on the bus where a PC keeps
/// it, and QEMU gives other CPUs their turn.
pub(crate) fn microseconds(count: u32) {
    for _ in 0..count {
        // SAFETY: the port shows progress codes of the firmware, and has no other effect.
        unsafe { Port::new(0x80).write(0_u8) };
        core::hint::spin_loop();
    }
}

/// Whether a CPU is ending the machine.
static STOPPING: AtomicBool = AtomicBool::new(false);

/// Notes that this CPU ends the machine; true for the first that does.
pub(crate) fn begin_stop() -> bool {
    !STOPPING.swap(true, Ordering::Relaxed)
}

/// Whether a CPU is ending the machine.
pub(crate) fn is_stopping() -> bool {
    STOPPING.load(Ordering::Relaxed)
}

/// Does nothing more on this CPU.
pub(crate) fn halt() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        hlt();
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
