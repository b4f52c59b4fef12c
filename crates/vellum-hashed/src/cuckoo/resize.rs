//! When ways grow and shrink, and how: a few slots at every insertion and removal of a line.
//!
//! ```text
//!   lines / slots of a way     0 ........ .2 ........................ .6 ........ 1
//!                              shrink to 2^k, in place               grow to 2^(k+1)
//!
//!   grow    P goes up by one:   the line in slot P goes to 2^k + P, or stays
//!   shrink  n goes down by one: the line in slot n goes to its parent, or if that is taken to
//!                               another way
//! ```
//!
//! Once begun, a way goes on to the next power of two: every insertion of a line first takes each
//! way that is not there past at least one line, in at most [`SLOTS`] slots. So a call moves at most
//! one line a way for growth, and its kicks, and writes no more than those slots; where a table doubles
//! from .6, it is done at .4.
//!
//! Only a new segment takes memory, by [`refill`](super::Cuckoo), outside of all locks. Without it the
//! table gets fuller; it is asked for again after a sixteenth more lines, and for good when no room
//! is found for a line.

use super::kick::Spot;
use super::way::{FIRST, Way, parent, slot_of};
use super::{Cuckoo, Locked, Ways};
use crate::line::{Line, Tag};
use core::sync::atomic::Ordering;
use vellum_core::{Memory, Need, OutOfFrames};
use vellum_global::Size;

/// Slots of a way that the migration pointer passes at most in a call.
pub(super) const SLOTS: u32 = 8;
/// Slots that it passes where no room was found for a line.
const SLOTS_IF_FULL: u32 = 64;
/// Walks until a table that cannot grow says that it is full.
const WALKS_IF_FULL: u32 = 16;

/// What `refill` is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// The next segment, if there is memory.
    Growth,
    /// Room for a line.
    Room,
}

