//! A change of one line: under the stripe of its home's region alone, wherever that is enough.
//!
//! ```text
//!        region r, held                    r + 1
//!   | . A H x C . . . . . . D E F |   | G . . .
//!         ^home   ^ ends here             ^ H' from F on would: all regions up to there are held
//! ```
//!
//! Lines that move do so within what is held. One of a home in the region before, which is not held,
//! may be among them: a look-up from there has found the region before full to its end, and that
//! current when it came here, so it finds the line wherever in this region that is.

use super::lines::home_of;
use super::probe::Window;
use super::{Line8, ZEROS};
use crate::line::{Line, Tag};
use core::sync::atomic::Ordering;
use vellum_core::{Memory, Need};

/// What an update says: its result, and whether it wants a line with that entry in that slot where
/// there is none.
type Wish<R> = (R, Option<(usize, u64)>);

/// What is asked for a line, or for what there is in place of one.
trait Update<R> {
    /// Called once at most; whoever calls it is done.
    fn apply(&mut self, line: Option<&Line>) -> Wish<R>;
    /// What an update comes to whose line lacks this.
    fn refuse(&mut self, need: Need) -> R;
}

impl<R, F: FnMut(Option<&Line>) -> Wish<R>, L: FnMut(Need) -> R> Update<R> for (F, L) {
    #[inline]
    fn apply(&mut self, line: Option<&Line>) -> Wish<R> {
        (self.0)(line)
    }

    fn refuse(&mut self, need: Need) -> R {
        (self.1)(need)
    }
}

/// What became of an update, once the line was looked for under its stripes.
enum Outcome<R> {
    /// It has to be looked for elsewhere, or again.
    Again,
    Done(R, After),
}

/// What is left to do after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Nothing,
    /// There is a line more.
    Added,
    /// There is a line less.
    Removed,
    /// The line has no entry left.
    Emptied,
}

impl<M: Memory, const ROBIN_HOOD: bool> Line8<M, ROBIN_HOOD> {
    /// Changes the line of `tag`: `f` gets it, or `None` where there is none and one more would not
    /// be refused. What `f` returns, and whether it wants the new line with that entry.
    #[inline]
    pub(super) fn change<R>(
        &self,
        tag: Tag,
        f: impl FnMut(Option<&Line>) -> Wish<R>,
        lacking: impl FnMut(Need) -> R,
    ) -> R {
        let mut update = (f, lacking);
        let (result, after) = match self.change_near(tag, &mut update) {
            Outcome::Done(result, after) => (result, after),
            Outcome::Again => self.change_far(tag, &mut update),
        };
        match after {
            After::Nothing => {}
            After::Added => {
                self.used.fetch_add(1, Ordering::Relaxed);
                self.grow(super::STEPS);
            }
            After::Removed => _ = self.used.fetch_sub(1, Ordering::Relaxed),
            After::Emptied => self.remove_empty(tag),
        }
        result
    }

    /// The same within the region of the line's home.
    #[inline]
    fn change_near<R>(&self, tag: Tag, update: &mut impl Update<R>) -> Outcome<R> {
        let hash = tag.hash(0);
        loop {
            let home = home_of(hash, self.lines.homes());
            let _held = self.stripes.hold(self.region(home));
            let n = self.lines.homes();
            if home_of(hash, n) == home {
                return self
                    .lines
                    .with_rest(home, |lines| self.change_among(lines, home, n, tag, update));
            }
        }
    }

    /// The same among the lines from home to the end of the region, by who holds that.
    #[inline]
    fn change_among<R>(
        &self,
        lines: &[Line],
        home: u64,
        n: u64,
        tag: Tag,
        update: &mut impl Update<R>,
    ) -> Outcome<R> {
        for (steps, line) in lines.iter().enumerate() {
            if line.is(tag) {
                let (result, _) = update.apply(Some(line));
                let after = match line.is_empty() {
                    false => After::Nothing,
                    true if self.remove_among(lines, home, steps, n) => After::Removed,
                    true => After::Emptied,
                };
                return Outcome::Done(result, after);
            }
            if !line.is_used() {
                let (result, wanted) = update.apply(None);
                let Some((slot, raw)) = wanted else {
                    return Outcome::Done(result, After::Nothing);
                };
                if let Some(need) = self.lacks() {
                    return Outcome::Done(update.refuse(need), After::Nothing);
                }
                let richer = if ROBIN_HOOD { self.make_way(lines, home, steps, n) } else { None };
                let place = richer.unwrap_or(line);
                place.claim(tag);
                place.set_entry(slot, raw);
                return Outcome::Done(result, After::Added);
            }
        }
        Outcome::Again
    }

    /// The same where it takes several regions.
    #[cold]
    fn change_far<R>(&self, tag: Tag, update: &mut impl Update<R>) -> (R, After) {
        let hash = tag.hash(0);
        loop {
            let home = home_of(hash, self.lines.homes());
            let window = self.window(home, |line| line.is(tag) || !line.is_used());
            let outcome = self.under([window], || {
                if home_of(hash, self.lines.homes()) != home {
                    return Outcome::Again;
                }
                self.change_held(window, tag, update)
            });
            if let Outcome::Done(result, after) = outcome {
                return (result, after);
            }
        }
    }

    /// The same by the holder of the window.
    fn change_held<R>(&self, window: Window, tag: Tag, update: &mut impl Update<R>) -> Outcome<R> {
        for steps in 0..window.len {
            let found = self.lines.with(self.lines.after(window.home, steps), |line| {
                if line.is(tag) {
                    let (result, _) = update.apply(Some(line));
                    let after = if line.is_empty() { After::Emptied } else { After::Nothing };
                    return Some(Outcome::Done(result, after));
                }
                (!line.is_used()).then_some(Outcome::Again)
            });
            match found {
                None => {}
                Some(Outcome::Again) => return self.add_held(window, steps, tag, update),
                Some(done) => return done,
            }
        }
        if window.len < self.most(window.home) {
            return Outcome::Again;
        }
        // Every place that it could have is another line's.
        let (result, wanted) = update.apply(None);
        let result = if wanted.is_some() { update.refuse(self.room()) } else { result };
        Outcome::Done(result, After::Nothing)
    }

    /// Adds a line, if it is wanted, to a window whose first unused place is `steps` from home.
    fn add_held<R>(
        &self,
        window: Window,
        steps: u64,
        tag: Tag,
        update: &mut impl Update<R>,
    ) -> Outcome<R> {
        let (result, wanted) = update.apply(None);
        let Some((slot, raw)) = wanted else {
            return Outcome::Done(result, After::Nothing);
        };
        // What is near is usable; here a full stretch may lead on to where nothing is zeroed behind.
        let unusable = (steps >= self.lines.usable(window.home)).then_some(ZEROS);
        if let Some(need) = self.lacks().or(unusable) {
            return Outcome::Done(update.refuse(need), After::Nothing);
        }
        self.insert(window.home, steps, self.lines.homes(), |line| {
            line.claim(tag);
            line.set_entry(slot, raw);
        });
        Outcome::Done(result, After::Added)
    }
}
