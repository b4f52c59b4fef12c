//! The tables of the parts that are not runs.
//!
//! ```text
//!   operations: lines changed, a call; fork and exit are of 16,384 pages
//!    design          unmap   map  fault  prot  unmap/1k  ...
//!    radix4            2.0   2.0    2.0   1.0       126
//! ```

use super::{WIDTH, fitted, grouped, right, size};
use crate::compare::Comparison;
use crate::designs::structure::StructureReport;
use crate::parts::forks::ForksReport;
use crate::parts::huge::HugeReport;
use crate::parts::ops::{AliasRefs, Operation, OpsReport};
use crate::parts::resize::{Phase, ResizeReport};
use crate::parts::sparsity::SparsityReport;
use crate::parts::switches::SwitchesReport;
use crate::parts::tlb::TlbSizeReport;
use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Table, Width, presets};
use core::fmt::{Result, Write};

/// Everything but runs.
pub(super) fn render(text: &mut String, comparison: &Comparison) -> Result {
    let report = &comparison.report;
    operations(text, &report.ops, &comparison.nanos)?;
    sparsity(text, &report.sparsity)?;
    resize(text, &report.resize)?;
    switches(text, &report.switches)?;
    huge(text, &report.huge)?;
    forks(text, &report.forks)?;
    tlb(text, &report.tlb)
}

/// A title, a header that begins with `first`, and rows of a name and numbers.
fn block(
    text: &mut String,
    (first, title): (&str, &str),
    header: &[String],
    rows: impl IntoIterator<Item = (String, Vec<String>)>,
) -> Result {
    writeln!(text, "{}", fitted(title))?;
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH);
    table.set_header(core::iter::once(Cell::new(first)).chain(header.iter().map(right)));
    for (name, numbers) in rows {
        table.add_row(core::iter::once(Cell::new(name)).chain(numbers.iter().map(right)));
    }
    for (i, column) in table.column_iter_mut().enumerate() {
        let least = Width::Fixed(if i == 0 { 19 } else { 7 });
        column.set_padding((1, 0)).set_constraint(ColumnConstraint::LowerBoundary(least));
    }
    writeln!(text, "{}\n", table.trim_fmt())
}

/// Three digits or more, in a unit that keeps it short.
fn short(n: f64) -> String {
    match n {
        n if n >= 1e7 => format!("{:.0}M", n / 1e6),
        n if n >= 1e5 => format!("{:.0}k", n / 1e3),
        n if n >= 100.0 => format!("{n:.0}"),
        n if n >= 10.0 => format!("{n:.1}"),
        n => format!("{n:.2}"),
    }
}

/// `10000` as `10k`.
fn thousands(n: u64) -> String {
    match n {
        n if n.is_multiple_of(1_000_000) => format!("{}M", n / 1_000_000),
        n if n.is_multiple_of(1000) => format!("{}k", n / 1000),
        n => n.to_string(),
    }
}

fn or_dash<T>(value: Option<T>, f: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), f)
}

/// A count of an operation.
type Count = fn(&Operation) -> f64;

fn operations(text: &mut String, ops: &[OpsReport], nanos: &[Vec<f64>]) -> Result {
    let Some(first) = ops.iter().find(|row| !row.operations.is_empty()) else { return Ok(()) };
    let name = |op: &Operation| op.name.replace("_1000", "/1k").replace("protect", "prot");
    let header: Vec<_> = first.operations.iter().map(name).collect();
    let pages = grouped(first.pages);
    let counts: [(&str, Count); 3] = [
        ("lines written", |op| op.lines_written),
        ("lines touched", |op| op.lines_touched),
        ("accesses to table memory", |op| op.accesses),
    ];
    for (what, count) in counts {
        let numbers = |row: &OpsReport| row.operations.iter().map(|op| short(count(op))).collect();
        let rows = ops.iter().map(|row| (row.design.clone(), numbers(row)));
        let title = format!("operations: {what}, a call; fork and exit are of {pages} pages");
        block(text, ("design", &title), &header, rows)?;
    }
    sharing(text, ops)?;
    if nanos.iter().all(Vec::is_empty) {
        return Ok(());
    }
    let numbers = |nanos: &Vec<f64>| nanos.iter().map(|&n| short(n)).collect();
    let rows = ops.iter().zip(nanos).map(|(row, nanos)| (row.design.clone(), numbers(nanos)));
    let title = "operations: nanoseconds a call, of this machine and day; not in the report";
    block(text, ("design", title), &header, rows)
}

