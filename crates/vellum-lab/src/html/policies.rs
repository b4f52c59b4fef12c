//! Figures of a comparison of policies.
//!
//! ```text
//!   a figure a mode, a panel a stream and policy:
//!     misses +  \
//!            |   \___ this policy; the others, and the bound, pale
//!            +--------- frames
//! ```

use super::Command;
use super::chart::{Line, Plot};
use super::figures::{Figure, Numbers, Panel};
use crate::policies::{PoliciesReport, StreamReport, misses_of, policies, sizes};
use crate::table::grouped;
use vellum_reclaim::host::Mode;

/// One figure for each mode.
pub(super) fn of(report: &PoliciesReport, command: &Command) -> Vec<Figure> {
    Mode::ALL.map(|mode| figure(report, mode, command)).into()
}

fn figure(report: &PoliciesReport, mode: Mode, command: &Command) -> Figure {
    let (id, title, lead) = match mode {
        Mode::EveryReference => (
            "every-reference",
            "Misses, told of every reference",
            "The policy hears of each reference when it happens, as in the papers. `opt` is the bound.",
        ),
        Mode::AccessedBits => (
            "accessed-bits",
            "Misses, by accessed bits",
            "The policy hears of faults, and finds accessed bits when it looks for a victim, as with an MMU.",
        ),
    };
    let panels = report.streams.iter().flat_map(|stream| panels(report, stream, mode)).collect();
    Figure {
        id,
        title,
        lead: lead.to_owned(),
        key: "Misses against frames. One line is drawn before all others, which are pale; lower is better.",
        kind: "lines",
        panels,
        numbers: numbers(report, mode),
        notes: Vec::new(),
        command: command.whole(),
    }
}

fn panels(report: &PoliciesReport, stream: &StreamReport, mode: Mode) -> Vec<Panel> {
    let mut sizes = sizes(report, stream, mode);
    sizes.sort_unstable();
    let line = |policy: &str| Line {
        name: policy.to_owned(),
        values: sizes
            .iter()
            .map(|&frames| misses_of(report, stream, policy, mode, frames).map(|n| n as f64))
            .collect(),
        dashed: Vec::new(),
    };
    let lines: Vec<Line> = policies(report, stream)
        .into_iter()
        .map(line)
        .filter(|line| line.values.iter().any(Option::is_some))
        .collect();
    let plot = Plot { ticks: sizes.iter().map(|&frames| grouped(frames.into())).collect(), lines };
    let panel = |(shown, line): (usize, &Line)| {
        let label = format!("misses of {} on {}", line.name, stream.trace);
        let drawing = plot.draw(shown, &label);
        Panel { title: line.name.clone(), small: stream.trace.clone(), drawing }
    };
    plot.lines.iter().enumerate().map(panel).collect()
}

fn numbers(report: &PoliciesReport, mode: Mode) -> Numbers {
    let header = ["trace", "policy", "frames", "misses"].map(str::to_owned).into();
    let runs = report.runs.iter().filter(|run| run.mode == mode.name());
    let row = |run: &crate::policies::PolicyRun| {
        let (frames, misses) = (grouped(run.frames.into()), grouped(run.misses));
        vec![run.trace.clone(), run.policy.clone(), frames, misses]
    };
    Numbers { names: 2, header, rows: runs.map(row).collect() }
}
