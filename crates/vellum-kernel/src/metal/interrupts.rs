//! Descriptor tables, the 256 entry stubs, and the one function that they all end in.
//!
//! ```text
//!   vector n --> stub n        push 0 unless the CPU pushed an error code; push n
//!            --> trap_entry    push 15 registers, align rsp
//!            --> trap(&mut TrapFrame)
//!                  14, #PF        demand window? map it and retry
//!                  in a probe     land behind the probe, with the trap as its answer
//!                  anything else  print and end the machine
//!
//!   stack of a TrapFrame:   r15 ... rax | vector | error | rip cs rflags rsp ss
//! ```
//!
//! # Invariants
//!
//! - Interrupts are off in every handler (interrupt gates), and nothing turns them on yet.
//! - A double fault runs on a stack of its own (IST 1), so that it survives a stack overflow.
//! - The kernel uses no SSE (soft-float target): stubs save general registers only.
//!
//! Source: Intel SDM vol. 3A, 7.12 "Exception and interrupt handling", 7.14 "Exception and
//! interrupt handling in 64-bit mode".

use super::{image, machine, paging, probe, stop};
use core::arch::global_asm;
use core::fmt;
use spin::Once;
use vellum_core::VirtAddr;
use x86_64::PrivilegeLevel;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::registers::control::Cr2;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::{EntryOptions, InterruptDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

/// The stack of the double fault in the TSS; the CPU counts from 1, the crate from 0.
const FAULT_STACK: u16 = 0;

/// Vectors with names here.
pub(crate) mod vector {
    /// #UD.
    pub(crate) const INVALID_OPCODE: u8 = 6;
    /// #DF.
    pub(crate) const DOUBLE_FAULT: u8 = 8;
    /// #GP.
    pub(crate) const GENERAL_PROTECTION: u8 = 13;
    /// #PF.
    pub(crate) const PAGE_FAULT: u8 = 14;
}

/// Bits of a page fault's error code.
pub(crate) mod page_fault {
    /// The page was present: rights were missing.
    pub(crate) const PRESENT: u64 = 1 << 0;
    /// The access was a write.
    pub(crate) const WRITE: u64 = 1 << 1;
    /// The access came from ring 3.
    pub(crate) const USER: u64 = 1 << 2;
    /// The access was an instruction fetch.
    pub(crate) const FETCH: u64 = 1 << 4;
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
    cs: u64,
    rflags: u64,
    pub(super) rsp: u64,
    ss: u64,
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

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vector, error, address, rip } = self;
        write!(f, "vector {vector}, error {error:#x}, rip {rip:#x}, cr2 {address}")
    }
}

impl core::error::Error for Trap {}

static GDT: Once<(GlobalDescriptorTable, [SegmentSelector; 3])> = Once::new();
static TSS: Once<TaskStateSegment> = Once::new();
static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Loads the descriptor tables of this CPU.
pub(crate) fn init() {
    machine::mask_legacy_interrupts();

    let tss = TSS.call_once(|| {
        let mut tss = TaskStateSegment::new();
        let top = image::fault_stack_top().as_u64();
        tss.interrupt_stack_table[usize::from(FAULT_STACK)] = x86_64::VirtAddr::new_truncate(top);
        tss
    });
    let (gdt, [code, data, task]) = GDT.call_once(|| {
        // The order is what SYSCALL and SYSRET ask for: user data stands before user code.
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        gdt.append(Descriptor::user_data_segment());
        gdt.append(Descriptor::user_code_segment());
        let task = gdt.append(Descriptor::tss_segment(tss));
        (gdt, [code, data, task])
    });
    gdt.load();
    // SAFETY: the selectors are those of the table just loaded: a ring 0 code segment, a data
    // segment that may be written, and an available TSS, used by this CPU only.
    unsafe {
        CS::set_reg(*code);
        SS::set_reg(*data);
        DS::set_reg(*data);
        ES::set_reg(*data);
        load_tss(*task);
    }
    IDT.call_once(descriptors).load();
}

/// An interrupt gate for each of the 256 stubs.
fn descriptors() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    /// Sets the gate of each named exception to the stub of its vector.
    macro_rules! exceptions {
        ($($name:ident = $vector:literal),* $(,)?) => {
            $(
                // SAFETY: the stub of this vector, which leaves by IRETQ with the stack as found.
                let _: &mut EntryOptions = unsafe { idt.$name.set_handler_addr(stub($vector)) };
            )*
        };
    }
    exceptions!(
        divide_error = 0,
        debug = 1,
        non_maskable_interrupt = 2,
        breakpoint = 3,
        overflow = 4,
        bound_range_exceeded = 5,
        invalid_opcode = 6,
        device_not_available = 7,
        invalid_tss = 10,
        segment_not_present = 11,
        stack_segment_fault = 12,
        general_protection_fault = 13,
        page_fault = 14,
        x87_floating_point = 16,
        alignment_check = 17,
        machine_check = 18,
        simd_floating_point = 19,
        virtualization = 20,
        cp_protection_exception = 21,
        hv_injection_exception = 28,
        vmm_communication_exception = 29,
        security_exception = 30,
    );
    // SAFETY: as above; the stack that IST 1 names is mapped, and nothing else uses it.
    unsafe { idt.double_fault.set_handler_addr(stub(8)).set_stack_index(FAULT_STACK) };
    for vector in 32..=255_u8 {
        // SAFETY: as above.
        let gate = unsafe { idt[vector].set_handler_addr(stub(vector)) };
        gate.set_privilege_level(PrivilegeLevel::Ring0);
    }
    idt
}

/// Where the stub of `vector` starts.
fn stub(vector: u8) -> x86_64::VirtAddr {
    unsafe extern "C" {
        static trap_stubs: u8;
    }
    let first = (&raw const trap_stubs).addr() as u64;
    x86_64::VirtAddr::new_truncate(first + u64::from(vector) * 16)
}

/// Every exception and interrupt ends here.
extern "sysv64" fn trap(frame: &mut TrapFrame) {
    let trap = Trap {
        vector: frame.vector as u8,
        error: frame.error,
        address: VirtAddr::new(Cr2::read_raw()),
        rip: frame.rip,
    };
    if trap.vector == vector::PAGE_FAULT && paging::resolve(&trap).is_ok() {
        return;
    }
    if probe::land(frame, trap) {
        return;
    }
    stop(format_args!("trap: {trap}\n{frame:#x?}"));
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
    trap = sym trap,
);
