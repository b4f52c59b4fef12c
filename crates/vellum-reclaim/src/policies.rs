//! Every policy, once: the list that tests, laboratory and benches go through.
//!
//! ```text
//!   policies! { Type "name" "summary" Cell ticks; ... }
//!       |--> impl Policy for Type<'_>
//!       `--> visit_all(v):  v.visit::<Type>() for each, in this order
//! ```
//!
//! To add a policy: its file, and its line here. The bound (OPT) is none, since it needs the future:
//! `host::opt`, with feature `std`.

use crate::lists::Node;
use crate::replacement::{Policy, SizeError};
use crate::{
    Aging, Arc, Car, Clock, ClockPro, Fifo, Generational, Lirs, Lru, Nru, S3Fifo, SecondChance,
    Sieve, TwoQ, WsClock, wsclock,
};

/// Something to be done with each policy.
pub trait Visit {
    /// With this one.
    fn visit<P: Policy>(&mut self);
}

macro_rules! policies {
    ($($Policy:ident $name:literal $summary:literal $Cell:ty, $ticks:literal;)*) => {
        $(impl Policy for $Policy<'_> {
            const NAME: &'static str = $name;
            const SUMMARY: &'static str = $summary;
            const TICKS: bool = $ticks;
            type Cell = $Cell;
            type Over<'m> = $Policy<'m>;

            fn cells(frames: u32) -> usize {
                $Policy::cells(frames)
            }

            fn over(frames: u32, cells: &mut [$Cell]) -> Result<$Policy<'_>, SizeError> {
                $Policy::new(frames, cells)
            }
        })*

        /// Visits every policy, in the order of reports.
        pub fn visit_all(visitor: &mut impl Visit) {
            $(visitor.visit::<$Policy<'static>>();)*
        }
    };
}

policies! {
    Fifo "fifo" "the oldest goes" Node, false;
    Clock "clock" "a hand over the frames, a bit each" u64, false;
    SecondChance "second-chance" "a queue, a bit each" Node, false;
    Nru "nru" "four classes by accessed and dirty" u64, true;
    Aging "aging" "a shifted byte each" Node, true;
    WsClock "wsclock" "a hand, and the time of last use" wsclock::Cell, true;
    Lru "lru" "the least recently used goes" Node, false;
    TwoQ "2q" "a queue of first visits before LRU" Node, false;
    Arc "arc" "recency and frequency, balanced by ghosts" Node, false;
    Car "car" "ARC with clocks for lists" Node, false;
    ClockPro "clock-pro" "hot and cold by reuse distance, three hands" Node, false;
    Lirs "lirs" "few reuses apart stay, by a stack" Node, false;
    Sieve "sieve" "a hand that leaves survivors in place" Node, false;
    S3Fifo "s3-fifo" "three queues, one of them of ghosts" Node, false;
    Generational "generational" "four generations, as Linux's MGLRU" Node, false;
}
