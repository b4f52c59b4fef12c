//! The command line. Here and not in `src`: it reaches every design, and what reaches them is built long.

use std::ffi::OsString;
use vellum_difftest::cli::{command, run};

fn status(args: &[&str]) -> u8 {
    run(args.iter().map(OsString::from))
}

#[test]
fn the_command_line_is_consistent() {
    command().debug_assert();
}

#[test]
fn a_wrong_argument_is_status_2() {
    assert_eq!(status(&["difftest", "--seed", "many"]), 2);
    assert_eq!(status(&["difftest", "--replay", "/nowhere"]), 2);
    assert_eq!(status(&["difftest", "--long", "--ops", "40"]), 2);
}

#[test]
fn an_unknown_design_is_status_2_and_help_is_none() {
    assert_eq!(status(&["difftest", "--design", "paper"]), 2);
    assert_eq!(status(&["difftest", "--help"]), 0);
}

/// What compares nothing has not found that nothing differs.
#[test]
fn nothing_to_compare_is_status_2() {
    assert_eq!(status(&["difftest", "--ops", "0"]), 2);
    assert_eq!(status(&["difftest", "--differences", "0"]), 2);
    assert_eq!(status(&["difftest", "--replay", "/dev/null"]), 2);
    assert_eq!(status(&["difftest", "--record", "/dev/null"]), 2);
}
