//! CR3: which table the processor walks, under which tag, and a pair of them for KPTI.
//!
//! ```text
//!   63    62..52   51                          13 12  11 10                    0
//!  +-----+--------+-------------------------------+--+--+-----------------------+
//!  |keep | 0      | root, 4 KiB aligned                | PCID                     |
//!  +-----+--------+-------------------------------+--+--+-----------------------+
//!     |                                            |  |
//!     |  written only: keep what is cached         |  +- of a pair: the user's tag
//!     |  under this PCID (else it is flushed)      +---- of a pair: the user's root
//!
//!   Pair   8 KiB  +-------------+  CR3 bit 12 = 0, PCID bit 11 = 0
//!                 | kernel root |     everything
//!                 +-------------+  CR3 bit 12 = 1, PCID bit 11 = 1
//!                 |  user root  |     the user's half, and of the kernel the entry stubs
//!                 +-------------+
//! ```
//!
//! The lay-out of a pair is ours: an entry stub that knows nothing but CR3 goes from one to the
//! other by changing [`Pair::SWITCH`], two bits, without memory, a stack or a register to spare but
//! one. Its 2048 tags are the lower eleven bits.
//!
//! # Invariants
//!
//! - A [`Cr3`] has a root that is aligned and below 2<sup>52</sup>, and zeros in bits 62:52. (LAM's
//!   bits 62 and 61 among them: with those in use, a kernel adds them.)
//! - Without CR4.PCIDE, bits 3 and 4 are PWT and PCD; roots are ordinary memory, so both are 0, as
//!   they are in PCID 0, and any other PCID needs CR4.PCIDE.
//!
//! Source: Intel SDM vol. 3A, 5.5.1 "Ordinary Paging and HLAT Paging" (table 5-12), 5.10.1
//! "Process-Context Identifiers (PCIDs)", 5.10.4.1 (bit 63).

use core::fmt;
use vellum_core::{Asid, PhysAddr};

/// A tag of translations: 12 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pcid(u16);

impl Pcid {
    /// The only one while CR4.PCIDE is clear.
    pub const ZERO: Self = Self(0);

    /// How many there are.
    pub const COUNT: u16 = 1 << 12;

    /// Number `n`, if it has no more than 12 bits.
    #[must_use]
    pub const fn new(n: u16) -> Option<Self> {
        if n < Self::COUNT { Some(Self(n)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn as_u16(self) -> u16 {
        self.0
    }
}

impl TryFrom<Asid> for Pcid {
    type Error = TooWide;

    fn try_from(asid: Asid) -> Result<Self, TooWide> {
        Self::new(asid.as_u16()).ok_or(TooWide(asid))
    }
}

impl fmt::Display for Pcid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// An identifier that a PCID cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooWide(pub Asid);

impl fmt::Display for TooWide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not fit the 12 bits of a PCID", self.0)
    }
}

impl core::error::Error for TooWide {}

/// A value for CR3.
///
/// ```
/// use vellum_core::PhysAddr;
/// use vellum_x86::{Cr3, Pcid};
///
/// let root = Cr3::new(PhysAddr::new(0x5000), Pcid::new(7).unwrap()).unwrap();
/// assert_eq!(root.bits(), 0x5007); // flushes what is cached under PCID 7
/// assert_eq!(root.keeping().bits(), 1 << 63 | 0x5007); // and this does not
/// assert_eq!(Cr3::from_bits(0x5007), Some(root));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cr3 {
    root: PhysAddr,
    pcid: Pcid,
    keep: bool,
}

const ROOT: u64 = 0x000f_ffff_ffff_f000;
const PCID: u64 = 0xfff;
const KEEP: u64 = 1 << 63;

impl Cr3 {
    /// The table at `root` under this tag, flushing on load; `None` unless `root` is aligned to
    /// 4 KiB and below 2<sup>52</sup>.
    #[must_use]
    pub const fn new(root: PhysAddr, pcid: Pcid) -> Option<Self> {
        if root.as_u64() & !ROOT != 0 {
            return None;
        }
        Some(Self { root, pcid, keep: false })
    }

