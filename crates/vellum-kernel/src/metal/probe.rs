//! Code that is expected to trap: run it, and get the trap as a value.
//!
//! ```text
//!   load(va) --> probe_call: save rsp in PROBE, call the code
//!                   |  it returns: Ok(rax)
//!                   |  it traps:   trap() -> land(): rsp = PROBE, rip = behind the call
//!                   v
//!                Result<u64, Trap>
//! ```
//!
//! What is called is a leaf routine in assembly, or the address under test itself: no Rust frame
//! is ever jumped over.
//!
//! # Invariants
//!
//! - `PROBE` is zero outside a probe; a trap then is nobody's and ends the machine.
//! - A demand fault inside a probe is resolved as anywhere else, and the probe does not see it.

use super::interrupts::{Trap, TrapFrame};
use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::Mutex;
use vellum_core::VirtAddr;

/// The stack pointer to land with, or 0.
static PROBE: AtomicU64 = AtomicU64::new(0);

/// The trap that the probe under way met.
static MET: Mutex<Option<Trap>> = Mutex::new(None);

/// What `probe_call` returns in rax and rdx.
#[repr(C)]
struct Answer {
    value: u64,
    trapped: u64,
}

unsafe extern "sysv64" {
    fn probe_call(code: u64, a: u64, b: u64) -> Answer;
    static probe_landing: u8;
    static probe_load: u8;
    static probe_store: u8;
    static probe_recurse: u8;
    static probe_undefined: u8;
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

/// Runs one routine under the probe.
///
/// # Safety
///
/// `code` keeps the sysv64 convention if it returns, and what it does with `a` and `b` is sound.
unsafe fn run(code: u64, a: u64, b: u64) -> Result<u64, Trap> {
    // SAFETY: the caller's promise for `code`; `probe_call` saves what the convention keeps, and
    // both ways out restore it.
    let answer = unsafe { probe_call(code, a, b) };
    match MET.lock().take() {
        Some(trap) if answer.trapped != 0 => Err(trap),
        _ => Ok(answer.value),
    }
}

/// Sends a trap inside a probe to the probe's end; false when no probe is under way.
pub(super) fn land(frame: &mut TrapFrame, trap: Trap) -> bool {
    let rsp = PROBE.swap(0, Ordering::Relaxed);
    if rsp == 0 {
        return false;
    }
    *MET.lock() = Some(trap);
    frame.rsp = rsp;
    frame.rip = (&raw const probe_landing).addr() as u64;
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
    sub rsp, 8
    mov [rip + {probe}], rsp
    mov rax, rdi
    mov rdi, rsi
    mov rsi, rdx
    call rax
    xor edx, edx
probe_landing:
    mov qword ptr [rip + {probe}], 0
    add rsp, 8
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
    .popsection
    "#,
    probe = sym PROBE,
);
