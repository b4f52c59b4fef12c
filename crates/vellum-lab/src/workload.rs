//! Programs that run in the laboratory: they compute on real data, at simulated addresses.
//!
//! ```text
//!   NAME:SIZE:SEED --> Workload --run--> Array::get, set --> Tape --filter--> Trace
//!                                          |
//!                                          +-- the value, from host memory: the result is right
//! ```
//!
//! | name | size | what it does |
//! |---|---|---|
//! | `gups` | bytes | random updates of a table of 64-bit words |
//! | `scan` | bytes | reads an array from end to end, four times |
//! | `join` | bytes | hash join: build side of so many bytes, probed by four times as many tuples |
//! | `btree` | bytes | look-ups in a B+ tree of nodes of 512 bytes |
//! | `matrix` | rows | product of square matrices of doubles, by the definition |
//! | `bfs`, `pagerank` | scale | on a Kronecker graph of 2^scale vertices, 16 edges each |
//! | `processes` | count | so many processes, in turn, each with half a MiB of its own |
//!
//! Each access of a program to its data is an event, thinned out as in any other trace. There are no
//! instruction fetches: such a program is a loop on a page or two. How data is made is not recorded
//! where it is said so, as benchmarks do not time it.
//!
//! # Invariants
//!
//! - The same name, size and seed give the same trace, on every machine.
//!
//! Source: each program's file.

mod btree;
mod graph;
mod gups;
mod join;
mod matrix;
mod scan;
mod tape;

use crate::table::size;
use crate::trace::{Trace, TraceError, TraceFault};
use core::fmt;
use core::str::FromStr;
use tape::Tape;

/// What a workload does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Gups,
    Scan,
    Join,
    Btree,
    Matrix,
    Bfs,
    Pagerank,
    Processes,
}

/// How the size of a workload is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    Number,
}

/// One kind: its name, and its sizes.
struct Entry {
    kind: Kind,
    name: &'static str,
    summary: &'static str,
    unit: Unit,
    default: u64,
    range: core::ops::RangeInclusive<u64>,
}

const BYTES: core::ops::RangeInclusive<u64> = 1 << 20..=16 << 30;

const ENTRIES: [Entry; 8] = [
    Entry {
        kind: Kind::Gups,
        name: "gups",
        summary: "random updates of a table",
        unit: Unit::Bytes,
        default: 128 << 20,
        range: BYTES,
    },
    Entry {
        kind: Kind::Scan,
        name: "scan",
        summary: "sequential reads, four times",
        unit: Unit::Bytes,
        default: 128 << 20,
        range: BYTES,
    },
    Entry {
        kind: Kind::Join,
        name: "join",
        summary: "hash join",
        unit: Unit::Bytes,
        default: 32 << 20,
        range: BYTES,
    },
    Entry {
        kind: Kind::Btree,
        name: "btree",
        summary: "look-ups in a B+ tree",
        unit: Unit::Bytes,
        default: 64 << 20,
        range: BYTES,
    },
    Entry {
        kind: Kind::Matrix,
        name: "matrix",
        summary: "product of square matrices of so many rows",
        unit: Unit::Number,
        default: 1024,
        range: 8..=16_384,
    },
    Entry {
        kind: Kind::Bfs,
        name: "bfs",
        summary: "breadth-first search of a Kronecker graph of 2^SIZE vertices",
        unit: Unit::Number,
        default: 18,
        range: 4..=26,
    },
    Entry {
        kind: Kind::Pagerank,
        name: "pagerank",
        summary: "PageRank of a Kronecker graph of 2^SIZE vertices",
        unit: Unit::Number,
        default: 17,
        range: 4..=26,
    },
    Entry {
        kind: Kind::Processes,
        name: "processes",
        summary: "so many small processes, in turn",
        unit: Unit::Number,
        default: 64,
        range: 2..=4096,
    },
];

impl Kind {
    fn entry(self) -> &'static Entry {
        // Each kind has its entry: a test looks.
        ENTRIES.iter().find(|entry| entry.kind == self).unwrap_or(&ENTRIES[0])
    }
}

