//! A report as a table for people, of at most 100 columns.
//!
//! ```text
//!   perl-hash: 24,000,000 events, 8,912 pages
//!   TLB reference: 310,051 L1D, 34 L1I, 99,222 L2 misses
//!   walk caches 21:32,30:4,39:2,48:2; cache 256k
//!    design          refs  p99  max  lines  misses  cycles      table  B/page    largest  Mev/s
//!    radix4          1.02    2    4   1.02   0.060    25.4    108 KiB    12.4      4 KiB    120
//! ```
//!
//! Columns are described in docs/report.md.

use crate::compare::Comparison;
use crate::report::{Report, Run, SweepAxis, WalkReport};
use comfy_table::{
    Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, Width, presets,
};
use core::fmt::Write;

mod parts;

/// The widest that a line gets.
pub const WIDTH: u16 = 100;

const COLUMNS: [&str; 11] = [
    "design", "refs", "p99", "max", "lines", "misses", "cycles", "table", "B/page", "largest",
    "Mev/s",
];

/// The least that each takes, with the blank before it, so that traces line up.
const WIDTHS: [u16; 11] = [18, 7, 5, 6, 7, 7, 8, 9, 9, 9, 6];

/// The tables of all parts.
#[must_use]
pub fn render(comparison: &Comparison) -> String {
    let mut text = render_runs(&comparison.report, &comparison.rates);
    // Writing to a string cannot fail.
    let _ = parts::render(&mut text, comparison);
    text
}

/// The tables of all traces; `rates` are millions of events a second, in the order of the runs.
fn render_runs(report: &Report, rates: &[Option<f64>]) -> String {
    let mut text = String::new();
    let rates = rates.iter().copied().chain(core::iter::repeat(None));
    let rows: Vec<_> = report.runs.iter().zip(rates).collect();
    // The runs of a trace begin with the first design; another trace may have the same name.
    let first = rows.first().map(|(run, _)| &run.design);
    for group in rows.chunk_by(|(a, _), (b, _)| {
        a.trace == b.trace && a.sweep == b.sweep && Some(&b.design) != first
    }) {
        // Writing to a string cannot fail.
        let _ = render_trace(&mut text, group);
    }
    text
}

fn render_trace(text: &mut String, rows: &[(&Run, Option<f64>)]) -> core::fmt::Result {
    let Some((first, _)) = rows.first() else { return Ok(()) };
    let (events, pages) = (grouped(first.events), grouped(first.pages));
    let mut title = format!("{}: {events} events, {pages} pages", first.trace);
    if let Some(point) = first.sweep {
        let what = match point.over {
            SweepAxis::L2 => "L2 entries",
            SweepAxis::Pages => "pages of data",
        };
        write!(title, "; sweep: {} {what}", grouped(point.value))?;
    }
    if let Some((run, tlb)) = rows.iter().find_map(|(run, _)| Some((run, run.tlb?))) {
        if let Some(switches) = run.switches {
            let mode = if run.asid { "with" } else { "without" };
            write!(title, ", {} switches {mode} asids", grouped(switches))?;
        }
        let [l1d, l1i, l2] = [tlb.l1d_misses, tlb.l1i_misses, tlb.l2_misses].map(grouped);
        write!(title, "\nTLB {}: {l1d} L1D, {l1i} L1I, {l2} L2 misses", run.tlb_preset)?;
        write!(title, "\nwalk caches {}; cache {}", run.walk_cache, run.cache)?;
        write!(title, "; the TLB reaches {}", size(tlb.l2_reach_bytes))?;
    }
    title.lines().try_for_each(|line| writeln!(text, "{}", fitted(line)))?;
    let [design, numbers @ ..] = COLUMNS;
    let header = core::iter::once(Cell::new(design)).chain(numbers.map(right));
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH).set_header(header);
    for &(run, rate) in rows {
        table.add_row(cells(run, rate));
    }
    for (column, width) in table.column_iter_mut().zip(WIDTHS) {
        column
            .set_padding((1, 0))
            .set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
    }
    writeln!(text, "{}", table.trim_fmt())?;
    for (run, _) in rows {
        if let Some(reason) = &run.unsupported {
            writeln!(text, "{}", fitted(&format!(" {}: not run: {reason}", run.design)))?;
        }
    }
    writeln!(text)
}

pub(crate) fn right(text: impl ToString) -> Cell {
    Cell::new(text.to_string()).set_alignment(CellAlignment::Right)
}

