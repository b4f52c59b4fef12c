//! A buffered byte stream that knows how far it has come, and unpacks zstd.
//!
//! ```text
//!   source --> [ zstd decoder ] --> [ buffer:  consumed | ahead | free ]
//!                                               before    pos   end
//! ```
//!
//! # Invariants
//!
//! - `before + pos` is the number of decoded bytes consumed.

use super::TraceFault;
use super::error::Offset;
use std::io::{Chain, Cursor, Read};

const BUFFER: usize = 1 << 18;

/// First bytes of a zstd frame (RFC 8878, 3.1.1).
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Whether a file that begins so is zstd's: a frame, or one to be skipped (RFC 8878, 3.1.2) as
/// pzstd writes before each.
fn is_zstd(start: &[u8]) -> bool {
    start == ZSTD_MAGIC || matches!(start, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}

/// log2 of the largest window that the decoder takes, which `zstd --long` may ask for.
const WINDOW_LOG: u32 = if usize::BITS >= 64 { 31 } else { 30 };

/// What the source says, unpacked if it begins like zstd; whether it did.
pub(crate) fn unpack<'a>(
    mut source: Box<dyn Read + 'a>,
) -> std::io::Result<(Box<dyn Read + 'a>, bool)> {
    let mut start = Vec::new();
    source.by_ref().take(4).read_to_end(&mut start)?;
    let packed = is_zstd(&start);
    let whole: Chain<_, _> = Cursor::new(start).chain(source);
    if !packed {
        return Ok((Box::new(whole), false));
    }
    let mut decoder = zstd::Decoder::new(whole)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok((Box::new(decoder), true))
}

/// The bytes of a trace, decoded.
pub(super) struct Input<'a> {
    source: Box<dyn Read + 'a>,
    decoded: bool,
    buffer: Vec<u8>,
    pos: usize,
    end: usize,
    before: u64,
}

impl<'a> Input<'a> {
    /// A stream of no bytes.
    pub(super) fn empty() -> Self {
        Self::over(Box::new(std::io::empty()), false)
    }

    fn over(source: Box<dyn Read + 'a>, decoded: bool) -> Self {
        Self { source, decoded, buffer: Vec::new(), pos: 0, end: 0, before: 0 }
    }

    /// Decompresses `source` if it begins like zstd.
    pub(super) fn detect(source: Box<dyn Read + 'a>) -> Result<Self, TraceFault> {
        // Nothing can be wrong with the compression yet: a decoder's making needs memory alone.
        let (source, decoded) = unpack(source).map_err(TraceFault::Io)?;
        Ok(Self::over(source, decoded))
    }

    /// How many bytes have been consumed.
    pub(super) fn offset(&self) -> Offset {
        Offset { byte: self.before + self.pos as u64, decoded: self.decoded }
    }

    /// What is in the buffer and not consumed yet.
    #[inline]
    pub(super) fn ahead(&self) -> &[u8] {
        &self.buffer[self.pos..self.end]
    }

    /// Consumes `count` bytes, which must be [ahead](Self::ahead).
    #[inline]
    pub(super) fn skip(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.pos);
        self.pos += count;
    }

    /// The next `count` bytes, which stay ahead; fewer at the end of the stream, and never more
    /// than the buffer holds.
    pub(super) fn peek(&mut self, count: usize) -> Result<&[u8], TraceFault> {
        while self.end - self.pos < count && self.read_more()? {}
        let count = count.min(self.end - self.pos);
        Ok(&self.buffer[self.pos..self.pos + count])
    }

    /// Reads more into the buffer, behind what is ahead; `false` if there is no more, or no room.
    pub(super) fn read_more(&mut self) -> Result<bool, TraceFault> {
        self.buffer.resize(BUFFER, 0);
        self.buffer.copy_within(self.pos..self.end, 0);
        self.before += self.pos as u64;
        self.end -= self.pos;
        self.pos = 0;
        let fault = if self.decoded { TraceFault::Zstd } else { TraceFault::Io };
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count > 0);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                // What was decoded before the fault is good: the place of the fault is behind it.
                Err(e) => {
                    self.pos = self.end;
                    return Err(fault(e));
                }
            }
        }
    }
}
