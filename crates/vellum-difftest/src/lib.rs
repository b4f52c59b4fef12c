#![doc = include_str!("../README.md")]

pub mod abi;
pub mod cli;
pub mod compare;
pub mod decode;
pub mod expect;
pub mod explained;
pub mod generate;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod linux;
pub mod op;
pub mod ours;
pub mod places;
pub mod random;
pub mod shrink;
mod smaps;
pub mod subject;
pub mod trace;
