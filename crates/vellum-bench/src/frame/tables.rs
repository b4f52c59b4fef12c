//! From figures by allocator to rows by section.
//!
//! ```text
//!   figure  +  who, side            section     ours        peers
//!                                   &mut        exclusive   Side::Exclusive
//!   (side, name) -> value    -->    shared      cached      Side::Shared
//!                                   no cache    uncached    Side::Shared
//! ```

use super::allocator::{Allocator, Side};
use super::ours::{Cached, Exclusive, Uncached};
use super::rows::Label;
use crate::report::{Better, Row, rounded, thousandths};
use std::collections::BTreeMap;

/// The sections of the report: its name, which mode of ours, and whom it is measured against.
const SECTIONS: [(&str, &str, Side); 3] = [
    ("one CPU has it to itself (&mut)", Exclusive::NAME, Side::Exclusive),
    ("CPUs share it, ours with per-CPU caches", Cached::NAME, Side::Shared),
    ("CPUs share it, ours without caches", Uncached::NAME, Side::Shared),
];

/// One figure of every allocator.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) label: Label,
    pub(super) better: Option<Better>,
    /// Side, name, value; NaN where there is none.
    pub(super) figures: Vec<(Side, &'static str, f64)>,
}

/// The rows of all sections, section by section.
pub(super) fn rows(columns: &[Column]) -> Vec<Row> {
    SECTIONS
        .iter()
        .flat_map(|section| columns.iter().filter_map(|column| row(section, column)))
        .collect()
}

/// `None` if our figure is missing.
fn row(&(section, ours, side): &(&str, &str, Side), column: &Column) -> Option<Row> {
    let names = SECTIONS.map(|(_, name, _)| name);
    let rounded = if column.label.row == "meta" { thousandths } else { rounded };
    let figure = |name: &str| {
        let found = column.figures.iter().find(|(_, other, _)| *other == name);
        found.map(|(_, _, value)| rounded(*value)).filter(|value| value.is_finite())
    };
    let peers: BTreeMap<_, _> = column
        .figures
        .iter()
        .filter(|(other, name, _)| *other == side && !names.contains(name))
        .filter_map(|(_, name, _)| Some(((*name).to_owned(), figure(name)?)))
        .collect();
    Some(Row {
        section: section.to_owned(),
        row: column.label.title.to_owned(),
        unit: column.label.unit.to_owned(),
        better: column.better,
        yardstick: None,
        ours: figure(ours)?,
        peers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mode_of_ours_meets_the_peers_of_its_side() {
        let label = Label { row: "a", title: "a: frame", unit: "ns" };
        let figures = vec![
            (Side::Exclusive, Exclusive::NAME, 1.0),
            (Side::Exclusive, "alone", 4.0),
            (Side::Shared, Cached::NAME, 2.0),
            (Side::Shared, Uncached::NAME, 3.0),
            (Side::Shared, "locked", 9.0),
            (Side::Shared, "slow", f64::NAN),
        ];
        let rows = rows(&[Column { label, better: None, figures }]);
        let told: Vec<_> = rows.iter().map(|row| (row.ours, row.peers.clone())).collect();
        let peers = |name: &str, value| BTreeMap::from([(name.to_owned(), value)]);
        assert_eq!(
            told,
            [(1.0, peers("alone", 4.0)), (2.0, peers("locked", 9.0)), (3.0, peers("locked", 9.0))]
        );
    }

    #[test]
    fn what_was_computed_keeps_its_digits() {
        let figures = vec![(Side::Exclusive, Exclusive::NAME, 1.046_937)];
        let ours = |row| {
            let label = Label { row, title: "x", unit: "x" };
            rows(&[Column { label, better: None, figures: figures.clone() }])[0].ours
        };
        assert_eq!((ours("meta"), ours("a")), (1.047, 1.05));
    }

    #[test]
    fn a_section_without_our_figure_has_no_row() {
        let label = Label { row: "e", title: "e: 2 threads", unit: "ns" };
        let figures = vec![(Side::Shared, Cached::NAME, 2.0)];
        let rows = rows(&[Column { label, better: None, figures }]);
        assert_eq!(rows.len(), 1);
    }
}
