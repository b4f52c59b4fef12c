//! WSClock: a clock whose hand takes what has left the working set.
//!
//! ```text
//!                 hand
//!                   v
//!   used at   9  4  9  7  -  2  8       now 9, working set: the last 3 ticks
//!   referenced      x                        cleared, used at := 9, passed
//!                            ^ older than 3 ticks: clean, it goes; dirty, write_back, passed
//! ```
//!
//! Time is ticks. If nobody has left the working set once round, the oldest seen goes, dirty or not: the
//! memory is too small for what runs. Until the next tick the same age is old enough, so that the rest
//! of this tick's victims do not cost a round each.
//!
//! # Invariants
//!
//! - `limit` is at most the working set's time, and is that again after each tick.
//!
//! Costs: `victim` is O(1) for each frame that the hand passes by, present or not, and O(frames) at most
//! for each age of the working set and tick.
//!
//! Source: R. Carr and J. Hennessy, "WSClock: a simple and effective algorithm for virtual memory
//! management", SOSP 1981.

use crate::ghosts::Evictions;
use crate::looks::{Look, Looks};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

/// Ticks that a page stays in the working set without being used, unless said otherwise.
pub const WINDOW_TICKS: u16 = 2;

/// What is kept of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cell {
    used_at: u16,
    is_present: bool,
    is_referenced: bool,
}

/// WSClock. Four bytes a frame.
#[derive(Debug)]
pub struct WsClock<'m> {
    cells: &'m mut [Cell],
    len: u32,
    hand: u32,
    now: u16,
    window: u16,
    /// A page of this age may go.
    limit: u16,
    evictions: Evictions,
}

impl<'m> WsClock<'m> {
    /// Cells for so many frames.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        frames as usize
    }

    /// One without frames. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`], as [`Policy::over`](crate::Policy::over) says.
    pub fn new(frames: u32, cells: &'m mut [Cell]) -> Result<Self, SizeError> {
        SizeError::check(frames, Self::cells(frames), cells.len())?;
        cells.fill(Cell::default());
        let (window, evictions) = (WINDOW_TICKS, Evictions::default());
        Ok(Self { cells, len: 0, hand: 0, now: 0, window, limit: window, evictions })
    }

    /// Sets the time without use, in ticks, after which a page has left the working set.
    pub const fn set_window(&mut self, ticks: u16) {
        (self.window, self.limit) = (ticks, ticks);
    }

    /// The present frames, from the hand to the hand.
    fn next(&mut self) -> Option<u32> {
        for _ in 0..=self.cells.len() {
            let at = self.hand;
            let is_present = self.cells.get(at as usize)?.is_present;
            self.hand = if (at as usize) + 1 < self.cells.len() { at + 1 } else { 0 };
            if is_present {
                return Some(at);
            }
        }
        None
    }

    /// Its age, if it may go; 0 ticks for one that was just used.
    fn age(&mut self, frame: u32, look: Look) -> Option<u16> {
        let now = self.now;
        let cell = self.cells.get_mut(frame as usize)?;
        if look == Look::Used || cell.is_referenced {
            (cell.is_referenced, cell.used_at) = (false, now);
            return None;
        }
        (look == Look::Idle).then_some(now.wrapping_sub(cell.used_at))
    }

    fn take(&mut self, frame: u32) -> Victim {
        self.remove(FrameIx(frame));
        Victim { frame: FrameIx(frame), shadow: self.evictions.shadow() }
    }
}

impl Replacement for WsClock<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        self.evictions.arrival(shadow)
    }

    fn insert(&mut self, frame: FrameIx, _: Arrival) {
        let used_at = self.now;
        if let Some(cell) = self.cells.get_mut(frame.index()) {
            if !cell.is_present {
                // The fault was a use: now.
                *cell = Cell { used_at, is_present: true, is_referenced: false };
                self.len += 1;
            }
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        if let Some(cell) = self.cells.get_mut(frame.index()) {
            cell.is_referenced = cell.is_present;
        }
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        let mut looks = Looks::new(bits, self.len);
        // At first only the old, then, twice, the oldest of those that a round found.
        loop {
            let mut oldest: Option<(u16, u32)> = None;
            for _ in 0..self.len {
                let frame = self.next()?;
                let look = looks.at(frame)?;
                let Some(age) = self.age(frame, look) else {
                    continue;
                };
                if age >= self.limit && !looks.is_dirty {
                    return Some(self.take(frame));
                }
                if age >= self.limit {
                    looks.write_back(frame);
                }
                if oldest.is_none_or(|(most, _)| age > most) {
                    oldest = Some((age, frame));
                }
            }
            if let Some((age, frame)) = oldest {
                self.limit = self.limit.min(age);
                return Some(self.take(frame));
            }
            // All were used, or are held: round again, for the first are not any more.
            if self.len == 0 {
                return None;
            }
        }
    }

    fn remove(&mut self, frame: FrameIx) {
        if let Some(cell) = self.cells.get_mut(frame.index()) {
            self.len -= u32::from(core::mem::take(cell).is_present);
        }
    }

    fn tick(&mut self, _: &mut impl AccessedBits) {
        self.now = self.now.wrapping_add(1);
        self.limit = self.window;
    }

    fn contains(&self, frame: FrameIx) -> bool {
        self.cells.get(frame.index()).is_some_and(|cell| cell.is_present)
    }

    fn len(&self) -> u32 {
        self.len
    }
}
