//! `compare --policies`, by running it.

#![allow(clippy::unwrap_used, reason = "a failed unwrap in a test is a failed test")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;
use vellum_lab::policies::PoliciesReport;

/// A folder with a loop over 40 blocks, twelve times, `loop.txt`.
fn folder() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..480).map(|n| format!("{}\n", 1000 + n % 40)).collect();
    fs::write(dir.path().join("loop.txt"), text).unwrap();
    dir
}

fn lab(dir: &Path, args: &[&str]) -> Output {
    let args = [&["compare", "--policies"], args].concat();
    Command::new(env!("CARGO_BIN_EXE_vellum-lab")).current_dir(dir).args(args).output().unwrap()
}

fn report(dir: &Path, args: &[&str]) -> (PoliciesReport, String) {
    let output = lab(dir, args);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{args:?}: {told}");
    let json = fs::read(dir.join("target/policies.json")).unwrap();
    (serde_json::from_slice(&json).unwrap(), String::from_utf8(output.stdout).unwrap())
}

fn misses(report: &PoliciesReport, policy: &str, mode: &str, frames: u32) -> u64 {
    let mut runs = report.runs.iter();
    let found = runs.find(|run| run.policy == policy && run.mode == mode && run.frames == frames);
    found.unwrap().misses
}

#[test]
fn a_loop_that_is_a_little_too_long_is_lrus_worst_case() {
    let dir = folder();
    let (found, table) = report(dir.path(), &["--blocks", "loop.txt", "--frames", "30,40"]);
    assert_eq!((found.schema, found.runs.len()), (1, 15 * 2 * 2 + 2));
    assert_eq!((found.streams[0].references, found.streams[0].pages), (480, 40));
    for policy in ["lru", "fifo", "clock"] {
        for mode in ["every-reference", "accessed-bits"] {
            assert_eq!(misses(&found, policy, mode, 30), 480, "{policy}");
            assert_eq!(misses(&found, policy, mode, 40), 40, "{policy}");
        }
    }
    // 30 of the 40 could stay but for one that changes: 40 at first, then at least 10 or 11 a round.
    let opt = misses(&found, "opt", "every-reference", 30);
    assert!((40 + 11 * 10..=40 + 11 * 11).contains(&opt), "{opt}");
    assert!(misses(&found, "lirs", "every-reference", 30) < 200);
    for line in ["loop.txt: 480 references to 40 pages", "misses, accessed bits", "clock-pro"] {
        assert!(table.contains(line), "{table}");
    }
    assert!(table.ends_with("report: target/policies.json\n"), "{table}");
}

#[test]
fn a_packed_file_and_a_choice_of_policies_come_to_the_same() {
    let dir = folder();
    let text = fs::read(dir.path().join("loop.txt")).unwrap();
    fs::write(dir.path().join("loop.zst"), zstd::encode_all(&text[..], 1).unwrap()).unwrap();
    let frames = ["--frames", "30", "--policy", "opt,lirs"];
    let (plain, _) = report(dir.path(), &[&["--blocks", "loop.txt"], &frames[..]].concat());
    let (packed, _) = report(dir.path(), &[&["--blocks", "loop.zst"], &frames[..]].concat());
    let counts = |report: &PoliciesReport| {
        report.runs.iter().map(|run| (run.policy.clone(), run.misses)).collect::<Vec<_>>()
    };
    assert_eq!(counts(&plain), counts(&packed));
    assert_eq!(plain.runs.len(), 3, "the bound has one mode");
}

#[test]
fn traces_have_sizes_of_their_own_and_a_page_has_all_of_them() {
    let dir = folder();
    let args = ["--trace", "sqlite3", "--events", "20000", "--html", "page.html"];
    let (found, _) = report(dir.path(), &args);
    let pages = found.streams[0].pages;
    let mut frames: Vec<u32> = found.runs.iter().map(|run| run.frames).collect();
    frames.sort_unstable();
    frames.dedup();
    assert_eq!(frames, [pages / 8, pages / 4, pages / 2]);
    let page = fs::read_to_string(dir.path().join("page.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 15 + 1 + 15, "a drawing a policy and mode");
    assert!(
        page.contains("Misses, by accessed bits") && page.contains("misses of s3-fifo on sqlite3")
    );
    assert!(page.contains("cargo xtask compare --policies --trace sqlite3 --events 20000"));
    assert!(!page.contains("<script") && !page.contains("://"), "nothing from elsewhere");
}

#[test]
fn bad_input_is_one_line_with_its_place_and_a_remedy() {
    let dir = folder();
    fs::write(dir.path().join("bad.txt"), "1\n2\nx7\n").unwrap();
    fs::write(dir.path().join("empty.txt"), "").unwrap();
    let cases = [
        (&["--blocks", "bad.txt"][..], "bad.txt: line 3: `x7` is no block number (one below 2^64"),
        (&["--blocks", "empty.txt"], "empty.txt: no block numbers (one decimal number a line"),
        (&["--blocks", "no.txt"], "--blocks no.txt: no such file (one block number a line"),
        (&["--blocks", "."], ".: is a directory"),
        (&["--blocks", "loop.txt", "--frames", "0"], "expected a number of frames from 1 to"),
        (&["--blocks", "loop.txt", "--frames", "8,x"], "'x'"),
        (&["--policy", "lur"], "--policy lur: choose from fifo, clock"),
        (&["--trace", "none.vt"], "none.vt: no such file, nor an embedded trace"),
        (&["--blocks", "loop.txt", "--trace", "cc1"], "--trace"),
        (&["--design", "radix4"], "--design"),
        (&["--blocks", "loop.txt", "--json", "no/x.json"], "cannot write no/x.json"),
        (&["--blocks", "loop.txt", "--json", "loop.txt"], "cannot write loop.txt"),
    ];
    for (args, expected) in cases {
        let output = lab(dir.path(), args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains(expected), "{args:?}: {told}");
    }
}
