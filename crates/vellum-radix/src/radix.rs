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
//!   to it; but for the part that is shared (`half`), whose nodes belong to one table and are
//!   never unlinked, and for lowest nodes shared copy-on-write (`shared`), which nobody changes.
//! - The count of a linked node is the number of its entries that are not holes, while nobody is
//!   inside a `&self` operation; within one it may be higher, never lower. The count of an entry
//!   that links nothing is 0.
//! - Soft entries stand on the lowest level only.
//! - Hardware has nothing to write to a table entry.
//!
//! Source: the format's manual; for the order of unlinking, flushing and freeing, Intel SDM
//! vol. 3A, 5.10.4 "Invalidation of TLBs and Paging-Structure Caches".

mod change;
mod collapse;
mod detached;
mod fill;
mod fork;
mod frames;
mod group;
mod half;
mod map;
mod moves;
mod near;
mod node;
mod protect;
mod read;
mod replace;
mod shared;
mod split;
mod stock;
mod table;
mod unmap;
mod way;

use crate::format::{self, Decoded, Format, Level, base_shift};
use crate::policy::Policy;
use core::fmt;
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering};
use half::Half;
use near::Near;
use node::{Node, Slot, index};
use vellum_core::{
    Attr, Cause, Entry, Memory, OutOfFrames, PhysAddr, Ref, Sink, Span, VirtAddr, Walk,
};

pub use detached::Detached;
pub use stock::Stock;

/// A hierarchical page table of format `F` in memory `M`.
///
/// A table that is dropped leaks its nodes; [`retire`](vellum_core::PageTable::retire) gives them
/// back.
pub struct Radix<F: Format, M: Memory> {
    mem: M,
    root: PhysAddr,
    half: Half,
    /// How many entries of the root are not another table's.
    own_entries: u64,
    policy: Policy,
    /// Whether the policy is any but the default.
    has_policy: bool,
    /// A leaf with [`Attr::GLOBAL`] was mapped here at some time: flushes have to reach such.
    has_global: AtomicBool,
    near: Near,
    format: PhantomData<fn() -> F>,
}

impl<F: Format, M: Memory> Radix<F, M> {
    /// An empty table: one node.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there is no block for the root.
    pub fn new(mem: M) -> Result<Self, OutOfFrames> {
        Self::with_policy(mem, Policy::default())
    }

    /// An empty table that refuses what `policy` says.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there is no block for the root.
    pub fn with_policy(mem: M, policy: Policy) -> Result<Self, OutOfFrames> {
        const { format::check_levels::<F>() };
        let root = node::alloc_empty::<F, M>(&mem, 0)?;
        let has_global = AtomicBool::new(false);
        let (half, has_policy) = (Half::Own, policy.refuses_something());
        let own_entries = half.count_own::<F>();
        let (near, format) = (Near::nowhere(), PhantomData);
        Ok(Self { mem, root, half, own_entries, policy, has_policy, has_global, near, format })
    }

    /// Where the root node lies: what is loaded into CR3, and only there does mapping begin to
    /// matter. The one who loads it must see to it that the table outlives its use.
    #[must_use]
    pub const fn root(&self) -> PhysAddr {
        self.root
    }

