//! The published crates, each used in the best way it has for the job.
//!
//! ```text
//!   crate                         &mut           shared
//!   buddy_system_allocator 0.13   BuddySystem    LockedBuddySystem, the crate's own lock
//!   bitmap-allocator 0.4          Bitmap         Locked<Bitmap>, a spin lock of the spin crate
//!   buddy-slab-allocator 0.6      BuddySlab      Locked<BuddySlab>, likewise
//!   free-list 0.3                 FreeRanges     -
//!   frame-alloc 0.1               -              SummaryBuddy; Depot, with per-CPU magazines
//! ```
//!
//! What was chosen, and why that is the peer's best, stands at each type; docs/bench-frame.md has
//! it in one place.

mod bitmap;
mod buddy_slab;
mod buddy_system;
mod frame_alloc;
mod free_list;
mod locked;

pub use bitmap::Bitmap;
pub use buddy_slab::BuddySlab;
pub use buddy_system::{BuddySystem, LockedBuddySystem};
pub use frame_alloc::{DEFAULT_MAGAZINE, Depot, LARGE_MAGAZINE, SummaryBuddy};
pub use free_list::FreeRanges;
pub use locked::Locked;
