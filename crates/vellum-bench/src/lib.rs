#![doc = include_str!("../README.md")]

pub mod callgrind;
pub mod cli;
pub mod clock;
pub mod designs;
pub mod fault;
pub mod frame;
pub mod radix;
pub mod random;
pub mod report;
pub mod rounds;
pub mod space;
pub mod swap;
