//! The file of `--json`: whole or not there, and refused before minutes are spent on it.
//!
//! ```text
//!   what is there             what happens
//!   -------------------------------------------------------------------------
//!   nothing, a regular file   a temporary file in the same folder takes the name
//!   a link                    the same, for its end; the link stays
//!   a device, a pipe          written into
//!   a folder; no such folder  refused
//! ```

use crate::stop::{Result, Stop};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Whether it could be written, as far as that shows without writing it.
pub(super) fn check(path: &Path) -> Result {
    let checked =
        replaced(path).and_then(|end| end.map_or(Ok(()), |end| temporary(&end).map(drop)));
    checked.map_err(|e| stop(path, &e))
}

/// Writes it.
pub(super) fn write(path: &Path, text: &str) -> Result {
    let written = replaced(path).and_then(|end| match end {
        Some(end) => replace(&end, text),
        None => std::fs::write(path, text),
    });
    written.map_err(|e| stop(path, &e))
}

fn stop(path: &Path, e: &io::Error) -> Stop {
    match e.kind() {
        ErrorKind::NotFound => Stop::file("write", path, "its folder does not exist"),
        ErrorKind::IsADirectory => Stop::file("write", path, "it is a folder"),
        // The temporary file's name, which is part of `e`, would help nobody.
        kind => Stop::file("write", path, io::Error::from(kind)),
    }
}

/// The regular file that is to be replaced, behind all links; `None`: write into what is there.
fn replaced(path: &Path) -> io::Result<Option<PathBuf>> {
    match path.metadata() {
        Ok(end) if end.is_dir() => Err(ErrorKind::IsADirectory.into()),
        Ok(end) if end.is_file() => path.canonicalize().map(Some),
        Ok(_) => Ok(None),
        // A link to what is not there yet.
        Err(_) if path.is_symlink() => Ok(None),
        Err(_) => Ok(Some(path.to_owned())),
    }
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut file = temporary(path)?;
    file.write_all(text.as_bytes())?;
    #[cfg(unix)]
    if let Ok(before) = path.metadata() {
        file.as_file().set_permissions(before.permissions())?;
    }
    file.persist(path).map(drop).map_err(|e| e.error)
}

/// A file beside `path` that goes when it is dropped.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // As any new file: the umask takes away what it does not want.
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.json");
        check(&path).unwrap();
        assert!(!path.exists(), "to check leaves nothing behind");
        write(&path, "{}\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{}\n");
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_is_refused_before_and_after() {
        let folder = tempfile::tempdir().unwrap();
        let none = folder.path().join("none").join("rows.json");
        for (path, why) in [(&none, "its folder does not exist"), (&folder.path().into(), "folder")]
        {
            for stop in [check(path).unwrap_err(), write(path, "{}").unwrap_err()] {
                assert_eq!(stop.status, 2);
                assert!(stop.message.ends_with(why), "{}", stop.message);
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_may_be_read_as_any_other_and_an_old_one_keeps_its_mode() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let [path, other] = ["rows.json", "other"].map(|name| folder.path().join(name));
        std::fs::write(&other, "").unwrap();
        write(&path, "{}\n").unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), mode(&other));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, "{}\n").unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links_and_their_ends_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let [whole, missing, link] =
            ["rows.json", "new.json", "link"].map(|n| folder.path().join(n));
        std::fs::write(&whole, "old").unwrap();
        for end in [&whole, &missing] {
            std::os::unix::fs::symlink(end, &link).unwrap();
            write(&link, "{}\n").unwrap();
            assert!(link.is_symlink());
            assert_eq!(std::fs::read_to_string(end).unwrap(), "{}\n");
            std::fs::remove_file(&link).unwrap();
        }
    }

    #[cfg(unix)]
    #[test]
    fn pipes_stay_pipes_and_are_written() {
        use std::io::Read as _;
        use std::os::unix::fs::FileTypeExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(crate::process::succeeds(std::process::Command::new("mkfifo").arg(&path)).unwrap());
        // Opened for reading and writing, a pipe waits for nobody.
        let mut pipe = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        write(&path, "{}\n").unwrap();
        assert!(path.metadata().unwrap().file_type().is_fifo());
        let mut text = [0; 3];
        pipe.read_exact(&mut text).unwrap();
        assert_eq!(text, *b"{}\n");
    }
}
