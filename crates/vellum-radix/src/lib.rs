#![doc = include_str!("../README.md")]
#![no_std]
#![warn(clippy::as_conversions, clippy::cast_possible_truncation)]

#[cfg(test)]
extern crate std;

pub mod format;
pub mod radix;

pub use format::{Flat, Format, Level, X86_64};
pub use radix::Radix;
