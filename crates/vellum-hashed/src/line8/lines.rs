//! The lines of a table: where they lie, and which one a hash calls home.
//!
//! ```text
//!   segment 0      2^f lines, from with_capacity     n homes, 2^k <= n < 2^(k+1)
//!   segment 1      2^f                               home of a hash h:  h mod 2^(k+1),
//!   segment 2      2^(f+1)                           less 2^k if that is not below n
//!   ...            as many as all before
//! ```
//!
//! A line and the home of the same number are the same place. Every segment is a circle: after its
//! last line comes its first.
//!
//! # Invariants
//!
//! - A segment, once there, stays while the table is shared; n reaches into no other.

use crate::line::{LINE_BYTES, Line, with_line};
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{Memory, OutOfFrames, PAGE_SHIFT, PAGE_SIZE, PhysAddr};
use vellum_global::word::alloc_zeroed;

/// log2 of the lines in a frame: a region, which one stripe covers.
pub(super) const REGION_BITS: u8 = (PAGE_SIZE / LINE_BYTES).ilog2() as u8;
/// Lines of a region.
pub(super) const REGION: u64 = 1 << REGION_BITS;
/// log2 of more lines than there are tags for.
const MOST_BITS: u8 = 45;
const SEGMENTS: usize = 40;
/// In a segment's word: it is there. (Its address may be 0.)
const THERE: u64 = 1;

pub(super) struct Lines<M: Memory> {
    memory: M,
    /// f: log2 of the lines of segment 0.
    first_bits: u8,
    /// n.
    homes: AtomicU64,
    /// Address of each segment, with [`THERE`].
    segments: [AtomicU64; SEGMENTS],
    count_frames: AtomicU64,
}

impl<M: Memory> Lines<M> {
    /// At least `want` lines in one segment, rounded up to a power of two, 64 at least.
    pub(super) fn new(memory: M, want: u64) -> Result<Self, OutOfFrames> {
        let lines = want.clamp(REGION, 1 << MOST_BITS).next_power_of_two();
        let lines = Self {
            memory,
            // Below 46.
            first_bits: lines.ilog2() as u8,
            homes: AtomicU64::new(lines),
            segments: [const { AtomicU64::new(0) }; SEGMENTS],
            count_frames: AtomicU64::new(0),
        };
        lines.add_segment(0)?;
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
        1 << self.first_bits
    }

    pub(super) fn table_bytes(&self) -> u64 {
        self.count_frames.load(Ordering::Relaxed) << PAGE_SHIFT
    }

    /// The segment of a line.
    #[inline]
    pub(super) const fn segment_of(&self, line: u64) -> usize {
        match (line >> self.first_bits).checked_ilog2() {
            Some(log2) => log2 as usize + 1,
            None => 0,
        }
    }

    /// log2 of a segment's lines.
    const fn bits(&self, segment: usize) -> u8 {
        self.first_bits + (segment as u8).saturating_sub(1)
    }

    /// How many lines the segment of `line` has.
    #[inline]
    pub(super) const fn circle(&self, line: u64) -> u64 {
        1 << self.bits(self.segment_of(line))
    }

    /// The line `steps` after `line` in its circle. (A segment begins at a multiple of its length.)
    #[inline]
    pub(super) const fn after(&self, line: u64, steps: u64) -> u64 {
        let mask = self.circle(line) - 1;
        line & !mask | (line + steps) & mask
    }

    /// How many steps it is from `home` to `line`, of the same circle.
    #[inline]
    pub(super) const fn distance(&self, home: u64, line: u64) -> u64 {
        line.wrapping_sub(home) & (self.circle(line) - 1)
    }

    /// Where a line lies, whose segment is there.
    #[inline]
    pub(super) fn address(&self, line: u64) -> PhysAddr {
        let segment = self.segment_of(line);
        let base = self.segments.get(segment).map_or(0, |word| word.load(Ordering::Relaxed));
        debug_assert!(base & THERE != 0, "line {line} has no segment");
        let offset = line & (self.circle(line) - 1);
        PhysAddr::new(base & !THERE).wrapping_add(offset * LINE_BYTES)
    }

    /// Calls `f` with a line whose segment is there.
    #[inline]
    pub(super) fn with<R>(&self, line: u64, f: impl FnOnce(&Line) -> R) -> R {
        // SAFETY: a line of a segment, which is ours and stays until nobody shares the table; its
        // words are touched through `Line` only.
        unsafe { with_line(&self.memory, self.address(line), f) }
    }

    pub(super) fn has_segment(&self, segment: usize) -> bool {
        self.segments.get(segment).is_some_and(|word| word.load(Ordering::Relaxed) & THERE != 0)
    }

    /// Takes a segment from the memory: by one at a time.
    pub(super) fn add_segment(&self, segment: usize) -> Result<(), OutOfFrames> {
        let order = self.bits(segment) - REGION_BITS;
        let none = OutOfFrames { order: u8::MAX };
        let word = self.segments.get(segment).filter(|_| self.bits(segment) <= MOST_BITS);
        let word = word.ok_or(none)?;
        let block = alloc_zeroed(&self.memory, order)?;
        self.count_frames.fetch_add(1 << order, Ordering::Relaxed);
        // Ordered before the first use by the store of n that lets its lines be used.
        word.store(block.as_u64() | THERE, Ordering::Relaxed);
        Ok(())
    }

    /// Gives back every segment from this one on: n reaches into none of them, or the table goes.
    pub(super) fn free_from(&mut self, segment: usize) {
        for segment in segment..SEGMENTS {
            let order = self.bits(segment) - REGION_BITS;
            let Some(word) = self.segments.get_mut(segment) else { continue };
            let block = core::mem::take(word.get_mut());
            if block & THERE != 0 {
                *self.count_frames.get_mut() -= 1 << order;
                // SAFETY: allocated with this order in `add_segment`; `&mut self`, so nobody reads.
                unsafe { self.memory.free(PhysAddr::new(block & !THERE), order) };
            }
        }
    }
}

/// The home of a hash among `n`, which is at least 1.
#[inline]
pub(super) const fn home_of(hash: u64, n: u64) -> u64 {
    let half = 1 << n.ilog2();
    let home = hash & (2 * half - 1);
    if home < n { home } else { home - half }
}

impl<M: Memory> Drop for Lines<M> {
    fn drop(&mut self) {
        self.free_from(0);
    }
}
