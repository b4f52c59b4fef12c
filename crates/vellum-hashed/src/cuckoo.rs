//! Elastic cuckoo hashing: a page has one possible line in each of a few ways, read all at once.
//!
//! ```text
//!   tag (asid, page / 8)                                     a slot: one line of 64 bytes
//!      |  hash 0       hash 1       hash 2                  +--------------------------------+
//!      v               v            v                       | 8 entries, with the tag in     |
//!   way 0          way 1        way 2                       | bits that they do not use      |
//!  +------+       +------+     +------+                     +--------------------------------+
//!  |      |       | line |<-+  |      |
//!  | LINE |       |      |  |  |      |  <-- a line is in one of the slots that its hashes name
//!  |      |       |      |  |  | line |
//!  +------+       +------+  |  +------+      a new line whose slots are taken kicks one out,
//!                   |       +-----|----      which goes to another of its own, and so on
//! ```
//!
//! A walker reads one line a way, in parallel, whatever the table's size and load: no chain, no
//! probe sequence. What it pays is bandwidth, and what the table pays is kicks, and a load that
//! stays low: each way doubles when .6 of it is used and halves at .2, in place and step by step
//! (`way`, `resize`). Two ways can hold half of their slots, three .918, four .977; the bound of .6
//! keeps chains of kicks short (a mean of .65 over the fill for three ways and random kicks).
//!
//! Leaves of 2 MiB and of 1 GiB have tables of their own, with ways of their own, which take memory
//! when the first such leaf comes. A walker reads all of them at once; the paper's cuckoo walk caches,
//! which tell it where it need not look, are not part of a table.
//!
//! That n and the bases of the segments of each way lie in registers of the walker is assumed.
//!
//! # Who may do what
//!
//! ```text
//!                        finds it by     changes it under        readers see
//!   an entry             stripe          stripe of its tag       a version that moved
//!   a line's place       lock or stripe  lock, then that stripe  a version that moved
//!   n of a way           lock            lock                    either: see below
//! ```
//!
//! A line that is there changes its entries under the stripe of its tag alone, so faults of different
//! pages meet only by chance. Lines come, go and move under the table's one lock, each move under
//! the stripe of its tag besides. A look-up takes nothing: it reads its slots and looks whether the
//! version of its stripe has moved. Every closure runs under its tag's stripe, also where there is no
//! line yet, until the line that it asks for is there.
//!
//! *No look-up misses a line that is there.* Let it see the same version before and after, so that
//! all it read is as it was at one time, as far as its own tag's stripe covers it: no line of its tag
//! came, went or moved meanwhile. What the stripe does not cover is n. An n that the reader sees is
//! not older than the last change under its stripe (whoever made that had seen it, and the version
//! brings it along), and if a newer one would give its line another slot, its line has been moved
//! there before n was published, under its stripe: the version has moved. So n leads to the slot
//! that its line was in.
//!
//! *No line is lost when memory runs out.* A path to a free slot is found before anything moves
//! (`kick`), and memory is taken before that, under no lock.
//!
//! *A scan sees every entry that is there throughout*, though kicks go in any direction: which lines
//! went to a lower stripe is remembered (`moves`), and [`scan_moved`](Store::scan_moved) offers them.
//! It holds the table's lock, so that no line comes, and the stripe of each line that it reads, so
//! that it is before or after whoever changes that.
//!
//! # Invariants
//!
//! - A line is in one slot, of those that its tag's hashes name. Only empty lines are removed.
//! - A slot below n without a line is all zeros. From n on it may hold anything, and nobody reads it
//!   but who saw a larger n, before the way shrank: that slot is zeros, and written as such again.
//! - A segment, once there, stays for as long as the table is shared, but for
//!   [`reclaim`](Cuckoo::reclaim).
//!
//! # Lock order
//!
//! The table's lock; then the stripe of the tag that a line is made for; then, one after the other,
//! those of lines that are moved, or scanned. Who holds a stripe without the table's lock takes nothing, so
//! those are all given back; and of those who hold the table's lock there is one. (A line that is
//! moved may share the stripe that is held already.)
//!
//! Source: D. Skarlatos, A. Kokolis, T. Xu, J. Torrellas, "Elastic Cuckoo Page Tables: Rethinking
//! Virtual Memory Translation for Parallelism", ASPLOS 2020; R. Pagh, F. Rodler, "Cuckoo Hashing",
//! J. Algorithms 51, 2004; paths found before they are taken: B. Fan, D. Andersen, M. Kaminsky,
//! "MemC3", NSDI 2013.

