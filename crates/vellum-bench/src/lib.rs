#![doc = include_str!("../README.md")]

pub mod cli;
pub mod clock;
pub mod frame;
pub mod random;
pub mod report;
pub mod rounds;
