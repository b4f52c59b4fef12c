//! A cache line that holds the entries of eight neighbouring pages and, in bits that no leaf needs,
//! its own tag.
//!
//! ```text
//!   entry i of a line, 8 bytes of 64
//!  63       59 58               52 51                                           0
//! +-----------+-------------------+----------------------------------------------+
//! | raw entry | tag bits 7i+6..7i | raw entry                                    |
//! +-----------+-------------------+----------------------------------------------+
//!
//!   the tag, 56 bits                           a soft entry: bits 56:52 go up to 63:59
//!   55  54 53         42 41                                                     0
//! +----+--+-------------+--------------------------------------------------------+
//! | 0  |1 | asid        | page number / 8                                        |  4 KiB
//! +----+--+-------------+---+----------------------------------------------------+
//! | 1  |1 | asid        | 0 | number of the 2 MiB leaf / 8                       |
//! +----+--+-------------+---+----------------------------------------------------+
//! | 1  |1 | asid        | 1 | number of the 1 GiB leaf / 8                       |
//! +----+--+-------------+---+----------------------------------------------------+
//! ```
//!
//! One line fetched is tag and translation at once, and what an MMU loads is an entry with its seven
//! bits masked off. A line of zeros is unused: bit 54 of a tag is always 1. A page number of 45 bits
//! (57 of address) fits, and the 12 bits of [`Asids`](vellum_global::Asids).
//!
//! Seven bits of eight entries are all that [`pte`](vellum_core::pte) leaves free, so a soft entry has 55 bits here:
//! those of 62 that would lie in the tag move up, and nothing above them is left.
//!
//! # Invariants
//!
//! - A line in use keeps its tag, whatever happens to its entries, until it is cleared whole.
//! - `decode(encode(raw)) == raw` for every leaf and every soft entry of [`SOFT_BITS`].
//!
//! Source: I. Yaniv, D. Tsafrir, "Hash, Don't Cache (the Page Table)", SIGMETRICS 2016, for the tag of
//! a line in bits that its entries have no use for; which bits hold what is this project's own.

use core::num::NonZeroU64;
use core::sync::atomic::{AtomicU64, Ordering};
use vellum_core::{PAGE_SIZE, PhysAddr, PhysMap, VirtAddr};
use vellum_global::key::mix;
use vellum_global::{Asid, Key, Size};

/// Entries in a line.
pub const ENTRIES: usize = 8;
/// Bytes of a line: a cache line of every processor that Vellum knows.
pub const LINE_BYTES: u64 = 64;
/// How many bits of a soft value an entry in a line holds.
pub const SOFT_BITS: u8 = 55;

/// log2 of the pages in a line.
const GROUP_SHIFT: u32 = ENTRIES.trailing_zeros();
/// Tag bits in each entry.
const PIECE_BITS: u32 = 7;
const PIECE_SHIFT: u32 = 52;
const PIECE: u64 = 0x7f << PIECE_SHIFT;

const GROUP_BITS: u32 = 42;
const GROUP: u64 = (1 << GROUP_BITS) - 1;
const ASID_MASK: u64 = 0xfff;
const USED: u64 = 1 << 54;
/// The eight leaves are larger than 4 KiB.
const LARGE: u64 = 1 << 55;
/// They are of 1 GiB: in the field of the number, which is 33 bits long where leaves are large.
const HUGE: u64 = 1 << (GROUP_BITS - 1);
/// In the last word of a line: bit 54 of its tag.
const USED_IN_WORD: u64 = USED >> (PIECE_BITS * (ENTRIES as u32 - 1)) << PIECE_SHIFT;
/// Above every tag.
const TAG_BITS: u32 = 56;
/// Of the hashes: 2^64 divided by the golden ratio, odd.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
/// And what each way multiplies by: odd, and otherwise of no pattern.
const FACTORS: [u64; 8] = {
    let (mut factors, mut way) = ([0; 8], 0);
    while way < factors.len() {
        factors[way] = mix(way as u64 + 1) | 1;
        way += 1;
    }
    factors
};

/// What a raw soft entry has below the tag, and how its upper bits are shifted past it.
const LOW: u64 = (1 << PIECE_SHIFT) - 1;
const HIGH_SHIFT: u32 = PIECE_SHIFT + PIECE_BITS;
/// Bits that are 0 in soft entries and in holes only: P and R/W.
const LEAF: u64 = 0b11;

/// Which eight leaves of which address space a line is for, as drawn in the [module](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Tag(NonZeroU64);

impl Tag {
    /// The tag of the line that `key` belongs to, whose identifier is one of
    /// [`Asids`](vellum_global::Asids).
    #[must_use]
    #[inline]
    pub const fn of(key: Key) -> Self {
        debug_assert!(key.asid().as_u16() as u64 <= ASID_MASK, "no table has this identifier");
        let group = key.number() >> GROUP_SHIFT;
        let size = match key.size() {
            Size::Base => 0,
            Size::Large => LARGE,
            Size::Huge => LARGE | HUGE,
        };
        let asid = key.asid().as_u16() as u64 & ASID_MASK;
        // Apart from each other and from bit 54, so that this is all of them or'ed.
        Self(UNUSED_BUT_ONE.saturating_add((USED - 1) + (size | asid << GROUP_BITS | group)))
    }