use crate::line::{ENTRIES, Line, SOFT_BITS, Tag, slot, with_line};
use core::convert::Infallible;
use core::fmt;
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU64, Ordering};
use kick::Spot;
use moves::Moves;
use vellum_core::{Memory, Need, OutOfFrames, PAGE_SHIFT, PhysAddr, Ref, Sink};
use vellum_global::key::mix;
use vellum_global::stripes::Held;
use vellum_global::{
    Asid, AsidError, Asids, Key, Lowest, Refused, Size, Space, Store, Stripe, Stripes, lock,
};
use way::{FIRST, Way};

mod kick;
mod lines;
mod moves;
mod resize;
mod stats;
mod way;

use stats::Counts;
pub use stats::Statistics;

/// Bytes of a line, as a reference has them.
const BYTES: u8 = crate::line::LINE_BYTES as u8;
/// Of the lines that a walker reads, all but the first are fetched along with it.
const PARALLEL: [bool; MOST_WAYS] = [false, true, true, true, true, true, true, true];
/// Ways at most.
const MOST_WAYS: usize = 8;
/// What a hash is shifted by to choose a stripe: off the bits that choose a slot.
const STRIPE_SHIFT: u32 = 40;

/// A hashed page table of all spaces, in `WAYS` ways; [`space`](Self::space) makes a handle of one.
pub struct Cuckoo<M: Memory, const WAYS: usize = 3> {
    memory: M,
    stripes: Stripes<M>,
    asids: Asids,
    entries: AtomicU64,
    /// By the class of the size; those of larger leaves have no slots before they are needed.
    sizes: [Ways<WAYS>; Size::ALL.len()],
    /// Bit 0: held.
    lock: AtomicU64,
    moves: Moves<M>,
    /// Whether a line that needs a slot looks for a free one before it kicks.
    looks: bool,
    random: AtomicU64,
    counts: Counts,
}

/// The ways of one page size.
struct Ways<const WAYS: usize> {
    each: [Way; WAYS],
    /// After a segment could not be had: how many lines there will be when it is tried again.
    retry_at: AtomicU64,
}

/// The table's lock, held.
struct Locked<'t, M: Memory, const WAYS: usize> {
    table: &'t Cuckoo<M, WAYS>,
    /// The stripe that is held besides, for the tag that a line is made for.
    own: Option<Stripe>,
}

/// Nothing: growth is the table's own, and a line needs no memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStock;

impl<M: Memory> Cuckoo<M> {
    /// An empty table of three ways with 64 lines each: five frames, with its locks.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub fn new(memory: M) -> Result<Self, OutOfFrames> {
        Self::with_ways(memory, 0)
    }

    /// An empty table that takes `pages` pages without growing, if they come in blocks of eight;
    /// scattered ones, which take a line each, only an eighth of that.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub fn with_capacity(memory: M, pages: u64) -> Result<Self, OutOfFrames> {
        Self::with_ways(memory, pages)
    }
}

impl<M: Memory, const WAYS: usize> Cuckoo<M, WAYS> {
    /// As [`with_capacity`](Cuckoo::with_capacity), with another number of ways, from 2 to 8.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`]; nothing is leaked.
    pub fn with_ways(memory: M, pages: u64) -> Result<Self, OutOfFrames> {
        const { assert!(WAYS >= 2 && WAYS <= MOST_WAYS, "a line needs another way to go to") };
        let table = Self {
            stripes: Stripes::new(memory.clone())?,
            moves: Moves::new(memory.clone())?,
            asids: Asids::new(),
            entries: AtomicU64::new(0),
            sizes: [const { Ways::new() }; Size::ALL.len()],
            lock: AtomicU64::new(0),
            looks: true,
            random: AtomicU64::new(0),
            counts: Counts::default(),
            memory,
        };
        // At most .6 of each way.
        let lines = pages.min(1 << 45).div_ceil(ENTRIES as u64);
        let slots = (lines * 5).div_ceil(3 * WAYS as u64).next_power_of_two().max(FIRST);
        for way in table.sizes.iter().take(1).flat_map(|ways| &ways.each) {
            way.set_target(slots);
            while way.slots() < slots {
                if let Some(segment) = way.missing() {
                    // On failure, dropping the table gives back what it has got.
                    way.install(segment, Way::alloc(&table.memory, segment, true)?);
                }
                // All of the segment at once: there is nothing in it that could move.
                way.set_slots(if way.slots() == 0 { FIRST } else { 2 * way.slots() });
            }
        }
        Ok(table)
    }

