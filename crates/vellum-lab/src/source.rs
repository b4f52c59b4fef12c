//! Where traces come from: recordings, files, and programs that run in the laboratory.
//!
//! ```text
//!   name, path or workload --> Source --read--> Trace(s), one for each process
//! ```

use crate::embedded::{EMBEDDED, EmbeddedTrace};
use crate::trace::{Reader, Trace, TraceError};
use crate::workload::Workload;
use std::path::{Path, PathBuf};

/// Where a trace comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// One that is compiled in.
    Embedded(&'static EmbeddedTrace),
    /// A file.
    File(PathBuf),
    /// A program that runs here.
    Workload(Workload),
}

impl Source {
    /// The file at `path`; where there is none, the embedded trace of this name, if there is one.
    #[must_use]
    pub fn named(path: &Path) -> Self {
        match EMBEDDED.iter().find(|trace| path.as_os_str() == trace.name) {
            Some(trace) if !path.exists() => Self::Embedded(trace),
            _ => Self::File(path.to_owned()),
        }
    }

    /// The file that it is read from, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Embedded(_) | Self::Workload(_) => None,
            Self::File(path) => Some(path),
        }
    }

    /// Equal for two sources of one trace: the same embedded one, or two paths to one file.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        match self {
            Self::Embedded(trace) => PathBuf::from(trace.name),
            Self::Workload(workload) => PathBuf::from(workload.to_string()),
            Self::File(path) => path.canonicalize().unwrap_or_else(|_| path.clone()),
        }
    }

    /// What reports call it: a file's name without its folder and the endings of trace files.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Embedded(trace) => trace.name.to_owned(),
            Self::Workload(workload) => workload.to_string(),
            Self::File(path) => {
                let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
                let name = name.strip_suffix(".zst").unwrap_or(&name);
                let name = name.strip_suffix(".vt").unwrap_or(name);
                if name.is_empty() { path.display().to_string() } else { name.to_owned() }
            }
        }
    }

    /// Events until its next process gets the CPU.
    #[must_use]
    pub const fn quantum(&self) -> usize {
        match self {
            Self::Workload(workload) => workload.quantum(),
            Self::Embedded(_) | Self::File(_) => usize::MAX,
        }
    }

    /// The traces of its processes; at most so many events of each.
    ///
    /// # Errors
    ///
    /// [`TraceError`], if there is a fault in it.
    pub fn read(&self, name: &str, limit: Option<usize>) -> Result<Vec<Trace>, TraceError> {
        let trace = match self {
            Self::Embedded(trace) => trace.read(limit)?,
            Self::File(path) => Trace::read(name, Reader::open(path)?, limit)?,
            Self::Workload(workload) => return workload.run(limit),
        };
        Ok(vec![trace])
    }
}

/// The sources with their names; files whose names are not unique are called by their whole path.
#[must_use]
pub fn named(sources: &[Source]) -> Vec<(&Source, String)> {
    let names: Vec<String> = sources.iter().map(Source::name).collect();
    let unique = |name: &String| names.iter().filter(|other| *other == name).count() == 1;
    let full = |source: &Source, name: &String| match source {
        Source::File(path) if !unique(name) => path.display().to_string(),
        _ => name.clone(),
    };
    sources.iter().zip(&names).map(|(source, name)| (source, full(source, name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_named_without_folder_and_endings() {
        let name = |path: &str| Source::File(path.into()).name();
        assert_eq!(name("/tmp/a.vt.zst"), "a");
        assert_eq!(name("b.vt"), "b");
        assert_eq!(name("x/lackey.out"), "lackey.out");
        assert_eq!(name("x/.vt"), "x/.vt");
        assert_eq!(name(".."), "..");
    }

    #[test]
    fn files_of_one_name_are_told_apart() {
        let sources = ["a/x.vt", "b/x.vt", "b/y.vt"].map(|path| Source::File(path.into()));
        let names: Vec<_> = named(&sources).into_iter().map(|(_, name)| name).collect();
        assert_eq!(names, ["a/x.vt", "b/x.vt", "y"]);
    }
}
