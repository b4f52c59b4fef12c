//! One walker for every hierarchical format.
//!
//! ```text
//!   root --> +---+      +---+      +---+      +---+
//!            | T |--17->| T |-512->| T |--3-->| L |   L  leaf        17, 512, 3: entries in use,
//!            | . |      | . |      | L |      | S |   S  soft        noted where the node is linked
//!            +---+      +---+      +---+      +---+   T  table
//! ```
//!
//! | what | who | how |
//! |---|---|---|
//! | one leaf | `&self`, any number of threads, beside hardware | compare-and-set of its entry |
//! | a missing node | `&self` | compare-and-set from hole to table; the loser keeps its node |
//! | ranges, freeing nodes | `&mut self` | plain stores where nothing else writes, else atomics |
//!
//! There is no lock. A node that `&self` has emptied stays until `&mut self` comes by.
//!
//! # Invariants
//!
//! - Every table entry was written by this type, links a block of its memory, and is the only link
//!   to it.
//! - The count in a table entry is the number of entries of the node that are not holes, while
//!   nobody is inside a `&self` operation; within one it may be higher, never lower.
//! - Soft entries stand on the lowest level only.
//! - Accessed is set in every table entry, so that hardware writes nothing to those.
//!
//! Source: the format's manual; for the order of unlinking, flushing and freeing, Intel SDM
//! vol. 3A, 5.10.4 "Invalidation of TLBs and Paging-Structure Caches".

mod change;
mod detached;
mod map;
mod node;
mod read;
mod replace;

use crate::format::{self, Decoded, Format, Level};
use arrayvec::ArrayVec;
use core::fmt;
use core::marker::PhantomData;
use core::ops::ControlFlow;
use node::{Node, Slot};
use vellum_core::{
    Attr, Canonical, Cause, Change, Entry, Flush, Gather, Memory, Need, OutOfFrames, PAGE_SHIFT,
    PageTable, PhysAddr, RangeError, Ref, ReplaceError, Run, Sink, Span, VirtAddr, Walk,
};

pub use detached::Detached;

/// The most levels that a format has.
const MAX_DEPTH: usize = 5;

/// A hierarchical page table of format `F` in memory `M`.
///
/// A table that is dropped leaks its nodes; [`retire`](PageTable::retire) gives them back.
pub struct Radix<F: Format, M: Memory> {
    mem: M,
    root: PhysAddr,
    format: PhantomData<fn() -> F>,
}

impl<F: Format, M: Memory> Radix<F, M> {
    /// An empty table: one node.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there is no block for the root.
    pub fn new(mem: M) -> Result<Self, OutOfFrames> {
        const { format::check_levels(F::LEVELS) };
        const { assert!(F::LEVELS.len() <= MAX_DEPTH, "more levels than any format has") };
        let root = node::alloc(&mem, F::LEVELS[0])?;
        Ok(Self { mem, root, format: PhantomData })
    }

    /// Where the root node lies: what is loaded into CR3, and only there does mapping begin to
    /// matter. The one who loads it must see to it that the table outlives its use.
    #[must_use]
    pub const fn root(&self) -> PhysAddr {
        self.root
    }

    fn node(&self, pa: PhysAddr) -> Node<'_, M> {
        // SAFETY: `pa` is the root or was decoded from a table entry, which links a node of this
        // memory; nodes are given back only after `&mut self` has unlinked them and a flush, or
        // when the table is consumed.
        unsafe { Node::new(&self.mem, pa) }
    }

    /// A walk to the entry that decides about `va`: the first on the way that links no node.
    fn find<S: Sink>(&self, va: VirtAddr, sink: &mut S) -> Found<'_, M> {
        let mut node = self.node(self.root);
        let mut depth = 0;
        loop {
            let level = F::LEVELS[depth];
            let slot = node.slot_of(va, level);
            sink.reference(Ref { pa: slot.pa, bytes: 8, span: level.shift, parallel: false });
            let raw = slot.load();
            match F::decode(raw, level.shift) {
                Decoded::Table(pa) if depth + 1 < F::LEVELS.len() => {
                    node = self.node(pa);
                    depth += 1;
                }
                decoded => return Found { slot, raw, level, entry: decoded.entry() },
            }
        }
    }

    /// Refuses a range of pages that the levels do not translate.
    fn check(va: VirtAddr, len: u64) -> Result<(), Cause> {
        F::CANONICAL.check(va, len, PAGE_SHIFT)
    }
}

/// The end of a walk.
struct Found<'m, M> {
    slot: Slot<'m, M>,
    raw: u64,
    level: Level,
    entry: Entry,
}

impl<F: Format, M: Memory> fmt::Debug for Radix<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Radix({} levels, root at {})", F::LEVELS.len(), self.root)
    }
}

impl<F: Format, M: Memory> Walk for Radix<F, M> {
    fn walk<S: Sink>(&self, va: VirtAddr, sink: &mut S) -> Result<Span, Cause> {
        if !F::CANONICAL.contains(va) {
            return Err(Cause::NonCanonical(va));
        }
        let Found { level, entry, .. } = self.find(va, sink);
        Ok(Span { va: va.align_down(level.shift), len: 1 << level.shift, entry })
    }