/// What mapping a frame twice costs, and which leaves there are.
fn sharing(text: &mut String, ops: &[OpsReport]) -> Result {
    let header = ["alone", "parent", "child", "B/page", "leaves of"].map(str::to_owned);
    let row = |row: &OpsReport| {
        let refs = |f: fn(AliasRefs) -> f64| or_dash(row.alias_refs, |refs| short(f(refs)));
        let sizes: Vec<_> = row.leaf_shifts.iter().map(|shift| size(1 << shift)).collect();
        let numbers = vec![
            refs(|refs| refs.alone),
            refs(|refs| refs.parent),
            refs(|refs| refs.child),
            or_dash(row.fork_bytes_per_page, short),
            sizes.join(", "),
        ];
        (row.design.clone(), numbers)
    };
    let title =
        "sharing: entries a walk reads without walk caches, before and after a fork; bytes it adds";
    block(text, ("design", title), &header, ops.iter().map(row))
}

/// A block with a row for each design and a column for each `column` of the rows, in the order in
/// which they come.
fn grid<R, C: PartialEq>(
    text: &mut String,
    (first, title, rows): (&str, &str, &[R]),
    (design, column): (impl Fn(&R) -> &str, impl Fn(&R) -> C),
    name: impl Fn(&C) -> String,
    cell: impl Fn(&R) -> Option<String>,
) -> Result {
    let (mut designs, mut columns): (Vec<&str>, Vec<C>) = (Vec::new(), Vec::new());
    for row in rows {
        if !designs.contains(&design(row)) {
            designs.push(design(row));
        }
        let column = column(row);
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    let number = |wanted: &str, at: &C| {
        let row = rows.iter().find(|row| design(row) == wanted && column(row) == *at);
        or_dash(row.and_then(&cell), |text| text)
    };
    let header: Vec<_> = columns.iter().map(name).collect();
    let row = |design: &&str| {
        ((*design).to_owned(), columns.iter().map(|column| number(design, column)).collect())
    };
    block(text, (first, title), &header, designs.iter().map(row))
}

fn sparsity(text: &mut String, rows: &[SparsityReport]) -> Result {
    let Some(first) = rows.first() else { return Ok(()) };
    let title = format!(
        "sparsity: bytes a page, mean of 8 sizes up to {} pages; so many together in each 2M or 1G",
        grouped(first.pages)
    );
    grid(
        text,
        ("design", &title, rows),
        (|row| &row.design, |row| (row.pages_per_region, row.region_bytes)),
        |(pages, bytes)| {
            format!("{pages}/{}", size(*bytes).replace(" MiB", "M").replace(" GiB", "G"))
        },
        |row| match (row.bytes_per_page_mean, row.bytes_per_page) {
            (Some(n), _) => Some(format!("{n:.1}")),
            (None, would) => would.map(|n| size(n as u64)),
        },
    )
}

fn resize(text: &mut String, rows: &[ResizeReport]) -> Result {
    let Some(first) = rows.first() else { return Ok(()) };
    let header = ["fill", "p99", "pause", "moved", "drain", "p99", "pause", "full", "emptied"];
    let phase = |phase: Option<Phase>| {
        [
            or_dash(phase, |p| short(p.lines_written_mean)),
            or_dash(phase, |p| p.lines_written_p99.to_string()),
            or_dash(phase, |p| p.lines_written_max.to_string()),
            or_dash(phase, |p| short(p.lines_moved_total as f64)),
        ]
    };
    let row = |row: &ResizeReport| {
        let [mean, p99, pause, ..] = phase(row.drain);
        let bytes = [or_dash(row.bytes_full, size), or_dash(row.bytes_after, size)];
        let numbers = phase(row.fill).into_iter().chain([mean, p99, pause]).chain(bytes);
        (row.design.clone(), numbers.collect())
    };
    let title = format!(
        "resize: lines written a call, {} pages in and out; a pause is the worst call",
        grouped(first.pages)
    );
    block(text, ("design", &title), &header.map(str::to_owned), rows.iter().map(row))?;
    structure(text, rows)
}

/// How global tables were filled when they were full.
fn structure(text: &mut String, rows: &[ResizeReport]) -> Result {
    let filled: Vec<_> = rows.iter().filter_map(|row| Some((row, row.structure?))).collect();
    let Some((first, _)) = filled.first() else { return Ok(()) };
    let header = ["places", "used", "overflow", "displaced", "rehashes"].map(str::to_owned);
    let row = |(row, filled): &(&ResizeReport, StructureReport)| {
        let numbers = vec![
            grouped(filled.places),
            or_dash(filled.used, grouped),
            or_dash(filled.overflow, grouped),
            or_dash(filled.displaced, grouped),
            grouped(filled.rehashes),
        ];
        (row.design.clone(), numbers)
    };
    let title =
        format!("structure: tables shared by all spaces, with {} pages", grouped(first.pages));
    block(text, ("design", &title), &header, filled.iter().map(row))
}

fn switches(text: &mut String, rows: &[SwitchesReport]) -> Result {
    let Some(first) = rows.first() else { return Ok(()) };
    let title = format!("switches: walk cycles an event, by quantum; {}", first.trace);
    grid(
        text,
        ("design", &title, rows),
        (|row| &row.design, |row| (row.quantum, row.asid)),
        |(quantum, asid)| {
            format!("{}/{}", thousands(*quantum), if *asid { "asid" } else { "flush" })
        },
        |row| row.walk_cycles_per_event.map(|n| format!("{n:.3}")),
    )
}

fn huge(text: &mut String, rows: &[HugeReport]) -> Result {
    for rows in rows.chunk_by(|a, b| a.trace == b.trace) {
        let Some(first) = rows.first() else { continue };
        let title = format!(
            "huge pages: walk cycles an event; 2 MiB leaves off, or once so many pages are touched; {}",
            first.trace
        );
        grid(
            text,
            ("design", &title, rows),
            (|row| &row.design, |row| row.touched),
            |touched| touched.map_or_else(|| "off".to_owned(), |n| format!("at-{n}")),
            |row| row.walk_cycles_per_event.map(|n| format!("{n:.3}")),
        )?;
    }
    Ok(())
}

fn forks(text: &mut String, rows: &[ForksReport]) -> Result {
    let Some(first) = rows.first() else { return Ok(()) };
    let header = ["copies", "reuses", "walks", "refs", "cycles", "table", "peak"];
    let row = |row: &ForksReport| {
        let numbers = [
            or_dash(row.copies, grouped),
            or_dash(row.reuses, grouped),
            or_dash(row.walks, grouped),
            or_dash(row.refs_mean, |n| format!("{n:.3}")),
            or_dash(row.walk_cycles_per_access, |n| format!("{n:.3}")),
            or_dash(row.table_bytes, size),
            or_dash(row.table_peak_bytes, size),
        ];
        (row.design.clone(), numbers.to_vec())
    };
    let title = format!(
        "forks: {} of a program of {} pages, {} accesses; cycles of walks an access",
        first.forks,
        grouped(first.pages),
        grouped(first.accesses)
    );
    block(text, ("design", &title), &header.map(str::to_owned), rows.iter().map(row))
}

fn tlb(text: &mut String, rows: &[TlbSizeReport]) -> Result {
    let Some(first) = rows.first() else { return Ok(()) };
    let title = format!(
        "TLB: walks for 1,000 events, by entries of the second level; else as {}",
        first.tlb_preset
    );
    grid(
        text,
        ("trace", &title, rows),
        (|row| &row.trace, |row| row.l2_entries),
        |entries| grouped(u64::from(*entries)),
        |row| row.misses_per_1000().map(short),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::designs::DESIGNS;
    use crate::parts::{ops, resize, sparsity};
    use crate::report::Report;

    #[test]
    fn every_part_fits_100_columns() {
        let designs = || DESIGNS.iter();
        let (ops, nanos) = designs().map(|design| ops::measure(design).unwrap()).unzip();
        let spreads = sparsity::SPREADS.into_iter();
        let sparsity = spreads
            .flat_map(|spread| designs().map(move |d| sparsity::measure(d, spread).unwrap()))
            .collect();
        let switches = |asid| SwitchesReport {
            trace: "perl-hash+python-graph+cc1+sqlite3".into(),
            design: "hashed-clustered".into(),
            quantum: 1_000_000,
            asid,
            events: 8_000_000,
            unsupported: None,
            switches: Some(8_000),
            walks: Some(8_000_000),
            refs_mean: Some(4.0),
            walk_cycles_per_event: Some(600.0),
        };
        let quanta = |asid| {
            [1_000, 10_000, 100_000, 1_000_000]
                .map(|quantum| SwitchesReport { quantum, ..switches(asid) })
        };
        let report = Report {
            ops,
            sparsity,
            resize: designs().map(|design| resize::measure(design).unwrap()).collect(),
            switches: [quanta(true), quanta(false)].concat(),
            ..Report::default()
        };
        let mut text = String::new();
        render(&mut text, &Comparison { report, nanos, ..Comparison::default() }).unwrap();
        for line in text.lines() {
            assert!(line.chars().count() <= usize::from(WIDTH), "{line}\nin\n{text}");
        }
        // Five blocks of operations, one of each other part and one of structure, where trees are
        // missing: no row is wrapped.
        const TREES: usize = 5;
        let rows = 9 * (DESIGNS.len() + 3) - (DESIGNS.len() - 1) - TREES;
        assert_eq!(text.lines().count(), rows, "{text}");
    }
}
