#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod vma_map;

pub use vma_map::{PageRange, VmaMap};
