#![doc = include_str!("../README.md")]

pub mod arena;
pub mod oracle;
pub mod suite;

pub use arena::Arena;
pub use oracle::Oracle;
pub use suite::Design;