impl<M: Memory, const WAYS: usize> Locked<'_, M, WAYS> {
    /// Makes room for the line of a tag that has none.
    pub(super) fn vacate(&self, ways: &Ways<WAYS>, tag: Tag) -> Result<Spot, Want> {
        if ways.each.iter().any(|way| way.slots() == 0) {
            return Err(Want::Room);
        }
        let starved = ways.each.iter().any(lacks_segment);
        if starved && ways.lines() >= ways.retry_at.load(Ordering::Relaxed) {
            return Err(Want::Growth);
        }
        self.step(ways, SLOTS);
        // Nearly always there is a free slot, and nothing to plan.
        if let Some(spot) = self.table.looks.then(|| self.free(ways, tag, None)).flatten() {
            return Ok(spot);
        }
        for _ in 0..if starved { WALKS_IF_FULL } else { 1 } {
            if let Some(path) = self.plan(ways, tag, None) {
                self.take(ways, &path);
                return path.first().ok_or(Want::Room);
            }
        }
        self.table.counts.full.add(1);
        Err(Want::Room)
    }

    /// Looks whether a way has become too full, after a line has come.
    pub(super) fn filled(&self, way: &Way) {
        let n = way.slots();
        if way.lines() * 5 > n * 3 && way.target() <= n {
            way.set_target((n + 1).next_power_of_two());
            self.table.counts.resizes.add(1);
        }
    }

    /// Looks whether a way has become too empty, after a line has gone.
    pub(super) fn emptied(&self, way: &Way) {
        let n = way.slots();
        if way.lines() * 5 < n && way.target() >= n && n > FIRST {
            way.set_target(n.next_power_of_two() / if n.is_power_of_two() { 2 } else { 1 });
            self.table.counts.resizes.add(1);
        }
    }

    /// Takes every way that is on its way to another size past at least one line, if there is one
    /// in so many slots.
    pub(super) fn step(&self, ways: &Ways<WAYS>, slots: u32) {
        let before = self.table.counts.moved.get();
        for (index, way) in ways.each.iter().enumerate() {
            for _ in 0..slots {
                let (n, target) = (way.slots(), way.target());
                let passed = if n < target && way.missing().is_none() {
                    self.grow(ways, index, way)
                } else if n > target {
                    self.shrink(ways, index, way)
                } else {
                    break;
                };
                if passed && slots == SLOTS {
                    break;
                }
            }
        }
        self.table.counts.worst_pause.raise(self.table.counts.moved.get() - before);
    }

    /// One slot more, which has its segment; whether there was a line to be looked at.
    fn grow(&self, ways: &Ways<WAYS>, index: usize, way: &Way) -> bool {
        let n = way.slots();
        let spot = Spot { way: index, slot: parent(n) };
        // Whatever the memory held goes before n lets anybody read it.
        let clear_new = || way.line(&self.table.memory, n, Line::clear);
        let Some(tag) = self.tag_at(ways, spot) else {
            clear_new();
            way.set_slots(n + 1);
            return false;
        };
        if slot_of(tag.hash(index as u8), n + 1) == n {
            let _held = self.hold(tag);
            let copied = way.line(&self.table.memory, spot.slot, |line| line.copy());
            way.line(&self.table.memory, n, |line| line.paste(copied));
            // Before the stripe is given back: who reads n from now on looks there.
            way.set_slots(n + 1);
            way.line(&self.table.memory, spot.slot, |line| line.clear());
            self.table.counts.moved.add(1);
        } else {
            clear_new();
            way.set_slots(n + 1);
        }
        true
    }

    /// One slot less; whether there was a line to be looked at.
    fn shrink(&self, ways: &Ways<WAYS>, index: usize, way: &Way) -> bool {
        let last = way.slots() - 1;
        let (from, to) = (Spot { way: index, slot: last }, Spot { way: index, slot: parent(last) });
        let Some(tag) = self.tag_at(ways, from) else {
            way.set_slots(last);
            return false;
        };
        if self.tag_at(ways, to).is_some() {
            // It cannot stay in this way. Where it goes, nobody comes back from: not to `from`.
            let path = self.plan(ways, tag, Some(from));
            match path.as_ref().and_then(|path| path.first().map(|first| (path, first))) {
                Some((path, first)) => {
                    self.take(ways, path);
                    self.relocate(ways, from, first);
                    way.set_slots(last);
                    self.table.counts.moved.add(1);
                }
                // Enough of that until more has gone.
                None => way.set_target(way.slots()),
            }
        } else {
            let _held = self.hold(tag);
            let copied = way.line(&self.table.memory, last, |line| line.copy());
            way.line(&self.table.memory, to.slot, |line| line.paste(copied));
            // Before the last stripe may be gone, to whose end a pass has yet to come.
            self.table.moves.note(tag);
            way.set_slots(last);
            way.line(&self.table.memory, last, |line| line.clear());
            self.table.counts.moved.add(1);
        }
        true
    }
}

fn lacks_segment(way: &Way) -> bool {
    way.slots() < way.target() && way.missing().is_some()
}

impl<M: Memory, const WAYS: usize> Cuckoo<M, WAYS> {
    /// What `update` says that it needs.
    pub(super) const fn need(size: Size, want: Want) -> Need {
        let class = size.class() as u32;
        Need::new(match want {
            Want::Growth => 2 * class,
            Want::Room => 2 * class + 1,
        })
    }

    /// What is meant by it.
    pub(super) fn wanted(&self, need: Need) -> (&Ways<WAYS>, Want) {
        let size = Size::of_class(u64::from(need.get() / 2)).unwrap_or(Size::Base);
        (self.ways(size), if need.get() & 1 == 0 { Want::Growth } else { Want::Room })
    }

