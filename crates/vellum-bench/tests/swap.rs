//! The bench program `swap`, in a smoke run: that it works, not how fast anything is.

use serde_json::Value;
use std::process::{Command, Output};

fn swap(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_swap")).args(args).output().expect("it starts")
}

#[test]
fn a_quick_run_has_time_and_misses_of_every_policy() {
    let output = swap(&["--quick", "--only", "policies"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Standard error is no terminal here.
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    let rows = report["rows"].as_array().expect("rows");
    let section = |name: &str| rows.iter().filter(|row| row["section"] == name).count();
    assert_eq!((section("time, small"), section("misses, small"), rows.len()), (15, 15, 30));
    for row in rows {
        assert!(row["ours"].as_f64().is_some_and(|figure| figure > 0.0), "{row}");
    }
    let lru = rows.iter().find(|row| row["section"] == "misses, small" && row["row"] == "lru");
    let lru = lru.expect("a row of LRU");
    assert_eq!(lru["ours"], lru["peers"]["lru"]);
    assert_eq!(lru["ours"], lru["peers"]["schnellru"]);
    let notes = report["notes"].as_array().expect("notes");
    let told = |part| notes.iter().any(|note| note.as_str().is_some_and(|n| n.contains(part)));
    assert!(told("Target") && told("the bound") && told("quick run"), "{notes:?}");
}

#[test]
fn bad_arguments_are_one_line_and_status_2() {
    for args in [&["--only", "x"][..], &["--rounds", "0"], &["extra"], &["--pairs", "nobody", "1"]]
    {
        let output = swap(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{args:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_is_counted_ends_without_a_word() {
    for passes in ["0", "1"] {
        let output = swap(&["--pairs", "lru:lru:true", passes]);
        assert!(output.status.success() && output.stdout.is_empty(), "{passes}");
    }
}

#[test]
fn help_has_examples() {
    let output = swap(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("cargo xtask bench swap"));
}
