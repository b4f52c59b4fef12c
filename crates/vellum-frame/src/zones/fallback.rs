//! In which order a request tries the zones: for each node one list of all of them, made once.
//!
//! ```text
//!                     node 0              node 1          distances    0   1
//!   zones          Dma  Dma32  Normal     Normal                  0   10  21
//!                   0     1      2          3                     1   21  10
//!
//!   near node 0:    2, 1, 0, 3            nearer nodes first, and on those as near
//!   near node 1:    3, 2, 1, 0            the highest class first
//! ```
//!
//! A request skips zones above its class, by a list for each class, and nodes that it does not allow.
//!
//! Source: ACPI 6.5, 5.2.17 "System Locality Information Table" (distances; 10 is a node's own);
//! Linux, mm/page_alloc.c, `build_zonelists` (the order).

use super::request::{CLASSES, Class};

/// What a zone is, apart from its source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) class: Class,
    pub(super) node: u8,
    pub(super) ratio: u32,
}

/// The distances of one node alone, or of nodes that are all as far from each other.
pub(super) const fn even<const NODES: usize>() -> [[u8; NODES]; NODES] {
    let mut distances = [[20; NODES]; NODES];
    let mut node = 0;
    while node < NODES {
        distances[node][node] = 10;
        node += 1;
    }
    distances
}

/// Zones in the order in which they are tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct List<const N: usize> {
    zones: [u8; N],
    len: usize,
}

impl<const N: usize> List<N> {
    /// The numbers of the zones.
    #[inline]
    pub(super) fn zones(&self) -> &[u8] {
        self.zones.get(..self.len).unwrap_or_default()
    }
}

/// The lists of one node, one for each class.
pub(super) type Lists<const N: usize> = [List<N>; CLASSES];

/// The lists; zones of a node that `distances` does not have come last.
pub(super) const fn lists<const N: usize, const NODES: usize>(
    kinds: &[Kind; N],
    distances: &[[u8; NODES]; NODES],
) -> [Lists<N>; NODES] {
    let mut lists = [[List { zones: [0; N], len: 0 }; CLASSES]; NODES];
    let all = all_zones(kinds, distances);
    let mut from = 0;
    while from < NODES {
        let mut class = 0;
        while class < CLASSES {
            let list = &mut lists[from][class];
            let mut at = 0;
            while at < N {
                let zone = all[from][at];
                if kinds[zone as usize].class as usize <= class {
                    list.zones[list.len] = zone;
                    list.len += 1;
                }
                at += 1;
            }
            class += 1;
        }
        from += 1;
    }
    lists
}

/// For each node all zones in order.
const fn all_zones<const N: usize, const NODES: usize>(
    kinds: &[Kind; N],
    distances: &[[u8; NODES]; NODES],
) -> [[u8; N]; NODES] {
    let mut lists = [[0; N]; NODES];
    let mut from = 0;
    while from < NODES {
        // Insertion, so that what is equal stays in the order of the zones.
        let mut zone = 0;
        while zone < N {
            let mut at = zone;
            while at > 0
                && goes_before(&kinds[zone], &kinds[lists[from][at - 1] as usize], &distances[from])
            {
                lists[from][at] = lists[from][at - 1];
                at -= 1;
            }
            lists[from][at] = zone as u8;
            zone += 1;
        }
        from += 1;
    }
    lists
}

const fn goes_before<const NODES: usize>(a: &Kind, b: &Kind, distances: &[u8; NODES]) -> bool {
    let (of_a, of_b) = (distance(a, distances), distance(b, distances));
    of_a < of_b || (of_a == of_b && a.class as u8 > b.class as u8)
}

const fn distance<const NODES: usize>(kind: &Kind, distances: &[u8; NODES]) -> u16 {
    if (kind.node as usize) < NODES { distances[kind.node as usize] as u16 } else { u16::MAX }
}
