//! docs/report.md names every field that a report has.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Command;

const DOCS: &str = include_str!("../../../docs/report.md");

/// The names of all fields, however deep.
fn fields(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields_here) => {
            for (name, inner) in fields_here {
                names.insert(name.clone());
                fields(inner, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| fields(item, names)),
        _ => {}
    }
}

#[test]
fn every_field_is_described() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.json");
    let output = Command::new(env!("CARGO_BIN_EXE_vellum-lab"))
        .args(["compare", "--design", "flat,radix4", "--events", "2000", "--shard", "0/1"])
        .args(["--workload", "gups:1M,processes:2", "--sweep", "l2=512..512", "--part"])
        .args(["runs,ops,sparsity,resize,switches,huge,forks,tlb", "--json"])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut names = BTreeSet::new();
    fields(&report, &mut names);
    for part in ["runs", "ops", "sparsity", "resize", "switches", "huge", "forks", "tlb"] {
        assert!(report[part].as_array().is_some_and(|rows| !rows.is_empty()), "{part}");
    }
    assert!(names.len() > 70, "{names:?}");
    let described = |name: &str| {
        let ends = ['`', '.', '"', '['];
        let mut places = DOCS.match_indices(name);
        places
            .any(|(at, _)| DOCS[..at].ends_with(ends) && DOCS[at + name.len()..].starts_with(ends))
    };
    let missing: Vec<_> = names.iter().filter(|name| !described(name)).collect();
    assert!(missing.is_empty(), "docs/report.md does not name {missing:?}");
}
