//! The lines of a table: where they lie, and which one a hash calls home.
//!
//! ```text
//!   segment f-1    2^f lines, from with_capacity     n homes, 2^k <= n < 2^(k+1)
//!   segment f      2^f                               home of a hash h:  h mod 2^(k+1),
//!   segment f+1    2^(f+1)                           less 2^k if that is not below n
//!   ...            as many as all before
//! ```
//!
//! A line and the home of the same number are the same place. Every segment is a circle: after its
//! last line comes its first. Line `l` is in segment log2 of `l or 2^f - 1`; what is kept of a segment
//! is where line 0 would be if that segment had lines down to it, so that an address is one shift
//! and one sum from there.
//!
//! ```text
//!   the newest segment, in regions of 64 lines; z moves on with n
//!  +---------+---------+---------+---------+- - - - -+---------+
//!  |  homes  | h .     | zeros   | zeros   |  0      | garbage |
//!  +---------+----^----+---------+---------+---^- - -+---------+
//!                 n       may get           z: zeros up to here
//!                         lines
//! ```
//!
//! A segment comes as it is: to zero it first would be half of the table in one call. Instead z lines
//! are known to be zeroed, [`AHEAD`] more than there are homes, and a line goes only to a region behind
//! which there is another below z. A look-up comes to that one only over a region that is full
//! from some place to its end; so it finds an unused line there, without knowing of z. Where z is
//! the end of the segment, all of the circle is zeroed.
//!
//! # Invariants
//!
//! - A segment, once there, stays while the table is shared; n reaches into no other.
//! - A region that has a home, or a line in use, and the one behind it in its circle, were zeroed as a
//!   whole before. Whoever acquired n, z, or the stripe of the first since then sees those zeros.
//! - z moves by the holder of `splitting`, before the n or the line that needs it.

use crate::line::{LINE_BYTES, Line, with_array, with_line, with_lines};
use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr};
use vellum_global::word::alloc_zeroed;

/// log2 of the lines in a frame: a region, which one stripe covers.
pub(super) const REGION_BITS: u8 = (PAGE_SIZE / LINE_BYTES).ilog2() as u8;
/// Lines of a region.
pub(super) const REGION: u64 = 1 << REGION_BITS;
/// Lines in which a look-up nearly always ends.
pub(super) const FEW: usize = 4;
/// log2 of more lines than there are tags for.
const MOST_BITS: u8 = 45;
/// One for each logarithm.
const SEGMENTS: usize = 64;
/// Lines that are zeroed beyond the homes: what is left of the region of the last one, where the lines
/// that a split moves may go behind it, and an end for what is read from there.
pub(super) const AHEAD: u64 = 3 * REGION;
/// In a segment's word: it is there. (Its address may be 0.)
const THERE: u64 = 1;

pub(super) struct Lines<M: Memory> {
    memory: M,
    /// n.
    homes: AtomicU64,
    /// z: lines below are zeroed, or were, in the segments up to that of n.
    zeroed: AtomicU64,
    /// 2^f - 1: the last line of the first segment.
    last_of_first: NonZeroU64,
    /// Where line 0 would be by each segment, with [`THERE`].
    segments: [AtomicU64; SEGMENTS],
    count_frames: AtomicU64,
}

impl<M: Memory> Lines<M> {
    /// At least `want` lines in one segment, rounded up to a power of two, 64 at least.
    pub(super) fn new(memory: M, want: u64) -> Result<Self, OutOfFrames> {
        let lines = want.clamp(REGION, 1 << MOST_BITS).next_power_of_two();
        let lines = Self {
            memory,
            homes: AtomicU64::new(lines),
            zeroed: AtomicU64::new(lines),
            last_of_first: NonZeroU64::MIN.saturating_add(lines - 2),
            segments: [const { AtomicU64::new(0) }; SEGMENTS],
            count_frames: AtomicU64::new(0),
        };
        lines.add_segment(lines.segment_of(0))?;
        Ok(lines)
    }

