//! What a processor can do about paging, read out of CPUID's leaves.
//!
//! ```text
//!   leaf          register  bits
//!   0             eax       the highest basic leaf        ebx edx ecx   the vendor's name
//!   1             eax       stepping, model, family       ecx  17 PCID, 31 hypervisor
//!                                                         edx  13 PGE, 16 PAT
//!   7.0           ebx       7 SMEP, 10 INVPCID, 20 SMAP   ecx   2 UMIP, 3 PKU, 7 CET_SS,
//!                                                              16 LA57, 31 PKS
//!   80000000      eax       the highest extended leaf
//!   80000001      edx       20 NX, 26 leaves of 1 GiB, 29 long mode
//!   80000008      eax       7:0 physical bits, 15:8 linear bits
//! ```
//!
//! The leaves come through a function, so that recorded ones can be read on any machine.
//!
//! # Invariants
//!
//! - A leaf above the highest is never looked at: Intel's processors answer with another leaf's bits.
//! - Nothing is there unless its bit says so; widths are within what the architecture allows.
//!
//! Source: Intel SDM vol. 2A, "CPUID - CPU Identification"; vol. 3A, 5.1.4 "Enumeration of Paging
//! Features by CPUID"; AMD APM vol. 3, appendix E.

use core::fmt;

/// What CPUID leaves in its four registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's names for registers need no words")]
pub struct Registers {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

bitflags::bitflags! {
    /// Features that matter to paging.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Feature: u32 {
        /// 64-bit mode.
        const LONG_MODE = 1 << 0;
        /// Pages that may not be executed.
        const NX = 1 << 1;
        /// Global translations.
        const PGE = 1 << 2;
        /// A table of memory types by page.
        const PAT = 1 << 3;
        /// Leaves of 1 GiB.
        const GIB_LEAVES = 1 << 4;
        /// Five levels of tables.
        const LA57 = 1 << 5;
        /// Tags for translations: the kernel can keep several spaces' at once.
        const PCID = 1 << 6;
        /// The instruction that flushes by tag.
        const INVPCID = 1 << 7;
        /// The kernel cannot execute what user mode may reach.
        const SMEP = 1 << 8;
        /// The kernel cannot read or write what user mode may reach, unless it says so.
        const SMAP = 1 << 9;
        /// User mode cannot ask where descriptor tables are.
        const UMIP = 1 << 10;
        /// Protection keys for user pages.
        const PKU = 1 << 11;
        /// Protection keys for the kernel's pages.
        const PKS = 1 << 12;
        /// Shadow stacks.
        const SHADOW_STACKS = 1 << 13;
        /// Software stands between us and the processor.
        const HYPERVISOR = 1 << 14;
    }
}

/// Who made the processor, by its own word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Vendor {
    /// "GenuineIntel".
    Intel,
    /// "AuthenticAMD".
    Amd,
    /// "HygonGenuine": AMD's design.
    Hygon,
    /// Another name, in the order in which CPUID gives its bytes.
    Other([u8; 12]),
}

impl fmt::Display for Vendor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Intel => f.write_str("Intel"),
            Self::Amd => f.write_str("AMD"),
            Self::Hygon => f.write_str("Hygon"),
            Self::Other(name) => f.write_str(core::str::from_utf8(name).unwrap_or("unknown")),
        }
    }
}

/// Which processor it is, as errata name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Who made it.
    pub vendor: Vendor,
    /// The family, extension included.
    pub family: u16,
    /// The model, extension included.
    pub model: u8,
    /// The stepping.
    pub stepping: u8,
}

/// A processor, as far as paging goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Which one it is.
    pub signature: Signature,
    /// What it has.
    pub set: Feature,
    /// How many bits a physical address has (MAXPHYADDR): 32 to 52.
    pub physical_bits: u8,
    /// How many bits a linear address can have: 32 to 57. How many it has now is up to CR4.LA57.
    pub linear_bits: u8,
}

/// Which of the registers a bit is in.
type Register = fn(&Registers) -> u32;

