//! One entry, or one block of them, changed and counted; and what the gather is told of it.
//!
//! ```text
//!   lock:    old -> f -> new      then, under no lock     Settle
//!                                 counts go down          leaf, soft, stale
//! ```
//!
//! # Invariants
//!
//! - A count goes up before the entry can be found, and down after it cannot, so that a count of 0
//!   means that there is nothing.

use super::Space;
use crate::pass::Pass;
use crate::{BLOCK, Key, Keys, Lowest, Refused, Size, Store};
use core::convert::Infallible;
use core::num::NonZeroU64;
use core::sync::atomic::Ordering;
use vellum_core::{Attr, Entry, Flush, Gather, Run, pte};

/// What an update did, in raw entries.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub(super) old: u64,
    pub(super) new: u64,
}

/// Entries are close where [`Lowest::ROOM`] of them lie in so many leaves.
const CLOSE: NonZeroU64 = NonZeroU64::MIN.saturating_add(4 * Lowest::ROOM as u64 - 1);

impl Step {
    const NONE: Self = Self { old: 0, new: 0 };
}

impl<'t, S: Store> Space<'t, S> {
    /// [`Store::update`], counting what comes and goes. `admit` is asked when an entry that comes
    /// is counted, under the lock; it may refuse it.
    pub(super) fn update<E>(
        &self,
        key: Key,
        stock: &mut S::Stock<'t>,
        f: impl FnOnce(u64) -> Result<u64, E>,
        admit: impl FnOnce() -> Result<(), E>,
    ) -> Result<Step, Refused<E>> {
        let count = self.count(key.size());
        let (mut new, mut comes) = (0, false);
        let updated = self.table.update(key, stock, |raw| {
            new = f(raw)?;
            comes = raw == 0 && new != 0;
            if comes {
                // SeqCst: see space/replace.rs.
                count.fetch_add(1, Ordering::SeqCst);
                admit()?;
            }
            Ok(new)
        });
        let goes = match updated {
            Ok(old) => old != 0 && new == 0,
            // Counted, and then refused, or there was no memory for it.
            Err(_) => comes,
        };
        if goes {
            count.fetch_sub(1, Ordering::AcqRel);
        }
        Ok(Step { old: updated?, new })
    }

    /// An update that cannot be refused, as it never makes an entry where there was none.
    pub(super) fn change(
        &self,
        key: Key,
        stock: &mut S::Stock<'t>,
        f: impl FnOnce(u64) -> u64,
    ) -> Step {
        let kept = |raw| Ok::<u64, Infallible>(if raw == 0 { 0 } else { f(raw) });
        match self.update(key, stock, kept, || Ok(())) {
            Ok(step) => step,
            Err(Refused::By(never)) => match never {},
            Err(Refused::Need(_)) => {
                debug_assert!(false, "an entry that exists changes or goes without memory");
                Step::NONE
            }
        }
    }

    /// Makes of every entry of the range what `f` says, and tells `then` of each, under no lock; in
    /// ascending order as far as that costs little, and more than once only if the entry moves
    /// meanwhile.
    ///
    /// Costs a look-up a block; or, if the table has fewer entries than the range has blocks, a few
    /// passes over the table.
    pub(super) fn change_each(
        &self,
        keys: Keys,
        stock: &mut S::Stock<'t>,
        f: &mut impl FnMut(Key, u64) -> u64,
        then: &mut impl FnMut(Key, Step),
    ) {
        let block = S::block(keys.size());
        let mut rest = Some(keys).filter(|keys| self.has(keys.size()));
        while let Some(keys) = rest {
            let entries = self.table.count_entries();
            if keys.count() / block <= entries {
                self.change_blocks(keys, stock, f, then);
                return;
            }
            let lowest = self.lowest(keys);
            if lowest.rest().is_none() {
                self.change_held(&lowest, stock, f, then);
                return;
            }
            let Some((near, brought)) = self.change_close(keys, &lowest, stock, f, then) else {
                self.change_scattered(keys, stock, f, then);
                return;
            };
            rest = near;
            // A fourth of the table a pass: so there are no more than four.
            if brought < entries / 4 {
                break;
            }
        }
        if let Some(keys) = rest {
            self.change_scattered(keys, stock, f, then);
        }
    }

    /// The lowest entries of the range, by one pass over the table.
    pub(super) fn lowest(&self, keys: Keys) -> Lowest {
        let (mut pass, mut found) = (Pass::new(self.table), Lowest::new(keys));
        while let Some(part) = pass.next(self.table) {
            if !part.offer(self.table, &mut found) {
                pass.restart();
            }
        }
        found
    }

    /// Where the lowest entries lie close to each other, goes on from there by look-ups while they
    /// find enough: what is left of the range, and how many entries it was. `None` if they do not.
    fn change_close(
        &self,
        keys: Keys,
        lowest: &Lowest,
        stock: &mut S::Stock<'t>,
        f: &mut impl FnMut(Key, u64) -> u64,
        then: &mut impl FnMut(Key, Step),
    ) -> Option<(Option<Keys>, u64)> {
        let [(first, _), .., (last, _)] = lowest.held() else { return None };
        if last.number() - first.number() >= CLOSE.get() {
            return None;
        }
        let (mut rest, mut brought) = (Some(keys.from(*first)), 0);
        while let Some(keys) = rest {
            let (near, far) = keys.split_at(CLOSE);
            let count = self.change_blocks(near, stock, f, then);
            (rest, brought) = (far, brought + count);
            if count < Lowest::ROOM as u64 {
                break;
            }
        }
        Some((rest, brought))
    }

