//! The groups of one table in memory, and the chains of what they have no room for.
//!
//! ```text
//!   groups, 128 bytes each: 8 slots {v, r}           heads, a word for each pair of groups
//!  +-----------------------------------------+      +----------------+
//!  | group 0      primary of hash 0          | -\   | pair 0         | --> node --> node --> 0
//!  +-----------------------------------------+   \  +----------------+
//!  | group 1                                 |    > | pair 1         |
//!  | ...                                     |   /  | ...            |
//!  +-----------------------------------------+  /   +----------------+
//!  | group N-1    secondary of hash 0        | -    | pair N/2 - 1   |
//!  +-----------------------------------------+      +----------------+
//!
//!   node, 24 bytes:  tag | next | raw entry (vellum_global::node)
//! ```
//!
//! The secondary group of a hash is the complement of its primary one, so groups g and N-1-g are the
//! two groups of the same hashes: a *pair*, of 16 slots, which share nothing with any other. The
//! number of a pair is the lower of the two.
//!
//! # Invariants
//!
//! - A free slot is all 0.
//! - Where a pair has nodes, its 16 slots are taken.

use super::entry::{SECONDARY, V_AVPN, decode, encode, is_taken};
use super::virt::Virtual;
use core::sync::atomic::Ordering::Relaxed;
use vellum_core::{PhysAddr, PhysMap};
use vellum_global::word::{load, store, with_words};
use vellum_global::{Key, Node, node};

/// Slots of a group.
pub(super) const SLOTS: u64 = 8;
/// Bytes of a group.
pub(super) const GROUP_BYTES: u64 = SLOTS * SLOT_BYTES;
const SLOT_BYTES: u64 = 16;
const WORD: u64 = 8;

/// A table of 2<sup>`log2`</sup> groups.
pub(super) struct Table<'m, M> {
    memory: &'m M,
    groups: PhysAddr,
    heads: PhysAddr,
    log2: u8,
}

/// One slot of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) group: u64,
    index: u64,
}

/// Where an entry is.
#[derive(Debug)]
pub(super) enum Found<'m, M> {
    Slot(Slot),
    /// And the node before it.
    Node(Node<'m, M>, Option<Node<'m, M>>),
}

/// The pair of a hash, or of a group, among 2<sup>`log2`</sup> groups.
pub(super) const fn pair_of(hash: u64, log2: u8) -> u64 {
    let (mask, group) = ((1 << log2) - 1, hash & ((1 << log2) - 1));
    if group < mask - group { group } else { mask - group }
}

/// The slots of a group.
pub(super) fn slots(group: u64) -> impl DoubleEndedIterator<Item = Slot> + Clone {
    (0..SLOTS).map(move |index| Slot { group, index })
}

impl<'m, M: PhysMap> Table<'m, M> {
    /// The table in these two blocks.
    ///
    /// # Safety
    ///
    /// `groups` is a block of 2<sup>`log2`</sup> times 128 bytes in `memory`, `heads` one of half as
    /// many words, and both stay for as long as `'m`; whoever touches them does so through
    /// [`word`](vellum_global::word). What is in a chain are nodes, of a pool whose frames stay too.
    pub(super) const unsafe fn new(
        memory: &'m M,
        (groups, heads): (PhysAddr, PhysAddr),
        log2: u8,
    ) -> Self {
        Self { memory, groups, heads, log2 }
    }

    const fn mask(&self) -> u64 {
        (1 << self.log2) - 1
    }

    pub(super) const fn count_pairs(&self) -> u64 {
        1 << (self.log2 - 1)
    }

    /// The primary and the secondary group of a hash; of a pair's number, both of its groups.
    pub(super) const fn groups_of(&self, hash: u64) -> [u64; 2] {
        [hash & self.mask(), !hash & self.mask()]
    }

    pub(super) const fn group_at(&self, group: u64) -> PhysAddr {
        self.groups.wrapping_add((group & self.mask()) * GROUP_BYTES)
    }

    const fn slot_at(&self, slot: Slot) -> PhysAddr {
        self.group_at(slot.group).wrapping_add(slot.index % SLOTS * SLOT_BYTES)
    }

    /// The first doubleword.
    pub(super) fn v(&self, slot: Slot) -> u64 {
        // SAFETY: a word of the block, by the masks; the rest by `new`.
        unsafe { load(self.memory, self.slot_at(slot)) }
    }

    /// The second doubleword.
    pub(super) fn r(&self, slot: Slot) -> u64 {
        // SAFETY: as in `v`.
        unsafe { load(self.memory, self.slot_at(slot).wrapping_add(WORD)) }
    }

    /// Stores both, the valid bit last.
    pub(super) fn set(&self, slot: Slot, v: u64, r: u64) {
        let at = self.slot_at(slot);
        // SAFETY: as in `v`.
        unsafe { store(self.memory, at.wrapping_add(WORD), r) };
        // SAFETY: as in `v`.
        unsafe { store(self.memory, at, v) };
    }

    /// Stores an entry of `page`, in one of the two groups of that.
    pub(super) fn put(&self, slot: Slot, page: Virtual, raw: u64) {
        let (bits, r) = encode(raw);
        self.set(slot, self.v_of(slot, page) | bits, r);
    }

    /// The tag and H of `page` in a slot.
    pub(super) const fn v_of(&self, slot: Slot, page: Virtual) -> u64 {
        let primary = page.hash() & self.mask() == slot.group;
        page.avpn() | if primary { 0 } else { SECONDARY }
    }

