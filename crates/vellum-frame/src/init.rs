//! From a memory map to a tree: mark, subtract, gather, and carve the metadata out of the map.
//!
//! ```text
//!   usable     [=======)    [==[=====)====)   [)        any order, overlapping, touching
//!   reserved       [--------)                 [---)
//!   level 0    1111..........11111111111111.......      set usable, then clear reserved
//!                             ^^^^ metadata, cleared too
//!   then       full words move up, level by level, and the hints are written
//! ```
//!
//! The ranges are gone through several times and never stored, so nothing limits their number and
//! nothing needs a heap. Everything starts as not ours; usable ranges are added first and all
//! reservations subtracted after, so their order cannot matter.
//!
//! # Invariants
//!
//! - Only one CPU is in here for one allocator, and no other sees the words yet: plain loads and
//!   stores do.

use crate::access::Plain;
use crate::bits::{WORD_BITS, WORD_ORDER, span_mask};
use crate::error::InitError;
use crate::level::Level;
use crate::moves::Moves;
use crate::range::PhysRange;
use crate::regions::Regions;
use crate::shape::{Parts, Shape};
use crate::sync::AtomicU64;
use crate::tree::{LEVELS, Tree};
use core::sync::atomic::Ordering::Relaxed;

/// Builds the tree in `storage`, which is all zero; `carved` frames are taken out like a
/// reservation.
pub(crate) fn build<'m, U, R>(
    storage: &'m [AtomicU64],
    shape: Shape,
    usable: U,
    reserved: R,
    carved: (u64, u64),
) -> Result<Tree<'m>, InitError>
where
    U: IntoIterator<Item: Into<PhysRange>>,
    R: IntoIterator<Item: Into<PhysRange>>,
{
    let no_room = InitError::NoRoom { words: shape.words() };
    let Parts { levels, table } = shape.cut(storage).ok_or(no_room)?;

    let frames = &levels[0];
    for range in usable {
        mark(frames, shape, range.into().frames_inside(), true);
    }
    for range in reserved {
        mark(frames, shape, range.into().frames_touched(), false);
    }
    mark(frames, shape, carved, false);

    let (used, total) = record_regions(frames, table)?;
    if total == 0 {
        return Err(InitError::NoFrames);
    }
    for level in 0..LEVELS - 1 {
        gather_all(&levels[level], &levels[level + 1]);
    }
    for level in &levels {
        for (index, word) in level.words.iter().enumerate() {
            level.note::<Plain>(index, word.load(Relaxed));
        }
    }
    let regions = Regions::new(&table[..used], total);
    Ok(Tree { levels, regions, moves: Moves::default() })
}

/// Sets or clears the frames `[first, end)`, cut to the shape.
fn mark(frames: &Level<'_>, shape: Shape, (first, end): (u64, u64), free: bool) {
    let (first, end) = (first.max(shape.first), end.min(shape.end));
    if first >= end {
        return;
    }
    let (low, high) = (first >> WORD_ORDER, (end - 1) >> WORD_ORDER);
    for number in low..=high {
        let start = number << WORD_ORDER;
        let mask = span_mask(first.max(start) - start, end.min(start + WORD_BITS) - start);
        let cell = &frames.words[(number - frames.first) as usize];
        let word = cell.load(Relaxed);
        cell.store(if free { word | mask } else { word & !mask }, Relaxed);
    }
}

/// Writes the stretches of ones into `table`: how many words of it, and how many frames.
fn record_regions(frames: &Level<'_>, table: &[AtomicU64]) -> Result<(usize, u64), InitError> {
    let (mut used, mut total) = (0, 0);
    // The start of the stretch that the last word ended in.
    let mut open: Option<u64> = None;
    let mut close = |start: u64, end: u64| {
        let [a, b] = table.get(used..used + 2).ok_or(InitError::Unstable)? else {
            return Err(InitError::Unstable);
        };
        a.store(start, Relaxed);
        b.store(end, Relaxed);
        used += 2;
        total += end - start;
        Ok(())
    };
    for (index, cell) in frames.words.iter().enumerate() {
        let base = (frames.first + index as u64) << WORD_ORDER;
        let word = cell.load(Relaxed);
        let mut bit = 0;
        while bit < WORD_BITS {
            let rest = word >> bit;
            match open {
                None => {
                    let skip = u64::from(rest.trailing_zeros());
                    if skip >= WORD_BITS - bit {
                        break;
                    }
                    bit += skip;
                    open = Some(base + bit);
                }
                Some(start) => {
                    let ones = u64::from(rest.trailing_ones());
                    if ones >= WORD_BITS - bit {
                        break;
                    }
                    bit += ones;
                    close(start, base + bit)?;
                    open = None;
                }
            }
        }
    }
    if let Some(start) = open {
        close(start, (frames.first + frames.words.len() as u64) << WORD_ORDER)?;
    }
    Ok((used, total))
}

/// Moves every full word of `lower` into its bit of `upper`.
fn gather_all(lower: &Level<'_>, upper: &Level<'_>) {
    for (index, cell) in lower.words.iter().enumerate() {
        if cell.load(Relaxed) == u64::MAX {
            cell.store(0, Relaxed);
            let number = lower.first + index as u64;
            let above = &upper.words[((number >> WORD_ORDER) - upper.first) as usize];
            above.store(above.load(Relaxed) | 1 << (number & (WORD_BITS - 1)), Relaxed);
        }
    }
}

/// A place for `count` contiguous frames that is usable throughout and not reserved, and that
/// `accept` takes. Of each usable range in turn it tries the first frame with room, and from there
/// on every `count` frames: at most one place for each `count` frames, so few, since the metadata
/// grows with the memory; and none is missed in a stretch of `2 * count - 1` acceptable frames.
pub(crate) fn carve<U, R, T>(
    usable: &U,
    reserved: &R,
    count: u64,
    mut accept: impl FnMut(u64) -> Option<T>,
) -> Option<(u64, T)>
where
    U: IntoIterator<Item: Into<PhysRange>> + Clone,
    R: IntoIterator<Item: Into<PhysRange>> + Clone,
{
    for range in usable.clone() {
        let (first, end) = range.into().frames_inside();
        let mut at = first;
        while at < end {
            let past_end = at.saturating_add(count);
            // The reservation that reaches furthest among those in the way.
            let blocked = reserved.clone().into_iter().map(|r| r.into().frames_touched());
            let blocked = blocked.filter(|&(low, high)| low < past_end && at < high);
            if let Some(beyond) = blocked.map(|(_, high)| high).max() {
                at = beyond;
                continue;
            }
            if usable_until(usable, end, past_end) < past_end {
                break;
            }
            if let Some(found) = accept(at) {
                return Some((at, found));
            }
            at = past_end;
        }
    }
    None
}

/// How far frames are usable without a gap from `from` on; stops looking beyond `enough`.
fn usable_until<U>(usable: &U, from: u64, enough: u64) -> u64
where
    U: IntoIterator<Item: Into<PhysRange>> + Clone,
{
    let mut until = from;
    while until < enough {
        // The range that reaches furthest among those that join what there is.
        let joining = usable.clone().into_iter().map(|range| range.into().frames_inside());
        let joining = joining.filter(|&(first, end)| first <= until && until < end);
        match joining.map(|(_, end)| end).max() {
            Some(end) => until = end,
            None => break,
        }
    }
    until
}
