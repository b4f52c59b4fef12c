//! More homes, one at a time; fewer, all at once.
//!
//! ```text
//!   home s = n - 2^k and what follows it, held      home n and what follows it, held
//!        . A b C b D .                                   . . .
//!        . A C D . . .                                   . b b .         b: s before, n after
//! ```

use super::lines::{AHEAD, REGION, home_of};
use super::probe::Window;
use super::{DUE, FULL, Line8, ROOM, SEGMENT, SPARSE, ZEROS};
use crate::line::{Copied, Line};
use core::sync::atomic::Ordering;
use vellum_core::{Memory, Need, OutOfFrames};

/// Lines that move at most when several homes are split at once.
const BATCH: usize = 16;

/// Lines of some neighbouring homes that move: where each lies, from the first of these homes on, which
/// of the new homes it has, and what it holds.
struct Movers {
    all: [(usize, usize, Copied); BATCH],
    /// How many were collected; and how many of them by the last unused place.
    seen: usize,
    sure: usize,
    /// Homes of which every line was seen, by then.
    homes: u64,
    /// A bit for each that was put where it goes.
    placed: u32,
}

impl Movers {
    const fn new() -> Self {
        let all = [const { (0, 0, Copied::NOTHING) }; BATCH];
        Self { all, seen: 0, sure: 0, homes: 0, placed: 0 }
    }

    fn held(&self) -> &[(usize, usize, Copied)] {
        self.all.get(..self.sure).unwrap_or(&[])
    }

    /// Collects what belongs to the homes from `n` on when there are `most` more, among the lines
    /// from number `first` on; whether there is no need to look further.
    fn collect(&mut self, lines: &[Line], first: usize, n: u64, most: u64) -> bool {
        let mask = (2 << n.ilog2()) - 1;
        for (at, line) in (first..).zip(lines) {
            let Some(tag) = line.tag() else {
                // Up to here every line of these homes was seen.
                (self.homes, self.sure) = (most.min(at as u64 + 1), self.seen);
                if self.homes == most {
                    return true;
                }
                continue;
            };
            let home = (tag.hash(0) & mask).wrapping_sub(n);
            if home < most {
                let Some(place) = self.all.get_mut(self.seen) else { return true };
                // It is not before its home, nor is that below the first one.
                *place = (at, home as usize, line.copy());
                self.seen += 1;
            }
        }
        false
    }

    /// Puts those that were not yet into unused places from their homes on, among the lines from
    /// number `first` of these; whether all are placed.
    fn place(&mut self, lines: &[Line], first: usize) -> bool {
        let mut placed = self.placed;
        for (n, (_, home, copied)) in self.held().iter().enumerate() {
            if placed & 1 << n == 0 {
                let mut behind = lines.iter().skip(home.saturating_sub(first));
                if let Some(line) = behind.find(|line| !line.is_used()) {
                    line.paste(*copied);
                    placed |= 1 << n;
                }
            }
        }
        self.placed = placed;
        placed.count_ones() as usize == self.sure
    }

    /// Clears those that were put among these lines.
    #[cold]
    fn take_back(&self, lines: &[Line]) {
        for (n, (.., copied)) in self.held().iter().enumerate() {
            let put = lines.iter().find(|line| line.copy() == *copied);
            if let (Some(line), true) = (put, self.placed & 1 << n != 0) {
                line.clear();
            }
        }
    }
}

impl<M: Memory, const ROBIN_HOOD: bool> Line8<M, ROBIN_HOOD> {
    /// Whether there are to be more homes: there is too little room, or a doubling has begun.
    fn is_due(&self) -> bool {
        let (used, n) = (self.used.load(Ordering::Relaxed), self.lines.homes());
        used * 10 > n * DUE || !n.is_power_of_two()
    }

    /// The need of more homes than there are now: by their number, so that nobody grows the table for
    /// the sake of a want that somebody else has met meanwhile.
    pub(super) fn room(&self) -> Need {
        Need::new(ROOM + self.lines.homes().ilog2())
    }