    pub(super) const fn memory(&self) -> &M {
        &self.memory
    }

    /// n. With it come the segments of all homes below it.
    #[inline]
    pub(super) fn homes(&self) -> u64 {
        self.homes.load(Ordering::Acquire)
    }

    /// Makes it n, whose last home has its segment.
    pub(super) fn set_homes(&self, n: u64) {
        self.homes.store(n, Ordering::Release);
    }

    pub(super) const fn fewest_homes(&self) -> u64 {
        self.last_of_first.get() + 1
    }

    pub(super) fn table_bytes(&self) -> u64 {
        self.count_frames.load(Ordering::Relaxed) << PAGE_SHIFT
    }

    /// The segment of a line.
    #[inline]
    pub(super) fn segment_of(&self, line: u64) -> usize {
        (self.last_of_first | line).ilog2() as usize
    }

    /// How many lines a segment has, and which is the first.
    fn extent(&self, segment: usize) -> (u64, u64) {
        let fewest = self.fewest_homes();
        if 1 << segment < fewest { (fewest, 0) } else { (1 << segment, 1 << segment) }
    }

    /// The order of a segment's block, if there may be such a segment.
    fn order(&self, segment: usize) -> Option<u8> {
        let (lines, _) = self.extent(segment);
        // Below 46.
        (lines <= 1 << MOST_BITS).then(|| lines.ilog2() as u8 - REGION_BITS)
    }

    /// How many lines the segment of `line` has.
    #[inline]
    pub(super) fn circle(&self, line: u64) -> u64 {
        self.extent(self.segment_of(line)).0
    }

    /// The line `steps` after `line` in its circle. (A segment begins at a multiple of its length.)
    #[inline]
    pub(super) fn after(&self, line: u64, steps: u64) -> u64 {
        let mask = self.circle(line) - 1;
        line & !mask | (line + steps) & mask
    }

    /// How many steps it is from `home` to `line`, of the same circle.
    #[inline]
    pub(super) fn distance(&self, home: u64, line: u64) -> u64 {
        line.wrapping_sub(home) & (self.circle(line) - 1)
    }

    /// Where a line lies, whose segment is there.
    #[inline]
    pub(super) fn address(&self, line: u64) -> PhysAddr {
        let segment = self.segment_of(line);
        let word = self.segments.get(segment).map_or(0, |word| word.load(Ordering::Relaxed));
        debug_assert!(word & THERE != 0, "line {line} has no segment");
        PhysAddr::new(word.wrapping_add(line * LINE_BYTES).wrapping_sub(THERE))
    }

    /// Calls `f` with a line whose segment is there; what it holds means something below z only.
    #[inline]
    pub(super) fn with<R>(&self, line: u64, f: impl FnOnce(&Line) -> R) -> R {
        // SAFETY: a line of a segment, which is ours and stays until nobody shares the table; its
        // words are touched through `Line` only.
        unsafe { with_line(&self.memory, self.address(line), f) }
    }

    /// Calls `f` with the lines from this one to the end of its region, whose segment is there.
    #[inline]
    pub(super) fn with_rest<R>(&self, line: u64, f: impl FnOnce(&[Line]) -> R) -> R {
        // SAFETY: as in `with`; a segment is of whole frames, and a region is a frame.
        unsafe { with_lines(&self.memory, self.address(line), f) }
    }

    /// Calls `f` with a few lines from this one on, if they are in the same region; their segment is
    /// there.
    #[inline]
    pub(super) fn with_few<R>(&self, line: u64, f: impl FnOnce(&[Line; FEW]) -> R) -> Option<R> {
        if line % REGION > REGION - FEW as u64 {
            return None;
        }
        // SAFETY: as in `with`, and all are in one frame.
        Some(unsafe { with_array(&self.memory, self.address(line), f) })
    }

    pub(super) fn has_segment(&self, segment: usize) -> bool {
        self.segments.get(segment).is_some_and(|word| word.load(Ordering::Relaxed) & THERE != 0)
    }

