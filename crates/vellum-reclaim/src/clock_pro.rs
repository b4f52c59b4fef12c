//! CLOCK-Pro: LIRS by bits, on one clock with three hands.
//!
//! ```text
//!              hand hot: hot pages without a reference become cold; ends the tests that it meets
//!                 v
//!        .-> [H] [H] [c] [t] [g] [H] [t] [c] [H] [g] --.      H  hot
//!        |            ^ hand cold: takes the first     |      c  cold, resident
//!        |              without a reference            |      t  cold, resident, in its test
//!        |                       ^ hand test: ends     |      g  cold, gone, in its test
//!        `------ list head <-------- tests ------------'
//!
//!   referenced in its test:  hot, and the share of cold pages grows by one
//!   test over without one:   the share of cold pages shrinks by one
//! ```
//!
//! The clock is a queue whose front is the hot hand: what that hand passes goes to the back, which is the
//! list head, where new pages come too.
//!
//! With accessed bits, the first that is found of a cold page is that of the fault which brought it: it
//! goes to the list head and stays in its test.
//!
//! Resident cold pages are a second list, in the clock's order, so that the cold hand does not pass hot
//! pages and ghosts. That costs nothing to keep: whatever becomes cold, or moves and is cold, comes to
//! the back of both, and the first cold page that the hot hand meets is the second list's front.
//!
//! # Invariants
//!
//! - The list of cold pages is the clock without hot pages and ghosts.
//! - Ghosts are in their test, and are as many as frames at most.
//! - `share`, the aim for resident cold pages, is 1 to `frames`.
//!
//! Costs: `victim` is O(1) for each page that a hand passes by.
//!
//! Source: S. Jiang, F. Chen and X. Zhang, "CLOCK-Pro: an effective improvement of the CLOCK replacement",
//! USENIX 2005.

use crate::ghosts::Evictions;
use crate::lists::{Lists, Node};
use crate::looks::{self, Look, Looks, Search};
use crate::replacement::{AccessedBits, Arrival, FrameIx, Replacement, Shadow, SizeError, Victim};

const CLOCK: u8 = 0;
const FREE: u8 = 1;
/// The only list of the cold.
const COLDS: u8 = 0;

/// Flag: hot; without it, cold.
const HOT: u32 = 1 << 16;
/// Flag: cold, and in its test.
const TEST: u32 = 1 << 17;
/// Flag: referenced since a hand came by.
const REFERENCED: u32 = 1 << 18;
/// Flag: no accessed bit was found since its fault.
const FRESH: u32 = 1 << 19;

/// CLOCK-Pro. 48 bytes a frame.
#[derive(Debug)]
pub struct ClockPro<'m> {
    lists: Lists<'m, 2>,
    /// Resident cold pages.
    colds: Lists<'m, 1>,
    frames: u32,
    hot: u32,
    ghosts: u32,
    /// How many of the frames are to be for cold pages: the paper's m_c.
    share: u32,
    /// What the hands look at next; the front, if nothing.
    hand_cold: Option<u32>,
    hand_test: Option<u32>,
    evictions: Evictions,
}

impl<'m> ClockPro<'m> {
    /// Nodes for so many frames, and their ghosts.
    #[must_use]
    pub const fn cells(frames: u32) -> usize {
        Self::clock_cells(frames) + Lists::<1>::cells(frames as usize)
    }

    const fn clock_cells(frames: u32) -> usize {
        Lists::<2>::cells(2 * frames as usize)
    }

    /// One without frames. O(cells).
    ///
    /// # Errors
    ///
    /// [`SizeError`], as [`Policy::over`](crate::Policy::over) says.
    pub fn new(frames: u32, nodes: &'m mut [Node]) -> Result<Self, SizeError> {
        let (needed, lent) = (Self::cells(frames), nodes.len());
        SizeError::check(frames, needed, lent)?;
        let Some((clock, colds)) = nodes.split_at_mut_checked(Self::clock_cells(frames)) else {
            return Err(SizeError::Cells { needed, lent });
        };
        let mut lists = Lists::new(clock);
        lists.free_ghosts(FREE, frames);
        Ok(Self {
            lists,
            colds: Lists::new(colds),
            frames,
            hot: 0,
            ghosts: 0,
            share: if frames < 100 { 1 } else { frames / 100 },
            hand_cold: None,
            hand_test: None,
            evictions: Evictions::default(),
        })
    }

