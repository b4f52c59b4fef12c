#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod cache;
pub mod cli;
mod clock;
pub mod compare;
pub mod designs;
pub mod embedded;
pub mod histogram;
pub mod machine;
pub mod ram;
pub mod replay;
pub mod report;
pub mod table;
pub mod trace;
