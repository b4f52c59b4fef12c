//! Code that is expected to trap: run it, and get the trap as a value.
//!
//! ```text
//!   load(va) --> probe_call: save rsp in this CPU's PROBE, call the code
//!                   |  it returns: Ok(rax)
//!                   |  it traps:   trap() -> land(): rsp = PROBE, rip = behind the call
//!                   v
//!                Result<u64, Trap>
//!
//!   user(code, arg) --> probe_call --> IRETQ to ring 3 --> code ... until it traps --> land()
//! ```
//!
//! What is called is a leaf routine in assembly, or the address under test itself: no Rust frame
//! is ever jumped over.
//!
//! # Invariants
//!
//! - A CPU's `PROBE` is zero outside a probe; a trap then is nobody's and ends the machine.
//! - A demand fault inside a probe is resolved as anywhere else, and the probe does not see it.
//! - Interrupts between CPUs are handled inside a probe as anywhere else. In ring 3 they are off.

use super::descriptors::{self, CPUS};
use super::interrupts::{Trap, TrapFrame};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;
use vellum_core::VirtAddr;

/// Each CPU's stack pointer to land with, or 0.
static PROBE: [AtomicU64; CPUS] = [const { AtomicU64::new(0) }; CPUS];

/// The trap that each CPU's last probe met, and rax at that moment.
static MET: [Mutex<Option<(Trap, u64)>>; CPUS] = [const { Mutex::new(None) }; CPUS];

/// EFLAGS with nothing set but the bit that always is.
const PLAIN_FLAGS: u64 = 1 << 1;

/// What `probe_call` returns in rax and rdx.
#[repr(C)]
struct Answer {
    value: u64,
    trapped: u64,
}

unsafe extern "sysv64" {
    fn probe_call(code: u64, a: u64, b: u64, slot: *const AtomicU64) -> Answer;
    static probe_landing: u8;
    static probe_load: u8;
    static probe_store: u8;
    static probe_recurse: u8;
    static probe_undefined: u8;
    static probe_user: u8;
}

/// Reads 8 bytes at `va`.
pub(crate) fn load(va: VirtAddr) -> Result<u64, Trap> {
    // SAFETY: reading changes nothing; whatever lies at `va` is RAM or nothing in this image,
    // and a trap is caught.
    unsafe { run((&raw const probe_load).addr() as u64, va.as_u64(), 0) }
}

/// Writes 8 bytes at `va`.
///
/// # Safety
///
/// Nothing relies on the 8 bytes there, or the write is known to trap.
pub(crate) unsafe fn store(va: VirtAddr, value: u64) -> Result<(), Trap> {
    let code = (&raw const probe_store).addr() as u64;
    // SAFETY: the caller's promise.
    unsafe { run(code, va.as_u64(), value) }.map(|_| ())
}

/// Calls the code at `va`.
///
/// # Safety
///
/// What lies there keeps to the sysv64 convention (a lone `ret` does), or the call is known to
/// trap.
pub(crate) unsafe fn execute(va: VirtAddr) -> Result<(), Trap> {
    // SAFETY: the caller's promise.
    unsafe { run(va.as_u64(), 0, 0) }.map(|_| ())
}

/// Moves the stack pointer to `stack` and pushes there without end.
///
/// # Safety
///
/// The first push below `stack` traps, and so does the delivery of that trap on this stack.
pub(crate) unsafe fn overflow(stack: VirtAddr) -> Result<(), Trap> {
    let code = (&raw const probe_recurse).addr() as u64;
    // SAFETY: the caller's promise: nothing is written.
    unsafe { run(code, stack.as_u64(), 0) }.map(|_| ())
}

/// Executes UD2.
pub(crate) fn undefined_instruction() -> Result<(), Trap> {
    // SAFETY: a routine in this file that does nothing but trap.
    unsafe { run((&raw const probe_undefined).addr() as u64, 0, 0) }.map(|_| ())
}

/// Runs the code at `code` in ring 3, with `argument` in rdi and no stack, until it traps; returns
/// the trap, and what was in rax then.
///
/// # Safety
///
/// Whatever the code can do in ring 3 is sound; interrupts are off meanwhile, so it has to trap soon.
/// On the first CPU, the one with a stack for this.
pub(crate) unsafe fn user(code: VirtAddr, argument: VirtAddr) -> (Trap, u64) {
    let routine = (&raw const probe_user).addr() as u64;
    loop {
        // SAFETY: the caller's promise; the routine leaves for ring 3, and only a trap comes back.
        let met = unsafe { call(routine, code.as_u64(), argument.as_u64()) };
        if let Err(met) = met {
            return met;
        }
    }
}

/// Runs one routine under the probe.
///
/// # Safety
///
/// `code` keeps the sysv64 convention if it returns, and what it does with `a` and `b` is sound.
unsafe fn run(code: u64, a: u64, b: u64) -> Result<u64, Trap> {
    // SAFETY: the caller's promise.
    unsafe { call(code, a, b) }.map_err(|(trap, _)| trap)
}

/// # Safety
///
/// As for [`run`].
unsafe fn call(code: u64, a: u64, b: u64) -> Result<u64, (Trap, u64)> {
    let own = descriptors::number();
    // SAFETY: the caller's promise for `code`; `probe_call` saves what the convention keeps, and
    // both ways out restore it.
    let answer = unsafe { probe_call(code, a, b, &raw const PROBE[own]) };
    match MET[own].lock().take() {
        Some(met) if answer.trapped != 0 => Err(met),
        _ => Ok(answer.value),
    }
}

/// Sends a trap inside a probe to the probe's end; false when no probe is under way.
pub(super) fn land(frame: &mut TrapFrame, trap: Trap) -> bool {
    let own = descriptors::number();
    let rsp = PROBE[own].swap(0, Ordering::Relaxed);
    if rsp == 0 {
        return false;
    }
    *MET[own].lock() = Some((trap, frame.rax));
    frame.rsp = rsp;
    frame.rip = (&raw const probe_landing).addr() as u64;
    frame.cs = descriptors::KERNEL_CODE;
    frame.ss = descriptors::KERNEL_DATA;
    // The probe brings back the flags that it found.
    frame.rflags = PLAIN_FLAGS;
    frame.rax = 0;
    frame.rdx = 1;
    true
}

global_asm!(
    r#"
    .pushsection .text.probe, "ax", @progbits
probe_call:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    push rcx                        # twice: for the alignment
    push rcx
    mov [rcx], rsp
    mov rax, rdi
    mov rdi, rsi
    mov rsi, rdx
    call rax
    xor edx, edx
probe_landing:
    pop rcx
    mov qword ptr [rcx], 0
    pop rcx
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret

probe_load:
    mov rax, [rdi]
    ret

probe_store:
    mov [rdi], rsi
    ret

probe_recurse:
    mov rsp, rdi
1:  push rax
    jmp 1b

probe_undefined:
    ud2

probe_user:
    push {user_data}
    push 0                          # no stack
    push {flags}
    push {user_code}
    push rdi
    mov rdi, rsi
    iretq
    .popsection
    "#,
    user_data = const descriptors::USER_DATA,
    user_code = const descriptors::USER_CODE,
    flags = const PLAIN_FLAGS,
);
