//! One node: the entries of a block of pages, and the two ways in which it holds them.
//!
//! ```text
//!   0      8             16     24            144
//!  +------+-------------+------+------+ - - -+------+
//!  | tag  | next    | 0 | pte 0| pte 1|      |pte 15|   base: an entry a page
//!  +------+-------------+------+------+ - - -+------+
//!  | tag  | next    | 1 | pte  | 0 | D | A | V |      |   partial-subblock: one for all of them
//!  +------+-------------+------+---+---+---+---+- - -+
//!                               63  47  31  15 ..  0     16 bits each; bit i is page i's
//!
//!   partial: entry of page i = pte + i pages | A(i) | D(i), if V(i)
//! ```
//!
//! The second kind is what a block becomes whose pages agree in everything but accessed and dirty,
//! and lie in frames as they do in the block: page i in frame i of an aligned run. The trial design
//! has one valid vector and loses the status of single pages; here they are two vectors beside it,
//! so that it is as exact as the first kind. A partial-subblock with a full vector is the paper's
//! superpage: a TLB with entries of the block's size can take it in one.
//!
//! A node has the room of the first kind in any case, so that a page of a block can change alone
//! without memory for a larger node; what the second kind saves is the line of its pte.
//!
//! # Invariants
//!
//! - A node in a chain has an entry at least.
//! - Words of a node that is in a chain are stored under its stripe.
//! - A block whose pages agree is a partial-subblock, after its last page was changed.

use super::LINE;
use core::sync::atomic::Ordering::Relaxed;
use vellum_core::{PAGE_SHIFT, PhysAddr, PhysMap, pte};
use vellum_global::word::{load, store, with_words};
use vellum_global::{Key, Size};

const TAG: u64 = 0;
const NEXT: u64 = 8;
/// Bytes before the entries.
pub(super) const HEADER: u64 = 16;
const WORD: u64 = 8;
/// In the word of the next node: the kind. Nodes are aligned to 8.
const PARTIAL: u64 = 1;
/// In a tag: the class of the size.
const CLASS_SHIFT: u32 = 61;
const KINDS: u64 = 0b111;

/// Accessed, in the word of vectors, and dirty; valid is at 0.
const A_SHIFT: u32 = 16;
const D_SHIFT: u32 = 32;
const STATUS: u64 = pte::ACCESSED | pte::DIRTY;

/// A node at its place.
pub(super) struct Block<'m, M, const PAGES: usize> {
    memory: &'m M,
    at: PhysAddr,
}

/// What a node begins with.
pub(super) struct Header {
    pub(super) tag: u64,
    /// The address of the next node, or 0.
    pub(super) next: u64,
}

/// Which kind a node is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Base,
    Partial,
}

/// What is left of a block after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Left {
    Entries,
    Nothing,
}

/// The bits of page `i` in the vectors.
const fn bits(i: usize, raw: u64) -> u64 {
    let a = if raw & pte::ACCESSED != 0 { 1 << A_SHIFT } else { 0 };
    let d = if raw & pte::DIRTY != 0 { 1 << D_SHIFT } else { 0 };
    (1 | a | d) << i
}

/// All three bits of page `i`.
const fn all_bits(i: usize) -> u64 {
    (1 | 1 << A_SHIFT | 1 << D_SHIFT) << i
}

/// The entry of page `i` by a partial-subblock's two words.
fn unfold(word: u64, vectors: u64, i: usize, step: u8) -> u64 {
    if vectors >> i & 1 == 0 {
        return 0;
    }
    let a = if vectors >> A_SHIFT >> i & 1 != 0 { pte::ACCESSED } else { 0 };
    let d = if vectors >> D_SHIFT >> i & 1 != 0 { pte::DIRTY } else { 0 };
    // A look-up that comes too late may have read any words: none must make it panic.
    word | (i as u64) << step | a | d
}

