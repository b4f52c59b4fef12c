//! Whether a map is as its invariants say; for tests.

use super::node::{LEAST, Node, Summary, WIDTH};
use super::{PageRange, VmaMap};
use core::fmt::Debug;
use std::vec::Vec;
use vellum_core::Memory;

impl<V: Copy + Debug, M: Memory> VmaMap<V, M> {
    /// Checks every node, and what is said of it above.
    ///
    /// # Panics
    ///
    /// When something is not as it should be.
    pub(crate) fn check(&self) {
        if self.len == 0 {
            assert_eq!((self.leaves.len(), self.inners.len()), (0, 0), "nodes of nothing");
            assert_eq!(self.all, Summary::EMPTY);
            return;
        }
        let mut seen = Seen::default();
        let summary = self.check_node(self.root, self.height, [true; 2], &mut seen);
        assert_eq!(summary, self.all, "what the root says");
        assert_eq!(seen.regions.len() as u64, self.len, "regions");
        assert_eq!((seen.leaves, seen.inners), (self.leaves.len(), self.inners.len()), "nodes");
        assert!(seen.regions.iter().all(|&range| self.bounds.covers(range)), "bounds");
        let in_order = |pair: &[PageRange]| pair[0].end_page() <= pair[1].first_page();
        assert!(seen.regions.windows(2).all(in_order), "order: {:?}", seen.regions);
        let listed: Vec<_> = self.iter(PageRange::ALL).map(|(range, _)| range).collect();
        assert_eq!(listed, seen.regions, "iteration");
    }

    /// Checks a node and all below it; what it ought to say of itself.
    fn check_node(&self, node: u32, levels: usize, edges: [bool; 2], seen: &mut Seen) -> Summary {
        let fill = |len: usize| {
            let least = if edges == [false; 2] { LEAST } else { 1 };
            assert!((least..=WIDTH).contains(&len), "{len} places at the edges {edges:?}");
        };
        if levels == 0 {
            let regions = self.leaves.with(node, |leaf| {
                fill(leaf.len());
                (0..leaf.len()).map(|at| leaf.at(at).0).collect::<Vec<_>>()
            });
            let regions = regions.expect("a leaf");
            seen.leaves += 1;
            let gaps = regions.windows(2).map(|pair| pair[1].first_page() - pair[0].end_page());
            let summary = Summary {
                start: regions[0].first_page(),
                end: regions[regions.len() - 1].end_page(),
                gap: gaps.max().unwrap_or(0),
            };
            assert!(self.leaves.with(node, |leaf| leaf.is_padded()).unwrap(), "padding");
            seen.regions.extend(regions);
            return summary;
        }
        let inner = self.inners.with(node, |inner| *inner).expect("an inner node");
        let len = inner.len();
        fill(len);
        seen.inners += 1;
        assert!(inner.is_padded(), "padding");
        let mut summary = Summary::EMPTY;
        for at in 0..len {
            let of = inner.of(at);
            let below = [edges[0] && at == 0, edges[1] && at + 1 == len];
            let found = self.check_node(inner.child(at), levels - 1, below, seen);
            assert_eq!(found, of, "what is said of child {at} of {len}");
            if at == 0 {
                summary = of;
            } else {
                assert!(summary.end <= of.start, "order of children");
                let between = of.start - summary.end;
                summary.gap = summary.gap.max(of.gap).max(between);
                summary.end = of.end;
            }
        }
        summary
    }
}

#[derive(Default)]
struct Seen {
    regions: Vec<PageRange>,
    leaves: u32,
    inners: u32,
}