    /// What a line more would lack.
    pub(super) fn lacks(&self) -> Option<Need> {
        let (used, n) = (self.used.load(Ordering::Relaxed), self.lines.homes());
        if used * 10 >= n * FULL {
            return Some(self.room());
        }
        let missing = self.is_due()
            && !self.lines.has_segment(self.lines.segment_of(n))
            && used >= self.retry_at.load(Ordering::Relaxed);
        missing.then_some(SEGMENT)
    }

    /// Takes a segment if one is due; if what is needed is room, grows until a line more is not refused.
    pub(super) fn provide(&self, need: Need) -> Result<(), OutOfFrames> {
        if self.splitting.swap(true, Ordering::Acquire) {
            // Somebody else sees to it.
            core::hint::spin_loop();
            return Ok(());
        }
        let provided = if need == ZEROS {
            self.zero_more();
            Ok(())
        } else {
            self.provide_alone(need == self.room())
        };
        self.splitting.store(false, Ordering::Release);
        provided
    }

    /// Zeroes a region more of the segment that homes come from, if that is there: by the holder of
    /// `splitting`; whether there was one.
    fn zero_more(&self) -> bool {
        let is_there = self.lines.has_segment(self.lines.segment_of(self.lines.homes()));
        is_there && self.lines.zero_to(self.lines.zeroed() + REGION)
    }

    fn provide_alone(&self, room: bool) -> Result<(), OutOfFrames> {
        let mut moved = 0;
        let provided = loop {
            let (used, n) = (self.used.load(Ordering::Relaxed), self.lines.homes());
            let segment = self.lines.segment_of(n);
            if (room || self.is_due()) && !self.lines.has_segment(segment) {
                if let Err(out) = self.lines.add_segment(segment) {
                    self.retry_at.store(used + n / 16, Ordering::Relaxed);
                    break if room { Err(out) } else { Ok(()) };
                }
            }
            if !room {
                break Ok(());
            }
            let Some(count) = self.split() else { break Err(OutOfFrames { order: 0 }) };
            moved += count;
            let n = self.lines.homes();
            if n.is_power_of_two() && used * 10 < n * FULL {
                break Ok(());
            }
        };
        self.worst_pause.fetch_max(moved, Ordering::Relaxed);
        provided
    }

    /// Up to `steps` splits, if they are due and their segment is there; does nothing while somebody
    /// else does.
    pub(super) fn grow(&self, steps: u64) {
        if !self.is_due() || self.splitting.swap(true, Ordering::Acquire) {
            return;
        }
        let (mut moved, mut left) = (0, steps);
        while left > 0 {
            let segment = self.lines.segment_of(self.lines.homes());
            if !self.is_due() || !self.lines.has_segment(segment) {
                break;
            }
            let (homes, count) = match self.split_some(left) {
                (0, _) => match self.split() {
                    Some(count) => (1, count),
                    None => break,
                },
                done => done,
            };
            left -= homes;
            moved += count;
        }
        self.worst_pause.fetch_max(moved, Ordering::Relaxed);
        self.splitting.store(false, Ordering::Release);
    }

