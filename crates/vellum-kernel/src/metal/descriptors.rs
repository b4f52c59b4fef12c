//! What each CPU has of descriptor tables, and how it knows its number.
//!
//! ```text
//!   GDT, one each   0 null | 08 code | 10 data | 18 user data | 20 user code | 28 TSS | 38 number
//!   TSS, one each   IST 1: fault stack     RSP0 (first CPU): entry stack
//!   IDT, one        256 interrupt gates to the stubs of `interrupts`
//! ```
//!
//! Segment limits are of no use in 64-bit mode, so one holds the CPU's number: LSL reads it back at
//! any time, in a trap handler too, from nothing but the CPU's own table.
//!
//! # Invariants
//!
//! - A GDT and a TSS are loaded by the CPU whose number they bear, and by no other.
//! - Interrupts are off in every handler: all gates are interrupt gates.
//!
//! Source: Intel SDM vol. 3A, 3.5.2 "Segment Descriptor Tables in IA-32e Mode", 7.14 "Exception and
//! interrupt handling in 64-bit mode", 9.7 "Task management in 64-bit mode"; vol. 2A, "LSL".

use super::{image, interrupts};
use core::arch::asm;
use spin::Once;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, SS, Segment};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable, SegmentSelector};
use x86_64::structures::idt::{EntryOptions, InterruptDescriptorTable};
use x86_64::structures::tss::TaskStateSegment;

/// How many CPUs there can be.
pub(crate) const CPUS: usize = 2;

/// Selector of the kernel's code.
pub(crate) const KERNEL_CODE: u64 = 0x08;
/// Selector of the kernel's data and stack.
pub(crate) const KERNEL_DATA: u64 = 0x10;
/// Selector of ring 3's data and stack, with its privilege level.
pub(crate) const USER_DATA: u64 = 0x18 | 3;
/// Selector of ring 3's code, with its privilege level.
pub(crate) const USER_CODE: u64 = 0x20 | 3;
/// Selector of the segment whose limit is the CPU's number.
const NUMBER: u16 = 0x38;

/// The stack of the double fault in the TSS; the CPU counts from 1, the crate from 0.
const FAULT_STACK: u16 = 0;

/// One CPU's own.
struct Tables {
    gdt: GlobalDescriptorTable,
    code: SegmentSelector,
    data: SegmentSelector,
    task: SegmentSelector,
}

static TSS: [Once<TaskStateSegment>; CPUS] = [const { Once::new() }; CPUS];
static TABLES: [Once<Tables>; CPUS] = [const { Once::new() }; CPUS];
static IDT: Once<InterruptDescriptorTable> = Once::new();

/// Loads the tables of the CPU that this runs on, which is CPU `number` from here on. False if there
/// can be no such CPU.
///
/// # Safety
///
/// No other CPU has this number.
pub(crate) unsafe fn init(number: usize) -> bool {
    let (Some(tss), Some(tables)) = (TSS.get(number), TABLES.get(number)) else {
        return false;
    };
    let tss = tss.call_once(|| task_state(number));
    let tables = tables.call_once(|| Tables::new(number, tss));
    tables.gdt.load();
    // SAFETY: the selectors are those of the table just loaded: a ring 0 code segment, a data
    // segment that may be written, and an available TSS, used by this CPU only.
    unsafe {
        CS::set_reg(tables.code);
        SS::set_reg(tables.data);
        DS::set_reg(tables.data);
        ES::set_reg(tables.data);
        load_tss(tables.task);
    }
    IDT.call_once(gates).load();
    true
}

/// The number of the CPU that this runs on; 0 before [`init`].
pub(crate) fn number() -> usize {
    let number: u64;
    // SAFETY: LSL reads a descriptor of the loaded table; of a selector that is not there it leaves
    // the register alone (SDM vol. 2A, "LSL"). Not `pure`: the CPU may be another one next time.
    unsafe {
        asm!(
            "lsl {number:e}, {selector:e}",
            number = inout(reg) 0_u64 => number,
            selector = in(reg) u32::from(NUMBER),
            options(nomem, nostack),
        );
    }
    number as usize
}

fn task_state(number: usize) -> TaskStateSegment {
    let mut tss = TaskStateSegment::new();
    let top = image::fault_stack_top(number).as_u64();
    tss.interrupt_stack_table[usize::from(FAULT_STACK)] = VirtAddr::new_truncate(top);
    if number == 0 {
        let top = image::entry_stack_top().as_u64();
        tss.privilege_stack_table[0] = VirtAddr::new_truncate(top);
    }
    tss
}

impl Tables {
    fn new(number: usize, tss: &'static TaskStateSegment) -> Self {
        // The order is what SYSCALL and SYSRET ask for: user data stands before user code.
        let mut gdt = GlobalDescriptorTable::new();
        let code = gdt.append(Descriptor::kernel_code_segment());
        let data = gdt.append(Descriptor::kernel_data_segment());
        gdt.append(Descriptor::user_data_segment());
        gdt.append(Descriptor::user_code_segment());
        let task = gdt.append(Descriptor::tss_segment(tss));
        // Present, data, read-only, ring 0; bits 15:0 are the limit, in bytes.
        gdt.append(Descriptor::UserSegment(0x0000_9000_0000_0000 | number as u64));
        Self { gdt, code, data, task }
    }
}

/// An interrupt gate for each of the 256 stubs.
fn gates() -> InterruptDescriptorTable {
    let mut idt = InterruptDescriptorTable::new();
    /// Sets the gate of each named exception to the stub of its vector.
    macro_rules! exceptions {
        ($($name:ident = $vector:literal),* $(,)?) => {
            $(
                let stub = interrupts::stub($vector);
                // SAFETY: the stub of this vector, which leaves by IRETQ with the stack as found.
                let _: &mut EntryOptions = unsafe { idt.$name.set_handler_addr(stub) };
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
    let stub = interrupts::stub(8);
    // SAFETY: as above; the stack that IST 1 names is mapped, and nothing else uses it.
    unsafe { idt.double_fault.set_handler_addr(stub).set_stack_index(FAULT_STACK) };
    for vector in 32..=255_u8 {
        // SAFETY: as above.
        unsafe { idt[vector].set_handler_addr(interrupts::stub(vector)) };
    }
    idt
}
