#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

mod area;
mod device;
pub mod header;
#[cfg(any(test, feature = "std"))]
pub mod host;
pub mod slots;
mod tag;

pub use area::{Area, AreaUsage, LoadError, OpenError, Options, StoreError, format, read_header};
pub use device::{BlockDevice, DeviceError};