    /// The next on the clock.
    fn after(&self, at: u32) -> Option<u32> {
        self.lists.newer(at).or_else(|| self.lists.front(CLOCK))
    }

    /// The next cold one.
    fn after_cold(&self, at: u32) -> Option<u32> {
        self.colds.newer(at).or_else(|| self.colds.front(COLDS))
    }

    fn cold(&self) -> u32 {
        self.colds.len(COLDS)
    }

    /// Moves hands off a place that is about to change.
    fn step_aside(&mut self, at: u32) {
        if self.hand_cold == Some(at) {
            self.hand_cold = self.after_cold(at).filter(|&next| next != at);
        }
        if self.hand_test == Some(at) {
            self.hand_test = self.after(at).filter(|&next| next != at);
        }
    }

    /// To the list head.
    fn move_to_head(&mut self, at: u32) {
        self.step_aside(at);
        self.lists.move_to_back(CLOCK, at);
        self.colds.move_to_back(COLDS, at);
    }

    /// A ghost goes for good.
    fn drop_ghost(&mut self, at: u32) {
        self.step_aside(at);
        self.lists.move_to_list(FREE, at);
        self.ghosts -= 1;
    }

    const fn grow(&mut self) {
        if self.share < self.frames {
            self.share += 1;
        }
    }

    /// Ends the test of a cold page, which has not been referenced in it; a ghost goes.
    fn end_test(&mut self, at: u32) {
        if !self.lists.has(at, TEST) {
            return;
        }
        self.share = self.share.saturating_sub(1).max(1);
        if at >= self.frames {
            self.drop_ghost(at);
        } else {
            self.lists.lower(at, TEST);
        }
    }

    /// Until hot pages are no more than their share: the hot hand.
    fn run_hot(&mut self, was_accessed: &mut impl FnMut(u32) -> bool) {
        // Twice round: once to clear references, once to find what has none.
        let mut left = 2 * (self.len() + self.ghosts);
        while self.hot > self.frames - self.share && left > 0 {
            left -= 1;
            self.pass_hot(was_accessed);
        }
    }

    /// The hot hand passes the front, which may become cold.
    fn pass_hot(&mut self, was_accessed: &mut impl FnMut(u32) -> bool) {
        let Some(at) = self.lists.front(CLOCK) else { return };
        if self.lists.has(at, HOT) {
            // The clock turns under the other hands, which stay where they are.
            let is_used = was_accessed(at) || self.lists.has(at, REFERENCED);
            self.lists.lower(at, REFERENCED | if is_used { 0 } else { HOT });
            if !is_used {
                self.hot -= 1;
                self.colds.push_back(COLDS, at);
            }
        } else {
            self.end_test(at);
            self.colds.move_to_back(COLDS, at);
        }
        if self.lists.is_on(CLOCK, at) {
            self.lists.move_to_back(CLOCK, at);
        }
    }

    /// Nobody is cold, after removals, or since the share has shrunk: the hot hand makes somebody so, by
    /// the machine's bits the first time round.
    fn cool(&mut self, was_accessed: &mut impl FnMut(u32) -> bool) {
        for _ in 0..self.len() + self.ghosts {
            if self.cold() > 0 {
                return;
            }
            self.pass_hot(was_accessed);
        }
        while self.cold() == 0 && self.hot > 0 {
            self.pass_hot(&mut |_| false);
        }
    }

    /// Until there is a place for a ghost: the test hand.
    fn run_test(&mut self) {
        while self.ghosts >= self.frames {
            let Some(at) = self.hand_test.or_else(|| self.lists.front(CLOCK)) else { return };
            self.hand_test = self.after(at);
            if !self.lists.has(at, HOT) {
                self.end_test(at);
            }
        }
    }