    /// Splits the next homes of one region, at most `most` and those of [`BATCH`] lines that move, by
    /// the holder of `splitting`, where their segment is there: as many as have all of their lines in
    /// that region and the next, and places for them in two. How many homes, and how many lines moved.
    pub(super) fn split_some(&self, most: u64) -> (u64, u64) {
        let n = self.lines.homes();
        self.lines.zero_to(n + AHEAD);
        let parent = n - (1 << n.ilog2());
        // The new home is as far from the end of its region.
        let rest = REGION - n % REGION;
        let behind = |home: u64| self.lines.after(home | (REGION - 1), 1);
        // Only what is at the end of a region reaches into the next; which is another, unless the
        // circle has but one.
        let far = most >= rest && self.lines.circle(parent) > REGION;
        let most = most.min(rest);
        let near = [parent, n].map(|home| self.region(home));
        let [from, to] =
            if far { [behind(parent), behind(n)].map(|at| self.region(at)) } else { near };
        let _held = self.stripes.hold_all([near[0], near[1], from, to]);

        let mut movers = Movers::new();
        let first = rest as usize;
        let done = self.lines.with_rest(parent, |lines| movers.collect(lines, 0, n, most));
        if !done && far {
            self.lines.with_rest(behind(parent), |lines| movers.collect(lines, first, n, most));
        }
        let placed = self.lines.with_rest(n, |lines| movers.place(lines, 0))
            || far && self.lines.with_rest(behind(n), |lines| movers.place(lines, first));
        if !placed {
            self.lines.with_rest(n, |lines| movers.take_back(lines));
            if far {
                self.lines.with_rest(behind(n), |lines| movers.take_back(lines));
            }
            return (0, 0);
        }
        // From the last, so that those before stay where they are.
        for &(at, ..) in movers.held().iter().rev() {
            let removed =
                self.lines.with_rest(parent, |lines| self.remove_among(lines, parent, at, n));
            if !removed {
                self.remove(self.lines.after(parent, at as u64), n);
            }
        }
        let count = movers.held().len() as u64;
        self.lines.set_homes(n + movers.homes);
        self.moved.fetch_add(count, Ordering::Relaxed);
        (movers.homes, count)
    }

    /// Splits the next home, by the holder of `splitting`, where its segment is there; how many
    /// lines moved. `None` if there is no place for them.
    pub(super) fn split(&self) -> Option<u64> {
        let n = self.lines.homes();
        self.lines.zero_to(n + AHEAD);
        let parent = n - (1 << n.ilog2());
        loop {
            let from = self.window(parent, |line| !line.is_used());
            let movers = self.movers(from, n).count() as u64;
            let to = self.room_for(n, movers);
            if to.len < self.most(n) && !self.has_room(to, movers) && self.zero_more() {
                continue;
            }
            let split = self.under([from, to], || {
                if !self.is_complete(from) {
                    return Err(from.len < self.most(parent));
                }
                if self.movers(from, n).count() as u64 != movers || !self.has_room(to, movers) {
                    // An end without room is one that no look makes longer.
                    return Err(to.len < self.most(n) || self.has_room(to, movers));
                }
                while let Some(at) = self.movers(from, n).next() {
                    let copied = self.lines.with(at, Line::copy);
                    self.remove(at, n);
                    let unused = (0..to.len).find(|&steps| self.is_unused(n, steps)).unwrap_or(0);
                    self.insert(n, unused, n + 1, |line| line.paste(copied));
                }
                self.lines.set_homes(n + 1);
                Ok(movers)
            });
            match split {
                Ok(count) => {
                    self.moved.fetch_add(count, Ordering::Relaxed);
                    return Some(count);
                }
                Err(true) => {}
                Err(false) => return None,
            }
        }
    }

    /// The lines of a window that belong to home n when there is one.
    fn movers(&self, from: Window, n: u64) -> impl Iterator<Item = u64> {
        let places = (0..from.len).map(move |steps| self.lines.after(from.home, steps));
        places.filter(move |&at| {
            let tag = self.lines.with(at, Line::tag);
            tag.is_some_and(|tag| home_of(tag.hash(0), n + 1) == n)
        })
    }

    /// The window from `home` to the unused place number `count` of those that may be used, at least
    /// one line.
    fn room_for(&self, home: u64, count: u64) -> Window {
        let most = self.most(home).min(self.lines.usable(home));
        let mut unused = 0;
        let end = (0..most).find(|&steps| {
            unused += u64::from(self.is_unused(home, steps));
            unused >= count
        });
        Window { home, len: end.map_or(most, |steps| steps + 1) }
    }

    fn has_room(&self, to: Window, count: u64) -> bool {
        (0..to.len).filter(|&steps| self.is_unused(to.home, steps)).count() as u64 >= count
    }

    fn is_unused(&self, home: u64, steps: u64) -> bool {
        self.lines.with(self.lines.after(home, steps), |line| !line.is_used())
    }