fn cells(run: &Run, rate: Option<f64>) -> Vec<Cell> {
    let walk = |f: &dyn Fn(&WalkReport) -> String| right(run.walk.as_ref().map_or("-".into(), f));
    let table = run.table.as_ref();
    vec![
        Cell::new(&run.design),
        walk(&|w| format!("{:.3}", w.refs_mean)),
        walk(&|w| w.refs_p99.to_string()),
        walk(&|w| w.refs_max.to_string()),
        walk(&|w| format!("{:.3}", w.lines_mean)),
        walk(&|w| format!("{:.3}", w.cache_misses_mean)),
        walk(&|w| format!("{:.1}", w.cycles_mean)),
        right(table.map_or("-".into(), |t| size(t.bytes))),
        right(table.map_or("-".into(), |t| bytes_per_page(t.bytes_per_page))),
        right(table.map_or("-".into(), |t| size(t.largest_contiguous_bytes))),
        right(rate.map_or("-".into(), |rate| format!("{rate:.0}"))),
    ]
}

/// A line cut to the width.
pub(crate) fn fitted(line: &str) -> String {
    let width = usize::from(WIDTH);
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width - 3).chain("...".chars()).collect()
}

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in the largest binary unit of which it is at least 10, or of which it is a whole number.
#[must_use]
pub fn size(n: u64) -> String {
    for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let whole = n >> shift;
        if whole >= 10 || (whole > 0 && n == whole << shift) {
            return format!("{whole} {unit}");
        }
    }
    format!("{n} B")
}

/// To a tenth of a byte, as far as anybody reads tenths.
fn bytes_per_page(bytes: f64) -> String {
    if bytes < 1e5 { format!("{bytes:.1}") } else { size(bytes as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{TableReport, TlbReport};

    fn run(design: &str) -> Run {
        Run {
            trace: "a-trace-with-a-name".into(),
            design: design.into(),
            tlb_preset: "cortex-a76".into(),
            walk_cache: "21:32,30:4,39:2,48:2".into(),
            cache: "256k".into(),
            asid: false,
            sweep: None,
            events: 24_000_000,
            pages: 1_234_567,
            unsupported: None,
            faults: Some(1_234_567),
            switches: Some(1000),
            tlb: Some(TlbReport {
                l1d_misses: 13_310_051,
                l1i_misses: 34,
                l2_misses: 1_234_567,
                l2_reach_bytes: 6 << 20,
            }),
            walk: Some(WalkReport {
                count: 1_234_567,
                refs_mean: 12.345,
                refs_p50: 12,
                refs_p99: 123,
                refs_max: 1234,
                lines_mean: 12.345,
                cache_misses_mean: 12.345,
                cycles_mean: 12_345.6,
            }),
            table: Some(TableReport {
                bytes: 300 << 30,
                bytes_per_page: 260_000.5,
                peak_bytes: 300 << 30,
                largest_contiguous_bytes: 256 << 30,
            }),
            structure: None,
        }
    }

    #[test]
    fn fits_100_columns_and_tells_everything() {
        let flat = Run {
            tlb: None,
            walk: None,
            unsupported: Some("its one table would be 256 GiB, in one piece".into()),
            ..run("flat")
        };
        let report = Report { runs: vec![run("hashed-clustered"), flat], ..Report::default() };
        let text = render_runs(&report, &[Some(123.4), None]);
        for line in text.lines() {
            assert!(line.chars().count() <= usize::from(WIDTH), "{line}");
        }
        for part in [
            "24,000,000 events",
            "1,234,567 pages",
            "1,000 switches without asids",
            "13,310,051 L1D",
            "hashed-clustered",
            "12345.6",
            "300 GiB",
            "253 KiB",
            "123\n",
            "flat: not run: its one table would be 256 GiB",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        assert_eq!(text.lines().count(), 8, "no row is wrapped:\n{text}");
    }

    #[test]
    fn traces_of_one_name_have_tables_of_their_own() {
        let titles = |designs: &[&str]| {
            let runs: Vec<_> = designs.iter().map(|design| run(design)).collect();
            let rates = vec![None; runs.len()];
            let text = render_runs(&Report { runs, ..Report::default() }, &rates);
            text.lines().filter(|line| line.starts_with("a-trace")).count()
        };
        assert_eq!(titles(&["flat", "radix4"]), 1);
        assert_eq!(titles(&["flat", "radix4", "flat", "radix4"]), 2);
        assert_eq!(titles(&["flat", "flat", "flat"]), 3);
    }

    #[test]
    fn sizes_keep_two_digits_or_are_exact() {
        let sizes = [0, 1023, 4096, 10 << 10, 110_592, 9 << 20, (9 << 20) + 1, 256 << 30];
        let texts = sizes.map(size);
        assert_eq!(
            texts,
            ["0 B", "1023 B", "4 KiB", "10 KiB", "108 KiB", "9 MiB", "9216 KiB", "256 GiB"]
        );
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
