//! Devices of a host: memory, a file, and any of them with faults.

mod faulty;
mod file;
mod memory;

pub use faulty::{Faults, Faulty};
pub use file::FileDevice;
pub use memory::{Buffer, MemoryDevice};
