//! Files, as those see them who map them: a number, a length, and pages.
//!
//! ```text
//!   page 0        page 1        page 2
//!  +-------------+-------------+-----+ - - - +
//!  | contents                        | zeros |     what a mapping shows; behind page 2: SIGBUS
//!  +-------------+-------------+-----+ - - - +
//!                                    ^ len
//! ```
//!
//! What a file is, where it lies, and what it is called is the embedder's business. The cache asks
//! for a page at a time, and gives each back as it was changed.

use core::fmt;
use vellum_core::FrameBytes;

/// A file's number: the embedder's own (an inode's index, say), the same for as long as the file is
/// mapped or cached. Two files never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u64);

/// Why a page could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileError {
    /// The device failed.
    Io,
    /// The device is full.
    NoSpace,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Io => "the device failed",
            Self::NoSpace => "the device is full",
        })
    }
}

impl core::error::Error for FileError {}

/// The files of a system. They are called without a lock held, and may wait.
pub trait Files {
    /// The file's length in bytes.
    fn len_bytes(&self, file: FileId) -> u64;

    /// Fills `to` with page `index` of the file; what lies behind its end is zeros.
    ///
    /// # Errors
    ///
    /// [`FileError`]; whoever touches the page gets SIGBUS.
    fn read(&self, file: FileId, index: u64, to: FrameBytes<'_>) -> Result<(), FileError>;

    /// Stores page `index`, of which what lies behind the file's end is to be left out. Programs may
    /// be writing to `from` meanwhile.
    ///
    /// # Errors
    ///
    /// [`FileError`]; the page stays dirty.
    fn write(&self, file: FileId, index: u64, from: FrameBytes<'_>) -> Result<(), FileError>;

    /// Whether the cache is the only place where the contents are, so that no page of it may be
    /// dropped: shared anonymous memory, a file system in memory.
    fn is_memory(&self, file: FileId) -> bool {
        let _ = file;
        false
    }
}
