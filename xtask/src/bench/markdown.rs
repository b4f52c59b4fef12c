//! All sections as one Markdown table: ours, and the peer that comes nearest or is furthest ahead.
//!
//! ```text
//!   | row | alone | shared |
//!   |---|---|---|
//!   | pair (ns) | 5; x 20 (4.00x) | 6; y 3 (0.50x) |
//!   | 2 threads (ns) | - | 8; y 9 (1.12x) |
//! ```

use super::Row;
use super::table::{cell, sections};
use core::fmt::Write as _;

/// The table, without an empty line behind it.
pub(super) fn shown(rows: &[Row]) -> String {
    let sections = sections(rows);
    let mut text =
        format!("| row | {} |\n|---{}|", sections.join(" | "), "|---".repeat(sections.len()));
    for (name, unit) in names(rows) {
        let found = |section: &&str| {
            let row = rows.iter().find(|row| row.section == *section && row.row == name);
            row.map_or_else(|| "-".to_owned(), beside_nearest)
        };
        let cells: Vec<_> = sections.iter().map(found).collect();
        let _ = write!(text, "\n| {name} ({unit}) | {} |", cells.join(" | "));
    }
    text
}

/// Each row once, with its unit; one that some sections lack stands behind what it follows where
/// it is.
fn names(rows: &[Row]) -> Vec<(&str, &str)> {
    let mut names: Vec<(&str, &str)> = Vec::new();
    let mut before: Option<&Row> = None;
    for row in rows {
        if !names.iter().any(|(name, _)| *name == row.row) {
            let last = before.filter(|last| last.section == row.section);
            let at = last.and_then(|last| names.iter().position(|(name, _)| *name == last.row));
            names.insert(at.map_or(0, |at| at + 1), (&row.row, &row.unit));
        }
        before = Some(row);
    }
    names
}

fn beside_nearest(row: &Row) -> String {
    let ratios = row.peers.iter().filter_map(|(peer, _)| Some((peer, row.ratio(peer)?)));
    match ratios.min_by(|(_, a), (_, b)| a.total_cmp(b)) {
        Some((peer, _)) => format!("{}; {peer} {}", row.ours, cell(row, peer)),
        None => row.ours.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows;
    use super::*;
    use serde_json::json;

    #[test]
    fn each_row_shows_the_peer_that_comes_nearest_in_each_section() {
        let report = json!({"schema": 1, "rows": [
            {"section": "a", "row": "pair", "unit": "ns", "ours": 5, "peers": {"x": 20, "z": 30}},
            {"section": "a", "row": "had", "unit": "%", "ours": 9, "better": "higher",
                "peers": {"x": 3, "z": 6}},
            {"section": "b", "row": "pair", "unit": "ns", "ours": 6, "peers": {"y": 3, "x": 7}},
            {"section": "b", "row": "threads", "unit": "ns", "ours": 8, "peers": {}},
            {"section": "b", "row": "had", "unit": "%", "ours": 9, "better": "higher",
                "peers": {"y": 12}},
        ]});
        let expected = "\
| row | a | b |
|---|---|---|
| pair (ns) | 5; x 20 (4.00x) | 6; y 3 (0.50x) |
| threads (ns) | - | 8 |
| had (%) | 9; z 6 (1.50x) | 9; y 12 (0.75x) |";
        assert_eq!(shown(&rows(&report).unwrap()), expected);
    }
}
