#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(any(test, loom, feature = "std"))]
extern crate std;

pub mod engine;
#[cfg(any(test, feature = "std"))]
pub mod host;
pub mod mmu;
#[cfg(loom)]
#[doc(hidden)]
pub mod modelled;
pub mod outcome;
pub mod region;
pub mod soft;
mod sync;
pub mod system;

#[cfg(test)]
#[cfg(loom)]
mod interleavings;

pub use engine::Engine;
pub use mmu::{Mmu, Rss, RssKind};
pub use outcome::{Cost, Deny, FaultError, Signal};
pub use region::{Access, Backing, Region, Rights, Sharing};
pub use soft::Marker;
pub use system::System;
pub use vellum_core::{NoSwap, Swap, SwapEntry, SwapError};
