//! A chain of elements behind a locked head, by physical address.
//!
//! ```text
//!   head                 element (24 bytes, anywhere)         element
//!  +-----------+---+    +-----+------+-----+                 +-----+------+-----+
//!  | address --|-> | -> | tag | link | pte |  link --------> | tag | 0    | pte |
//!  +-----------+---+    +-----+------+-----+                 +-----+------+-----+
//!    bit 0: held          0     8      16
//! ```
//!
//! An element does not say where it lives: a node of the pool, or the entry of a frame. So the
//! chained hash and the inverted table share this traversal, and a walker of either reads the head
//! (8 bytes), tag and link of each element that is not the one (16 bytes), and all of the one that
//! is (24 bytes).
//!
//! # Invariants
//!
//! - Elements of a chain are linked, unlinked and changed only under its lock.
//! - No element lies at physical address 0, which ends a chain.

use crate::word::{load, store, with_word};
use crate::{Key, Lowest, lock};
use vellum_core::{PhysAddr, PhysMap, Ref, Sink};

const TAG: u64 = 0;
const LINK: u64 = 8;
const PTE: u64 = 16;

/// Bytes of a head.
pub const HEAD_BYTES: u8 = 8;
/// Bytes that a walker reads of an element with another tag.
pub const MISS_BYTES: u8 = 16;
/// Bytes that a walker reads of the element that it looks for; all of it.
pub const HIT_BYTES: u8 = 24;

/// A locked chain; dropping it gives the lock back.
#[must_use = "the chain is locked until this is dropped"]
pub struct Chain<'m, M: PhysMap> {
    memory: &'m M,
    at: PhysAddr,
    head: u64,
}

/// Where an element was found.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// Its address.
    pub at: PhysAddr,
    /// Its raw entry.
    pub pte: u64,
    /// The element before it; `None` at the head.
    before: Option<PhysAddr>,
}

fn follow(link: u64) -> Option<PhysAddr> {
    (link != 0).then(|| PhysAddr::new(link))
}

impl<'m, M: PhysMap> Chain<'m, M> {
    /// Locks the chain whose head word is at `at`.
    ///
    /// # Safety
    ///
    /// For as long as the chain is locked: `at` and all elements are words of frames taken from
    /// `memory` and not given back, aligned to 8; nobody writes to them but under this lock, and
    /// whoever reads them does so through [`word`](crate::word); the links end at 0.
    pub unsafe fn lock(memory: &'m M, at: PhysAddr) -> Self {
        // SAFETY: the caller's.
        let head = unsafe { with_word(memory, at, lock::acquire) };
        Self { memory, at, head }
    }

    /// A word of an element.
    fn load(&self, element: PhysAddr, offset: u64) -> u64 {
        // SAFETY: `lock` was promised that everything linked here is a word of the table, and the
        // lock is held; `element` came out of a link, or in by `insert`.
        unsafe { load(self.memory, element.wrapping_add(offset)) }
    }

    fn store(&mut self, element: PhysAddr, offset: u64, value: u64) {
        // SAFETY: as in `load`.
        unsafe { store(self.memory, element.wrapping_add(offset), value) }
    }

