//! What several tables have in common: the kernel's part, and the pair of roots against Meltdown.
//!
//! ```text
//!    kernel's table            a process's table         its user root (KPTI)
//!    +-----------+             +-----------+             +-----------+
//!    | own, low  |             | own       |---- same ---| own       |
//!    +-----------+  from  ---  +-----------+             +-----------+
//!    | T pinned  |---- same ---| T shared  |             | T stubs   |---- same --- a table of
//!    | T pinned  |             | T shared  |             |           |              stubs only
//!    +-----------+             +-----------+             +-----------+
//! ```
//!
//! The owner links a node under every entry of its root from there on, once, and unlinks none of
//! them again: so the others' copies of these entries stay right whatever the kernel maps below. A
//! flush of a kernel address has to reach every space; that is the business of who flushes.
//!
//! A root for user mode has the same entries for the process's part, written whenever the first root
//! gets or loses one, and of the kernel only what entering it takes.
//!
//! # Invariants
//!
//! - From `from` on, no entry of an owner's root changes; those of a sharer's are copies.
//! - A root that has a second one has no leaves.
//! - Below `from`, an entry of the user root is that of the root, without the count, but for the
//!   moment between the two stores; a page that is missing there faults once more.

use super::near::Near;
use super::node::{self, Node, index};
use super::{Detached, Radix};
use crate::format::{Decoded, Format};
use core::marker::PhantomData;
use core::sync::atomic::AtomicBool;
use vellum_core::{
    Canonical, Cause, Entry, Flush, Gather, Memory, OutOfFrames, PhysAddr, Span, VirtAddr,
};

/// Which entries of the root are this table's alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    /// All of them.
    Own,
    /// All, but those from index `from` on are copied by others, and stay.
    Pinned { from: u64 },
    /// Those below `from`; the others are the owner's.
    Shared {
        from: u64,
        /// The second root, for user mode.
        user_root: Option<PhysAddr>,
    },
}

impl Half {
    /// Refuses a range that reaches into what another table owns.
    #[inline]
    pub(super) fn check<F: Format>(self, va: VirtAddr, len: u64) -> Result<(), Cause> {
        if let Self::Shared { from, .. } = self {
            let last = va.wrapping_add(len.saturating_sub(1));
            if index(last, F::LEVELS[0]) >= from {
                return Err(Cause::Shared(va));
            }
        }
        Ok(())
    }

    /// How many entries from `index` of a node of level `depth` on may be leaves: none where others
    /// link the same nodes, and none in a root that has a second one beside it, since hardware would
    /// note accessed and dirty in that one's copy.
    #[inline]
    pub(super) const fn leaf_room(self, depth: usize, index: u64) -> u64 {
        match self {
            Self::Pinned { from } if depth == 0 => from.saturating_sub(index),
            Self::Shared { user_root: Some(_), .. } if depth == 0 => 0,
            _ => u64::MAX,
        }
    }

    /// Whether there is a second root, for user mode, that has to be told of links in the first.
    #[inline]
    pub(super) const fn has_user_root(self) -> bool {
        matches!(self, Self::Shared { user_root: Some(_), .. })
    }

    /// Whether the link in entry `index` of a node of level `depth` has to stay.
    #[inline]
    pub(super) fn is_pinned(self, depth: usize, index: u64) -> bool {
        depth == 0 && matches!(self, Self::Pinned { from } if index >= from)
    }

    /// How many entries of a root are not another table's.
    pub(super) const fn count_own<F: Format>(self) -> u64 {
        match self {
            Self::Shared { from, .. } => from,
            _ => 1 << F::LEVELS[0].bits,
        }
    }
}

impl<F: Format, M: Memory> Radix<F, M> {
    /// Makes everything from `from` on ready to be shared: a node under every entry of the root,
    /// which stays for as long as the table. `from` is a multiple of what such an entry spans.
    ///
    /// For x86-64 and the upper half this takes 256 nodes, 1 MiB.
    ///
    /// # Errors
    ///
    /// [`Cause::Misaligned`], [`Cause::NonCanonical`]; [`Cause::Mapped`] for a leaf in the root;
    /// [`Cause::Shared`] in a table that shares already; [`Cause::OutOfFrames`]. Empty nodes may
    /// have been linked by then, which changes nothing.
    pub fn pin_from(&mut self, from: VirtAddr) -> Result<(), Cause> {
        const { assert!(F::LEVELS.len() > 1, "a table of one level has nothing to share") };
        let level = F::LEVELS[0];
        F::CANONICAL.check(from, 0, level.shift)?;
        if matches!(self.half, Half::Shared { .. }) {
            return Err(Cause::Shared(from));
        }
        let root = self.node(self.root);
        for i in index(from, level)..1 << level.bits {
            let va = F::CANONICAL.extend(i << level.shift);
            let raw = root.slot(i).load();
            match F::decode(raw, level.shift) {
                Decoded::Table(_) if Self::is_shared(0, raw) => return Err(Cause::Shared(va)),
                Decoded::Table(_) => {}
                Decoded::Entry(Entry::Hole) => {
                    let child = node::alloc_empty::<F, M>(&self.mem, 1)?;
                    let raw = F::table_entry(child, level.shift, !self.is_kernel(va));
                    root.link(level, i).set(raw, 0);
                }
                Decoded::Entry(entry) => {
                    return Err(Cause::Mapped(Span { va, len: 1 << level.shift, entry }));
                }
            }
        }
        // What was pinned before stays so: others may link it.
        self.half = Half::Pinned { from: index(from, level).min(self.pinned_from()) };
        Ok(())
    }