    /// The same, whose lines do not look for a free slot before they kick: insertion as in the paper.
    /// More kicks, in fewer reads.
    #[must_use]
    pub const fn with_random_kicks(mut self) -> Self {
        self.looks = false;
        self
    }

    /// The space `asid`, empty.
    ///
    /// # Errors
    ///
    /// [`AsidError`]: another handle has it, or the table has no such identifier.
    pub fn space(&self, asid: Asid) -> Result<Space<'_, Self>, AsidError> {
        Space::open(self, asid)
    }

    /// The memory that it was made with.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// The ways of a size.
    const fn ways(&self, size: Size) -> &Ways<WAYS> {
        let [base, large, huge] = &self.sizes;
        match size {
            Size::Base => base,
            Size::Large => large,
            Size::Huge => huge,
        }
    }

    #[inline]
    fn stripe_of(&self, tag: Tag) -> Stripe {
        self.stripes.of(tag.hash(0) >> STRIPE_SHIFT)
    }

    /// Takes the stripe of a tag.
    fn hold(&self, tag: Tag) -> Held<'_, M> {
        self.stripes.hold(self.stripe_of(tag))
    }

    /// Takes the table's lock.
    fn lock(&self) -> Locked<'_, M, WAYS> {
        lock::acquire(&self.lock);
        Locked { table: self, own: None }
    }

    /// The next of a fixed sequence of random numbers, under the lock.
    fn random(&self) -> u64 {
        let state = self.random.load(Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.store(state, Ordering::Relaxed);
        mix(state)
    }

    /// Where the line of a tag is: right while the lock is held, or the stripe of the tag.
    fn find(&self, ways: &Ways<WAYS>, tag: Tag) -> Option<Spot> {
        (0..WAYS).filter_map(|way| ways.spot(tag, way)).find(|spot| {
            ways.way(*spot).is_some_and(|way| way.line(&self.memory, spot.slot, |l| l.is(tag)))
        })
    }

    /// The raw entry of a slot in the line of a tag, or 0, and what a walker reads to find it; to be
    /// confirmed by the version of the tag's stripe.
    #[inline]
    fn read(&self, ways: &Ways<WAYS>, tag: Tag, slot: usize) -> (u64, [Option<PhysAddr>; WAYS]) {
        let at = |way| ways.spot(tag, way).and_then(|spot| ways.address(spot));
        let read: [_; WAYS] = core::array::from_fn(at);
        let entry = |&at: &PhysAddr| {
            let entry = |line: &Line| line.is(tag).then(|| line.entry(slot));
            // SAFETY: the address of a slot below an n that was read just now, so its segment is
            // there for as long as `&self` is; lines are touched through `with_line` only.
            unsafe { with_line(&self.memory, at, entry) }
        };
        (read.iter().flatten().find_map(entry).unwrap_or(0), read)
    }

    /// Copies entries out of the line of a tag, from a slot on, or zeros; to be confirmed as those
    /// of [`read`](Self::read).
    fn read_line(&self, ways: &Ways<WAYS>, tag: Tag, slot: usize, raws: &mut [u64]) {
        let copy = |line: &Line| raws.iter_mut().zip(slot..).for_each(|(r, n)| *r = line.entry(n));
        match self.find(ways, tag).and_then(|spot| Some((ways.way(spot)?, spot.slot))) {
            Some((way, slot)) => way.line(&self.memory, slot, copy),
            None => raws.fill(0),
        }
    }

    /// The same raw entry for a look-up of which nobody hears what it read.
    ///
    /// Any of the ways may have the line, in no order that a processor could guess: so they are
    /// read at once, and the one whose first piece is right is chosen without a branch.
    #[inline]
    fn peek(&self, ways: &Ways<WAYS>, tag: Tag, slot: usize) -> u64 {
        let mut chosen = PhysAddr::new(0);
        for index in 0..WAYS {
            let Some(at) = ways.spot(tag, index).and_then(|spot| ways.address(spot)) else {
                return 0;
            };
            // SAFETY: as in `read`.
            let may_be = unsafe { with_line(&self.memory, at, |line| line.may_be(tag)) };
            // If it is none of them, it is not the first either.
            chosen = if may_be | (index == 0) { at } else { chosen };
        }
        let entry = |line: &Line| match line.may_be(tag) {
            true => line.is(tag).then(|| line.entry(slot)),
            false => Some(0),
        };
        // SAFETY: as in `read`.
        let found = unsafe { with_line(&self.memory, chosen, entry) };
        found.unwrap_or_else(|| self.read(ways, tag, slot).0)
    }

    /// [`peek`](Self::peek), confirmed.
    #[inline]
    fn look(&self, tag: Tag, slot: usize, size: Size) -> u64 {
        let (ways, stripe) = (self.ways(size), self.stripe_of(tag));
        let version = self.stripes.begin(stripe);
        let raw = self.peek(ways, tag, slot);
        if self.stripes.is_current(version) { raw } else { self.look_again(tag, slot, size) }
    }

    #[cold]
    fn look_again(&self, tag: Tag, slot: usize, size: Size) -> u64 {
        self.stripes.read(self.stripe_of(tag), || self.read(self.ways(size), tag, slot).0)
    }

    /// Changes an entry of a line that is there, under the stripe of its tag; the old one, and
    /// whether the line is empty now.
    fn change<E>(
        &self,
        ways: &Ways<WAYS>,
        spot: Spot,
        slot: usize,
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<(u64, bool), E> {
        let Some(way) = ways.way(spot) else { return f(0).map(|_| (0, false)) };
        way.line(&self.memory, spot.slot, |line| {
            let old = line.entry(slot);
            let new = f(old)?;
            if new != old {
                line.set_entry(slot, new);
            }
            match (old, new) {
                (0, 1..) => _ = self.entries.fetch_add(1, Ordering::Relaxed),
                (1.., 0) => _ = self.entries.fetch_sub(1, Ordering::Relaxed),
                _ => {}
            }
            Ok((old, new == 0 && old != 0 && line.count() == 0))
        })
    }
}

impl<const WAYS: usize> Ways<WAYS> {
    const fn new() -> Self {
        Self { each: [const { Way::new() }; WAYS], retry_at: AtomicU64::new(0) }
    }

    fn lines(&self) -> u64 {
        self.each.iter().map(Way::lines).sum()
    }

    #[inline]
    fn way(&self, spot: Spot) -> Option<&Way> {
        self.each.get(spot.way)
    }

    #[inline]
    fn address(&self, spot: Spot) -> Option<PhysAddr> {
        Some(self.way(spot)?.address(spot.slot))
    }

    /// Where way `index` has a tag, if the way is there.
    #[inline]
    fn spot(&self, tag: Tag, index: usize) -> Option<Spot> {
        let slot = self.each.get(index)?.slot(tag, index)?;
        Some(Spot { way: index, slot })
    }
}

impl<M: Memory, const WAYS: usize> Drop for Locked<'_, M, WAYS> {
    fn drop(&mut self) {
        lock::release(&self.table.lock, 0);
    }
}

