//! Tells a search that failed whether it can be believed.
//!
//! ```text
//!    63                                    16 15            0
//!   +----------------------------------------+---------------+
//!   | moves that have ended                  | moves open    |
//!   +----------------------------------------+---------------+
//!     begin: + 1           end: + 2^16 - 1
//! ```
//!
//! A block that moves between two levels of the tree is for a moment on neither. A search that runs
//! meanwhile can miss frames that are free, so it believes "nothing found" only if no move began or
//! ended during the search, and none was open. It searches again whenever one began or ended, which
//! is lock-free: somebody else got on. What was open throughout may be under the very interrupt
//! handler that searches, or on a CPU that was stopped, so it is waited for only for a bounded
//! time: until that many looks in a row saw no move begin or end. So a search fails wrongly only if
//! what it looks for was, from its last attempt on, in moves that got no further in all that time;
//! moves that did, and other stalled CPUs, cannot make it fail.
//!
//! # Invariants
//!
//! - `begin` comes before the store that takes a block off a level, `end` after the store that puts
//!   its remains on another.

use crate::access::Access;
use crate::sync::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, SeqCst};

const ONE_OPEN: u64 = 1;
const ONE_ENDED: u64 = 1 << 16;
const OPEN: u64 = ONE_ENDED - 1;

/// How many times in a row a search sees the same moves open before it gives up.
const PATIENCE: u32 = if cfg!(miri) { 64 } else { 1 << 12 };

/// The counter, on a cache line of its own: everything beside it is only read.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Moves(AtomicU64);

impl Moves {
    /// (With nobody else about, nothing need be counted.)
    #[inline]
    pub(crate) fn begin<A: Access>(&self) {
        if A::SHARED {
            self.0.fetch_add(ONE_OPEN, SeqCst);
        }
    }

    #[inline]
    pub(crate) fn end<A: Access>(&self) {
        if A::SHARED {
            self.0.fetch_add(ONE_ENDED - ONE_OPEN, SeqCst);
        }
    }

    /// Calls `attempt` until it finds something, or until it failed while nothing moved and the
    /// moves that were open stayed so for as long as patience lasts.
    ///
    /// What `attempt` reads, it reads with `Acquire`, and what it moves it moves between `begin`
    /// and `end`. If a read sees the effect of a move that had not begun at the start, that move's
    /// `begin` happens before the next load here, which then differs from the one before.
    pub(crate) fn settled<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        let mut before = self.0.load(Acquire);
        loop {
            if let Some(found) = attempt() {
                return Some(found);
            }
            let mut patience = PATIENCE;
            loop {
                let now = self.0.load(Acquire);
                if now != before {
                    before = now;
                    break;
                }
                if before & OPEN == 0 || patience == 0 {
                    return None;
                }
                patience -= 1;
                core::hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Moves;
    use crate::access::Atomic;

    #[test]
    fn a_failure_counts_only_if_nothing_moved_meanwhile() {
        let moves = Moves::default();
        let mut calls = 0;
        let found: Option<()> = moves.settled(|| {
            calls += 1;
            if calls < 3 {
                moves.begin::<Atomic>();
                moves.end::<Atomic>();
            }
            None
        });
        assert_eq!((found, calls), (None, 3));
    }

    #[test]
    fn a_search_tries_again_once_the_open_move_has_ended() {
        let moves = Moves::default();
        moves.begin::<Atomic>();
        let mut calls = 0;
        let found = moves.settled(|| {
            calls += 1;
            if calls == 1 {
                moves.end::<Atomic>();
                return None;
            }
            Some(calls)
        });
        assert_eq!(found, Some(2));
    }

    #[test]
    fn a_move_that_never_ends_does_not_hang_a_search() {
        let moves = Moves::default();
        moves.begin::<Atomic>();
        assert_eq!(moves.settled(|| None::<()>), None);
    }

    #[test]
    fn a_move_that_never_ends_does_not_spend_the_patience_for_others() {
        let moves = Moves::default();
        moves.begin::<Atomic>();
        let mut calls = 0;
        // What is looked for is on the move, by a CPU that gets on, in each of the first attempts.
        let found = moves.settled(|| {
            calls += 1;
            if calls <= 3 {
                moves.begin::<Atomic>();
                moves.end::<Atomic>();
                return None;
            }
            Some(calls)
        });
        assert_eq!(found, Some(4));
    }
}
