#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]
#![warn(clippy::as_conversions, clippy::indexing_slicing, clippy::cast_possible_truncation)]

#[cfg(test)]
extern crate std;

/// proptest's settings: no files, and few cases, under Miri, which has no file system and no hurry.
#[cfg(test)]
fn proptest_config() -> proptest::test_runner::Config {
    let cases = if cfg!(miri) { 8 } else { 256 };
    proptest::test_runner::Config { cases, failure_persistence: None, ..Default::default() }
}

pub mod addr;
pub mod asid;
pub mod attr;
pub mod bytes;
pub mod entry;
pub mod error;
pub mod gather;
pub mod memory;
pub mod pte;
pub mod swap;
pub mod table;
pub mod walk;

pub use addr::{Canonical, PAGE_SHIFT, PAGE_SIZE, Pfn, PhysAddr, VirtAddr, Vpn};
pub use asid::Asid;
pub use attr::{Attr, Change, MemoryType};
pub use bytes::FrameBytes;
pub use entry::{Entry, Gone, Run, Soft, Span};
pub use error::{Cause, Need, RangeError, ReplaceError};
pub use gather::{Batch, Direct, Flush, Gather, Invalidate, Nobody, RANGES, Reap, Receive, Scope};
pub use memory::{FrameSource, Memory, OutOfFrames, PhysMap, order_bytes};
pub use swap::{NoSwap, Swap, SwapEntry, SwapError};
pub use table::{Given, Linked, PageTable, fill_one_by_one, share_entries};
pub use walk::{Ref, Sink, Walk};
