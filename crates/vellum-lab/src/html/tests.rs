//! Pages of small reports.

use super::*;
use crate::parts::ops::{Operation, OpsReport};

fn words(line: &str) -> Command {
    Command::new(line.split(' ').map(OsString::from))
}

#[test]
fn a_figure_is_told_with_what_makes_it() {
    let command =
        words("--json a.json --trace x.vt --html=b.html --part ops,resize --tlb zen5 --html c");
    assert_eq!(
        command.of(Part::Ops),
        "cargo xtask compare --part ops --trace x.vt --tlb zen5 --html report.html"
    );
    let merge = words("--merge a.json b.json --html c");
    assert_eq!(merge.of(Part::Ops), "cargo xtask compare --merge a.json b.json --html report.html");
}

#[test]
fn a_shell_takes_the_command_as_it_was() {
    let command = Command::new(["--trace", "it's a \"trace\"", ""].map(OsString::from));
    assert!(command.of(Part::Runs).contains(r#" --trace 'it'\''s a "trace"' '' "#));
}

fn operation() -> OpsReport {
    let operation = Operation {
        name: "map".into(),
        pages: 1,
        calls: 256,
        lines_written: 2.0,
        lines_written_max: 3,
        lines_touched: 4.0,
        accesses: 5.0,
        frames_taken: 0.0,
        frames_given: 0.0,
    };
    OpsReport {
        design: "radix4".into(),
        pages: 16_384,
        leaf_shifts: vec![12],
        unsupported: None,
        fork_bytes_per_page: None,
        alias_refs: None,
        operations: vec![operation],
    }
}

#[test]
fn what_is_not_in_the_report_is_said_and_not_drawn() {
    let page =
        render(&Report { ops: vec![operation()], ..Report::default() }, &words("--part ops"));
    assert_eq!(
        page.matches("Not in this report.").count(),
        figures::of(&Report::default(), &words("x")).len() - 1
    );
    assert_eq!((page.matches("<svg").count(), page.matches("class=\"front\"").count()), (1, 1));
    assert!(page.contains("It is made by <code>cargo xtask compare --part sparsity "));
}

#[test]
fn a_design_that_was_not_run_has_no_bar_but_a_reason() {
    let unsupported = OpsReport {
        design: "flat".into(),
        unsupported: Some("a table of 5 < 6".into()),
        operations: Vec::new(),
        ..operation()
    };
    let page =
        render(&Report { ops: vec![operation(), unsupported], ..Report::default() }, &words("x"));
    assert_eq!(page.matches("class=\"front\"").count(), 1);
    assert!(page.contains(">not run</text>"), "{page}");
    assert!(page.contains("<li>flat: not run: a table of 5 &lt; 6</li>"), "{page}");
}

#[test]
fn a_page_asks_for_nothing() {
    let page = render(&Report { ops: vec![operation()], ..Report::default() }, &words("x"));
    for request in ["<script", "http:", "https:", "url(", "@import", "src=\"", "<img", "<iframe"] {
        assert!(!page.contains(request), "{request}");
    }
    assert!(page.contains("default-src 'none'"));
}
