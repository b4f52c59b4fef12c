//! The bench program itself, in a smoke run: that it works, not how fast anything is.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};

fn frame(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_frame")).args(args).output().expect("it starts")
}

#[test]
fn a_quick_run_has_every_row_of_every_section() {
    let output = frame(&["--quick"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!(report["schema"], 1);
    let rows = report["rows"].as_array().expect("rows");
    let mut titles = BTreeSet::new();
    let mut sections = BTreeSet::new();
    for row in rows {
        let title = row["row"].as_str().expect("a title");
        titles.insert(title.split([':', ',', ' ']).next().unwrap_or_default());
        sections.insert(row["section"].as_str().expect("a section"));
        assert!(row["ours"].as_f64().is_some_and(f64::is_finite), "{row}");
        assert!(row["peers"].as_object().is_some(), "{row}");
    }
    assert!(titles.is_superset(&["a", "b", "c", "d", "e", "f", "init", "metadata"].into()));
    assert_eq!(sections.len(), 3);
    let last = report["notes"].as_array().and_then(|notes| notes.last());
    assert!(last.and_then(Value::as_str).is_some_and(|note| note.contains("quick run")));
    // Standard error is no terminal here.
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_peer_is_in_every_timed_row_it_can_do() {
    let output = frame(&["--quick", "--only", "a", "--only", "e"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    for row in report["rows"].as_array().expect("rows") {
        let peers: BTreeSet<_> = row["peers"].as_object().expect("peers").keys().collect();
        // Four through `&mut`, six that CPUs share.
        assert!(peers.len() == 4 || peers.len() == 6, "{row}");
    }
}

#[test]
fn bad_arguments_are_one_line_and_status_2() {
    for args in [&["--only", "x"][..], &["--rounds", "0"], &["extra"], &["--pairs", "x", "1"]] {
        let output = frame(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{args:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_has_examples() {
    let output = frame(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("cargo xtask bench frame --only"));
}
