//! [`ZoneError`]: why a request was not served.
//!
//! ```text
//!   NoZone     no zone of that class on those nodes has a frame      the request is at fault
//!   KeptBack   frames are free, but not for this request            urgency, or reclaim, would help
//!   NoBlock    no zone has a free block of that size                memory is used up, or in pieces
//! ```

use super::Request;
use core::fmt;
use vellum_core::OutOfFrames;

/// Why a request was not served; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ZoneError {
    /// No zone that the request allows has any memory, free or not.
    NoZone {
        /// What was asked for.
        request: Request,
    },
    /// A zone had enough free frames, but its watermark or what it keeps for lower classes forbade
    /// to give them.
    KeptBack {
        /// What was asked for.
        request: Request,
    },
    /// No zone had a free block of that order, or enough free frames.
    NoBlock {
        /// What was asked for.
        request: Request,
    },
}

impl ZoneError {
    /// What was asked for.
    #[must_use]
    pub const fn request(&self) -> &Request {
        match self {
            Self::NoZone { request } | Self::KeptBack { request } | Self::NoBlock { request } => {
                request
            }
        }
    }
}

impl fmt::Display for ZoneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Request { order, class, node, .. } = self.request();
        match self {
            Self::NoZone { .. } => write!(f, "no zone for class {class:?}, node {node}"),
            Self::KeptBack { .. } => {
                write!(f, "what is free is kept back from order {order}, class {class:?}")
            }
            Self::NoBlock { .. } => {
                write!(f, "no zone of class {class:?} has a free block of order {order}")
            }
        }
    }
}

impl core::error::Error for ZoneError {}

impl From<ZoneError> for OutOfFrames {
    fn from(error: ZoneError) -> Self {
        Self { order: error.request().order }
    }
}
