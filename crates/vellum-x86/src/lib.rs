#![doc = include_str!("../README.md")]
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

/// How properties run: fewer cases under Miri, and no files beside the source.
#[cfg(test)]
fn proptest_config() -> proptest::test_runner::Config {
    let cases = if cfg!(miri) { 8 } else { 1024 };
    proptest::test_runner::Config { cases, failure_persistence: None, ..Default::default() }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "STAC and CLAC")]
mod access;
pub mod controls;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "what instructions do is proven where they are used")]
mod cpu;
mod cpuid;
mod cr3;
pub mod errata;
mod fault;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the one file with assembly")]
mod instructions;
pub mod pat;
mod plan;

#[cfg(target_arch = "x86_64")]
pub use access::UserAccess;
pub use controls::{Controls, Step, Steps};
#[cfg(target_arch = "x86_64")]
pub use cpu::Cpu;
pub use cpuid::{Feature, Features, Registers, Signature, Vendor};
pub use cr3::{Cr3, Pair, Pcid, TooWide};
pub use fault::{Access, Cause, ErrorCode};
pub use pat::Pat;
pub use plan::{Mode, Operation, Plan, Target, plan};
