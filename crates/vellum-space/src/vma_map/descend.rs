//! The way from the root to a region, and to those beside it.
//!
//! ```text
//!   steps[0]            [ . | X | . ]           X: the place that was taken
//!                         /   |
//!   steps[1]     [ . | . ]  [ X | . ]
//!                     |       |
//!   leaf, at      | ... B |  | A | . |          B, before A: up while the place is the first, then
//!                                               one to the left, and down at the right edge
//! ```
//!
//! Leaves have no links to their neighbours: they would have to be kept, while only one look in 16 to
//! the side needs another leaf.

use super::node::{Node, WIDTH};
use super::{Region, VmaMap};
use vellum_core::Memory;

/// More levels than nodes of 32-bit names can make, with [`LEAST`](super::node::LEAST) children each
/// but for those at the edges.
pub(super) const MOST_LEVELS: usize = 14;

/// An inner node, and one of its places.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    pub(super) node: u32,
    pub(super) at: usize,
}

/// The way to a place in a leaf; the place may be behind the last region of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path {
    pub(super) steps: [Step; MOST_LEVELS],
    pub(super) leaf: u32,
    pub(super) at: usize,
    /// Whether each step is the first place, or the last.
    pub(super) is_left: bool,
    pub(super) is_right: bool,
}

impl Path {
    /// To the place behind, in the same leaf.
    pub(super) fn behind(mut self) -> Self {
        self.at += 1;
        self
    }
}

impl<V: Copy, M: Memory> VmaMap<V, M> {
    /// The first region that ends after `page`.
    #[inline(always)]
    pub(super) fn after(&self, page: u64) -> Option<Region<V>> {
        let leaf = self.leaf_with(page)?;
        self.leaves.with(leaf, |leaf| leaf.at(leaf.find(page)))
    }

    /// The leaf of that region.
    #[inline(always)]
    pub(super) fn leaf_with(&self, page: u64) -> Option<u32> {
        if page >= self.all.end {
            return None;
        }
        let mut node = self.root;
        for _ in 0..self.height {
            node = self.inners.with(node, |inner| inner.child(inner.find(page)))?;
        }
        Some(node)
    }

    /// The way to the first region that ends after `page`, or behind the last region; `None` in a map
    /// without regions.
    pub(super) fn locate(&self, page: u64) -> Option<Path> {
        if self.len == 0 {
            return None;
        }
        let mut steps = [Step::default(); MOST_LEVELS];
        let (mut node, mut is_left, mut is_right) = (self.root, true, true);
        for step in steps.iter_mut().take(self.height) {
            let (at, len, child) = self.inners.with(node, |inner| {
                let at = inner.find(page).min(inner.len() - 1);
                (at, inner.len(), inner.child(at))
            })?;
            *step = Step { node, at };
            is_left &= at == 0;
            is_right &= at + 1 == len;
            node = child;
        }
        let at = self.leaves.with(node, |leaf| leaf.position(page))?;
        Some(Path { steps, leaf: node, at, is_left, is_right })
    }

    /// The region that a path leads to, if there is one.
    pub(super) fn region(&self, path: &Path) -> Option<Region<V>> {
        self.leaves.with(path.leaf, |leaf| leaf.get(path.at))?
    }

    /// The region before the place that a path leads to.
    pub(super) fn before(&self, path: &Path) -> Option<Region<V>> {
        if let Some(at) = path.at.checked_sub(1) {
            return self.leaves.with(path.leaf, |leaf| leaf.get(at))?;
        }
        let ways = path.steps.iter().take(self.height).enumerate();
        let (level, step) = ways.rev().find(|(_, step)| step.at > 0)?;
        let node = self.inners.with(step.node, |inner| inner.child(step.at - 1))?;
        self.last_below(node, self.height - 1 - level)
    }

    /// The first region below a node that has `levels` of inner nodes, itself among them.
    pub(super) fn first_below(&self, mut node: u32, levels: usize) -> Option<Region<V>> {
        for _ in 0..levels {
            node = self.inners.with(node, |inner| inner.child(0))?;
        }
        self.leaves.with(node, |leaf| leaf.get(0))?
    }

    /// The last region below such a node.
    fn last_below(&self, mut node: u32, levels: usize) -> Option<Region<V>> {
        for _ in 0..levels {
            node = self.inners.with(node, |inner| inner.child(inner.len() - 1))?;
        }
        self.leaves.with(node, |leaf| leaf.get(leaf.len().min(WIDTH) - 1))?
    }
}
