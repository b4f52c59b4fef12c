#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(any(test, loom))]
extern crate std;

pub mod cache;
pub mod files;
#[cfg(loom)]
#[doc(hidden)]
pub mod modelled;
pub mod page;
pub mod shmem;
mod sync;

#[cfg(test)]
#[cfg(loom)]
mod interleavings;
#[cfg(test)]
#[cfg(not(loom))]
mod testing;

pub use cache::{Cache, CacheError};
pub use files::{FileError, FileId, FileLabel, Files};
pub use page::{Page, PageInfo, Pages};
pub use shmem::Shmem;
