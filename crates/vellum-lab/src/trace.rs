//! Traces of programs: which pages they fetched from, read and wrote, in order.
//!
//! ```text
//!   file or bytes --> zstd? --> vtrace1  --> Event, Event, ...   Reader: streaming
//!                       |   \-> lackey      \-> Trace            Trace: all in memory, 8 bytes each
//!                       +-- by content, whatever the name says
//! ```
//!
//! # Invariants
//!
//! - Every event's page number is below 2^52.
//! - Every error names the file, and where there is one the byte; in a compressed file that is the
//!   byte of the decoded stream, and the message says so.

mod error;
mod filter;
mod input;
mod lackey;
mod vt;
mod whole;

pub use error::{TraceError, TraceFault};
pub use vt::VtWriter;
pub use whole::Trace;

pub(crate) use filter::Filter;
pub(crate) use input::unpack;

use input::Input;
use lackey::Lackey;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use vellum_core::{VirtAddr, Vpn};
use vt::Vt;

/// What a reference is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An instruction fetch.
    Fetch,
    /// A load.
    Read,
    /// A store.
    Write,
}

/// One reference to one page, in 64 bits: page number above, kind in the low two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Event(u64);

impl Event {
    /// A reference to `page`.
    #[must_use]
    pub const fn new(page: Vpn, kind: Kind) -> Self {
        Self(page.as_u64() << 2 | kind as u64)
    }

    /// The page.
    #[must_use]
    pub const fn page(self) -> Vpn {
        self.va().number()
    }

    /// The address of the page's first byte.
    #[must_use]
    pub const fn va(self) -> VirtAddr {
        VirtAddr::new((self.0 & !3) << 10)
    }

    /// What the reference is for.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0 & 3 {
            0 => Kind::Fetch,
            1 => Kind::Read,
            _ => Kind::Write,
        }
    }
}

impl core::fmt::Debug for Event {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:?}({:#x})", self.kind(), self.page())
    }
}

/// Decodes a trace as it is read, in constant memory.
///
/// ```
/// use vellum_lab::trace::{Kind, Reader};
///
/// let text = "I  04001000,3\n L 1ffeffe7e8,8\n S 1ffeffe7e8,8\nI  04001003,5\n";
/// let kinds: Result<Vec<_>, _> =
///     Reader::from_bytes("example", text.as_bytes())?.map(|e| e.map(|e| e.kind())).collect();
/// // The second fetch is from the page of the first: it could not miss, and is left out.
/// assert_eq!(kinds?, [Kind::Fetch, Kind::Read, Kind::Write]);
/// # Ok::<(), vellum_lab::trace::TraceError>(())
/// ```
pub struct Reader<'a> {
    name: String,
    input: Input<'a>,
    format: Format,
}

enum Format {
    Vt(Vt),
    Lackey(Lackey),
}

impl Reader<'static> {
    /// Opens the file; what it holds is told by its content, not by its name.
    ///
    /// # Errors
    ///
    /// [`TraceError`] for a file that cannot be read, is empty, or is no trace.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let name = path.display().to_string();
        let open = || {
            let file = File::open(path)?;
            // Reading a directory fails later, on some systems with a puzzling message.
            if file.metadata()?.is_dir() {
                return Err(std::io::ErrorKind::IsADirectory.into());
            }
            Ok(file)
        };
        match open() {
            Ok(file) => Self::new(&name, Box::new(file)),
            Err(e) => Err(TraceError { name, offset: None, fault: TraceFault::Io(e) }),
        }
    }
}

impl<'a> Reader<'a> {
    /// Reads a trace that is in memory already; `name` is for messages.
    ///
    /// # Errors
    ///
    /// As [`open`](Reader::open).
    pub fn from_bytes(name: &str, bytes: &'a [u8]) -> Result<Self, TraceError> {
        Self::new(name, Box::new(bytes))
    }

    /// Reads a trace from any source; `name` is for messages.
    ///
    /// # Errors
    ///
    /// As [`open`](Reader::open).
    pub fn from_read(name: &str, source: Box<dyn Read + 'a>) -> Result<Self, TraceError> {
        Self::new(name, source)
    }

    fn new(name: &str, source: Box<dyn Read + 'a>) -> Result<Self, TraceError> {
        let mut input = Input::empty();
        let detected = Input::detect(source).and_then(|found| {
            input = found;
            Format::detect(&mut input)
        });
        match detected {
            Ok(format) => Ok(Self { name: name.to_owned(), input, format }),
            Err(fault) => Err(TraceError::at(name, &input, fault)),
        }
    }
}

impl Reader<'_> {
    /// A fault of the trace as a whole.
    pub(crate) fn whole(&self, fault: TraceFault) -> TraceError {
        TraceError { name: self.name.clone(), offset: None, fault }
    }
}

impl Format {
    fn detect(input: &mut Input<'_>) -> Result<Self, TraceFault> {
        let start = input.peek(vt::MAGIC.len())?;
        if start.is_empty() {
            Err(TraceFault::Empty)
        } else if start == vt::MAGIC {
            input.skip(vt::MAGIC.len());
            Ok(Self::Vt(Vt::default()))
        } else if vt::MAGIC.starts_with(start) {
            Err(TraceFault::Truncated)
        } else if start.starts_with(b"vtrace") {
            Err(TraceFault::Magic)
        } else if Lackey::could_start_with(start) {
            Ok(Self::Lackey(Lackey::default()))
        } else {
            Err(TraceFault::UnknownFormat)
        }
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Event, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = match &mut self.format {
            Format::Vt(vt) => vt.next(&mut self.input),
            Format::Lackey(lackey) => lackey.next(&mut self.input),
        };
        next.map_err(|fault| TraceError::at(&self.name, &self.input, fault)).transpose()
    }
}

impl core::fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Reader").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
