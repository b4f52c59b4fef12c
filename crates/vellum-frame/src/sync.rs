//! The one atomic type of this crate, and how to wait: the processor's, or loom's model of it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vellum-frame --lib interleavings` runs the models
//! of `interleavings.rs` in the orders that loom can tell apart, and so does `cargo xtask test --loom`.
//! Tests that use atomics outside of loom are not compiled then.

#[cfg(loom)]
mod modelled;

#[cfg(not(loom))]
pub(crate) use core::{hint::spin_loop, sync::atomic::AtomicU64};
#[cfg(loom)]
pub(crate) use {loom::hint::spin_loop, modelled::AtomicU64};
