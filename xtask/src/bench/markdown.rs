//! All sections as one Markdown table: ours, and the peer that comes nearest or is furthest ahead.
//!
//! ```text
//!   | row | alone | shared |
//!   |---|---|---|
//!   | pair (ns) | 5; x 20 (4.00x) | 6; y 3 (0.50x) |
//!   | 2 threads (ns) | - | 8; y 9 (1.12x) |
//! ```
//!
//! Where there is a yardstick, a table for each section: it and all that are measured by it.
//!
//! ```text
//!   time
//!
//!   | row | stick | a | b |
//!   |---|---|---|---|
//!   | pair (ns) | 4 | 2 (0.50x) | 8 (2.00x) |
//! ```

use super::Row;
use super::table::{cell, peers, sections};
use core::fmt::Write as _;

/// The table, without an empty line behind it.
pub(super) fn shown(rows: &[Row]) -> String {
    let sections = sections(rows);
    if let Some(yardstick) = rows.iter().find_map(|row| row.yardstick.as_deref()) {
        let tables: Vec<_> = sections.iter().map(|s| measured(yardstick, s, rows)).collect();
        return tables.join("\n\n");
    }
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

/// A section whose rows have a yardstick.
fn measured(yardstick: &str, section: &str, rows: &[Row]) -> String {
    let rows: Vec<_> = rows.iter().filter(|row| row.section == section).collect();
    let peers = peers(&rows);
    let rule = "|---".repeat(peers.len() + 2);
    let mut text = format!("{section}\n\n| row | {yardstick} | {} |\n{rule}|", peers.join(" | "));
    for row in rows {
        let cells: Vec<_> = peers.iter().map(|peer| cell(row, peer)).collect();
        let _ =
            write!(text, "\n| {} ({}) | {} | {} |", row.row, row.unit, row.ours, cells.join(" | "));
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
    #[test]
    fn a_yardstick_has_a_column_before_all_that_are_measured_by_it() {
        let report = json!({"schema": 1, "rows": [
            {"section": "s", "row": "hit", "unit": "ns", "yardstick": "stick", "ours": 4,
                "peers": {"a": 2, "b": 8}},
            {"section": "t", "row": "hit", "unit": "ns", "yardstick": "stick", "ours": 1,
                "peers": {"a": 2}},
        ]});
        let expected = "\
s

| row | stick | a | b |
|---|---|---|---|
| hit (ns) | 4 | 2 (0.50x) | 8 (2.00x) |

t

| row | stick | a |
|---|---|---|
| hit (ns) | 1 | 2 (2.00x) |";
        assert_eq!(shown(&rows(&report).unwrap()), expected);
    }
}
