//! `swap`: replacement policies beside published caches; see [`vellum_bench::swap`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vellum_bench::swap::run(std::env::args_os()))
}
