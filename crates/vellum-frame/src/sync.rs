//! The atomic types of this crate, and how to wait: the processor's, or loom's model of them.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vellum-frame --lib interleavings` runs the models
//! of `interleavings.rs` in the orders that loom can tell apart, and so does `cargo xtask test --loom`.
//! Tests that use atomics outside of loom are not compiled then. The crates above use the same models, so
//! that under loom, and only there, this module is public.

#[cfg(loom)]
mod modelled;

#[cfg(not(loom))]
pub(crate) use core::{
    hint::spin_loop,
    sync::atomic::{AtomicU32, AtomicU64, fence},
};
#[cfg(loom)]
pub use loom::{hint::spin_loop, sync::atomic::fence};
#[cfg(loom)]
pub use modelled::{AtomicU32, AtomicU64};

/// A function that is `const`, but for loom, whose atomics cannot be made in constants.
macro_rules! const_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),*) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])*
        $vis const fn $name($($arg: $type),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])*
        #[allow(clippy::missing_const_for_fn, reason = "it is const where loom is not")]
        $vis fn $name($($arg: $type),*) -> $ret $body
    };
}

pub(crate) use const_fn;
