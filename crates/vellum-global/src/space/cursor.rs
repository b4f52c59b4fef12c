//! The entries of one size in a range, in ascending order, out of a table that has none.
//!
//! ```text
//!   range at most as long as the table      look up every block
//!   longer                                  pass over all stripes: the 64 lowest keys, and again
//!                                           above those
//!      ... and those 64 lay close           look up a stretch as long as the table instead, for as
//!                                           long as each brings 64 entries or more
//! ```
//!
//! Either way up to 64 entries are held here, and handed out one by one.
//!
//! # Invariants
//!
//! - What was handed out, what is held, the stretch and the rest follow each other in this order.

use super::Space;
use crate::{BLOCK, Key, Keys, Lowest, Store};
use core::num::NonZeroU64;

pub(super) struct Cursor<'s, 't, S: Store> {
    space: &'s Space<'t, S>,
    found: Lowest,
    /// How many of `found` were handed out.
    taken: usize,
    /// What is being looked up, and how many entries it has brought.
    stretch: Option<Keys>,
    brought: usize,
    rest: Option<Keys>,
    /// The next part of the rest is better looked up than passed for.
    dense: bool,
}

impl<'s, 't, S: Store> Cursor<'s, 't, S> {
    pub(super) const fn new(space: &'s Space<'t, S>, keys: Keys) -> Self {
        Self {
            space,
            found: Lowest::new(keys),
            taken: 0,
            stretch: None,
            brought: 0,
            rest: Some(keys),
            dense: false,
        }
    }

    /// The next entry.
    pub(super) fn next(&mut self) -> Option<(Key, u64)> {
        loop {
            if let Some(&next) = self.found.held().get(self.taken) {
                self.taken += 1;
                return Some(next);
            }
            self.taken = 0;
            match self.stretch.take() {
                Some(stretch) => self.look_up(stretch),
                None => self.go_on()?,
            }
        }
    }

    /// Begins a stretch, or passes over the table; `None` at the end.
    fn go_on(&mut self) -> Option<()> {
        let keys = self.rest.take().filter(|keys| self.space.has(keys.size()))?;
        let block = S::block(keys.size());
        let pages = NonZeroU64::MIN.saturating_add(self.space.table.count_entries());
        let pages = pages.saturating_mul(block);
        if self.dense || keys.count() <= pages.get() {
            let (near, far) = keys.split_at(pages);
            (self.stretch, self.brought, self.rest) = (Some(near), 0, far);
            // Nothing of what was held is to be handed out again.
            self.found.restart(near);
        } else {
            self.found = self.space.lowest(keys);
            self.dense = is_dense(self.found.held(), pages.get());
            self.rest = self.found.rest();
        }
        Some(())
    }

    /// Looks up blocks until the stretch ends or there is no room for the entries of another.
    fn look_up(&mut self, stretch: Keys) {
        self.found.restart(stretch);
        let mut raws = [0; BLOCK];
        for part in stretch.blocks(S::block(stretch.size())) {
            // At most `BLOCK`.
            let count = part.count() as usize;
            if self.found.held().len() + count > Lowest::ROOM {
                self.stretch = Some(stretch.from(part.first()));
                return;
            }
            if let Some(raws) = raws.get_mut(..count) {
                self.space.table.read_block(part.first(), raws);
            }
            for (key, &raw) in part.iter().zip(&raws).filter(|&(_, &raw)| raw != 0) {
                self.found.offer(key, raw);
                self.brought += 1;
            }
        }
        self.dense = self.brought >= Lowest::ROOM;
    }
}

fn is_dense(held: &[(Key, u64)], pages: u64) -> bool {
    match held {
        [(first, _), .., (last, _)] => last.number() - first.number() <= pages,
        _ => false,
    }
}
