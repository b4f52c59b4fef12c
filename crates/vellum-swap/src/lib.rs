#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "std"))]
extern crate std;

mod area;
mod areas;
mod device;
#[cfg(test)]
mod fixtures;
pub mod header;
#[cfg(any(test, feature = "std"))]
pub mod host;
pub mod slots;
mod tag;

pub use area::{Area, AreaUsage, LoadError, OpenError, Options, StoreError, format, read_header};
pub use areas::{Areas, MOST_AREAS, Place, RemoveError};
pub use device::{BlockDevice, DeviceError};
