//! `bench NAME`: runs a bench program and shows its rows beside the peers'.
//!
//! ```text
//!   BENCHES: name -> package, binary
//!        |  cargo run --release, options
//!        v
//!   {"schema":1,"rows":[{"section":"shared","row":"pair","unit":"ns","ours":5,"peers":{"x":20}}]}
//!        |
//!        v
//!   shared      | pair        |
//!               | ns          |
//!   ours        | 5           |
//!   x           | 20 (4.00x)  |       above 1.00x: we are ahead
//! ```
//!
//! The program prints that JSON, and nothing else, on standard output; what it wants to say
//! meanwhile goes to standard error. Lower is better, unless the row has `"better":"higher"`.
//! `"notes"`, if there are any, are sentences to be shown below the tables.
//!
//! A row with `"yardstick":"x"` is not about one of ours beside its peers: `ours` is the figure of x,
//! and what several of ours and other peers take is shown as a share of it. Below 1.00x is better.

mod file;
mod markdown;
mod table;

use crate::process;
use crate::stop::{Result, Stop};
use crate::workspace::cargo;
use clap::Args;
use serde_json::Value;
use std::path::PathBuf;

/// A bench that can be asked for.
struct Bench {
    /// What one types.
    name: &'static str,
    /// The package that has it.
    package: &'static str,
    /// The kind of target, and its name: `["--bin", "x"]`, `["--example", "x"]`.
    target: [&'static str; 2],
}

/// That file, for a constant text as well.
macro_rules! frame_rows {
    () => {
        include_str!("../../crates/vellum-bench/src/frame/rows.txt")
    };
}

/// The same for another bench.
macro_rules! designs_rows {
    () => {
        include_str!("../../crates/vellum-bench/src/designs/rows.txt")
    };
}

/// And for another.
macro_rules! fault_rows {
    () => {
        include_str!("../../crates/vellum-bench/src/fault/rows.txt")
    };
}

/// And for another.
macro_rules! radix_rows {
    () => {
        include_str!("../../crates/vellum-bench/src/radix/rows.txt")
    };
}

/// And for another.
macro_rules! space_rows {
    () => {
        include_str!("../../crates/vellum-bench/src/space/rows.txt")
    };
}

/// And for another.
macro_rules! swap_rows {
    () => {
        include_str!("../../crates/vellum-bench/src/swap/rows.txt")
    };
}

/// Each crate adds its line here.
const BENCHES: &[Bench] = &[
    Bench { name: "designs", package: "vellum-bench", target: ["--bin", "designs"] },
    Bench { name: "fault", package: "vellum-bench", target: ["--bin", "fault"] },
    Bench { name: "frame", package: "vellum-bench", target: ["--bin", "frame"] },
    Bench { name: "radix", package: "vellum-bench", target: ["--bin", "radix"] },
    Bench { name: "space", package: "vellum-bench", target: ["--bin", "space"] },
    Bench { name: "swap", package: "vellum-bench", target: ["--bin", "swap"] },
];

/// Below the options that `--help` lists.
pub(crate) const EXAMPLES: &str = concat!(
    "Benches:
  designs       hashed and inverted tables beside hashbrown (docs/bench-designs.md)
  fault         the paging engine: faults and range operations, a page (docs/bench-fault.md)
  frame         vellum-frame beside the published frame allocators (docs/bench-frame.md)
  radix         vellum-radix beside the published page-table crates (docs/bench-radix.md)
  space         address spaces beside Linux, their map of regions beside published ones (docs/bench-space.md)
  swap          vellum-reclaim's policies beside published caches (docs/bench-swap.md)

Rows of designs, for --only:
",
    designs_rows!(),
    "
Rows of fault, for --only:
",
    fault_rows!(),
    "
Rows of frame, for --only:
",
    frame_rows!(),
    "
Rows of radix, for --only:
",
    radix_rows!(),
    "
Rows of space, for --only:
",
    space_rows!(),
    "
Rows of swap, for --only:
",
    swap_rows!(),
    "
Examples:
  cargo xtask bench frame
      every row, as tables
  cargo xtask bench frame --only a --only c --rounds 100
      two rows, more patiently
  cargo xtask bench frame --json rows.json
      the tables, and the rows for a program that reads them
  cargo xtask bench frame --markdown > figures.md
      one table for all sections, as docs/bench-frame.md has it
  cargo xtask bench radix --only seq --only instructions
      one row, and its instructions"
);

/// What the bench programs can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// A smoke run: whether the bench works; no figure means anything
    #[arg(long)]
    quick: bool,
    /// Measure only this row; may be repeated [default: all that are listed below]
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// The most rounds of each row [default: 25; with --quick 2]
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Write the rows to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print one Markdown table of ours and the nearest peer, to be pasted, instead of the tables
    #[arg(long)]
    markdown: bool,
}

impl Options {
    /// As the program takes them.
    fn words(&self) -> Vec<String> {
        let quick = self.quick.then(|| "--quick".to_owned());
        let only = self.only.iter().flat_map(|row| ["--only".to_owned(), row.clone()]);
        let rounds = self.rounds.iter().flat_map(|n| ["--rounds".to_owned(), n.to_string()]);
        quick.into_iter().chain(only).chain(rounds).collect()
    }
}

