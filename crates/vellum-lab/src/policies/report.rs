//! What a comparison of policies found, in the shape of its JSON.
//!
//! ```text
//!   { "schema": 1,
//!     "streams": [ { "trace": "cc1", "references": .., "pages": .. } ],
//!     "runs": [ { "trace": "cc1", "policy": "lru", "mode": "every-reference", "frames": 214, "misses": .. } ] }
//! ```
//!
//! # Invariants
//!
//! - No field depends on the host, nor on anything but references, policy, mode, frames and version.

use serde::{Deserialize, Serialize};

/// The version of the shape; it changes when a field changes its meaning or goes.
pub const POLICIES_SCHEMA: u32 = 1;

/// A whole comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoliciesReport {
    /// [`POLICIES_SCHEMA`].
    pub schema: u32,
    /// What was replayed.
    pub streams: Vec<StreamReport>,
    /// One for each stream, policy, mode and size.
    pub runs: Vec<PolicyRun>,
}

impl PoliciesReport {
    pub(super) const fn new() -> Self {
        Self { schema: POLICIES_SCHEMA, streams: Vec::new(), runs: Vec::new() }
    }
}

/// A stream of references.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReport {
    /// Its name.
    pub trace: String,
    /// How many references.
    pub references: u64,
    /// To how many pages.
    pub pages: u32,
}

/// One replay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRun {
    /// The stream's name.
    pub trace: String,
    /// The policy's.
    pub policy: String,
    /// `every-reference` or `accessed-bits`.
    pub mode: String,
    /// The memory.
    pub frames: u32,
    /// References to pages that were not there.
    pub misses: u64,
}
