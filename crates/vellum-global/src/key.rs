//! The tag of a global table: which address space, and which page of it.
//!
//! ```text
//!   63  62  61 60             45 44                                          0
//!  +---+------+-----------------+---------------------------------------------+
//!  | 1 | size | asid            | page number, low 45 bits                    |
//!  +---+------+-----------------+---------------------------------------------+
//!        0: 4 KiB    1: 2 MiB, bits 8:0 are 0    2: 1 GiB, bits 17:0 are 0
//! ```
//!
//! Bit 63 keeps a tag from ever being 0, so that 0 can mean "no entry here". 45 bits of page number
//! are those of a 57-bit canonical address; the address comes back by sign extension. The size of
//! the leaf is a part of the key: leaves of different sizes are different entries, found by
//! different look-ups.
//!
//! # Invariants
//!
//! - Tags of one space and size ascend exactly as its canonical addresses do, taken as unsigned
//!   numbers.
//! - `Key::of(asid, va, size).va() == va` for every canonical `va` that is aligned to the size.

use crate::Size;
use core::fmt;
use core::num::NonZeroU64;
use vellum_core::{Asid, Canonical, PAGE_SHIFT, VirtAddr};

/// The addresses that a key can hold: 57 bits, sign-extended.
pub const CANONICAL: Canonical = Canonical::signed(VPN_BITS + PAGE_SHIFT);

const VPN_BITS: u8 = 45;
const VPN_MASK: u64 = (1 << VPN_BITS) - 1;
/// Bits of both fields together.
const FIELD_BITS: u8 = VPN_BITS + 16;
/// The identifier that is none.
const NO_SPACE: u64 = u16::MAX as u64;
const USED: u64 = 1 << 63;
const CLASS_MASK: u64 = 3;

/// One leaf's place in one address space, as drawn in the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Key(NonZeroU64);

impl Key {
    /// The page of 4 KiB of `asid` that the byte at `va` lies in. Bits 63:57 of `va` are not kept.
    ///
    /// ```
    /// use vellum_core::{Asid, VirtAddr};
    /// use vellum_global::Key;
    ///
    /// let kernel = VirtAddr::new(0xffff_ffff_8000_0000);
    /// let key = Key::new(Asid::new(7).unwrap(), kernel.wrapping_add(5));
    /// assert_eq!((key.va(), key.asid().as_u16()), (kernel, 7));
    /// ```
    #[must_use]
    pub const fn new(asid: Asid, va: VirtAddr) -> Self {
        let page = va.number().as_u64() & VPN_MASK;
        // Below bit 61, so that this is bit 63 or'ed with both fields.
        Self(FIRST.saturating_add((asid.as_u16() as u64) << VPN_BITS | page))
    }

    /// The leaf of this size of `asid` that the byte at `va` lies in.
    #[must_use]
    pub const fn of(asid: Asid, va: VirtAddr, size: Size) -> Self {
        Self::new(asid, va).sized(size)
    }

    /// The leaf of this size that contains this one's first page.
    #[must_use]
    pub const fn sized(self, size: Size) -> Self {
        let field = self.tag() & ((1 << FIELD_BITS) - 1);
        let aligned = field >> size.log2_pages() << size.log2_pages();
        Self(FIRST.saturating_add((size.class() as u64) << FIELD_BITS | aligned))
    }

    /// The key of a tag word; `None` for a word that is no tag.
    #[must_use]
    pub const fn from_tag(tag: u64) -> Option<Self> {
        let Some(size) = Size::of_class(tag >> FIELD_BITS & CLASS_MASK) else { return None };
        let aligned = tag & ((1 << size.log2_pages()) - 1) == 0;
        match NonZeroU64::new(tag) {
            Some(bits) if tag & USED != 0 && aligned && tag >> VPN_BITS & NO_SPACE != NO_SPACE => {
                Some(Self(bits))
            }
            _ => None,
        }
    }

    /// The tag word; never 0.
    #[must_use]
    pub const fn tag(self) -> u64 {
        self.0.get()
    }

    /// The space.
    #[must_use]
    pub const fn asid(self) -> Asid {
        match Asid::new((self.tag() >> VPN_BITS) as u16) {
            Some(asid) => asid,
            // Neither `new` nor `from_tag` makes a key of no space.
            None => Asid::ZERO,
        }
    }

    /// How large the leaf is.
    #[must_use]
    pub const fn size(self) -> Size {
        match self.tag() >> FIELD_BITS & CLASS_MASK {
            0 => Size::Base,
            1 => Size::Large,
            _ => Size::Huge,
        }
    }

