//! `space`: the map of an address space's regions beside others; see [`vellum_bench::space`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vellum_bench::space::run(std::env::args_os()))
}
