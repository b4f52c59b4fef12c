//! The image: from [`boot`] to the exit code.
//!
//! ```text
//!   boot        PVH entry, long mode, boot tables, direct map
//!     console   serial port               descriptors GDT, TSS, IDT, the CPU's number
//!     memory    start info -> frames      interrupts  stubs, trap()
//!     paging    own tables, demand faults processors  the second CPU, and its work
//!     flush     who forgets what          apic        interrupts between CPUs
//!     harness   TESTS, one by one         machine     exit code, what protects
//! ```
//!
//! # Invariants
//!
//! - Two CPUs at most. The first runs the tests, with interrupts off; the second does what it is
//!   given, with interrupts on.

mod apic;
mod boot;
mod console;
mod descriptors;
mod flush;
mod harness;
mod image;
mod interrupts;
mod machine;
mod memory;
mod paging;
mod probe;
mod processors;
mod tests;

use console::println;
use core::fmt;
use core::panic::PanicInfo;
use machine::ExitCode;
use paging::Space;
use vellum_kernel::BootInfo;

/// What there is once everything is set up.
pub(crate) struct Kernel {
    /// What the boot loader said.
    pub(crate) boot: &'static BootInfo,
    /// The kernel's address space.
    pub(crate) space: &'static Space,
}

/// Runs on the boot stack, under the boot tables.
fn main(start_info: u64) -> ! {
    println!("vellum-kernel: {} levels of page tables", machine::levels());
    machine::mask_legacy_interrupts();
    // SAFETY: this is the first CPU, and the only one that runs.
    unsafe { descriptors::init(0) };
    let boot = match memory::init(start_info) {
        Ok(boot) => boot,
        Err(e) => stop(format_args!("no memory: {e}")),
    };
    let stats = memory::FRAMES.stats();
    println!("memory: {} frames, {} free", stats.total, stats.free);
    let unreached = memory::unreached_bytes(boot);
    if unreached > 0 {
        println!("memory: {unreached:#x} bytes lie beyond the direct map and are left alone");
    }
    let space = match paging::init() {
        Ok(space) => space,
        Err(e) => stop(format_args!("no tables: {e}")),
    };
    println!("tables: {} bytes, root at {}", space.table_bytes(), space.root());

    println!("on: {:?}", machine::cpu().controls().enabled());
    println!("flushes: page by page up to {}", flush::calibrate());
    match processors::start(boot, space) {
        Ok(true) => println!("CPUs: 2"),
        Ok(false) => println!("CPUs: 1"),
        Err(e) => stop(format_args!("no second CPU: {e}")),
    }

    let kernel = Kernel { boot, space };
    let filter = boot.option("filter").unwrap_or_default();
    let passed = match boot.option("provoke") {
        None => harness::run(&kernel, tests::TESTS, filter),
        Some("failure") => harness::run(&kernel, &[("provoked", tests::failing)], ""),
        Some("panic") => harness::run(&kernel, &[("provoked", tests::panicking)], ""),
        Some("trap") => harness::run(&kernel, &[("provoked", tests::trapping)], ""),
        Some(other) => stop(format_args!("provoke={other}: know failure, panic and trap")),
    };
    println!("boot to exit: {} cycles of the time-stamp counter", boot::cycles_since_start());
    machine::exit(if passed { ExitCode::Success } else { ExitCode::TestsFailed })
}

/// Says why, and ends the machine with the status of a panic.
fn stop(why: fmt::Arguments<'_>) -> ! {
    x86_64::instructions::interrupts::disable();
    if !machine::begin_stop() {
        machine::halt();
    }
    // The other CPU halts on this; give it the time to, whatever it was writing.
    apic::stop_others();
    machine::microseconds(1000);
    // SAFETY: the other CPU has halted, interrupts are off, and this function does not return.
    unsafe { console::force_unlock() };
    println!("{why}");
    if harness::is_running() {
        harness::close();
    }
    machine::exit(ExitCode::Panic)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop(format_args!("{info}"))
}
