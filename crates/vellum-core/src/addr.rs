//! Addresses, and the numbers of the units that they fall into.
//!
//! ```text
//!            63                              12 11            0
//!            +---------------------------------+---------------+
//!  VirtAddr  |  Vpn: which page                | byte in page  |
//!            +---------------------------------+---------------+
//!  PhysAddr  |  Pfn: which frame               | byte in frame |
//!            +---------------------------------+---------------+
//! ```
//!
//! All four are plain 64-bit numbers: any value can be held, and whether a table can translate an
//! address is the table's question ([`Canonical`]). Arithmetic that may leave the 64 bits is
//! checked; ranges are a start and a length, whose last byte is `start + (len - 1)`, so that the
//! very last page can be spoken of.
//!
//! # Invariants
//!
//! - A [`Pfn`] or [`Vpn`] is below 2<sup>52</sup>, so that its address fits 64 bits.

use crate::Cause;
use core::fmt;

/// log2 of the smallest page and frame, 4 KiB: the unit of [`Pfn`], [`Vpn`] and frame orders.
pub const PAGE_SHIFT: u8 = 12;

/// Bytes of the smallest page and frame.
pub const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// A newtype of `u64` that prints in hexadecimal under its own name.
macro_rules! hex_number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }

        impl $name {
            /// The number itself.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// `self + n`, unless that passes 2<sup>64</sup>.
            #[must_use]
            pub const fn checked_add(self, n: u64) -> Option<Self> {
                match self.0.checked_add(n) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// `self + n` modulo 2<sup>64</sup>: for offsets within a range that was checked.
            #[must_use]
            pub const fn wrapping_add(self, n: u64) -> Self {
                Self(self.0.wrapping_add(n))
            }

            /// How far `self` lies above `lower`, unless it lies below it.
            #[must_use]
            pub const fn checked_sub(self, lower: Self) -> Option<u64> {
                self.0.checked_sub(lower.0)
            }
        }
    };
}

/// What the two kinds of address share beyond being numbers.
macro_rules! byte_address {
    ($name:ident, $number:ident) => {
        impl $name {
            /// The address `raw`, in bytes.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The number of the 4 KiB unit that this address falls into.
            #[must_use]
            pub const fn number(self) -> $number {
                $number(self.0 >> PAGE_SHIFT)
            }

            /// Whether the address is a multiple of 2<sup>`log2`</sup> bytes; never for `log2` of
            /// 64 or more, except at 0.
            #[must_use]
            pub const fn is_aligned(self, log2: u8) -> bool {
                self.0 & low_mask(log2) == 0
            }

            /// The start of the aligned 2<sup>`log2`</sup>-byte block that this address lies in.
            #[must_use]
            pub const fn align_down(self, log2: u8) -> Self {
                Self(self.0 & !low_mask(log2))
            }

            /// The lowest multiple of 2<sup>`log2`</sup> that is not below this address, if one
            /// exists within 64 bits.
            #[must_use]
            pub const fn align_up(self, log2: u8) -> Option<Self> {
                match self.0.checked_add(low_mask(log2)) {
                    Some(sum) => Some(Self(sum & !low_mask(log2))),
                    None => None,
                }
            }
        }
    };
}

/// A mask of the low `log2` bits; all ones from 64 on.
const fn low_mask(log2: u8) -> u64 {
    if log2 >= 64 { u64::MAX } else { (1 << log2) - 1 }
}

hex_number! {
    /// A physical address, in bytes.
    PhysAddr
}
hex_number! {
    /// A virtual address, in bytes; not necessarily one that a given table can translate.
    VirtAddr
}
hex_number! {
    /// A physical frame number: a physical address in units of 4 KiB.
    Pfn
}
hex_number! {
    /// A virtual page number: a virtual address in units of 4 KiB.
    Vpn
}
byte_address!(PhysAddr, Pfn);
byte_address!(VirtAddr, Vpn);

impl Pfn {
    /// Frame `n`, unless its address would not fit 64 bits.
    #[must_use]
    pub const fn new(n: u64) -> Option<Self> {
        if n < 1 << (64 - PAGE_SHIFT) { Some(Self(n)) } else { None }
    }

    /// The address of the frame's first byte.
    #[must_use]
    pub const fn addr(self) -> PhysAddr {
        PhysAddr(self.0 << PAGE_SHIFT)
    }
}

impl Vpn {
    /// Page `n`, unless its address would not fit 64 bits.
    #[must_use]
    pub const fn new(n: u64) -> Option<Self> {
        if n < 1 << (64 - PAGE_SHIFT) { Some(Self(n)) } else { None }
    }

