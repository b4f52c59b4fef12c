//! The bitmap tree: four levels of words, and each free frame on exactly one of them.
//!
//! ```text
//!   level 3   1 bit = 1 GiB     orders 18..      |1.|
//!   level 2   1 bit = 16 MiB    orders 12..=17   |..11....|
//!   level 1   1 bit = 256 KiB   orders 6..=11    |........|.1......|
//!   level 0   1 bit = 4 KiB     orders 0..=5     |.1..11..|........|11111111|
//!                                                              ^          ^
//!             bit i of level n + 1 and word i of level n       |          a full word, not yet
//!             are the same frames                              all 64 are on level 1   gathered
//! ```
//!
//! A one is a free block, and whoever clears the bit owns the frames. Every block is aligned, so a
//! block of order `o` is a run of `o % 6` in **one** word of level `o / 6`, and one
//! compare-and-swap takes or gives all of it. No order spans two words, so nothing is ever half
//! claimed, nothing is rolled back, and no claim that fails leaves a trace that another CPU could
//! mistake for a free.
//!
//! # Protocol
//!
//! - **Take**: find a run, clear its bits by compare-and-swap. The winner owns the block.
//! - **Split**: no run is left on the level: take one bit of a level above. All words below that
//!   bit are zero and now belong to this CPU alone, which stores what is left over into one of them
//!   on each level on the way down.
//! - **Free**: check that no frame of the block is free (below), set the bits by compare-and-swap.
//! - **Gather**: a full word is taken whole (all ones to zero) and its bit set one level up. Nobody
//!   does so at a free; a search for a larger block does when it needs one. So freeing and taking
//!   the same frame again are two compare-and-swaps on one word.
//!
//! A split and a gather move frames from level to level, and in between the frames are on none: the
//! moving CPU owns them, exactly as if it had allocated them. That is harmless for other takers,
//! and [`Moves`] keeps a search from mistaking it for an empty memory.
//!
//! Lock-free but for that one bounded wait, and of use in an interrupt handler on top of any of its
//! own operations. A double free is told from the bits: a frame is free if its bit is set on level
//! 0 or the bit of a block around it on a level above. While its owner has it, all of these are
//! zero and nobody may set them, so a rightful free is never refused. A *wrongful* free is refused,
//! unless it runs at the same moment as
//!
//! - another CPU's split or gather of the very same frames, which are on no level then; or
//! - another free of the very same frames on another level: both look before either has set its
//!   bit. (On one level both go through one word, and the later one sees the earlier.)
//!
//! A second look after the compare-and-swap would narrow that gap but not close it, since somebody
//! may have taken one of the two blocks by then; so there is none, and `free` costs one look.
//!
//! # Invariants
//!
//! - A frame is free on at most one level; it is owned by who cleared its bit, or was never given.
//! - If a bit is set on level `n`, all words below it are zero, on every level down to 0.
//! - A word with a frame that is not in `regions` is never full, and no bit above it ever set.
//! - If nothing moves and a search has gathered all full words below level `n`, every free block of
//!   level `n` shows there or above: else let `t < n` be the lowest level with a frame of it; the
//!   word there is wholly free, none of it lies higher (a bit above is all of it) nor lower, so
//!   that word is full, and would have been gathered.
//!
//! # Memory order
//!
//! Taking acquires and freeing releases, so that the last owner's stores are over before the next
//! owner's begin. Clearing a word in a gather releases to the bit above it, which the next taker
//! acquires: so the owner of a block sees zeros below it. All of them are `SeqCst` for the sake of
//! the hints, which costs nothing on x86-64.

use crate::bits::{WORD_BITS, WORD_ORDER, largest_run, run_mask, runs};
use crate::hint::{self, Hints};
use crate::moves::Moves;
use crate::regions::Regions;
use core::sync::atomic::{
    AtomicU64,
    Ordering::{Release, SeqCst},
};

