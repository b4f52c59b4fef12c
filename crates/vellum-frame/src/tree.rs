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
//! - **Take** (`level.rs`): find a run, clear its bits by compare-and-swap. The winner owns the
//!   block.
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

use crate::access::Access;
use crate::bits::{WORD_BITS, WORD_ORDER, run_mask};
use crate::level::{Level, Want};
use crate::moves::Moves;
use crate::regions::Regions;
use crate::sync::AtomicU64;
use core::sync::atomic::Ordering::Release;

/// Levels of the tree: enough for [`MAX_ORDER`](crate::MAX_ORDER).
pub(crate) const LEVELS: usize = 4;

/// The order of the blocks that level 1 deals in singly: a whole word of level 0.
pub(crate) const LEVEL_1: u8 = WORD_ORDER;

/// The whole allocator, once it knows its memory.
#[derive(Debug)]
pub(crate) struct Tree<'m> {
    pub(crate) levels: [Level<'m>; LEVELS],
    pub(crate) regions: Regions<'m>,
    pub(crate) moves: Moves,
}

/// What became of one frame.
pub(crate) enum One {
    Freed,
    /// It was freed in this word, and the hints have to be told ([`Level::note_one`]).
    Unnoted(usize),
    /// Nothing was changed.
    Refused,
}

/// The level that deals in blocks of `order`, and the order of their runs there.
#[inline]
const fn level_of(order: u8) -> (usize, u8) {
    // A division by 6, without one and without a branch.
    let level = (order >= 6) as u8 + (order >= 12) as u8 + (order >= 18) as u8;
    (level as usize, order - level * WORD_ORDER)
}

impl<'m> Tree<'m> {
    /// Takes a block of `order`: its first frame.
    #[inline]
    pub(crate) fn alloc<A: Access>(&self, order: u8) -> Option<u64> {
        // Most blocks are small; and the compiler can tell where level 0 lies.
        let found = if order < WORD_ORDER {
            self.levels[0].take_recent::<A>(order, None)
        } else {
            let (level, run) = level_of(order);
            self.levels[level].take_recent::<A>(run, None)
        };
        if found.is_some() { found } else { self.alloc_up_to::<A>(order, u64::MAX) }
    }

    /// Takes a block of `order`, which is below 6, out of a word of level 0 if the hints know one.
    pub(crate) fn alloc_in_words<A: Access>(&self, order: u8) -> Option<u64> {
        self.levels[0].take_hinted::<A>(Want { run: order, last: u64::MAX }, None)
    }

    /// Takes a block of `order` that starts at frame `last` or before it.
    #[inline(never)]
    pub(crate) fn alloc_up_to<A: Access>(&self, order: u8, last: u64) -> Option<u64> {
        self.alloc_hinted::<A>(order, last)
            .or_else(|| self.moves.settled(|| self.alloc_scanning::<A>(order, last)))
    }

    fn alloc_hinted<A: Access>(&self, order: u8, last: u64) -> Option<u64> {
        let (level, run) = level_of(order);
        loop {
            if let Some(pfn) = self.levels[level].take_hinted::<A>(Want { run, last }, None) {
                return Some(pfn);
            }
            // Put together what lies in pieces before breaking up something larger.
            if !self.gather_hinted::<A>(level) {
                break;
            }
        }
        (level + 1..LEVELS).find_map(|upper| {
            let from = &self.levels[upper];
            let recent =
                if last == u64::MAX { from.take_recent::<A>(0, Some(&self.moves)) } else { None };
            let pfn = match recent {
                Some(pfn) => pfn,
                None => from.take_hinted::<A>(Want { run: 0, last }, Some(&self.moves))?,
            };
            self.split::<A>(upper, pfn, order);
            Some(pfn)
        })
    }

