//! The first serial port, and the `print!` and `println!` that write to it.
//!
//! ```text
//!   println!  -->  Console (spin lock)  -->  Uart16550 at 0x3f8, 115200 8N1
//! ```
//!
//! # Invariants
//!
//! - Output never blocks for good: a port that takes no byte loses it after a bounded wait.
//! - The panic path breaks the lock ([`force_unlock`]), for a panic may come from within a print.

use core::fmt::{self, Write};
use spin::Mutex;
use uart_16550::{Config, Uart16550, backend::PioBackend};

/// The base port of COM1.
const COM1: u16 = 0x3f8;

/// How often the port is asked before a byte is given up.
const PATIENCE: u32 = 1 << 20;

static CONSOLE: Mutex<Option<Console>> = Mutex::new(None);

struct Console(Uart16550<PioBackend>);

impl Write for Console {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let mut left = s.as_bytes();
        let mut tries = 0;
        while !left.is_empty() && tries < PATIENCE {
            let sent = self.0.send_bytes(left);
            left = left.get(sent..).unwrap_or_default();
            tries = if sent == 0 { tries + 1 } else { 0 };
        }
        Ok(())
    }
}

/// Takes the port into use. Without a port, everything printed is lost.
pub(crate) fn init() {
    // SAFETY: COM1 is where every PC has its first serial port, and nothing else in this image
    // touches these eight ports.
    let port = unsafe { Uart16550::new_port(COM1) };
    if let Ok(mut uart) = port
        && uart.init(Config::default()).is_ok()
    {
        *CONSOLE.lock() = Some(Console(uart));
    }
}

/// Writes to the port; what `print!` calls.
pub(crate) fn write(text: fmt::Arguments<'_>) {
    if let Some(console) = CONSOLE.lock().as_mut() {
        // `write_str` above never fails, and a failing `Display` has nobody to tell.
        let _ = console.write_fmt(text);
    }
}

/// Opens the lock for whoever is about to end the machine.
///
/// # Safety
///
/// Nobody else runs any more: interrupts are off, and the interrupted holder never goes on.
pub(crate) unsafe fn force_unlock() {
    // SAFETY: the caller's promise: the holder, if any, never touches the port again.
    unsafe { CONSOLE.force_unlock() };
}

/// Prints to the serial port.
macro_rules! print {
    ($($arg:tt)*) => {
        $crate::metal::console::write(format_args!($($arg)*))
    };
}

/// Prints to the serial port, and ends the line.
macro_rules! println {
    () => { $crate::metal::console::print!("\n") };
    ($($arg:tt)*) => {
        $crate::metal::console::print!("{}\n", format_args!($($arg)*))
    };
}

pub(crate) use {print, println};
