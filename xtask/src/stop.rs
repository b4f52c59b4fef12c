//! Why xtask ends: one line, and the status.

use core::fmt::Display;

/// What every step returns.
pub(crate) type Result<T = ()> = core::result::Result<T, Stop>;

/// The end of the run.
#[derive(Debug)]
pub(crate) struct Stop {
    /// The exit status.
    pub(crate) status: u8,
    /// One line; empty when everything has been said.
    pub(crate) message: String,
}

impl Stop {
    /// What was checked does not hold: status 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { status: 1, message: message.into() }
    }

    /// It could not be checked: status 2. Names the thing, the value and the remedy.
    pub(crate) fn unable(message: impl Into<String>) -> Self {
        Self { status: 2, message: message.into() }
    }

    /// A file could not be used: status 2.
    pub(crate) fn file(action: &str, path: &std::path::Path, error: impl Display) -> Self {
        Self::unable(format!("cannot {action} {}: {error}", path.display()))
    }
}