/// Levels of the tree: enough for [`MAX_ORDER`](crate::MAX_ORDER).
pub(crate) const LEVELS: usize = 4;

/// The words of one level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level<'m> {
    /// log2 of the frames that one bit stands for.
    pub(crate) shift: u8,
    /// The number of `words[0]`, counted from frame 0, so that words are aligned to their span.
    pub(crate) first: u64,
    pub(crate) words: &'m [AtomicU64],
    pub(crate) hints: Hints<'m>,
}

impl Level<'_> {
    /// The index of the word that holds the bit of frame `pfn`, and which bit that is.
    fn place(&self, pfn: u64) -> (usize, u32) {
        let bit = pfn >> self.shift;
        (((bit >> WORD_ORDER) - self.first) as usize, (bit & (WORD_BITS - 1)) as u32)
    }

    /// The first frame of bit `bit` of word `index`.
    fn frame(&self, index: usize, bit: u32) -> u64 {
        ((self.first + index as u64) << WORD_ORDER | u64::from(bit)) << self.shift
    }

    /// Whether the bit that covers `pfn` is set.
    fn covers(&self, pfn: u64) -> bool {
        let (index, bit) = self.place(pfn);
        self.words[index].load(SeqCst) >> bit & 1 == 1
    }

    /// Keeps the hints of word `index` true after it became `word`.
    pub(crate) fn note(&self, index: usize, word: u64) {
        if let Some(kind) = largest_run(word) {
            self.hints.set(kind, hint::group_of(index));
        }
    }

    /// Takes the lowest run of `order` in word `index`; its first frame.
    fn take_in_word(&self, index: usize, order: u8, moves: Option<&Moves>) -> Option<u64> {
        let cell = &self.words[index];
        let mut word = cell.load(SeqCst);
        loop {
            let starts = runs(word, order);
            if starts == 0 {
                return None;
            }
            let bit = starts.trailing_zeros();
            let rest = word & !run_mask(bit, order);
            if let Some(moves) = moves {
                moves.begin();
            }
            match cell.compare_exchange_weak(word, rest, SeqCst, SeqCst) {
                Ok(_) => {
                    self.note(index, rest);
                    return Some(self.frame(index, bit));
                }
                Err(now) => word = now,
            }
            if let Some(moves) = moves {
                moves.end();
            }
        }
    }

    /// Takes a run of `order` where the hints say that there is one, the smallest that will do.
    ///
    /// With `moves` the run is taken in order to move it: on success a move stays open.
    fn take_hinted(&self, order: u8, moves: Option<&Moves>) -> Option<u64> {
        while let Some((kind, group)) = self.hints.find(order) {
            let mut members = hint::words_of(group, self.words.len());
            if let Some(pfn) = members.find_map(|i| self.take_in_word(i, order, moves)) {
                return Some(pfn);
            }
            self.retract(kind, group);
        }
        None
    }

    /// Takes back the hint that `group` has a word of `kind`, unless it has.
    fn retract(&self, kind: u8, group: usize) {
        self.hints.clear(kind, group);
        let mut members = hint::words_of(group, self.words.len());
        if members.any(|i| largest_run(self.words[i].load(SeqCst)) == Some(kind)) {
            self.hints.set(kind, group);
        }
    }
}

/// The whole allocator, once it knows its memory.
#[derive(Debug)]
pub(crate) struct Tree<'m> {
    pub(crate) levels: [Level<'m>; LEVELS],
    pub(crate) regions: Regions<'m>,
    pub(crate) moves: Moves,
}

/// The level that deals in blocks of `order`, and the order of their runs there.
const fn level_of(order: u8) -> (usize, u8) {
    ((order / WORD_ORDER) as usize, order % WORD_ORDER)
}

