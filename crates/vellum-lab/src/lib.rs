#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

pub mod cache;
pub mod embedded;
pub mod histogram;
pub mod machine;
pub mod trace;
