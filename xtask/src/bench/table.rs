//! Rows as tables: one for each section, a line for each allocator (or table, or whatever is
//! measured), a column for each row, as many as fit side by side.
//!
//! ```text
//!   shared
//!   |       | pair       | batch      |
//!   |       | ns         | ns         |
//!   |-------+------------+------------|
//!   | ours  | 5          | 7          |
//!   | x     | 20 (4.00x) | 6 (0.86x)  |
//!   of 2 comparisons: ahead in 1, level (within 3%) in 0, behind in 1
//!   behind x: batch (0.86x)
//! ```
//!
//! Where there is a yardstick, its name is in the place of `ours`, the shares are of its figure, and
//! the verdict counts for each of the others in how many rows it takes no more.

use super::Row;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use core::fmt::Write as _;

/// The most columns of text.
const WIDTH: usize = 100;

/// Ratios that are this near to 1 are level: less than what noise does to them.
const LEVEL: f64 = 0.03;

/// The first line.
fn first(row: &Row) -> &str {
    row.yardstick.as_deref().unwrap_or("ours")
}

/// All tables, each with its verdict.
pub(super) fn shown(rows: &[Row]) -> String {
    let mut text = String::new();
    for section in sections(rows) {
        let rows: Vec<_> = rows.iter().filter(|row| row.section == section).collect();
        if !section.is_empty() {
            let _ = writeln!(text, "\n{section}");
        }
        for rows in fitting(&rows) {
            let _ = writeln!(text, "{}\n", table(rows));
        }
        match rows.first().and_then(|row| row.yardstick.as_deref()) {
            Some(yardstick) => text += &within(yardstick, &rows),
            None => text += &verdict(&rows),
        }
    }
    text += match rows.iter().any(|row| row.yardstick.is_some()) {
        true => "(in brackets: how many times the first line's figure it is)",
        false => "(in brackets: how many times the peer's figure is worse than ours)",
    };
    text
}

/// The sections, each once.
pub(super) fn sections(rows: &[Row]) -> Vec<&str> {
    let mut sections: Vec<&str> = Vec::new();
    for row in rows {
        if !sections.contains(&row.section.as_str()) {
            sections.push(&row.section);
        }
    }
    sections
}

/// The peers of some rows, each once.
pub(super) fn peers<'a>(rows: &[&'a Row]) -> Vec<&'a str> {
    let mut peers: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.peers) {
        if !peers.contains(&name.as_str()) {
            peers.push(name);
        }
    }
    peers
}

/// What a peer has in a row, and how far behind ours it is.
pub(super) fn cell(row: &Row, peer: &str) -> String {
    match (row.figure(peer), row.ratio(peer)) {
        (None, _) => "-".to_owned(),
        (Some(value), None) => value.to_string(),
        (Some(value), Some(ratio)) if ratio >= 100.0 => format!("{value} ({ratio:.0}x)"),
        (Some(value), Some(ratio)) => format!("{value} ({ratio:.2}x)"),
    }
}

/// The rows in stretches that fit beside each other.
fn fitting<'r, 'a>(rows: &'r [&'a Row]) -> Vec<&'r [&'a Row]> {
    // "| " before each column, " " after it, "|" at the end.
    let widest = |texts: &mut dyn Iterator<Item = usize>| texts.max().unwrap_or_default() + 3;
    let peers = peers(rows);
    let first_width = rows.iter().map(|row| first(row).chars().count());
    let names = widest(&mut peers.iter().map(|name| name.chars().count()).chain(first_width));
    let mut stretches = Vec::new();
    let (mut from, mut used) = (0, names + 1);
    for (index, row) in rows.iter().enumerate() {
        let cells = peers.iter().map(|peer| cell(row, peer).chars().count());
        let head = [row.row.chars().count(), row.unit.chars().count(), row.ours.to_string().len()];
        let width = widest(&mut cells.chain(head));
        if used + width > WIDTH && index > from {
            stretches.push(&rows[from..index]);
            (from, used) = (index, names + 1);
        }
        used += width;
    }
    stretches.push(&rows[from..]);
    stretches
}

