//! `radix`: vellum-radix beside its peers; see [`vellum_bench::radix`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vellum_bench::radix::run(std::env::args_os()))
}