    /// Takes segments for what the table is short of; under no lock but to install them.
    pub(super) fn provide(&self, ways: &Ways<WAYS>, want: Want) -> Result<(), OutOfFrames> {
        let mut failed = None;
        for way in &ways.each {
            if want == Want::Room {
                let _locked = self.lock();
                if way.target() <= way.slots() {
                    way.set_target((way.slots() + 1).next_power_of_two().max(FIRST));
                    self.counts.resizes.add(1);
                }
            }
            if let (true, Some(segment)) = (lacks_segment(way), way.missing()) {
                match Way::alloc(&self.memory, segment, false) {
                    Err(out) => failed = Some(out),
                    Ok(block) => {
                        let locked = self.lock();
                        let installed = way.install(segment, block);
                        drop(locked);
                        if !installed {
                            // Somebody else was faster.
                            Way::discard(&self.memory, segment, block);
                        }
                    }
                }
            }
        }
        let locked = self.lock();
        if want == Want::Room {
            return locked.make_room(ways, failed);
        }
        if failed.is_some() {
            let lines = ways.lines();
            ways.retry_at.store(lines + lines / 16 + 1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl<M: Memory, const WAYS: usize> Locked<'_, M, WAYS> {
    /// Puts what segments there are to use, at once; an error if that gave not a single slot.
    fn make_room(&self, ways: &Ways<WAYS>, failed: Option<OutOfFrames>) -> Result<(), OutOfFrames> {
        if ways.each.iter().any(|way| way.slots() == 0) {
            // A first segment for each, or none is used: a line could go to any of them.
            if ways.each.iter().any(|way| way.slots() == 0 && way.missing().is_some()) {
                return Err(failed.unwrap_or(OutOfFrames { order: 0 }));
            }
            ways.each.iter().for_each(|way| way.set_slots(way.slots().max(FIRST)));
            return Ok(());
        }
        let slots = |ways: &Ways<WAYS>| ways.each.iter().map(Way::slots).sum::<u64>();
        let before = slots(ways);
        self.step(ways, SLOTS_IF_FULL);
        match failed {
            Some(failed) if slots(ways) == before => Err(failed),
            _ => Ok(()),
        }
    }
}

impl<M: Memory, const WAYS: usize> Cuckoo<M, WAYS> {
    /// Gives memory back after many entries are gone: of each way at most as many slots as twice its
    /// lines, rounded up to a power of two, stay, unless the lines that go find no place; of larger
    /// leaves nothing, if there are none.
    ///
    /// Costs a step a slot that goes. It takes the table exclusively, hence no space may be open.
    ///
    /// ```
    /// # fn main() -> Result<(), vellum_core::OutOfFrames> {
    /// use vellum_hashed::Cuckoo;
    /// use vellum_testkit::Arena;
    ///
    /// let arena = Arena::new(64);
    /// let mut table = Cuckoo::with_capacity(&arena, 4096)?;
    /// assert_eq!(arena.frames_in_use(), 3 * 8 + 2); // three ways, stripes, moves
    /// table.shrink();
    /// assert_eq!(arena.frames_in_use(), 3 + 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn shrink(&mut self) {
        for (ways, size) in self.sizes.iter().zip(Size::ALL) {
            let locked = self.lock();
            if size != Size::Base && ways.lines() == 0 {
                ways.each.iter().for_each(|way| {
                    way.set_target(0);
                    way.set_slots(0);
                });
            }
            for (index, way) in ways.each.iter().enumerate() {
                if way.slots() == 0 {
                    continue;
                }
                let target = (2 * way.lines()).next_power_of_two().clamp(FIRST, way.slots());
                way.set_target(target);
                while way.slots() > way.target() {
                    locked.shrink(ways, index, way);
                }
            }
            ways.retry_at.store(0, Ordering::Relaxed);
        }
        // SAFETY: `&mut self`.
        unsafe { self.reclaim() };
    }

    /// Gives back the memory of segments that shrinking has emptied.
    ///
    /// # Safety
    ///
    /// No other call on the table is under way: a look-up takes no lock, and may be about to read
    /// what goes. A kernel calls this after a grace period.
    pub unsafe fn reclaim(&self) {
        let _locked = self.lock();
        for way in self.sizes.iter().flat_map(|ways| &ways.each) {
            // SAFETY: the caller's; the segments were allocated from this memory.
            unsafe { way.trim(&self.memory) };
        }
    }
}
