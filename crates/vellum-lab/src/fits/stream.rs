//! A stream of processes: when each arrives, how long it stays, and how large it is.
//!
//! ```text
//!   # any number of lines of remarks
//!   arrival_ms,lifetime_ms,bytes
//!   0,5230,141272+1896+3735552
//!   |  |   |       |    +---- and whatever else: heap, stack, libraries
//!   |  |   |       +--------- its initialised data
//!   |  |   +----------------- its text; or one number for all of it
//!   |  +--------------------- it ends so long after it arrived
//!   +------------------------ from the beginning of the recording
//! ```
//!
//! Segments are what paging rounds up to whole pages, each by itself; contiguous allocation takes
//! their sum. Lines may be in any order, and end as on Unix or as on Windows.
//!
//! # Invariants
//!
//! - A stream has at least one process, and they are in the order of arrival.
//! - Every size is 1 to [`MOST_BYTES`]; every time is at most [`MOST_MS`]; a lifetime is not 0.

use crate::table::size;
use core::fmt;
use std::io::{self, BufRead, Read};
use vellum_core::PAGE_SIZE;

/// The largest process: more than any machine that had to do without paging.
pub const MOST_BYTES: u64 = 64 << 30;

/// The latest arrival and the longest life: 34 years.
pub const MOST_MS: u64 = 1 << 40;

/// The most processes.
pub const MOST_PROCESSES: usize = 1 << 17;

/// The most segments of a process.
const MOST_SEGMENTS: usize = 4;

const LONGEST_LINE: u64 = 1024;

const HEADER: &str = "arrival_ms,lifetime_ms,bytes";

/// The sizes of a process's parts, none of them 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments([u64; MOST_SEGMENTS]);

impl Segments {
    fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.into_iter().filter(|&bytes| bytes > 0)
    }

    /// What it takes in one piece.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.iter().sum()
    }

    /// How many frames paging gives it.
    #[must_use]
    pub fn count_frames(&self) -> u64 {
        self.iter().map(|bytes| bytes.div_ceil(PAGE_SIZE)).sum()
    }
}

/// Zeros are left out, and what is more than there is room for is counted with the last.
impl FromIterator<u64> for Segments {
    fn from_iter<I: IntoIterator<Item = u64>>(sizes: I) -> Self {
        let mut segments = [0; MOST_SEGMENTS];
        for (n, bytes) in sizes.into_iter().filter(|&bytes| bytes > 0).enumerate() {
            segments[n.min(MOST_SEGMENTS - 1)] += bytes;
        }
        Self(segments)
    }
}

impl fmt::Display for Segments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter()
            .enumerate()
            .try_for_each(|(n, bytes)| write!(f, "{}{bytes}", if n > 0 { "+" } else { "" }))
    }
}

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// When it asks for memory.
    pub arrival_ms: u64,
    /// How long it keeps it.
    pub lifetime_ms: u64,
    /// How much that is.
    pub segments: Segments,
}

/// What is wrong with a line, or with the file.
#[derive(Debug)]
#[non_exhaustive]
pub enum StreamFault {
    /// It cannot be opened or read.
    Io(io::Error),
    /// There is nothing in it.
    Empty,
    /// It has remarks and maybe a header, and no process.
    NoProcesses,
    /// The first line that is no remark is not the header.
    Header,
    /// A line that does not consist of three fields.
    Fields,
    /// A field that is no number: letters, signs, nothing.
    Number,
    /// A time above [`MOST_MS`].
    Time,
    /// A lifetime of 0.
    NoLife,
    /// A size of 0.
    NoBytes,
    /// More than [`MOST_BYTES`].
    Size,
    /// More segments than a process can have.
    Segments,
    /// A line of more bytes than any good one has.
    Long,
    /// More than [`MOST_PROCESSES`].
    Processes,
}

impl fmt::Display for StreamFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) => e.fmt(f),
            Self::Empty => f.write_str("the file is empty"),
            Self::NoProcesses => f.write_str("the stream has no processes"),
            Self::Header => write!(f, "not a stream of processes (expected `{HEADER}`)"),
            Self::Fields => write!(f, "not three fields (expected {HEADER})"),
            Self::Number => f.write_str("not a number (expected digits only)"),
            Self::Time => write!(f, "a time of more than {MOST_MS} ms"),
            Self::NoLife => f.write_str("a lifetime of 0"),
            Self::NoBytes => f.write_str("a size of 0"),
            Self::Size => write!(f, "a process of more than {}", size(MOST_BYTES)),
            Self::Segments => write!(f, "more than {MOST_SEGMENTS} segments"),
            Self::Long => write!(f, "a line of more than {LONGEST_LINE} bytes"),
            Self::Processes => write!(f, "more than {MOST_PROCESSES} processes"),
        }
    }
}

/// A stream cannot be read.
#[derive(Debug)]
pub struct StreamError {
    /// The file, or what stands for it.
    pub name: String,
    /// The line, counted from 1, if the fault is in one.
    pub line: Option<u64>,
    /// What.
    pub fault: StreamFault,
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        self.fault.fmt(f)
    }
}

