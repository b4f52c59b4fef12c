//! Figures of tables themselves: their memory, and what changing them costs.
//!
//! ```text
//!   sparsity --> bytes a page, a line for each design
//!   ops      --> lines a call, a panel for each operation
//!   resize   --> the worst call, a panel for filling and one for emptying
//!   forks    --> a panel for the cycles, one for the bytes
//! ```

use super::super::chart::{Line, Plot};
use super::{Body, Numbers, bar_panel, count, different, line_panels, mean, reasons, texts};
use crate::parts::forks::ForksReport;
use crate::parts::ops::{Operation, OpsReport};
use crate::parts::resize::{Phase, ResizeReport};
use crate::parts::sparsity::SparsityReport;
use crate::report::Report;
use crate::table::{grouped, size};

pub(super) fn sparsity(report: &Report) -> Body {
    let rows = &report.sparsity;
    let spread = |row: &SparsityReport| (row.pages_per_region, row.region_bytes);
    let spreads = different(rows.iter().map(spread));
    let line = |design: &String| {
        let at = |wanted: &(u64, u64)| {
            let row = rows.iter().find(|row| row.design == *design && spread(row) == *wanted);
            row.and_then(|row| row.bytes_per_page_mean)
        };
        let values = spreads.iter().map(at).collect();
        Line { name: design.clone(), values, dashed: Vec::new() }
    };
    let designs = different(rows.iter().map(|row| &row.design));
    let ticks = spreads.iter().map(|(pages, bytes)| format!("{pages}\nin {}", size(*bytes)));
    let plot = Plot { ticks: ticks.collect(), lines: designs.into_iter().map(line).collect() };
    let number_row = |row: &SparsityReport| {
        vec![
            row.design.clone(),
            format!("{} in {}", row.pages_per_region, size(row.region_bytes)),
            mean(row.bytes_per_page_mean),
            mean(row.bytes_per_page),
            count(row.bytes),
        ]
    };
    let place =
        |row: &SparsityReport| format!("{} in {}", row.pages_per_region, size(row.region_bytes));
    Body {
        lead: format!(
            "Bytes of table for each mapped page of 4 KiB, from dense to sparse: so many pages next to each \
             other in each region; the mean of eight sizes up to {} pages.",
            grouped(rows.first().map_or(0, |row| row.pages))
        ),
        panels: line_panels(&plot, "", "bytes a page by sparsity"),
        numbers: Numbers {
            names: 2,
            header: texts(&["design", "pages", "bytes a page", "with all pages", "bytes"]),
            rows: rows.iter().map(number_row).collect(),
        },
        notes: reasons(rows.iter().map(|row| (&*row.design, place(row), row.unsupported.as_ref()))),
    }
}

pub(super) fn operations(report: &Report) -> Body {
    let rows = &report.ops;
    let names = different(rows.iter().flat_map(|row| &row.operations).map(|op| &op.name));
    let panel = |name: &String| {
        let of = |row: &'_ OpsReport| row.operations.iter().find(|op| op.name == *name).cloned();
        let bar = |row: &OpsReport| {
            let op = of(row);
            let values = op.map(|op| (op.lines_written, op.lines_touched));
            (row.design.clone(), values.map(|v| v.0), values.map(|v| v.1))
        };
        let pages = rows.iter().find_map(of).map_or(0, |op| op.pages);
        let small = match pages {
            1 => "1 page a call".to_owned(),
            n => format!("{} pages a call", grouped(n)),
        };
        bar_panel((name, small), "lines written, lines touched", rows.iter().map(bar))
    };
    let alias = |row: &OpsReport| {
        let refs = row.alias_refs;
        (row.design.clone(), refs.map(|refs| refs.child), refs.map(|refs| refs.alone))
    };
    let aliases = rows.iter().any(|row| row.alias_refs.is_some()).then(|| {
        let small = "entries read: by the child, before the fork".to_owned();
        bar_panel(("walk of a shared page", small), "child, before", rows.iter().map(alias))
    });
    let number_row = |row: &OpsReport, op: &Operation| {
        vec![
            op.name.clone(),
            row.design.clone(),
            grouped(op.pages),
            grouped(op.calls),
            mean(Some(op.lines_written)),
            grouped(op.lines_written_max),
            mean(Some(op.lines_touched)),
            mean(Some(op.accesses)),
            mean(Some(op.frames_taken)),
            mean(Some(op.frames_given)),
        ]
    };
    let of_name = |name: &&String| {
        let ops = |row: &OpsReport| {
            let ops = row.operations.iter().filter(|op| op.name == **name);
            ops.map(|op| number_row(row, op)).collect::<Vec<_>>()
        };
        rows.iter().flat_map(ops).collect::<Vec<_>>()
    };
    Body {
        lead: format!(
            "Lines of table memory that one call writes, those included that it zeroes, in a space of {} pages.",
            grouped(rows.first().map_or(0, |row| row.pages))
        ),
        panels: names.iter().map(|name| panel(name)).chain(aliases).collect(),
        numbers: Numbers {
            names: 2,
            header: texts(&[
                "operation",
                "design",
                "pages",
                "calls",
                "written",
                "most",
                "touched",
                "accesses",
                "frames taken",
                "given",
            ]),
            rows: names.iter().flat_map(of_name).collect(),
        },
        notes: reasons(
            rows.iter().map(|row| (&*row.design, String::new(), row.unsupported.as_ref())),
        ),
    }
}

