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

mod table;

use crate::process;
use crate::stop::{Result, Stop};
use crate::workspace::cargo;
use clap::Args;
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A bench that can be asked for.
struct Bench {
    /// What one types.
    name: &'static str,
    /// The package that has it.
    package: &'static str,
    /// The kind of target, and its name: `["--bin", "x"]`, `["--example", "x"]`.
    target: [&'static str; 2],
}

/// Each crate adds its line here.
const BENCHES: &[Bench] =
    &[Bench { name: "frame", package: "vellum-bench", target: ["--bin", "frame"] }];

/// Below the options that `--help` lists.
pub(crate) const EXAMPLES: &str = "\
Examples:
  cargo xtask bench frame
      frame allocators: every row, as tables (docs/bench-frame.md says what each does)
  cargo xtask bench frame --only a --only c --rounds 100
      two rows, more patiently
  cargo xtask bench frame --json rows.json
      the tables, and the rows for a program that reads them";

/// What the bench programs can be told.
#[derive(Args)]
pub(crate) struct Options {
    /// A smoke run: whether the bench works; no figure means anything
    #[arg(long)]
    quick: bool,
    /// Measure only this row; may be repeated; an unknown one lists the choices
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// The most rounds of each row
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Write the rows to this file as well
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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
pub(crate) fn run(name: &str, options: &Options) -> Result {
    let bench = find(BENCHES, name)?;
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
    say!("{}", table::shown(&rows));
    for note in report["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        say!("{}", table::wrapped(note));
    }
    options.json.as_deref().map_or(Ok(()), |path| write(path, &text))
}

fn find<'a>(benches: &'a [Bench], name: &str) -> Result<&'a Bench> {
    benches.iter().find(|bench| bench.name == name).ok_or_else(|| {
        let choices: Vec<_> = benches.iter().map(|bench| bench.name).collect();
        Stop::unable(if choices.is_empty() {
            format!("there is no bench `{name}`; no crate has one yet")
        } else {
            format!("there is no bench `{name}`; choose one of: {}", choices.join(", "))
        })
    })
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    /// Rows of one section make one table.
    section: String,
    row: String,
    unit: String,
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
        ours: json["ours"].as_f64()?,
        peers: peers
            .iter()
            .map(|(name, value)| Some((name.clone(), value.as_f64()?)))
            .collect::<Option<_>>()?,
        higher_is_better: json["better"] == "higher",
    })
}

impl Row {
    /// How many times worse a peer's figure is than ours, if it has one and that can be said.
    fn ratio(&self, peer: &str) -> Option<f64> {
        let value = self.figure(peer)?;
        let ratio = if self.higher_is_better { self.ours / value } else { value / self.ours };
        ratio.is_finite().then_some(ratio)
    }

    fn figure(&self, peer: &str) -> Option<f64> {
        self.peers.iter().find(|(name, _)| name == peer).map(|&(_, value)| value)
    }
}

/// Writes to a temporary name beside it, and renames: the file is whole or not there.
///
/// A link is followed, and stays one. What is no regular file (a device, a pipe) is written into,
/// and so is what a link without an end names.
fn write(path: &Path, text: &str) -> Result {
    let stop = |e: &dyn core::fmt::Display| Stop::file("write", path, e);
    let regular = path.metadata().map(|end| end.is_file());
    if regular.as_ref().is_ok_and(|regular| !regular) || (regular.is_err() && path.is_symlink()) {
        return std::fs::write(path, text).map_err(|e| stop(&e));
    }
    // It has an end, or it is not there yet.
    let end = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = end.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|e| stop(&e))?;
    file.write_all(text.as_bytes()).map_err(|e| stop(&e))?;
    file.persist(&end).map_err(|e| stop(&e.error))?;
    Ok(())
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
            Bench { name: "frame", package: "vellum-frame", target: ["--example", "bench"] },
            Bench { name: "radix", package: "vellum-radix", target: ["--example", "bench"] },
        ];
        let stop = find(&benches, "frmae").err().unwrap();
        assert_eq!(stop.status, 2);
        assert!(stop.message.ends_with("frame, radix"), "{}", stop.message);
        assert_eq!(find(&[], "frame").err().unwrap().status, 2);
    }

    #[test]
    fn the_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        write(&path, "{}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n");
        let stop = write(&folder.path().join("none").join("rows.json"), "{}").unwrap_err();
        assert_eq!(stop.status, 2);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links_and_their_ends_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, missing, link] =
            ["rows.json", "new.json", "link"].map(|n| folder.path().join(n));
        std::fs::write(&whole, "old").unwrap();
        for end in [&whole, &missing] {
            std::os::unix::fs::symlink(end, &link).unwrap();
            write(&link, "{}\n").unwrap();
            assert!(link.is_symlink());
            assert_eq!(std::fs::read_to_string(end).unwrap(), "{}\n");
            std::fs::remove_file(&link).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipes_stay_pipes_and_are_written() {
        use std::io::Read as _;
        use std::os::unix::fs::FileTypeExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(process::succeeds(std::process::Command::new("mkfifo").arg(&path)).unwrap());
        // Opened for reading and writing, a pipe waits for nobody.
        let mut pipe = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        write(&path, "{}\n").unwrap();
        assert!(path.metadata().unwrap().file_type().is_fifo());
        let mut text = [0; 3];
        pipe.read_exact(&mut text).unwrap();
        assert_eq!(text, *b"{}\n");
    }
}
