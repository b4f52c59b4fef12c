#![doc = include_str!("../README.md")]

pub mod arena;
pub mod checker;
pub mod oracle;
pub mod pause;
pub mod suite;

pub use arena::Arena;
pub use checker::Checker;
pub use oracle::Oracle;
pub use pause::{Pause, Stopped};
pub use suite::Design;
