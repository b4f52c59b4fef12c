//! [`FreeRuns`]: the free memory in ascending order, the levels of the tree melted together.
//!
//! ```text
//!   level 1    |   .   |   1   |   .   |
//!   level 0    |....1111|........|11..1.1.|
//!   runs             [==============) [) [)
//! ```

use crate::access::Atomic;
use crate::allocator::addr;
use crate::tree::Tree;
use core::fmt;
use core::iter::FusedIterator;
use vellum_core::PhysAddr;

/// Runs of free frames, ascending: first address and count of frames. Made by
/// [`FrameAllocator::free_runs`](crate::FrameAllocator::free_runs).
#[derive(Clone)]
pub struct FreeRuns<'a> {
    tree: Option<&'a Tree<'a>>,
    /// Where to go on.
    at: u64,
    /// One more than the last frame.
    end: u64,
}

impl<'a> FreeRuns<'a> {
    pub(crate) fn new(tree: Option<&'a Tree<'a>>) -> Self {
        let (at, end) = tree.map_or((0, 0), |tree| tree.regions.bounds());
        Self { tree, at, end }
    }

    /// Goes on as long as frames are `free`, and returns where that ends.
    fn pass(&mut self, tree: &Tree<'_>, free: bool) -> u64 {
        while self.at < self.end {
            let (is_free, end) = tree.stretch::<Atomic>(self.at);
            if is_free != free {
                break;
            }
            self.at = end.min(self.end);
        }
        self.at
    }
}

impl Iterator for FreeRuns<'_> {
    type Item = (PhysAddr, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let tree = self.tree?;
        let first = self.pass(tree, false);
        let end = self.pass(tree, true);
        (first < end).then(|| (addr(first), end - first))
    }
}

impl FusedIterator for FreeRuns<'_> {}

impl fmt::Debug for FreeRuns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreeRuns").field("at", &addr(self.at)).finish_non_exhaustive()
    }
}
