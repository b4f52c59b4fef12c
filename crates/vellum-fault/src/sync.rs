//! The fence of this crate: the processor's, or loom's model of it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vellum-fault --lib interleavings` runs the models of
//! `interleavings.rs`, and so does `cargo xtask test --loom`.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::fence;
#[cfg(loom)]
pub(crate) use vellum_frame::sync::fence;
