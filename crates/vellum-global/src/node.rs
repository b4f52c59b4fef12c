//! Nodes of three words in a chain, by physical address.
//!
//! ```text
//!   link of the design        node (24 bytes, anywhere)         node
//!  +---------+               +-----+------+-----+              +-----+------+-----+
//!  | address |-------------> | tag | next | raw |  next -----> | tag | 0    | raw |
//!  +---------+               +-----+------+-----+              +-----+------+-----+
//!                              0     8      16
//! ```
//!
//! A node does not say where it lives: of a pool, a bucket of a directory, or the entry of a frame.
//! So chained, inverted and PowerPC's tables share this traversal, and a walker of each reads tag
//! and next of every node that is not the one (16 bytes), and all of the one that is (24 bytes).
//!
//! A look-up takes no lock: it goes along the links under a [`Version`] that covers the chain, and
//! follows none that it read in a node before it saw that the version had not moved since: a node that
//! was freed meanwhile holds something else there. What the chain begins with is always a link.
//!
//! # Invariants
//!
//! - Nodes of a chain are linked, unlinked and changed only by the holder of its sequence lock.
//! - No node lies at physical address 0, which ends a chain.
//! - A link that was in a chain while its version was current leads to a node whose frame stays with
//!   the table: so it can be read, even if it is in no chain any more. The word that a chain begins
//!   with holds nothing else, ever.

use crate::notes::Note;
use crate::sequence::Version;
use crate::word::{load, store, with_words};
use crate::{Key, Lowest};
use core::fmt;
use core::sync::atomic::Ordering;
use vellum_core::{PhysAddr, PhysMap};

const TAG: u64 = 0;
const NEXT: u64 = 8;
const RAW: u64 = 16;

/// Bytes that a walker reads of a node with another tag.
pub const MISS_BYTES: u8 = 16;
/// Bytes that a walker reads of the node that it looks for; all of it.
pub const HIT_BYTES: u8 = 24;

/// A node at its place.
pub struct Node<'m, M> {
    memory: &'m M,
    at: PhysAddr,
}

/// The words of a node, as a look-up reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// The tag of its key.
    pub tag: u64,
    /// The address of the next node, or 0.
    pub next: u64,
    /// Its raw entry.
    pub raw: u64,
}

/// Where a node was found.
#[derive(Debug)]
pub struct Found<'m, M> {
    /// The node.
    pub node: Node<'m, M>,
    /// The one before it; `None` for the first.
    pub before: Option<Node<'m, M>>,
}

impl<'m, M: PhysMap> Node<'m, M> {
    /// The node at `at`.
    ///
    /// # Safety
    ///
    /// `at` is a multiple of 8, and it and the 23 bytes behind lie in one frame of `memory`, which
    /// stays for as long as `'m`; whoever touches them does so through [`word`](crate::word).
    #[inline]
    pub const unsafe fn new(memory: &'m M, at: PhysAddr) -> Self {
        Self { memory, at }
    }

    /// The node that a link leads to; `None` at the end of a chain.
    ///
    /// # Safety
    ///
    /// `link` is 0, or an address as [`new`](Self::new) wants it: that of a node which was in a chain
    /// when its lock was held, or its version current, since the link was read.
    #[inline]
    pub unsafe fn follow(memory: &'m M, link: u64) -> Option<Self> {
        // SAFETY: the caller's.
        (link != 0).then(|| unsafe { Self::new(memory, PhysAddr::new(link)) })
    }

    /// Its address.
    #[inline]
    pub const fn at(&self) -> PhysAddr {
        self.at
    }

    /// All three words.
    #[inline]
    pub fn words(&self) -> Words {
        // SAFETY: by `new`.
        let [tag, next, raw] = unsafe {
            with_words(self.memory, self.at, |words: &[_; 3]| {
                words.each_ref().map(|word| word.load(Ordering::Relaxed))
            })
        };
        Words { tag, next, raw }
    }

    fn load(&self, offset: u64) -> u64 {
        // SAFETY: by `new`; offsets are those of the three words.
        unsafe { load(self.memory, self.at.wrapping_add(offset)) }
    }

    fn store(&self, offset: u64, value: u64) {
        // SAFETY: as in `load`.
        unsafe { store(self.memory, self.at.wrapping_add(offset), value) }
    }

