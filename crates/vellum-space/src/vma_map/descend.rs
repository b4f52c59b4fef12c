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

/// The most levels of inner nodes: ten of them have more than 10<sup>8</sup> regions below them, even
/// if every node has but [`LEAST`](super::node::LEAST) places in use.
pub(super) const MOST_LEVELS: usize = 10;

/// An inner node, one of its places, and the largest gap that is said to be below it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    pub(super) gap: u64,
    pub(super) node: u32,
    pub(super) at: u32,
}

/// The way to a place in a leaf; the place may be behind the last region of all.
#[derive(Clone, Copy, Debug)]
pub(super) struct Path<V> {
    pub(super) steps: [Step; MOST_LEVELS],
    pub(super) leaf: u32,
    pub(super) at: usize,
    /// The region there.
    pub(super) region: Option<Region<V>>,
    /// The largest gap of the leaf; `None` when that has changed since.
    pub(super) gap: Option<u64>,
    /// How many nodes are full, from the leaf up.
    pub(super) full: usize,
    /// Whether each step is the first place, or the last.
    pub(super) is_left: bool,
    pub(super) is_right: bool,
}

impl<V> Path<V> {
    /// To nowhere; [`VmaMap::locate`] leads it somewhere. It is filled in place, since it is too long to
    /// be handed around.
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self {
            steps: [Step::default(); MOST_LEVELS],
            leaf: 0,
            at: 0,
            region: None,
            gap: None,
            full: 0,
            is_left: true,
            is_right: true,
        }
    }

    /// To the place behind, in the same leaf, which has changed.
    pub(super) fn step_behind(&mut self) {
        self.at += 1;
        self.gap = None;
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

    /// Leads a new path to the first region that ends after `page`, or behind the last region; `None` in
    /// a map without regions.
    #[inline(always)]
    pub(super) fn locate(&self, page: u64, path: &mut Path<V>) -> Option<()> {
        if self.len == 0 {
            return None;
        }
        let (mut node, mut gap) = (self.root, self.all.gap);
        for level in 0..self.height {
            let (at, len, child, below) = self.inners.with(node, |inner| {
                let at = inner.find(page).min(inner.len().wrapping_sub(1));
                (at, inner.len(), inner.child(at), inner.of(at).gap)
            })?;
            *path.steps.get_mut(level)? = Step { gap, node, at: at as u32 };
            path.full = if len < WIDTH { 0 } else { path.full + 1 };
            path.is_left &= at == 0;
            path.is_right &= at + 1 == len;
            (node, gap) = (child, below);
        }
        let (at, len, region) = self.leaves.with(node, |leaf| {
            let at = leaf.position(page);
            (at, leaf.len(), leaf.get(at))
        })?;
        path.full = if len < WIDTH { 0 } else { path.full + 1 };
        (path.leaf, path.at, path.region, path.gap) = (node, at, region, Some(gap));
        Some(())
    }

    /// The region before the place that a path leads to.
    pub(super) fn before(&self, path: &Path<V>) -> Option<Region<V>> {
        if let Some(at) = path.at.checked_sub(1) {
            return self.leaves.with(path.leaf, |leaf| leaf.get(at))?;
        }
        let ways = path.steps.iter().take(self.height).enumerate();
        let (level, step) = ways.rev().find(|(_, step)| step.at > 0)?;
        let node = self.inners.with(step.node, |inner| inner.child(step.at as usize - 1))?;
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
            node = self.inners.with(node, |inner| inner.child(inner.len().wrapping_sub(1)))?;
        }
        self.leaves.with(node, |leaf| leaf.get(leaf.len().wrapping_sub(1)))?
    }
}
