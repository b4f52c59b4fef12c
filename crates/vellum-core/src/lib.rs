#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]
#![warn(clippy::as_conversions, clippy::indexing_slicing, clippy::cast_possible_truncation)]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod attr;
pub mod entry;
pub mod error;
pub mod gather;
pub mod memory;
pub mod pte;
pub mod table;
pub mod walk;

pub use addr::{Canonical, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, VirtAddr, Vpn};
pub use attr::{Attr, Change, MemoryType};
pub use entry::{Entry, Gone, Run, Soft, Span};
pub use error::{Cause, Need, RangeError, ReplaceError};
pub use gather::{Batch, Direct, Flush, Gather, Invalidate, Reap};
pub use memory::{FrameSource, Memory, OutOfFrames, PhysMap, order_bytes};
pub use table::PageTable;
pub use walk::{Ref, Sink, Walk};
