#![doc = include_str!("../README.md")]
#![no_std]
#![warn(clippy::as_conversions, clippy::cast_possible_truncation)]

#[cfg(test)]
extern crate std;

pub mod dump;
pub mod either;
pub mod format;
pub mod policy;
pub mod radix;
pub mod walker;
#[cfg(feature = "x86_64-0_15")]
pub mod x86_64;

pub use either::{Either, RiscVAny, X86Any};
pub use format::{AArch64, Flat, Flattened, LoongArch64, RiscV, Sv32, X86, X86_64, X86Pae};
pub use format::{Format, Level};
pub use policy::{Policy, WriteXorExecute};
pub use radix::Radix;
pub use walker::{Corrupt, Flaw, Item, WalkError, Walker};

/// The most levels that a format has.
pub const MAX_DEPTH: usize = 5;
