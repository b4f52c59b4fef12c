//! Windows of lines, held by their stripes; how a line comes in and how it goes.
//!
//! ```text
//!   window: home and the lines after it, to one that matters      regions
//!        | home ......... first unused |                          |  r  | r+1 |   <- stripes held
//!
//!   removal of C:     A B C D E .       D is one from home, E is at home
//!                     A B D . E .       D closes the gap; what follows an unused place stays
//! ```

use super::lines::{REGION, REGION_BITS, home_of};
use super::{Line8, MOST};
use crate::line::{ENTRIES, Line, Tag};
use core::sync::atomic::Ordering;
use vellum_core::Memory;
use vellum_global::{Lowest, Stripe};

/// `len` lines from `home` on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) home: u64,
    pub(super) len: u64,
}

/// Regions of a window at most, as it may begin and end within one.
const REGIONS: usize = (MOST / REGION) as usize + 2;

impl<M: Memory, const ROBIN_HOOD: bool> Line8<M, ROBIN_HOOD> {
    /// How many lines a look-up from `home` reads at most.
    #[inline]
    pub(super) fn most(&self, home: u64) -> u64 {
        let circle = self.lines.circle(home);
        if circle < MOST { circle } else { MOST }
    }

    /// The stripe of a line's region.
    #[inline]
    pub(super) const fn region(&self, line: u64) -> Stripe {
        self.stripes.of(line >> REGION_BITS)
    }

    /// The window from `home` to the first line that is the end, or as far as a look-up goes. What
    /// it is by a look without locks, it need not be any more: also if it ends where zeros did then.
    pub(super) fn window(&self, home: u64, is_end: impl Fn(&Line) -> bool) -> Window {
        let most = self.most(home).min(self.lines.readable(home));
        let end = (0..most).find(|&steps| self.lines.with(self.lines.after(home, steps), &is_end));
        Window { home, len: end.map_or(most, |steps| steps + 1) }
    }

    /// Calls `f` with every region of the windows held.
    pub(super) fn under<R, const N: usize>(
        &self,
        windows: [Window; N],
        f: impl FnOnce() -> R,
    ) -> R {
        let first = self.region(windows.first().map_or(0, |window| window.home));
        let (mut all, mut count) = ([first; 2 * REGIONS], 0);
        for window in windows {
            let last = window.len + window.home % REGION;
            for offset in (0..last).step_by(REGION as usize) {
                let line = self.lines.after(window.home & !(REGION - 1), offset);
                if let Some(place) = all.get_mut(count) {
                    *place = self.region(line);
                }
                count += 1;
            }
        }
        debug_assert!(count <= all.len(), "more regions than windows have");
        // Nearly always there are few.
        if let ([a, b, c, d, ..], ..=4) = (all, count) {
            let _held = self.stripes.hold_all([a, b, c, d]);
            return f();
        }
        let _held = self.stripes.hold_all(all);
        f()
    }

    /// Puts a line in by its home, where `unused` steps from there is the first unused place; all
    /// between is held. There are `n` homes.
    pub(super) fn insert(&self, home: u64, unused: u64, n: u64, write: impl FnOnce(&Line)) {
        let at = |steps| self.lines.after(home, steps);
        let mut place = unused;
        if ROBIN_HOOD {
            let richer = |&steps: &u64| self.steps_from_home(at(steps), n) < steps;
            place = (0..unused).find(richer).unwrap_or(unused);
            for steps in (place..unused).rev() {
                let copied = self.lines.with(at(steps), Line::copy);
                self.lines.with(at(steps + 1), |line| line.paste(copied));
            }
        }
        self.lines.with(at(place), write);
    }

    /// How far a line is from its home; 0 if it is unused.
    fn steps_from_home(&self, at: u64, n: u64) -> u64 {
        let tag = self.lines.with(at, Line::tag);
        tag.map_or(0, |tag| self.lines.distance(home_of(tag.hash(0), n), at))
    }

    /// Takes the line at `at` out, by who holds everything from there to the first unused place, or
    /// the whole circle.
    pub(super) fn remove(&self, at: u64, n: u64) {
        let mut gap = 0;
        for steps in 1..self.lines.circle(at) {
            let next = self.lines.after(at, steps);
            if !self.lines.with(next, Line::is_used) {
                break;
            }
            // It may close the gap if its home is not behind that.
            if self.steps_from_home(next, n) >= steps - gap {
                let copied = self.lines.with(next, Line::copy);
                self.lines.with(self.lines.after(at, gap), |line| line.paste(copied));
                gap = steps;
            }
        }
        self.lines.with(self.lines.after(at, gap), Line::clear);
    }