    /// The address of the page's first byte.
    #[must_use]
    pub const fn addr(self) -> VirtAddr {
        VirtAddr(self.0 << PAGE_SHIFT)
    }
}

/// Which virtual addresses a table translates.
///
/// ```text
///  signed, 48 bits (x86-64, 4 levels)         unsigned, 32 bits (flat)
///
///  ffff_ffff_ffff_ffff +--------+             +--------+
///                      | upper  |             |        |
///  ffff_8000_0000_0000 +--------+             | never  |
///                      | never  |             |        |
///  0000_7fff_ffff_ffff +--------+   ffff_ffff +--------+
///                      | lower  |             |  all   |
///                    0 +--------+           0 +--------+
/// ```
///
/// Source: Intel SDM vol. 1, 3.3.7.1 "Canonical Addressing".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Canonical {
    bits: u8,
    signed: bool,
}

impl Canonical {
    /// Addresses whose bits from `bits - 1` up are all equal. `bits` is held to 13..=64.
    #[must_use]
    pub const fn signed(bits: u8) -> Self {
        Self { bits: clamp(bits), signed: true }
    }

    /// Addresses whose bits from `bits` up are all zero. `bits` is held to 13..=64.
    #[must_use]
    pub const fn unsigned(bits: u8) -> Self {
        Self { bits: clamp(bits), signed: false }
    }

    /// How many low bits of an address the table uses.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Whether bit `bits - 1` is repeated upwards.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        self.signed
    }

    /// Whether `va` is one of these addresses.
    ///
    /// ```
    /// use vellum_core::{Canonical, VirtAddr};
    ///
    /// let four_levels = Canonical::signed(48);
    /// assert!(four_levels.contains(VirtAddr::new(0x7fff_ffff_ffff)));
    /// assert!(!four_levels.contains(VirtAddr::new(0x8000_0000_0000)));
    /// assert!(four_levels.contains(VirtAddr::new(0xffff_8000_0000_0000)));
    /// ```
    #[must_use]
    pub const fn contains(self, va: VirtAddr) -> bool {
        let above = if self.signed { self.bits - 1 } else { self.bits };
        let high = va.0 & !low_mask(above);
        high == 0 || (self.signed && high == !low_mask(above))
    }

    /// The address whose low [`bits`](Self::bits) are those of `low`; the rest follows from them.
    #[must_use]
    pub const fn extend(self, low: u64) -> VirtAddr {
        let mask = low_mask(self.bits);
        if self.signed && low >> (self.bits - 1) & 1 == 1 {
            VirtAddr(low | !mask)
        } else {
            VirtAddr(low & mask)
        }
    }

    /// The lower and the upper half of all these addresses, each as its first address and its
    /// length in bytes: between them everything, in ranges that 64 bits can describe.
    #[must_use]
    pub const fn halves(self) -> [(VirtAddr, u64); 2] {
        let half = 1 << (self.bits - 1);
        [(VirtAddr(0), half), (self.extend(half), half)]
    }

    /// Whether `[va, va + len)` is a range of whole 2<sup>`page`</sup>-byte pages that lies in one
    /// canonical stretch; an empty range does where its start does.
    ///
    /// # Errors
    ///
    /// [`Cause::Misaligned`] for the start, then for the length; [`Cause::NonCanonical`] for the
    /// start; [`Cause::Wraps`]; [`Cause::NonCanonical`] for the first address in the range that is
    /// not canonical.
    pub const fn check(self, va: VirtAddr, len: u64, page: u8) -> Result<(), Cause> {
        if !va.is_aligned(page) {
            return Err(Cause::Misaligned { value: va.0, page });
        }
        if len & low_mask(page) != 0 {
            return Err(Cause::Misaligned { value: len, page });
        }
        if !self.contains(va) {
            return Err(Cause::NonCanonical(va));
        }
        let last = match va.checked_add(len.saturating_sub(1)) {
            Some(last) => last,
            None => return Err(Cause::Wraps { va, len }),
        };
        if self.bits == 64 {
            return Ok(());
        }
        // Both ends may be canonical and the hole between the halves is not.
        if !self.contains(last) || (va.0 ^ last.0) >> 63 != 0 {
            let first_bad = 1 << if self.signed { self.bits - 1 } else { self.bits };
            return Err(Cause::NonCanonical(VirtAddr(first_bad)));
        }
        Ok(())
    }
}

const fn clamp(bits: u8) -> u8 {
    if bits <= PAGE_SHIFT {
        PAGE_SHIFT + 1
    } else if bits > 64 {
        64
    } else {
        bits
    }
}

#[cfg(test)]
mod tests;