    /// The tag of these bits; `None` if they are no line's.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        match NonZeroU64::new(bits) {
            Some(tag) if bits & USED != 0 && bits >> TAG_BITS == 0 => Some(Self(tag)),
            _ => None,
        }
    }

    /// Its bits, 56 of them at most.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0.get()
    }

    /// The size of its leaves.
    #[must_use]
    pub const fn size(self) -> Size {
        match (self.bits() & LARGE, self.bits() & HUGE) {
            (0, _) => Size::Base,
            (_, 0) => Size::Large,
            _ => Size::Huge,
        }
    }

    /// The key of the leaf whose entry is number `slot` of the line.
    #[must_use]
    pub fn key(self, slot: usize) -> Key {
        let size = self.size();
        let group = if size == Size::Base { GROUP } else { HUGE - 1 };
        let number = (self.bits() & group) << GROUP_SHIFT | (slot % ENTRIES) as u64;
        let asid = self.bits() >> GROUP_BITS & ASID_MASK;
        let asid = u16::try_from(asid).ok().and_then(Asid::new).unwrap_or(Asid::ZERO);
        // A key takes the address's low 57 bits.
        Key::of(asid, VirtAddr::new(number << size.page()), size)
    }

    /// Hash function number `way` of eight: each a bijection of 64 bits, none of which follows from
    /// another by a shift or a step of the tag.
    ///
    /// Multiply, fold the better half over the other, multiply by the way's factor, and turn it
    /// around, since the upper bits of a product are those that depend on all of it and slots are
    /// chosen by the lower ones. What is before the way's factor is the same for all ways, so that
    /// several of them cost little more than one.
    #[must_use]
    #[inline]
    pub const fn hash(self, way: u8) -> u64 {
        let all = self.bits().wrapping_mul(FACTOR);
        let folded = all ^ all >> 32;
        folded.wrapping_mul(FACTORS[(way % 8) as usize]).swap_bytes()
    }

    /// The piece of the tag that entry `slot` has, where it has it, among others.
    #[inline]
    const fn turned(self, slot: u32) -> u64 {
        self.bits().rotate_left(PIECE_SHIFT).rotate_right(slot * PIECE_BITS)
    }

    /// The piece of the tag that entry `slot` has, where it has it.
    #[inline]
    const fn piece(self, slot: u32) -> u64 {
        self.turned(slot) & PIECE
    }
}

const UNUSED_BUT_ONE: NonZeroU64 = NonZeroU64::MIN;

/// Which entry of its line `key` has.
#[must_use]
#[inline]
pub const fn slot(key: Key) -> usize {
    // Below eight.
    (key.number() % ENTRIES as u64) as usize
}

/// A raw entry as a line has it, but for the tag.
#[inline]
const fn encode(raw: u64) -> u64 {
    if raw & LEAF == 0 { raw & LOW | raw >> PIECE_SHIFT << HIGH_SHIFT } else { raw & !PIECE }
}

/// The raw entry of a word of a line.
#[inline]
const fn decode(word: u64) -> u64 {
    if word & LEAF == 0 { decode_soft(word) } else { word & !PIECE }
}

/// Apart, so that who finds a leaf pays for a leaf.
#[cold]
const fn decode_soft(word: u64) -> u64 {
    word & LOW | word >> HIGH_SHIFT << PIECE_SHIFT
}

/// The eight words of a line, where they lie.
///
/// Changes take the lock that covers the line; reads do, or are confirmed by its version.
#[derive(Debug)]
#[repr(transparent)]
pub struct Line([AtomicU64; ENTRIES]);

