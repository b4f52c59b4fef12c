//! A file of references: one block number a line, plain or packed by zstd.
//!
//! ```text
//!   # any number of remarks and empty lines
//!   42932745
//!   42932746
//!   ^ decimal, below 2^64; the line may end as on Unix or as on Windows
//! ```

use crate::table::grouped;
use crate::trace::unpack;
use core::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use vellum_reclaim::host::Stream;

/// The most references.
pub const MOST_REFERENCES: u64 = 1 << 28;

/// More than any number, remark and blank takes.
const LONGEST_LINE: u64 = 1024;

/// What is wrong with a line, or with the file.
#[derive(Debug)]
#[non_exhaustive]
pub enum BlocksFault {
    /// It cannot be opened or read.
    Io(io::Error),
    /// zstd cannot unpack it.
    Zstd(io::Error),
    /// It has no number.
    Empty,
    /// A line that is no number.
    Number(String),
    /// More than [`MOST_REFERENCES`].
    TooMany,
}

/// A file of blocks cannot be read.
#[derive(Debug)]
pub struct BlocksError {
    /// The file.
    pub name: String,
    /// The line, from 1 on, if the fault is in one.
    pub line: Option<u64>,
    /// What is wrong.
    pub fault: BlocksFault,
}

impl fmt::Display for BlocksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        match &self.fault {
            BlocksFault::Io(e) => e.fmt(f),
            BlocksFault::Zstd(e) => write!(f, "zstd cannot unpack the data: {e}"),
            BlocksFault::Empty => {
                f.write_str("no block numbers (one decimal number a line is wanted)")
            }
            BlocksFault::Number(text) => {
                write!(f, "`{text}` is no block number (one below 2^64 a line, in decimal)")
            }
            BlocksFault::TooMany => {
                let most = grouped(MOST_REFERENCES);
                write!(f, "more than {most} references (cut the file: `head -n {MOST_REFERENCES}`)")
            }
        }
    }
}

impl core::error::Error for BlocksError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match &self.fault {
            BlocksFault::Io(e) | BlocksFault::Zstd(e) => Some(e),
            _ => None,
        }
    }
}

/// Reads the file.
///
/// # Errors
///
/// [`BlocksError`], with file and line.
pub fn read(path: &Path) -> Result<Stream, BlocksError> {
    let name = path.display().to_string();
    let failed = |e| BlocksError { name: name.clone(), line: None, fault: BlocksFault::Io(e) };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(failed(io::ErrorKind::IsADirectory.into()));
    }
    parse(&name, Box::new(file))
}

/// Reads all lines.
fn parse<'a>(name: &str, source: Box<dyn Read + 'a>) -> Result<Stream, BlocksError> {
    let error = |line, fault| BlocksError { name: name.to_owned(), line, fault };
    let (source, is_packed) = unpack(source).map_err(|e| error(None, BlocksFault::Io(e)))?;
    let mut source = BufReader::with_capacity(1 << 16, source);
    let mut blocks: Vec<u64> = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = source.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line);
        let count = read.map_err(|e| {
            let fault = if is_packed { BlocksFault::Zstd } else { BlocksFault::Io };
            error(Some(number), fault(e))
        })?;
        if count == 0 {
            break;
        }
        let text = line.trim_ascii();
        if text.is_empty() || text.starts_with(b"#") && count < LONGEST_LINE as usize {
            continue;
        }
        let block = block(text).map_err(|fault| error(Some(number), fault))?;
        if blocks.len() as u64 == MOST_REFERENCES {
            return Err(error(Some(number), BlocksFault::TooMany));
        }
        blocks.push(block);
    }
    if blocks.is_empty() {
        return Err(error(None, BlocksFault::Empty));
    }
    Ok(Stream::new(blocks))
}

/// A number of digits alone.
fn block(text: &[u8]) -> Result<u64, BlocksFault> {
    let number = core::str::from_utf8(text).ok();
    let number = number.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    number.and_then(|text| text.parse().ok()).ok_or_else(|| {
        // As much as a line of a terminal has room for, and no control characters.
        let shown = String::from_utf8_lossy(text);
        let shown: String = shown.chars().take(40).flat_map(char::escape_debug).collect();
        BlocksFault::Number(shown)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &[u8]) -> Result<Stream, String> {
        parse("b.txt", Box::new(text)).map_err(|e| e.to_string())
    }

    #[test]
    fn numbers_remarks_and_both_ends_of_lines_are_read() {
        let expected = Stream::new([7u64, 18_446_744_073_709_551_615, 7]);
        let text = b"# from a disk\n7\r\n\n  18446744073709551615 \n7";
        assert_eq!(parsed(text), Ok(expected.clone()));
        let packed = zstd::encode_all(&text[..], 1).unwrap();
        assert_eq!(parsed(&packed), Ok(expected));
    }

    #[test]
    fn a_bad_line_is_named_with_its_value_and_what_is_wanted() {
        let cases: [(&[u8], &str); 7] = [
            (b"1\n2\nabc\n", "b.txt: line 3: `abc` is no block number (one below 2^64 a line"),
            (b"-1\n", "line 1: `-1` is no block number"),
            (b"+1\n", "line 1: `+1` is no"),
            (b"18446744073709551616\n", "line 1: `18446744073709551616` is no"),
            (b"1 2\n", "line 1: `1 2` is no"),
            (b"\xff\n", "line 1: `\u{fffd}` is no"),
            (b"# nothing\n", "b.txt: no block numbers"),
        ];
        for (text, expected) in cases {
            let told = parsed(text).unwrap_err();
            assert!(told.contains(expected), "{told}");
        }
        assert!(parsed(&[b'1'; 5000]).unwrap_err().contains("line 1: `1111"));
        let mut packed = zstd::encode_all(&b"1\n2\n"[..], 1).unwrap();
        packed.truncate(packed.len() - 2);
        assert!(parsed(&packed).unwrap_err().contains("zstd cannot unpack"));
    }
}