    /// What this table refuses.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    #[inline]
    fn node(&self, pa: PhysAddr) -> Node<'_, F, M> {
        // SAFETY: `pa` is the root, or was decoded from a table entry, which links a node of this
        // memory, or is such a node that `near` has noted, and not forgotten since; nodes are given
        // back only after `&mut self` has unlinked them and a flush, or when the table is consumed.
        // Shared nodes outlive this table (`half`).
        unsafe { Node::new(&self.mem, pa) }
    }

    /// A walk to the entry that decides about `va`, the first on the way that links no node; what
    /// `end` makes of it. Inlined once for each level, where all but the address is constant.
    #[inline(always)]
    fn find<S: Sink, R>(
        &self,
        va: VirtAddr,
        sink: &mut S,
        end: impl Fn(Found<'_, F, M>) -> R,
    ) -> R {
        let mut node = self.node(self.root);
        let mut lost = Attr::NONE;
        let last = F::LEVELS.len() - 1;
        for level in &F::LEVELS[..last] {
            let (slot, raw) = step(node, *level, va, sink);
            let Some(child) = F::child(raw, level.shift) else {
                let entry = F::decode(raw, level.shift).entry();
                return end(Found { slot, node, raw, level: *level, entry, lost: Attr::NONE });
            };
            node = self.node(child);
            lost = lost_below::<F>(raw, level.shift);
        }
        let level = F::LEVELS[last];
        let (slot, raw) = step(node, level, va, sink);
        let entry = without(F::decode(raw, level.shift).entry(), lost);
        end(Found { slot, node, raw, level, entry, lost })
    }

    /// Refuses a range that the levels do not translate in whole pages.
    #[inline]
    fn check(va: VirtAddr, len: u64) -> Result<(), Cause> {
        F::CANONICAL.check(va, len, const { base_shift::<F>() })
    }

    /// The same for a range that is to be changed, which another table's part cannot be.
    #[inline]
    fn check_own(&self, va: VirtAddr, len: u64) -> Result<(), Cause> {
        Self::check(va, len)?;
        self.half.check::<F>(va, len)
    }

    /// Whether the policy lets a mapping of a range have these attributes, which is noted.
    #[inline]
    fn admit(&self, range: (VirtAddr, u64), attr: Attr) -> Result<(), Cause> {
        self.check_policy(range, attr)?;
        self.note(range.0, attr);
        Ok(())
    }

    /// Whether the policy lets a mapping of a range have these attributes.
    #[inline]
    fn check_policy(&self, (va, len): (VirtAddr, u64), attr: Attr) -> Result<(), Cause> {
        if self.has_policy {
            // The kernel's part is above all others.
            let last = va.wrapping_add(len.saturating_sub(1));
            self.policy.check(attr, self.is_kernel(last))?;
        }
        Ok(())
    }

    /// Notes that a mapping with these attributes is about to be made.
    #[inline]
    fn note(&self, va: VirtAddr, attr: Attr) {
        if self.has_policy {
            self.policy.report(va, attr);
        }
        if attr.contains(Attr::GLOBAL) {
            self.has_global.store(true, Ordering::Relaxed);
        }
    }

    /// Whether `va` is where the policy keeps user mode out.
    #[inline]
    fn is_kernel(&self, va: VirtAddr) -> bool {
        self.policy
            .kernel_from
            .is_some_and(|from| index(va, F::LEVELS[0]) >= index(from, F::LEVELS[0]))
    }

    /// Whether a flush of this table may have to reach global translations.
    #[inline]
    fn may_be_global(&self) -> bool {
        self.has_global.load(Ordering::Relaxed)
    }
}

/// Reads the entry of a node that translates `va`, and says so.
#[inline(always)]
fn step<'m, F: Format, M: Memory, S: Sink>(
    node: Node<'m, F, M>,
    level: Level,
    va: VirtAddr,
    sink: &mut S,
) -> (Slot<'m, F, M>, u64) {
    let slot = node.slot(index(va, level));
    let (bytes, span) = (1 << F::ENTRY_SHIFT, level.shift);
    sink.reference(Ref { pa: slot.pa, bytes, span, parallel: false });
    (slot, node.load(level, index(va, level)))
}

/// The end of a walk.
struct Found<'m, F, M> {
    slot: Slot<'m, F, M>,
    node: Node<'m, F, M>,
    raw: u64,
    level: Level,
    /// What it says; without the rights that are `lost` to what links its node.
    entry: Entry,
    lost: Attr,
}

