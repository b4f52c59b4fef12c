//! What a fault comes to, as data: nothing here raises a signal or waits.
//!
//! ```text
//!   resolved          Cost::Minor   no device was asked        the access is tried again
//!                     Cost::Major   a page was read
//!   not now           Retry         somebody is reading it     try again, later
//!                     Exclusive     the table's structure has  try again, with the space locked
//!                                   to change                  for oneself
//!                     OutOfFrames   free some, try again, or choose a victim
//!   never             Deny          a signal, its code and address
//!   not ours          Hook          the embedder's region
//! ```

use core::fmt;
use vellum_core::{Cause, OutOfFrames, VirtAddr};

/// What resolving a fault took.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cost {
    /// No device was asked.
    Minor,
    /// A page was read from a file or from swap.
    Major,
}

/// A signal's number, as Linux has it on x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGSEGV, 11.
    Segv,
    /// SIGBUS, 7.
    Bus,
}

/// Why an access is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deny {
    /// Nothing is mapped there (`SEGV_MAPERR`), or a guard page is.
    Unmapped(VirtAddr),
    /// The region does not allow it (`SEGV_ACCERR`).
    Forbidden(VirtAddr),
    /// Behind the end of the file, or the device failed (`BUS_ADRERR`).
    NoPage(VirtAddr),
}

impl Deny {
    /// The signal.
    #[must_use]
    pub const fn signal(self) -> Signal {
        match self {
            Self::Unmapped(_) | Self::Forbidden(_) => Signal::Segv,
            Self::NoPage(_) => Signal::Bus,
        }
    }

    /// `si_code`: `SEGV_MAPERR` 1, `SEGV_ACCERR` 2, `BUS_ADRERR` 2.
    #[must_use]
    pub const fn code(self) -> i32 {
        match self {
            Self::Unmapped(_) => 1,
            Self::Forbidden(_) | Self::NoPage(_) => 2,
        }
    }

    /// `si_addr`.
    #[must_use]
    pub const fn addr(self) -> VirtAddr {
        match self {
            Self::Unmapped(va) | Self::Forbidden(va) | Self::NoPage(va) => va,
        }
    }
}

/// Why a fault was not resolved. Nothing is half done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultError {
    /// It never will be: the program gets a signal.
    Deny(Deny),
    /// Somebody else is at this page (reading it in); try again when others have run.
    Retry,
    /// It takes a change of the table's structure: try again with `Mmu` for oneself.
    Exclusive,
    /// No memory.
    OutOfFrames(OutOfFrames),
    /// The embedder's region, with its number.
    Hook(u64),
    /// The table cannot express it: a wrong region, or a design that does not fit.
    Table(Cause),
}

impl From<OutOfFrames> for FaultError {
    fn from(e: OutOfFrames) -> Self {
        Self::OutOfFrames(e)
    }
}

impl From<Cause> for FaultError {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::OutOfFrames(e) => Self::OutOfFrames(e),
            Cause::Shared(_) => Self::Exclusive,
            other => Self::Table(other),
        }
    }
}

impl fmt::Display for FaultError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deny(Deny::Unmapped(va)) => write!(f, "nothing is mapped at {va}"),
            Self::Deny(Deny::Forbidden(va)) => write!(f, "the region at {va} does not allow it"),
            Self::Deny(Deny::NoPage(va)) => write!(f, "there is no page behind {va}"),
            Self::Retry => f.write_str("somebody else is at this page"),
            Self::Exclusive => f.write_str("the table's structure has to change"),
            Self::OutOfFrames(e) => e.fmt(f),
            Self::Hook(n) => write!(f, "region {n} of the embedder"),
            Self::Table(cause) => cause.fmt(f),
        }
    }
}

impl core::error::Error for FaultError {}
