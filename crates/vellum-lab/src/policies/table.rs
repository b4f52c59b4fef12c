//! A comparison of policies as tables for people, of at most 100 columns.
//!
//! ```text
//!   cc1: 24,000,000 references to 1,715 pages
//!    misses, every reference   214 frames   428 frames   857 frames
//!    fifo                         123,456       12,345        1,234
//! ```

use super::report::{PoliciesReport, StreamReport};
use crate::table::{WIDTH, fitted, grouped, right};
use comfy_table::{Cell, Table, presets};
use vellum_reclaim::host::Mode;

/// Sizes that one table has room for.
const COLUMNS: usize = 5;

/// The tables of each stream.
#[must_use]
pub fn render(report: &PoliciesReport) -> String {
    let mut text = String::new();
    for stream in &report.streams {
        let (references, pages) = (grouped(stream.references), grouped(stream.pages.into()));
        let title = format!("{}: {references} references to {pages} pages", stream.trace);
        text += &(fitted(&title) + "\n");
        for mode in Mode::ALL {
            let sizes = sizes(report, stream, mode);
            for some in sizes.chunks(COLUMNS) {
                text += &table(report, stream, mode, some);
            }
        }
    }
    text
}

/// The sizes of a stream's runs, in their order.
pub(crate) fn sizes(report: &PoliciesReport, stream: &StreamReport, mode: Mode) -> Vec<u32> {
    let mut sizes = Vec::new();
    for run in report.runs.iter().filter(|run| run.trace == stream.trace && run.mode == mode.name())
    {
        if !sizes.contains(&run.frames) {
            sizes.push(run.frames);
        }
    }
    sizes
}

/// The policies of a stream's runs, in their order.
pub(crate) fn policies<'r>(report: &'r PoliciesReport, stream: &StreamReport) -> Vec<&'r str> {
    let mut names: Vec<&str> = Vec::new();
    for run in report.runs.iter().filter(|run| run.trace == stream.trace) {
        if !names.contains(&run.policy.as_str()) {
            names.push(&run.policy);
        }
    }
    names
}

/// The misses of one run.
pub(crate) fn misses(
    report: &PoliciesReport,
    stream: &StreamReport,
    policy: &str,
    mode: Mode,
    frames: u32,
) -> Option<u64> {
    let is_it = |run: &&super::PolicyRun| {
        run.trace == stream.trace
            && run.policy == policy
            && run.mode == mode.name()
            && run.frames == frames
    };
    report.runs.iter().find(is_it).map(|run| run.misses)
}

fn table(report: &PoliciesReport, stream: &StreamReport, mode: Mode, sizes: &[u32]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_width(WIDTH);
    let title = match mode {
        Mode::EveryReference => "misses, every reference",
        Mode::AccessedBits => "misses, accessed bits",
    };
    let frames = |&frames: &u32| right(format!("{} frames", grouped(frames.into())));
    table.set_header([Cell::new(title)].into_iter().chain(sizes.iter().map(frames)));
    for policy in policies(report, stream) {
        let found: Vec<Option<u64>> =
            sizes.iter().map(|&frames| misses(report, stream, policy, mode, frames)).collect();
        if found.iter().all(Option::is_none) {
            continue;
        }
        let cells = found.into_iter().map(|misses| right(misses.map_or("-".into(), grouped)));
        table.add_row([Cell::new(policy)].into_iter().chain(cells));
    }
    format!("{}\n\n", table.trim_fmt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policies::PolicyRun;

    #[test]
    fn every_run_is_in_a_table_of_its_mode() {
        let run = |policy: &str, mode: Mode, frames, misses| PolicyRun {
            trace: "t".into(),
            policy: policy.into(),
            mode: mode.name().into(),
            frames,
            misses,
        };
        let mut runs: Vec<_> =
            (1..8).map(|n| run("lru", Mode::EveryReference, n, 1000 + u64::from(n))).collect();
        runs.push(run("opt", Mode::EveryReference, 1, 900));
        runs.push(run("lru", Mode::AccessedBits, 1, 2001));
        let stream = StreamReport { trace: "t".into(), references: 12_345, pages: 678 };
        let text = render(&PoliciesReport { schema: 1, streams: vec![stream], runs });
        assert!(text.starts_with("t: 12,345 references to 678 pages\n"), "{text}");
        assert_eq!(text.matches("misses, every reference").count(), 2, "{text}");
        let row = |name: &str| text.lines().filter(|line| line.trim().starts_with(name)).count();
        assert_eq!((row("lru"), row("opt")), (3, 1), "{text}");
        assert!(text.contains("1,007") && text.contains("2,001") && text.contains("900"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    }
}
