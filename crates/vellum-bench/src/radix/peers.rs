//! The published crates, each used in the best way it has for the job.
//!
//! ```text
//!   crate                     map a range    unmap                        frees tables
//!   x86_64 0.15               page by page   page by page                 clean_up
//!   page_table_multiarch 0.6  map_region     page by page, one cursor     when dropped
//!   page-table-generic 0.9    map            walk, then a range           in unmap
//!   aarch64-paging 0.12       map_range      walk, then a range           in map_range
//! ```
//!
//! What was chosen, and why that is the peer's best, stands at each type; docs/bench-radix.md has
//! it in one place. Nobody flushes a TLB: that is said to the library where it asks, and is nothing
//! on a host where it does not.

mod aarch64;
mod generic;
mod multiarch;
mod x86_64;

pub use aarch64::Aarch64;
pub use generic::Generic;
pub use multiarch::Multiarch;
pub use x86_64::X86_64;
