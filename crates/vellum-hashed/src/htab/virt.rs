//! The virtual address that PowerPC hashes: segments, their identifiers, and the two groups.
//!
//! ```text
//!   effective, 57 bits of it:   | ESID 29            | page 16     | byte 12 |
//!                                  |                    |
//!   asid 16, ESID 29  --scramble--> VSID 50             |
//!                                  |                    |
//!   virtual, 78 bits:           | VSID 50            | page 16     | byte 12 |
//!
//!   hash, 39 bits:   VSID ^ page          primary group:    hash mod groups
//!                                         secondary group:  the complement, mod groups
//!   AVPN, 55 bits:   VSID | page 15:11    in the entry; the group tells page 10:0
//! ```
//!
//! A processor has the identifiers of the segments in use in its SLB, which software fills. Here
//! every (space, segment) has one of its own, for good: a bijection of the 45 bits spreads them over
//! 50, as groups are chosen by the low bits and neighbouring segments of neighbouring spaces would
//! otherwise share theirs. (Linux multiplies modulo a number of the form 2^n - 1 to the same end.)
//!
//! # Why no segments of 1 TiB
//!
//! The architecture has them besides (B = 1; hash `VSID ^ VSID << 25 ^ page`, with a page number of 28
//! bits), so that an SLB of some 32 entries reaches further. There is no SLB here. A page would have
//! two places to be looked for, by the size of its segment, or a map of which segment is of which size
//! would have to be read before each look-up: so B is 0 in all entries, as it is in each space of a
//! kernel that does without.
//!
//! # Invariants
//!
//! - `Virtual::found(v, group)` is what `v` was made of, in the primary and the secondary group of
//!   every table with 2<sup>11</sup> groups or more: the smallest that the architecture has, for
//!   this reason.
//!
//! Source: Power ISA 2.07B, Book III-S, chapter "Storage Control": "Page Table", "Page Table Search".

use super::entry::{SECONDARY, V_AVPN};
use vellum_core::{Asid, PAGE_SHIFT, VirtAddr};
use vellum_global::Key;

/// log2 of the bytes of a segment, 256 MiB.
const SEGMENT_SHIFT: u32 = 28;
const PAGE_BITS: u32 = SEGMENT_SHIFT - PAGE_SHIFT as u32;
const PAGES: u64 = (1 << PAGE_BITS) - 1;
const ESID_BITS: u32 = 57 - SEGMENT_SHIFT;
/// Identifier and ESID together.
const SEGMENTS: u64 = (1 << (16 + ESID_BITS)) - 1;
const VSID_BITS: u32 = 50;
const VSIDS: u64 = (1 << VSID_BITS) - 1;
const HASHES: u64 = (1 << 39) - 1;
/// Bits of the page that the entry does not have.
const IMPLIED_BITS: u32 = 11;
const IMPLIED: u64 = (1 << IMPLIED_BITS) - 1;
const VSID_SHIFT: u32 = 12;
/// From page 15:11 to the low bits of AVPN.
const PAGE_TO_V: u32 = 4;

/// Odd: 2^50 divided by the golden ratio.
const MULTIPLIER: u64 = 0x2_78dd_e6e5_fd29;
const INVERSE: u64 = inverse(MULTIPLIER);

/// One virtual page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Virtual {
    pub(super) vsid: u64,
    pub(super) page: u64,
}

