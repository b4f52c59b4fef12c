//! What we set out to reach, and whether this run did.
//!
//! ```text
//!   map: 1 GiB      at most 0.25 ns, 3 instructions        a new table, filled before it is linked
//!   again           0.5 ns, 10                             an existing one
//!   each            2 ns, 70
//!   seq             2 ns, 40
//!   unmap           0.35 ns                                whole tables, frames handed back
//!   protect         0.6 ns                                 of a table that is not in use
//!   large           3 ns
//! ```
//!
//! Ahead of every peer in every row, which the tables show; and a page as cheap in a large range as
//! in a small one.

use super::flat;
use super::rows::Row;

/// At most so many nanoseconds and instructions for each page.
struct Target {
    row: Row,
    nanos: f64,
    instructions: Option<f64>,
}

const TARGETS: [Target; 7] = [
    Target { row: Row::Map, nanos: 0.25, instructions: Some(3.0) },
    Target { row: Row::Again, nanos: 0.5, instructions: Some(10.0) },
    Target { row: Row::Each, nanos: 2.0, instructions: Some(70.0) },
    Target { row: Row::Seq, nanos: 2.0, instructions: Some(40.0) },
    Target { row: Row::Unmap, nanos: 0.35, instructions: None },
    Target { row: Row::Protect, nanos: 0.6, instructions: None },
    Target { row: Row::Large, nanos: 3.0, instructions: None },
];

/// One sentence on those targets for which there are figures of ours: `nanos` and `instructions`
/// know them by row.
pub(super) fn verdict(
    nanos: impl Fn(Row) -> Option<f64>,
    instructions: impl Fn(Row) -> Option<f64>,
) -> Option<String> {
    let mut parts = Vec::new();
    for target in &TARGETS {
        let judged = [
            (nanos(target.row), Some(target.nanos), "ns"),
            (instructions(target.row), target.instructions, "instr."),
        ];
        let judged: Vec<_> = judged
            .into_iter()
            .filter_map(|(figure, limit, unit)| {
                let (figure, limit) = (figure?, limit?);
                let met = if figure <= limit { "met" } else { "MISSED" };
                Some(format!("{figure} of {limit} {unit} {met}"))
            })
            .collect();
        if !judged.is_empty() {
            parts.push(format!("{}: {}", target.row.name(), judged.join(", ")));
        }
    }
    (!parts.is_empty()).then(|| format!("Targets of ours: {}.", parts.join("; ")))
}

/// One sentence on how far our figures differ from size to size: `nanos` knows them by the titles of
/// [`flat`]. The smallest size is left out, where each call makes or frees three tables for 256 pages.
pub(super) fn flatness(nanos: impl Fn(&str) -> Option<f64>) -> Option<String> {
    let parts: Vec<_> = flat::TITLES
        .iter()
        .filter_map(|titles| {
            let what = titles[0].split(',').next()?;
            let figures: Vec<_> = titles[1..].iter().filter_map(|title| nanos(title)).collect();
            let least = figures.iter().copied().reduce(f64::min)?;
            let most = figures.iter().copied().reduce(f64::max)?;
            Some(format!("{what} {least} to {most} ns"))
        })
        .collect();
    let sizes = "A page of ours, from the least to the most of all sizes above 1 MiB";
    (!parts.is_empty()).then(|| format!("{sizes}: {}.", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_at_its_limit_meets_it_and_one_above_does_not() {
        let nanos = |row| match row {
            Row::Map => Some(0.25),
            Row::Unmap => Some(0.36),
            _ => None,
        };
        let instructions = |row| (row == Row::Map).then_some(3.5);
        let text = verdict(nanos, instructions).unwrap();
        assert_eq!(
            text,
            "Targets of ours: map: 0.25 of 0.25 ns met, 3.5 of 3 instr. MISSED; \
             unmap: 0.36 of 0.35 ns MISSED."
        );
    }

    #[test]
    fn without_figures_there_is_nothing_to_say() {
        assert_eq!(verdict(|_| None, |_| None), None);
        assert_eq!(flatness(|_| None), None);
    }

    #[test]
    fn the_spread_is_over_all_sizes_but_the_smallest() {
        let nanos = |title: &str| match title {
            "map, 1 MiB" => Some(9.0),
            "map, 64 MiB" => Some(0.5),
            "map, 1 GiB" => Some(0.25),
            "map, 64 GiB" => Some(0.75),
            _ => None,
        };
        assert!(flatness(nanos).unwrap().ends_with(": map 0.25 to 0.75 ns."));
    }
}
