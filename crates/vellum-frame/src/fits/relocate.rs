//! Base and limit: the address translation of a machine that has partitions instead of pages.
//!
//! ```text
//!   program's address --+--[ < limit ? ]-- no --> LimitFault
//!                       |       | yes
//!                       +------(+)------> physical address
//!                               |
//!                              base           compaction moves the bytes and rewrites this register
//! ```
//!
//! One comparison and one addition for each access. A program names its bytes by their distance from
//! its own beginning, and so does not notice that it was moved; without that, compaction would have
//! to find and change every pointer in it.
//!
//! # Invariants
//!
//! - `base + limit` is at most 2<sup>64</sup>, so no translation wraps.
//!
//! Source: P. J. Denning, "Virtual Memory", Computing Surveys 2(3), 1970, on relocation by base and
//! bound.

use super::error::LimitFault;
use vellum_core::{PhysAddr, VirtAddr};

/// What the relocation registers hold while a program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseLimit {
    base: PhysAddr,
    limit: u64,
}

impl BaseLimit {
    /// The registers for `limit` bytes from `base` on, which the table knows to lie below the last
    /// address.
    pub(super) const fn new(base: u64, limit: u64) -> Self {
        Self { base: PhysAddr::new(base), limit }
    }

    /// Where the partition begins.
    #[must_use]
    pub const fn base(self) -> PhysAddr {
        self.base
    }

    /// Its length in bytes.
    #[must_use]
    pub const fn limit(self) -> u64 {
        self.limit
    }

    /// Where the program's address `va` lies in memory.
    ///
    /// # Errors
    ///
    /// [`LimitFault`], if it is not in the partition.
    pub const fn translate(self, va: VirtAddr) -> Result<PhysAddr, LimitFault> {
        if va.as_u64() < self.limit {
            Ok(self.base.wrapping_add(va.as_u64()))
        } else {
            Err(LimitFault { va, limit: self.limit })
        }
    }
}
