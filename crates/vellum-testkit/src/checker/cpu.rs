//! What one CPU may hold of the space, and which of it it could use.
//!
//! ```text
//!               holds                  caches more    uses
//!   Active      what it has cached     at any time    all of it
//!   Lazy        the same               at any time    interior entries (a walk may begin at any
//!                                                     time), and what is global
//!   Unloaded    the same, under a tag  nothing        what is global; the rest as soon as the root
//!                                                     is loaded again
//! ```
//!
//! A checker without CPUs of its own has one, always active, which stands for all that there could be.
//!
//! # Invariants
//!
//! - A CPU holds all that the table has said while the CPU had the root loaded, since it was last told
//!   to forget it, and nothing that the table never said.

use super::Missed;
use super::cached::{Cached, Point, Rules};
use crate::Arena;
use vellum_core::{Attr, Flush};

/// What a CPU has to do with the root of a checker's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// It has it loaded, and uses it.
    Active,
    /// It has it loaded, and uses no address of it.
    Lazy,
    /// It has another one loaded, or none.
    Unloaded,
}

/// One CPU.
#[derive(Clone, Debug)]
pub(super) struct Cpu {
    pub(super) root: Root,
    /// By the point's index.
    held: Vec<Vec<Cached>>,
}

impl Cpu {
    pub(super) fn new(root: Root, points: usize) -> Self {
        Self { root, held: vec![Vec::new(); points] }
    }

    /// Everything that it holds, with the point's index.
    pub(super) fn held(&self) -> impl Iterator<Item = (usize, Cached)> + '_ {
        let indexed = self.held.iter().enumerate();
        indexed.flat_map(|(i, held)| held.iter().map(move |&cached| (i, cached)))
    }

    /// What it holds for one point.
    pub(super) fn held_at(&self, point: usize) -> &[Cached] {
        self.held.get(point).map_or(&[], Vec::as_slice)
    }

    /// What of that it could use as it is.
    pub(super) fn used_at(&self, point: usize) -> impl Iterator<Item = Cached> + '_ {
        let uses = |cached: &Cached| match (self.root, cached) {
            (Root::Active, _) | (Root::Lazy, Cached::Link(_)) => true,
            (_, Cached::Leaf(leaf)) => leaf.attr.contains(Attr::GLOBAL),
            _ => false,
        };
        self.held_at(point).iter().copied().filter(uses)
    }

    /// It caches all that the table says; the first that it may not hold beside something older.
    pub(super) fn see(&mut self, points: &[Point], rules: &Rules) -> Result<(), Missed> {
        let mut clash = Ok(());
        if self.root == Root::Unloaded {
            return clash;
        }
        for (point, held) in points.iter().zip(&mut self.held) {
            for seen in point.seen() {
                if held.contains(&seen) {
                    continue;
                }
                let old = held.iter().find(|old| rules.breaks && old.clashes(&seen));
                if let (Some(&cached), Ok(())) = (old, clash) {
                    clash = Err(Missed::Together { va: point.va, cached, seen });
                }
                held.push(seen);
            }
        }
        clash
    }

    /// It forgets what these flushes reach.
    pub(super) fn forget(&mut self, points: &[Point], rules: &Rules, flushes: &[Flush]) {
        for (point, held) in points.iter().zip(&mut self.held) {
            held.retain(|cached| !flushes.iter().any(|&f| rules.forgets(point, cached, f)));
        }
    }

    /// It forgets everything; but for what is global, unless that is meant as well.
    pub(super) fn forget_all(&mut self, global: bool) {
        let stays =
            |cached: &Cached| matches!(cached, Cached::Leaf(l) if l.attr.contains(Attr::GLOBAL));
        self.held.iter_mut().for_each(|held| held.retain(|cached| !global && stays(cached)));
    }

    /// The first node that it could walk into, and that was freed.
    pub(super) fn freed_node(&self, points: &[Point], arena: &Arena) -> Result<(), Missed> {
        if self.root == Root::Unloaded {
            return Ok(());
        }
        for (point, held) in points.iter().zip(&self.held) {
            for &cached in held {
                let Cached::Link(link) = cached else { continue };
                if arena.times_freed(link.node) != link.freed {
                    return Err(Missed::NodeInUse { va: point.va, cached });
                }
            }
        }
        Ok(())
    }
}
