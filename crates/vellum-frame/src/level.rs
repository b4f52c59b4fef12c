//! One level of the tree: a row of words, and how a run of ones is taken out of one of them.
//!
//! ```text
//!   take_recent   the word that served this order last      2 loads, 1 compare-and-swap
//!   take_hinted   the lowest group with the smallest block  3 or 4 loads more, and a cache line
//!   take_in_word  any word, for a scan
//!   take_exactly  this very run
//! ```
//!
//! Each takes the lowest of the smallest blocks that will do (of a word, or of the level as far as
//! the hints go), so that large blocks stay whole and the high end of memory empties first. What
//! is left of a larger block is told to the hints; a block that fits exactly leaves nothing to tell.
//!
//! # Invariants
//!
//! - A run is cleared by one successful swap of its word; who did that owns its frames.
//! - `recent` is advice like the hints: any value is harmless.

use crate::access::Access;
use crate::bits::{WORD_BITS, WORD_ORDER, blocks, kinds, order_around, pick, run_mask};
use crate::hint::{GROUP_SHIFT_0, Hints, UNSORTED};
use crate::moves::Moves;
use crate::sync::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;

/// The kind of a full word, as a bit.
const FULL: u8 = 1 << WORD_ORDER;

/// The words of one level.
#[derive(Debug)]
pub(crate) struct Level<'m> {
    /// log2 of the frames that one bit stands for.
    pub(crate) shift: u8,
    /// The number of `words[0]`, counted from frame 0, so that words are aligned to their span.
    pub(crate) first: u64,
    pub(crate) words: &'m [AtomicU64],
    pub(crate) hints: Hints<'m>,
    recent: LastWords,
}

/// For each order, where a block of it was found last: the index of the word, and below it in 8
/// bits the order of the block that was broken up there. Nothing smaller was to be had then, so
/// that word is used up to blocks of that order before the next search.
#[derive(Debug)]
#[repr(align(64))]
struct LastWords([AtomicU64; WORD_ORDER as usize]);

/// Which blocks will do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want {
    /// The order of the run on the level in question, below 6.
    pub(crate) run: u8,
    /// The last frame at which the block may start.
    pub(crate) last: u64,
}

impl<'m> Level<'m> {
    pub(crate) fn new(shift: u8, first: u64, words: &'m [AtomicU64], hints: Hints<'m>) -> Self {
        let nowhere = || AtomicU64::new(u64::MAX);
        Self { shift, first, words, hints, recent: LastWords(core::array::from_fn(|_| nowhere())) }
    }

    /// The index of the word that holds the bit of frame `pfn`, and which bit that is.
    #[inline]
    pub(crate) fn place(&self, pfn: u64) -> (usize, u32) {
        let bit = pfn >> self.shift;
        (((bit >> WORD_ORDER) - self.first) as usize, (bit & (WORD_BITS - 1)) as u32)
    }

    /// The first frame of bit `bit` of word `index`.
    #[inline]
    pub(crate) fn frame(&self, index: usize, bit: u32) -> u64 {
        ((self.first + index as u64) << WORD_ORDER | u64::from(bit)) << self.shift
    }

    /// Whether the bit that covers `pfn` is set.
    #[inline]
    pub(crate) fn covers<A: Access>(&self, pfn: u64) -> bool {
        let (index, bit) = self.place(pfn);
        A::load(&self.words[index]) >> bit & 1 == 1
    }

    /// Keeps the hints of word `index` true after it became `word` in some way.
    pub(crate) fn note<A: Access>(&self, index: usize, word: u64) {
        if word != 0 {
            self.hints.set::<A>(kinds(word), self.hints.group_of(index));
        }
    }

    /// The same after a run that has `bit` was added.
    #[inline]
    pub(crate) fn note_around<A: Access>(&self, index: usize, word: u64, bit: u32) {
        self.hints.set::<A>(1 << order_around(word, bit), self.hints.group_of(index));
    }

    /// The same after one bit was added, without a look at the others.
    #[inline]
    pub(crate) fn note_one<A: Access>(&self, index: usize) {
        self.hints.set::<A>(1 | 1 << UNSORTED, self.hints.group_of(index));
    }

    /// Whether [`note_one`](Self::note_one) would say what is said already, on level 0.
    #[inline]
    pub(crate) fn is_noted_one<A: Access>(&self, index: usize) -> bool {
        self.hints.has::<A>(1 | 1 << UNSORTED, index >> GROUP_SHIFT_0)
    }

