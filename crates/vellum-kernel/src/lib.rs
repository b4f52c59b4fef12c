#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod ram;
pub mod start_info;

pub use start_info::{BootInfo, Extent, PhysicalBytes, Region, RegionKind, StartInfoError};
