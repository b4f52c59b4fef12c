//! The sizes of a leaf: 4 KiB, 2 MiB, 1 GiB.
//!
//! ```text
//!   class   0        1        2          2^9 leaves of a class make one of the next
//!           4 KiB    2 MiB    1 GiB
//! ```
//!
//! They are x86-64's, which the leaf codec ([`vellum_core::pte`]) knows. A design says by
//! [`Store::LEAVES`](crate::Store::LEAVES) which of them it holds; the smallest is in all.

use vellum_core::PAGE_SHIFT;

/// How large a leaf is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Size {
    /// 4 KiB, in which soft entries are too.
    Base = 0,
    /// 2 MiB.
    Large = 1,
    /// 1 GiB.
    Huge = 2,
}

/// log2 of how many leaves make one of the next size.
const STEP: u8 = 9;

impl Size {
    /// All of them, ascending.
    pub const ALL: [Self; 3] = [Self::Base, Self::Large, Self::Huge];

    /// The set of all of them, as [`Store::LEAVES`](crate::Store::LEAVES) has it.
    pub const ALL_LEAVES: u64 = Self::Base.bytes() | Self::Large.bytes() | Self::Huge.bytes();

    /// The number of the size: what a key has in its bits 62:61.
    #[must_use]
    pub const fn class(self) -> u8 {
        match self {
            Self::Base => 0,
            Self::Large => 1,
            Self::Huge => 2,
        }
    }

    /// The size with this number.
    #[must_use]
    pub const fn of_class(class: u64) -> Option<Self> {
        match class {
            0 => Some(Self::Base),
            1 => Some(Self::Large),
            2 => Some(Self::Huge),
            _ => None,
        }
    }

    /// The size of exactly `len` bytes.
    #[must_use]
    pub const fn of_len(len: u64) -> Option<Self> {
        match len {
            _ if len == Self::Base.bytes() => Some(Self::Base),
            _ if len == Self::Large.bytes() => Some(Self::Large),
            _ if len == Self::Huge.bytes() => Some(Self::Huge),
            _ => None,
        }
    }

    /// log2 of its bytes.
    #[must_use]
    pub const fn page(self) -> u8 {
        PAGE_SHIFT + self.log2_pages()
    }

    /// log2 of how many pages of 4 KiB it is.
    #[must_use]
    pub const fn log2_pages(self) -> u8 {
        STEP * self.class()
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        1 << self.page()
    }

    /// Whether it is one of `leaves`, a set as [`Store::LEAVES`](crate::Store::LEAVES) is.
    #[must_use]
    pub const fn is_in(self, leaves: u64) -> bool {
        leaves & self.bytes() != 0
    }

    /// The largest size of `leaves` below this one; the smallest of all below that.
    #[must_use]
    pub const fn below(self, leaves: u64) -> Self {
        match self {
            Self::Huge if Self::Large.is_in(leaves) => Self::Large,
            _ => Self::Base,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_their_leaves() {
        for (size, page, len) in
            [(Size::Base, 12, 1 << 12), (Size::Large, 21, 1 << 21), (Size::Huge, 30, 1 << 30)]
        {
            assert_eq!((size.page(), size.bytes()), (page, len));
            assert_eq!(Size::of_len(len), Some(size));
            assert_eq!(Size::of_class(size.class().into()), Some(size));
        }
        assert_eq!((Size::of_len(1 << 22), Size::of_class(3)), (None, None));
    }

    #[test]
    fn a_leaf_splits_into_the_next_size_that_there_is() {
        let without_large = Size::Base.bytes() | Size::Huge.bytes();
        assert_eq!(Size::Huge.below(Size::ALL_LEAVES), Size::Large);
        assert_eq!(Size::Huge.below(without_large), Size::Base);
        assert_eq!(Size::Large.below(Size::ALL_LEAVES), Size::Base);
        assert!(!Size::Large.is_in(without_large));
    }
}
