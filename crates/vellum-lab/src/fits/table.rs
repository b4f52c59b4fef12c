//! A comparison of fits as a table for people, of at most 100 columns.
//!
//! ```text
//!   build: 491 processes in 262.1 s, of 131 KiB to 360 MiB, half of them up to 3134 KiB
//!   memory: 2874 MiB; ..
//!    fit    compact  refused yet free external  holes examined at most internal     moved times needs
//!    first  none           4        4    47.7%  11.21     5.05      14     31 B         -     -  132%
//!    paging                0        0        -      -        -       -   3726 B         -     -  100%
//!    first: process 214 wanted 155 MiB; 677 MiB were free, the largest of 13 holes had 138 MiB
//! ```
//!
//! Columns are described in docs/report.md.

use super::report::{FitRun, FitsReport, PagingRun, Refusal};
use crate::table::{WIDTH, fitted, grouped, right, size};
use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Table, Width, presets};
use core::fmt::Write;

const COLUMNS: [&str; 12] = [
    "fit", "compact", "refused", "yet-free", "external", "holes", "examined", "at-most",
    "internal", "moved", "times", "needs",
];

/// The least that each takes, with the blank before it.
const WIDTHS: [u16; 12] = [7, 9, 8, 9, 9, 7, 9, 8, 9, 10, 6, 6];

/// The title, the table, and what the first refusals were like.
#[must_use]
pub fn render(report: &FitsReport) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = render_into(&mut text, report);
    text
}

fn render_into(text: &mut String, report: &FitsReport) -> core::fmt::Result {
    let stream = &report.stream;
    let (count, seconds) = (grouped(stream.processes), stream.span_ms as f64 / 1e3);
    let [min, median, max] = [stream.bytes_min, stream.bytes_median, stream.bytes_max].map(size);
    let name = &stream.name;
    let title = format!(
        "{name}: {count} processes in {seconds:.1} s, of {min} to {max}, half of them up to {median}\n\
         at one time up to {} with {}, in whole pages {}\n\
         memory: {}; partitions are multiples of {} bytes",
        grouped(stream.peak_processes),
        size(stream.peak_bytes),
        size(stream.peak_paged_bytes),
        size(report.memory_bytes),
        report.granule_bytes,
    );
    title.lines().try_for_each(|line| writeln!(text, "{}", fitted(line)))?;
    let [fit, compaction, numbers @ ..] = COLUMNS;
    let header = [fit, compaction].map(Cell::new).into_iter().chain(numbers.map(right));
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH).set_header(header);
    let paged = stream.peak_paged_bytes;
    for run in &report.runs {
        table.add_row(fit_cells(run, paged));
    }
    table.add_row(paging_cells(&report.paging, paged));
    for (column, width) in table.column_iter_mut().zip(WIDTHS) {
        column
            .set_padding((1, 0))
            .set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
    }
    writeln!(text, "{}\n", table.trim_fmt())?;
    for run in &report.runs {
        if let Some(refusal) = &run.first_though_free {
            writeln!(text, "{}", fitted(&first(run, refusal)))?;
        }
    }
    writeln!(text, "{}\n", fitted(&waste(&report.paging)))
}

/// With decimals, as long as they matter.
fn few(mean: f64) -> Cell {
    right(if mean < 100.0 { format!("{mean:.2}") } else { format!("{mean:.0}") })
}

fn percent(part: f64) -> String {
    format!("{:.1}%", part * 100.0)
}

/// In hundredths of what paging needs, which is how it was sought.
fn needs(bytes: Option<u64>, paged: u64) -> Cell {
    let part = |bytes: u64| (u128::from(bytes) * 100 / u128::from(paged.max(1))).to_string() + "%";
    right(bytes.map_or("-".into(), part))
}

fn bytes(mean: f64) -> Cell {
    right(if mean < 10_000.0 { format!("{mean:.0} B") } else { size(mean as u64) })
}

fn fit_cells(run: &FitRun, paged: u64) -> Vec<Cell> {
    let compacts = |text: String| right(if run.compaction == "none" { "-".into() } else { text });
    vec![
        Cell::new(&run.fit),
        Cell::new(&run.compaction),
        right(grouped(run.refused)),
        right(grouped(run.refused_though_free)),
        right(percent(run.external_mean)),
        few(run.holes_mean),
        few(run.examined_mean),
        right(run.examined_max),
        bytes(run.internal_bytes_mean),
        compacts(size(run.moved_bytes)),
        compacts(grouped(run.compactions)),
        needs(run.needed_bytes, paged),
    ]
}

fn paging_cells(run: &PagingRun, paged: u64) -> Vec<Cell> {
    let none = || right("-");
    vec![
        Cell::new("paging"),
        Cell::new(""),
        right(grouped(run.refused)),
        right(grouped(run.refused_though_free)),
        none(),
        none(),
        none(),
        none(),
        bytes(run.internal_bytes_mean),
        none(),
        none(),
        needs(Some(run.needed_bytes), paged),
    ]
}

/// What the first refusal of a run was like.
fn first(run: &FitRun, refusal: &Refusal) -> String {
    let fit = match run.compaction.as_str() {
        "none" => run.fit.clone(),
        compaction => format!("{}, {compaction}", run.fit),
    };
    format!(
        " {fit}: process {} wanted {}; {} were free, the largest of {} holes had {}",
        grouped(refusal.request),
        size(refusal.bytes),
        size(refusal.free_bytes),
        grouped(refusal.holes),
        size(refusal.largest_bytes),
    )
}

fn waste(run: &PagingRun) -> String {
    format!(
        " paging: {:.0} bytes a process lie unused in last pages, {:.2}% of what it was given",
        run.internal_bytes_mean,
        run.internal_share * 100.0,
    )
}