    /// Says what blocks `group` has, if frames were freed there singly.
    fn sort<A: Access>(&self, group: usize) {
        self.hints.clear::<A>(1 << UNSORTED, group);
        let members = self.hints.words_of(group);
        let found = members.fold(0, |found, index| found | kinds(A::load(&self.words[index])));
        self.hints.set::<A>(found, group);
    }

    /// Sorts the lowest unsorted group; whether there was one.
    pub(crate) fn sort_next<A: Access>(&self) -> bool {
        let next = self.hints.first::<A>(UNSORTED);
        if let Some(group) = next {
            self.sort::<A>(group);
        }
        next.is_some()
    }

    /// Has the next search for `run` begin at word `index`, where a block of order `kind` is being
    /// broken up.
    pub(crate) fn remember(&self, run: u8, index: usize, kind: u8) {
        self.recent.0[usize::from(run)].store((index as u64) << 8 | u64::from(kind), Relaxed);
    }

    /// Takes the run of `run` at `bit`, where a block of order `kind` begins, if word `index` is
    /// `word` still: its first frame, or what the word is now.
    ///
    /// With `moves` the run is taken in order to move it: on success a move stays open.
    #[inline(always)]
    fn claim<A: Access>(
        &self,
        (index, cell, word): (usize, &AtomicU64, u64),
        (bit, kind): (u32, u8),
        run: u8,
        moves: Option<&Moves>,
    ) -> Result<u64, u64> {
        if let Some(moves) = moves {
            moves.begin::<A>();
        }
        if let Err(now) = A::swap(cell, word, word & !run_mask(bit, run)) {
            if let Some(moves) = moves {
                moves.end::<A>();
            }
            return Err(now);
        }
        if kind > run {
            // The upper half of the block, of the quarter below it, and so on.
            self.hints.set::<A>((1 << kind) - (1 << run), self.hints.group_of(index));
        }
        Ok(self.frame(index, bit))
    }

    /// Takes a run from the word that served this order last, in one attempt.
    #[inline]
    pub(crate) fn take_recent<A: Access>(&self, run: u8, moves: Option<&Moves>) -> Option<u64> {
        let recent = self.recent.0[usize::from(run)].load(Relaxed);
        let index = (recent >> 8) as usize;
        let cell = self.words.get(index)?;
        let word = A::load(cell);
        let (bit, kind) = pick(word, run)?;
        if kind > recent as u8 {
            return None;
        }
        self.claim::<A>((index, cell, word), (bit, kind), run, moves).ok()
    }

    /// Takes a run where the hints say that there is one.
    pub(crate) fn take_hinted<A: Access>(&self, want: Want, moves: Option<&Moves>) -> Option<u64> {
        if want.run > 0 {
            self.sort_next::<A>();
        }
        loop {
            let found = (want.run..=WORD_ORDER).find_map(|kind| {
                while let Some(group) = self.hints.first::<A>(kind) {
                    match self.take_in_group::<A>(group, kind, want, moves) {
                        Group::Taken(pfn) => return Some(pfn),
                        Group::Beyond => return None,
                        Group::Empty => self.retract::<A>(kind, group),
                    }
                }
                None
            });
            if found.is_some() || !self.sort_next::<A>() {
                return found;
            }
        }
    }

    fn take_in_group<A: Access>(
        &self,
        group: usize,
        kind: u8,
        want: Want,
        moves: Option<&Moves>,
    ) -> Group {
        for index in self.hints.words_of(group) {
            let cell = &self.words[index];
            let mut word = A::load(cell);
            loop {
                let starts = blocks(word, kind);
                if starts == 0 {
                    break;
                }
                let bit = starts.trailing_zeros();
                if self.frame(index, bit) > want.last {
                    return Group::Beyond;
                }
                match self.claim::<A>((index, cell, word), (bit, kind), want.run, moves) {
                    Ok(pfn) => {
                        self.remember(want.run, index, kind);
                        return Group::Taken(pfn);
                    }
                    Err(now) => word = now,
                }
            }
        }
        Group::Empty
    }

