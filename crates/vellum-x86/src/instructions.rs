//! Every instruction that this crate executes, each in one function and nowhere else.
//!
//! ```text
//!   CPUID      cpuid                      MOV CRn   cr0 cr3 cr4, set_cr0 set_cr3 set_cr4
//!   RDMSR      msr                        WRMSR     set_msr
//!   INVLPG     flush_page                 INVPCID   flush_by_tag
//!   WBINVD     write_back_caches          CLI STI   without_interrupts
//!   STAC CLAC  allow_user, deny_user      PUSHF     flags
//! ```
//!
//! # Invariants
//!
//! - Whatever changes translations is a barrier to the compiler: no `nomem` on it.
//!
//! Source: Intel SDM vol. 2, each under its name; vol. 3A, 2.8 "System Instruction Summary".

use crate::cpuid::Registers;
use core::arch::asm;

/// EFLAGS.IF: interrupts are taken.
const FLAGS_IF: u64 = 1 << 9;
/// EFLAGS.AC: with SMAP, the kernel may reach user pages.
pub(crate) const FLAGS_AC: u64 = 1 << 18;

/// CPUID with these in eax and ecx.
pub(crate) fn cpuid(leaf: u32, sub: u32) -> Registers {
    #[allow(unused_unsafe, reason = "safe in newer compilers, unsafe in the oldest supported one")]
    // SAFETY: every processor with 64-bit mode has CPUID (SDM vol. 1, chapter 20); it changes
    // nothing but the registers that it returns.
    let found = unsafe { core::arch::x86_64::__cpuid_count(leaf, sub) };
    Registers { eax: found.eax, ebx: found.ebx, ecx: found.ecx, edx: found.edx }
}

/// EFLAGS.
pub(crate) fn flags() -> u64 {
    let flags: u64;
    // SAFETY: pushes and pops 8 bytes (SDM vol. 2B, "PUSHF"): the stack is as before, and without
    // `nostack` the compiler has nothing below the stack pointer.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(nomem, preserves_flags)) };
    flags
}

macro_rules! control_register {
    ($register:literal, $read:ident, $write:ident) => {
        #[doc = concat!("What is in ", $register, ".")]
        ///
        /// # Safety
        ///
        /// In ring 0.
        pub(crate) unsafe fn $read() -> u64 {
            let bits: u64;
            // SAFETY: in ring 0, by the caller; reading changes nothing (SDM vol. 2B, "MOV - Move
            // to/from Control Registers").
            unsafe {
                asm!(concat!("mov {}, ", $register), out(reg) bits, options(nomem, nostack, preserves_flags));
            }
            bits
        }

        #[doc = concat!("Writes ", $register, ".")]
        ///
        /// # Safety
        ///
        /// In ring 0; the value does not fault, and everything that the compiler relies on is
        /// mapped the same after it, with the rights that it needs.
        pub(crate) unsafe fn $write(bits: u64) {
            // SAFETY: by the caller's promise (SDM vol. 2B, "MOV - Move to/from Control Registers").
            unsafe {
                asm!(concat!("mov ", $register, ", {}"), in(reg) bits, options(nostack, preserves_flags));
            }
        }
    };
}

control_register!("cr0", cr0, set_cr0);
control_register!("cr3", cr3, set_cr3);
control_register!("cr4", cr4, set_cr4);

/// What is in a model-specific register.
///
/// # Safety
///
/// In ring 0; the register exists, and reading it has no effect.
pub(crate) unsafe fn msr(number: u32) -> u64 {
    let (high, low): (u32, u32);
    // SAFETY: by the caller's promise (SDM vol. 2B, "RDMSR").
    unsafe {
        asm!("rdmsr", in("ecx") number, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes a model-specific register.
///
/// # Safety
///
/// In ring 0; the register exists, takes the value, and what it then does is sound.
pub(crate) unsafe fn set_msr(number: u32, value: u64) {
    let [low, high] = [value, value >> 32].map(|half| half & u64::from(u32::MAX));
    // SAFETY: by the caller's promise (SDM vol. 2B, "WRMSR").
    unsafe {
        asm!("wrmsr", in("ecx") number, in("rax") low, in("rdx") high, options(nostack, preserves_flags));
    }
}

/// INVLPG.
///
/// # Safety
///
/// In ring 0.
pub(crate) unsafe fn flush_page(va: u64) {
    // SAFETY: in ring 0, by the caller. Any address is allowed, one that is not canonical does
    // nothing (SDM vol. 2A, "INVLPG"), and forgetting a translation makes no access wrong.
    unsafe { asm!("invlpg [{}]", in(reg) va, options(nostack, preserves_flags)) };
}

/// What INVPCID is to drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByTag {
    /// One address under one tag.
    Address = 0,
    /// All under one tag.
    Tag = 1,
    /// All, global ones included.
    Everything = 2,
}

/// INVPCID.
///
/// # Safety
///
/// In ring 0, on a processor that has it. The tag is 0 unless CR4.PCIDE is set, and `va` is
/// canonical.
pub(crate) unsafe fn flush_by_tag(what: ByTag, tag: u64, va: u64) {
    let descriptor: [u64; 2] = [tag, va];
    let what = match what {
        ByTag::Address => 0_u64,
        ByTag::Tag => 1,
        ByTag::Everything => 2,
    };
    // SAFETY: by the caller's promise none of its faults can happen: the descriptor's bits 63:12
    // are zero for a tag, the type is known, the address canonical (SDM vol. 2A, "INVPCID"). It
    // reads 16 bytes, which are the array's; forgetting makes no access wrong.
    unsafe {
        asm!("invpcid {}, [{}]", in(reg) what, in(reg) &raw const descriptor, options(nostack, preserves_flags));
    }
}

/// WBINVD: writes all caches back, and empties them.
///
/// # Safety
///
/// In ring 0.
pub(crate) unsafe fn write_back_caches() {
    // SAFETY: in ring 0, by the caller; nothing that was stored is lost (SDM vol. 2D, "WBINVD").
    unsafe { asm!("wbinvd", options(nostack, preserves_flags)) };
}

/// Runs `f` with interrupts off, and leaves them as they were.
///
/// # Safety
///
/// In ring 0.
pub(crate) unsafe fn without_interrupts<R>(f: impl FnOnce() -> R) -> R {
    let on = flags() & FLAGS_IF != 0;
    // SAFETY: in ring 0, by the caller; fewer interrupts are always allowed (SDM vol. 2A, "CLI").
    // Without `nomem`: what `f` touches stays between the two.
    unsafe { asm!("cli", options(nostack)) };
    let result = f();
    if on {
        // SAFETY: they were on before (SDM vol. 2B, "STI").
        unsafe { asm!("sti", options(nostack)) };
    }
    result
}

/// STAC: EFLAGS.AC, by which SMAP lets the kernel reach user pages.
///
/// # Safety
///
/// In ring 0, on a processor with SMAP.
pub(crate) unsafe fn allow_user() {
    // SAFETY: by the caller's promise it is no undefined instruction (SDM vol. 2B, "STAC"). Not
    // `preserves_flags`, which would promise that the flag stays; not `nomem`, so that no access
    // moves out in front.
    unsafe { asm!("stac", options(nostack)) };
}

/// CLAC: the end of it.
///
/// # Safety
///
/// In ring 0, on a processor with SMAP.
pub(crate) unsafe fn deny_user() {
    // SAFETY: by the caller's promise it is no undefined instruction (SDM vol. 2A, "CLAC").
    unsafe { asm!("clac", options(nostack)) };
}