    /// Gives memory back after many entries are gone: where at most two lines in ten are in use, as
    /// few homes as hold them at six in ten or less, but no fewer than the table began with. A segment
    /// that no home is in goes as well.
    ///
    /// Costs a look at every line. It takes the table exclusively, hence no space may be open.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn core::error::Error>> {
    /// use vellum_core::{Attr, Direct, PageTable, PhysAddr, Run, VirtAddr};
    /// use vellum_hashed::{Asid, Line8};
    /// use vellum_testkit::Arena;
    ///
    /// let arena = Arena::new(64);
    /// let mut table = Line8::<_>::new(&arena)?;
    /// // SAFETY: no CPU walks this table.
    /// let mut gather = unsafe { Direct::new(|_| {}) };
    /// let mut space = table.space(Asid::new(1).unwrap())?;
    /// space.map(Run::new(VirtAddr::new(0), PhysAddr::new(0), 1 << 20, Attr::RW), &mut gather)?;
    /// assert_eq!(arena.frames_in_use(), 2);
    /// space.map(Run::new(VirtAddr::new(1 << 20), PhysAddr::new(0), 1 << 20, Attr::RW), &mut gather)?;
    /// assert_eq!((table.statistics().homes, arena.frames_in_use()), (128, 3));
    /// table.space(Asid::new(2).unwrap())?;
    /// space.retire(&mut gather);
    /// table.shrink();
    /// assert_eq!((table.statistics().homes, arena.frames_in_use()), (64, 2));
    /// # Ok(())
    /// # }
    /// ```
    pub fn shrink(&mut self) {
        self.join();
        // One may also have been taken for lines that never came.
        let all = self.lines.homes().next_power_of_two();
        let first_gone = self.lines.segment_of(all);
        self.lines.free_from(first_gone);
    }

    /// Reduces the number of homes, if few enough lines are in use.
    fn join(&mut self) {
        let (used, n) = (*self.used.get_mut(), self.lines.homes());
        if used * 10 > n * SPARSE {
            return;
        }
        let wanted = (used * 10).div_ceil(DUE).max(self.lines.fewest_homes()).next_power_of_two();
        let all = n.next_power_of_two();
        let mut fewer = wanted;
        while fewer < all && !self.fits(fewer) {
            fewer *= 2;
        }
        if fewer >= all {
            return;
        }
        // What is above goes into what is below, where every line is at its home already.
        self.lines.set_homes(fewer);
        for line in fewer..all.min(self.lines.zeroed()) {
            let (copied, tag) = self.lines.with(line, |line| (line.copy(), line.tag()));
            let Some(tag) = tag else { continue };
            let home = home_of(tag.hash(0), fewer);
            let window = self.window(home, |line| !line.is_used());
            self.insert(home, window.len - 1, fewer, |line| line.paste(copied));
            *self.moved.get_mut() += 1;
        }
        *self.retry_at.get_mut() = 0;
    }

    /// Whether look-ups would not get too long with so many homes, a power of two: goes twice around
    /// each circle that is left, with the lines that do not fit where they belong.
    fn fits(&self, homes: u64) -> bool {
        let mut first = 0;
        while first < homes {
            let circle = self.lines.circle(first);
            let (mut carried, mut stretch) = (0, 0);
            for steps in 0..2 * circle {
                carried += self.count_at(first + steps % circle, homes);
                stretch = if carried == 0 { 0 } else { stretch + 1 };
                carried = carried.saturating_sub(1);
                if stretch >= self.most(first) {
                    return false;
                }
            }
            first += circle;
        }
        true
    }

    /// How many lines would have this home if there were so many.
    fn count_at(&self, home: u64, homes: u64) -> u64 {
        let n = self.lines.homes();
        let now = (home..n).step_by(usize::try_from(homes).unwrap_or(usize::MAX));
        now.map(|old| {
            let window = self.window(old, |line| !line.is_used());
            let places = (0..window.len).map(|steps| self.lines.after(old, steps));
            let tags = places.filter_map(|at| self.lines.with(at, Line::tag));
            tags.filter(|tag| home_of(tag.hash(0), n) == old).count() as u64
        })
        .sum()
    }
}