    /// Takes back the hint that `group` has a block of order `kind`, unless it has.
    ///
    /// Where memory is taken and freed in bulk, all words of a group are full or empty; then it
    /// takes back the hints for all smaller orders with it.
    pub(crate) fn retract<A: Access>(&self, kind: u8, group: usize) {
        if kind == 0 {
            self.sort::<A>(group);
        }
        let words = || {
            let members = self.hints.words_of(group);
            members.map(|index| A::load(&self.words[index]))
        };
        let plain = words().all(|word| word == 0 || word == u64::MAX);
        let stale = 1 << kind | if plain { FULL - 1 } else { 0 };
        self.hints.clear::<A>(stale, group);
        if !A::SHARED {
            return;
        }
        let back = if plain {
            words().fold(0, |found, word| found | kinds(word)) & stale
        } else {
            u8::from(words().any(|word| blocks(word, kind) != 0)) << kind
        };
        if back != 0 {
            self.hints.set::<A>(back, group);
        }
    }

    /// Takes a run out of word `index`.
    pub(crate) fn take_in_word<A: Access>(
        &self,
        index: usize,
        want: Want,
        moves: Option<&Moves>,
    ) -> Option<u64> {
        let cell = &self.words[index];
        let mut word = A::load(cell);
        while let Some((bit, kind)) = pick(word, want.run) {
            let (bit, kind) = if self.frame(index, bit) <= want.last {
                (bit, kind)
            } else {
                // Smaller blocks lie above; a larger one may begin lower.
                (want.run..=WORD_ORDER)
                    .map(|kind| (blocks(word, kind).trailing_zeros(), kind))
                    .find(|&(bit, _)| bit < u64::BITS && self.frame(index, bit) <= want.last)?
            };
            match self.claim::<A>((index, cell, word), (bit, kind), want.run, moves) {
                Ok(pfn) => {
                    self.note::<A>(index, A::load(cell));
                    return Some(pfn);
                }
                Err(now) => word = now,
            }
        }
        None
    }

    /// Takes the run of `run` whose first frame is `pfn`, or the one bit around it; whether all of
    /// it was there. With `moves`, a move stays open on success.
    pub(crate) fn take_exactly<A: Access>(&self, pfn: u64, run: u8, moves: Option<&Moves>) -> bool {
        let (index, bit) = self.place(pfn);
        let (cell, mask) = (&self.words[index], run_mask(bit, run));
        let mut word = A::load(cell);
        while word & mask == mask {
            match self.claim::<A>((index, cell, word), (bit, run), run, moves) {
                Ok(_) => {
                    self.note::<A>(index, word & !mask);
                    return true;
                }
                Err(now) => word = now,
            }
        }
        false
    }

    /// Tells the blocks of exactly `run` in one word of the lowest group that may have some, from
    /// the highest down; whether there was such a group.
    pub(crate) fn find_blocks<A: Access>(&self, run: u8, mut found: impl FnMut(u64)) -> bool {
        let Some(group) = self.hints.first::<A>(run) else { return false };
        for index in self.hints.words_of(group) {
            let mut starts = blocks(A::load(&self.words[index]), run);
            if starts != 0 {
                while starts != 0 {
                    let bit = starts.ilog2();
                    found(self.frame(index, bit));
                    starts ^= 1 << bit;
                }
                return true;
            }
        }
        self.retract::<A>(run, group);
        true
    }

    /// Takes all of a word that is not full, one of the lowest: its index, and what it was. (Full
    /// ones are left for larger blocks as long as there are others.)
    pub(crate) fn take_word<A: Access>(&self) -> Option<(usize, u64)> {
        loop {
            let Some((kind, group)) = self.hints.lowest::<A>() else {
                if self.sort_next::<A>() {
                    continue;
                }
                return None;
            };
            for index in self.hints.words_of(group) {
                let cell = &self.words[index];
                let mut word = A::load(cell);
                while blocks(word, kind) != 0 {
                    match A::swap(cell, word, 0) {
                        Ok(()) => return Some((index, word)),
                        Err(now) => word = now,
                    }
                }
            }
            self.retract::<A>(kind, group);
        }
    }

    /// Adds `bits` to word `index`, as far as they are not set: those that were.
    pub(crate) fn give<A: Access>(&self, index: usize, bits: u64) -> u64 {
        let cell = &self.words[index];
        let mut word = A::load(cell);
        while let Err(now) = A::swap(cell, word, word | bits) {
            word = now;
        }
        if bits.is_power_of_two() {
            self.note_one::<A>(index);
        } else {
            self.note::<A>(index, word | bits);
        }
        word & bits
    }
}

/// What a group had.
enum Group {
    Taken(u64),
    /// A block, but too high.
    Beyond,
    /// No block of that order.
    Empty,
}