    /// The same without any hint: reads every word that may matter.
    #[cold]
    fn alloc_scanning<A: Access>(&self, order: u8, last: u64) -> Option<u64> {
        let (level, run) = level_of(order);
        let (low, _) = self.regions.bounds();
        if last < low {
            return None;
        }
        let words_to = |pfn: u64, level: &Level<'_>| {
            let beyond = (pfn >> level.shift >> WORD_ORDER) + 1;
            level.words.len().min(usize::try_from(beyond - level.first).unwrap_or(usize::MAX))
        };
        // The last block that will do goes on beyond its first frame.
        let end = last.saturating_add((1 << order) - 1);
        for lower in 0..level {
            for index in 0..words_to(end, &self.levels[lower]) {
                self.gather::<A>(lower, index);
            }
        }
        let take = |from: &Level<'_>, run, moves| {
            let want = Want { run, last };
            (0..words_to(last, from)).find_map(|index| from.take_in_word::<A>(index, want, moves))
        };
        if let Some(pfn) = take(&self.levels[level], run, None) {
            return Some(pfn);
        }
        (level + 1..LEVELS).find_map(|upper| {
            let pfn = take(&self.levels[upper], 0, Some(&self.moves))?;
            self.split::<A>(upper, pfn, order);
            Some(pfn)
        })
    }

    /// Takes frames of one word of level 0, one of the lowest that is in use already: the
    /// first frame of the word, and the bits.
    pub(crate) fn take_word<A: Access>(&self) -> Option<(u64, u64)> {
        let frames = &self.levels[0];
        if let Some((index, bits)) = frames.take_word::<A>() {
            return Some((frames.frame(index, 0), bits));
        }
        if let Some(pfn) = self.alloc::<A>(LEVEL_1) {
            return Some((pfn, u64::MAX));
        }
        let pfn = self.alloc::<A>(0)?;
        let (index, bit) = frames.place(pfn);
        Some((frames.frame(index, 0), 1 << bit))
    }

    /// The word of level 0 that has frame `pfn`, where the tree has frames.
    #[inline]
    pub(crate) fn cell(&self, pfn: u64) -> &'m AtomicU64 {
        let frames = &self.levels[0];
        &frames.words[frames.place(pfn).0]
    }

    /// The words of level 0 below the block of order 9 at `pfn`, which the tree has, and the one of
    /// level 1 that has its bits.
    pub(crate) fn huge_cells(&self, pfn: u64) -> Option<(&'m [AtomicU64; 8], &'m AtomicU64)> {
        let [frames, above, ..] = &self.levels;
        let (below, at) = (frames.words, frames.place(pfn).0);
        let above = above.words;
        Some((below.get(at..)?.first_chunk()?, above.get(self.levels[1].place(pfn).0)?))
    }

    /// Gives back frames of one word of level 0, as [`take_word`](Self::take_word) names them:
    /// those that were free already, against all rules.
    pub(crate) fn give_word<A: Access>(&self, first: u64, bits: u64) -> u64 {
        if bits == u64::MAX && self.free::<A>(first, LEVEL_1).is_ok() {
            return 0;
        }
        let frames = &self.levels[0];
        frames.give::<A>(frames.place(first).0, bits)
    }

    /// Keeps the block of `order` at `pfn` out of the one bit of level `upper` that was taken, puts
    /// the rest on the levels below, and ends the move.
    fn split<A: Access>(&self, upper: usize, pfn: u64, order: u8) {
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
        self.moves.end::<A>();
        for lower in level..upper {
            let (index, rest) = rest_on(lower);
            self.levels[lower].note::<A>(index, rest);
            self.levels[lower].remember(if lower == level { run } else { 0 }, index, WORD_ORDER);
        }
    }

    /// Moves word `index` of `level` one level up if it is full; whether it was.
    fn gather<A: Access>(&self, level: usize, index: usize) -> bool {
        let (own, upper) = (&self.levels[level], &self.levels[level + 1]);
        if A::load(&own.words[index]) != u64::MAX {
            return false;
        }
        self.moves.begin::<A>();
        let won = A::swap(&own.words[index], u64::MAX, 0).is_ok();
        if won {
            let (above, bit) = upper.place(own.frame(index, 0));
            let before = A::or(&upper.words[above], 1 << bit);
            self.moves.end::<A>();
            upper.note_around::<A>(above, before | 1 << bit, bit);
        } else {
            self.moves.end::<A>();
        }
        won
    }

    /// Gathers the full words of one group below `level`, if the hints know of any.
    fn gather_hinted<A: Access>(&self, level: usize) -> bool {
        for (lower, own) in self.levels.iter().enumerate().take(level) {
            loop {
                let Some(group) = own.hints.first::<A>(WORD_ORDER) else {
                    if own.sort_next::<A>() {
                        continue;
                    }
                    break;
                };
                let members = own.hints.words_of(group);
                if members.filter(|&i| self.gather::<A>(lower, i)).count() > 0 {
                    return true;
                }
                own.retract::<A>(WORD_ORDER, group);
            }
        }
        false
    }

    /// A frame of the block of `order` at `pfn`, which lies in one region, that is free on a level
    /// below the block's own.
    #[inline]
    fn free_below<A: Access>(&self, pfn: u64, level: usize, order: u8) -> Option<u64> {
        if level == 0 {
            return None;
        }
        if level == 1 {
            return self.free_in_words::<A>(0, pfn, order);
        }
        (0..level).find_map(|below| self.free_in_words::<A>(below, pfn, order))
    }

    /// A frame of the block of `order` at `pfn` that is free on level `below`.
    #[inline]
    fn free_in_words<A: Access>(&self, below: usize, pfn: u64, order: u8) -> Option<u64> {
        let below = &self.levels[below];
        let (first, _) = below.place(pfn);
        let words = below.words.get(first..first + (1 << (order - below.shift - WORD_ORDER)))?;
        if words.iter().fold(0, |any, cell| any | A::load(cell)) == 0 {
            return None;
        }
        let free = words.iter().map(A::load).enumerate().find(|&(_, word)| word != 0);
        free.map(|(index, word)| below.frame(first + index, word.trailing_zeros()))
    }

    /// A free frame of the block of `order` at `pfn`, which lies in one region.
    pub(crate) fn free_frame<A: Access>(&self, pfn: u64, order: u8) -> Option<u64> {
        let (level, run) = level_of(order);
        let own = &self.levels[level];
        let (index, bit) = own.place(pfn);
        let word = A::load(&own.words[index]);
        match word & run_mask(bit, run) {
            0 if word == 0 && self.covered::<A>(pfn, level) => Some(pfn),
            0 => self.free_below::<A>(pfn, level, order),
            free => Some(own.frame(index, free.trailing_zeros())),
        }
    }

    /// Whether a block above `level` that is free has frame `pfn`.
    #[inline]
    fn covered<A: Access>(&self, pfn: u64, level: usize) -> bool {
        self.levels[level + 1..].iter().any(|above| above.covers::<A>(pfn))
    }

    /// Gives back frame `pfn`, if that is simple: it is in the largest region, lies in a word with free
    /// frames, and is not one of them. Otherwise [`free`](Self::free) knows what to do.
    // No call to anything here, so that a caller who calls nothing else keeps no registers.
    #[inline(always)]
    pub(crate) fn free_one<A: Access>(&self, pfn: u64) -> One {
        let frames = &self.levels[0];
        let index = (pfn >> WORD_ORDER).wrapping_sub(frames.first) as usize;
        let Some(cell) = frames.words.get(index) else { return One::Refused };
        let bit = (pfn & (WORD_BITS - 1)) as u32;
        let word = A::load(cell);
        let simple = word != 0 && word >> bit & 1 == 0 && self.regions.largest_has(pfn);
        if !simple || A::swap(cell, word, word | 1 << bit).is_err() {
            return One::Refused;
        }
        if frames.is_noted_one::<A>(index) { One::Freed } else { One::Unnoted(index) }
    }

    /// Gives back the block of `order` at `pfn`, which lies in one region.
    ///
    /// # Errors
    ///
    /// A frame of the block that is free already.
    #[inline]
    pub(crate) fn free<A: Access>(&self, pfn: u64, order: u8) -> Result<(), u64> {
        if order < WORD_ORDER {
            return self.free_on::<A>(0, pfn, order);
        }
        let (level, run) = level_of(order);
        match self.free_below::<A>(pfn, level, order) {
            Some(free) => Err(free),
            None => self.free_on::<A>(level, pfn, run),
        }
    }

    /// The same for a block of which nothing is free on a level below its own, as a run there.
    #[inline(always)]
    fn free_on<A: Access>(&self, level: usize, pfn: u64, run: u8) -> Result<(), u64> {
        let own = &self.levels[level];
        let (index, bit) = own.place(pfn);
        let (cell, mask) = (&own.words[index], run_mask(bit, run));
        let mut word = A::load(cell);
        loop {
            if word & mask != 0 {
                return Err(own.frame(index, (word & mask).trailing_zeros()));
            }
            // Where a word has a bit, no level above has one around it.
            if word == 0 && self.covered::<A>(pfn, level) {
                return Err(pfn);
            }
            match A::swap(cell, word, word | mask) {
                Ok(()) => break,
                Err(now) => word = now,
            }
        }
        if level == 0 && run == 0 {
            own.note_one::<A>(index);
        } else {
            own.note_around::<A>(index, word | mask, bit);
        }
        Ok(())
    }

    /// Takes the block of `order` at `pfn`, which lies in one region; whether all of it was free.
    pub(crate) fn alloc_at<A: Access>(&self, pfn: u64, order: u8) -> bool {
        self.moves.settled(|| self.try_alloc_at::<A>(pfn, order)).is_some()
    }

    fn try_alloc_at<A: Access>(&self, pfn: u64, order: u8) -> Option<()> {
        if self.take_whole::<A>(pfn, order) {
            return Some(());
        }
        // It may lie there in pieces.
        let (level, _) = level_of(order);
        let mut gathered = false;
        for lower in 0..level {
            let own = &self.levels[lower];
            let (first, _) = own.place(pfn);
            for index in first..first + (1 << (order - own.shift - WORD_ORDER)) {
                gathered |= self.gather::<A>(lower, index);
            }
        }
        (gathered && self.take_whole::<A>(pfn, order)).then_some(())
    }

    /// Takes the block of `order` at `pfn` from its own level or out of a bit above, if it is
    /// there.
    fn take_whole<A: Access>(&self, pfn: u64, order: u8) -> bool {
        let (level, run) = level_of(order);
        if self.levels[level].take_exactly::<A>(pfn, run, None) {
            return true;
        }
        for (upper, from) in self.levels.iter().enumerate().skip(level + 1) {
            if from.take_exactly::<A>(pfn, 0, Some(&self.moves)) {
                self.split::<A>(upper, pfn, order);
                return true;
            }
        }
        false
    }

    /// Tells some blocks of exactly `order`, the lowest last; whether there may be more.
    pub(crate) fn find_blocks<A: Access>(&self, order: u8, found: impl FnMut(u64)) -> bool {
        let (level, run) = level_of(order);
        self.levels[level].find_blocks::<A>(run, found)
    }

    /// Takes the block of `order` at `pfn` if it is one: free, and its buddy is not.
    #[inline]
    pub(crate) fn take_block<A: Access>(&self, pfn: u64, order: u8) -> bool {
        let (level, run) = level_of(order);
        let own = &self.levels[level];
        let (index, bit) = own.place(pfn);
        let Some(cell) = own.words.get(index) else { return false };
        let word = A::load(cell);
        let (mask, buddy) = (run_mask(bit, run), run_mask(bit ^ 1 << run, run));
        word & mask == mask && word & buddy != buddy && A::swap(cell, word, word & !mask).is_ok()
    }

    /// The stretch from `pfn` on that is free or not free throughout: which, and where it ends. It
    /// may go on beyond that end.
    pub(crate) fn stretch<A: Access>(&self, pfn: u64) -> (bool, u64) {
        for above in self.levels[1..].iter().rev() {
            if above.covers::<A>(pfn) {
                return (true, ((pfn >> above.shift) + 1) << above.shift);
            }
        }
        let (index, bit) = self.levels[0].place(pfn);
        let word = A::load(&self.levels[0].words[index]) >> bit;
        let left = WORD_BITS - u64::from(bit);
        if word & 1 == 1 {
            (true, pfn + u64::from(word.trailing_ones()).min(left))
        } else {
            (false, pfn + u64::from(word.trailing_zeros()).min(left))
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
