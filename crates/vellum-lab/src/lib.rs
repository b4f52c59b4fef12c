#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod cache;
pub mod cli;
mod clock;
pub mod compare;
pub mod designs;
pub mod embedded;
pub mod experiment;
pub mod fits;
pub mod histogram;
pub mod html;
pub mod machine;
pub mod parts;
pub mod policies;
pub mod ram;
pub mod replay;
pub mod report;
pub mod source;
pub mod table;
pub mod trace;
pub mod workload;

/// The code in docs/integration.md, compiled here because this crate sees all the others.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/integration.md")]
struct Integration;