    /// The page and the raw entry in a slot that is taken.
    pub(super) fn entry(&self, slot: Slot) -> (Virtual, u64) {
        let v = self.v(slot);
        (Virtual::found(v, slot.group), decode(v, self.r(slot)))
    }

    /// The slot of a group that is taken with this tag and H: its index, and both doublewords.
    #[inline(always)]
    pub(super) fn search(&self, group: u64, tag: u64) -> Option<(u64, [u64; 2])> {
        if tag == 0 {
            return self.search_among_free(group);
        }
        // SAFETY: the 16 words of a group of the block, by the mask, which do not cross a frame; the
        // rest by `new`.
        unsafe {
            with_words(self.memory, self.group_at(group), |words: &[_; 2 * SLOTS as usize]| {
                // All of them, and without a branch that no processor could predict.
                let mut at = words.len();
                for (n, slot) in words.chunks_exact(2).enumerate() {
                    let [first, ..] = slot else { continue };
                    let hit = first.load(Relaxed) & (V_AVPN | SECONDARY) == tag;
                    at = if hit { 2 * n } else { at };
                }
                let both = words.get(at..)?.first_chunk::<2>()?;
                Some((at as u64 / 2, both.each_ref().map(|word| word.load(Relaxed))))
            })
        }
    }

    /// [`search`](Self::search) for the tag that a free slot has too: of the first pages of the one
    /// segment whose identifier is 0.
    #[cold]
    fn search_among_free(&self, group: u64) -> Option<(u64, [u64; 2])> {
        let mut slots = slots(group).map(|slot| (slot.index, [self.v(slot), self.r(slot)]));
        slots.find(|&(_, [v, _])| is_taken(v) && v & (V_AVPN | SECONDARY) == 0)
    }

    /// Whether all slots of a group are taken; one that is free is mostly the last.
    #[inline]
    pub(super) fn is_full(&self, group: u64) -> bool {
        slots(group).rev().all(|slot| is_taken(self.v(slot)))
    }

    /// A free slot for `page`: of its primary group if there is one.
    pub(super) fn free_slot(&self, page: Virtual) -> Option<Slot> {
        let mut slots = self.groups_of(page.hash()).into_iter().flat_map(slots);
        slots.find(|&slot| !is_taken(self.v(slot)))
    }

    pub(super) const fn head_at(&self, pair: u64) -> PhysAddr {
        self.heads.wrapping_add((pair & (self.mask() >> 1)) * WORD)
    }

    /// The address of a pair's first node, or 0.
    pub(super) fn head(&self, pair: u64) -> u64 {
        // SAFETY: a word of the block, by the mask; the rest by `new`.
        unsafe { load(self.memory, self.head_at(pair)) }
    }

    pub(super) fn set_head(&self, pair: u64, first: u64) {
        // SAFETY: as in `head`.
        unsafe { store(self.memory, self.head_at(pair), first) }
    }

    /// The node that a link leads to.
    ///
    /// # Safety
    ///
    /// `link` was in a chain of this table when its stripe was held, or its version current, since
    /// it was read.
    pub(super) unsafe fn follow(&self, link: u64) -> Option<Node<'m, M>> {
        // SAFETY: links in chains are 0 or lead to nodes, which stay, by `new`.
        unsafe { Node::follow(self.memory, link) }
    }

    /// The pair of `page`.
    pub(super) const fn pair(&self, page: Virtual) -> u64 {
        pair_of(page.hash(), self.log2)
    }

    /// The entry of a page, whose stripe is held.
    pub(super) fn find(&self, page: Virtual, key: Key) -> Option<Found<'m, M>> {
        for (group, h) in self.groups_of(page.hash()).into_iter().zip([0, SECONDARY]) {
            if let Some((index, _)) = self.search(group, page.avpn() | h) {
                return Some(Found::Slot(Slot { group, index }));
            }
        }
        // SAFETY: the stripe is held.
        let found = unsafe { node::find(self.memory, self.head(self.pair(page)), key) }?;
        Some(Found::Node(found.node, found.before))
    }

    /// Makes a node, the caller's alone, the first of its pair.
    pub(super) fn push(&self, node: &Node<'m, M>, (page, key): (Virtual, Key), raw: u64) {
        let pair = self.pair(page);
        node.fill(key, self.head(pair), raw);
        self.set_head(pair, node.at().as_u64());
    }

    /// Makes everything of a pair free.
    pub(super) fn clear(&self, pair: u64) {
        self.groups_of(pair).into_iter().flat_map(slots).for_each(|slot| self.set(slot, 0, 0));
        self.set_head(pair, 0);
    }

    /// Calls `f` with every entry of a pair whose stripe is held, in slots and then in nodes.
    pub(super) fn each(&self, pair: u64, mut f: impl FnMut(Virtual, u64)) {
        for slot in self.groups_of(pair).into_iter().flat_map(slots) {
            if is_taken(self.v(slot)) {
                let (page, raw) = self.entry(slot);
                f(page, raw);
            }
        }
        let mut link = self.head(pair);
        // SAFETY: the stripe is held.
        while let Some(node) = unsafe { self.follow(link) } {
            if let Some(key) = Key::from_tag(node.tag()) {
                f(Virtual::of(key), node.raw());
            }
            link = node.next();
        }
    }
}
