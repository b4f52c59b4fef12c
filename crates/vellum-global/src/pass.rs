//! One pass over a whole table, which shows every entry that is there throughout.
//!
//! ```text
//!   stripe    0    1    2    3    4    5           a pass at 3 has seen 0, 1 and 2
//!                  ^         :         |
//!                  +---------:---------+           what goes below it unseen is asked for
//!                            :----------->         what goes up is met again
//! ```
//!
//! Entries that move to a higher stripe the pass comes to; those that move to a lower one the store
//! remembers ([`Store::moves`]). After each part of a pass, every entry that was there throughout
//! and lies below the next stripe, as of the last move that was asked for, has been offered. At the
//! end all of them lie below, and the moves up to then are asked for once more; what moves after
//! that was offered before.

use crate::{Lowest, Store};

/// How far a pass has come.
#[derive(Debug)]
pub(crate) struct Pass {
    stripe: u64,
    seen: u64,
    ended: bool,
}

/// What is to be looked through next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A stripe.
    Stripe(u64),
    /// What has moved to a lower stripe, since there were so many moves.
    Moved(u64),
}

impl Pass {
    pub(crate) fn new<S: Store>(table: &S) -> Self {
        Self { stripe: 0, seen: table.moves(), ended: false }
    }

    /// The next part; `None` at the end.
    pub(crate) fn next<S: Store>(&mut self, table: &S) -> Option<Part> {
        if self.ended {
            return None;
        }
        // In this order: whatever made the table smaller is among the moves.
        self.ended = self.stripe >= table.count_stripes();
        let moves = table.moves();
        if moves != self.seen {
            return Some(Part::Moved(core::mem::replace(&mut self.seen, moves)));
        }
        if self.ended {
            return None;
        }
        self.stripe += 1;
        Some(Part::Stripe(self.stripe - 1))
    }

    /// Begins again, after a part was no longer known; what has moved until then does not matter.
    pub(crate) const fn restart(&mut self) {
        (self.stripe, self.ended) = (0, false);
    }
}