    /// [`change_each`](Self::change_each) by a pass over the table, in its order.
    fn change_scattered(
        &self,
        keys: Keys,
        stock: &mut S::Stock<'t>,
        f: &mut impl FnMut(Key, u64) -> u64,
        then: &mut impl FnMut(Key, Step),
    ) {
        let (mut pass, mut found) = (Pass::new(self.table), Lowest::new(keys));
        while let Some(part) = pass.next(self.table) {
            let mut rest = Some(keys);
            while let Some(keys) = rest {
                found.restart(keys);
                if !part.offer(self.table, &mut found) {
                    pass.restart();
                }
                self.change_held(&found, stock, f, then);
                rest = found.rest();
            }
        }
    }

    fn change_held(
        &self,
        found: &Lowest,
        stock: &mut S::Stock<'t>,
        f: &mut impl FnMut(Key, u64) -> u64,
        then: &mut impl FnMut(Key, Step),
    ) {
        for &(key, _) in found.held() {
            then(key, self.change(key, stock, |raw| f(key, raw)));
        }
    }

    /// [`change_each`](Self::change_each) by look-ups; how many entries there were.
    fn change_blocks(
        &self,
        keys: Keys,
        stock: &mut S::Stock<'t>,
        f: &mut impl FnMut(Key, u64) -> u64,
        then: &mut impl FnMut(Key, Step),
    ) -> u64 {
        let parts = keys.blocks(S::block(keys.size()));
        parts.map(|part| self.change_block(part, stock, f, then)).sum()
    }

    /// The same for a part of one block.
    fn change_block(
        &self,
        keys: Keys,
        stock: &mut S::Stock<'t>,
        f: &mut impl FnMut(Key, u64) -> u64,
        then: &mut impl FnMut(Key, Step),
    ) -> u64 {
        let first = keys.first();
        if S::block(first.size()).get() == 1 {
            let step = self.change(first, stock, |raw| f(first, raw));
            if step.old != 0 {
                then(first, step);
            }
            return u64::from(step.old != 0);
        }
        // At most `BLOCK`.
        let count = keys.count() as usize;
        let (mut steps, mut there, mut gone) = ([Step::NONE; BLOCK], 0, 0);
        self.table.change_block(first, count, stock, &mut |key, old| {
            let new = f(key, old);
            there += 1;
            gone += u64::from(new == 0);
            let at = (key.number() - first.number()) as usize;
            if let Some(step) = steps.get_mut(at) {
                *step = Step { old, new };
            }
            new
        });
        if gone > 0 {
            self.count(first.size()).fetch_sub(gone, Ordering::AcqRel);
        }
        for (key, step) in keys.iter().zip(steps) {
            if step.old != 0 {
                then(key, step);
            }
        }
        there
    }
}

/// Tells a gather what steps took away or narrowed: neighbours as one run, if they come in order.
///
/// What was unlinked and is not in the gather yet is nobody's meanwhile; so [`end`](Self::end) has
/// to follow.
#[must_use = "what is pending is leaked without `end`"]
pub(super) struct Settle<'g, G> {
    gather: &'g mut G,
    gone: Option<Run>,
    stale: Option<Flush>,
}

impl<'g, G: Gather<Infallible>> Settle<'g, G> {
    pub(super) fn new(gather: &'g mut G) -> Self {
        Self { gather, gone: None, stale: None }
    }

    pub(super) fn step(&mut self, key: Key, step: Step) {
        let (va, size) = (key.va(), key.size());
        let (len, page) = (size.bytes(), size.page());
        match (decode(step.old, size), decode(step.new, size)) {
            (Entry::Leaf(a, old), Entry::Leaf(b, new)) if a == b && !old.narrows_to(new) => {}
            (Entry::Leaf(a, old), Entry::Leaf(b, _)) if a == b => {
                self.stale(Flush::new(va, len, page, old));
            }
            (Entry::Leaf(pa, attr), _) => self.leaf(Run { page, ..Run::new(va, pa, len, attr) }),
            (Entry::Soft(old), new) if new != Entry::Soft(old) => {
                make_room(self.gather);
                self.gather.soft(va, old);
            }
            _ => {}
        }
    }

    fn leaf(&mut self, next: Run) {
        match &mut self.gone {
            Some(run) if run.continues_with(&next) => run.len += next.len,
            gone => {
                let before = gone.replace(next);
                self.give(before);
            }
        }
    }

    fn stale(&mut self, next: Flush) {
        match &mut self.stale {
            Some(flush)
                if flush.last.checked_add(1) == Some(next.first)
                    && (flush.page, flush.global) == (next.page, next.global) =>
            {
                flush.last = next.last;
            }
            stale => {
                if let Some(before) = stale.replace(next) {
                    self.gather.stale(before);
                }
            }
        }
    }

    fn give(&mut self, gone: Option<Run>) {
        if let Some(run) = gone {
            make_room(self.gather);
            self.gather.leaf(run);
        }
    }

    /// Gives the gather what is pending.
    pub(super) fn end(mut self) {
        let gone = self.gone.take();
        self.give(gone);
        if let Some(flush) = self.stale.take() {
            self.gather.stale(flush);
        }
    }
}

/// Makes sure of room for one item.
fn make_room<G: Gather<Infallible>>(gather: &mut G) {
    if gather.room() == 0 {
        gather.drain();
    }
}

/// The entry that a raw one of this size is.
pub(super) fn decode(raw: u64, size: Size) -> Entry {
    pte::decode(raw, size.page())
}

/// The bits of a raw leaf for accessed and dirty.
pub(super) fn status(attr: Attr) -> u64 {
    let bit = |of, raw| if attr.contains(of) { raw } else { 0 };
    bit(Attr::ACCESSED, pte::ACCESSED) | bit(Attr::DIRTY, pte::DIRTY)
}