/// The word of a partial-subblock which page `i` of this entry can be in; none if it is no leaf, or
/// not in the frame of its place.
fn fold<const PAGES: usize>(raw: u64, i: usize, step: u8) -> Option<u64> {
    let leaf = matches!(pte::decode(raw, step), vellum_core::Entry::Leaf(..));
    let place = raw >> step & (PAGES as u64 - 1);
    (leaf && place == i as u64).then(|| (raw & !STATUS) - ((i as u64) << step))
}

impl<'m, M: PhysMap, const PAGES: usize> Block<'m, M, PAGES> {
    /// Whether there is a second kind: not where a node is one line and its pages no power of two.
    pub(super) const HAS_PARTIAL: bool =
        PAGES.is_power_of_two() && PAGES <= 16 && Self::BYTES > LINE;
    /// Bytes of a node.
    pub(super) const BYTES: u64 = HEADER + PAGES as u64 * WORD;

    /// The node at `at`.
    ///
    /// # Safety
    ///
    /// `at` is that of a node of such a size in a pool over `memory`, whose frames stay for as long
    /// as `'m`; whoever touches its words does so through [`word`](vellum_global::word).
    pub(super) const unsafe fn new(memory: &'m M, at: PhysAddr) -> Self {
        Self { memory, at }
    }

    pub(super) const fn at(&self) -> PhysAddr {
        self.at
    }

    fn load(&self, offset: u64) -> u64 {
        // SAFETY: by `new`; offsets are multiples of 8 below `BYTES`.
        unsafe { load(self.memory, self.at.wrapping_add(offset)) }
    }

    fn store(&self, offset: u64, value: u64) {
        // SAFETY: as in `load`.
        unsafe { store(self.memory, self.at.wrapping_add(offset), value) }
    }

    /// Tag and link, as a look-up reads them.
    #[inline]
    pub(super) fn header(&self) -> Header {
        // SAFETY: by `new`.
        let [tag, next] = unsafe {
            with_words(self.memory, self.at, |words: &[_; 2]| {
                words.each_ref().map(|word| word.load(Relaxed))
            })
        };
        Header { tag, next: next & !KINDS }
    }

    pub(super) fn tag(&self) -> u64 {
        self.load(TAG)
    }

    /// The address of the next node, or 0, and the kind of this one.
    pub(super) fn next(&self) -> (u64, Kind) {
        let word = self.load(NEXT);
        (word & !KINDS, if word & PARTIAL == 0 { Kind::Base } else { Kind::Partial })
    }

    pub(super) fn set_next(&self, next: u64) {
        self.store(NEXT, next | self.load(NEXT) & KINDS);
    }

    fn set_kind(&self, kind: Kind) {
        let bit = if kind == Kind::Partial { PARTIAL } else { 0 };
        self.store(NEXT, self.load(NEXT) & !KINDS | bit);
    }

    /// Where the entry of page `i` is, in a node of the first kind.
    pub(super) fn place(&self, i: usize) -> PhysAddr {
        self.at.wrapping_add(Self::offset(i))
    }

    const fn offset(i: usize) -> u64 {
        HEADER + (i % PAGES) as u64 * WORD
    }

    /// The entry of page `i`, or 0.
    #[inline]
    pub(super) fn entry(&self, i: usize) -> u64 {
        match self.next() {
            (_, Kind::Base) => self.load(Self::offset(i)),
            (_, Kind::Partial) => {
                unfold(self.load(Self::offset(0)), self.load(Self::offset(1)), i, self.step())
            }
        }
    }

    /// Every entry, 0 where there is none.
    pub(super) fn entries(&self) -> [u64; PAGES] {
        match self.next().1 {
            Kind::Base => core::array::from_fn(|i| self.load(Self::offset(i))),
            Kind::Partial => {
                let (word, vectors) = (self.load(Self::offset(0)), self.load(Self::offset(1)));
                let step = self.step();
                core::array::from_fn(|i| unfold(word, vectors, i, step))
            }
        }
    }