/// Runs one, prints the tables, and writes the file if one is asked for.
pub(crate) fn run(name: Option<&str>, options: &Options) -> Result {
    let bench = find(BENCHES, name)?;
    if let Some(path) = &options.json {
        file::check(path)?;
    }
    let name = bench.name;
    let mut program = cargo();
    program.args(["run", "--quiet", "--release", "--package", bench.package]);
    program.args(bench.target).arg("--").args(options.words());
    let mut text = String::new();
    let status = process::each_line(&mut program, |line| {
        text += line;
        text.push('\n');
    })?;
    if status.code() == Some(2) {
        // It has said itself what it does not understand.
        return Err(Stop { status: 2, message: String::new() });
    }
    if !status.success() {
        return Err(Stop::failed(format!("bench {name} failed: {status}")));
    }
    let report: Value = serde_json::from_str(&text)
        .map_err(|e| Stop::failed(format!("bench {name} printed no JSON: {e}")))?;
    let rows = rows(&report).map_err(|what| Stop::failed(format!("bench {name}: {what}")))?;
    say!("{}", if options.markdown { markdown::shown(&rows) } else { table::shown(&rows) });
    for note in report["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        say!("{}", table::wrapped(note));
    }
    options.json.as_deref().map_or(Ok(()), |path| file::write(path, &text))
}

fn find<'a>(benches: &'a [Bench], name: Option<&str>) -> Result<&'a Bench> {
    benches.iter().find(|bench| Some(bench.name) == name).ok_or_else(|| {
        let what = name.map_or_else(
            || "the name of a bench is missing".to_owned(),
            |name| format!("there is no bench `{name}`"),
        );
        let choices: Vec<_> = benches.iter().map(|bench| bench.name).collect();
        Stop::unable(format!(
            "{what}; choose one of {} (--help has their rows)",
            choices.join(", ")
        ))
    })
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    /// Rows of one section make one table.
    section: String,
    row: String,
    unit: String,
    /// Whose figure `ours` is, where that is not ours.
    yardstick: Option<String>,
    ours: f64,
    peers: Vec<(String, f64)>,
    higher_is_better: bool,
}

fn rows(report: &Value) -> core::result::Result<Vec<Row>, String> {
    if report["schema"] != 1 {
        return Err(format!("schema is {}, not 1", report["schema"]));
    }
    let rows = report["rows"].as_array().ok_or("it has no rows")?;
    rows.iter()
        .map(|row| one(row).ok_or_else(|| format!("this row is incomplete: {row}")))
        .collect()
}

fn one(json: &Value) -> Option<Row> {
    let peers = json["peers"].as_object()?;
    Some(Row {
        section: json["section"].as_str().unwrap_or_default().to_owned(),
        row: json["row"].as_str()?.to_owned(),
        unit: json["unit"].as_str()?.to_owned(),
        yardstick: json["yardstick"].as_str().map(str::to_owned),
        ours: json["ours"].as_f64()?,
        peers: peers
            .iter()
            .map(|(name, value)| Some((name.clone(), value.as_f64()?)))
            .collect::<Option<_>>()?,
        higher_is_better: json["better"] == "higher",
    })
}

impl Row {
    /// How many times worse a peer's figure is than ours (or the yardstick's), if it has one and that
    /// can be said.
    fn ratio(&self, peer: &str) -> Option<f64> {
        let value = self.figure(peer)?;
        let ratio = if self.higher_is_better { self.ours / value } else { value / self.ours };
        ratio.is_finite().then_some(ratio)
    }

    fn figure(&self, peer: &str) -> Option<f64> {
        self.peers.iter().find(|(name, _)| name == peer).map(|&(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Value {
        json!({"schema": 1, "rows": [
            {"row": "alloc", "unit": "ns", "ours": 5, "peers": {"frame-alloc": 20, "buddy": 4}},
            {"row": "rate", "unit": "M/s", "ours": 60, "peers": {"buddy": 20}, "better": "higher"},
        ]})
    }

    #[test]
    fn a_ratio_above_one_is_ours_ahead_whichever_way_is_better() {
        let rows = rows(&report()).unwrap();
        assert_eq!(rows[0].ratio("frame-alloc"), Some(4.0));
        assert_eq!(rows[0].ratio("buddy"), Some(0.8));
        assert_eq!(rows[1].ratio("buddy"), Some(3.0));
        assert_eq!(rows[1].ratio("frame-alloc"), None);
    }

    #[test]
    fn options_are_passed_on_as_they_were_given() {
        let options = Options {
            quick: true,
            only: vec!["a".into(), "b".into()],
            rounds: Some(3),
            json: Some("x".into()),
            markdown: true,
        };
        let words = ["--quick", "--only", "a", "--only", "b", "--rounds", "3"];
        assert_eq!(options.words(), words);
    }

    #[test]
    fn a_report_of_another_shape_is_refused() {
        assert!(rows(&json!({"schema": 2, "rows": []})).unwrap_err().contains("schema is 2"));
        assert!(rows(&json!({"schema": 1})).is_err());
        let incomplete = json!({"schema": 1, "rows": [{"row": "a", "unit": "ns", "peers": {}}]});
        assert!(rows(&incomplete).unwrap_err().contains("incomplete"));
    }

    #[test]
    fn an_unknown_name_lists_the_choices() {
        let benches = [
            Bench { name: "frame", package: "x", target: ["--bin", "x"] },
            Bench { name: "radix", package: "x", target: ["--bin", "y"] },
        ];
        for name in [Some("frmae"), None] {
            let stop = find(&benches, name).err().unwrap();
            assert_eq!(stop.status, 2);
            assert!(stop.message.contains("choose one of frame, radix "), "{}", stop.message);
        }
        assert_eq!(find(&benches, Some("radix")).ok().unwrap().target, ["--bin", "y"]);
    }
}
