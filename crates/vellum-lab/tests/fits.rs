//! `compare --fits` and `record-sizes`, by running them.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use vellum_lab::fits::FitsReport;

const HEADER: &str = "arrival_ms,lifetime_ms,bytes\n";

fn lab(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vellum-lab")).current_dir(dir).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs what must fail as bad input does, and returns its line.
fn refused(dir: &Path, args: &[&str]) -> String {
    let output = lab(dir, args);
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {line}");
    assert_eq!(line.lines().count(), 1, "{args:?}: {line}");
    assert!(output.stdout.is_empty() && line.starts_with("vellum-lab: "), "{line}");
    assert!(!dir.join("o.json").exists(), "{args:?} left a report behind");
    line
}

fn refused_stream(content: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.csv"), content).unwrap();
    refused(dir.path(), &["compare", "--fits", "--fits-stream", "s.csv", "--json", "o.json"])
}

#[test]
fn the_embedded_stream_is_compared_printed_and_written() {
    let dir = tempfile::tempdir().unwrap();
    let output = lab(dir.path(), &["compare", "--fits"]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    let json = fs::read(dir.path().join("target/fits.json")).unwrap();
    let report: FitsReport = serde_json::from_slice(&json).unwrap();
    for run in &report.runs {
        let row = |line: &&str| line.contains(&run.fit) && line.contains(&run.compaction);
        let row = table.lines().find(row).unwrap();
        assert!(row.contains(&format!(" {} ", run.refused_though_free)), "{row}");
    }
    assert!(
        table.contains("\n paging") && table.ends_with("report: target/fits.json\n"),
        "{table}"
    );
    let again = lab(dir.path(), &["compare", "--fits", "--json", "again.json"]);
    assert!(again.status.success());
    assert_eq!(fs::read(dir.path().join("again.json")).unwrap(), json, "to the bit");
}

#[test]
fn a_stream_of_ones_own_and_a_memory_of_ones_own() {
    let dir = tempfile::tempdir().unwrap();
    let lines = "# remark\r\n0,10,4096\r\n0,99,4096\r\n0,10,4096\r\n0,99,4096\r\n10,9,8192\r\n";
    let (remark, lines) = lines.split_at(10);
    let own = format!("{remark}{}\r\n{lines}", HEADER.trim_end());
    fs::write(dir.path().join("own.csv"), own).unwrap();
    let run = |more: &[&str]| -> FitsReport {
        let args = ["compare", "--fits", "--fits-stream", "own.csv", "--json", "o.json"];
        let output = lab(dir.path(), &[&args[..], more].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        let table = text(&output.stdout);
        assert!(table.starts_with("own.csv: 5 processes"), "{table}");
        serde_json::from_slice(&fs::read(dir.path().join("o.json")).unwrap()).unwrap()
    };
    let report = run(&[]);
    assert_eq!((report.memory_bytes, report.runs[0].refused_though_free), (16384, 1));
    let more = run(&["--fits-memory", "24K"]);
    assert_eq!((more.memory_bytes, more.runs[0].refused), (24 << 10, 0));
    let less = run(&["--fits-memory", "8192"]);
    assert_eq!((less.paging.refused, less.runs[0].refused_though_free), (3, 0));
}

#[test]
fn a_bad_stream_is_told_with_file_and_line() {
    for (lines, part) in [
        ("1,2,3\n1,2\n", "s.csv: line 3: not three fields"),
        ("1,2,0\n", "s.csv: line 2: a size of 0"),
        ("1,2,-5\n", "s.csv: line 2: not a number"),
        ("1,2,3\r\n-1,2,3\r\n", "s.csv: line 3: not a number"),
        ("1,2,18446744073709551616\n", "s.csv: line 2: a process of more than 64 GiB"),
        ("1,0,3\n", "s.csv: line 2: a lifetime of 0"),
        ("", "s.csv: the stream has no processes"),
    ] {
        let line = refused_stream(format!("{HEADER}{lines}").as_bytes());
        assert!(line.contains(part), "{line}");
    }
    assert!(refused_stream(b"").contains("s.csv: the file is empty"));
    assert!(refused_stream(b"vtrace1\n\x10").contains("s.csv: line 1: not a stream of processes"));
    let giants = format!("{HEADER}0,9,40000000000\n0,9,40000000000\n");
    assert!(refused_stream(giants.as_bytes()).contains("74 GiB at one time"));
}

#[test]
fn bad_options_are_told_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.csv"), format!("{HEADER}0,1,2\n")).unwrap();
    for (args, part) in [
        (
            &["compare", "--fits", "--fits-stream", "no.csv", "--json", "o.json"][..],
            "--fits-stream no.csv: no such file (without",
        ),
        (&["compare", "--fits", "--fits-stream", ".", "--json", "o.json"], ".: "),
        (&["compare", "--fits-stream", "s.csv"], "--fits"),
        (&["compare", "--fits-memory", "1G"], "--fits"),
        (&["compare", "--fits", "--fits-memory", "0"], "--fits-memory"),
        (&["compare", "--fits", "--fits-memory", "1000G"], "must be 4 KiB to 64 GiB"),
        (&["compare", "--fits", "--trace", "cc1"], "--trace"),
        (&["compare", "--fits", "--tlb", "zen5"], "--tlb"),
        (&["compare", "--fits", "--json", "no/o.json"], "cannot write no/o.json"),
        (
            &["compare", "--fits", "--fits-stream", "s.csv", "--json", "s.csv"],
            "it is the input s.csv",
        ),
        (&["record-sizes", "o.csv"], "COMMAND"),
        (&["record-sizes", "o.csv", "--", "./no-such-program"], "no-such-program"),
        (&["record-sizes", "no/o.csv", "--", "true"], "cannot write no/o.csv"),
        (&["record-sizes", "--every", "0", "o.csv", "--", "true"], "--every"),
    ] {
        let line = refused(dir.path(), args);
        assert!(line.contains(part), "{part} in {line}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("s.csv")).unwrap(), format!("{HEADER}0,1,2\n"));
    assert!(!dir.path().join("o.csv").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn what_was_recorded_can_be_compared() {
    let dir = tempfile::tempdir().unwrap();
    let script = "sleep 0.3 & sleep 0.2 & sleep 0.1; wait";
    let args = ["record-sizes", "--remark", "three sleepers", "own.csv", "--", "sh", "-c", script];
    let output = lab(dir.path(), &args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stream = fs::read_to_string(dir.path().join("own.csv")).unwrap();
    assert!(stream.starts_with("# three sleepers\n") && stream.contains(HEADER), "{stream}");
    assert!(!stream.contains("sh -c"), "no names but those of the remark");
    let output = lab(dir.path(), &["compare", "--fits", "--fits-stream", "own.csv"]);
    assert!(output.status.success(), "{}", text(&output.stderr));

    let failing = ["record-sizes", "own.csv", "--", "sh", "-c", "sleep 0.1; exit 3"];
    let output = lab(dir.path(), &failing);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stderr).lines().count(), 1, "{}", text(&output.stderr));
}