    /// Takes line number `gap` of these out, where all up to an unused place are among them; whether
    /// they are. They are held, in one region, and the first is number `first` of the table.
    #[inline]
    pub(super) fn remove_among(&self, lines: &[Line], first: u64, gap: usize, n: u64) -> bool {
        let (Some(mut gap_line), Some(behind)) = (lines.get(gap), lines.get(gap + 1..)) else {
            return false;
        };
        let Some(end) = behind.iter().position(|line| !line.is_used()) else { return false };
        let (mut hole, mask) = (first + gap as u64, self.lines.circle(first) - 1);
        for (at, line) in (hole + 1..).zip(behind.iter().take(end)) {
            // It may close the gap if its home is not behind that.
            let steps = line.tag().map_or(0, |tag| at.wrapping_sub(home_of(tag.hash(0), n)) & mask);
            if steps >= at - hole {
                gap_line.paste(line.copy());
                (hole, gap_line) = (at, line);
            }
        }
        gap_line.clear();
        true
    }

    /// Makes way for a line among those from its home on, of which number `unused` is unused: where it
    /// shall be, what was there and behind having moved up by one.
    #[inline]
    pub(super) fn make_way<'l>(
        &self,
        lines: &'l [Line],
        home: u64,
        unused: usize,
        n: u64,
    ) -> Option<&'l Line> {
        let mask = self.lines.circle(home) - 1;
        let is_richer = |(line, steps): (&Line, u64)| {
            let theirs = line
                .tag()
                .map_or(0, |tag| (home + steps).wrapping_sub(home_of(tag.hash(0), n)) & mask);
            theirs < steps
        };
        let place = lines.iter().zip(0..).take(unused).position(is_richer).unwrap_or(unused);
        let moves = lines.windows(2).take(unused).skip(place);
        for pair in moves.rev() {
            if let [from, to] = pair {
                to.paste(from.copy());
            }
        }
        lines.get(place)
    }

    /// Whether the window ends with an unused place, or is the whole circle: by who holds it.
    pub(super) fn is_complete(&self, window: Window) -> bool {
        let last = self.lines.after(window.home, window.len - 1);
        window.len == self.lines.circle(window.home) || !self.lines.with(last, Line::is_used)
    }

    /// Where the line of `tag` is in a window that is held.
    pub(super) fn find(&self, window: Window, tag: Tag) -> Option<u64> {
        let mut places = (0..window.len).map(|steps| self.lines.after(window.home, steps));
        places.find(|&at| self.lines.with(at, |line| line.is(tag)))
    }

    /// Removes the line of `tag` if it still has no entry.
    #[cold]
    pub(super) fn remove_empty(&self, tag: Tag) {
        let hash = tag.hash(0);
        loop {
            let home = home_of(hash, self.lines.homes());
            let window = self.window(home, |line| !line.is_used());
            let removed = self.under([window], || {
                let n = self.lines.homes();
                if home_of(hash, n) != home || !self.is_complete(window) {
                    // Of a stretch without an end a line stays, empty, until that has one.
                    let endless = window.len == MOST && home_of(hash, n) == home;
                    return endless.then_some(0);
                }
                let empty = |&at: &u64| self.lines.with(at, Line::count) == 0;
                let Some(at) = self.find(window, tag).filter(empty) else { return Some(0) };
                self.remove(at, n);
                Some(1)
            });
            if let Some(count) = removed {
                self.used.fetch_sub(count, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Offers every entry of the lines whose homes are in a region.
    pub(super) fn scan_region(&self, region: u64, found: &mut Lowest) {
        let first = region << REGION_BITS;
        while first < self.lines.homes() {
            // To the end of what begins in it.
            let last = self.window(first + REGION - 1, |line| !line.is_used());
            let circle = self.lines.circle(first);
            let window = Window { home: first, len: (REGION - 1 + last.len).min(circle) };
            let complete = self.under([window], || {
                let last = Window { home: first + REGION - 1, ..last };
                // The longest way from home ends there, if no unused place does.
                if !self.is_complete(last) && last.len < self.most(first) {
                    return false;
                }
                self.offer(window, region, found);
                true
            });
            if complete {
                return;
            }
        }
    }

    fn offer(&self, window: Window, region: u64, found: &mut Lowest) {
        let n = self.lines.homes();
        for steps in 0..window.len {
            self.lines.with(self.lines.after(window.home, steps), |line| {
                let Some(tag) = line.tag() else { return };
                if home_of(tag.hash(0), n) >> REGION_BITS == region {
                    (0..ENTRIES).for_each(|slot| found.offer(tag.key(slot), line.entry(slot)));
                }
            });
        }
    }
}