    /// An empty table that shares `owner`'s pinned part, and has its policy.
    ///
    /// Changing that part through this table is refused with [`Cause::Shared`]; looking is not.
    ///
    /// # Errors
    ///
    /// [`OutOfFrames`] when there is no block for the root.
    ///
    /// # Safety
    ///
    /// `owner` has been pinned, lives in the same memory, and is not retired before this table. While
    /// `owner` is being changed through `&mut`, nobody is in a method of this table with an address of
    /// the shared part, a visitor's callback included: nodes there may be given back meanwhile.
    #[allow(unsafe_code, reason = "the nodes it links are not its own")]
    pub unsafe fn sharing(owner: &Self) -> Result<Self, OutOfFrames> {
        let mem = owner.mem.clone();
        let root = node::alloc_empty::<F, M>(&mem, 0)?;
        let from = owner.pinned_from();
        // SAFETY: the root was taken just now.
        unsafe { copy_entries(owner.node(owner.root), Node::<F, M>::new(&mem, root), from) };
        Ok(Self {
            half: Half::Shared { from, user_root: None },
            own_entries: from,
            policy: owner.policy,
            has_policy: owner.has_policy,
            has_global: AtomicBool::new(owner.may_be_global()),
            near: Near::nowhere(),
            mem,
            root,
            format: PhantomData,
        })
    }

    /// Gives a table that shares a second root, for user mode: with the same entries below the
    /// shared part, and above those of `stubs`, which maps only what it takes to enter the kernel.
    /// Returns where it lies; [`retire`](vellum_core::PageTable::retire) gives it back.
    ///
    /// # Errors
    ///
    /// [`Cause::OutOfFrames`]; [`Cause::Shared`] where there is nothing shared, where there is a
    /// second root already, or where `stubs` is pinned from elsewhere; [`Cause::Mapped`] where a leaf
    /// is in the root, which from then on gets none.
    ///
    /// # Safety
    ///
    /// `stubs` has been pinned, lives in the same memory, and is not retired before this table.
    #[allow(unsafe_code, reason = "the nodes it links are not its own")]
    pub unsafe fn add_user_root(&mut self, stubs: &Self) -> Result<PhysAddr, Cause> {
        let level = F::LEVELS[0];
        let Half::Shared { from, user_root: None } = self.half else {
            return Err(Cause::Shared(VirtAddr::new(0)));
        };
        if stubs.pinned_from() != from {
            return Err(Cause::Shared(F::CANONICAL.extend(from << level.shift)));
        }
        let root = self.node(self.root);
        for i in 0..from {
            if let Decoded::Entry(entry @ Entry::Leaf(..)) =
                F::decode(root.slot(i).load(), level.shift)
            {
                let va = F::CANONICAL.extend(i << level.shift);
                return Err(Cause::Mapped(Span { va, len: 1 << level.shift, entry }));
            }
        }
        let pa = node::alloc_empty::<F, M>(&self.mem, 0)?;
        copy_entries(stubs.node(stubs.root), self.node(pa), from);
        self.half = Half::Shared { from, user_root: Some(pa) };
        for i in 0..from {
            self.mirror(0, i);
        }
        Ok(pa)
    }

    /// The root for user mode, if there is one.
    #[must_use]
    pub const fn user_root(&self) -> Option<PhysAddr> {
        match self.half {
            Half::Shared { user_root, .. } => user_root,
            _ => None,
        }
    }

    /// Where the pinned part begins; behind the last entry if nothing is pinned.
    fn pinned_from(&self) -> u64 {
        match self.half {
            Half::Pinned { from } => from,
            _ => 1 << F::LEVELS[0].bits,
        }
    }

    /// Writes an entry of the root, if it is one, to the root for user mode as well.
    #[inline]
    pub(super) fn mirror(&self, depth: usize, index: u64) {
        if let (0, Half::Shared { user_root: Some(user), .. }) = (depth, self.half) {
            let raw = self.node(self.root).slot(index).load();
            self.node(user).slot(index).store(without_count::<F>(raw));
        }
    }

    /// Bytes of the nodes that are this table's own.
    pub(super) fn own_bytes(&self) -> u64 {
        let user_root = self.user_root().map_or(0, |_| Self::node_bytes(0));
        user_root + self.bytes_below(self.root, 0, self.own_entries)
    }

    /// Gives everything to the gather, with a flush of all of it.
    pub(super) fn give_up<G: Gather<Detached<F, M>>>(self, gather: &mut G) {
        let global = self.may_be_global();
        let own = self.own_entries;
        let everything = everything(F::CANONICAL, global);
        if let Some(user) = self.user_root() {
            super::change::make_room(gather);
            let part = Detached::new(self.mem.clone(), user, 0, 0).with_entries(0);
            // A detached part has one flush, and a root translates two halves.
            gather.stale(everything[1]);
            gather.detach(everything[0], part);
        }
        super::change::make_room(gather);
        // Again: room may have been made by a drain.
        gather.stale(everything[1]);
        gather.detach(everything[0], Detached::new(self.mem, self.root, 0, 0).with_entries(own));
    }
}

/// All that a table translates, as two flushes.
fn everything(canonical: Canonical, global: bool) -> [Flush; 2] {
    canonical.halves().map(|(va, len)| Flush::tables(va, len, global))
}

/// Copies the entries from `from` on, without counts: those are kept by the owner.
fn copy_entries<F: Format, M: Memory>(source: Node<'_, F, M>, to: Node<'_, F, M>, from: u64) {
    for i in from..1 << F::LEVELS[0].bits {
        to.slot(i).store(without_count::<F>(source.slot(i).load()));
    }
}

fn without_count<F: Format>(raw: u64) -> u64 {
    match F::COUNT_SHIFT {
        Some(shift) => raw & !(0x3ff << shift),
        None => raw,
    }
}
