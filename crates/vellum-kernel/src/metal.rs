//! The image: from [`boot`] to the exit code.
//!
//! ```text
//!   boot        PVH entry, long mode, boot tables
//!     console   serial port               interrupts  GDT, TSS, IDT, trap()
//!     memory    start info -> frames       paging      own tables, CR3, demand faults
//!     harness   TESTS, one after another   machine     exit code
//! ```
//!
//! # Invariants
//!
//! - One CPU, interrupts off. What another CPU would race for is behind a spin lock already.

mod boot;
mod console;
mod harness;
mod image;
mod interrupts;
mod machine;
mod paging;
mod probe;
mod tests;

use console::println;
use core::fmt;
use core::panic::PanicInfo;
use machine::ExitCode;

/// Runs on the boot stack, under the boot tables.
fn main(start_info: u64) -> ! {
    println!("vellum-kernel: {} levels", machine::levels());
    interrupts::init();
    stop(format_args!("{start_info:#x}"))
}

/// Says why, and ends the machine with the status of a panic.
fn stop(why: fmt::Arguments<'_>) -> ! {
    // SAFETY: one CPU, interrupts off, and this function does not return.
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