/// Bytes of data of each of `processes`, and updates that all of them make together.
const PROCESS_BYTES: u64 = 1 << 19;
const PROCESS_UPDATES: u64 = 4_000_000;

/// Events that each of `processes` gets at a time.
const QUANTUM: usize = 5_000;

/// A program, its size, and the seed of all that is random in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    kind: Kind,
    size: u64,
    seed: u64,
}

impl Workload {
    /// The workloads of a comparison that is not told any.
    pub const DEFAULTS: [Self; 3] = [
        Self { kind: Kind::Gups, size: 128 << 20, seed: 1 },
        Self { kind: Kind::Bfs, size: 18, seed: 1 },
        Self { kind: Kind::Processes, size: 64, seed: 1 },
    ];

    /// What there is: a name, and what it does with its default size.
    pub fn list() -> impl Iterator<Item = (String, &'static str)> {
        ENTRIES.iter().map(|entry| {
            let workload = Self { kind: entry.kind, size: entry.default, seed: 1 };
            (workload.to_string(), entry.summary)
        })
    }

    /// The same with data of so many bytes; `None` if its size is given otherwise, or such a size
    /// is too small or too large.
    #[must_use]
    pub fn with_bytes(self, bytes: u64) -> Option<Self> {
        let entry = self.kind.entry();
        let fits = entry.unit == Unit::Bytes && entry.range.contains(&bytes);
        fits.then_some(Self { size: bytes, ..self })
    }

    /// Events until its next process gets the CPU.
    #[must_use]
    pub const fn quantum(self) -> usize {
        match self.kind {
            Kind::Processes => QUANTUM,
            _ => usize::MAX,
        }
    }

    /// Runs it; a trace for each process, of at most `limit` events.
    ///
    /// # Errors
    ///
    /// [`TraceError`]: the host has no memory for its data or its events, or without a limit they
    /// are too many.
    pub fn run(self, limit: Option<usize>) -> Result<Vec<Trace>, TraceError> {
        let processes = if self.kind == Kind::Processes { self.size } else { 1 };
        (0..processes).map(|n| self.process(n, limit)).collect()
    }

    fn process(self, process: u64, limit: Option<usize>) -> Result<Trace, TraceError> {
        let mut tape = Tape::new(limit);
        let trace = self.record(process, &mut tape).and_then(|()| tape.trace(&self.to_string()));
        trace.map_err(|fault| TraceError { name: self.to_string(), offset: None, fault })
    }

    fn record(self, process: u64, tape: &mut Tape) -> Result<(), TraceFault> {
        let Self { kind, size, seed } = self;
        match kind {
            Kind::Gups => gups::run(tape, size, gups::UPDATES, seed).map(drop),
            Kind::Scan => scan::run(tape, size).map(drop),
            Kind::Join => join::run(tape, size, seed).map(drop),
            Kind::Btree => btree::run(tape, size, seed).map(drop),
            Kind::Matrix => matrix::run(tape, size, seed).map(drop),
            Kind::Bfs => graph::bfs(tape, size, seed).map(drop),
            Kind::Pagerank => graph::pagerank(tape, size, seed).map(drop),
            Kind::Processes => {
                let seed = seed.wrapping_mul(1 << 32).wrapping_add(process);
                gups::run(tape, PROCESS_BYTES, PROCESS_UPDATES / size, seed).map(drop)
            }
        }
    }
}

/// As it is asked for: `gups:128M`, and with a seed but 1 `gups:128M:7`.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.kind.entry();
        write!(f, "{}:", entry.name)?;
        let units = [('G', 30), ('M', 20), ('K', 10)];
        let unit = units.iter().find(|&&(_, shift)| self.size.is_multiple_of(1 << shift));
        match unit.filter(|_| entry.unit == Unit::Bytes) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.size >> shift)?,
            None => write!(f, "{}", self.size)?,
        }
        if self.seed == 1 { Ok(()) } else { write!(f, ":{}", self.seed) }
    }
}

