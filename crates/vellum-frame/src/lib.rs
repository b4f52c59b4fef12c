#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod allocator;
mod bits;
mod error;
pub mod fits;
mod hint;
mod init;
mod moves;
mod range;
mod regions;
mod runs;
mod shape;
mod table;
mod tree;

#[cfg(test)]
mod tests;

pub use allocator::{FrameAllocator, MAX_ORDER, Stats};
pub use error::{AllocAtError, FreeError, InitError};
pub use range::PhysRange;
pub use runs::FreeRuns;
pub use shape::storage_words;
pub use table::{Count, FrameTable, Put, RefCounts, RefError, Spans, TableError};