impl<M: Memory, const WAYS: usize> Store for Cuckoo<M, WAYS> {
    type Stock<'t>
        = NoStock
    where
        Self: 't;

    const SOFT_BITS: u8 = SOFT_BITS;
    const LEAVES: u64 = Size::ALL_LEAVES;

    fn block(_: Size) -> NonZeroU64 {
        NonZeroU64::MIN.saturating_add(ENTRIES as u64 - 1)
    }

    fn stock(&self) -> NoStock {
        NoStock
    }

    fn refill(&self, _: &mut NoStock, need: Need) -> Result<(), OutOfFrames> {
        let (ways, want) = self.wanted(need);
        self.provide(ways, want)
    }

    #[inline]
    fn walk<S: Sink>(&self, key: Key, sink: &mut S) -> u64 {
        let (tag, slot, ways) = (Tag::of(key), slot(key), self.ways(key.size()));
        if !S::HEARS {
            return self.look(tag, slot, key.size());
        }
        let (raw, read) = self.stripes.read(self.stripe_of(tag), || self.read(ways, tag, slot));
        for (pa, parallel) in read.into_iter().flatten().zip(PARALLEL) {
            // A walker looks in the tables of all sizes at once, in whatever order this is told.
            let parallel = parallel || key.size() != Size::Base;
            sink.reference(Ref { pa, bytes: BYTES, span: PAGE_SHIFT, parallel });
        }
        raw
    }

