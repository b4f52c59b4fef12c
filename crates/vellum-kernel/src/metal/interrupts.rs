//! The 256 entry stubs, and the one function that they all end in.
//!
//! ```text
//!   vector n --> stub n        push 0 unless the CPU pushed an error code; push n
//!            --> trap_entry    push 15 registers, CLAC, align rsp
//!            --> trap(&mut TrapFrame)
//!                  240, 241       another CPU's: flushes to do, or work
//!                  14, #PF        demand window? map it and retry
//!                  in a probe     land behind the probe, with the trap as its answer
//!                  anything else  print and end the machine
//!
//!   stack of a TrapFrame:   r15 ... rax | vector | error | rip cs rflags rsp ss
//! ```
//!
//! # Invariants
//!
//! - Interrupts are off in every handler (interrupt gates). The first CPU never turns them on, and
//!   serves flushes while it waits; the second takes them when it is not in a handler.
//! - A double fault runs on a stack of its own (IST 1), so that it survives a stack overflow.
//! - The kernel uses no SSE (soft-float target): stubs save general registers only.
//!
//! Source: Intel SDM vol. 3A, 7.12 "Exception and interrupt handling", 7.14 "Exception and
//! interrupt handling in 64-bit mode".

use super::{apic, descriptors, flush, machine, paging, probe, stop};
use core::arch::global_asm;
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use vellum_core::VirtAddr;
use vellum_x86::ErrorCode;
use x86_64::registers::control::Cr2;
use x86_64::registers::rflags::{self, RFlags};

/// Whether stubs execute CLAC: SMAP is on, and what was interrupted may have had the right to reach
/// user pages.
static SMAP: AtomicBool = AtomicBool::new(false);

/// Vectors with names here.
pub(crate) mod vector {
    /// NMI.
    pub(crate) const NON_MASKABLE: u8 = 2;
    /// #UD.
    pub(crate) const INVALID_OPCODE: u8 = 6;
    /// #DF.
    pub(crate) const DOUBLE_FAULT: u8 = 8;
    /// #GP.
    pub(crate) const GENERAL_PROTECTION: u8 = 13;
    /// #PF.
    pub(crate) const PAGE_FAULT: u8 = 14;
    /// Another CPU has left something in this one's queue of flushes.
    pub(crate) const FLUSH: u8 = 0xf0;
    /// There is work for a CPU that halts.
    pub(crate) const WAKE: u8 = 0xf1;
    /// The local APIC's own: an interrupt that went away again.
    pub(crate) const SPURIOUS: u8 = 0xff;
}

/// What a stub leaves on the stack.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct TrapFrame {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    pub(super) rdx: u64,
    rcx: u64,
    pub(super) rax: u64,
    vector: u64,
    error: u64,
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) rflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
}

/// One trap, as a probe reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Trap {
    /// Which exception.
    pub(crate) vector: u8,
    /// Its error code, 0 where there is none.
    pub(crate) error: u64,
    /// CR2 on a page fault; else stale.
    pub(crate) address: VirtAddr,
    /// The instruction that trapped.
    pub(crate) rip: u64,
}

impl Trap {
    /// What a page fault says; `None` if it is not one.
    pub(crate) fn page_fault(&self) -> Option<ErrorCode> {
        (self.vector == vector::PAGE_FAULT).then(|| ErrorCode::decode(self.error))
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vector, error, address, rip } = self;
        write!(f, "vector {vector}, error {error:#x}, rip {rip:#x}, cr2 {address}")?;
        self.page_fault().map_or(Ok(()), |code| write!(f, ": {code}"))
    }
}

impl core::error::Error for Trap {}

/// Where the stub of `vector` starts.
pub(super) fn stub(vector: u8) -> x86_64::VirtAddr {
    unsafe extern "C" {
        static trap_stubs: u8;
    }
    let first = (&raw const trap_stubs).addr() as u64;
    x86_64::VirtAddr::new_truncate(first + u64::from(vector) * 16)
}

/// Has stubs execute CLAC from now on. For a CPU with SMAP: others do not know the instruction.
pub(crate) fn close_user_pages() {
    SMAP.store(true, Ordering::Relaxed);
}

/// Every exception and interrupt ends here.
extern "sysv64" fn trap(frame: &mut TrapFrame) {
    debug_assert!(
        !rflags::read().contains(RFlags::ALIGNMENT_CHECK) || !SMAP.load(Ordering::Relaxed),
        "a handler may reach user pages"
    );
    let trap = Trap {
        vector: frame.vector as u8,
        error: frame.error,
        address: VirtAddr::new(Cr2::read_raw()),
        rip: frame.rip,
    };
    match trap.vector {
        vector::FLUSH => {
            flush::serve();
            apic::end_of_interrupt();
            return;
        }
        vector::WAKE => return apic::end_of_interrupt(),
        vector::SPURIOUS => return,
        vector::NON_MASKABLE if machine::is_stopping() => machine::halt(),
        vector::PAGE_FAULT if paging::resolve(&trap).is_ok() => return,
        _ => {}
    }
    if probe::land(frame, trap) {
        return;
    }
    stop(format_args!("trap: {trap}\non CPU {}: {frame:#x?}", descriptors::number()));
}

global_asm!(
    r#"
    .pushsection .text.traps, "ax", @progbits
    .balign 16
trap_stubs:
    .set trap_vector, 0
    .rept 256
    .balign 16
    # The CPU itself pushes an error code for 8, 10-14, 17, 21, 29 and 30.
    .if ((trap_vector < 32) && ((0x60227d00 >> trap_vector) & 1))
    .else
    push 0
    .endif
    push trap_vector
    jmp trap_entry
    .set trap_vector, trap_vector + 1
    .endr

    .balign 16
trap_entry:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    # EFLAGS.AC comes along from what was interrupted; IRETQ brings it back.
    cmp byte ptr [rip + {smap}], 0
    je 1f
    clac
1:
    mov rdi, rsp
    mov rbx, rsp
    and rsp, -16
    call {trap}
    mov rsp, rbx
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16
    iretq
    .popsection
    "#,
    smap = sym SMAP,
    trap = sym trap,
);
