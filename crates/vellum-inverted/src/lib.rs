#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

pub mod inverted;

pub use inverted::Inverted;
pub use vellum_global::{Asid, AsidError, Space};
