//! The local APIC: which CPU this is on the bus, and interrupts from one CPU to another.
//!
//! ```text
//!   IA32_APIC_BASE --> page of registers, mapped uncached below the demand window
//!
//!   020 ID        31:24 this CPU's                 0b0 EOI   written at the end of a handler
//!   0f0 spurious  8 on; 7:0 its vector             300, 310  the command to send: low half sends
//! ```
//!
//! xAPIC only: with the x2APIC turned on by firmware there is no page, and no second CPU.
//!
//! # Invariants
//!
//! - A command's two halves are written with interrupts off: no handler sends between them.
//!
//! Source: Intel SDM vol. 3A, 12.4 "Local APIC", 12.6.1 "Interrupt Command Register", 12.9 "Spurious
//! Interrupt"; 10.4.4.1 "Typical BSP Initialization Sequence" for INIT and SIPI.

use super::interrupts::vector;
use super::paging::{self, Space};
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Attr, MemoryType, PAGE_SIZE, PhysAddr, RangeError, Run, VirtAddr};
use x86_64::instructions::interrupts::without_interrupts;
use x86_64::registers::model_specific::Msr;

const APIC_BASE: u32 = 0x1b;
const X2APIC_ON: u64 = 1 << 10;
const APIC_ON: u64 = 1 << 11;
const BASE: u64 = 0x000f_ffff_ffff_f000;

const ID: u64 = 0x20;
const END_OF_INTERRUPT: u64 = 0xb0;
const SPURIOUS: u64 = 0xf0;
const SOFTWARE_ON: u32 = 1 << 8;
const COMMAND: u64 = 0x300;
const COMMAND_TO: u64 = 0x310;

const NMI: u32 = 0b100 << 8;
const INIT: u32 = 0b101 << 8;
const START: u32 = 0b110 << 8;
const PENDING: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const ALL_OTHERS: u32 = 0b11 << 18;

/// Where the registers are mapped; 0 while they are not.
static REGISTERS: AtomicU64 = AtomicU64::new(0);

/// Maps the registers, for all CPUs. False where there is no such page.
pub(crate) fn map(space: &Space) -> Result<bool, RangeError> {
    let base = base();
    if base & (APIC_ON | X2APIC_ON) != APIC_ON {
        return Ok(false);
    }
    let attr = (Attr::RW | Attr::GLOBAL).with_memory(MemoryType::Uncached);
    let page = VirtAddr::new(paging::window().as_u64() - PAGE_SIZE);
    space.map(Run::new(page, PhysAddr::new(base & BASE), PAGE_SIZE, attr))?;
    REGISTERS.store(page.as_u64(), Ordering::Relaxed);
    Ok(true)
}

/// Has this CPU's APIC deliver interrupts, and returns its number on the bus. After [`map`].
pub(crate) fn enable() -> u8 {
    write(SPURIOUS, SOFTWARE_ON | u32::from(vector::SPURIOUS));
    read(ID).to_le_bytes()[3]
}

/// Lets the next interrupt through.
pub(crate) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Sends an interrupt to the CPU with this number on the bus.
pub(crate) fn send(to: u8, vector: u8) {
    command(to, ASSERT | u32::from(vector));
}

/// Resets all other CPUs: they wait for [`start_others`].
pub(crate) fn reset_others() {
    command(0, ALL_OTHERS | ASSERT | INIT);
}

/// Starts all other CPUs, that were reset, in 16-bit mode at the frame of this number.
pub(crate) fn start_others(frame: u8) {
    command(0, ALL_OTHERS | ASSERT | START | u32::from(frame));
}

/// Interrupts all other CPUs, whatever they do. Harmless before [`map`].
pub(crate) fn stop_others() {
    command(0, ALL_OTHERS | ASSERT | NMI);
}

fn base() -> u64 {
    // SAFETY: every CPU with 64-bit mode has the register, and reading it has no effect.
    unsafe { Msr::new(APIC_BASE).read() }
}

fn command(to: u8, low: u32) {
    without_interrupts(|| {
        // Stores to uncached memory are in order, and come after all that precede them.
        write(COMMAND_TO, u32::from(to) << 24);
        write(COMMAND, low);
        while read(COMMAND) & PENDING != 0 {
            core::hint::spin_loop();
        }
    });
}

fn register(offset: u64) -> Option<*mut u32> {
    let page = REGISTERS.load(Ordering::Relaxed);
    // The page is no Rust allocation: its provenance is the machine's.
    (page != 0).then(|| ptr::with_exposed_provenance_mut((page + offset) as usize))
}

fn read(offset: u64) -> u32 {
    // SAFETY: `register` gives an address in the page that `map` mapped and nobody unmaps; those
    // read here are registers of 32 bits, and reading them has no effect.
    register(offset).map_or(0, |register| unsafe { register.read_volatile() })
}

fn write(offset: u64, value: u32) {
    if let Some(register) = register(offset) {
        // SAFETY: as for `read`; what is written is one of the commands above.
        unsafe { register.write_volatile(value) };
    }
}
