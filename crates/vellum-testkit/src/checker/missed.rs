//! What can be wrong with a table, as far as a [`Checker`](super::Checker) sees it.
//!
//! ```text
//!   cached, other than the table says      nothing owed   -> Unowed
//!   cached, of what came out of a gather                  -> FrameInUse, NodeInUse
//!   cached, and clashes with the table                    -> Together
//!   cached, denies what the table grants   stays          -> Stuck
//!   cached, and there is no space          stays          -> Left
//! ```

use super::{Cached, Leaf};
use core::fmt;
use vellum_core::VirtAddr;

/// The first thing that went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// A CPU may use this, the table says something else, and no gather owes a flush for it.
    Unowed {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
        /// What the table translates it to.
        now: Option<Leaf>,
    },
    /// The frame was delivered, and a CPU may still have this translation.
    FrameInUse {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
    },
    /// The node was freed, and a CPU may still have this interior entry, which leads to it.
    NodeInUse {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
    },
    /// With break-before-make: the table says this, and a CPU may still have the other.
    Together {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
        /// What clashes with it.
        seen: Cached,
    },
    /// An access faults by this though the table grants it, and after the fault it does so again.
    Stuck {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
    },
    /// The space was given up, and a CPU may still have this.
    Left {
        /// The point.
        va: VirtAddr,
        /// What may be cached there.
        cached: Cached,
    },
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unowed { va, cached, now } => {
                write!(
                    f,
                    "{va}: {cached:?} may be cached, the table says {now:?}, no flush is owed"
                )
            }
            Self::FrameInUse { va, cached } => {
                write!(f, "{va}: a frame was delivered while {cached:?} may be cached")
            }
            Self::NodeInUse { va, cached } => {
                write!(f, "{va}: a node was freed while {cached:?} may be cached")
            }
            Self::Together { va, cached, seen } => {
                write!(f, "{va}: the table says {seen:?} while {cached:?} may be cached")
            }
            Self::Stuck { va, cached } => {
                write!(f, "{va}: {cached:?} denies what the table grants, and stays after a fault")
            }
            Self::Left { va, cached } => {
                write!(f, "{va}: {cached:?} may be cached of a space that is no more")
            }
        }
    }
}

impl core::error::Error for Missed {}