    /// The tag of its key.
    #[inline]
    pub fn tag(&self) -> u64 {
        self.load(TAG)
    }

    /// The address of the next node, or 0.
    #[inline]
    pub fn next(&self) -> u64 {
        self.load(NEXT)
    }

    /// Its raw entry.
    #[inline]
    pub fn raw(&self) -> u64 {
        self.load(RAW)
    }

    /// Links it to another, or to none.
    #[inline]
    pub fn set_next(&self, next: u64) {
        self.store(NEXT, next);
    }

    /// Gives it another entry.
    #[inline]
    pub fn set_raw(&self, raw: u64) {
        self.store(RAW, raw);
    }

    /// Sets all three words.
    #[inline]
    pub fn set(&self, Words { tag, next, raw }: Words) {
        let values = [tag, next, raw];
        // SAFETY: by `new`.
        unsafe {
            with_words(self.memory, self.at, |words: &[_; 3]| {
                words
                    .iter()
                    .zip(values)
                    .for_each(|(word, value)| word.store(value, Ordering::Relaxed));
            });
        }
    }

    /// Makes it one of `key`.
    #[inline]
    pub fn fill(&self, key: Key, next: u64, raw: u64) {
        self.set(Words { tag: key.tag(), next, raw });
    }
}

/// The nodes from a link on.
///
/// # Safety
///
/// The lock of the chain is held for as long as the iterator is used, and `link` is in it. Nodes that
/// were returned may be unlinked, but not changed otherwise.
pub unsafe fn nodes<M: PhysMap>(memory: &M, mut link: u64) -> impl Iterator<Item = Node<'_, M>> {
    core::iter::from_fn(move || {
        // SAFETY: the caller's.
        let node = unsafe { Node::follow(memory, link) }?;
        link = node.next();
        Some(node)
    })
}

/// The node of `key`, from a link on.
///
/// # Safety
///
/// The lock of the chain is held, and `link` is in it.
#[inline]
pub unsafe fn find<M: PhysMap>(memory: &M, mut link: u64, key: Key) -> Option<Found<'_, M>> {
    let mut before = None;
    // SAFETY: the caller's.
    while let Some(node) = unsafe { Node::follow(memory, link) } {
        let words = node.words();
        if words.tag == key.tag() {
            return Some(Found { node, before });
        }
        link = words.next;
        before = Some(node);
    }
    None
}

/// Offers every node from a link on.
///
/// # Safety
///
/// As [`find`].
pub unsafe fn offer<M: PhysMap>(memory: &M, link: u64, found: &mut Lowest) {
    // SAFETY: the caller's.
    for node in unsafe { nodes(memory, link) } {
        if let Some(key) = Key::from_tag(node.tag()) {
            found.offer(key, node.raw());
        }
    }
}

/// The raw entry of `key`, from a link on, or 0, noting what a walker reads; `None` if somebody wrote
/// meanwhile.
///
/// # Safety
///
/// `link` was read since `version` was begun, which is that of the sequence lock of the chain, in a
/// word that always holds 0 or leads to a node; that and the nodes which the links of nodes in the
/// chain lead to are as [`Node::new`] wants them, whether or not they are still in it.
#[inline]
pub unsafe fn look<'m, M: PhysMap>(
    memory: &'m M,
    version: &Version<'m, M>,
    mut link: u64,
    key: Key,
    notes: &mut impl Note,
) -> Option<u64> {
    loop {
        // SAFETY: the first link, or the version was current after it was read in a node that was in
        // the chain, so it was too.
        let Some(node) = (unsafe { Node::follow(memory, link) }) else {
            return version.is_current().then_some(0);
        };
        let words = node.words();
        if words.tag == key.tag() {
            notes.note(node.at(), HIT_BYTES, false);
            return version.is_current().then_some(words.raw);
        }
        notes.note(node.at(), MISS_BYTES, false);
        if !version.is_current() {
            return None;
        }
        link = words.next;
    }
}

impl<M> Clone for Node<'_, M> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Node<'_, M> {}

impl<M> fmt::Debug for Node<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.at)
    }
}

#[cfg(test)]
mod tests;
