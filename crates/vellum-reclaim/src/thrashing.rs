//! Whether memory is too small for what runs: most of what is brought in was thrown out a moment ago.
//!
//! ```text
//!   window of n arrivals        short: distance <= frames
//!   . . s . s s . s | s s s s . s s s | . . . s . . . .
//!     4 of 8        |   7 of 8        |   1 of 8
//!                   ON: 3 of 4 short      OFF: below 1 of 2
//! ```
//!
//! A page whose refault distance is at most the memory's size would have stayed if what was evicted in
//! between, once through all memory at most, had been the right pages or fewer. When nearly all arrivals
//! are such, taking frames from one only serves another: a loop should run fewer spaces, or end one.
//!
//! # Invariants
//!
//! - The verdict changes at a window's end only, and not between the two thresholds.
//!
//! Source: P. Denning, "Thrashing: its causes and prevention", AFIPS 1968; short distances as Linux's
//! workingset_activate counts them.

use crate::replacement::Arrival;

/// Counts short refaults among arrivals.
#[derive(Clone, Debug)]
pub struct Thrashing {
    frames: u32,
    window: u32,
    arrivals: u32,
    short: u32,
    is_thrashing: bool,
}

impl Thrashing {
    /// For a memory of so many frames, judged every `window` arrivals; at least 4.
    #[must_use]
    pub const fn new(frames: u32, window: u32) -> Self {
        let window = if window < 4 { 4 } else { window };
        Self { frames, window, arrivals: 0, short: 0, is_thrashing: false }
    }

    /// Counts an arrival; the verdict as it is then. O(1).
    pub fn note(&mut self, arrival: Arrival) -> bool {
        self.arrivals += 1;
        self.short += u32::from(arrival.distance().is_some_and(|it| it <= self.frames));
        if self.arrivals == self.window {
            let (short, all) = (u64::from(self.short), u64::from(self.arrivals));
            self.is_thrashing = short * 4 >= all * if self.is_thrashing { 2 } else { 3 };
            (self.arrivals, self.short) = (0, 0);
        }
        self.is_thrashing
    }

    /// The verdict of the last whole window.
    #[must_use]
    pub const fn is_thrashing(&self) -> bool {
        self.is_thrashing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_has_two_thresholds() {
        let mut detector = Thrashing::new(100, 8);
        let mut window = |short: u32| {
            let arrival = |n| match n {
                _ if n < short => Arrival { ghost: None, distance: Some(100) },
                _ if n % 2 == 0 => Arrival { ghost: None, distance: Some(101) },
                _ => Arrival::FRESH,
            };
            (0..8).map(|n| detector.note(arrival(n))).last().unwrap()
        };
        let verdicts = [0, 5, 6, 5, 4, 3, 5, 8].map(&mut window);
        assert_eq!(verdicts, [false, false, true, true, true, false, false, true]);
        assert!(detector.is_thrashing());
    }
}
