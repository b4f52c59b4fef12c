//! `vellum-difftest`: see [`vellum_difftest::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vellum_difftest::cli::run(std::env::args_os()))
}
