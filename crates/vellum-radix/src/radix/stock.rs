//! Nodes set aside for the fault path.

use super::node;
use crate::MAX_DEPTH;
use crate::format::Format;
use arrayvec::ArrayVec;
use core::fmt;
use core::marker::PhantomData;
use vellum_core::{Memory, OutOfFrames, PhysAddr};

/// Nodes set aside for one `replace`: at most one for each level below the root.
pub struct Stock<F: Format, M: Memory> {
    pub(super) mem: M,
    /// Each with its level; levels may differ in size.
    nodes: ArrayVec<(usize, PhysAddr), MAX_DEPTH>,
    format: PhantomData<fn() -> F>,
}

impl<F: Format, M: Memory> Stock<F, M> {
    pub(super) const fn new(mem: M) -> Self {
        Self { mem, nodes: ArrayVec::new_const(), format: PhantomData }
    }

    /// Whether there is a node for each of these levels.
    pub(super) fn has(&self, depths: core::ops::RangeInclusive<usize>) -> bool {
        depths.into_iter().all(|depth| self.node(depth).is_some())
    }

    /// A node for level `depth`, which stays in the stock.
    pub(super) fn node(&self, depth: usize) -> Option<PhysAddr> {
        self.nodes.iter().find(|&&(d, _)| d == depth).map(|&(_, pa)| pa)
    }

    /// Takes out the node for level `depth`: it is linked now.
    pub(super) fn spend(&mut self, depth: usize) {
        self.nodes.retain(|&mut (d, _)| d != depth);
    }

    /// Adds what is missing for these levels.
    pub(super) fn fill(
        &mut self,
        depths: core::ops::RangeInclusive<usize>,
    ) -> Result<(), OutOfFrames> {
        for depth in depths {
            if self.node(depth).is_none() && !self.nodes.is_full() {
                self.nodes.push((depth, node::alloc_empty::<F, M>(&self.mem, depth)?));
            }
        }
        Ok(())
    }
}

impl<F: Format, M: Memory> Drop for Stock<F, M> {
    #[inline]
    fn drop(&mut self) {
        if !self.nodes.is_empty() {
            self.give_back();
        }
    }
}

impl<F: Format, M: Memory> Stock<F, M> {
    #[cold]
    fn give_back(&mut self) {
        for (depth, pa) in self.nodes.drain(..) {
            // SAFETY: taken for this level in `fill`, and linked nowhere, or it would have left the
            // stock.
            unsafe { node::free::<F, M>(&self.mem, pa, depth) };
        }
    }
}

impl<F: Format, M: Memory> fmt::Debug for Stock<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stock({} nodes)", self.nodes.len())
    }
}