    /// A cold page without a reference goes; in its test it leaves a ghost in its place.
    fn take(&mut self, frame: u32) -> Victim {
        let mut shadow = self.evictions.shadow();
        if self.lists.has(frame, TEST) {
            self.run_test();
        }
        // The test hand may have come by here.
        if let (true, Some(slot)) = (self.lists.has(frame, TEST), self.lists.front(FREE)) {
            shadow.slot = slot;
            self.ghosts += 1;
            self.lists.unlink(slot);
            if self.hand_test == Some(frame) {
                self.hand_test = Some(slot);
            }
            self.step_aside(frame);
            self.lists.replace(frame, slot);
            self.lists.raise(slot, TEST);
            self.lists.set_stamp(slot, shadow.time);
        } else {
            self.step_aside(frame);
            self.lists.unlink(frame);
        }
        self.colds.unlink(frame);
        Victim { frame: FrameIx(frame), shadow }
    }

    /// What the cold hand does with a resident cold page.
    fn pass_cold(
        &mut self,
        frame: u32,
        look: Look,
        was_accessed: &mut impl FnMut(u32) -> bool,
    ) -> bool {
        let is_fault = look == Look::Used && self.lists.has(frame, FRESH);
        let is_used = look == Look::Used || self.lists.has(frame, REFERENCED);
        if !is_used {
            return look == Look::Idle;
        }
        let is_hot = self.lists.has(frame, TEST) && !is_fault;
        self.lists.lower(frame, REFERENCED | FRESH);
        self.move_to_head(frame);
        if is_hot {
            self.lists.lower(frame, TEST);
            self.lists.raise(frame, HOT);
            self.colds.unlink(frame);
            self.hot += 1;
            self.grow();
            self.run_hot(was_accessed);
        } else {
            self.lists.raise(frame, TEST);
        }
        false
    }
}

impl Search for ClockPro<'_> {
    fn search<B: AccessedBits>(&mut self, looks: &mut Looks<'_, B>) -> Option<Victim> {
        loop {
            if self.cold() == 0 {
                self.cool(&mut |at| looks.was_accessed(at));
            }
            let frame = self.hand_cold.or_else(|| self.colds.front(COLDS))?;
            let look = looks.at(frame)?;
            self.hand_cold = self.after_cold(frame);
            if self.pass_cold(frame, look, &mut |at| looks.was_accessed(at)) {
                return Some(self.take(frame));
            }
        }
    }

    fn shadow(&mut self) -> Shadow {
        self.evictions.shadow()
    }

    fn frames(&self) -> u32 {
        self.frames
    }
}

impl Replacement for ClockPro<'_> {
    fn arrive(&mut self, shadow: Option<Shadow>) -> Arrival {
        let is_ghost = |it: Shadow| {
            it.slot >= self.frames
                && self.lists.is_on(CLOCK, it.slot)
                && self.lists.stamp(it.slot) == it.time
        };
        let ghost = shadow.filter(|&it| is_ghost(it));
        if let Some(Shadow { slot, .. }) = ghost {
            self.drop_ghost(slot);
            self.grow();
        }
        Arrival { ghost: ghost.map(|_| CLOCK), ..self.evictions.arrival(shadow) }
    }

    fn insert(&mut self, frame: FrameIx, arrival: Arrival) {
        if frame.0 >= self.frames || self.contains(frame) {
            return;
        }
        self.lists.push_back(CLOCK, frame.0);
        // While memory fills, pages are hot as far as their share goes.
        if arrival.is_remembered() || self.hot < self.frames - self.share && self.evictions.none() {
            self.lists.raise(frame.0, HOT);
            self.hot += 1;
            self.run_hot(&mut |_| false);
        } else {
            self.lists.raise(frame.0, TEST | FRESH);
            self.colds.push_back(COLDS, frame.0);
        }
    }

    fn touch(&mut self, frame: FrameIx) {
        if frame.0 < self.frames {
            self.lists.raise(frame.0, REFERENCED);
        }
    }

    fn victim(&mut self, bits: &mut impl AccessedBits) -> Option<Victim> {
        looks::victim(self, bits)
    }

    fn remove(&mut self, frame: FrameIx) {
        if !self.contains(frame) {
            return;
        }
        self.hot -= u32::from(self.lists.has(frame.0, HOT));
        self.step_aside(frame.0);
        self.lists.unlink(frame.0);
        self.colds.unlink(frame.0);
    }

    fn contains(&self, frame: FrameIx) -> bool {
        frame.0 < self.frames && self.lists.is_on(CLOCK, frame.0)
    }

    fn len(&self) -> u32 {
        self.hot + self.cold()
    }

    fn ghosts(&self) -> u32 {
        self.ghosts
    }
}
