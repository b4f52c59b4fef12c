#![doc = include_str!("../README.md")]
#![no_std]
// Models lend an engine for ever, and have a lock of loom's.
#![cfg_attr(not(loom), forbid(unsafe_code))]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod errno;
pub mod meminfo;
pub mod rules;
pub mod space;
pub mod vma;
pub mod vma_map;

#[cfg(test)]
#[cfg(loom)]
mod interleavings;

pub use errno::Errno;
pub use meminfo::{MemInfo, Process, write_processes};
pub use rules::{Layout, Limits, Overcommit, Rules};
pub use space::{AccessError, AddressSpace, FileMap, Usage};
pub use vma::{Anon, VmFlags, Vma};
pub use vma_map::{PageRange, VmaMap};
