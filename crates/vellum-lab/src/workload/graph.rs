//! Breadth-first search and PageRank on a Kronecker graph.
//!
//! ```text
//!   offsets: [ 0, 2, 2, 5, ... ]          neighbours of v: targets[offsets[v]..offsets[v + 1]]
//!   targets: [ 7, 9 | | 0, 3, 9 | ... ]   every edge in both directions
//! ```
//!
//! Edges are drawn as Graph500 does: 16 a vertex, each by a descent into the quarters of the adjacency
//! matrix with probabilities .57, .19, .19, .05; then vertices are renamed at random. Loops are left
//! out. Drawing and sorting them is not recorded, as Graph500 does not time it with the search.
//!
//! Source: Graph500 specification 3.0; Brin, Page, "The Anatomy of a Large-Scale Hypertextual Web
//! Search Engine", 1998.

use super::tape::{Array, Tape};
use crate::experiment::Random;
use crate::trace::TraceFault;

/// Edges for each vertex, before both directions are counted.
const EDGES: u64 = 16;

/// Rounds of PageRank, and its damping.
const ROUNDS: u32 = 2;
const DAMPING: f64 = 0.85;

/// No parent: not reached.
const NOBODY: u32 = u32::MAX;

/// The most edges that a search or a round goes over: 2^26 vertices have as many.
type Offset = u64;

/// A graph in compressed rows.
#[derive(Debug)]
pub(super) struct Graph {
    offsets: Array<Offset>,
    targets: Array<u32>,
}

/// One edge.
fn draw(random: &mut Random, scale: u64) -> [u32; 2] {
    let mut edge = [0; 2];
    for _ in 0..scale {
        let [row, column] = match random.below(100) {
            0..57 => [0, 0],
            57..76 => [0, 1],
            76..95 => [1, 0],
            _ => [1, 1],
        };
        edge = [edge[0] << 1 | row, edge[1] << 1 | column];
    }
    edge
}

impl Graph {
    fn kronecker(tape: &mut Tape, scale: u64, seed: u64) -> Result<Self, TraceFault> {
        let mut random = Random::new(seed);
        let vertices = 1usize << scale;
        let mut names: Vec<u32> = (0..vertices as u32).collect();
        random.shuffle(&mut names);
        let count = EDGES << scale;
        let mut edges = Vec::new();
        let bytes = count * size_of::<[u32; 2]>() as u64;
        edges.try_reserve_exact(count as usize).map_err(|_| TraceFault::Data { bytes })?;
        edges.extend((0..count).map(|_| draw(&mut random, scale).map(|v| names[v as usize])));
        edges.retain(|[from, to]| from != to);
        let mut degrees = vec![0; vertices + 1];
        for &v in edges.iter().flatten() {
            degrees[v as usize + 1] += 1;
        }
        let mut next = degrees;
        for v in 0..vertices {
            next[v + 1] += next[v];
        }
        let offsets = tape.array(vertices + 1, |v| next[v])?;
        let mut targets = vec![0; 2 * edges.len()];
        for [from, to] in edges {
            for [from, to] in [[from, to], [to, from]] {
                let slot = &mut next[from as usize];
                targets[*slot as usize] = to;
                *slot += 1;
            }
        }
        let targets = tape.array(targets.len(), |i| targets[i])?;
        Ok(Self { offsets, targets })
    }

