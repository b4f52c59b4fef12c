//! Figures of walks and of the misses that lead to them.
//!
//! ```text
//!   runs     --> cost per walk, a panel for each trace; of a sweep a line for each design
//!   tlb      --> walks for 1,000 events, a line for each trace
//!   switches --> cycles an event by quantum, a line for each design
//!   huge     --> cycles an event, a panel for each trace
//! ```

use super::super::chart::{Line, Plot};
use super::super::text::number;
use super::{Body, Numbers, bar_panel, count, different, line_panels, mean, reasons, texts};
use crate::parts::huge;
use crate::report::{Report, Run, SweepAxis};
use crate::table::grouped;

/// The policy that is drawn beside none.
const TOUCHED: u16 = 64;

pub(super) fn cost(report: &Report) -> Body {
    let runs: Vec<&Run> = report.runs.iter().filter(|run| run.sweep.is_none()).collect();
    let mut panels = Vec::new();
    for trace in different(runs.iter().map(|run| &run.trace)) {
        let ours: Vec<_> = runs.iter().filter(|run| run.trace == *trace).collect();
        let walks = ours.iter().find_map(|run| run.walk).map(|walk| walk.count);
        let events = ours.first().map_or(0, |run| run.events);
        let small = format!("{} events, {} walks", grouped(events), count(walks));
        let row = |run: &&&Run| (run.design.clone(), run.walk.map(|walk| walk.cycles_mean), None);
        panels.push(bar_panel((trace, small), "cycles a walk", ours.iter().map(row)));
    }
    Body {
        lead: "What one walk costs after the walk caches, by design and workload.".into(),
        panels,
        numbers: run_numbers(&runs),
        notes: reasons(
            runs.iter().map(|run| (&*run.design, run.trace.clone(), run.unsupported.as_ref())),
        ),
    }
}

fn run_numbers(runs: &[&Run]) -> Numbers {
    let row = |run: &&Run| {
        let walk = run.walk;
        vec![
            run.trace.clone(),
            run.design.clone(),
            count(walk.map(|w| w.count)),
            mean(walk.map(|w| w.refs_mean)),
            count(walk.map(|w| w.refs_p99)),
            count(walk.map(|w| w.refs_max)),
            mean(walk.map(|w| w.lines_mean)),
            mean(walk.map(|w| w.cache_misses_mean)),
            mean(walk.map(|w| w.cycles_mean)),
            mean(run.walk_cycles_per_event()),
            count(run.table.map(|table| table.bytes)),
        ]
    };
    Numbers {
        names: 2,
        header: texts(&[
            "trace",
            "design",
            "walks",
            "entries",
            "p99",
            "max",
            "lines",
            "misses",
            "cycles",
            "cycles an event",
            "table bytes",
        ]),
        rows: runs.iter().map(row).collect(),
    }
}

pub(super) fn tlb(report: &Report) -> Body {
    let rows = &report.tlb;
    let sizes = different(rows.iter().map(|row| row.l2_entries));
    let line = |trace: &String| {
        let at = |&size: &u32| {
            let mut ours = rows.iter().filter(|row| row.trace == *trace);
            ours.find(|row| row.l2_entries == size).and_then(|row| row.misses_per_1000())
        };
        let values = sizes.iter().map(at).collect();
        Line { name: trace.clone(), values, dashed: Vec::new() }
    };
    let traces = different(rows.iter().map(|row| &row.trace));
    let ticks = sizes.iter().map(|&size| thousands(u64::from(size))).collect();
    let plot = Plot { ticks, lines: traces.into_iter().map(line).collect() };
    let first = rows.first();
    let number_row = |row: &crate::parts::tlb::TlbSizeReport| {
        vec![
            row.trace.clone(),
            grouped(u64::from(row.l2_entries)),
            row.l2_ways.to_string(),
            grouped(row.events),
            count(row.l1_misses),
            count(row.l2_misses),
            mean(row.misses_per_1000()),
        ]
    };
    Body {
        lead: format!(
            "Walks for 1,000 events, by entries of the second-level TLB (4,096 is written 4k); the first level \
             is that of {}. The table behind it makes no difference to a TLB, so one design, {}, stands for all.",
            first.map_or("", |row| &row.tlb_preset),
            first.map_or("", |row| &row.design),
        ),
        panels: line_panels(&plot, "", "walks for 1,000 events by entries of the TLB"),
        numbers: Numbers {
            names: 1,
            header: texts(&[
                "trace",
                "entries",
                "ways",
                "events",
                "L1 misses",
                "L2 misses",
                "for 1,000 events",
            ]),
            rows: rows.iter().map(number_row).collect(),
        },
        notes: reasons(
            rows.iter().map(|row| (&*row.design, row.trace.clone(), row.unsupported.as_ref())),
        ),
    }
}

/// As sizes are spoken of: 4096 as `4k`.
fn thousands(n: u64) -> String {
    match n {
        n if n >= 1 << 20 && n.is_multiple_of(1 << 20) => format!("{}M", n >> 20),
        n if n >= 1 << 10 && n.is_multiple_of(1 << 10) => format!("{}k", n >> 10),
        n => n.to_string(),
    }
}

