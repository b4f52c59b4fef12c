//! The one atomic type of this crate: the processor's, or loom's model of it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p vellum-frame --lib` runs the tests of `tests/model.rs`
//! over every interleaving that loom can tell apart.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::AtomicU64;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::AtomicU64;
