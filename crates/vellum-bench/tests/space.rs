//! The bench program `space`, in a smoke run: that it works, not how fast anything is.

use serde_json::Value;
use std::process::{Command, Output};

const PEERS: [&str; 4] = ["BTreeMap", "memory_set", "nodit", "rangemap"];

fn space(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_space")).args(args).output().expect("it starts")
}

#[test]
fn a_quick_run_has_every_act_of_every_contender() {
    let output = space(&["--quick", "--only", "vma"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Standard error is no terminal here.
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    let rows = report["rows"].as_array().expect("rows");
    let titles: Vec<_> = rows.iter().filter_map(|row| row["row"].as_str()).collect();
    let acts = ["build", "find", "hole", "near", "low", "high", "pair"];
    assert_eq!(titles, acts.map(|act| format!("{act}, 100")));
    for row in rows {
        assert!(row["ours"].as_f64().is_some_and(|figure| figure > 0.0), "{row}");
        let peers = row["peers"].as_object().expect("peers");
        // memory_set cannot be walked downwards.
        let is_high = row["row"] == "high, 100";
        let expected = PEERS.iter().filter(|name| !is_high || **name != "memory_set");
        assert!(peers.keys().eq(expected), "{row}");
        assert!(peers.values().all(|figure| figure.as_f64() > Some(0.0)), "{row}");
    }
    let notes = report["notes"].as_array().expect("notes");
    let told = |part| notes.iter().any(|note| note.as_str().is_some_and(|n| n.contains(part)));
    assert!(told("Target") && told("quick run"), "{notes:?}");
}

#[test]
fn bad_arguments_are_one_line_and_status_2() {
    for args in
        [&["--only", "x"][..], &["--rounds", "0"], &["extra"], &["--pairs", "nobody:9", "1"]]
    {
        let output = space(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{args:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_is_counted_ends_without_a_word() {
    for acts in ["0", "3", "7"] {
        let output = space(&["--pairs", "vellum:50", acts]);
        assert!(output.status.success() && output.stdout.is_empty(), "{acts}");
    }
}

#[test]
fn help_has_examples() {
    let output = space(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("cargo xtask bench space --only"));
}
