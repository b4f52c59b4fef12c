//! What the engine stands on: one trait that names the parts, and the seam to swap.
//!
//! ```text
//!          +------------------ System ------------------+
//!          | Pages     memory, a record for each frame  |
//!          | Files     what is mapped from where        |     a kernel has one of these,
//!          | Swap      pages that are out               |     a test another
//!          | Table     the design of every space's table|
//!          | Cpus      who has to forget a translation  |
//!          +--------------------------------------------+
//! ```

use vellum_cache::{Files, Pages};
use vellum_core::{Invalidate, PageTable, Swap};

/// The parts of one virtual-memory system.
pub trait System: Pages {
    /// The page table of an address space.
    type Table: PageTable;
    /// What makes the CPUs forget translations of one address space.
    type Cpus: Invalidate;
    /// The files that can be mapped.
    type Files: Files;
    /// Where pages go that are out.
    type Swap: Swap;

    /// The files.
    fn files(&self) -> &Self::Files;

    /// The swap.
    fn swap(&self) -> &Self::Swap;
}