    /// What stands in the register, or goes there; `None` with a bit that this type does not know.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Option<Self> {
        if bits & !(ROOT | PCID | KEEP) != 0 {
            return None;
        }
        let root = PhysAddr::new(bits & ROOT);
        let [low, high, ..] = (bits & PCID).to_le_bytes();
        Some(Self { root, pcid: Pcid(u16::from_le_bytes([low, high])), keep: bits & KEEP != 0 })
    }

    /// The bits to write.
    #[must_use]
    pub const fn bits(self) -> u64 {
        let [low, high] = self.pcid.0.to_le_bytes();
        let pcid = u64::from_le_bytes([low, high, 0, 0, 0, 0, 0, 0]);
        self.root.as_u64() | pcid | if self.keep { KEEP } else { 0 }
    }

    /// The same, such that loading it keeps what is cached under its tag. Needs CR4.PCIDE: without
    /// it, bit 63 is reserved, and writing it faults.
    #[must_use]
    pub const fn keeping(self) -> Self {
        Self { keep: true, ..self }
    }

    /// The same, such that loading it flushes what is cached under its tag, but for global
    /// translations.
    #[must_use]
    pub const fn flushing(self) -> Self {
        Self { keep: false, ..self }
    }

    /// The same table for a processor with CR4.PCIDE clear: neither a tag nor bit 63.
    #[must_use]
    pub const fn without_tag(self) -> Self {
        Self { pcid: Pcid::ZERO, keep: false, ..self }
    }

    /// Where the table is.
    #[must_use]
    pub const fn root(self) -> PhysAddr {
        self.root
    }

    /// Under which tag.
    #[must_use]
    pub const fn pcid(self) -> Pcid {
        self.pcid
    }

    /// Whether loading it keeps what is cached.
    #[must_use]
    pub const fn keeps(self) -> bool {
        self.keep
    }

    /// Whether the processor can have a table there: `physical_bits` is
    /// [`Features::physical_bits`](crate::Features::physical_bits).
    #[must_use]
    pub const fn fits(self, physical_bits: u8) -> bool {
        physical_bits >= 52 || self.root.as_u64() >> physical_bits == 0
    }
}

/// The two tables of a space under page-table isolation, and their two tags.
///
/// ```
/// use vellum_core::PhysAddr;
/// use vellum_x86::{Pair, Pcid};
///
/// let pair = Pair::new(PhysAddr::new(0x8000), Pcid::new(5).unwrap()).unwrap();
/// assert_eq!(pair.kernel().bits(), 0x8005);
/// assert_eq!(pair.user().bits(), 0x9805);
/// assert_eq!(pair.kernel().bits() ^ Pair::SWITCH, pair.user().bits());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair(Cr3);

impl Pair {
    /// The bit of CR3 that chooses the root.
    pub const ROOT_BIT: u64 = 1 << 12;
    /// The bit of CR3 that chooses the tag.
    pub const PCID_BIT: u64 = 1 << 11;
    /// What an entry stub flips with PCIDs on; without, [`ROOT_BIT`](Self::ROOT_BIT) alone.
    pub const SWITCH: u64 = Self::ROOT_BIT | Self::PCID_BIT;
    /// How many tags there are for pairs.
    pub const COUNT: u16 = 1 << 11;

    /// The pair whose kernel root is at `root` and whose user root 4 KiB above, with the tags `pcid`
    /// and `pcid + 2048`. `None` unless `root` is aligned to 8 KiB and below 2<sup>52</sup>, and
    /// `pcid` below 2048.
    #[must_use]
    pub const fn new(root: PhysAddr, pcid: Pcid) -> Option<Self> {
        if pcid.0 >= Self::COUNT || root.as_u64() & Self::ROOT_BIT != 0 {
            return None;
        }
        match Cr3::new(root, pcid) {
            Some(kernel) => Some(Self(kernel)),
            None => None,
        }
    }

    /// The kernel's, flushing on load.
    #[must_use]
    pub const fn kernel(self) -> Cr3 {
        self.0
    }

