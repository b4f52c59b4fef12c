//! What one entry of a TLB or of a walk cache is known by, in 64 bits.
//!
//! ```text
//!  63                                        18 17                       2 1    0
//! +--------------------------------------------+--------------------------+------+
//! | page number, in units of the entry's size  | asid, or ffff = global   | size |
//! +--------------------------------------------+--------------------------+------+
//!                                                            1 = 4K  2 = 2M  3 = 1G
//! ```
//!
//! # Invariants
//!
//! - A tag is never 0: sizes start at 1.
//! - Two addresses of the same page have equal tags, two of different pages never do: the 46 bits
//!   hold every page number of a 58-bit sign-extended address, and other addresses have no tag.

use crate::Asid;
use vellum_core::{Canonical, VirtAddr};

/// Whose an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    One(Asid),
    All,
}

impl Owner {
    const fn bits(self) -> u64 {
        match self {
            Self::One(asid) => asid.as_u16() as u64,
            Self::All => u16::MAX as u64,
        }
    }
}

/// Size of the page that an entry translates. Larger or odd leaves are cached in pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Size {
    Page4K = 1,
    Page2M = 2,
    Page1G = 3,
}

impl Size {
    pub(crate) const ALL: [Self; 3] = [Self::Page4K, Self::Page2M, Self::Page1G];

    pub(crate) const fn shift(self) -> u8 {
        match self {
            Self::Page4K => 12,
            Self::Page2M => 21,
            Self::Page1G => 30,
        }
    }

    /// The largest size that fits into a leaf of 2^`shift` bytes.
    pub(crate) const fn within(shift: u8) -> Self {
        match shift {
            30.. => Self::Page1G,
            21.. => Self::Page2M,
            _ => Self::Page4K,
        }
    }
}

const SIZE_BITS: u32 = 2;
const ASID_BITS: u32 = 16;
const NUMBER_SHIFT: u32 = SIZE_BITS + ASID_BITS;

/// The addresses that have a tag.
const TAGGED: Canonical = Canonical::signed(58);

/// Whether `va` can be cached at all.
#[inline]
pub(crate) const fn has_tag(va: VirtAddr) -> bool {
    TAGGED.contains(va)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u64);

impl Tag {
    /// The tag of the page of this size around `va`, which must [have one](has_tag).
    #[inline]
    pub(crate) const fn of_page(va: VirtAddr, size: Size, owner: Owner) -> Self {
        Self(Self::of_block(va, size.shift(), owner).0 & !3 | size as u64)
    }

    /// The tag of the aligned 2^`shift` block around `va`, where all blocks compared have one
    /// size.
    #[inline]
    pub(crate) const fn of_block(va: VirtAddr, shift: u8, owner: Owner) -> Self {
        let number = va.as_u64() >> shift;
        Self(number << NUMBER_SHIFT | owner.bits() << SIZE_BITS | 1)
    }

    pub(crate) const fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    pub(crate) const fn raw(self) -> u64 {
        self.0
    }

    /// The page number in units of the size, modulo 2^46: what selects the set. Only a 4 KiB page
    /// (or block below 256 KiB) of the upper half loses bits to that; a number of sets that is a
    /// power of two does not see them, any other takes its modulo of what is left.
    #[inline]
    pub(crate) const fn number(self) -> u64 {
        self.0 >> NUMBER_SHIFT
    }

    pub(crate) const fn is_global(self) -> bool {
        self.0 >> SIZE_BITS & 0xffff == 0xffff
    }

    pub(crate) const fn belongs_to(self, asid: Asid) -> bool {
        self.0 >> SIZE_BITS & 0xffff == asid.as_u16() as u64
    }

    pub(crate) const fn size(self) -> Size {
        match self.0 & 3 {
            3 => Size::Page1G,
            2 => Size::Page2M,
            _ => Size::Page4K,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leaf_is_cached_by_the_largest_size_that_fits_into_it() {
        let sizes = [0, 12, 16, 20, 21, 25, 29, 30, 39].map(|shift| Size::within(shift).shift());
        assert_eq!(sizes, [12, 12, 12, 12, 21, 21, 21, 30, 30]);
    }

    #[test]
    fn a_tag_as_it_is_drawn() {
        let asid = Asid::new(0x1234).unwrap();
        let tag = Tag::of_page(VirtAddr::new(0xabc_d000), Size::Page4K, Owner::One(asid));
        assert_eq!(tag.raw(), 0xabcd << 18 | 0x1234 << 2 | 1);
        let huge = Tag::of_page(VirtAddr::new(0x7_4000_0000), Size::Page1G, Owner::All);
        assert_eq!(huge.raw(), 0x1d << 18 | 0xffff << 2 | 3);
        assert_eq!((huge.number(), huge.size()), (0x1d, Size::Page1G));
    }

    #[test]
    fn the_number_is_the_pages_own_modulo_2_to_the_46() {
        let number = |va, size| Tag::of_page(VirtAddr::new(va), size, Owner::All).number();
        let (low, high) = (0x01ff_ffff_ffff_f000, 0xfe00_0000_0000_1000);
        assert_eq!(number(low, Size::Page4K), low >> 12, "the lower half is whole");
        assert_eq!(number(high, Size::Page4K), high >> 12 & ((1 << 46) - 1));
        assert_eq!(number(high, Size::Page4K) % 128, (high >> 12) % 128, "a power of two");
        assert_ne!(number(high, Size::Page4K) % 5, (high >> 12) % 5, "another number of sets");
        assert_eq!(number(high, Size::Page2M), high >> 21, "larger pages have fewer bits");
    }

    #[test]
    fn every_page_of_the_58_bits_has_its_own_tag() {
        let ends = [0, 0x01ff_ffff_ffff_f000, 0xfe00_0000_0000_0000, 0xffff_ffff_ffff_f000];
        let tags = ends.map(|va| {
            let va = VirtAddr::new(va);
            assert!(has_tag(va));
            Tag::of_page(va, Size::Page4K, Owner::All).raw()
        });
        for (i, tag) in tags.iter().enumerate() {
            assert!(!tags[..i].contains(tag));
        }
        assert!(!has_tag(VirtAddr::new(0x0200_0000_0000_0000)));
    }
}
