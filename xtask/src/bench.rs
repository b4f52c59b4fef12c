//! `bench NAME`: runs a crate's bench program and shows its rows beside the peers'.
//!
//! ```text
//!   BENCHES: name -> package, binary
//!        |  cargo run --release, arguments --json
//!        v
//!   {"schema":1,"rows":[{"row":"alloc 4K","unit":"ns","ours":5.1,"peers":{"x":20.4}}]}
//!        |
//!        v
//!   | alloc 4K | ns | 5.1 | 20.4 (4.00x) |       above 1.00x: we are ahead
//! ```
//!
//! The program prints that JSON, and nothing else, on standard output; what it wants to say
//! meanwhile goes to standard error. Lower is better, unless the row has `"better":"higher"`.

use crate::process;
use crate::stop::{Result, Stop};
use crate::workspace::cargo;
use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde_json::Value;
use std::io::Write;
use std::path::Path;

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
const BENCHES: &[Bench] = &[];

/// Runs one, prints the table, and writes the file if one is asked for.
pub(crate) fn run(name: &str, json: Option<&Path>) -> Result {
    let bench = find(BENCHES, name)?;
    let mut program = cargo();
    program.args(["run", "--quiet", "--release", "--package", bench.package]);
    let mut text = String::new();
    let status = process::each_line(program.args(bench.target), |line| {
        text += line;
        text.push('\n');
    })?;
    if !status.success() {
        return Err(Stop::failed(format!("bench {name} failed: {status}")));
    }
    let report: Value = serde_json::from_str(&text)
        .map_err(|e| Stop::failed(format!("bench {name} printed no JSON: {e}")))?;
    let rows = rows(&report).map_err(|what| Stop::failed(format!("bench {name}: {what}")))?;
    say!("{}", table(&rows));
    say!("(in brackets: how many times the peer's figure is worse than ours)");
    json.map_or(Ok(()), |path| write(path, &text))
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
    /// The peer's figure, and how far behind ours it is.
    fn beside(&self, peer: &str) -> String {
        let Some((_, value)) = self.peers.iter().find(|(name, _)| name == peer) else {
            return "-".to_owned();
        };
        let ratio = if self.higher_is_better { self.ours / value } else { value / self.ours };
        if ratio.is_finite() { format!("{value} ({ratio:.2}x)") } else { format!("{value}") }
    }
}

fn table(rows: &[Row]) -> Table {
    let mut peers: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.peers) {
        if !peers.contains(&name.as_str()) {
            peers.push(name);
        }
    }
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(["row", "unit", "ours"].iter().chain(&peers));
    for row in rows {
        let figures = peers.iter().map(|peer| row.beside(peer));
        let start = [row.row.clone(), row.unit.clone(), row.ours.to_string()];
        table.add_row(start.into_iter().chain(figures));
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
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
    fn a_table_has_ours_each_peer_and_the_ratio() {
        let text = table(&rows(&report()).unwrap()).to_string();
        let lines: Vec<_> = text.lines().collect();
        let cells = |line: &str| line.split('|').map(|c| c.trim().to_owned()).collect::<Vec<_>>();
        assert_eq!(cells(lines[0])[1..6], ["row", "unit", "ours", "buddy", "frame-alloc"]);
        assert_eq!(cells(lines[2])[1..6], ["alloc", "ns", "5", "4 (0.80x)", "20 (4.00x)"]);
        assert_eq!(cells(lines[3])[1..6], ["rate", "M/s", "60", "20 (3.00x)", "-"]);
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
