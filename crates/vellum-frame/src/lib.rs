#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

mod access;
mod allocator;
mod bits;
mod bulk;
mod cache;
mod checked;
mod error;
mod exclusive;
pub mod fits;
mod hand;
mod hint;
mod init;
mod level;
mod moves;
mod percpu;
mod range;
mod regions;
mod runs;
pub mod scrub;
mod shape;
pub mod slab;
mod stats;
#[cfg(not(loom))]
mod sync;
#[cfg(loom)]
#[doc(hidden)]
pub mod sync;
pub mod table;
mod tree;
mod word;
#[cfg(feature = "x86_64-0_15")]
mod x86_64;
pub mod zones;

#[cfg(test)]
#[cfg(loom)]
mod interleavings;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(feature = "x86_64-0_15")]
pub use self::x86_64::X86Frames;
pub use allocator::{FrameAllocator, MAX_ORDER};
pub use cache::Cache;
pub use checked::CheckedSource;
pub use error::{AllocAtError, AllocRunError, FreeError, InitError};
pub use exclusive::Exclusive;
pub use percpu::{Local, Shared};
pub use range::PhysRange;
pub use runs::FreeRuns;
pub use shape::storage_words;
pub use stats::Stats;