impl Line {
    fn word(&self, slot: usize) -> u64 {
        self.0.get(slot).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    #[inline]
    fn words(&self) -> [u64; ENTRIES] {
        self.0.each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    /// Whether this is the line of `tag`.
    #[must_use]
    #[inline]
    pub fn is(&self, tag: Tag) -> bool {
        // The piece with the low bits of the page number decides almost always.
        self.may_be(tag) && self.is_wholly(tag)
    }

    /// Whether the first piece of its tag is that of `tag`.
    #[inline]
    pub(crate) fn may_be(&self, tag: Tag) -> bool {
        let [first, ..] = &self.0;
        (first.load(Ordering::Relaxed) ^ tag.turned(0)) & PIECE == 0
    }

    /// Whether all the other pieces are.
    #[inline]
    pub(crate) fn is_wholly(&self, tag: Tag) -> bool {
        let [_, rest @ ..] = &self.0;
        let differs = |word: &AtomicU64, slot| word.load(Ordering::Relaxed) ^ tag.turned(slot);
        let all = rest.iter().zip(1..).fold(0, |all, (word, slot)| all | differs(word, slot));
        all & PIECE == 0
    }

    /// Whether it has a tag.
    #[must_use]
    #[inline]
    pub fn is_used(&self) -> bool {
        self.word(ENTRIES - 1) & USED_IN_WORD != 0
    }

    /// Its tag; `None` if it is unused.
    #[must_use]
    #[inline]
    pub fn tag(&self) -> Option<Tag> {
        // Eight pieces of seven bits, none of which comes to lie on another, and turned back.
        let turned = self.0.iter().rev().fold(0, |all: u64, word| {
            all.rotate_left(PIECE_BITS) | word.load(Ordering::Relaxed) & PIECE
        });
        Tag::from_bits(turned.rotate_right(PIECE_SHIFT))
    }

    /// The raw entry of a slot.
    #[must_use]
    #[inline]
    pub fn entry(&self, slot: usize) -> u64 {
        decode(self.word(slot))
    }

    /// Gives a slot another raw entry, a leaf of [`pte`](vellum_core::pte) or a soft entry of
    /// [`SOFT_BITS`]; the tag stays.
    #[inline]
    pub fn set_entry(&self, slot: usize, raw: u64) {
        if let Some(word) = self.0.get(slot) {
            debug_assert_eq!(decode(encode(raw)), raw, "an entry that a line cannot hold");
            word.store(word.load(Ordering::Relaxed) & PIECE | encode(raw), Ordering::Relaxed);
        }
    }

    /// How many entries it has.
    #[must_use]
    #[inline]
    pub fn count(&self) -> usize {
        self.words().iter().filter(|&word| word & !PIECE != 0).count()
    }

    /// Makes an unused line, or one that another was moved out of, that of `tag`, without entries.
    #[inline]
    pub fn claim(&self, tag: Tag) {
        for (word, slot) in self.0.iter().zip(0..) {
            word.store(tag.piece(slot), Ordering::Relaxed);
        }
    }

    /// Whether it has none.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.iter().fold(0, |all, word| all | word.load(Ordering::Relaxed)) & !PIECE == 0
    }

    /// Makes it unused.
    #[inline]
    pub fn clear(&self) {
        self.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Its words, to be moved.
    #[must_use]
    #[inline]
    pub fn copy(&self) -> Copied {
        Copied(self.words())
    }

    /// Becomes what another line was.
    #[inline]
    pub fn paste(&self, copied: Copied) {
        for (word, value) in self.0.iter().zip(copied.0) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

/// What a line held, tag and entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied([u64; ENTRIES]);

impl Copied {
    /// What an unused line holds.
    pub const NOTHING: Self = Self([0; ENTRIES]);
}

/// Calls `f` with the line at `at`.
///
/// # Safety
///
/// `at` is a multiple of 64 and lies in a frame that was taken from `memory` and is not given back
/// before this returns; whoever else touches those words meanwhile does so by atomics of 64 bits.
#[inline]
pub unsafe fn with_line<M: PhysMap, R>(memory: &M, at: PhysAddr, f: impl FnOnce(&Line) -> R) -> R {
    memory.with(at, |p| {
        // SAFETY: `PhysMap` gives a pointer that is valid, with provenance, to the end of the frame,
        // and as far from a multiple of 4 KiB as `at` is, so 64 bytes at a multiple of 64 lie in it
        // and are aligned; `Line` is eight atomic words, and by the caller everybody else's accesses
        // to them are atomic and of the same size.
        f(unsafe { p.cast::<Line>().as_ref() })
    })
}

/// Calls `f` with so many lines from `at` on, all of which are in one frame.
///
/// # Safety
///
/// As [`with_line`], for all of them.
#[inline]
pub unsafe fn with_array<M: PhysMap, R, const LINES: usize>(
    memory: &M,
    at: PhysAddr,
    f: impl FnOnce(&[Line; LINES]) -> R,
) -> R {
    memory.with(at, |p| {
        // SAFETY: as in `with_line`, and the pointer is valid to the end of the frame.
        f(unsafe { p.cast::<[Line; LINES]>().as_ref() })
    })
}

/// Calls `f` with the lines from `at` to the end of its frame.
///
/// # Safety
///
/// As [`with_line`], for all of them.
#[inline]
pub unsafe fn with_lines<M: PhysMap, R>(
    memory: &M,
    at: PhysAddr,
    f: impl FnOnce(&[Line]) -> R,
) -> R {
    let count = (PAGE_SIZE - at.as_u64() % PAGE_SIZE) / LINE_BYTES;
    memory.with(at, |p| {
        // SAFETY: as in `with_line`, and the pointer is valid to the end of the frame, up to which
        // there are so many lines.
        f(unsafe { core::slice::from_raw_parts(p.cast::<Line>().as_ptr(), count as usize) })
    })
}

#[cfg(test)]
mod tests;
