#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

pub mod chained;
pub mod clustered;
pub mod cuckoo;
mod directory;
pub mod htab;
pub mod line;
pub mod line8;
#[cfg(test)]
mod testing;
pub mod tsb;

pub use chained::Chained;
pub use clustered::{Clustered, Clustered6, Clustered16};
pub use cuckoo::Cuckoo;
pub use htab::Htab;
pub use line8::Line8;
pub use tsb::{Tsb, TsbBuffer};
pub use vellum_global::{Asid, AsidError, Space};
