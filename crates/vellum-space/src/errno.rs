//! Errors, by the names and numbers that Linux gives them on x86-64.

use core::fmt;
use vellum_core::{Cause, OutOfFrames};

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Errno {
    /// Not permitted: sealed, below the lowest address, or no memory may be locked.
    Eperm = 1,
    /// A page could not be read or written.
    Eio = 5,
    /// The descriptor is not open.
    Ebadf = 9,
    /// Not now: a limit on locked memory, or a page that is busy.
    Eagain = 11,
    /// No memory, no room, nothing mapped, or too many regions.
    Enomem = 12,
    /// The file or the region does not allow it.
    Eacces = 13,
    /// An address that cannot be used.
    Efault = 14,
    /// Locked pages are in the way.
    Ebusy = 16,
    /// Something is there.
    Eexist = 17,
    /// The file cannot be mapped.
    Enodev = 19,
    /// An argument is wrong.
    Einval = 22,
    /// An offset passes the largest one.
    Eoverflow = 75,
    /// A flag that is not known.
    Eopnotsupp = 95,
}

impl Errno {
    /// Its number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, words) = match self {
            Self::Eperm => ("EPERM", "not permitted"),
            Self::Eio => ("EIO", "a page could not be read or written"),
            Self::Ebadf => ("EBADF", "the file is not open"),
            Self::Eagain => ("EAGAIN", "not now, or more than may be locked"),
            Self::Enomem => ("ENOMEM", "no memory, no room, or nothing is mapped"),
            Self::Eacces => ("EACCES", "the file does not allow it"),
            Self::Efault => ("EFAULT", "a bad address"),
            Self::Ebusy => ("EBUSY", "locked pages are in the way"),
            Self::Eexist => ("EEXIST", "something is there"),
            Self::Enodev => ("ENODEV", "the file cannot be mapped"),
            Self::Einval => ("EINVAL", "a wrong argument"),
            Self::Eoverflow => ("EOVERFLOW", "the offset is too large"),
            Self::Eopnotsupp => ("EOPNOTSUPP", "an unknown flag"),
        };
        write!(f, "{name}: {words}")
    }
}

impl core::error::Error for Errno {}

impl From<OutOfFrames> for Errno {
    fn from(_: OutOfFrames) -> Self {
        Self::Enomem
    }
}

impl From<Cause> for Errno {
    /// What is checked before a table is asked leaves memory as the only reason.
    fn from(_: Cause) -> Self {
        Self::Enomem
    }
}
