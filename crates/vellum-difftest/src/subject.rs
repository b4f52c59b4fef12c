//! What is compared: something that runs a sequence and shows what came of it.

use crate::op::{Sequence, Unsafe};
use crate::trace::Trace;
use core::fmt;

/// Something that runs sequences.
pub trait Subject {
    /// What it is called in reports.
    fn name(&self) -> &str;

    /// Runs a sequence from an empty arena and a fresh file.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from running to the end; a failing operation does not.
    fn run(&mut self, sequence: &Sequence) -> Result<Trace, SubjectError>;
}

/// Why a sequence was not run to its end.
#[derive(Debug)]
pub enum SubjectError {
    /// This operation would reach beyond the arena's neighbourhood.
    Refused(usize, Unsafe),
    /// The host refused something that is needed before a sequence can run.
    Host(String),
    /// The process that ran it was ended by this signal.
    Died(i32),
    /// The process that ran it left with this status.
    Left(i32),
    /// What it recorded cannot be read.
    Record(String),
    /// So many frames were not given back, or too many were.
    Lost(u64),
}

impl SubjectError {
    /// The host's last error, with what was asked of it.
    #[must_use]
    pub fn last(what: &str) -> Self {
        Self::io(what, &std::io::Error::last_os_error())
    }

    /// An error of the host, with what was asked of it.
    #[must_use]
    pub fn io(what: &str, error: &std::io::Error) -> Self {
        Self::Host(format!("{what}: {error}"))
    }
}

impl fmt::Display for SubjectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(index, why) => write!(f, "operation {}: {why}", index + 1),
            Self::Host(what) => write!(f, "the host refused: {what}"),
            Self::Died(signal) => write!(f, "the process that ran it died of signal {signal}"),
            Self::Left(status) => write!(f, "the process that ran it left with status {status}"),
            Self::Lost(frames) => write!(f, "{frames} frames were not given back, or too many"),
            Self::Record(what) => write!(f, "the record of a run: {what}"),
        }
    }
}

impl core::error::Error for SubjectError {}
