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
use super::{PageRange, Region, VmaMap, VmaMapError};
use vellum_core::{Memory, OutOfFrames};

/// How many places the left one of two nodes keeps when a full one is split for a new place `at`.
fn keep<V>(at: usize, path: &Path<V>) -> usize {
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
    pub(super) fn make_room(&mut self, path: &Path<V>) -> Result<(), VmaMapError> {
        // How many inner nodes are full besides, from the lowest up.
        let Some(full) = path.full.checked_sub(1) else { return Ok(()) };
        let needs_root = full == self.height;
        if needs_root && self.height == MOST_LEVELS {
            return Err(OutOfFrames { order: 0 }.into());
        }
        self.leaves.reserve(1)?;
        self.inners.reserve(full as u32 + u32::from(needs_root))?;
        Ok(())
    }

    /// Puts a region at the end of a path for which room was made.
    pub(super) fn insert_at(&mut self, path: &Path<V>, range: PageRange, value: V) {
        let (at, gap) = (path.at, path.gap);
        let done = self.leaves.with_mut(path.leaf, |leaf| {
            if leaf.len() < WIDTH {
                leaf.insert(at, range, value);
                let summary =
                    gap.map_or_else(|| leaf.summary(), |gap| leaf.summary_inserted(at, gap));
                return (summary, None);
            }
            let right = split_leaf(leaf, (range, value), path);
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
    fn link(&mut self, path: &Path<V>, mut left: Summary, mut right: (u32, Summary)) {
        for level in (0..self.height).rev() {
            let Some(step) = path.steps.get(level) else { return };
            let (at, added) = (step.at as usize, right);
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
    #[inline(always)]
    pub(super) fn refresh(&mut self, path: &Path<V>, level: usize, mut summary: Summary) {
        for level in (0..level).rev() {
            let Some(step) = path.steps.get(level) else { return };
            let above = self
                .inners
                .with_mut(step.node, |inner| inner.renew(step.at as usize, summary, step.gap));
            match above {
                Some(Some(above)) => summary = above,
                _ => return,
            }
        }
        self.all = summary;
    }

    /// Gives the region at the end of a path another range and value; the order stays as it is, and
    /// the path's gaps are not those of the map any more.
    pub(super) fn set(&mut self, path: &Path<V>, range: PageRange, value: V) {
        if let Some(summary) = self.set_leaf(path, range, value) {
            self.refresh(path, self.height, summary);
        }
    }

    /// The same in the leaf alone, before an insertion behind it; what the leaf says then.
    pub(super) fn set_leaf(
        &mut self,
        path: &Path<V>,
        range: PageRange,
        value: V,
    ) -> Option<Summary> {
        self.leaves.with_mut(path.leaf, |leaf| {
            leaf.set_range(path.at, range);
            *leaf.value_mut(path.at) = value;
            leaf.summary()
        })
    }
}

/// Splits a full leaf for a region at the place of a path; the right one.
#[inline(never)]
fn split_leaf<V: Copy>(leaf: &mut Leaf<V>, (range, value): Region<V>, path: &Path<V>) -> Leaf<V> {
    let (at, keep) = (path.at, keep(path.at, path));
    let mut right = leaf.split(keep);
    // What goes between the two goes to the shorter one.
    if at < keep || (at == keep && keep <= WIDTH / 2) {
        leaf.insert(at, range, value);
    } else {
        right.insert(at - keep, range, value);
    }
    right
}

/// Splits a full inner node of a path for a child behind the place `at`; the right one.
fn split_inner<V>(inner: &mut Inner, at: usize, added: (u32, Summary), path: &Path<V>) -> Inner {
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