/// The inverse of an odd number modulo 2^64, by Newton's iteration: each step doubles the bits.
const fn inverse(odd: u64) -> u64 {
    let (mut x, mut step) = (odd, 0);
    while step < 5 {
        x = x.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}

/// A number of 50 bits in which the low bits depend on all of another.
const fn scramble(x: u64) -> u64 {
    let x = x ^ x >> (VSID_BITS / 2);
    let x = x.wrapping_mul(MULTIPLIER) & VSIDS;
    x ^ x >> (VSID_BITS / 2)
}

const fn unscramble(x: u64) -> u64 {
    let x = x ^ x >> (VSID_BITS / 2);
    let x = x.wrapping_mul(INVERSE) & VSIDS;
    x ^ x >> (VSID_BITS / 2)
}

impl Virtual {
    #[inline]
    pub(super) const fn of(key: Key) -> Self {
        // In the tag of a page of 4 KiB the identifier is right above the page's number.
        let segment = key.tag() >> PAGE_BITS & SEGMENTS;
        Self { vsid: scramble(segment), page: key.tag() & PAGES }
    }

    /// The key that it was made of; `None` if there is none.
    pub(super) fn key(self) -> Option<Key> {
        let segment = unscramble(self.vsid);
        let asid = Asid::new(u16::try_from(segment >> ESID_BITS).ok()?)?;
        let esid = segment & ((1 << ESID_BITS) - 1);
        let va = (esid << PAGE_BITS | self.page) << PAGE_SHIFT;
        // The key extends the sign.
        Some(Key::new(asid, VirtAddr::new(va)))
    }

    /// The primary hash; its complement is the secondary.
    pub(super) const fn hash(self) -> u64 {
        (self.vsid ^ self.page) & HASHES
    }

    /// The fields B and AVPN of the entry's first doubleword, all else 0.
    pub(super) const fn avpn(self) -> u64 {
        self.vsid << VSID_SHIFT | (self.page & !IMPLIED) >> PAGE_TO_V
    }

    /// The page of an entry with this first doubleword in this group.
    pub(super) const fn found(v: u64, group: u64) -> Self {
        let vsid = v >> VSID_SHIFT & VSIDS;
        let hash = if v & SECONDARY != 0 { !group } else { group };
        let page = (v & V_AVPN) << PAGE_TO_V & PAGES & !IMPLIED | (hash ^ vsid) & IMPLIED;
        Self { vsid, page }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{asid, key};
    use proptest::prelude::*;

    #[test]
    fn the_hash_and_the_tag_are_those_of_the_architecture() {
        let page = Virtual { vsid: 0x1234_5678_9abc, page: 0xf801 };
        // VSID 49:0 to bits 61:12, page 15:11 (all ones) to bits 11:7.
        assert_eq!(page.avpn(), 0x0123_4567_89ab_cf80);
        // VSID 38:0 ^ page, by hand: ...9abc ^ f801 = 62bd.
        assert_eq!(page.hash(), 0x34_5678_62bd);
        assert_eq!(Virtual { vsid: VSIDS, page: 0 }.hash(), (1 << 39) - 1);
        assert_eq!(Virtual { vsid: VSIDS, page: PAGES }.avpn(), 0x3fff_ffff_ffff_ff80);
    }

    #[test]
    fn pages_of_a_segment_are_in_groups_of_their_own() {
        let groups: std::collections::BTreeSet<_> =
            (0..2048).map(|n| Virtual::of(key(n)).hash() % 2048).collect();
        assert_eq!(groups.len(), 2048);
        assert_eq!(Virtual::of(key(0)).vsid, Virtual::of(key(65_535)).vsid);
        assert_ne!(Virtual::of(key(0)).vsid, Virtual::of(key(65_536)).vsid);
    }

    proptest! {
        #![proptest_config(vellum_testkit::suite::config(512))]

        #[test]
        fn an_entry_and_its_group_tell_the_page(
            n in 0..1u64 << 45, space in 0..u16::MAX, log2 in 11..39u32,
        ) {
            let key = Key::new(asid(space), VirtAddr::new(n << PAGE_SHIFT));
            let page = Virtual::of(key);
            prop_assert!(page.vsid <= VSIDS && page.page <= PAGES);
            let groups = (1u64 << log2) - 1;
            let primary = Virtual::found(page.avpn() | 1, page.hash() & groups);
            let secondary = Virtual::found(page.avpn() | SECONDARY | 1, !page.hash() & groups);
            prop_assert_eq!((primary, secondary), (page, page));
            prop_assert_eq!(page.key(), Some(key));
        }
    }
}
