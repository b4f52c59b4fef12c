//! Writes a report to where the user says, and destroys nothing there.
//!
//! ```text
//!   what is there             what happens
//!   --------------------------------------------------------------------------------------
//!   nothing, a regular file   a temporary file in the same folder takes the name
//!   a link                    the same, for the file that it leads to; the link stays
//!   what stdout is            through stdout, behind what was printed
//!   FIFO, device, socket      straight into it
//!   a folder, an input        refused
//! ```
//!
//! # Invariants
//!
//! - A regular file holds the whole report, or what it held before.
//! - What is not a regular file is never replaced.

use core::fmt;
use serde::Serialize;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The most links that lead to a file which does not exist yet.
const MOST_LINKS: usize = 40;

/// A report cannot go where it should.
#[derive(Debug)]
#[non_exhaustive]
pub enum OutputError {
    /// The system says so.
    Io(io::Error),
    /// This trace, or stream of processes, would be lost.
    Input(PathBuf),
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(e) if e.kind() == io::ErrorKind::NotFound => {
                f.write_str("its folder does not exist")
            }
            Self::Io(e) => e.fmt(f),
            Self::Input(input) => write!(f, "it is the input {}", input.display()),
        }
    }
}

impl core::error::Error for OutputError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Io(e) => Some(e),
            Self::Input(_) => None,
        }
    }
}

impl From<io::Error> for OutputError {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// How a report gets to its path.
enum Way {
    /// By a temporary file that becomes this one.
    Replace(PathBuf),
    /// Into what is there.
    Into,
    /// Through stdout, whose file is there.
    Stdout,
}

impl Way {
    fn to(path: &Path) -> io::Result<Self> {
        let there = match fs::metadata(path) {
            Ok(there) => there,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return absent(path).map(Self::Replace);
            }
            Err(e) => return Err(e),
        };
        if there.is_dir() {
            Err(io::ErrorKind::IsADirectory.into())
        } else if is_stdout(&there) {
            Ok(Self::Stdout)
        } else if there.is_file() {
            fs::canonicalize(path).map(Self::Replace)
        } else {
            Ok(Self::Into)
        }
    }
}

/// The name of a file that is not there yet, behind all links.
fn absent(path: &Path) -> io::Result<PathBuf> {
    if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = folder(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Which file it is, by whatever name.
#[cfg(unix)]
fn identity(file: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (file.dev(), file.ino())
}

#[cfg(unix)]
fn is_stdout(file: &Metadata) -> bool {
    use std::os::fd::AsFd;
    let stdout = io::stdout().as_fd().try_clone_to_owned().map(File::from);
    stdout.and_then(|f| f.metadata()).is_ok_and(|stdout| identity(&stdout) == identity(file))
}

#[cfg(unix)]
fn same_file(a: &Path, b: &Path) -> bool {
    let identities = (fs::metadata(a).map(|a| identity(&a)), fs::metadata(b).map(|b| identity(&b)));
    matches!(identities, (Ok(a), Ok(b)) if a == b)
}

#[cfg(not(unix))]
fn is_stdout(_: &Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn same_file(a: &Path, b: &Path) -> bool {
    matches!((fs::canonicalize(a), fs::canonicalize(b)), (Ok(a), Ok(b)) if a == b)
}

/// Whether a report could be written to `path`, as far as that shows without writing it, and is
/// not to take the place of an input.
///
/// # Errors
///
/// What [`write()`] would say, or [`OutputError::Input`].
pub fn check_writable<'p>(
    path: &Path,
    inputs: impl IntoIterator<Item = &'p Path>,
) -> Result<(), OutputError> {
    if let Some(input) = inputs.into_iter().find(|input| same_file(path, input)) {
        return Err(OutputError::Input(input.to_owned()));
    }
    if let Way::Replace(file) = Way::to(path)? {
        temporary(&file)?;
    }
    Ok(())
}

/// Whether a report written to `path` goes to stdout, where nothing else should then follow it.
/// A terminal, like any device of characters, takes both.
#[must_use]
pub fn fills_stdout(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        fs::metadata(path)
            .is_ok_and(|there| is_stdout(&there) && !there.file_type().is_char_device())
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// Writes the report to `path`: in the place of a regular file, into anything else.
///
/// # Errors
///
/// The system's; a regular file is then what it was, and no other is left behind.
pub fn write(report: &impl Serialize, path: &Path) -> Result<(), OutputError> {
    write_with(path, |mut out| {
        serde_json::to_writer_pretty(&mut out, report)?;
        out.write_all(b"\n")
    })
}

/// The same with what `content` writes.
///
/// # Errors
///
/// The system's, or those of `content`; a regular file is then what it was.
pub fn write_with(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), OutputError> {
    match Way::to(path)? {
        Way::Replace(file) => replace(content, &file)?,
        Way::Into => print(content, OpenOptions::new().write(true).open(path)?).map(drop)?,
        Way::Stdout => print(content, io::stdout().lock()).map(drop)?,
    }
    Ok(())
}

fn replace(content: impl FnOnce(&mut dyn Write) -> io::Result<()>, path: &Path) -> io::Result<()> {
    let file = print(content, temporary(path)?)?;
    #[cfg(unix)]
    if let Ok(before) = fs::metadata(path) {
        file.as_file().set_permissions(before.permissions())?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}

/// Has the text written and gives the sink back, flushed.
fn print<W: Write>(
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    sink: W,
) -> io::Result<W> {
    let mut out = BufWriter::new(sink);
    content(&mut out)?;
    let mut sink = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    sink.flush()?;
    Ok(sink)
}

/// A file in the folder of `path` that goes when it is dropped.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vellum-lab-");
    #[cfg(unix)]
    {
        // As any new file: the umask takes away what it does not want.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666));
    }
    // The crate names the file it tried; what the user can do something about is the reason.
    builder.tempfile_in(folder(path)).map_err(|e| io::Error::from(e.kind()))
}
