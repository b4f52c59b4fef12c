//! Instructions of each act, counted by valgrind.
//!
//! ```text
//!   designs --pairs random:chained 0      make ready                        n0
//!   designs --pairs random:chained 1      make ready, insert                n1     (n1 - n0) / pages
//!   designs --pairs random:chained 2      make ready, insert, hit           n2     (n2 - n1) / look-ups
//!   ...                                   and so on, to the deletions
//! ```

use super::map::{self, Map, Visit};
use super::rows::{Act, Order, Pages};
use crate::callgrind::collected;
use std::path::Path;

/// How many pages are counted: past the first few doublings of everything.
pub(super) const PAGES: usize = 1 << 14;

/// A contender, and its pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) order: Order,
    pub(super) name: &'static str,
}

/// The names of all contenders.
pub(super) fn names() -> Vec<&'static str> {
    struct Names(Vec<&'static str>);
    impl Visit for Names {
        fn visit<M: Map>(&mut self) {
            self.0.push(M::NAME);
        }
    }
    let mut names = Names(Vec::new());
    map::all(&mut names);
    names.0
}

impl Counted {
    /// As the child takes it.
    pub(super) fn word(self) -> String {
        format!("{}:{}", self.order.name(), self.name)
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        let (order, name) = word.split_once(':')?;
        let order = Order::ALL.into_iter().find(|found| found.name() == order)?;
        let name = names().into_iter().find(|&found| found == name)?;
        Some(Self { order, name })
    }

    /// Instructions for each page, of each of [`Act::ALL`]; `program` is this program.
    pub(super) fn per_page(self, program: &Path) -> Result<Vec<f64>, String> {
        let word = self.word();
        let counts: Result<Vec<u64>, String> =
            (0..=Act::ALL.len() as u64).map(|acts| collected(program, &word, acts)).collect();
        let counts = counts?;
        let pages = Pages::new(self.order, PAGES).counts();
        let each = counts.windows(2).zip(pages);
        Ok(each.map(|(pair, pages)| (pair[1] as f64 - pair[0] as f64) / pages as f64).collect())
    }
}

/// Runs the first `acts` acts of a turn; then the process ends, so that nothing else is counted.
///
/// # Errors
///
/// The line to say when there is no such contender, or no such number.
pub(super) fn child(word: &str, acts: &str) -> Result<(), String> {
    struct Turn<'a>(Counted, usize, &'a Pages);
    impl Visit for Turn<'_> {
        fn visit<M: Map>(&mut self) {
            if M::NAME != self.0.name {
                return;
            }
            let mut left = self.1;
            self.2.turn::<M>(&mut |act| {
                if left == 0 {
                    std::process::exit(0);
                }
                left -= 1;
                act();
            });
            std::process::exit(0);
        }
    }
    let acts: usize = acts.parse().map_err(|_| format!("`{acts}` is no number"))?;
    let counted = Counted::parse(word).ok_or_else(|| format!("nobody is called `{word}`"))?;
    let pages = Pages::new(counted.order, PAGES);
    map::all(&mut Turn(counted, acts, &pages));
    Err(format!("`{word}` cannot be done"))
}
