//! The `vtrace1` format: differences of page numbers as variable-length numbers.
//!
//! ```text
//!   76 74 72 61 63 65 31 0a   "vtrace1\n"
//!   then numbers v of 7 bits a byte, low bits first, bit 7 = more follows (LEB128)
//!
//!   v:   63 .................... 2  1  0
//!       +-------------------------+------+
//!       | zigzag(page - previous) | kind |      kind: 0 fetch, 1 read, 2 write
//!       +-------------------------+------+      zigzag: 0 -1 1 -2 2 ... -> 0 1 2 3 4 ...
//! ```
//!
//! `previous` is the previous page of the same stream: fetches are one stream, reads and writes
//! together the other; each starts at page 0.
//!
//! # Invariants
//!
//! - Decoding what [`VtWriter`] wrote gives the same events.
//!
//! Source: docs/trace-format.md; LEB128 from DWARF 5, 7.6.

use super::input::Input;
use super::{Event, Kind, TraceFault};
use std::io::{self, Write};
use vellum_core::Vpn;

/// The first bytes of every trace of this format.
pub(super) const MAGIC: &[u8] = b"vtrace1\n";

/// Bytes of the longest number of 64 bits.
const LONGEST: usize = 10;

/// The two streams' last pages.
#[derive(Debug, Default)]
pub(super) struct Vt {
    previous: [u64; 2],
}

const fn stream(kind: Kind) -> usize {
    match kind {
        Kind::Fetch => 0,
        Kind::Read | Kind::Write => 1,
    }
}

const fn zigzag(difference: i64) -> u64 {
    (difference << 1 ^ difference >> 63) as u64
}

const fn unzigzag(code: u64) -> i64 {
    (code >> 1) as i64 ^ -((code & 1) as i64)
}

impl Vt {
    /// The next event; `None` at the end. At a fault the input stands at the number at fault.
    #[inline]
    pub(super) fn next(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, TraceFault> {
        if input.ahead().len() < LONGEST {
            // Near the end of the buffer; at the very end of the file less than that is enough.
            input.peek(LONGEST)?;
        }
        let Some((v, len)) = decode(input.ahead())? else { return Ok(None) };
        let kind = match v & 3 {
            0 => Kind::Fetch,
            1 => Kind::Read,
            2 => Kind::Write,
            _ => return Err(TraceFault::Kind),
        };
        let previous = &mut self.previous[stream(kind)];
        let page = previous
            .checked_add_signed(unzigzag(v >> 2))
            .and_then(Vpn::new)
            .ok_or(TraceFault::PageRange)?;
        *previous = page.as_u64();
        input.skip(len);
        Ok(Some(Event::new(page, kind)))
    }
}

/// The number at the start of `bytes` and its length; `None` if there are no bytes.
#[inline]
fn decode(bytes: &[u8]) -> Result<Option<(u64, usize)>, TraceFault> {
    let mut v = 0;
    for (i, &byte) in bytes.iter().take(LONGEST).enumerate() {
        if i == LONGEST - 1 && byte > 1 {
            return Err(TraceFault::Overlong);
        }
        v |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((v, i + 1)));
        }
    }
    if bytes.is_empty() { Ok(None) } else { Err(TraceFault::Truncated) }
}

/// Writes a trace in this format; give it a buffered sink.
///
/// ```
/// use vellum_core::Vpn;
/// use vellum_lab::trace::{Event, Kind, Reader, VtWriter};
///
/// let event = Event::new(Vpn::new(0x401).unwrap(), Kind::Fetch);
/// let mut writer = VtWriter::new(Vec::new())?;
/// writer.push(event)?;
/// let bytes = writer.finish()?;
/// let read: Result<Vec<_>, _> = Reader::from_bytes("example", &bytes)?.collect();
/// assert_eq!(read?, [event]);
/// # Ok::<(), Box<dyn core::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct VtWriter<W: Write> {
    sink: W,
    previous: [u64; 2],
}

impl<W: Write> VtWriter<W> {
    /// Begins a trace.
    ///
    /// # Errors
    ///
    /// The sink's.
    pub fn new(mut sink: W) -> io::Result<Self> {
        sink.write_all(MAGIC)?;
        Ok(Self { sink, previous: [0; 2] })
    }

    /// Appends one event.
    ///
    /// # Errors
    ///
    /// The sink's.
    pub fn push(&mut self, event: Event) -> io::Result<()> {
        let page = event.page().as_u64();
        let previous = core::mem::replace(&mut self.previous[stream(event.kind())], page);
        // Both are below 2^52, so that the difference fits and two more bits do.
        let mut v = zigzag(page.wrapping_sub(previous) as i64) << 2 | event.kind() as u64;
        let mut bytes = [0; LONGEST];
        let mut len = 0;
        while v >= 0x80 {
            bytes[len] = v as u8 | 0x80;
            v >>= 7;
            len += 1;
        }
        bytes[len] = v as u8;
        self.sink.write_all(&bytes[..=len])
    }

    /// Ends the trace and returns the sink, flushed.
    ///
    /// # Errors
    ///
    /// The sink's.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.flush()?;
        Ok(self.sink)
    }
}