impl Tree<'_> {
    /// Takes a block of `order`: its first frame.
    pub(crate) fn alloc(&self, order: u8) -> Option<u64> {
        self.alloc_hinted(order).or_else(|| self.moves.settled(|| self.alloc_scanning(order)))
    }

    fn alloc_hinted(&self, order: u8) -> Option<u64> {
        let (level, run) = level_of(order);
        loop {
            if let Some(pfn) = self.levels[level].take_hinted(run, None) {
                return Some(pfn);
            }
            // Put together what lies in pieces before breaking up something larger.
            if !self.gather_hinted(level) {
                break;
            }
        }
        (level + 1..LEVELS).find_map(|upper| {
            let pfn = self.levels[upper].take_hinted(0, Some(&self.moves))?;
            self.split(upper, pfn, order);
            Some(pfn)
        })
    }

    /// The same without any hint: reads every word.
    fn alloc_scanning(&self, order: u8) -> Option<u64> {
        let (level, run) = level_of(order);
        for lower in 0..level {
            for index in 0..self.levels[lower].words.len() {
                self.gather(lower, index);
            }
        }
        let own = &self.levels[level];
        if let Some(pfn) = (0..own.words.len()).find_map(|i| own.take_in_word(i, run, None)) {
            return Some(pfn);
        }
        (level + 1..LEVELS).find_map(|upper| {
            let from = &self.levels[upper];
            let pfn =
                (0..from.words.len()).find_map(|i| from.take_in_word(i, 0, Some(&self.moves)))?;
            self.split(upper, pfn, order);
            Some(pfn)
        })
    }

    /// Keeps the block of `order` at `pfn` out of the one bit of level `upper` that was taken, puts
    /// the rest on the levels below, and ends the move.
    fn split(&self, upper: usize, pfn: u64, order: u8) {
        let (level, run) = level_of(order);
        let rest_on = |lower: usize| {
            let (index, bit) = self.levels[lower].place(pfn);
            let kept = run_mask(bit, if lower == level { run } else { 0 });
            (index, !kept)
        };
        for lower in (level..upper).rev() {
            let (index, rest) = rest_on(lower);
            // All words below the taken bit are zero, and nobody else may write them.
            self.levels[lower].words[index].store(rest, Release);
        }
        self.moves.end();
        for lower in level..upper {
            let (index, rest) = rest_on(lower);
            self.levels[lower].note(index, rest);
        }
    }

    /// Moves word `index` of `level` one level up if it is full; whether it was.
    fn gather(&self, level: usize, index: usize) -> bool {
        let (own, upper) = (&self.levels[level], &self.levels[level + 1]);
        if own.words[index].load(SeqCst) != u64::MAX {
            return false;
        }
        self.moves.begin();
        let won = own.words[index].compare_exchange(u64::MAX, 0, SeqCst, SeqCst).is_ok();
        if won {
            let (above, bit) = upper.place(own.frame(index, 0));
            let before = upper.words[above].fetch_or(1 << bit, SeqCst);
            self.moves.end();
            upper.note(above, before | 1 << bit);
        } else {
            self.moves.end();
        }
        won
    }

    /// Gathers the full words of one group below `level`, if the hints know of any.
    fn gather_hinted(&self, level: usize) -> bool {
        for (lower, own) in self.levels.iter().enumerate().take(level) {
            while let Some((_, group)) = own.hints.find(WORD_ORDER) {
                let members = hint::words_of(group, own.words.len());
                if members.filter(|&i| self.gather(lower, i)).count() > 0 {
                    return true;
                }
                own.retract(WORD_ORDER, group);
            }
        }
        false
    }

    /// Gives back the block of `order` at `pfn`, which lies in one region.
    ///
    /// # Errors
    ///
    /// A frame of the block that is free already.
    pub(crate) fn free(&self, pfn: u64, order: u8) -> Result<(), u64> {
        let (level, run) = level_of(order);
        for below in &self.levels[..level] {
            let (first, _) = below.place(pfn);
            let count = 1 << (order - below.shift - WORD_ORDER);
            for (index, cell) in below.words.iter().enumerate().skip(first).take(count) {
                let word = cell.load(SeqCst);
                if word != 0 {
                    return Err(below.frame(index, word.trailing_zeros()));
                }
            }
        }
        let own = &self.levels[level];
        let (index, bit) = own.place(pfn);
        let (cell, mask) = (&own.words[index], run_mask(bit, run));
        let mut word = cell.load(SeqCst);
        loop {
            if word & mask != 0 {
                return Err(own.frame(index, (word & mask).trailing_zeros()));
            }
            if self.levels[level + 1..].iter().any(|above| above.covers(pfn)) {
                return Err(pfn);
            }
            match cell.compare_exchange_weak(word, word | mask, SeqCst, SeqCst) {
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        own.note(index, word | mask);
        Ok(())
    }

    /// Takes the block of `order` at `pfn`, which lies in one region; whether all of it was free.
    pub(crate) fn alloc_at(&self, pfn: u64, order: u8) -> bool {
        self.moves.settled(|| self.try_alloc_at(pfn, order)).is_some()
    }

    fn try_alloc_at(&self, pfn: u64, order: u8) -> Option<()> {
        if self.take_whole(pfn, order) {
            return Some(());
        }
        // It may lie there in pieces.
        let (level, _) = level_of(order);
        let mut gathered = false;
        for lower in 0..level {
            let own = &self.levels[lower];
            let (first, _) = own.place(pfn);
            for index in first..first + (1 << (order - own.shift - WORD_ORDER)) {
                gathered |= self.gather(lower, index);
            }
        }
        (gathered && self.take_whole(pfn, order)).then_some(())
    }

    /// Takes the block of `order` at `pfn` from its own level or out of a bit above, if it is
    /// there.
    fn take_whole(&self, pfn: u64, order: u8) -> bool {
        let (level, run) = level_of(order);
        if self.levels[level].take_exactly(pfn, run, None) {
            return true;
        }
        for (upper, from) in self.levels.iter().enumerate().skip(level + 1) {
            if from.take_exactly(pfn, 0, Some(&self.moves)) {
                self.split(upper, pfn, order);
                return true;
            }
        }
        false
    }

    /// The stretch from `pfn` on that is free or not free throughout: which, and where it ends. It
    /// may go on beyond that end.
    pub(crate) fn stretch(&self, pfn: u64) -> (bool, u64) {
        for above in self.levels[1..].iter().rev() {
            if above.covers(pfn) {
                return (true, ((pfn >> above.shift) + 1) << above.shift);
            }
        }
        let (index, bit) = self.levels[0].place(pfn);
        let word = self.levels[0].words[index].load(SeqCst) >> bit;
        let left = WORD_BITS - u64::from(bit);
        if word & 1 == 1 {
            (true, pfn + u64::from(word.trailing_ones()).min(left))
        } else {
            (false, pfn + u64::from(word.trailing_zeros()).min(left))
        }
    }
}

impl Level<'_> {
    /// Takes the run of `order` whose first frame is `pfn`, or the one bit around it; whether all
    /// of it was there. With `moves`, a move stays open on success.
    fn take_exactly(&self, pfn: u64, order: u8, moves: Option<&Moves>) -> bool {
        let (index, bit) = self.place(pfn);
        let (cell, mask) = (&self.words[index], run_mask(bit, order));
        let mut word = cell.load(SeqCst);
        while word & mask == mask {
            if let Some(moves) = moves {
                moves.begin();
            }
            match cell.compare_exchange_weak(word, word & !mask, SeqCst, SeqCst) {
                Ok(_) => {
                    self.note(index, word & !mask);
                    return true;
                }
                Err(now) => word = now,
            }
            if let Some(moves) = moves {
                moves.end();
            }
        }
        false
    }
}

#[cfg(test)]
mod tests;
