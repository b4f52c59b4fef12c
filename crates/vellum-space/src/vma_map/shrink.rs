//! Taking regions out: nodes that have become too small are put together, from the leaf up.
//!
//! ```text
//!   fewer than LEAST, and a neighbour under the same parent:
//!
//!   | a b | | c d e f |     all fit one node     | a b c d e f |          the parent loses a child
//!   | a b | | c ... p |     they do not          | a b c .. |  | .. p |   both have half
//!
//!   no neighbour: at an edge, where nodes may be small; but an empty one goes
//! ```

use super::VmaMap;
use super::descend::Path;
use super::node::{LEAST, Node, Summary, WIDTH};
use vellum_core::Memory;
use vellum_frame::slab::Slab;

/// Makes one node of two neighbours if they fit, or else makes them equally long; what the left one
/// says now, and the right one, if it is still there.
fn join<N: Node, M: Memory>(
    nodes: &mut Slab<N, M>,
    left: u32,
    right: u32,
) -> Option<(Summary, Option<Summary>)> {
    let joined = nodes.with_pair(left, right, |a, b| {
        let (first, second) = (a.len(), b.len());
        if first + second <= WIDTH {
            a.take_right(b, second);
            return (a.summary(), None);
        }
        let half = (first + second) / 2;
        if first < half {
            a.take_right(b, half - first);
        } else {
            a.give_right(b, first - half);
        }
        (a.summary(), Some(b.summary()))
    })?;
    if joined.1.is_none() {
        nodes.remove(right);
    }
    Some(joined)
}

impl<V: Copy, M: Memory> VmaMap<V, M> {
    /// Takes out the region at the end of a path, and so many in all, of the same leaf.
    pub(super) fn take(&mut self, path: &Path<V>, count: usize) {
        let at = path.at;
        let left = self.leaves.with_mut(path.leaf, |leaf| {
            leaf.remove(at, count);
            let summary = path.gap.map(|gap| leaf.summary_removed(at, gap));
            (leaf.len(), summary.unwrap_or_else(|| leaf.summary()))
        });
        let Some((len, summary)) = left else { return };
        self.len -= count as u64;
        if len >= LEAST || (self.height == 0 && len > 0) {
            self.refresh(path, self.height, summary);
        } else {
            self.mend(path, len, summary);
            self.lower();
        }
    }

    /// Puts the leaf of a path, which has become too small, together with a neighbour, and so on up.
    #[inline(never)]
    fn mend(&mut self, path: &Path<V>, mut len: usize, mut summary: Summary) {
        for level in (0..self.height).rev() {
            let Some(step) = path.steps.get(level) else { return };
            let is_leaf = level + 1 == self.height;
            let look = self.inners.with(step.node, |parent| {
                let at = step.at as usize;
                let left = if at + 1 < parent.len() { at } else { at.saturating_sub(1) };
                (parent.len(), left, parent.child(left), parent.child(left + 1))
            });
            let Some((children, at, left, right)) = look else { return };
            let joined = match children {
                1 => None,
                _ if is_leaf => join(&mut self.leaves, left, right),
                _ => join(&mut self.inners, left, right),
            };
            if joined.is_none() && len == 0 {
                if is_leaf {
                    let _ = self.leaves.remove(left);
                } else {
                    let _ = self.inners.remove(left);
                }
            }
            let done = self.inners.with_mut(step.node, |parent| {
                match joined {
                    Some((first, Some(second))) => {
                        parent.set(at, first);
                        parent.set(at + 1, second);
                    }
                    Some((first, None)) => {
                        parent.set(at, first);
                        parent.remove(at + 1, 1);
                    }
                    None if len == 0 => parent.remove(at, 1),
                    None => parent.set(at, summary),
                }
                (parent.len(), parent.summary())
            });
            let Some(above) = done else { return };
            (len, summary) = above;
            if len >= LEAST {
                return self.refresh(path, level, summary);
            }
        }
        self.all = summary;
    }

    /// Takes away roots that lead to one child, or to nothing.
    fn lower(&mut self) {
        if self.len == 0 {
            // All below went with `mend`; what is left is the root.
            if self.height == 0 {
                self.leaves.remove(self.root);
            } else {
                self.inners.remove(self.root);
            }
            self.height = 0;
            self.all = Summary::EMPTY;
            return;
        }
        while self.height > 0 {
            let root = self.root;
            let only = self.inners.with(root, |inner| (inner.len() == 1).then(|| inner.child(0)));
            let Some(Some(child)) = only else { return };
            self.inners.remove(root);
            self.root = child;
            self.height -= 1;
        }
    }
}