    /// log2 of the bytes of a page of this block.
    #[inline]
    fn step(&self) -> u8 {
        // What is no tag was read too late, and any size will do.
        Size::of_class(self.tag() >> CLASS_SHIFT & 0b11).map_or(PAGE_SHIFT, Size::page)
    }

    /// Makes a fresh node one of block `key`, with this entry for page `i`.
    pub(super) fn begin(&self, key: Key, next: u64, i: usize, raw: u64) {
        self.store(TAG, key.tag());
        self.store(NEXT, next);
        (0..PAGES).for_each(|j| self.store(Self::offset(j), 0));
        let _ = self.set(i, raw);
    }

    /// Replaces the entry of page `i`.
    pub(super) fn set(&self, i: usize, raw: u64) -> Left {
        if self.next().1 == Kind::Partial {
            if let Some(left) = self.set_partial(i, raw) {
                return left;
            }
            let entries = self.entries();
            self.set_kind(Kind::Base);
            (0..).zip(entries).for_each(|(j, raw)| self.store(Self::offset(j), raw));
        }
        self.store(Self::offset(i), raw);
        self.tidy()
    }

    /// [`set`](Self::set) in a partial-subblock, if it can stay one.
    fn set_partial(&self, i: usize, raw: u64) -> Option<Left> {
        let (word, vectors) = (self.load(Self::offset(0)), self.load(Self::offset(1)));
        let others = vectors & !all_bits(i);
        if raw == 0 {
            self.store(Self::offset(1), others);
            return Some(if others == 0 { Left::Nothing } else { Left::Entries });
        }
        let folded = fold::<PAGES>(raw, i, self.step())?;
        if folded != word && others != 0 {
            return None;
        }
        self.store(Self::offset(0), folded);
        self.store(Self::offset(1), others | bits(i, raw));
        Some(Left::Entries)
    }

    /// Makes a partial-subblock of a base node whose pages agree; stops at the first that does not.
    fn tidy(&self) -> Left {
        let entries = (0..PAGES).map(|i| (i, self.load(Self::offset(i))));
        let mut used = entries.filter(|&(_, raw)| raw != 0);
        let Some(first) = used.next() else { return Left::Nothing };
        if let Some((word, vectors)) = self.agree(first, used) {
            self.become_partial(word, vectors);
        }
        Left::Entries
    }

    /// Replaces all entries.
    pub(super) fn set_all(&self, entries: &[u64; PAGES]) -> Left {
        let mut used = (0..).zip(entries.iter().copied()).filter(|&(_, raw)| raw != 0);
        let agreed = used.next().map(|first| self.agree(first, used));
        if let Some(Some((word, vectors))) = agreed {
            self.become_partial(word, vectors);
        } else {
            self.set_kind(Kind::Base);
            (0..).zip(entries).for_each(|(i, &raw)| self.store(Self::offset(i), raw));
        }
        if agreed.is_some() { Left::Entries } else { Left::Nothing }
    }

    /// The words of a partial-subblock with these entries, if there is one.
    fn agree(
        &self,
        (i, raw): (usize, u64),
        mut rest: impl Iterator<Item = (usize, u64)>,
    ) -> Option<(u64, u64)> {
        if !Self::HAS_PARTIAL {
            return None;
        }
        let step = self.step();
        let word = fold::<PAGES>(raw, i, step)?;
        let vectors = rest.try_fold(bits(i, raw), |vectors, (j, raw)| {
            (fold::<PAGES>(raw, j, step) == Some(word)).then(|| vectors | bits(j, raw))
        });
        Some((word, vectors?))
    }

    fn become_partial(&self, word: u64, vectors: u64) {
        self.store(Self::offset(0), word);
        self.store(Self::offset(1), vectors);
        self.set_kind(Kind::Partial);
    }
}

#[cfg(test)]
mod tests;
