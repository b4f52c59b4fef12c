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
use core::ops::Range;
use vellum_core::{FrameBytes, OutOfFrames};

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

/// Where a file is, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileLabel {
    /// The device's major number.
    pub major: u32,
    /// The device's minor number.
    pub minor: u32,
    /// The file's number on it.
    pub inode: u64,
}

/// The files of a system. They may wait. Nothing of the page cache is locked when they are called; the
/// space that is faulting, or is being changed, may be, so that they must not touch it, but in
/// [`punched`](Self::punched).
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

    /// Makes a file of `len` bytes of zeros that is in memory only and that nobody can open: what
    /// shared anonymous mappings show. Who asks has a share in it from then on, as if a region of his
    /// showed it, and gives it back by [`unmapped`](Self::unmapped): behind the
    /// [`mapped`](Self::mapped) of the first region, or without one if that could not be made.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; also where there are no such files at all.
    fn create_shared(&self, len: u64) -> Result<FileId, OutOfFrames> {
        let _ = len;
        Err(OutOfFrames { order: 0 })
    }

    /// One region more shows the file.
    fn mapped(&self, file: FileId) {
        let _ = file;
    }

    /// One region fewer shows the file. Of a file that nobody has open either, and that is in memory
    /// only, the pages may go ([`Cache::forget`](crate::Cache::forget); of a [`Shmem`](crate::Shmem),
    /// `release` lets them go).
    fn unmapped(&self, file: FileId) {
        let _ = file;
    }

    /// A hole was made in the file by a program that maps it (`MADV_REMOVE`): the cache and that program's
    /// space have let go of these pages. What is stored of them goes now; then the cache lets go of them
    /// once more ([`Cache::punch`](crate::Cache::punch)), for who has read them meanwhile, and every space
    /// that maps the file. No space is locked.
    fn punched(&self, file: FileId, pages: Range<u64>) {
        let _ = (file, pages);
    }

    /// What a list of mappings says of the file besides its name.
    fn label(&self, file: FileId) -> FileLabel {
        FileLabel { inode: file.0, ..FileLabel::default() }
    }

    /// Writes the file's name as such a list has it.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    fn write_name(&self, file: FileId, to: &mut dyn fmt::Write) -> fmt::Result {
        let _ = (file, to);
        Ok(())
    }

    /// Writes the name of a region whose faults go to the embedder, by the number that it has given it:
    /// `[vvar]`, `[vdso]`, or a device's path.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    fn write_hook_name(&self, number: u64, to: &mut dyn fmt::Write) -> fmt::Result {
        let _ = (number, to);
        Ok(())
    }
}
