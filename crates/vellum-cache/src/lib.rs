#![doc = include_str!("../README.md")]
#![no_std]

#[cfg(test)]
extern crate std;

pub mod cache;
pub mod files;
pub mod page;
pub mod shmem;

#[cfg(test)]
mod testing;

pub use cache::{Cache, CacheError};
pub use files::{FileError, FileId, FileLabel, Files};
pub use page::{Page, PageInfo, Pages};
pub use shmem::Shmem;