impl Part {
    /// Offers its entries; `false` if they are no longer known. May be called again for those that
    /// were turned away.
    #[must_use]
    pub(crate) fn offer<S: Store>(self, table: &S, found: &mut Lowest) -> bool {
        match self {
            Self::Stripe(stripe) => {
                table.scan(stripe, found);
                true
            }
            Self::Moved(since) => table.scan_moved(since, found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Asid, Asids, Key, Keys, Refused};
    use core::cell::{Cell, RefCell};
    use std::collections::BTreeSet;
    use std::vec::Vec;
    use vellum_core::{Need, OutOfFrames, Sink, VirtAddr};

    fn key(n: u64) -> Key {
        Key::new(Asid::new(1).unwrap(), VirtAddr::new(n << 12))
    }

    /// Entries by stripe, of which one moves after some scan.
    struct Moving {
        stripes: RefCell<Vec<BTreeSet<u64>>>,
        moved: RefCell<Vec<u64>>,
        /// How many of the moves are remembered.
        memory: usize,
        scans: Cell<usize>,
        /// After how many scans which entry moves to which stripe; stripes above the last go.
        plan: Vec<(usize, u64, usize, Option<usize>)>,
    }

    impl Moving {
        fn act(&self) {
            self.scans.set(self.scans.get() + 1);
            for &(_, n, to, stripes) in self.plan.iter().filter(|step| step.0 == self.scans.get()) {
                let mut all = self.stripes.borrow_mut();
                let from = all.iter().position(|stripe| stripe.contains(&n)).unwrap();
                all[from].remove(&n);
                all[to].insert(n);
                if to < from {
                    self.moved.borrow_mut().push(n);
                }
                if let Some(stripes) = stripes {
                    assert!(all[stripes..].iter().all(BTreeSet::is_empty));
                    all.truncate(stripes);
                }
            }
        }
    }

    impl Store for Moving {
        type Stock<'t> = ();

        fn stock(&self) {}

        fn refill(&self, (): &mut (), _: Need) -> Result<(), OutOfFrames> {
            Ok(())
        }

        fn walk<S: Sink>(&self, _: Key, _: &mut S) -> u64 {
            0
        }

        fn update<E>(
            &self,
            _: Key,
            (): &mut (),
            f: impl FnOnce(u64) -> Result<u64, E>,
        ) -> Result<u64, Refused<E>> {
            f(0).map_err(Refused::By)
        }

        fn count_stripes(&self) -> u64 {
            self.stripes.borrow().len() as u64
        }

        fn scan(&self, stripe: u64, found: &mut Lowest) {
            if let Some(stripe) = self.stripes.borrow().get(stripe as usize) {
                stripe.iter().for_each(|&n| found.offer(key(n), 1));
            }
            self.act();
        }

        fn moves(&self) -> u64 {
            self.moved.borrow().len() as u64
        }

        fn scan_moved(&self, since: u64, found: &mut Lowest) -> bool {
            let known = self.moved.borrow().len() - since as usize <= self.memory;
            for &n in self.moved.borrow().iter().skip(since as usize).filter(|_| known) {
                found.offer(key(n), 1);
            }
            self.act();
            known
        }

        fn count_entries(&self) -> u64 {
            0
        }

        fn table_bytes(&self) -> u64 {
            0
        }

        fn asids(&self) -> &Asids {
            static NONE: Asids = Asids::new();
            &NONE
        }
    }

    /// What a pass finds of 0, 1, 2 and 3, each in the stripe of its number.
    fn found(memory: usize, plan: &[(usize, u64, usize, Option<usize>)]) -> (Vec<u64>, usize) {
        let table = Moving {
            stripes: RefCell::new((0..4).map(|n| BTreeSet::from([n])).collect()),
            moved: RefCell::default(),
            memory,
            scans: Cell::new(0),
            plan: plan.to_vec(),
        };
        let mut found = Lowest::new(Keys::all(Asid::new(1).unwrap()));
        let mut pass = Pass::new(&table);
        while let Some(part) = pass.next(&table) {
            if !part.offer(&table, &mut found) {
                pass.restart();
            }
        }
        let pages = found.held().iter().map(|(key, _)| key.va().number().as_u64());
        (pages.collect(), table.scans.get())
    }

    const ALL: [u64; 4] = [0, 1, 2, 3];

    #[test]
    fn a_pass_finds_what_goes_below_it() {
        assert_eq!(found(9, &[]), (ALL.to_vec(), 4));
        for after in 1..=4 {
            for (n, to) in [(3, 0), (3, 1), (2, 0), (1, 0)] {
                assert_eq!(found(9, &[(after, n, to, None)]).0, ALL, "{n} to {to} after {after}");
            }
        }
        let twice = [(2, 3, 0, None), (2, 2, 1, None), (3, 0, 1, None), (4, 1, 0, None)];
        assert_eq!(found(9, &twice).0, ALL);
    }

    #[test]
    fn a_table_that_becomes_smaller_is_seen_to_its_end() {
        // The last stripes go while those before them are looked through.
        for after in 1..=3 {
            let plan = [(after, 3, 0, Some(3)), (after, 2, 0, Some(2))];
            assert_eq!(found(9, &plan).0, ALL, "after {after}");
        }
        // And the last but one while the moves of the last are.
        assert_eq!(found(9, &[(1, 3, 0, Some(3)), (2, 2, 0, Some(2))]).0, ALL);
    }

    #[test]
    fn a_pass_that_falls_behind_begins_again() {
        let plan = [(1, 3, 0, None), (1, 2, 0, None)];
        assert_eq!(found(2, &plan), (ALL.to_vec(), 5), "both are remembered");
        assert_eq!(found(1, &plan), (ALL.to_vec(), 6), "one is, so two scans were for nothing");
    }
}
