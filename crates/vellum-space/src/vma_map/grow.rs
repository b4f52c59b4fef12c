//! Putting a region in: splits, from the leaf up.
//!
//! ```text
//!   full leaf       | a b c d e f g h |     + x        at least LEAST stay on each side, and the split
//!                                                      is where x goes, if it can be
//!   in the middle   | a b c x |  | d e f g h |
//!   last of all     | a b c d e f g h |  | x |         the map is built upwards: leaves stay full
//!   first of all    | x |  | a b c d e f g h |         or downwards
//! ```
//!
//! [`make_room`](VmaMap::make_room) takes all memory that this needs before anything is changed.

use super::descend::{MOST_LEVELS, Path};
use super::node::{Inner, LEAST, Leaf, Node, Summary, WIDTH};
use super::{PageRange, VmaMap, VmaMapError};
use vellum_core::{Memory, OutOfFrames};

/// How many places the left one of two nodes keeps when a full one is split for a new place `at`.
fn keep(at: usize, path: &Path) -> usize {
    if (at == WIDTH && path.is_right) || (at == 0 && path.is_left) {
        at
    } else {
        at.clamp(LEAST, WIDTH - LEAST)
    }
}

impl<V: Copy, M: Memory> VmaMap<V, M> {
    /// Makes a leaf of the first region.
    pub(super) fn insert_first(&mut self, range: PageRange, value: V) -> Result<(), VmaMapError> {
        let leaf = Leaf::new(range, value);
        let summary = leaf.summary();
        self.root = self.leaves.insert(leaf)?;
        self.height = 0;
        self.all = summary;
        self.len = 1;
        Ok(())
    }

    /// Takes the memory that it needs to put a region at the end of this path.
    pub(super) fn make_room(&mut self, path: &Path) -> Result<(), VmaMapError> {
        let is_full = |len: Option<usize>| len.is_none_or(|len| len >= WIDTH);
        if !is_full(self.leaves.with(path.leaf, Node::len)) {
            return Ok(());
        }
        let steps = path.steps.iter().take(self.height).rev();
        let full = steps.take_while(|step| is_full(self.inners.with(step.node, Node::len))).count();
        let needs_root = full == self.height;
        if needs_root && self.height == MOST_LEVELS {
            return Err(OutOfFrames { order: 0 }.into());
        }
        self.leaves.reserve(1)?;
        self.inners.reserve(full as u32 + u32::from(needs_root))?;
        Ok(())
    }

    /// Puts a region at the end of a path for which room was made.
    pub(super) fn insert_at(&mut self, path: &Path, range: PageRange, value: V) {
        let keep = keep(path.at, path);
        let at = path.at;
        let done = self.leaves.with_mut(path.leaf, |leaf| {
            if leaf.len() < WIDTH {
                leaf.insert(at, range, value);
                return (leaf.summary(), None);
            }
            let mut right = leaf.split(keep);
            // What goes between the two goes to the shorter one.
            if at < keep || (at == keep && keep <= WIDTH / 2) {
                leaf.insert(at, range, value);
            } else {
                right.insert(at - keep, range, value);
            }
            (leaf.summary(), Some(right))
        });
        let Some((summary, right)) = done else { return };
        self.len += 1;
        match right {
            None => self.refresh(path, self.height, summary),
            Some(leaf) => {
                let of_right = leaf.summary();
                // Never refused: room was made.
                if let Ok(right) = self.leaves.insert(leaf) {
                    self.link(path, summary, (right, of_right));
                }
            }
        }
    }

    /// Tells the inner nodes of a path that their child on it is this now, and has a neighbour.
    fn link(&mut self, path: &Path, mut left: Summary, mut right: (u32, Summary)) {
        for level in (0..self.height).rev() {
            let Some(step) = path.steps.get(level) else { return };
            let (at, added) = (step.at, right);
            let done = self.inners.with_mut(step.node, |inner| {
                inner.set(at, left);
                if inner.len() < WIDTH {
                    inner.insert(at + 1, added);
                    (inner.summary(), None)
                } else {
                    let other = split_inner(inner, at, added, path);
                    (inner.summary(), Some(other))
                }
            });
            match done {
                None => return,
                Some((summary, None)) => return self.refresh(path, level, summary),
                Some((summary, Some(other))) => {
                    let of_other = other.summary();
                    // Never refused: room was made.
                    let Ok(other) = self.inners.insert(other) else { return };
                    (left, right) = (summary, (other, of_other));
                }
            }
        }
        let root = Inner::new((self.root, left), right);
        let summary = root.summary();
        if let Ok(root) = self.inners.insert(root) {
            self.root = root;
            self.height += 1;
            self.all = summary;
        }
    }

    /// Tells the inner nodes of a path, from `level` up, what their child on it says now.
    pub(super) fn refresh(&mut self, path: &Path, level: usize, mut summary: Summary) {
        for step in path.steps.iter().take(level).rev() {
            let above = self.inners.with_mut(step.node, |inner| {
                if inner.of(step.at) == summary {
                    return None;
                }
                inner.set(step.at, summary);
                Some(inner.summary())
            });
            match above {
                Some(Some(above)) => summary = above,
                _ => return,
            }
        }
        self.all = summary;
    }

    /// Gives the region at the end of a path another range; the order stays as it is.
    pub(super) fn set_range(&mut self, path: &Path, range: PageRange) {
        let summary = self.leaves.with_mut(path.leaf, |leaf| {
            leaf.set_range(path.at, range);
            leaf.summary()
        });
        if let Some(summary) = summary {
            self.refresh(path, self.height, summary);
        }
    }

    /// The same, and another value.
    pub(super) fn set(&mut self, path: &Path, range: PageRange, value: V) {
        self.leaves.with_mut(path.leaf, |leaf| *leaf.value_mut(path.at) = value);
        self.set_range(path, range);
    }
}

/// Splits a full inner node of a path for a child behind the place `at`; the right one.
fn split_inner(inner: &mut Inner, at: usize, added: (u32, Summary), path: &Path) -> Inner {
    // At the left edge the child at place 0 is the one that is new, and stays alone.
    let keep = if at == 0 && path.is_left && path.at == 0 { 1 } else { keep(at + 1, path) };
    let mut right = inner.split(keep);
    if at + 1 < keep || (at + 1 == keep && keep < WIDTH && keep > 1 && keep <= WIDTH / 2) {
        inner.insert(at + 1, added);
    } else {
        right.insert(at + 1 - keep, added);
    }
    right
}