/// `NAME`, `NAME:SIZE` or `NAME:SIZE:SEED`.
impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(':');
        let name = words.next().unwrap_or_default();
        let entry = ENTRIES.iter().find(|entry| entry.name == name).ok_or_else(|| {
            let names: Vec<_> = ENTRIES.iter().map(|entry| entry.name).collect();
            format!("unknown workload `{name}`; choose from {}", names.join(", "))
        })?;
        let (least, most) = (*entry.range.start(), *entry.range.end());
        let (shape, bounds) = match entry.unit {
            Unit::Bytes => ("digits, and maybe K, M or G", (size(least), size(most))),
            Unit::Number => ("digits", (least.to_string(), most.to_string())),
        };
        let bounded = |size: &u64| entry.range.contains(size);
        let size = match words.next() {
            None => entry.default,
            Some(word) => number(word, entry.unit).filter(bounded).ok_or_else(|| {
                format!("size of {name}: expected {shape}, from {} to {}", bounds.0, bounds.1)
            })?,
        };
        let seed = match words.next() {
            None => 1,
            Some(word) => word.parse().map_err(|_| format!("seed of {name}: expected digits"))?,
        };
        match words.next() {
            None => Ok(Self { kind: entry.kind, size, seed }),
            Some(_) => Err("expected NAME, NAME:SIZE or NAME:SIZE:SEED".to_owned()),
        }
    }
}

fn number(text: &str, unit: Unit) -> Option<u64> {
    let units = [('K', 10), ('M', 20), ('G', 30)];
    let suffix = units.iter().find_map(|&(c, shift)| Some((text.strip_suffix(c)?, shift)));
    let (digits, shift) = suffix.filter(|_| unit == Unit::Bytes).unwrap_or((text, 0));
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse::<u64>().ok()?.checked_mul(1 << shift)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(text: &str) -> Workload {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["gups:128M", "gups:4097K:9", "bfs:10", "processes:3:2", "btree:1G"] {
            assert_eq!(workload(text).to_string(), text);
        }
        for entry in &ENTRIES {
            assert_eq!(workload(entry.name).kind, entry.kind);
            assert_eq!(entry.kind.entry().name, entry.name);
            assert!(entry.range.contains(&entry.default));
        }
        for workload in Workload::DEFAULTS {
            assert_eq!(workload.to_string().parse(), Ok(workload));
        }
        assert_eq!(workload("gups:1048577").to_string(), "gups:1048577");
    }

    #[test]
    fn what_is_no_workload_is_refused() {
        for bad in [
            "",
            "gup",
            "gups:",
            "gups:1K",
            "gups:17G",
            "gups:-1",
            "gups:1M:x",
            "gups:1M:1:1",
            "bfs:1M",
            "bfs:3",
            "processes:1",
            "gups:99999999999999999999G",
            "gups:17179869184G",
        ] {
            assert!(bad.parse::<Workload>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_seed_decides_everything() {
        for text in
            ["gups:1M", "join:1M", "btree:1M", "bfs:8", "pagerank:6", "matrix:16", "scan:1M"]
        {
            let events = |text: &str| workload(text).run(None).unwrap().remove(0).events;
            let first = events(text);
            assert_eq!(first, events(text), "{text}");
            if !["matrix:16", "scan:1M"].contains(&text) {
                assert_ne!(first, events(&format!("{text}:2")), "{text}");
            }
        }
    }

    #[test]
    fn a_limit_keeps_the_beginning() {
        let whole = workload("gups:1M").run(None).unwrap().remove(0);
        let cut = workload("gups:1M").run(Some(1000)).unwrap().remove(0);
        assert_eq!(cut.events, whole.events[..1000]);
        assert!(cut.pages <= whole.pages && whole.pages == 256);
    }

    #[test]
    fn processes_have_traces_of_their_own() {
        let traces = workload("processes:4").run(Some(5000)).unwrap();
        assert_eq!(traces.len(), 4);
        assert_ne!(traces[0].events, traces[1].events);
        assert_eq!(workload("processes:4").quantum(), QUANTUM);
    }

    #[test]
    fn only_sizes_in_bytes_are_swept() {
        let gups = workload("gups").with_bytes(4 << 20).unwrap();
        assert_eq!(gups, workload("gups:4M"));
        assert_eq!(workload("gups").with_bytes(4096), None);
        assert_eq!(workload("bfs").with_bytes(4 << 20), None);
    }
}
