//! The tag of a global table: which address space, and which page of it.
//!
//! ```text
//!   63  62 61 60             45 44                                          0
//!  +---+-----+-----------------+---------------------------------------------+
//!  | 1 | 0   | asid            | page number, low 45 bits                    |
//!  +---+-----+-----------------+---------------------------------------------+
//! ```
//!
//! Bit 63 keeps a tag from ever being 0, so that 0 can mean "no entry here". 45 bits of page number
//! are those of a 57-bit canonical address; the address comes back by sign extension. Bits 62:61
//! are left for a design that keeps several page sizes in one table.
//!
//! # Invariants
//!
//! - Tags of one space ascend exactly as its canonical addresses do, taken as unsigned numbers.
//! - `Key::new(asid, va).va() == va` for every page-aligned canonical `va`.

use core::fmt;
use core::num::NonZeroU64;
use core::ops::RangeInclusive;
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

/// One page of one address space, as drawn in the [module](self).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Key(NonZeroU64);

impl Key {
    /// The page of `asid` that the byte at `va` lies in. Bits 63:57 of `va` are not kept.
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

    /// The key of a tag word; `None` for a word that is no tag.
    #[must_use]
    pub const fn from_tag(tag: u64) -> Option<Self> {
        match NonZeroU64::new(tag) {
            Some(bits)
                if tag >> FIELD_BITS == USED >> FIELD_BITS
                    && tag >> VPN_BITS & NO_SPACE != NO_SPACE =>
            {
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

    /// The first byte of the page.
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
        write!(f, "Key({}:{})", self.asid(), self.va())
    }
}

/// A range of pages of one space; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    first: Key,
    last: Key,
}

impl Keys {
    /// The pages of `[va, va + len)`, which is canonical and of whole pages; `None` if it is empty.
    #[must_use]
    pub fn new(asid: Asid, va: VirtAddr, len: u64) -> Option<Self> {
        let last = va.wrapping_add(len.checked_sub(1)?);
        Some(Self { first: Key::new(asid, va), last: Key::new(asid, last) })
    }

    /// Every page of a space.
    #[must_use]
    pub const fn all(asid: Asid) -> Self {
        let last = VirtAddr::new(u64::MAX);
        Self { first: Key::new(asid, VirtAddr::new(0)), last: Key::new(asid, last) }
    }

    /// The first page.
    #[must_use]
    pub const fn first(self) -> Key {
        self.first
    }

    /// How many pages.
    #[must_use]
    pub const fn count_pages(self) -> u64 {
        self.last.tag() - self.first.tag() + 1
    }

    /// Whether `key` is one of them.
    #[must_use]
    pub fn contains(self, key: Key) -> bool {
        self.first <= key && key <= self.last
    }

    /// Those after `key`, which is one of them.
    #[must_use]
    pub fn after(self, key: Key) -> Option<Self> {
        let first = Key(key.0.checked_add(1)?);
        (first <= self.last).then_some(Self { first, ..self })
    }

    /// Those before `key`, which is one of them.
    #[must_use]
    pub fn before(self, key: Key) -> Option<Self> {
        (self.first < key)
            .then(|| NonZeroU64::new(key.tag() - 1))
            .flatten()
            .map(|last| Self { last: Key(last), ..self })
    }

    /// The first `pages` of them, or all if they are fewer, and the rest.
    #[must_use]
    pub fn split_at(self, pages: NonZeroU64) -> (Self, Option<Self>) {
        match self.first.0.checked_add(pages.get()).map(Key) {
            Some(next) if next <= self.last => {
                let last = Key(self.first.0.saturating_add(pages.get() - 1));
                (Self { last, ..self }, Some(Self { first: next, ..self }))
            }
            _ => (self, None),
        }
    }

    /// Each of them, ascending.
    pub fn iter(self) -> impl Iterator<Item = Key> {
        let tags: RangeInclusive<u64> = self.first.tag()..=self.last.tag();
        tags.filter_map(|tag| NonZeroU64::new(tag).map(Key))
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
        assert_eq!(Key::from_tag(1 << 63 | 1 << 61), None, "reserved bits");
    }

    #[test]
    fn a_whole_space_counts_its_pages() {
        let all = Keys::all(asid(65534));
        assert_eq!(all.count_pages(), 1 << 45);
        assert_eq!(all.first().va(), VirtAddr::new(0));
        assert_eq!(all.last.va(), VirtAddr::new(!0xfff));
        assert_eq!(all.after(all.last), None);
        assert_eq!(Keys::new(asid(1), VirtAddr::new(0x1000), 0), None);
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
        fn a_key_gives_back_what_it_was_made_of(va in canonical_page(), n in 0..u16::MAX) {
            prop_assert!(CANONICAL.contains(va));
            let key = Key::new(asid(n), va);
            prop_assert_eq!((key.asid().as_u16(), key.va()), (n, va));
            prop_assert_eq!(Key::from_tag(key.tag()), Some(key));
        }

        #[test]
        fn keys_ascend_as_addresses_do(a in canonical_page(), b in canonical_page(), n in 0..u16::MAX) {
            let (x, y) = (Key::new(asid(n), a), Key::new(asid(n), b));
            prop_assert_eq!(a.cmp(&b), x.cmp(&y));
        }

        #[test]
        fn a_split_range_is_the_range(first in 0..1000u64, pages in 1..100u64, at in 1..120u64) {
            let keys = Keys::new(asid(9), VirtAddr::new(first << 12), pages << 12).unwrap();
            let (low, high) = keys.split_at(NonZeroU64::new(at).unwrap());
            prop_assert_eq!(low.count_pages(), at.min(pages));
            prop_assert!(low.iter().chain(high.into_iter().flat_map(Keys::iter)).eq(keys.iter()));
            let middle = low.last;
            prop_assert_eq!(keys.after(middle), high);
            prop_assert_eq!(keys.before(middle).map_or(0, Keys::count_pages), low.count_pages() - 1);
        }
    }
}
