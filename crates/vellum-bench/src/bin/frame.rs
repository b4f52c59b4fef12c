//! `frame`: vellum-frame beside its peers; see [`vellum_bench::frame`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vellum_bench::frame::run(std::env::args_os()))
}
