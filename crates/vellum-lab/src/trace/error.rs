//! What can be wrong with a trace, and where.
//!
//! ```text
//!   runs/x.vt.zst: byte 813 of the decoded stream: the trace ends within its magic or a number
//!   ^ name         ^ offset                        ^ fault
//! ```

use super::input::Input;
use crate::table::size;
use core::fmt;
use std::io;

/// What is wrong.
#[derive(Debug)]
#[non_exhaustive]
pub enum TraceFault {
    /// The file cannot be opened or read.
    Io(io::Error),
    /// The compressed data is corrupt, ends early, or wants more memory than there is.
    Zstd(io::Error),
    /// There is nothing in it.
    Empty,
    /// A trace, but without a single reference.
    NoEvents,
    /// It begins as a vtrace does, but of another version.
    Magic,
    /// It begins like none of the formats.
    UnknownFormat,
    /// It ends within the magic or a number.
    Truncated,
    /// A number of more than 64 bits.
    Overlong,
    /// A reference of kind 3.
    Kind,
    /// A page number below 0 or above 52 bits.
    PageRange,
    /// A line that is not lackey's.
    Line,
    /// More events than are read without a limit.
    TooLong {
        /// How many those are.
        most: usize,
    },
    /// The host refuses memory for the data of a workload.
    Data {
        /// How much it is, at least.
        bytes: u64,
    },
    /// The host refuses memory.
    Memory {
        /// How many events there is memory for, at most.
        events: usize,
    },
}

impl fmt::Display for TraceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io(e) => return e.fmt(f),
            Self::Zstd(e) => return write!(f, "zstd cannot unpack the data: {e}"),
            Self::Empty => "the file is empty",
            Self::NoEvents => "the trace has no references",
            Self::Magic => "unknown version of the vtrace format (known: `vtrace1`)",
            Self::UnknownFormat => {
                "no known trace format (known: vtrace1, lackey text, either also as zstd)"
            }
            Self::Truncated => "the trace ends within its magic or a number",
            Self::Overlong => "a number of more than 64 bits",
            Self::Kind => "a reference of kind 3 (known: 0 fetch, 1 read, 2 write)",
            Self::PageRange => "a page number outside of 0 to 2^52 - 1",
            Self::TooLong { most } => {
                return write!(f, "more than {most} events (--events N replays the first N)");
            }
            Self::Memory { events } => {
                return write!(
                    f,
                    "no memory for more than {events} events (--events N replays the first N)"
                );
            }
            Self::Data { bytes } => {
                return write!(f, "the host refuses {} of memory for its data", size(*bytes));
            }
            Self::Line => "not a line of lackey's (expected `I`, `L`, `S` or `M` and hex,size)",
        })
    }
}

/// A trace cannot be read.
#[derive(Debug)]
pub struct TraceError {
    /// The file, or what stands for it.
    pub name: String,
    /// Where, if the fault has a place.
    pub offset: Option<Offset>,
    /// What.
    pub fault: TraceFault,
}

/// A place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// Bytes before it.
    pub byte: u64,
    /// The bytes are those that come out of the decompressor.
    pub decoded: bool,
}

impl TraceError {
    /// `fault`, at the place that `input` has come to.
    pub(super) fn at(name: &str, input: &Input<'_>, fault: TraceFault) -> Self {
        let has_place = !matches!(fault, TraceFault::Io(_) | TraceFault::Empty);
        let offset = has_place.then(|| input.offset());
        Self { name: name.to_owned(), offset, fault }
    }
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        if let Some(Offset { byte, decoded }) = self.offset {
            write!(f, "byte {byte}{}: ", if decoded { " of the decoded stream" } else { "" })?;
        }
        self.fault.fmt(f)
    }
}

impl core::error::Error for TraceError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.fault {
            TraceFault::Io(e) | TraceFault::Zstd(e) => Some(e),
            _ => None,
        }
    }
}
