//! The traces that come with the laboratory, compiled in.
//!
//! ```text
//!   data/NAME.vt.zst --include_bytes!--> EmbeddedTrace --Reader--> Trace
//! ```
//!
//! Source: recordings of Debian's perl, python3, gcc and sqlite3; see data/README.md.

use crate::trace::{Reader, Trace, TraceError};

/// One recording.
#[derive(Clone, Copy)]
pub struct EmbeddedTrace {
    /// What reports call it.
    pub name: &'static str,
    /// What ran.
    pub summary: &'static str,
    packed: &'static [u8],
}

/// All recordings, in the order in which they are replayed.
pub const EMBEDDED: &[EmbeddedTrace] = &[
    EmbeddedTrace {
        name: "perl-hash",
        summary: "perl: 400,000 random hash keys, then a sort by value",
        packed: include_bytes!("../data/perl-hash.vt.zst"),
    },
    EmbeddedTrace {
        name: "python-graph",
        summary: "python3: breadth-first search over a random graph of 150,000 nodes",
        packed: include_bytes!("../data/python-graph.vt.zst"),
    },
    EmbeddedTrace {
        name: "cc1",
        summary: "gcc's compiler proper, -O2, 1,500 functions",
        packed: include_bytes!("../data/cc1.vt.zst"),
    },
    EmbeddedTrace {
        name: "sqlite3",
        summary: "sqlite3: a join over an index, 700,000 rows in memory",
        packed: include_bytes!("../data/sqlite3.vt.zst"),
    },
];

impl EmbeddedTrace {
    /// Decodes the first `limit` events of it, or all.
    ///
    /// # Errors
    ///
    /// [`TraceError`], if the recording was damaged.
    pub fn read(&self, limit: Option<usize>) -> Result<Trace, TraceError> {
        let source = format!("embedded trace {}", self.name);
        Trace::read(self.name, Reader::from_bytes(&source, self.packed)?, limit)
    }
}

impl core::fmt::Debug for EmbeddedTrace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EmbeddedTrace")
            .field("name", &self.name)
            .field("packed_bytes", &self.packed.len())
            .finish_non_exhaustive()
    }
}