/// A leaf whose sub-leaf is 0, a register of it, a bit of that, and what the bit says.
const BITS: [(u32, Register, u8, Feature); 15] = [
    (1, |r| r.ecx, 17, Feature::PCID),
    (1, |r| r.ecx, 31, Feature::HYPERVISOR),
    (1, |r| r.edx, 13, Feature::PGE),
    (1, |r| r.edx, 16, Feature::PAT),
    (7, |r| r.ebx, 7, Feature::SMEP),
    (7, |r| r.ebx, 10, Feature::INVPCID),
    (7, |r| r.ebx, 20, Feature::SMAP),
    (7, |r| r.ecx, 2, Feature::UMIP),
    (7, |r| r.ecx, 3, Feature::PKU),
    (7, |r| r.ecx, 7, Feature::SHADOW_STACKS),
    (7, |r| r.ecx, 16, Feature::LA57),
    (7, |r| r.ecx, 31, Feature::PKS),
    (0x8000_0001, |r| r.edx, 20, Feature::NX),
    (0x8000_0001, |r| r.edx, 26, Feature::GIB_LEAVES),
    (0x8000_0001, |r| r.edx, 29, Feature::LONG_MODE),
];

impl Features {
    /// What the leaves say; `leaf(number, sub)` is CPUID with these in eax and ecx.
    ///
    /// ```
    /// use vellum_x86::{Feature, Features, Registers};
    ///
    /// // A processor with no more than a name: nothing is there.
    /// let features = Features::parse(|_, _| Registers::default());
    /// assert_eq!(features.set, Feature::empty());
    /// assert_eq!((features.physical_bits, features.linear_bits), (32, 32));
    /// ```
    #[must_use]
    pub fn parse(leaf: impl Fn(u32, u32) -> Registers) -> Self {
        let name = leaf(0, 0);
        // With no extended leaves, the highest basic one's bits may come back instead.
        let extended = Some(leaf(0x8000_0000, 0).eax).filter(|highest| highest >> 16 == 0x8000);
        let there = |number: u32| match number >> 31 {
            0 => number <= name.eax,
            _ => extended.is_some_and(|highest| number <= highest),
        };
        let at = |number| if there(number) { leaf(number, 0) } else { Registers::default() };

        let mut set = Feature::empty();
        for (number, register, bit, feature) in BITS {
            set.set(feature, register(&at(number)) >> bit & 1 == 1);
        }
        let long = set.contains(Feature::LONG_MODE);
        let [physical, linear, ..] = at(0x8000_0008).eax.to_le_bytes();
        let (physical, linear) = match (there(0x8000_0008), long) {
            (true, _) => (physical, linear),
            // The manual's values for processors without this leaf.
            (false, true) => (36, 48),
            (false, false) => (32, 32),
        };
        Self {
            signature: Signature::parse(name, at(1).eax),
            set,
            physical_bits: physical.clamp(32, 52),
            linear_bits: linear.clamp(32, 57),
        }
    }

    /// What this processor says. On a hybrid one, other cores may say something else.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub fn read() -> Self {
        Self::parse(crate::instructions::cpuid)
    }

    /// Whether all of these are there.
    #[must_use]
    pub const fn has(&self, features: Feature) -> bool {
        self.set.contains(features)
    }
}

impl Signature {
    /// Leaf 0, and eax of leaf 1.
    fn parse(name: Registers, eax: u32) -> Self {
        let nibble = |shift: u32| (eax >> shift & 0xf).to_le_bytes()[0];
        let vendor = Vendor::parse(name);
        let (base, mut model) = (nibble(8), nibble(4));
        let [_, _, extension, _] = (eax >> 4).to_le_bytes();
        let family = u16::from(base) + if base == 0xf { u16::from(extension) } else { 0 };
        if base == 0xf || (base == 6 && vendor == Vendor::Intel) {
            model |= nibble(16) << 4;
        }
        Self { vendor, family, model, stepping: nibble(0) }
    }
}

impl Vendor {
    fn parse(Registers { ebx, ecx, edx, .. }: Registers) -> Self {
        let mut name = [0; 12];
        let words = [ebx, edx, ecx].into_iter().flat_map(u32::to_le_bytes);
        for (to, byte) in name.iter_mut().zip(words) {
            *to = byte;
        }
        match &name {
            b"GenuineIntel" => Self::Intel,
            b"AuthenticAMD" => Self::Amd,
            b"HygonGenuine" => Self::Hygon,
            _ => Self::Other(name),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
