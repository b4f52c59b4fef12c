//! The one atomic type of this crate, and how arrays of them are made: the processor's, or loom's
//! model of it.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p vellum-tlb --lib interleavings` runs the models of
//! `interleavings.rs`, and so does `cargo xtask test --loom`. loom's atomics cannot be made in
//! constants: hence the macros.

#[cfg(loom)]
mod modelled;

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::AtomicU64;
#[cfg(loom)]
pub(crate) use modelled::AtomicU64;
#[cfg(test)]
#[cfg(loom)]
pub(crate) use modelled::{Weight, weigh};

/// A function that is `const`, but for loom.
macro_rules! const_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])*
        $vis const fn $name($($arg: $type),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])*
        #[allow(clippy::missing_const_for_fn, reason = "it is const where loom is not")]
        $vis fn $name($($arg: $type),*) -> $ret $body
    };
}

/// `[$new; $len]`, each made anew.
#[cfg(not(loom))]
macro_rules! array {
    ($new:expr; $len:expr) => {
        [const { $new }; $len]
    };
}
#[cfg(loom)]
macro_rules! array {
    ($new:expr; $len:expr) => {
        core::array::from_fn::<_, { $len }, _>(|_| $new)
    };
}

pub(crate) use {array, const_fn};
