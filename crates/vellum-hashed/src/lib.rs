#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

pub mod chained;
mod directory;
pub mod line;

pub use chained::Chained;
pub use vellum_global::{Asid, AsidError, Space};