    /// The number of the leaf, counted in leaves of its size: the low 45 bits of the page number,
    /// or fewer.
    #[must_use]
    pub const fn number(self) -> u64 {
        (self.tag() & VPN_MASK) >> self.size().log2_pages()
    }

    /// The key `n` leaves of its size on; past the last of the space comes the first.
    #[must_use]
    pub const fn plus(self, n: u64) -> Self {
        let page = self.tag().wrapping_add(n << self.size().log2_pages()) & VPN_MASK;
        let above = self.tag() & !(USED | VPN_MASK);
        Self(FIRST.saturating_add(above | page))
    }

    /// The last page of 4 KiB in the leaf.
    #[must_use]
    pub const fn last_page(self) -> Self {
        self.sized(Size::Base).plus((1 << self.size().log2_pages()) - 1)
    }

    /// The first byte of the leaf.
    #[must_use]
    pub const fn va(self) -> VirtAddr {
        let high = self.tag() << (64 - VPN_BITS);
        VirtAddr::new((high.cast_signed() >> (64 - VPN_BITS - PAGE_SHIFT)).cast_unsigned())
    }

    /// A number in which every bit depends on every bit of the key, evenly: [`mix`] of the tag.
    #[must_use]
    pub const fn hash(self) -> u64 {
        mix(self.tag())
    }
}

/// A bijection of 64 bits in which every bit depends on every bit, evenly.
///
/// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014), whose constants are Stafford's mix 13. The probe counts of theory,
/// which assume random placement, hold with it for consecutive pages.
#[must_use]
pub const fn mix(z: u64) -> u64 {
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Page 0 of space 0.
const FIRST: NonZeroU64 = NonZeroU64::MIN.saturating_add(USED - 1);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({}:{}, {:?})", self.asid(), self.va(), self.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn asid(n: u16) -> Asid {
        Asid::new(n).unwrap()
    }

    #[test]
    fn the_very_first_page_has_a_tag() {
        let key = Key::new(asid(0), VirtAddr::new(0));
        assert_eq!(key.tag(), 1 << 63);
        assert_eq!(Key::from_tag(key.tag()), Some(key));
        assert_eq!((Key::from_tag(0), Key::from_tag(1 << 62)), (None, None));
        assert_eq!(Key::from_tag(1 << 63 | 3 << 61), None, "no size has this number");
        assert_eq!(Key::from_tag(1 << 63 | 1 << 61 | 1), None, "in the middle of a leaf");
    }

    #[test]
    fn leaves_of_each_size_follow_each_other() {
        for size in Size::ALL {
            let last = Key::of(asid(5), VirtAddr::new(u64::MAX), size);
            assert_eq!(last.number(), (1 << (45 - size.log2_pages())) - 1);
            assert_eq!((last.size(), last.last_page().va()), (size, VirtAddr::new(!0xfff)));
            let first = last.plus(1);
            assert_eq!(first, Key::of(asid(5), VirtAddr::new(0), size));
            assert_eq!(first.plus(3).va(), VirtAddr::new(3 * size.bytes()));
        }
    }

    #[test]
    fn consecutive_pages_fill_buckets_evenly() {
        let mut counts = [0u32; 64];
        for page in 0..64 * 256 {
            let hash = Key::new(asid(3), VirtAddr::new(page << 12)).hash();
            counts[(hash & 63) as usize] += 1;
        }
        // 256 expected a bucket; six standard deviations are 96.
        assert!(counts.iter().all(|&n| n.abs_diff(256) < 96), "{counts:?}");
    }

    prop_compose! {
        fn canonical_page()(bits in 0..1u64 << 57) -> VirtAddr {
            let signed = (bits << 7).cast_signed() >> 7;
            VirtAddr::new(signed.cast_unsigned()).align_down(12)
        }
    }

    proptest! {
        #![proptest_config(vellum_testkit::suite::config(256))]

        #[test]
        fn a_key_gives_back_what_it_was_made_of(
            va in canonical_page(),
            n in 0..u16::MAX,
            size in prop::sample::select(Size::ALL.to_vec()),
        ) {
            prop_assert!(CANONICAL.contains(va));
            let key = Key::of(asid(n), va, size);
            prop_assert_eq!((key.asid().as_u16(), key.size()), (n, size));
            prop_assert_eq!(key.va(), va.align_down(size.page()));
            prop_assert_eq!(Key::from_tag(key.tag()), Some(key));
            prop_assert_eq!(key.sized(Size::Base).sized(size), key);
        }

        #[test]
        fn keys_ascend_as_addresses_do(a in canonical_page(), b in canonical_page(), n in 0..u16::MAX) {
            let (x, y) = (Key::new(asid(n), a), Key::new(asid(n), b));
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        }
    }
}
