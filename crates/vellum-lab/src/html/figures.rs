//! What the figures show: rows of a report, made into panels, numbers and notes.
//!
//! ```text
//!   figures/walks.rs     cost per walk, TLB sizes, sizes of data, switches, huge pages
//!   figures/tables.rs    bytes a page, operations, resizing, forks
//! ```
//!
//! # Invariants
//!
//! - A row without a measurement gives a bar or point without a value, and its reason as a note.
//! - A figure without rows has no panels; the page then says how to make it.

use super::Command;
use super::chart::{Bar, Plot, bars};
use crate::parts::Part;
use crate::report::Report;
use crate::table::grouped;

mod tables;
mod walks;

/// One figure of the page.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    /// Where links lead.
    pub(super) id: &'static str,
    /// Its title.
    pub(super) title: &'static str,
    /// What was measured.
    pub(super) lead: String,
    /// How to read it; markup of our own.
    pub(super) key: &'static str,
    /// `bars` or `lines`: how wide a panel is.
    pub(super) kind: &'static str,
    /// The drawings.
    pub(super) panels: Vec<Panel>,
    /// The same as numbers, and more.
    pub(super) numbers: Numbers,
    /// Why something is missing.
    pub(super) notes: Vec<String>,
    /// What makes it.
    pub(super) command: String,
}

/// One drawing.
#[derive(Clone, Debug)]
pub(super) struct Panel {
    /// What it is of.
    pub(super) title: String,
    /// What else to know; may be empty.
    pub(super) small: String,
    /// The drawing, as markup.
    pub(super) drawing: String,
}

/// A table, the first columns of which are names.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers {
    pub(super) names: usize,
    pub(super) header: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// What a figure has of its own; the rest is the same for all.
#[derive(Default)]
struct Body {
    lead: String,
    panels: Vec<Panel>,
    numbers: Numbers,
    notes: Vec<String>,
}

/// How a figure is drawn and named.
struct Plan {
    id: &'static str,
    title: &'static str,
    key: &'static str,
    kind: &'static str,
    part: Part,
    body: fn(&Report) -> Body,
}

const ONE_OF_MANY: &str = "One line is drawn before all others, which are pale.";

const PLANS: [Plan; 9] = [
    Plan {
        id: "walk",
        title: "Cost per walk",
        key: "Cycles a walk by the cache model; shorter is better.",
        kind: "bars",
        part: Part::Runs,
        body: walks::cost,
    },
    Plan {
        id: "sparsity",
        title: "Bytes per mapped page against sparsity",
        key: ONE_OF_MANY,
        kind: "lines",
        part: Part::Sparsity,
        body: tables::sparsity,
    },
    Plan {
        id: "tlb",
        title: "Misses against TLB size",
        key: ONE_OF_MANY,
        kind: "lines",
        part: Part::Tlb,
        body: walks::tlb,
    },
    Plan {
        id: "operations",
        title: "What operations cost",
        key: "Lines of 64 bytes a call. In front: written; behind, paler: touched (a bound from below).",
        kind: "bars",
        part: Part::Ops,
        body: tables::operations,
    },
    Plan {
        id: "resize",
        title: "Resize pauses",
        key: "Lines of 64 bytes that one call writes, those that it zeroes included. In front: 99 of 100 calls \
              write no more; behind, paler: the worst one.",
        kind: "bars",
        part: Part::Resize,
        body: tables::resize,
    },
    Plan {
        id: "switches",
        title: "Switches between processes",
        key: "Solid: with identifiers of address spaces. Dashed: each switch flushes. Pale: the other designs, \
              with identifiers.",
        kind: "lines",
        part: Part::Switches,
        body: walks::switches,
    },
    Plan {
        id: "huge",
        title: "Leaves of 2 MiB",
        key: "In front: a region becomes one leaf when 64 of its 512 pages are touched; behind, paler: 4 KiB alone.",
        kind: "bars",
        part: Part::Huge,
        body: walks::huge,
    },
    Plan {
        id: "forks",
        title: "A program that forks",
        key: "Shorter is better.",
        kind: "bars",
        part: Part::Forks,
        body: tables::forks,
    },
    Plan {
        id: "sweep",
        title: "Sweep",
        key: ONE_OF_MANY,
        kind: "lines",
        part: Part::Runs,
        body: walks::sweep,
    },
];

/// The figures of a report. A sweep has one if it was asked for; the others are always there.
pub(super) fn of(report: &Report, command: &Command) -> Vec<Figure> {
    let is_swept = report.runs.iter().any(|run| run.sweep.is_some());
    let figure = |plan: &Plan| {
        let Body { lead, panels, numbers, notes } = (plan.body)(report);
        // Joining the same reports again would not bring what none of them has.
        let command = match panels.is_empty() && command.is_merge {
            true => Command::default().of(plan.part),
            false => command.of(plan.part),
        };
        Figure {
            id: plan.id,
            title: plan.title,
            lead,
            key: plan.key,
            kind: plan.kind,
            panels,
            numbers,
            notes,
            command,
        }
    };
    PLANS.iter().filter(|plan| plan.id != "sweep" || is_swept).map(figure).collect()
}

/// Different values, in the order in which they come.
fn different<T: PartialEq>(values: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for value in values {
        if !seen.contains(&value) {
            seen.push(value);
        }
    }
    seen
}

/// A panel with a bar for each row: its name, the bar in front and the one behind.
fn bar_panel(
    (title, small): (&str, String),
    label: &str,
    rows: impl IntoIterator<Item = (String, Option<f64>, Option<f64>)>,
) -> Panel {
    let rows = rows.into_iter().map(|(name, front, back)| Bar { name, front, back });
    let rows: Vec<_> = rows.collect();
    Panel { title: title.to_owned(), small, drawing: bars(&rows, &format!("{title}: {label}")) }
}

/// A panel for each line of a plot.
fn line_panels(plot: &Plot, small: &str, label: &str) -> Vec<Panel> {
    let panel = |(i, name): (usize, &String)| Panel {
        title: name.clone(),
        small: small.to_owned(),
        drawing: plot.draw(i, &format!("{name}: {label}")),
    };
    plot.lines.iter().map(|line| &line.name).enumerate().map(panel).collect()
}

/// One line for each reason: who, where, why.
fn reasons<'r>(rows: impl Iterator<Item = (&'r str, String, Option<&'r String>)>) -> Vec<String> {
    let mut notes: Vec<(&str, &String, Vec<String>)> = Vec::new();
    for (design, place, reason) in rows {
        let Some(reason) = reason else { continue };
        match notes.iter_mut().find(|(who, why, _)| *who == design && *why == reason) {
            Some((_, _, places)) if places.contains(&place) => {}
            Some((_, _, places)) => places.push(place),
            None => notes.push((design, reason, vec![place])),
        }
    }
    let note = |(who, why, mut places): (&str, &String, Vec<String>)| {
        places.retain(|place| !place.is_empty());
        let places =
            if places.is_empty() { String::new() } else { format!(" ({})", places.join(", ")) };
        format!("{who}: not run: {why}{places}")
    };
    notes.into_iter().map(note).collect()
}

fn texts(header: &[&str]) -> Vec<String> {
    header.iter().map(|text| (*text).to_owned()).collect()
}

/// A count in a table.
fn count(n: Option<u64>) -> String {
    n.map_or_else(|| "\u{2013}".to_owned(), grouped)
}

/// A mean in a table.
fn mean(n: Option<f64>) -> String {
    n.map_or_else(|| "\u{2013}".to_owned(), |n| format!("{n:.3}"))
}