    const fn vertices(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Where the neighbours of `v` are.
    fn row(&self, tape: &mut Tape, v: usize) -> core::ops::Range<usize> {
        self.offsets.get(tape, v) as usize..self.offsets.get(tape, v + 1) as usize
    }
}

/// The parents that a search finds, and where it began.
#[cfg_attr(not(test), allow(dead_code, reason = "what tests look at"))]
#[derive(Debug)]
pub(super) struct Searched {
    pub(super) graph: Graph,
    pub(super) parents: Array<u32>,
    pub(super) root: u32,
}

/// Searches a graph of 2<sup>`scale`</sup> vertices from a random one that has a neighbour.
pub(super) fn bfs(tape: &mut Tape, scale: u64, seed: u64) -> Result<Searched, TraceFault> {
    let graph = Graph::kronecker(tape, scale, seed)?;
    let vertices = graph.vertices();
    let mut parents = tape.array(vertices, |_| NOBODY)?;
    let mut queue = tape.array(vertices, |_| 0)?;
    let mut random = Random::new(!seed);
    let offsets = graph.offsets.items();
    // There are edges, so this ends.
    let root = loop {
        let v = random.below(vertices as u64) as usize;
        if offsets[v] < offsets[v + 1] {
            break v as u32;
        }
    };
    parents.set(tape, root as usize, root);
    queue.set(tape, 0, root);
    let (mut head, mut tail) = (0, 1);
    while head < tail {
        let v = queue.get(tape, head);
        head += 1;
        for i in graph.row(tape, v as usize) {
            let to = graph.targets.get(tape, i);
            if parents.get(tape, to as usize) == NOBODY {
                parents.set(tape, to as usize, v);
                queue.set(tape, tail, to);
                tail += 1;
            }
        }
    }
    Ok(Searched { graph, parents, root })
}

/// The ranks of a graph of 2<sup>`scale`</sup> vertices after [`ROUNDS`].
#[cfg_attr(not(test), allow(dead_code, reason = "what tests look at"))]
#[derive(Debug)]
pub(super) struct Ranked {
    pub(super) graph: Graph,
    pub(super) ranks: Array<f64>,
}

/// Each vertex pulls from its neighbours what they have for each of theirs; what vertices without
/// any have is given to all.
pub(super) fn pagerank(tape: &mut Tape, scale: u64, seed: u64) -> Result<Ranked, TraceFault> {
    let graph = Graph::kronecker(tape, scale, seed)?;
    let vertices = graph.vertices();
    let even = 1.0 / vertices as f64;
    let mut ranks = tape.array(vertices, |_| even)?;
    let mut shares = tape.array(vertices, |_| 0.0)?;
    for _ in 0..ROUNDS {
        let mut idle = 0.0;
        for v in 0..vertices {
            let (degree, rank) = (graph.row(tape, v).len(), ranks.get(tape, v));
            if degree == 0 {
                idle += rank;
            } else {
                shares.set(tape, v, rank / degree as f64);
            }
        }
        for v in 0..vertices {
            let mut sum = 0.0;
            for i in graph.row(tape, v) {
                let to = graph.targets.get(tape, i) as usize;
                sum += shares.get(tape, to);
            }
            ranks.set(tape, v, (1.0 - DAMPING + DAMPING * idle) * even + DAMPING * sum);
        }
    }
    Ok(Ranked { graph, ranks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neighbours(graph: &Graph, v: usize) -> &[u32] {
        let offsets = graph.offsets.items();
        &graph.targets.items()[offsets[v] as usize..offsets[v + 1] as usize]
    }

    /// Distances by rounds over all edges: another algorithm.
    fn distances(graph: &Graph, root: u32) -> Vec<Option<u32>> {
        let mut distances = vec![None; graph.vertices()];
        distances[root as usize] = Some(0);
        for round in 0.. {
            let at = |d: &Vec<Option<u32>>, v: usize| d[v] == Some(round);
            let there: Vec<_> = (0..graph.vertices()).filter(|&v| at(&distances, v)).collect();
            if there.is_empty() {
                return distances;
            }
            for v in there {
                for &to in neighbours(graph, v) {
                    distances[to as usize].get_or_insert(round + 1);
                }
            }
        }
        distances
    }

    #[test]
    fn every_parent_is_a_neighbour_one_step_nearer() {
        for seed in 1..5 {
            let Searched { graph, parents, root } = bfs(&mut Tape::new(None), 9, seed).unwrap();
            let distances = distances(&graph, root);
            let reached = distances.iter().flatten().count();
            assert!(reached > graph.vertices() / 2, "{reached}");
            for (v, &parent) in parents.items().iter().enumerate() {
                assert_eq!(parent == NOBODY, distances[v].is_none());
                if parent != NOBODY && v as u32 != root {
                    assert!(neighbours(&graph, v).contains(&parent));
                    assert_eq!(distances[v], distances[parent as usize].map(|d| d + 1));
                }
            }
            assert_eq!(parents.items()[root as usize], root);
        }
    }

    #[test]
    fn edges_go_both_ways_and_a_few_vertices_have_most() {
        let graph = Graph::kronecker(&mut Tape::new(None), 10, 1).unwrap();
        let mut degrees: Vec<_> = (0..1024).map(|v| neighbours(&graph, v).len()).collect();
        for v in 0..1024 {
            for &to in neighbours(&graph, v) {
                assert!(neighbours(&graph, to as usize).contains(&(v as u32)));
            }
        }
        degrees.sort_unstable();
        let all: usize = degrees.iter().sum();
        let top: usize = degrees.iter().rev().take(102).sum();
        assert!(all <= 2 * 16 * 1024 && top * 2 > all, "a tenth has {top} of {all}");
    }

    #[test]
    fn ranks_are_those_of_the_definition_and_sum_to_1() {
        let Ranked { graph, ranks } = pagerank(&mut Tape::new(None), 8, 3).unwrap();
        let n = graph.vertices();
        let mut expected = vec![1.0 / n as f64; n];
        for _ in 0..ROUNDS {
            // Push instead of pull.
            let mut next = vec![(1.0 - DAMPING) / n as f64; n];
            for (v, &rank) in expected.iter().enumerate() {
                let out = neighbours(&graph, v);
                let (to, parts): (Vec<usize>, usize) = match out {
                    [] => ((0..n).collect(), n),
                    some => (some.iter().map(|&v| v as usize).collect(), some.len()),
                };
                to.iter().for_each(|&to| next[to] += DAMPING * rank / parts as f64);
            }
            expected = next;
        }
        for (rank, expected) in ranks.items().iter().zip(&expected) {
            assert!((rank - expected).abs() < 1e-12, "{rank} against {expected}");
        }
        assert!((ranks.items().iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