    fn elements(&self) -> impl Iterator<Item = PhysAddr> + '_ {
        let mut link = self.head;
        core::iter::from_fn(move || {
            let at = follow(link)?;
            link = self.load(at, LINK);
            Some(at)
        })
    }

    /// The element of `key`; `read` is told of each element that a walker reads, the one last.
    pub fn find(&self, key: Key, mut read: impl FnMut(PhysAddr)) -> Option<Found> {
        let mut before = None;
        for at in self.elements() {
            read(at);
            if self.load(at, TAG) == key.tag() {
                return Some(Found { at, pte: self.load(at, PTE), before });
            }
            before = Some(at);
        }
        None
    }

    /// Offers every element of the chain.
    pub fn offer(&self, found: &mut Lowest) {
        for at in self.elements() {
            if let Some(key) = Key::from_tag(self.load(at, TAG)) {
                found.offer(key, self.load(at, PTE));
            }
        }
    }

    /// How many elements it has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.elements().fold(0, |n, _| n + 1)
    }

    /// Makes `element` the first, with this key and entry.
    ///
    /// # Safety
    ///
    /// `element` is 24 bytes of table memory as [`lock`](Self::lock) wants them, not at address 0,
    /// in no chain, and the caller's alone.
    pub unsafe fn insert(&mut self, element: PhysAddr, key: Key, pte: u64) {
        self.store(element, TAG, key.tag());
        self.store(element, LINK, self.head);
        self.store(element, PTE, pte);
        self.head = element.as_u64();
    }

    /// Takes an element out, which is the caller's then.
    ///
    /// # Safety
    ///
    /// `found` was found in this chain since it was locked, and nothing was inserted or unlinked
    /// since.
    pub unsafe fn unlink(&mut self, found: &Found) {
        let link = self.load(found.at, LINK);
        match found.before {
            Some(before) => self.store(before, LINK, link),
            None => self.head = link,
        }
    }

    /// Gives an element another entry.
    ///
    /// # Safety
    ///
    /// `found` was found in this chain since it was locked, and was not unlinked since.
    pub unsafe fn write(&mut self, found: &Found, pte: u64) {
        self.store(found.at, PTE, pte);
    }

    /// Takes out every element whose key `moves`; the first of them, linked to the rest, or 0.
    pub fn split_off(&mut self, moves: impl Fn(Key) -> bool) -> u64 {
        let (mut link, mut before, mut moved) = (self.head, None, 0);
        while let Some(at) = follow(link) {
            link = self.load(at, LINK);
            if !Key::from_tag(self.load(at, TAG)).is_some_and(&moves) {
                before = Some(at);
                continue;
            }
            match before {
                Some(before) => self.store(before, LINK, link),
                None => self.head = link,
            }
            self.store(at, LINK, moved);
            moved = at.as_u64();
        }
        moved
    }

    /// Takes every element of `other`.
    ///
    /// # Safety
    ///
    /// `other` is a chain in the same memory, whose elements may be in this one from now on.
    pub unsafe fn absorb(&mut self, other: &mut Self) {
        if let Some(last) = other.elements().last() {
            self.store(last, LINK, self.head);
            self.head = core::mem::take(&mut other.head);
        }
    }
}

impl<M: PhysMap> Drop for Chain<'_, M> {
    fn drop(&mut self) {
        // SAFETY: promised to `lock`; the lock is held by `self`.
        unsafe { with_word(self.memory, self.at, |word| lock::release(word, self.head)) }
    }
}

impl<M: PhysMap> core::fmt::Debug for Chain<'_, M> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Chain").field("at", &self.at).field("count", &self.count()).finish()
    }
}

/// What a walk read, kept until the lock is given back: a sink is not called under it.
///
/// It has room for [`Trail::ROOM`] elements. A walk that reads more locks the chain again for the
/// next ones: chains of that length are what a table has that got no memory for its directory.
#[derive(Debug)]
pub struct Trail {
    skip: usize,
    seen: usize,
    read: [PhysAddr; Self::ROOM],
}

impl Trail {
    /// Elements that a trail holds.
    pub const ROOM: usize = 16;

    /// Walks a chain to `key`, tells `sink`, and returns the raw entry, or 0.
    ///
    /// `lock` locks the chain and says where its head is; it may be called more than once.
    pub fn walk<'m, M: PhysMap + 'm, S: Sink>(
        key: Key,
        sink: &mut S,
        mut lock: impl FnMut() -> Chain<'m, M>,
    ) -> u64 {
        if !S::HEARS {
            return lock().find(key, |_| {}).map_or(0, |found| found.pte);
        }
        let mut trail = Self { skip: 0, seen: 0, read: [PhysAddr::new(0); Self::ROOM] };
        loop {
            let (head, found) = {
                let chain = lock();
                (chain.at, chain.find(key, |at| trail.note(at)))
            };
            if trail.skip == 0 {
                sink.reference(reference(head, HEAD_BYTES));
            }
            let new = trail.seen.saturating_sub(trail.skip);
            let hit = found.map(|found| found.at);
            for &at in trail.read.iter().take(new) {
                let bytes = if Some(at) == hit { HIT_BYTES } else { MISS_BYTES };
                sink.reference(reference(at, bytes));
            }
            if new <= Self::ROOM {
                return found.map_or(0, |found| found.pte);
            }
            trail.skip += Self::ROOM;
            trail.seen = 0;
        }
    }

    fn note(&mut self, at: PhysAddr) {
        if let Some(slot) = self.seen.checked_sub(self.skip).and_then(|i| self.read.get_mut(i)) {
            *slot = at;
        }
        self.seen += 1;
    }
}

/// A reference of a walk that shares nothing with the walk to any other page.
fn reference(pa: PhysAddr, bytes: u8) -> Ref {
    Ref { pa, bytes, span: vellum_core::PAGE_SHIFT, parallel: false }
}

#[cfg(test)]
mod tests;