/// The right that a table entry takes from the leaves of a node that it links.
#[inline(always)]
fn lost_below<F: Format>(raw: u64, page: u8) -> Attr {
    if format::is_shared::<F>(raw, page) { Attr::WRITE } else { Attr::NONE }
}

/// The entry without these rights.
#[inline(always)]
fn without(entry: Entry, lost: Attr) -> Entry {
    match entry {
        Entry::Leaf(pa, attr) => Entry::Leaf(pa, attr - lost),
        other => other,
    }
}

impl<F: Format, M: Memory> fmt::Debug for Radix<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Radix({} levels, root at {})", F::LEVELS.len(), self.root)
    }
}

impl<F: Format, M: Memory> Walk for Radix<F, M> {
    #[inline]
    fn walk<S: Sink>(&self, va: VirtAddr, sink: &mut S) -> Result<Span, Cause> {
        if !F::CANONICAL.contains(va) {
            return Err(Cause::NonCanonical(va));
        }
        Ok(self.find(va, sink, |found| {
            let Found { node, raw, level, entry, lost, .. } = found;
            if level.group > 0 && F::is_grouped(raw, level.shift) {
                let entry = without(group::leaf(node, level, index(va, level)), lost);
                let page = level.group_shift();
                return Span { va: va.align_down(page), len: 1 << page, entry };
            }
            Span { va: va.align_down(level.shift), len: 1 << level.shift, entry }
        }))
    }

    /// As a walk, without looking at more than the frame; of pages first, so that a larger leaf
    /// costs a call.
    #[inline]
    fn translate(&self, va: VirtAddr) -> Option<PhysAddr> {
        if !F::CANONICAL.contains(va) {
            return None;
        }
        let mut node = self.node(self.root);
        let last = const { F::LEVELS.len() - 1 };
        for level in &F::LEVELS[..last] {
            let raw = node.load(*level, index(va, *level));
            let Some(child) = F::child(raw, level.shift) else {
                return translate_large::<F>(raw, *level, va);
            };
            node = self.node(child);
        }
        let level = F::LEVELS[last];
        translated::<F>(node.load(level, index(va, level)), level, va)
    }

    fn touch(&self, va: VirtAddr, need: Attr, bits: Attr) -> Entry {
        if !F::CANONICAL.contains(va) {
            return Entry::Hole;
        }
        self.find(va, &mut (), |found| touch_leaf(found, need, bits))
    }
}

/// Where an entry that links no node puts `va`.
#[inline(always)]
fn translated<F: Format>(raw: u64, level: Level, va: VirtAddr) -> Option<PhysAddr> {
    let grouped = level.group > 0 && F::is_grouped(raw, level.shift);
    let page = if grouped { level.group_shift() } else { level.shift };
    match F::decode(raw, page) {
        Decoded::Entry(Entry::Leaf(pa, _)) => {
            Some(pa.wrapping_add(va.as_u64() & ((1 << page) - 1)))
        }
        _ => None,
    }
}

/// The same for a leaf above the lowest level, or a hole: kept apart, so that the common path has
/// constants only.
#[inline(never)]
fn translate_large<F: Format>(raw: u64, level: Level, va: VirtAddr) -> Option<PhysAddr> {
    translated::<F>(raw, level, va)
}

/// Sets status in a leaf that grants `need`; the entry as it was.
fn touch_leaf<F: Format, M: Memory>(found: Found<'_, F, M>, need: Attr, bits: Attr) -> Entry {
    let Found { slot, mut raw, level, mut entry, lost, .. } = found;
    while let Entry::Leaf(_, attr) = entry {
        let touched = F::set_status(raw, bits);
        if !attr.contains(need) || touched == raw || F::is_broken(raw) {
            break;
        }
        match slot.compare_exchange(raw, touched) {
            Ok(()) => break,
            // Somebody changed the leaf: judge what is there now.
            Err(now) => {
                raw = now;
                entry = without(F::decode(raw, level.shift).entry(), lost);
            }
        }
    }
    entry
}
