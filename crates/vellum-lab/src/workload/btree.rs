//! Look-ups in a B+ tree.
//!
//! ```text
//!   node: 512 bytes, 32 pairs (key, child or value), keys ascending; leaves are level 0
//!
//!           [ 0 32768 65536 ... ]
//!            /     |      \
//!     [0 1024 ..] ...               every node full but the last ones of each level
//!       /
//!   [0 1 2 ... 31]
//! ```
//!
//! Keys are the even numbers, so that a look-up can fail; half of them do. Building the tree is not
//! recorded.

use super::tape::{Array, Tape};
use crate::experiment::Random;
use crate::trace::TraceFault;

/// Pairs in a node.
const FANOUT: usize = 32;

/// A key, and where it leads to.
type Pair = [u64; 2];

const LOOKUPS: u64 = 1_500_000;

/// What look-ups found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) hits: u64,
    pub(super) values: u64,
}

/// The value of a key.
const fn value(key: u64) -> u64 {
    key ^ 0x5555
}

/// The tree: all nodes in one array, level by level, leaves first.
#[derive(Debug)]
struct Tree {
    pairs: Array<Pair>,
    root: usize,
    levels: u32,
    keys: u64,
}

impl Tree {
    /// A tree with leaves of so many bytes.
    fn new(tape: &mut Tape, bytes: u64) -> Result<Self, TraceFault> {
        let keys = bytes / size_of::<Pair>() as u64;
        let mut pairs: Vec<Pair> = (0..keys).map(|i| [2 * i, value(2 * i)]).collect();
        let (mut level, mut levels) = (0, 1);
        while pairs.len() - level > FANOUT {
            pairs.resize(pairs.len().next_multiple_of(FANOUT), [u64::MAX, 0]);
            let nodes = (level..pairs.len()).step_by(FANOUT);
            let above: Vec<Pair> = nodes.map(|node| [pairs[node][0], node as u64]).collect();
            level = pairs.len();
            pairs.extend(above);
            levels += 1;
        }
        pairs.resize(pairs.len().next_multiple_of(FANOUT), [u64::MAX, 0]);
        let root = level;
        let pairs = tape.array(pairs.len(), |i| pairs[i])?;
        Ok(Self { pairs, root, levels, keys })
    }

    fn lookup(&self, tape: &mut Tape, key: u64) -> Option<u64> {
        let mut node = self.root;
        for level in (0..self.levels).rev() {
            // The last pair whose key is not above the wanted one; the first node begins with 0.
            let (mut low, mut high) = (0, FANOUT);
            while high - low > 1 {
                let middle = low.midpoint(high);
                if self.pairs.get(tape, node + middle)[0] <= key {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            let [found, next] = self.pairs.get(tape, node + low);
            if level == 0 {
                return (found == key).then_some(next);
            }
            node = next as usize;
        }
        None
    }
}

/// Looks random keys up in a tree with leaves of so many bytes.
pub(super) fn run(tape: &mut Tape, bytes: u64, seed: u64) -> Result<Found, TraceFault> {
    let tree = Tree::new(tape, bytes)?;
    let mut random = Random::new(seed);
    let mut found = Found::default();
    for _ in 0..LOOKUPS {
        if tape.is_full() {
            break;
        }
        if let Some(value) = tree.lookup(tape, random.below(2 * tree.keys)) {
            found.hits += 1;
            found.values = found.values.wrapping_add(value);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_keys_are_found_and_odd_ones_are_not() {
        for bytes in [16 * 5, 16 * 32, 16 * 33, 16 * 1024, 16 * 1025, 16 * 40_000] {
            let mut tape = Tape::new(None);
            let tree = Tree::new(&mut tape, bytes).unwrap();
            for key in 0..2 * tree.keys {
                let expected = key.is_multiple_of(2).then_some(value(key));
                assert_eq!(tree.lookup(&mut tape, key), expected, "{key} of {bytes} bytes");
            }
            assert_eq!(tree.lookup(&mut tape, 2 * tree.keys), None);
        }
    }

    #[test]
    fn a_run_finds_what_its_keys_ask_for() {
        let found = run(&mut Tape::new(None), 1 << 20, 4).unwrap();
        let mut random = Random::new(4);
        let keys = (0..LOOKUPS).map(|_| random.below(2 << 16));
        let even: Vec<u64> = keys.filter(|key| key.is_multiple_of(2)).map(value).collect();
        assert_eq!(found, Found { hits: even.len() as u64, values: even.iter().sum::<u64>() });
    }
}
