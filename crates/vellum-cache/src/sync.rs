//! The atomic types of records: the processor's, or loom's model of them.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vellum-cache --lib interleavings` runs the models of
//! `interleavings.rs`, and so does `cargo xtask test --loom`.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(loom)]
pub(crate) use vellum_frame::sync::{AtomicU32, AtomicU64, fence};