fn table(rows: &[&Row]) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    let line = |first: &str, rest: &dyn Fn(&Row) -> String| -> Vec<String> {
        core::iter::once(first.to_owned()).chain(rows.iter().map(|row| rest(row))).collect()
    };
    table.set_header(line("", &|row| format!("{}\n{}", row.row, row.unit)));
    table.add_row(line(rows.first().map_or("", |row| first(row)), &|row| row.ours.to_string()));
    for peer in peers(rows) {
        table.add_row(line(peer, &|row| cell(row, peer)));
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// How many ratios favour us, how many nobody, and which do not.
fn verdict(rows: &[&Row]) -> String {
    let [mut ahead, mut level, mut lag] = [0; 3];
    let mut behind = String::new();
    for peer in peers(rows) {
        let ratios = rows.iter().filter_map(|row| Some((row, row.ratio(peer)?)));
        let mut lost = Vec::new();
        for (row, ratio) in ratios {
            if ratio > 1.0 + LEVEL {
                ahead += 1;
            } else if ratio >= 1.0 - LEVEL {
                level += 1;
            } else {
                lag += 1;
                lost.push(format!("{} ({ratio:.2}x)", row.row));
            }
        }
        if !lost.is_empty() {
            let _ = writeln!(behind, "{}", wrapped(&format!("behind {peer}: {}", lost.join(", "))));
        }
    }
    let (all, within) = (ahead + level + lag, LEVEL * 100.0);
    format!(
        "of {all} comparisons: ahead in {ahead}, level (within {within}%) in {level}, behind in {lag}\n{behind}"
    )
}

/// In how many rows each takes no more than the yardstick.
fn within(yardstick: &str, rows: &[&Row]) -> String {
    let count = |peer: &&str| {
        let ratios: Vec<_> = rows.iter().filter_map(|row| row.ratio(peer)).collect();
        let met = ratios.iter().filter(|&&ratio| ratio <= 1.0).count();
        format!("{peer} in {met} of {}", ratios.len())
    };
    let counts: Vec<_> = peers(rows).iter().map(count).collect();
    wrapped(&format!("at most 1.00x of {yardstick}: {}", counts.join(", "))) + "\n"
}

/// The text in lines that fit; all but the first are indented.
pub(super) fn wrapped(text: &str) -> String {
    let mut lines = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let len = word.chars().count();
        if used > 0 && used + 1 + len > WIDTH {
            lines += "\n    ";
            used = 4;
        } else if used > 0 {
            lines.push(' ');
            used += 1;
        }
        lines += word;
        used += len;
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(section: &str, name: &str, ours: f64, peers: &[(&str, f64)]) -> Row {
        Row {
            section: section.to_owned(),
            row: name.to_owned(),
            unit: "ns".to_owned(),
            yardstick: None,
            ours,
            peers: peers.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
            higher_is_better: false,
        }
    }

    fn cells(line: &str) -> Vec<String> {
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    }

    #[test]
    fn a_table_has_a_line_for_ours_and_for_each_peer_with_its_ratio() {
        let rows =
            [row("", "pair", 5.0, &[("x", 20.0), ("y", 4.0)]), row("", "fill", 2.0, &[("y", 3.0)])];
        let text = shown(&rows);
        let lines: Vec<_> = text.lines().map(cells).collect();
        assert_eq!(lines[0][1..4], ["", "pair", "fill"]);
        assert_eq!(lines[1][1..4], ["", "ns", "ns"]);
        assert_eq!(lines[3][1..4], ["ours", "5", "2"]);
        assert_eq!(lines[4][1..4], ["x", "20 (4.00x)", "-"]);
        assert_eq!(lines[5][1..4], ["y", "4 (0.80x)", "3 (1.50x)"]);
    }

    #[test]
    fn each_section_has_its_own_table_and_verdict() {
        let rows =
            [row("alone", "pair", 5.0, &[("x", 20.0)]), row("shared", "pair", 5.0, &[("y", 4.0)])];
        let text = shown(&rows);
        assert!(text.contains("\nalone\n") && text.contains("\nshared\n"), "{text}");
        let won = "of 1 comparisons: ahead in 1, level (within 3%) in 0, behind in 0\n";
        assert!(text.contains(won), "{text}");
        let lost = "ahead in 0, level (within 3%) in 0, behind in 1\nbehind y: pair (0.80x)";
        assert!(text.contains(lost), "{text}");
    }

    #[test]
    fn what_differs_by_less_than_noise_is_level() {
        let figures = [("a", 96.0), ("b", 98.0), ("c", 100.0), ("d", 102.0), ("e", 104.0)];
        let text = shown(&[row("", "pair", 100.0, &figures)]);
        assert!(text.contains("ahead in 1, level (within 3%) in 3, behind in 1\n"), "{text}");
        assert!(!text.contains("behind b"), "{text}");
    }

    #[test]
    fn rows_that_do_not_fit_go_into_a_table_below_and_no_line_is_too_long() {
        let names: Vec<_> = (0..12).map(|n| format!("row number {n}")).collect();
        let peers = [("a-peer-with-a-long-name", 123.0), ("another", 7.5)];
        let rows: Vec<_> = names.iter().map(|name| row("s", name, 3.0, &peers)).collect();
        let text = shown(&rows);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(names.iter().all(|name| text.contains(name.as_str())), "{text}");
        assert_eq!(text.matches("| ours").count(), 3);
    }

    #[test]
    fn others_are_shown_as_shares_of_a_yardstick() {
        let with = |ours, figures: &[(&str, f64)]| {
            let yardstick = Some("stick".to_owned());
            Row { yardstick, ..row("s", "hit", ours, figures) }
        };
        let text = shown(&[with(4.0, &[("a", 2.0), ("b", 8.0)]), with(8.0, &[("a", 9.0)])]);
        for part in ["stick", "2 (0.50x)", "8 (2.00x)", "the first line's figure"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("at most 1.00x of stick: a in 1 of 2, b in 0 of 1\n"), "{text}");
        assert!(!text.contains("ours") && !text.contains("ahead"), "{text}");
    }

    #[test]
    fn long_sentences_are_wrapped_at_words() {
        let text = wrapped(&"word ".repeat(60));
        assert!(text.lines().count() > 2 && text.lines().all(|line| line.len() <= WIDTH));
        assert_eq!(text.split_whitespace().count(), 60);
    }
}