    fn touch(&self, va: VirtAddr, need: Attr, bits: Attr) -> Entry {
        if !F::CANONICAL.contains(va) {
            return Entry::Hole;
        }
        let Found { slot, mut raw, level, mut entry } = self.find(va, &mut ());
        let set = F::status(bits);
        while let Entry::Leaf(_, attr) = entry {
            if !attr.contains(need) || raw & set == set {
                break;
            }
            match slot.compare_exchange(raw, raw | set) {
                Ok(()) => break,
                // Somebody changed the leaf: judge what is there now.
                Err(now) => {
                    raw = now;
                    entry = F::decode(raw, level.shift).entry();
                }
            }
        }
        entry
    }
}

/// Nodes set aside for one `replace`: at most one for each level below the root.
pub struct Stock<F: Format, M: Memory> {
    mem: M,
    nodes: ArrayVec<PhysAddr, MAX_DEPTH>,
    format: PhantomData<fn() -> F>,
}

impl<F: Format, M: Memory> Stock<F, M> {
    /// The level of every node below the root, all of which have one size (`check_levels`); none
    /// for a format whose root is all.
    const LEVEL: Option<Level> = match F::LEVELS {
        [_, .., last] => Some(*last),
        _ => None,
    };
}

impl<F: Format, M: Memory> Drop for Stock<F, M> {
    fn drop(&mut self) {
        for pa in self.nodes.drain(..) {
            if let Some(level) = Self::LEVEL {
                // SAFETY: taken for this level in `refill`, and linked nowhere, or it would have
                // left the stock.
                unsafe { node::free(&self.mem, pa, level) };
            }
        }
    }
}

impl<F: Format, M: Memory> fmt::Debug for Stock<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stock({} nodes)", self.nodes.len())
    }
}

impl<F: Format, M: Memory> PageTable for Radix<F, M> {
    type Stock = Stock<F, M>;
    type Detached = Detached<F, M>;
    const LEAVES: u64 = format::leaves::<F>();
    const SOFT_BITS: u8 = F::SOFT_BITS;

    fn canonical(&self) -> Canonical {
        F::CANONICAL
    }

    /// Counts the nodes by reading the interior ones: all but the lowest level.
    fn table_bytes(&self) -> u64 {
        self.bytes_below(self.root, 0)
    }

    fn stock(&self) -> Stock<F, M> {
        Stock { mem: self.mem.clone(), nodes: ArrayVec::new(), format: PhantomData }
    }

    fn refill(&self, stock: &mut Stock<F, M>, need: Need) -> Result<(), OutOfFrames> {
        let Some(level) = Stock::<F, M>::LEVEL else { return Ok(()) };
        if stock.mem != self.mem {
            *stock = self.stock();
        }
        let wanted = usize::try_from(need.get()).unwrap_or(MAX_DEPTH).min(MAX_DEPTH);
        for _ in stock.nodes.len()..wanted {
            stock.nodes.push(node::alloc(&self.mem, level)?);
        }
        Ok(())
    }

    fn replace<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        expect: Entry,
        new: Entry,
        stock: &mut Stock<F, M>,
        gather: &mut G,
    ) -> Result<(), ReplaceError> {
        self.replace_one((va, len), expect, new, stock, gather)
    }

    fn map<G: Gather<Self::Detached>>(
        &mut self,
        run: Run,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        self.map_run(run, gather)
    }

    fn unmap<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        Self::check(va, len)?;
        self.change(va, len, &mut change::Unmap, gather)
    }

    fn protect<G: Gather<Self::Detached>>(
        &mut self,
        va: VirtAddr,
        len: u64,
        change: Change,
        gather: &mut G,
    ) -> Result<(), RangeError> {
        Self::check(va, len)?;
        self.change(va, len, &mut change::Protect(change), gather)
    }

    fn visit(
        &self,
        va: VirtAddr,
        len: u64,
        f: &mut impl FnMut(Span) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        Self::check(va, len)?;
        self.visit_runs(va, len, f);
        Ok(())
    }

    fn harvest<G: Gather<Self::Detached>>(
        &self,
        va: VirtAddr,
        len: u64,
        clear: Attr,
        gather: &mut G,
        f: &mut impl FnMut(Span),
    ) -> Result<(), Cause> {
        Self::check(va, len)?;
        self.harvest_leaves((va, len), clear, gather, f);
        Ok(())
    }

    fn retire<G: Gather<Self::Detached>>(self, gather: &mut G) {
        if gather.room() == 0 {
            gather.drain();
        }
        let [(lower, half), (upper, _)] = F::CANONICAL.halves();
        gather.stale(Flush::tables(upper, half, true));
        let flush = Flush::tables(lower, half, true);
        gather.detach(flush, Detached::new(self.mem, self.root, 0, 0));
    }
}
