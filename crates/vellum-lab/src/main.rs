//! `vellum-lab`: see [`vellum_lab::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(vellum_lab::cli::run(std::env::args_os()))
}
