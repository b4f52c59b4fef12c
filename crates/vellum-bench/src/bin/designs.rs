//! `designs`: hashed page tables beside hashbrown; see [`vellum_bench::designs`].

use std::process::ExitCode;
use vellum_bench::designs::ram::Large;

/// The peers' tables lie in the same memory as ours.
#[global_allocator]
static ALLOCATOR: Large = Large;

fn main() -> ExitCode {
    ExitCode::from(vellum_bench::designs::run(std::env::args_os()))
}
