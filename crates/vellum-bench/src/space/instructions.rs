//! Instructions of each act, counted by valgrind.
//!
//! ```text
//!   space --pairs vellum:1000 0      make ready                         n0
//!   space --pairs vellum:1000 1      make ready, build                  n1     (n1 - n0) / regions
//!   space --pairs vellum:1000 2      make ready, build, find            n2     (n2 - n1) / look-ups
//!   ...                              and so on, to the pairs
//! ```

use super::map::{self, Map, Visit};
use super::rows::{Act, Regions};
use crate::callgrind::collected;
use std::path::Path;

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

/// Instructions of each of [`Act::ALL`], each time it is done; `None` for what it cannot do.
pub(super) fn each(
    name: &'static str,
    regions: &Regions,
    count: usize,
    program: &Path,
) -> Result<Vec<Option<f64>>, String> {
    struct Counts<'a>(&'static str, &'a Regions, [usize; 7], bool);
    impl Visit for Counts<'_> {
        fn visit<M: Map>(&mut self) {
            if M::NAME == self.0 {
                self.2 = self.1.counts::<M>();
                self.3 = M::new().highest(&[]).is_some();
            }
        }
    }
    let mut counts = Counts(name, regions, [0; 7], false);
    map::all(&mut counts);
    let word = format!("{name}:{count}");
    let totals: Result<Vec<u64>, String> =
        (0..=Act::ALL.len() as u64).map(|acts| collected(program, &word, acts)).collect();
    let totals = totals?;
    let each = totals.windows(2).zip(counts.2).zip(Act::ALL);
    Ok(each
        .map(|((pair, count), act)| {
            let per = (pair[1] as f64 - pair[0] as f64) / count as f64;
            (act != Act::High || counts.3).then_some(per)
        })
        .collect())
}

/// Runs the first `acts` acts of a turn; then the process ends, so that nothing else is counted.
///
/// # Errors
///
/// The line to say when there is no such contender, or no such number.
pub(super) fn child(word: &str, acts: &str) -> Result<(), String> {
    struct Turn<'a>(&'a str, usize, &'a Regions);
    impl Visit for Turn<'_> {
        fn visit<M: Map>(&mut self) {
            if M::NAME != self.0 {
                return;
            }
            let mut left = self.1;
            self.2.turn::<M>(&mut |act| {
                if left > 0 {
                    act();
                    left -= 1;
                }
                // At once: what a turn checks behind its last act is not to be counted.
                if left == 0 {
                    std::process::exit(0);
                }
            });
            std::process::exit(0);
        }
    }
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no number"));
    let acts: usize = number(acts)?;
    let (name, count) = word.split_once(':').ok_or_else(|| format!("`{word}` has no number"))?;
    if !names().contains(&name) {
        return Err(format!("nobody is called `{name}`"));
    }
    let regions = Regions::new(number(count)?.max(2));
    map::all(&mut Turn(name, acts, &regions));
    Err(format!("`{word}` cannot be done"))
}
