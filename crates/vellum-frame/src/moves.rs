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
//! ended during the search, and none was open; otherwise it searches again. Both are bounded, since
//! a search may be under an interrupt handler, and other CPUs may never rest:
//!
//! - What was open throughout may be on the very CPU that searches, or on one that was stopped: it
//!   is waited for until so many looks in a row saw no move begin or end.
//! - What begins and ends elsewhere makes for another search, so many times. A block that lay still
//!   during but one of them was found by that one.
//!
//! So a search fails wrongly only if what it looks for was on the move in each of its attempts, or,
//! in the last one, in a move that got no further in all that time.
//!
//! # Invariants
//!
//! - `begin` comes before the store that takes a block off a level, `end` after the store that puts
//!   its remains on another.

use crate::access::Access;
use crate::sync::{AtomicU64, spin_loop};
use core::sync::atomic::Ordering::{Acquire, SeqCst};

const ONE_OPEN: u64 = 1;
const ONE_ENDED: u64 = 1 << 16;
const OPEN: u64 = ONE_ENDED - 1;

/// How many times in a row a search sees the same moves open before it gives up.
///
/// (Under loom whoever waits lets all others go on first, so few looks are enough.)
const PATIENCE: u32 = if cfg!(loom) {
    4
} else if cfg!(miri) {
    64
} else {
    1 << 12
};

/// How many times a search is made because something moved.
const ATTEMPTS: u32 = 64;

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

    /// How many moves are open.
    #[cfg(test)]
    #[cfg(loom)]
    pub(crate) fn open(&self) -> u64 {
        self.0.load(SeqCst) & OPEN
    }

    /// Calls `attempt` until it finds something, or until it failed while nothing moved and the
    /// moves that were open stayed so for as long as patience lasts, or too often.
    ///
    /// What `attempt` reads, it reads with `Acquire`, and what it moves it moves between `begin`
    /// and `end`. If a read sees the effect of a move that had not begun at the start, that move's
    /// `begin` happens before the next load here, which then differs from the one before.
    pub(crate) fn settled<T>(&self, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        let mut before = self.0.load(Acquire);
        for _ in 0..ATTEMPTS {
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
                spin_loop();
            }
        }
        None
    }
}

#[cfg(test)]
#[cfg(not(loom))]
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

    #[test]
    fn a_search_ends_though_others_never_rest() {
        let moves = Moves::default();
        let mut calls = 0;
        let found = moves.settled(|| {
            calls += 1;
            moves.begin::<Atomic>();
            moves.end::<Atomic>();
            None::<()>
        });
        assert_eq!((found, calls), (None, super::ATTEMPTS));
    }
}
