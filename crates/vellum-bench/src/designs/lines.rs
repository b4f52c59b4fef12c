//! Cache lines that a hardware walker would read, as each design's walk reports them.
//!
//! Locks and versions are software's, and are not among them. A peer has no walker, and no figure.

use super::map::{self, Map, Visit};
use super::rows::Pages;

/// Lines of a hit and of a miss, by contender.
pub(super) fn all(pages: &Pages) -> Vec<(&'static str, [f64; 2])> {
    struct Lines<'a>(&'a Pages, Vec<(&'static str, [f64; 2])>);
    impl Visit for Lines<'_> {
        fn visit<M: Map>(&mut self) {
            self.1.extend(self.0.lines::<M>().map(|lines| (M::NAME, lines)));
        }
    }
    let mut lines = Lines(pages, Vec::new());
    map::all(&mut lines);
    lines.1
}