    fn update<E>(
        &self,
        key: Key,
        _: &mut NoStock,
        f: impl FnOnce(u64) -> Result<u64, E>,
    ) -> Result<u64, Refused<E>> {
        let (tag, slot, ways) = (Tag::of(key), slot(key), self.ways(key.size()));
        {
            let held = self.hold(tag);
            if let Some(spot) = self.find(ways, tag) {
                let (old, empty) = self.change(ways, spot, slot, f).map_err(Refused::By)?;
                drop(held);
                if empty {
                    self.lock().remove(ways, tag);
                }
                return Ok(old);
            }
        }
        let mut locked = self.lock();
        let held = locked.hold_own(tag);
        // Somebody may have made it in between; from here on nobody does.
        let changed = match self.find(ways, tag) {
            Some(spot) => self.change(ways, spot, slot, f).map_err(Refused::By),
            // Still under the stripe: whoever looks under it sees either nothing of what `f` knows,
            // or all of what it says.
            None => match f(0) {
                Err(e) => Err(Refused::By(e)),
                Ok(0) => Ok((0, false)),
                Ok(new) => match locked.insert(ways, tag, slot, new) {
                    Ok(()) => Ok((0, false)),
                    Err(want) => Err(Refused::Need(Self::need(key.size(), want))),
                },
            },
        };
        drop(held);
        let (old, empty) = changed?;
        if empty {
            locked.own = None;
            locked.remove(ways, tag);
        }
        Ok(old)
    }

    fn read_block(&self, first: Key, raws: &mut [u64]) {
        let (tag, slot, ways) = (Tag::of(first), slot(first), self.ways(first.size()));
        let stripe = self.stripe_of(tag);
        loop {
            let version = self.stripes.begin(stripe);
            self.read_line(ways, tag, slot, raws);
            if self.stripes.is_current(version) {
                return;
            }
        }
    }

    fn change_block(
        &self,
        first: Key,
        count: usize,
        _: &mut NoStock,
        f: &mut impl FnMut(Key, u64) -> u64,
    ) {
        let (tag, slot, ways) = (Tag::of(first), slot(first), self.ways(first.size()));
        let empty = {
            let _held = self.hold(tag);
            let Some(spot) = self.find(ways, tag) else { return };
            let mut one = |n: usize| {
                let key = first.plus(n as u64);
                let kept = |raw| Ok(if raw == 0 { 0 } else { f(key, raw) });
                let changed: Result<_, Infallible> = self.change(ways, spot, slot + n, kept);
                let Ok((_, empty)) = changed;
                empty
            };
            (0..count).fold(false, |empty, n| one(n) | empty)
        };
        if empty {
            self.lock().remove(ways, tag);
        }
    }

    fn count_stripes(&self) -> u64 {
        let slots = self.sizes.iter().flat_map(|ways| &ways.each).map(Way::slots).max();
        slots.unwrap_or(0).div_ceil(FIRST) * (WAYS * self.sizes.len()) as u64
    }

    fn scan(&self, stripe: u64, found: &mut Lowest) {
        self.lock().offer_stripe(stripe, found);
    }

    fn moves(&self) -> u64 {
        self.moves.head()
    }

    fn scan_moved(&self, since: u64, found: &mut Lowest) -> bool {
        self.lock().offer_moved(since, found)
    }

    fn count_entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    fn table_bytes(&self) -> u64 {
        let ways = self.sizes.iter().flat_map(|ways| &ways.each).map(Way::bytes).sum::<u64>();
        ways + self.stripes.table_bytes() + self.moves.table_bytes()
    }

    fn asids(&self) -> &Asids {
        &self.asids
    }
}

impl<M: Memory, const WAYS: usize> Drop for Cuckoo<M, WAYS> {
    fn drop(&mut self) {
        for way in self.sizes.iter().flat_map(|ways| &ways.each) {
            way.set_slots(0);
            // SAFETY: `&mut self`; the segments were allocated from this memory.
            unsafe { way.trim(&self.memory) };
        }
    }
}

impl<M: Memory, const WAYS: usize> fmt::Debug for Cuckoo<M, WAYS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cuckoo")
            .field("ways", &WAYS)
            .field("entries", &self.count_entries())
            .field("bytes", &self.table_bytes())
            .field("statistics", &self.statistics())
            .finish()
    }
}

#[cfg(test)]
mod tests;