pub(super) fn sweep(report: &Report) -> Body {
    let runs: Vec<&Run> = report.runs.iter().filter(|run| run.sweep.is_some()).collect();
    let axis = runs.iter().find_map(|run| run.sweep).map(|point| point.over);
    let value = |run: &Run| run.sweep.map_or(0, |point| point.value);
    let values = different(runs.iter().map(|run| value(run)));
    // The name of a workload has its size, which is what is swept.
    let base = |run: &Run| match axis {
        Some(SweepAxis::Pages) => run.trace.split(':').next().unwrap_or_default().to_owned(),
        _ => run.trace.clone(),
    };
    let mut panels = Vec::new();
    for trace in different(runs.iter().map(|run| base(run))) {
        let ours: Vec<_> = runs.iter().filter(|run| base(run) == trace).collect();
        let line = |design: &String| {
            let at = |wanted: &u64| {
                let run = ours.iter().find(|run| run.design == *design && value(run) == *wanted);
                run.and_then(|run| run.walk_cycles_per_event())
            };
            let values = values.iter().map(at).collect();
            Line { name: design.clone(), values, dashed: Vec::new() }
        };
        let designs = different(ours.iter().map(|run| &run.design));
        let ticks = values.iter().map(|&n| thousands(n)).collect();
        let plot = Plot { ticks, lines: designs.into_iter().map(line).collect() };
        panels.extend(line_panels(&plot, &trace, "cycles of walks an event"));
    }
    let over = match axis {
        Some(SweepAxis::Pages) => "pages of data",
        _ => "entries of the second-level TLB",
    };
    Body {
        lead: format!("Cycles of walks an event, by {over} (4,096 is written 4k)."),
        panels,
        numbers: swept_numbers(&runs, over),
        notes: reasons(
            runs.iter().map(|run| (&*run.design, run.trace.clone(), run.unsupported.as_ref())),
        ),
    }
}

fn swept_numbers(runs: &[&Run], over: &str) -> Numbers {
    let mut numbers = run_numbers(runs);
    numbers.header.insert(2, over.to_owned());
    for (row, run) in numbers.rows.iter_mut().zip(runs) {
        row.insert(2, count(run.sweep.map(|point| point.value)));
    }
    numbers
}

pub(super) fn switches(report: &Report) -> Body {
    let rows = &report.switches;
    let quanta = different(rows.iter().map(|row| row.quantum));
    let line = |design: &String| {
        let of = |asid: bool| {
            let at = |&quantum: &u64| {
                let mut ours = rows.iter().filter(|row| row.design == *design && row.asid == asid);
                ours.find(|row| row.quantum == quantum).and_then(|row| row.walk_cycles_per_event)
            };
            quanta.iter().map(at).collect()
        };
        Line { name: design.clone(), values: of(true), dashed: of(false) }
    };
    let designs = different(rows.iter().map(|row| &row.design));
    let ticks = quanta.iter().map(|&n| grouped(n)).collect();
    let plot = Plot { ticks, lines: designs.into_iter().map(line).collect() };
    let number_row = |row: &crate::parts::switches::SwitchesReport| {
        vec![
            row.design.clone(),
            grouped(row.quantum),
            if row.asid { "identifiers" } else { "flush" }.to_owned(),
            count(row.switches),
            count(row.walks),
            mean(row.refs_mean),
            mean(row.walk_cycles_per_event),
        ]
    };
    let place = |asid: bool, quantum: u64| {
        format!("{} events, {}", grouped(quantum), if asid { "identifiers" } else { "flush" })
    };
    Body {
        lead: format!(
            "Cycles of walks an event, by events that a process gets at a time; processes: {}.",
            rows.first().map_or("", |row| &row.trace)
        ),
        panels: line_panels(&plot, "", "cycles of walks an event by quantum"),
        numbers: Numbers {
            names: 1,
            header: texts(&[
                "design",
                "quantum",
                "switch",
                "switches",
                "walks",
                "entries",
                "cycles an event",
            ]),
            rows: rows.iter().map(number_row).collect(),
        },
        notes: reasons(
            rows.iter()
                .map(|row| (&*row.design, place(row.asid, row.quantum), row.unsupported.as_ref())),
        ),
    }
}

pub(super) fn huge(report: &Report) -> Body {
    let rows = &report.huge;
    let mut panels = Vec::new();
    for trace in different(rows.iter().map(|row| &row.trace)) {
        let ours: Vec<_> = rows.iter().filter(|row| row.trace == *trace).collect();
        let at = |design: &String, touched: Option<u16>| {
            let row = ours.iter().find(|row| row.design == *design && row.touched == touched);
            row.and_then(|row| row.walk_cycles_per_event)
        };
        let row = |design: &String| (design.clone(), at(design, Some(TOUCHED)), at(design, None));
        let designs = different(ours.iter().map(|row| &row.design));
        let small = "cycles an event".to_owned();
        let bars = designs.into_iter().map(row);
        panels.push(bar_panel((trace, small), "cycles of walks an event", bars));
    }
    let policy = |touched: Option<u16>| touched.map_or_else(|| "off".to_owned(), |n| n.to_string());
    let number_row = |row: &huge::HugeReport| {
        vec![
            row.trace.clone(),
            row.design.clone(),
            policy(row.touched),
            count(row.promotions),
            count(row.pages_filled),
            count(row.walks),
            mean(row.refs_mean),
            mean(row.walk_cycles_per_event),
            count(row.table_bytes),
        ]
    };
    Body {
        lead: format!(
            "Cycles of walks an event with leaves of 2 MiB and without, of the first {} events of each \
             program. A single number is what a design has without such leaves.",
            number(huge::EVENTS as f64)
        ),
        panels,
        numbers: Numbers {
            names: 2,
            header: texts(&[
                "trace",
                "design",
                "touched",
                "promotions",
                "filled",
                "walks",
                "entries",
                "cycles an event",
                "table bytes",
            ]),
            rows: rows.iter().map(number_row).collect(),
        },
        notes: reasons(
            rows.iter().map(|row| (&*row.design, row.trace.clone(), row.unsupported.as_ref())),
        ),
    }
}
