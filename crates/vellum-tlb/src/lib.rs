#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
extern crate alloc;

#[cfg(feature = "alloc")]
mod lru;
mod preset;
#[cfg(feature = "alloc")]
mod tag;
#[cfg(feature = "alloc")]
mod tlb;
#[cfg(feature = "alloc")]
mod walk_cache;

#[cfg(feature = "alloc")]
pub use lru::LruSets;
pub use preset::{Geometry, Preset, UnknownPreset, WALK_CACHE_NONE, WALK_CACHE_X86, WalkCacheSize};
#[cfg(feature = "alloc")]
pub use tlb::{Leaf, Lookup, Port, Tlb, TlbCounts};
pub use vellum_core::Asid;
#[cfg(feature = "alloc")]
pub use walk_cache::WalkCaches;