    /// z.
    pub(super) fn zeroed(&self) -> u64 {
        self.zeroed.load(Ordering::Acquire)
    }

    /// Zeroes lines of the segment of the next home, which is there, until `want` are, or all of it;
    /// whether it zeroed any. By the holder of `splitting`.
    pub(super) fn zero_to(&self, want: u64) -> bool {
        let before = self.zeroed();
        let (mut z, end) = (before, want.min(self.end(self.homes())));
        while z < end {
            let count = (end - z).min(REGION - z % REGION);
            self.with_rest(z, |lines| lines.iter().take(count as usize).for_each(Line::clear));
            z += count;
        }
        // With it come the zeros.
        self.zeroed.store(z, Ordering::Release);
        z > before
    }

    /// How many lines may be read from `home` on, without a look at what is in them.
    pub(super) fn readable(&self, home: u64) -> u64 {
        let (z, circle) = (self.zeroed(), self.circle(home));
        if z >= self.end(home) { circle } else { z.saturating_sub(home) }
    }

    /// How many lines may be used from `home` on: those of regions behind which is a zeroed one.
    pub(super) fn usable(&self, home: u64) -> u64 {
        let (z, circle) = (self.zeroed(), self.circle(home));
        let regions = (z / REGION).saturating_sub(1);
        if z >= self.end(home) { circle } else { (regions * REGION).saturating_sub(home) }
    }

    /// The line after the last one of the segment of `line`.
    fn end(&self, line: u64) -> u64 {
        let (len, first) = self.extent(self.segment_of(line));
        first + len
    }

    /// Takes a segment from the memory: by one at a time. The first is zeroed, for n is its end.
    pub(super) fn add_segment(&self, segment: usize) -> Result<(), OutOfFrames> {
        let order = self.order(segment).ok_or(OutOfFrames { order: u8::MAX })?;
        let Some(word) = self.segments.get(segment) else { return Ok(()) };
        let block = if segment == self.segment_of(0) {
            alloc_zeroed(&self.memory, order)?
        } else {
            self.memory.alloc(order)?
        };
        self.count_frames.fetch_add(1 << order, Ordering::Relaxed);
        let (_, first) = self.extent(segment);
        let line_0 = block.as_u64().wrapping_sub(first * LINE_BYTES);
        // Ordered before the first use by the store of n that lets its lines be used.
        word.store(line_0 | THERE, Ordering::Relaxed);
        Ok(())
    }

    /// Gives back every segment from this one on: n reaches into none of them, or the table goes.
    pub(super) fn free_from(&mut self, segment: usize) {
        let (_, first_gone) = self.extent(segment);
        let zeroed = self.zeroed.get_mut();
        *zeroed = first_gone.min(*zeroed);
        for segment in segment..SEGMENTS {
            let (_, first) = self.extent(segment);
            let order = self.order(segment);
            let Some(word) = self.segments.get_mut(segment) else { continue };
            let word = core::mem::take(word.get_mut());
            if let (true, Some(order)) = (word & THERE != 0, order) {
                *self.count_frames.get_mut() -= 1 << order;
                let block = (word & !THERE).wrapping_add(first * LINE_BYTES);
                // SAFETY: allocated with this order in `add_segment`; `&mut self`, so nobody reads.
                unsafe { self.memory.free(PhysAddr::new(block), order) };
            }
        }
    }
}

/// The home of a hash among `n`, which is at least 1.
#[inline]
pub(super) const fn home_of(hash: u64, n: u64) -> u64 {
    // Most of the time no doubling is under way.
    if n & (n - 1) == 0 {
        return hash & (n - 1);
    }
    let log2 = n.ilog2();
    let home = hash & ((2 << log2) - 1);
    // No branch: which it is depends on the hash.
    let is_over = (home >= n) as u64;
    home - (is_over << log2)
}

impl<M: Memory> Drop for Lines<M> {
    fn drop(&mut self) {
        self.free_from(0);
    }
}
