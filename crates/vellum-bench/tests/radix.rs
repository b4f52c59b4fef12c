//! The bench program `radix`, in a smoke run: that it works, not how fast anything is.

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::{Command, Output};

/// Those that a row lacks a figure of only where they have no call for it.
const PEERS: [&str; 4] = ["aarch64-paging", "page-table-generic", "page_table_multiarch", "x86_64"];

fn radix(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_radix")).args(args).output().expect("it starts")
}

fn report(args: &[&str]) -> Value {
    let output = radix(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Standard error is no terminal here.
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON and nothing else");
    assert_eq!(report["schema"], 1);
    report
}

fn rows(report: &Value) -> &[Value] {
    report["rows"].as_array().expect("rows")
}

fn peers(row: &Value) -> BTreeSet<&str> {
    row["peers"].as_object().expect("peers").keys().map(String::as_str).collect()
}

/// The first word of a row's title.
fn name(row: &Value) -> &str {
    let title = row["row"].as_str().expect("a title");
    title.split([':', ',']).next().unwrap_or_default()
}

/// Whether the row is one of (flat), which name a size.
fn is_of_size(row: &Value) -> bool {
    row["row"].as_str().is_some_and(|title| title.ends_with("MiB") && title.contains(", "))
}

#[test]
fn a_quick_run_has_every_row_and_every_contender() {
    let report = report(&["--quick"]);
    let timed: Vec<_> = rows(&report).iter().filter(|row| row["section"] == "time").collect();
    let names: BTreeSet<_> = timed.iter().map(|row| name(row)).collect();
    let expected = [
        "map",
        "again",
        "each",
        "scatter",
        "seq",
        "random",
        "sparse",
        "protect",
        "unmap",
        "shuffled",
        "free",
        "blind",
        "large",
        "live",
        "translate",
    ];
    assert_eq!(names, expected.into());
    for row in timed {
        assert!(row["ours"].as_f64().is_some_and(|ours| ours > 0.0), "{row}");
        let lacking = match name(row) {
            "live" => PEERS.into(),
            "free" => BTreeSet::from(["page_table_multiarch"]),
            _ => BTreeSet::new(),
        };
        assert!(peers(row).is_disjoint(&lacking), "{row}");
        assert_eq!(peers(row).len() + lacking.len(), PEERS.len(), "{row}");
    }
    let sizes: Vec<_> = rows(&report).iter().filter(|row| is_of_size(row)).collect();
    assert_eq!(sizes.len(), 6);
    assert!(sizes.iter().all(|row| peers(row) == PEERS.into()));
}

#[test]
fn a_quick_run_says_what_it_is_and_judges_the_targets() {
    let report = report(&["--quick", "--only", "map", "--only", "large"]);
    let notes: Vec<_> = report["notes"].as_array().expect("notes").iter().collect();
    let text = |note: &Value| note.as_str().unwrap_or_default().to_owned();
    assert!(notes.iter().any(|note| text(note).contains("large: ")), "{notes:?}");
    assert!(notes.last().is_some_and(|note| text(note).contains("quick run")), "{notes:?}");
}

#[test]
fn only_what_is_asked_for_is_measured() {
    let report = report(&["--quick", "--only", "seq"]);
    assert_eq!(rows(&report).len(), 1);
    assert_eq!(name(&rows(&report)[0]), "seq");
}

#[test]
fn bad_arguments_are_one_line_and_status_2() {
    let pairs = ["--pairs", "map:nobody", "1"];
    for args in [&["--only", "x"][..], &["--rounds", "0"], &["extra"], &pairs] {
        let output = radix(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{args:?}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_is_counted_ends_without_a_word() {
    for word in ["map:vellum-radix", "live: fork, pages"] {
        for count in ["0", "1"] {
            let output = radix(&["--pairs", word, count]);
            assert!(output.status.success() && output.stdout.is_empty(), "{word}");
        }
    }
}

#[test]
fn help_has_examples() {
    let output = radix(&["--help"]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).contains("cargo xtask bench radix --only"));
}
