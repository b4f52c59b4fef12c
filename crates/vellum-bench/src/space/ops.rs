//! Operations of an `AddressSpace`, on a host arena that is as a kernel's memory: beside Linux's
//! instructions and our targets, and per page from few pages to many.
//!
//! ```text
//!   acts      ready, then measured: clock or callgrind       x designs
//!   linux     what Linux takes, less its way in and out
//!   plan      rows
//!   threads   two CPUs in one space
//! ```
//!
//! What each figure holds, and what it does not: docs/bench-space.md.

mod acts;
mod linux;
mod plan;
mod threads;
mod world;

#[cfg(test)]
mod tests;

pub(super) use plan::{child, run};
