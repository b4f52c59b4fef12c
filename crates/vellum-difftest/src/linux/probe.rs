//! Accesses that may fail: one instruction for loads and one for stores, whose addresses the
//! handler of signals knows.
//!
//! ```text
//!   load:    movzx ecx, byte [rdi]   <-- the only load that may fault
//!            mov   [rsi], cl
//!            xor   eax, eax
//!            ret
//!   failed:  mov   eax, 1            <-- where the handler sends it
//!            ret
//! ```
//!
//! The handler keeps what the kernel said, and moves the instruction pointer to `failed`. A signal
//! from any other instruction is an error of ours: the process ends by it.

use core::arch::global_asm;
use core::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};

global_asm!(
    ".pushsection .text.vellum_difftest_probe,\"ax\",@progbits",
    ".balign 16",
    ".globl vellum_difftest_load",
    ".hidden vellum_difftest_load",
    "vellum_difftest_load:",
    "    movzx ecx, byte ptr [rdi]",
    "    mov byte ptr [rsi], cl",
    "    xor eax, eax",
    "    ret",
    ".balign 16",
    ".globl vellum_difftest_store",
    ".hidden vellum_difftest_store",
    "vellum_difftest_store:",
    "    mov byte ptr [rdi], sil",
    "    xor eax, eax",
    "    ret",
    ".globl vellum_difftest_failed",
    ".hidden vellum_difftest_failed",
    "vellum_difftest_failed:",
    "    mov eax, 1",
    "    ret",
    ".popsection",
);

unsafe extern "C" {
    fn vellum_difftest_load(from: u64, to: *mut u8) -> u32;
    fn vellum_difftest_store(to: u64, value: u8) -> u32;
    fn vellum_difftest_failed();
}

static NUMBER: AtomicI32 = AtomicI32::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);

/// What the kernel said of an access.
#[derive(Clone, Copy, Debug)]
pub(super) struct Raised {
    pub(super) number: i32,
    pub(super) code: i32,
    pub(super) address: u64,
}

fn outcome(failed: u32) -> Result<(), Raised> {
    match failed {
        0 => Ok(()),
        _ => Err(Raised {
            number: NUMBER.load(Relaxed),
            code: CODE.load(Relaxed),
            address: ADDRESS.load(Relaxed),
        }),
    }
}

/// Reads a byte.
///
/// # Safety
///
/// [`install`] was called in this process, and `at` is no memory of Rust's.
pub(super) unsafe fn load(at: u64) -> Result<u8, Raised> {
    let mut byte = 0;
    // SAFETY: the function keeps to the C convention; `byte` is ours, and a fault at `at` goes to
    // the handler, which comes back.
    let failed = unsafe { vellum_difftest_load(at, &raw mut byte) };
    outcome(failed).map(|()| byte)
}

/// Writes a byte.
///
/// # Safety
///
/// As for [`load`]: above all, `at` is no memory of Rust's.
pub(super) unsafe fn store(at: u64, value: u8) -> Result<(), Raised> {
    // SAFETY: the function keeps to the C convention, and a fault comes back.
    outcome(unsafe { vellum_difftest_store(at, value) })
}

/// # Safety
///
/// Only the kernel calls it, for a signal, with SA_SIGINFO.
unsafe extern "C" fn handler(number: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel passes a context of this type, which is ours until the handler returns.
    let pc = unsafe { &raw mut (*context).uc_mcontext.gregs[libc::REG_RIP as usize] };
    // SAFETY: within that context.
    let at = unsafe { pc.read() }.cast_unsigned();
    let probes = [vellum_difftest_load as *const (), vellum_difftest_store as *const ()];
    if !probes.iter().any(|probe| probe.addr() as u64 == at) {
        // SAFETY: system calls alone. The access comes again, and then ends the process.
        unsafe { libc::signal(number, libc::SIG_DFL) };
        return;
    }
    // SAFETY: the kernel passes what it says of the signal, and for these two that has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr()) };
    NUMBER.store(number, Relaxed);
    CODE.store(code, Relaxed);
    ADDRESS.store(address.addr() as u64, Relaxed);
    let failed = vellum_difftest_failed as *const ();
    // SAFETY: within that context. The probe has pushed nothing, so that `failed` may stand for it.
    unsafe { pc.write((failed.addr() as u64).cast_signed()) };
}

/// Lets the accesses of this module fail, from now on and in children.
pub(super) fn install() {
    // SAFETY: all zeroes are a `sigaction` without flags.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_flags = libc::SA_SIGINFO;
    action.sa_sigaction = handler as *const () as usize;
    for number in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the action lives through the call, and the handler keeps to its contract.
        unsafe { libc::sigaction(number, &raw const action, core::ptr::null_mut()) };
    }
}