/// One way, and its name.
type Way = (&'static str, fn(&ResizeReport) -> Option<Phase>);

pub(super) fn resize(report: &Report) -> Body {
    const WAYS: [Way; 2] = [("filling", |row| row.fill), ("emptying", |row| row.drain)];
    let rows = &report.resize;
    let mut panels = Vec::new();
    let mut numbers = Vec::new();
    for (name, phase) in WAYS.iter().filter(|_| !rows.is_empty()) {
        let worst = |row: &ResizeReport| {
            let phase = phase(row);
            let lines = phase.map(|p| p.lines_written_p99 as f64);
            (row.design.clone(), lines, phase.map(|p| p.lines_written_max as f64))
        };
        let small = "lines a call".to_owned();
        panels.push(bar_panel(
            (name, small),
            "99 of 100 calls, worst call",
            rows.iter().map(worst),
        ));
        let moved = |row: &ResizeReport| {
            (
                row.design.clone(),
                phase(row).map(|p| p.lines_moved_total as f64 / row.pages.max(1) as f64),
                None,
            )
        };
        let small = "lines a page, beyond those of the median call".to_owned();
        panels.push(bar_panel((&format!("{name}: moved"), small), "lines", rows.iter().map(moved)));
        numbers.extend(rows.iter().map(|row| resize_row(name, row, phase(row))));
    }
    Body {
        lead: format!(
            "{} pages come one by one in random order, and go again.",
            grouped(rows.first().map_or(0, |row| row.pages))
        ),
        panels,
        numbers: Numbers {
            names: 2,
            header: texts(&[
                "way",
                "design",
                "written",
                "p50",
                "p99",
                "worst",
                "moved",
                "frames at most",
                "bytes after",
                "places",
                "used",
                "overflow",
                "displaced",
                "rehashes",
            ]),
            rows: numbers,
        },
        notes: reasons(
            rows.iter().map(|row| (&*row.design, String::new(), row.unsupported.as_ref())),
        ),
    }
}

fn resize_row(name: &str, row: &ResizeReport, phase: Option<Phase>) -> Vec<String> {
    let is_full = name == "filling";
    let bytes = if is_full { row.bytes_full } else { row.bytes_after };
    let structure = row.structure.filter(|_| is_full);
    vec![
        name.to_owned(),
        row.design.clone(),
        mean(phase.map(|p| p.lines_written_mean)),
        count(phase.map(|p| p.lines_written_p50)),
        count(phase.map(|p| p.lines_written_p99)),
        count(phase.map(|p| p.lines_written_max)),
        count(phase.map(|p| p.lines_moved_total)),
        count(phase.map(|p| p.frames_taken_max)),
        count(bytes),
        count(structure.map(|s| s.places)),
        count(structure.and_then(|s| s.used)),
        count(structure.and_then(|s| s.overflow)),
        count(structure.and_then(|s| s.displaced)),
        count(structure.map(|s| s.rehashes)),
    ]
}

pub(super) fn forks(report: &Report) -> Body {
    let rows = &report.forks;
    let Some(first) = rows.first() else { return Body::default() };
    let cycles = |row: &ForksReport| (row.design.clone(), row.walk_cycles_per_access, None);
    let peak = |row: &ForksReport| {
        (row.design.clone(), row.table_peak_bytes.map(|n| n as f64 / row.pages.max(1) as f64), None)
    };
    let number_row = |row: &ForksReport| {
        vec![
            row.design.clone(),
            count(row.copies),
            count(row.reuses),
            count(row.walks),
            mean(row.refs_mean),
            mean(row.walk_cycles_per_access),
            count(row.table_bytes),
            count(row.table_peak_bytes),
        ]
    };
    Body {
        lead: format!(
            "A program of {} pages forks {} times, one child at a time; both read and write, and what is written \
             is copied first.",
            grouped(first.pages),
            grouped(first.forks)
        ),
        panels: vec![
            bar_panel(("Walks", "cycles an access".into()), "cycles", rows.iter().map(cycles)),
            bar_panel(
                ("Table at its largest", "bytes for each page of the program".into()),
                "bytes",
                rows.iter().map(peak),
            ),
        ],
        numbers: Numbers {
            names: 1,
            header: texts(&[
                "design",
                "copies",
                "reuses",
                "walks",
                "entries",
                "cycles an access",
                "bytes",
                "peak bytes",
            ]),
            rows: rows.iter().map(number_row).collect(),
        },
        notes: reasons(
            rows.iter().map(|row| (&*row.design, String::new(), row.unsupported.as_ref())),
        ),
    }
}
