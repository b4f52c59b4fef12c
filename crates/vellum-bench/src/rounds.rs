//! Contenders take turns; each keeps its best.
//!
//! ```text
//!   round 1    ours  peer  peer  peer          a burst of noise spoils a stretch of turns,
//!   round 2    ours  peer  peer  peer          not all turns of one contender
//!   ...        min   min   min   min   --> the figures
//! ```
//!
//! A contender that is so slow that its turns have used up its time sits out the further rounds.
//!
//! # Invariants
//!
//! - Every contender has at least two turns: the first one warms caches and faults pages in.

use core::fmt;
use core::time::Duration;
use std::time::Instant;

/// What a turn returns: the figures of a row, in the row's order. Less is better.
pub type Figures = Vec<f64>;

/// The turns that everybody gets.
const LEAST: u32 = 2;

/// One allocator, say, set up for one row.
pub struct Contender {
    /// Who it is.
    pub name: &'static str,
    turn: Box<dyn FnMut() -> Figures>,
    best: Figures,
    spent: Duration,
}

impl Contender {
    /// One that measures itself by `turn`.
    pub fn new(name: &'static str, turn: impl FnMut() -> Figures + 'static) -> Self {
        Self { name, turn: Box::new(turn), best: Figures::new(), spent: Duration::ZERO }
    }

    /// The least of each figure so far; empty before the first turn.
    #[must_use]
    pub fn best(&self) -> &[f64] {
        &self.best
    }

    fn take_turn(&mut self) {
        let start = Instant::now();
        let figures = (self.turn)();
        self.spent += start.elapsed();
        if self.best.is_empty() {
            self.best = figures;
        } else {
            for (best, figure) in self.best.iter_mut().zip(figures) {
                *best = best.min(figure);
            }
        }
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} after {:?}", self.name, self.best, self.spent)
    }
}

/// How long a contest may go on.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most rounds.
    pub rounds: u32,
    /// A contender whose turns took longer than that has no further one.
    pub each: Duration,
}

/// Goes round until the limits are reached; `tell` hears of each turn before it is taken.
pub fn contest(contenders: &mut [Contender], limits: Limits, mut tell: impl FnMut(u32, &str)) {
    for round in 0..limits.rounds.max(LEAST) {
        for contender in &mut *contenders {
            if round < LEAST || contender.spent < limits.each {
                tell(round, contender.name);
                contender.take_turn();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::RefCell;
    use std::rc::Rc;

    const LIMITS: Limits = Limits { rounds: 3, each: Duration::from_secs(3600) };

    #[test]
    fn each_figure_keeps_its_own_minimum() {
        let mut turns = vec![vec![3.0, 1.0], vec![1.0, 5.0], vec![2.0, 2.0]].into_iter();
        let mut contenders = [Contender::new("a", move || turns.next().unwrap())];
        contest(&mut contenders, LIMITS, |_, _| {});
        assert_eq!(contenders[0].best(), [1.0, 1.0]);
    }

    #[test]
    fn turns_are_interleaved() {
        let order = Rc::new(RefCell::new(String::new()));
        let contender = |name: &'static str| {
            let order = Rc::clone(&order);
            Contender::new(name, move || {
                *order.borrow_mut() += name;
                vec![0.0]
            })
        };
        contest(&mut [contender("a"), contender("b")], LIMITS, |_, _| {});
        assert_eq!(*order.borrow(), "ababab");
    }

    #[test]
    fn who_used_up_the_time_sits_out_but_has_had_two_turns() {
        let turns = Rc::new(RefCell::new([0; 2]));
        let counting = Rc::clone(&turns);
        let slow = Contender::new("slow", move || {
            counting.borrow_mut()[0] += 1;
            std::thread::sleep(Duration::from_millis(20));
            vec![0.0]
        });
        let counting = Rc::clone(&turns);
        let quick = Contender::new("quick", move || {
            counting.borrow_mut()[1] += 1;
            vec![0.0]
        });
        let limits = Limits { rounds: 5, each: Duration::from_millis(10) };
        contest(&mut [slow, quick], limits, |_, _| {});
        assert_eq!(turns.borrow()[0], 2);
        assert!(turns.borrow()[1] >= 2);
    }
}