impl core::error::Error for StreamError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.fault {
            StreamFault::Io(e) => Some(e),
            _ => None,
        }
    }
}

/// Processes in the order of their arrival.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What reports call it.
    pub name: String,
    /// At least one.
    pub processes: Vec<Process>,
}

impl Stream {
    /// Reads the text of a stream.
    ///
    /// # Errors
    ///
    /// The first [`StreamError`].
    pub fn read(name: &str, text: impl BufRead) -> Result<Self, StreamError> {
        let mut line = 0;
        let fail = |line, fault| StreamError { name: name.to_owned(), line, fault };
        let mut processes = parse(text, &mut line).map_err(|fault| {
            let has_place = !matches!(
                fault,
                StreamFault::Io(_) | StreamFault::Empty | StreamFault::NoProcesses
            );
            fail(has_place.then_some(line), fault)
        })?;
        // Those that arrive together keep the order of their lines.
        processes.sort_by_key(|process| process.arrival_ms);
        Ok(Self { name: name.to_owned(), processes })
    }

    /// When the last process has ended.
    #[must_use]
    pub fn end_ms(&self) -> u64 {
        self.processes.iter().map(|p| p.arrival_ms + p.lifetime_ms).max().unwrap_or(0)
    }
}

/// All processes; `line` is that of the fault, if there is one.
fn parse(mut text: impl BufRead, line: &mut u64) -> Result<Vec<Process>, StreamFault> {
    let mut processes = Vec::new();
    let mut has_header = false;
    let mut bytes = Vec::new();
    loop {
        *line += 1;
        bytes.clear();
        // One more than is allowed, and the line's end.
        text.by_ref()
            .take(LONGEST_LINE + 2)
            .read_until(b'\n', &mut bytes)
            .map_err(StreamFault::Io)?;
        if bytes.is_empty() {
            break;
        }
        let content = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let content = content.strip_suffix(b"\r").unwrap_or(content);
        if content.len() as u64 > LONGEST_LINE {
            return Err(StreamFault::Long);
        }
        if content.is_empty() || content.starts_with(b"#") {
            continue;
        }
        if !has_header {
            if content != HEADER.as_bytes() {
                return Err(StreamFault::Header);
            }
            has_header = true;
            continue;
        }
        if processes.len() == MOST_PROCESSES {
            return Err(StreamFault::Processes);
        }
        processes.push(process(content)?);
    }
    match processes.is_empty() {
        _ if *line == 1 => Err(StreamFault::Empty),
        true => Err(StreamFault::NoProcesses),
        false => Ok(processes),
    }
}

fn process(line: &[u8]) -> Result<Process, StreamFault> {
    let mut fields = line.split(|&byte| byte == b',');
    let (Some(arrival), Some(lifetime), Some(sizes), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(StreamFault::Fields);
    };
    let time = |field| match number(field)? {
        Some(ms) if ms <= MOST_MS => Ok(ms),
        _ => Err(StreamFault::Time),
    };
    let (arrival_ms, lifetime_ms) = (time(arrival)?, time(lifetime)?);
    if lifetime_ms == 0 {
        return Err(StreamFault::NoLife);
    }
    let mut segments = [0; MOST_SEGMENTS];
    let mut all = 0;
    for (n, field) in sizes.split(|&byte| byte == b'+').enumerate() {
        let bytes = number(field)?.filter(|&bytes| bytes <= MOST_BYTES);
        let bytes = bytes.ok_or(StreamFault::Size)?;
        if bytes == 0 {
            return Err(StreamFault::NoBytes);
        }
        *segments.get_mut(n).ok_or(StreamFault::Segments)? = bytes;
        all += bytes;
    }
    if all > MOST_BYTES {
        return Err(StreamFault::Size);
    }
    Ok(Process { arrival_ms, lifetime_ms, segments: Segments(segments) })
}

/// A number of digits alone; `None` if it is beyond 64 bits.
fn number(field: &[u8]) -> Result<Option<u64>, StreamFault> {
    if field.is_empty() || !field.iter().all(u8::is_ascii_digit) {
        return Err(StreamFault::Number);
    }
    Ok(core::str::from_utf8(field).ok().and_then(|text| text.parse().ok()))
}

/// The text of a stream, as [`Stream::read`] takes it, with these remarks before it.
///
/// # Errors
///
/// The sink's.
pub fn write(
    remarks: &[String],
    processes: &[Process],
    mut sink: impl io::Write,
) -> io::Result<()> {
    for remark in remarks.iter().flat_map(|remark| remark.lines()) {
        writeln!(sink, "# {remark}")?;
    }
    writeln!(sink, "{HEADER}")?;
    for Process { arrival_ms, lifetime_ms, segments } in processes {
        writeln!(sink, "{arrival_ms},{lifetime_ms},{segments}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
