//! `fault`: the paging engine over several designs; see [`vellum_bench::fault`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vellum_bench::fault::run(std::env::args_os()))
}
