//! The rows of a bench, as JSON on standard output: what `cargo xtask bench` reads.
//!
//! ```text
//!   {"schema":1,
//!    "rows":[{"section":"shared","row":"pair","unit":"ns","ours":2,"peers":{"x":9}}, ...],
//!    "notes":["..."]}
//! ```
//!
//! Rows of one section are shown as one table. A figure that a peer cannot have is left out of
//! `peers`. `"better":"higher"` marks rows in which more is better, and `"yardstick":"x"` those in
//! which `ours` is the figure of x, and several of ours are among the `peers`.

use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// What `cargo xtask bench` knows how to read.
const SCHEMA: u32 = 1;

/// All that a bench has to say.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Always what `cargo xtask bench` knows how to read.
    pub schema: u32,
    /// The measurements, in the order of the table.
    pub rows: Vec<Row>,
    /// Sentences below the tables.
    pub notes: Vec<String>,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Whom it is measured against, and in which mode.
    pub section: String,
    /// What is measured, in a few words.
    pub row: String,
    /// In what.
    pub unit: String,
    /// Which way is better; less, unless it says `higher`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub better: Option<Better>,
    /// Whose figure `ours` is, if it is not ours: the one that all others are shown as a share of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yardstick: Option<String>,
    /// Our figure.
    pub ours: f64,
    /// Theirs, by name.
    pub peers: BTreeMap<String, f64>,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is.
    Higher,
}

impl Report {
    /// One without rows.
    #[must_use]
    pub const fn new() -> Self {
        Self { schema: SCHEMA, rows: Vec::new(), notes: Vec::new() }
    }

    /// Writes it on standard output. A reader who has left is no error.
    pub fn print(&self) {
        let mut out = io::stdout().lock();
        let _ = serde_json::to_writer_pretty(&mut out, self);
        let _ = writeln!(out);
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

/// A figure to three digits, or to one behind the point: more is noise.
#[must_use]
pub fn rounded(figure: f64) -> f64 {
    if !figure.is_finite() || figure == 0.0 {
        return figure;
    }
    let digits = 2 - figure.abs().log10().floor() as i32;
    let scale = 10f64.powi(digits.clamp(0, 3));
    (figure * scale).round() / scale
}

/// A figure that is computed, and not measured, to three digits behind the point.
#[must_use]
pub fn thousandths(figure: f64) -> f64 {
    (figure * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_rounded_to_what_is_not_noise() {
        let pairs =
            [(1.2345, 1.23), (12.345, 12.3), (123.45, 123.0), (12345.6, 12346.0), (0.0, 0.0)];
        for (figure, expected) in pairs {
            assert_eq!(rounded(figure), expected);
        }
        assert_eq!(rounded(0.012_345), 0.012);
    }

    #[test]
    fn a_row_has_the_fields_that_are_read() {
        let row = Row {
            section: "shared".into(),
            row: "pair".into(),
            unit: "ns".into(),
            better: None,
            yardstick: None,
            ours: 2.0,
            peers: [("x".to_owned(), 9.0)].into(),
        };
        let higher = Row { better: Some(Better::Higher), ..row.clone() };
        let report = Report { rows: vec![row, higher], ..Report::new() };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["schema"], 1);
        assert_eq!(json["rows"][0]["peers"]["x"], 9.0);
        assert!(json["rows"][0].get("better").is_none());
        assert!(json["rows"][0].get("yardstick").is_none());
        assert_eq!(json["rows"][1]["better"], "higher");
    }
}
