//! Where single pages were last mapped, so that the next one beside them needs no walk.
//!
//! ```text
//!   root --> ... --> +------+      +------+
//!                    | link |----->| leaf |      noted: the node of the links, and what part of
//!                    | link |--.   | leaf |             the addresses it translates
//!                    +------+   `->...
//! ```
//!
//! A kernel that maps a page a call maps its neighbours next: with 512 entries a node, a GiB of
//! them begins at the same node of x86-64.
//!
//! # Invariants
//!
//! - What is noted is a node of the last level but one that this table links, in a part that is its
//!   own. Every node leaves a table through `Radix::detach`, which forgets it.
//! - Only operations that have `&mut self` read or write it. It is atomic since `detach` is reached
//!   through `&self` from there, and so that a table can be shared between threads.

use crate::format::{Format, Level};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vellum_core::{PhysAddr, VirtAddr};

/// A node of the last level but one, or none.
pub(super) struct Near {
    /// What all addresses that it translates have in common; no address has [`NOWHERE`].
    prefix: AtomicU64,
    node: AtomicU64,
}

/// A prefix is an address without at least its lowest 12 bits, moved down.
const NOWHERE: u64 = u64::MAX;

impl Near {
    pub(super) const fn nowhere() -> Self {
        Self { prefix: AtomicU64::new(NOWHERE), node: AtomicU64::new(0) }
    }

    /// The node, if it is the one that translates `va`. Formats of one or two levels have none that
    /// is not the root.
    #[inline]
    pub(super) fn node<F: Format>(&self, va: VirtAddr) -> Option<PhysAddr> {
        let found = F::LEVELS.len() > 2 && self.prefix.load(Relaxed) == prefix::<F>(va);
        found.then(|| PhysAddr::new(self.node.load(Relaxed)))
    }

    /// Notes the node that translates `va`.
    #[inline]
    pub(super) fn note<F: Format>(&self, va: VirtAddr, node: PhysAddr) {
        if F::LEVELS.len() > 2 {
            self.prefix.store(prefix::<F>(va), Relaxed);
            self.node.store(node.as_u64(), Relaxed);
        }
    }

    /// Forgets it: some node is about to leave the table.
    #[inline]
    pub(super) fn forget(&self) {
        self.prefix.store(NOWHERE, Relaxed);
    }
}

/// The last level but one, whose entries link what maps pages; the only one if there is one.
pub(super) const fn level_of_links<F: Format>() -> Level {
    F::LEVELS[F::LEVELS.len().saturating_sub(2)]
}

#[inline]
fn prefix<F: Format>(va: VirtAddr) -> u64 {
    va.as_u64() >> level_of_links::<F>().span().min(63)
}
