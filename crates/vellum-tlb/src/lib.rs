#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, loom))]
extern crate std;

mod asid;
#[cfg(feature = "alloc")]
mod lru;
mod preset;
mod shootdown;
mod sync;
#[cfg(feature = "alloc")]
mod tag;
#[cfg(feature = "alloc")]
mod tlb;
#[cfg(feature = "alloc")]
mod walk_cache;

#[cfg(test)]
#[cfg(loom)]
mod interleavings;

pub use asid::{AsidTag, Global, Load, Recent, Slots, SpaceId, Stale, Tags, TooFew, Turn};
#[cfg(feature = "alloc")]
pub use lru::LruSets;
pub use preset::{Geometry, Preset, UnknownPreset, WALK_CACHE_NONE, WALK_CACHE_X86, WalkCacheSize};
pub use shootdown::{
    Ceiling, CpuSet, Flusher, InUse, Interrupts, Local, Pending, Reach, Shootdown, Space,
};
#[cfg(feature = "alloc")]
pub use tlb::{Leaf, Lookup, Port, Tlb, TlbCounts};
pub use vellum_core::Asid;
#[cfg(feature = "alloc")]
pub use walk_cache::WalkCaches;
