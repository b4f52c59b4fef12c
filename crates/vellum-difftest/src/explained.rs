//! Differences that are known, by name, each with its reason: a sequence is compared up to the first of
//! them, and no further. docs/posix.md has the same list.

use crate::compare::Difference;
use crate::trace::Trace;

/// A difference that is known.
#[derive(Clone, Copy, Debug)]
pub struct Explained {
    /// What it is called.
    pub name: &'static str,
    /// Why it is there, and stays.
    pub reason: &'static str,
    /// Whether this is it, of a run whose first subject shows this.
    pub applies: fn(&Trace, &Difference) -> bool,
}

/// All of them.
pub const EXPLAINED: &[Explained] = &[Explained {
    name: "dirty for all who map it",
    reason: "A leaf that is dirty stays so on Linux when it is moved, and a child's copy of one of shared \
             memory is clean; its page is not dirty before the leaf goes. Ours notes it in the page \
             when it is moved, for another processor may store meanwhile, and copies leaves as they \
             are: so another mapping of the same page shows it as dirty sooner.",
    applies: |_, difference| {
        let kib = |text: &str| text.parse::<u64>().ok();
        let (left, right) = (kib(&difference.left), kib(&difference.right));
        difference.aspect == "dirty" && left.zip(right).is_some_and(|(left, right)| left < right)
    },
}];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Moment;

    #[test]
    fn more_dirty_pages_are_explained_and_fewer_are_not() {
        let difference = |aspect: &str, left: &str, right: &str| Difference {
            process: 0,
            moment: Moment::Between,
            aspect: aspect.into(),
            left: left.into(),
            right: right.into(),
        };
        let explained = |difference: Difference| {
            EXPLAINED.iter().any(|one| (one.applies)(&Trace::default(), &difference))
        };
        assert!(explained(difference("dirty", "8", "12")));
        assert!(!explained(difference("dirty", "12", "8")));
        assert!(!explained(difference("rss", "8", "12")));
    }
}
