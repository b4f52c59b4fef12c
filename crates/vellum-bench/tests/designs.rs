//! The bench program `designs`, in a smoke run: that it works, not how fast anything is.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};

/// All that are measured by the yardstick.
const MEASURED: [&str; 10] = [
    "chained",
    "clustered16",
    "clustered6",
    "cuckoo",
    "hashbrown, quality",
    "hashbrown, word",
    "htab",
    "inverted",
    "line8",
    "line8, robin hood",
];

fn designs(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_designs")).args(args).output().expect("it starts")
}

#[test]
fn a_quick_run_has_every_act_of_every_contender() {
    let output = designs(&["--quick", "--only", "4k", "--only", "lines"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Standard error is no terminal here.
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    let rows = report["rows"].as_array().expect("rows");
    let titles: Vec<_> = rows.iter().filter_map(|row| row["row"].as_str()).collect();
    let acts = ["insert, 4 Ki", "hit, 4 Ki", "miss, 4 Ki", "delete, 4 Ki"];
    // Of random, dense and consecutive pages.
    assert_eq!(titles, [acts; 3].concat());
    for row in rows {
        assert_eq!(row["yardstick"], "hashbrown");
        assert!(row["ours"].as_f64().is_some_and(|figure| figure > 0.0), "{row}");
        let peers = row["peers"].as_object().expect("peers");
        assert!(peers.keys().map(String::as_str).eq(MEASURED), "{row}");
        assert!(peers.values().all(|figure| figure.as_f64() > Some(0.0)), "{row}");
    }
    let sections: BTreeSet<_> = rows.iter().filter_map(|row| row["section"].as_str()).collect();
    assert_eq!(sections.len(), 3);
    let notes = report["notes"].as_array().expect("notes");
    let told = |part| notes.iter().any(|note| note.as_str().is_some_and(|n| n.contains(part)));
    assert!(told("Target") && told("Cache lines") && told("quick run"), "{notes:?}");
}

#[test]
fn bad_arguments_are_one_line_and_status_2() {
    let pairs = ["--pairs", "random:nobody", "1"];
    for args in [&["--only", "x"][..], &["--rounds", "0"], &["extra"], &pairs] {
        let output = designs(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{args:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_is_counted_ends_without_a_word() {
    for acts in ["0", "2", "4"] {
        let output = designs(&["--pairs", "consecutive:cuckoo", acts]);
        assert!(output.status.success() && output.stdout.is_empty(), "{acts}");
    }
}

#[test]
fn help_has_examples() {
    let output = designs(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("cargo xtask bench designs --only"));
}