    /// The user's, flushing on load. While CR4.PCIDE is clear there are no tags: `Cpu::load` leaves
    /// them out by itself, and an entry stub flips [`ROOT_BIT`](Self::ROOT_BIT) alone.
    #[must_use]
    pub const fn user(self) -> Cr3 {
        let root = PhysAddr::new(self.0.root.as_u64() | Self::ROOT_BIT);
        Cr3 { root, pcid: Pcid(self.0.pcid.0 | Self::COUNT), keep: false }
    }

    /// Whether `cr3`, of a pair, is the user's half.
    #[must_use]
    pub const fn is_user(cr3: Cr3) -> bool {
        cr3.root.as_u64() & Self::ROOT_BIT != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn roots_that_no_cr3_can_hold_are_refused() {
        for address in [1, 0x800, 0xfff, 1 << 52, u64::MAX] {
            assert_eq!(Cr3::new(PhysAddr::new(address), Pcid::ZERO), None, "{address:#x}");
        }
        let highest = PhysAddr::new((1 << 52) - 0x1000);
        let cr3 = Cr3::new(highest, Pcid::ZERO).unwrap();
        assert!(cr3.fits(52) && !cr3.fits(51) && cr3.fits(255));
    }

    #[test]
    fn bits_without_a_meaning_are_refused() {
        for bit in 52..63 {
            assert_eq!(Cr3::from_bits(1 << bit), None, "bit {bit}");
        }
    }

    #[test]
    fn tags_have_twelve_bits() {
        assert_eq!(Pcid::new(0xfff).map(Pcid::as_u16), Some(0xfff));
        assert_eq!(Pcid::new(0x1000), None);
        let asid = Asid::new(0x1000).unwrap();
        assert_eq!(Pcid::try_from(asid), Err(TooWide(asid)));
        assert_eq!(Pcid::try_from(Asid::ZERO), Ok(Pcid::ZERO));
    }

    #[test]
    fn pairs_need_room_for_both_halves() {
        let pcid = Pcid::new(0x7ff).unwrap();
        assert!(Pair::new(PhysAddr::new(0x2000), pcid).is_some());
        assert_eq!(Pair::new(PhysAddr::new(0x3000), pcid), None);
        assert_eq!(Pair::new(PhysAddr::new(0x2000), Pcid::new(0x800).unwrap()), None);
        assert_eq!(Pair::new(PhysAddr::new(1 << 52), pcid), None);
    }

    #[test]
    fn without_tags_only_the_root_differs() {
        let pair = Pair::new(PhysAddr::new(0x2000), Pcid::ZERO).unwrap();
        let [kernel, user] = [pair.kernel(), pair.user()].map(|cr3| cr3.without_tag().bits());
        assert_eq!((kernel, user), (0x2000, 0x3000));
        assert_eq!(kernel ^ Pair::ROOT_BIT, user);
        assert_eq!(pair.user().keeping().without_tag().bits(), 0x3000, "bit 63 would fault");
    }

    proptest! {
        #![proptest_config(crate::proptest_config())]

        #[test]
        fn what_is_written_is_what_is_read(root in any::<u64>(), pcid in 0u16..4096, keep in any::<bool>()) {
            let cr3 = Cr3::new(PhysAddr::new(root & ROOT), Pcid(pcid)).unwrap();
            let cr3 = if keep { cr3.keeping() } else { cr3 };
            prop_assert_eq!(Cr3::from_bits(cr3.bits()), Some(cr3));
            prop_assert_eq!(cr3.bits() >> 63 == 1, keep);
            prop_assert_eq!(Cr3::from_bits(cr3.flushing().bits()).unwrap().keeps(), false);
        }

        #[test]
        fn the_halves_of_a_pair_are_two_bits_apart(root in any::<u64>(), pcid in 0u16..2048) {
            let pair = Pair::new(PhysAddr::new(root & ROOT & !0x1000), Pcid(pcid)).unwrap();
            prop_assert_eq!(pair.kernel().bits() ^ pair.user().bits(), Pair::SWITCH);
            prop_assert!(Pair::is_user(pair.user()) && !Pair::is_user(pair.kernel()));
            prop_assert_ne!(pair.user().pcid(), pair.kernel().pcid());
        }
    }
}
